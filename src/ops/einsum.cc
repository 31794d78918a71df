// einsum: each pair of operands is one matmul over [batch, free, contracted] (or a broadcast product when nothing is
// contracted), with the transposes that bring the labels into this order.
#include <algorithm>
#include <string>
#include <string_view>

#include "ops/common.h"

namespace bp {

using namespace ops;

namespace {
// A tensor whose axes are named by the letters of `labels`.
struct Labelled {
  Tensor value;
  std::string labels;
};

bool has(std::string_view labels, char c) { return labels.find(c) != std::string_view::npos; }

struct Equation {
  std::vector<std::string> inputs;
  std::string output;
};

std::string checked_labels(std::string_view labels, std::string_view equation) {
  for (char c : labels) {
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
      fail(ErrorKind::value, "[einsum] expected letters in \"{}\", got '{}'{}", equation, c,
           c == '.' ? ": the ellipsis is not supported, name the axes" : "");
    if (std::count(labels.begin(), labels.end(), c) > 1)
      fail(ErrorKind::value, "[einsum] expected every letter once in each operand of \"{}\", got '{}' twice in \"{}\"",
           equation, c, labels);
  }
  return std::string(labels);
}

Equation parse(std::string_view equation) {
  std::string text;
  std::copy_if(equation.begin(), equation.end(), std::back_inserter(text), [](char c) { return c != ' '; });
  const auto arrow = text.find("->");
  std::string_view left = std::string_view(text).substr(0, arrow);
  Equation e;
  for (std::size_t at = 0; at <= left.size();) {
    const std::size_t comma = std::min(left.find(',', at), left.size());
    e.inputs.push_back(checked_labels(left.substr(at, comma - at), equation));
    at = comma + 1;
  }
  if (arrow != std::string::npos) {
    e.output = checked_labels(std::string_view(text).substr(arrow + 2), equation);
  } else {  // NumPy's implicit output: the letters that occur once, in alphabetical order
    for (char c : left)
      if (c != ',' && std::count(left.begin(), left.end(), c) == 1) e.output += c;
    std::sort(e.output.begin(), e.output.end());
  }
  for (char c : e.output)
    if (!has(left, c)) fail(ErrorKind::value, "[einsum] output letter '{}' of \"{}\" is in no operand", c, equation);
  return e;
}

void check_sizes(const Equation& e, const std::vector<Tensor>& operands, const char* equation) {
  if (e.inputs.size() != operands.size())
    fail(ErrorKind::value, "[einsum] expected {} operands for \"{}\", got {}", e.inputs.size(), equation,
         operands.size());
  std::int64_t sizes[128];
  std::fill_n(sizes, 128, -1);
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Shape& shape = operands[i].shape();
    if (shape.rank() != static_cast<int>(e.inputs[i].size()))
      fail(ErrorKind::shape, "[einsum] expected {} dimensions (\"{}\" of \"{}\"), got {}", e.inputs[i].size(),
           e.inputs[i], equation, shape);
    for (int d = 0; d < shape.rank(); ++d) {
      const char c = e.inputs[i][static_cast<std::size_t>(d)];
      std::int64_t& size = sizes[static_cast<std::size_t>(c)];
      if (size >= 0 && size != shape[d])
        fail(ErrorKind::shape, "[einsum] expected one size for '{}' of \"{}\", got {} and {}", c, equation, size,
             shape[d]);
      size = shape[d];
    }
  }
}

Labelled arranged(const Labelled& x, const std::string& labels) {
  Axes permutation;
  for (char c : labels) permutation.push_back(static_cast<int>(x.labels.find(c)));
  return {transpose(x.value, permutation), labels};
}

// Sums over the letters that `wanted` does not hold.
Labelled without_unwanted(const Labelled& x, std::string_view wanted) {
  Axes axes;
  std::string left;
  for (std::size_t i = 0; i < x.labels.size(); ++i)
    if (has(wanted, x.labels[i]))
      left += x.labels[i];
    else
      axes.push_back(static_cast<int>(i));
  return axes.empty() ? x : Labelled{sum(x.value, axes), left};
}

// One side of a product: x as [batch, free, contracted], or as [batch, contracted, free] with `swapped` when that is
// its order already.
struct Side {
  Tensor value;
  bool swapped = false;
};

std::int64_t size_of_labels(const Labelled& x, std::string_view labels) {
  std::int64_t n = 1;
  for (char c : labels) n *= x.value.shape()[static_cast<int>(x.labels.find(c))];
  return n;
}

Side side(const Labelled& x, const std::string& batch, const std::string& free, const std::string& contracted) {
  const std::int64_t b = size_of_labels(x, batch), f = size_of_labels(x, free), c = size_of_labels(x, contracted);
  if (x.labels == batch + contracted + free && !free.empty()) return {reshape(x.value, Shape{b, c, f}), true};
  return {reshape(arranged(x, batch + free + contracted).value, Shape{b, f, c}), false};
}

Labelled contract(const Labelled& left, const Labelled& right, std::string_view wanted) {
  const Labelled a = without_unwanted(left, std::string(wanted) + right.labels);
  const Labelled b = without_unwanted(right, std::string(wanted) + left.labels);
  std::string batch, contracted, free_a, free_b;
  for (char c : a.labels) (!has(b.labels, c) ? free_a : has(wanted, c) ? batch : contracted) += c;
  for (char c : b.labels)
    if (!has(a.labels, c)) free_b += c;
  Labelled out{Tensor(), batch + free_a + free_b};
  Shape shape;
  for (char c : out.labels) shape.push_back(size_of_labels(has(a.labels, c) ? a : b, std::string_view(&c, 1)));
  const Side x = side(a, batch, free_a, contracted), y = side(b, batch, free_b, contracted);
  // Without anything to sum over, [B, m, 1] * [B, 1, n] is a broadcast product.
  const Tensor product = contracted.empty()
                             ? reshape(x.value, Shape{size_of_labels(a, batch), size_of_labels(a, free_a), 1}) *
                                   reshape(y.value, Shape{size_of_labels(b, batch), 1, size_of_labels(b, free_b)})
                             : matmul(x.value, y.value, x.swapped, !y.swapped);
  out.value = reshape(product, shape);
  return out;
}
}  // namespace

Tensor einsum(const char* equation, const std::vector<Tensor>& operands) {
  Scope scope("einsum");
  const Equation e = parse(equation);
  check_sizes(e, operands, equation);
  Labelled result{operands[0], e.inputs[0]};
  for (std::size_t i = 1; i < operands.size(); ++i) {
    std::string wanted = e.output;
    for (std::size_t k = i + 1; k < operands.size(); ++k) wanted += e.inputs[k];
    result = contract(result, {operands[i], e.inputs[i]}, wanted);
  }
  return arranged(without_unwanted(result, e.output), e.output).value;
}

}  // namespace bp

// scan: a loop whose body is a graph. Its gradient is another scan, over values that the forward loop keeps.
#include "bp/scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bp/grad.h"
#include "ir/flops.h"
#include "ops/common.h"
#include "ops/interpret.h"
#include "ops/scan_vjp.h"
#include "trace/body.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

std::vector<Type> infer_scan(const InferArgs& a) {
  const Graph& body = body_of(a.attrs);
  const ScanLayout layout(a.attrs);
  if (body.inputs.size() != a.in.size() || body.outputs.size() < layout.carries)
    fail(ErrorKind::shape, "[scan] the body has {} inputs for {} operands", body.inputs.size(), a.in.size());
  for (std::size_t i = 0; i < a.in.size(); ++i) {
    const bool slice = i >= layout.first_slice();
    if (slice && (a.in[i].shape.rank() == 0 || a.in[i].shape[0] != layout.length))
      fail(ErrorKind::shape, "[scan] expected xs [{}, ..], got {}", layout.length, a.in[i].shape);
    const Type &expected = body.nodes[body.inputs[i].node].types[0], got = slice ? slice_type(a.in[i]) : a.in[i];
    if (!(expected == got))
      fail(ErrorKind::shape, "[scan] input {} of the body is {}, got {}", i, expected.str(), got.str());
  }
  std::vector<Type> out;
  for (std::size_t k = 0; k < body.outputs.size(); ++k) {
    const Type& t = body.type(body.outputs[k].value);
    if (k < layout.carries && !(t == a.in[layout.invariants + k]))
      fail(t.dtype != a.in[layout.invariants + k].dtype ? ErrorKind::dtype : ErrorKind::shape,
           "[scan] carry {} must keep its type: expected {}, got {}", k, a.in[layout.invariants + k].str(), t.str());
    out.push_back(k < layout.carries ? t : stack_type(layout.length, t));
  }
  return out;
}

void reference_scan(const KernelArgs& k) {
  const Graph& body = body_of(k.attrs);
  const ScanLayout layout(k.attrs);
  std::vector<Buffer> carry;
  std::vector<const void*> in(k.in.size());
  for (std::size_t i = 0; i < k.in.size(); ++i) in[i] = k.in[i].data;
  for (std::int64_t i = 0; i < layout.length; ++i) {
    for (std::size_t j = layout.first_slice(); j < k.in.size(); ++j)
      in[j] = static_cast<const std::byte*>(k.in[j].data) +
              static_cast<std::size_t>(layout.at(i)) * slice_type(k.in[j].type).bytes();
    std::vector<Buffer> out = interpret(body, in);
    for (std::size_t j = layout.carries; j < out.size(); ++j)
      if (out[j].bytes() != 0)
        std::memcpy(static_cast<std::byte*>(k.out[j].data) + static_cast<std::size_t>(layout.at(i)) * out[j].bytes(),
                    out[j].data(), out[j].bytes());
    std::vector<Buffer> next;  // an output may be an input's memory: the old carries live until the copies are made
    for (std::size_t j = 0; j < layout.carries; ++j) next.push_back(out[j].clone());
    carry = std::move(next);
    for (std::size_t j = 0; j < layout.carries; ++j) in[layout.invariants + j] = carry[j].data();
  }
  for (std::size_t j = 0; j < layout.carries; ++j)
    if (k.out[j].type.bytes() != 0) std::memcpy(k.out[j].data, in[layout.invariants + j], k.out[j].type.bytes());
}

double flops_scan(std::span<const Type>, std::span<const Type>, const Attrs& attrs) {
  return static_cast<double>(attrs.integer("length")) * graph_flops(body_of(attrs));
}

}  // namespace

const OpDef op_scan{.name = "scan",
                    .cls = OpClass::other,
                    .flags = kNone,
                    .infer = infer_scan,
                    .vjp = vjp_scan,
                    .reference = reference_scan,
                    .flops = flops_scan,
                    .doc =
                        "carry = init; (carry, y[i]) = body(carry, x[i]): the last carries and the stacked y. "
                        "Operands: invariants, carries, slices."};

}  // namespace ir

using namespace ops;

namespace {

std::int64_t length_of(const std::vector<Tensor>& xs, const ScanOptions& options) {
  std::int64_t length = options.length;
  if (xs.empty() && length < 0) fail(ErrorKind::value, "[scan] without xs the length must be given");
  for (const Tensor& x : xs) {
    if (!x.defined()) fail(ErrorKind::value, "[scan] an undefined Tensor among xs");
    if (x.rank() == 0) fail(ErrorKind::shape, "[scan] expected xs of rank 1 or more, got a scalar");
    if (length < 0) length = x.shape()[0];
    if (x.shape()[0] != length)
      fail(ErrorKind::shape, "[scan] expected xs with {} slices, got {}", length, x.type().str());
  }
  return length;
}

void check_carries(const std::vector<Tensor>& init, const std::vector<Tensor>& carry) {
  if (carry.size() != init.size())
    fail(ErrorKind::value, "[scan] the body returned {} carries where {} are expected", carry.size(), init.size());
  for (std::size_t i = 0; i < carry.size(); ++i) {
    if (!carry[i].defined()) fail(ErrorKind::value, "[scan] the body returned an undefined carry {}", i);
    if (!(carry[i].type() == init[i].type()))
      fail(carry[i].dtype() != init[i].dtype() ? ErrorKind::dtype : ErrorKind::shape,
           "[scan] carry {} must keep its type: expected {}, got {}", i, init[i].type().str(), carry[i].type().str());
  }
}

// What records one scan node. `indexed`: the last of xs counts the iterations, for random draws; it is not the user's.
struct Loop {
  std::int64_t length;
  bool reverse, checkpoint, indexed;

  Scanned operator()(const ScanBody& body, const std::vector<Tensor>& init, const std::vector<Tensor>& xs) const {
    detail::Region region;
    std::vector<Tensor> arguments, roots;
    for (const Tensor& c : init) arguments.push_back(region.placeholder(c.type()));
    for (const Tensor& x : xs) arguments.push_back(region.placeholder(ir::slice_type(x.type())));
    if (indexed) region.index = arguments.back();
    const std::span<const Tensor> all(arguments);
    Scanned step = body(all.first(init.size()), all.subspan(init.size(), xs.size() - (indexed ? 1 : 0)));
    check_carries(init, step.carry);
    roots = step.carry;
    for (const Tensor& y : step.ys) {
      if (!y.defined()) fail(ErrorKind::value, "[scan] the body returned an undefined output");
      roots.push_back(y);
    }
    return record(region, roots, arguments, init, xs);
  }

 private:
  Scanned record(const detail::Region& region, const std::vector<Tensor>& roots, std::vector<Tensor> arguments,
                 const std::vector<Tensor>& init, const std::vector<Tensor>& xs) const {
    std::vector<Tensor> slices;
    if (const auto used = detail::capture_body(roots, arguments, region).used; !used.empty()) {
      for (std::size_t j = xs.size(); j-- > 0;)  // slices that nobody reads are no operands
        if (!used[init.size() + j]) arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(init.size() + j));
      for (std::size_t j = 0; j < xs.size(); ++j)
        if (used[init.size() + j]) slices.push_back(xs[j]);
    }
    const detail::CapturedBody captured = detail::capture_body(roots, arguments, region);
    std::vector<Tensor> operands = captured.invariants;
    operands.insert(operands.end(), init.begin(), init.end());
    operands.insert(operands.end(), slices.begin(), slices.end());
    const auto node =
        detail::record(OpId::scan, std::move(operands),
                       scan_attrs(captured.body, length, captured.invariants.size(), init.size(), reverse, checkpoint));
    Scanned out;
    for (std::uint32_t k = 0; k < node->types.size(); ++k) (k < init.size() ? out.carry : out.ys).emplace_back(node, k);
    return out;
  }
};

std::vector<Tensor> map_tensors(const std::vector<Tensor>& xs, const std::function<Tensor(const Tensor&)>& f) {
  std::vector<Tensor> out;
  for (const Tensor& x : xs) out.push_back(f(x));
  return out;
}

// [n * k, ..] -> [n, k, ..] and back.
Tensor split_axis0(const Tensor& x, std::int64_t n, std::int64_t k) {
  Shape s{n, k};
  for (int i = 1; i < x.rank(); ++i) s.push_back(x.shape()[i]);
  return reshape(x, s);
}
Tensor join_axis0(const Tensor& x) {
  Shape s{x.shape()[0] * x.shape()[1]};
  for (int i = 2; i < x.rank(); ++i) s.push_back(x.shape()[i]);
  return reshape(x, s);
}

// A loop over segments, each a loop that is recomputed in the backward pass.
Scanned scan_segments(const ScanBody& body, const std::vector<Tensor>& init, const std::vector<Tensor>& xs,
                      std::int64_t length, std::int64_t segment, bool reverse) {
  const auto segments = [&](std::int64_t count, std::int64_t k, const std::vector<Tensor>& carry,
                            const std::vector<Tensor>& slices) {
    const Loop inner{k, reverse, false, true}, outer{count, reverse, true, false};
    const auto parts = map_tensors(slices, [&](const Tensor& x) { return split_axis0(x, count, k); });
    Scanned out = outer(
        [&](std::span<const Tensor> c, std::span<const Tensor> x) {
          return inner(body, {c.begin(), c.end()}, {x.begin(), x.end()});
        },
        carry, parts);
    out.ys = map_tensors(out.ys, join_axis0);
    return out;
  };
  const std::int64_t rest = length % segment, whole = length - rest, split = reverse ? rest : whole;
  const auto part = [&](bool first) {
    return map_tensors(xs, [&](const Tensor& x) { return first ? slice(x, 0, 0, split) : slice(x, 0, split, length); });
  };
  if (rest == 0) return segments(length / segment, segment, init, xs);
  const Scanned main = segments(whole / segment, segment, init, part(!reverse));
  Scanned tail = segments(1, rest, main.carry, part(reverse));
  for (std::size_t i = 0; i < tail.ys.size(); ++i)
    tail.ys[i] = reverse ? concatenate({tail.ys[i], main.ys[i]}, 0) : concatenate({main.ys[i], tail.ys[i]}, 0);
  return tail;
}

}  // namespace

Scanned scan(const ScanBody& body, const std::vector<Tensor>& init, const std::vector<Tensor>& xs,
             const ScanOptions& options) {
  if (!body) fail(ErrorKind::value, "[scan] the body is empty");
  for (const Tensor& c : init)
    if (!c.defined()) fail(ErrorKind::value, "[scan] an undefined Tensor among the carries");
  const std::int64_t length = length_of(xs, options);
  if (options.segment < ScanOptions::kSqrt)
    fail(ErrorKind::value, "[scan] expected a segment of 0 or more iterations, or kSqrt, got {}", options.segment);
  std::int64_t segment = options.segment;
  if (segment == ScanOptions::kSqrt) segment = std::llround(std::ceil(std::sqrt(static_cast<double>(length))));
  std::vector<Tensor> slices = xs;
  slices.push_back(arange(length));
  if (segment == 0 || length == 0) return Loop{length, options.reverse, false, true}(body, init, slices);
  return scan_segments(body, init, slices, length, std::min(segment, length), options.reverse);
}

}  // namespace bp

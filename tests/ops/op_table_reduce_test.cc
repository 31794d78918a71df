// Rows of the op table: reductions, scans, statistics, sorting.
#include <algorithm>

#include "op_table.h"

namespace bp::test {
namespace {

using Reduction = std::function<Tensor(const Tensor&, const Axes&)>;
using Lane = std::function<double(const Values&)>;

// One value a lane: the elements whose other indices agree, in row-major order.
Formula lanes(Axes axes, Lane f) {
  return [axes, f](std::span<const Input> in, std::span<const Values> v) {
    const Shape& shape = in[0].shape;
    std::vector<bool> gone(static_cast<std::size_t>(shape.rank()), axes.empty());
    for (int a : axes) gone[static_cast<std::size_t>(a < 0 ? a + shape.rank() : a)] = true;
    Shape kept;
    for (int d = 0; d < shape.rank(); ++d)
      if (!gone[static_cast<std::size_t>(d)]) kept.push_back(shape[d]);
    std::vector<Values> all(static_cast<std::size_t>(kept.numel()));
    const Shape strides = row_major_strides(shape);
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      std::int64_t at = 0;
      for (int d = 0; d < shape.rank(); ++d)
        if (!gone[static_cast<std::size_t>(d)]) at = at * shape[d] + i / strides[d] % shape[d];
      all[static_cast<std::size_t>(at)].push_back(v[0][static_cast<std::size_t>(i)]);
    }
    Values out;
    for (const Values& lane : all) out.push_back(f(lane));
    return out;
  };
}

// Further shapes for the executable: wide rows, many rows, narrow columns.
std::vector<OpRow> also_large(std::vector<OpRow> rows) {
  const std::vector<Shape> shapes[] = {{{3, 5003}, {700, 65}}, {{5003, 3}, {65, 700}}, {{33, 17, 65}}, {{257, 129}}};
  for (std::size_t i = 0; i < std::size(shapes); ++i) {
    for (const Shape& s : shapes[i]) rows[i].large.push_back({{s}});
    rows[i].atol32 = 1e-4;  // sums of both signs
  }
  return rows;
}

// The same reduction over the last, the first, two and all axes.
std::vector<OpRow> over(const std::string& name, const Reduction& f, const Lane& lane, bool empty_lanes,
                        bool second_order = true) {
  std::vector<OpRow> rows;
  const auto add = [&](const Axes& axes, const std::vector<Shape>& shapes) {
    OpRow r{name, [f, axes](std::span<const Tensor> x) { return std::vector<Tensor>{f(x[0], axes)}; }, {}};
    for (const Shape& s : shapes) r.cases.push_back({{s}});
    r.expected = lanes(axes, lane);
    r.second_order = second_order;
    r.rtol = 1e-11;
    rows.push_back(std::move(r));
  };
  add({-1}, {{3, 7}, {33}, {2, 3, 1}, {0, 3}});
  add({0}, {{3, 7}, {17, 2}, {1, 5}, {3, 0}});
  add({0, 2}, {{2, 3, 4}, {1, 2, 5}, {5, 1, 1}});
  add({}, {{3, 5}, {}, {1}, {2, 2, 2}});
  if (empty_lanes) add({1}, {{3, 0}, {0, 0}});
  return rows;
}

double total(const Values& v) {
  long double sum = 0;
  for (double x : v) sum += x;
  return static_cast<double>(sum);
}
double average(const Values& v) { return total(v) / static_cast<double>(v.size()); }
double spread(const Values& v) {
  Values squares;
  for (double x : v) squares.push_back(std::pow(x - average(v), 2));
  return average(squares);
}
double product_of(const Values& v) {
  double p = 1;
  for (double x : v) p *= x;
  return p;
}
double length(const Values& v) {
  double s = 0;
  for (double x : v) s = std::hypot(s, x);
  return s;
}
double log_of_sum(const Values& v) {
  double s = 0;
  for (double x : v) s += std::exp(x);
  return std::log(s);
}

const AddRows sums(also_large(over(
    "reduce_sum", [](const Tensor& x, const Axes& a) { return sum(x, a); }, total, true)));
const AddRows maxima(also_large(over(
    "reduce_max", [](const Tensor& x, const Axes& a) { return max(x, a); },
    [](const Values& v) { return *std::max_element(v.begin(), v.end()); }, false)));
const AddRows minima(also_large(over(
    "reduce_min", [](const Tensor& x, const Axes& a) { return min(x, a); },
    [](const Values& v) { return *std::min_element(v.begin(), v.end()); }, false)));
const AddRows products(over(
    "reduce_prod", [](const Tensor& x, const Axes& a) { return prod(x, a); }, product_of, true));
const AddRows means(also_large(over(
    "mean", [](const Tensor& x, const Axes& a) { return mean(x, a); }, average, false)));
const AddRows variances(also_large(over(
    "var", [](const Tensor& x, const Axes& a) { return var(x, a); }, spread, false)));
const AddRows norms(also_large(over(
    "norm", [](const Tensor& x, const Axes& a) { return norm(x, a); }, length, false)));
const AddRows logs(also_large(over(
    "logsumexp", [](const Tensor& x, const Axes& a) { return logsumexp(x, a); }, log_of_sum, false)));

// Zeros among the factors: one in the first lane, two in the second, three in the last.
OpRow zeros_row() {
  OpRow r{"reduce_prod",
          [](std::span<const Tensor> x) { return std::vector<Tensor>{prod(x[0], {1})}; },
          {{{{4, 3}, f64, 0, 0, {0, 2, 3, 0, 0, 5, 1, -2, 4, 0, 0, 0}}}}};
  r.expected = lanes({1}, product_of);
  return r;
}

OpRow position(std::string name, std::function<Tensor(const Tensor&)> f, Lane lane) {
  return {std::move(name),
          [f = std::move(f)](std::span<const Tensor> x) { return std::vector<Tensor>{f(x[0])}; },
          {{{{3, 7}}}, {{{33}}}, {{{2, 3, 1}}}, {{{0, 3}}}},
          lanes({-1}, std::move(lane)),
          Gradient::none};
}

// Sorts the rows of the last axis.
Formula sorted_rows(bool descending) {
  return [descending](std::span<const Input> in, std::span<const Values> v) {
    Values out = v[0];
    const auto n = static_cast<std::ptrdiff_t>(in[0].shape.back());
    for (auto at = out.begin(); n != 0 && at != out.end(); at += n) {
      std::sort(at, at + n);
      if (descending) std::reverse(at, at + n);
    }
    return out;
  };
}

Values running(std::span<const Input> in, std::span<const Values> v) {
  Values out = v[0];
  const auto n = static_cast<std::size_t>(in[0].shape.back());
  for (std::size_t i = 0; i < out.size(); ++i)
    if (i % n != 0) out[i] += out[i - 1];
  return out;
}

const AddRows others({
    zeros_row(),
    position(
        "argmax", [](const Tensor& x) { return argmax(x); },
        [](const Values& v) { return static_cast<double>(std::max_element(v.begin(), v.end()) - v.begin()); }),
    position(
        "argmin", [](const Tensor& x) { return argmin(x); },
        [](const Values& v) { return static_cast<double>(std::min_element(v.begin(), v.end()) - v.begin()); }),
    {"cumsum",
     [](std::span<const Tensor> x) { return one(cumsum(x[0], -1)); },
     {{{{3, 7}}}, {{{33}}}, {{{2, 1}}}, {{{3, 0}}}},
     running},
    {"cumsum",
     [](std::span<const Tensor> x) { return one(square(cumsum(x[0], 0, true))); },
     {{{{3, 7}}}, {{{5}}}, {{{1, 2}}}}},
    {"var", [](std::span<const Tensor> x) { return one(var(x[0], {0}, true, 1)); }, {{{{3, 7}}}, {{{5}}}}},
    {"sort",
     [](std::span<const Tensor> x) { return one(sort(x[0]).first); },
     {{{{3, 7}}}, {{{33}}}, {{{2, 1}}}, {{{2, 0}}}},
     sorted_rows(false)},
    {"sort",
     [](std::span<const Tensor> x) { return one(sort(x[0], -1, true).first); },
     {{{{3, 7}}}, {{{33}}}},
     sorted_rows(true)},
    {"sort", [](std::span<const Tensor> x) { return one(square(sort(x[0], 0).first)); }, {{{{5, 2, 3}}}}},
    {"top_k", [](std::span<const Tensor> x) { return one(square(top_k(x[0], 3, 0).first)); }, {{{{5, 2}}}, {{{3}}}}},
});

}  // namespace
}  // namespace bp::test

// cumsum, and the statistics composed of reductions: mean, var, norm, logsumexp.
#include <algorithm>
#include <limits>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
std::vector<Type> infer_cumsum(const InferArgs& a) {
  const Type& in = a.in[0];
  normalize_axis(static_cast<int>(a.attrs.integer("axis")), in.shape.rank(), "cumsum");
  return {{is_float(in.dtype) ? in.dtype : DType::i64, in.shape}};
}

void reference_cumsum(const KernelArgs& k) {
  const AxisView v(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  const bool reversed = k.attrs.flag("reversed");
  dispatch(k.in[0].type.dtype, [&](auto in_zero) {
    using T = decltype(in_zero);
    using Acc = std::conditional_t<is_float(dtype_of<T>), double, std::int64_t>;
    using Out = std::conditional_t<is_float(dtype_of<T>), T, std::int64_t>;
    for (std::int64_t o = 0; o < v.outer; ++o)
      for (std::int64_t i = 0; i < v.inner; ++i) {
        const std::int64_t lane = o * v.n * v.inner + i;
        Acc acc = 0;
        for (std::int64_t j = 0; j < v.n; ++j) {
          const std::int64_t at = lane + (reversed ? v.n - 1 - j : j) * v.inner;
          acc += static_cast<Acc>(static_cast<arithmetic_t<T>>(k.in[0].as<T>()[at]));
          k.out[0].as<Out>()[at] = static_cast<Out>(static_cast<arithmetic_t<Out>>(acc));
        }
      }
  });
}
}  // namespace

const OpDef op_cumsum{
    .name = "cumsum",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = infer_cumsum,
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
      return {cumsum(v.d(), static_cast<int>(v.attrs.integer("axis")), !v.attrs.flag("reversed"))};
    },
    .reference = reference_cumsum,
    .doc = "Running sums along `axis` (from the end when `reversed`); integers and booleans give i64."};

}  // namespace ir

using namespace ops;

namespace {
// How many elements one output element is made of.
std::int64_t lane_size(const Tensor& x, const Axes& axes, const char* op) {
  std::int64_t n = 1;
  for (auto a : normalize_axes(axes, x.rank(), op)) n *= x.shape()[static_cast<int>(a)];
  return n;
}
}  // namespace

Tensor cumsum(const Tensor& x, int axis, bool reversed) {
  return record1(OpId::cumsum, {x},
                 {{"axis", std::int64_t{normalize_axis(axis, x.rank(), "cumsum")}}, {"reversed", reversed}});
}

Tensor mean(const Tensor& x, const Axes& axes, bool keep) {
  return sum(to_float(x), axes, keep) / static_cast<double>(lane_size(x, axes, "mean"));
}

Tensor var(const Tensor& x, const Axes& axes, bool keep, int correction) {
  const Tensor y = to_float(x);
  const std::int64_t degrees = std::max<std::int64_t>(lane_size(x, axes, "var") - correction, 0);
  return sum(square(y - mean(y, axes, true)), axes, keep) / static_cast<double>(degrees);
}

Tensor norm(const Tensor& x, const Axes& axes, bool keep) {
  const Tensor squares = sum(square(to_float(x)), axes, keep);
  const Tensor zero = equal(squares, 0);  // sqrt has no gradient there: the branch that is taken instead is constant
  return select(zero, zeros_like(squares), sqrt(select(zero, ones_like(squares), squares)));
}

// log(sum(exp(x - m))) + m with m = max(x). Rows of -inf give -inf, with a gradient of zero.
Tensor logsumexp(const Tensor& x, const Axes& axes, bool keep) {
  Scope scope("logsumexp");
  const Tensor y = to_float(x);
  const Ints over = normalize_axes(axes, x.rank(), "logsumexp");
  if (lane_size(x, axes, "logsumexp") == 0)
    return full(keep ? with_ones(x.shape(), over) : without_axes(x.shape(), over),
                -std::numeric_limits<double>::infinity(), y.dtype());
  const Tensor highest = stop_gradient(max(y, axes, true));
  const Tensor m = select(isfinite(highest), highest, zeros_like(highest));
  const Tensor total = sum(exp(y - m), axes, true);
  const Tensor empty = equal(total, 0);
  const Tensor logs = log(select(empty, ones_like(total), total)) + m;
  const Tensor out = select(empty, full(total.shape(), -std::numeric_limits<double>::infinity(), y.dtype()), logs);
  return keep ? out : reshape(out, without_axes(x.shape(), over));
}

}  // namespace bp

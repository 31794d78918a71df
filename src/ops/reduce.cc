// Reductions over axes: sum, max, min, prod with their rules, and argmax, argmin. statistics.cc composes mean, var,
// norm and logsumexp of them.
#include <fmt/format.h>

#include <algorithm>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
double flops_of_input(std::span<const Type> in, std::span<const Type>, const Attrs&) {
  return static_cast<double>(in[0].shape.numel());
}

Shape reduced_shape(const InferArgs& a, const char* op) {
  const Shape& in = a.in[0].shape;
  const Ints& axes = a.attrs.ints("axes");
  for (std::size_t i = 0; i < axes.size(); ++i)
    if (axes[i] < 0 || axes[i] >= in.rank() || (i > 0 && axes[i] <= axes[i - 1]))
      fail(ErrorKind::shape, "[{}] expected ascending axes of {}, got [{}]", op, in, fmt::join(axes, ", "));
  return without_axes(in, axes);
}

// Sums and products of integers and booleans are i64.
std::vector<Type> infer_accumulated(const InferArgs& a, const char* op) {
  const DType t = a.in[0].dtype;
  return {{is_float(t) ? t : DType::i64, reduced_shape(a, op)}};
}

std::vector<Type> infer_extremum(const InferArgs& a, const char* op) {
  const Shape& in = a.in[0].shape;
  const Shape out = reduced_shape(a, op);
  if (in.numel() == 0 && out.numel() != 0)
    fail(ErrorKind::shape, "[{}] expected at least one element to choose from, got {} over axes [{}]", op, in,
         fmt::join(a.attrs.ints("axes"), ", "));
  return {{a.in[0].dtype, out}};
}

// out(i, first) once an output element, then in(at) for each of its elements.
struct Lanes {
  Shape kept, reduced;
  Place outer, inner;
  Lanes(const Shape& in, const Ints& axes) {
    const Strides strides = strides_of(in);
    for (int d = 0; d < in.rank(); ++d) {
      const bool gone = std::find(axes.begin(), axes.end(), d) != axes.end();
      Shape& shape = gone ? reduced : kept;
      (gone ? inner : outer).strides[static_cast<std::size_t>(shape.rank())] = strides[static_cast<std::size_t>(d)];
      shape.push_back(in[d]);
    }
  }
};

// Accumulates in f64 (floats) or i64 (integers and booleans): out = fold of join over the lane, from `start`.
template <class F> void reference_reduce(const KernelArgs& k, double start, F join) {
  const Lanes lanes(k.in[0].type.shape, k.attrs.ints("axes"));
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using Acc = std::conditional_t<is_float(dtype_of<T>), double, std::int64_t>;
    using Out = std::conditional_t<is_float(dtype_of<T>), T, std::int64_t>;
    const T* x = k.in[0].as<T>();
    Out* y = k.out[0].as<Out>();
    walk(lanes.kept, lanes.outer, [&](std::int64_t base) {
      Acc acc = static_cast<Acc>(start);
      Place inner = lanes.inner;
      inner.base = base;
      walk(lanes.reduced, inner,
           [&](std::int64_t at) { acc = join(acc, static_cast<Acc>(static_cast<arithmetic_t<T>>(x[at]))); });
      *y++ = static_cast<Out>(acc);
    });
  });
}

// The extremum of a lane, seeded with its first element. `better(a, b)`: a replaces b. NaN beats everything.
template <class F> void reference_extremum(const KernelArgs& k, F better) {
  const Lanes lanes(k.in[0].type.shape, k.attrs.ints("axes"));
  if (k.in[0].type.shape.numel() == 0) return;
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    const T* x = k.in[0].as<T>();
    T* y = k.out[0].as<T>();
    walk(lanes.kept, lanes.outer, [&](std::int64_t base) {
      A best = static_cast<A>(x[base]);
      Place inner = lanes.inner;
      inner.base = base;
      walk(lanes.reduced, inner, [&](std::int64_t at) {
        const A v = static_cast<A>(x[at]);
        if (v != v || better(v, best)) best = v;
      });
      *y++ = static_cast<T>(best);
    });
  });
}

// The gradient is shared equally by the elements that equal the extremum. The mask is piecewise constant: it is made of
// stopped values, so that second derivatives are zero instead of an error.
std::vector<Tensor> vjp_extremum(const VjpArgs& v) {
  const Tensor x = stop_gradient(v.in[0]), best = stop_gradient(v.out[0]);
  const Ints& axes = v.attrs.ints("axes");
  const Tensor hit = equal(x, expand_reduced(best, x.shape(), axes));
  const Tensor count = sum(cast(hit, x.dtype()), Axes(axes.begin(), axes.end()));
  const Tensor share = expand_reduced(v.d() / count, x.shape(), axes);
  return {select(hit, share, zeros_like(x))};
}

// out[.., i] = product of x[.., j] for j < i, by doubling steps: log2(n) products of shifted copies.
Tensor exclusive_product(const Tensor& x, bool reversed) {
  const Shape& shape = x.shape();
  const auto last = static_cast<std::size_t>(shape.rank() - 1);
  const auto shifted = [&](const Tensor& t, std::int64_t by) {
    Ints low(last + 1, 0), high(last + 1, 0);
    low[last] = reversed ? -by : by;
    high[last] = -low[last];
    return pad(t, low, high, 1);
  };
  Tensor out = shifted(x, 1);
  for (std::int64_t by = 1; by < shape.back(); by *= 2) out = out * shifted(out, by);
  return out;
}

// d prod / d x_i = product of all the others, without dividing: right where elements are 0, to any order.
std::vector<Tensor> vjp_prod(const VjpArgs& v) {
  const Tensor& x = v.in[0];
  const Ints& axes = v.attrs.ints("axes");
  if (x.numel() == 0) return {zeros_like(x)};
  Axes to_back, to_front(static_cast<std::size_t>(x.rank()));
  for (int d = 0; d < x.rank(); ++d)
    if (std::find(axes.begin(), axes.end(), d) == axes.end()) to_back.push_back(d);
  Shape rows = without_axes(x.shape(), axes);
  rows.push_back(x.numel() / rows.numel());
  for (auto a : axes) to_back.push_back(static_cast<int>(a));
  for (std::size_t i = 0; i < to_back.size(); ++i) to_front[static_cast<std::size_t>(to_back[i])] = static_cast<int>(i);
  const Tensor moved = transpose(x, to_back), lanes = reshape(moved, rows);
  const Tensor others = exclusive_product(lanes, false) * exclusive_product(lanes, true);
  return {expand_reduced(v.d(), x.shape(), axes) * transpose(reshape(others, moved.shape()), to_front)};
}

std::vector<Type> infer_arg(const InferArgs& a, const char* op) {
  const Shape& in = a.in[0].shape;
  const int axis = normalize_axis(static_cast<int>(a.attrs.integer("axis")), in.rank(), op);
  Shape out = in;
  out.erase(axis);
  if (in[axis] == 0 && out.numel() != 0)
    fail(ErrorKind::shape, "[{}] expected at least one element to choose from, got {} along axis {}", op, in, axis);
  return {{DType::i64, out}};
}

// The first among equals; the first NaN when there is one.
template <class F> void reference_arg(const KernelArgs& k, F better) {
  const AxisView v(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  if (v.n == 0) return;
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    const T* x = k.in[0].as<T>();
    auto* y = k.out[0].as<std::int64_t>();
    for (std::int64_t o = 0; o < v.outer; ++o)
      for (std::int64_t i = 0; i < v.inner; ++i) {
        const T* lane = x + o * v.n * v.inner + i;
        std::int64_t best = 0;
        for (std::int64_t j = 1; j < v.n; ++j) {
          const A now = static_cast<A>(lane[best * v.inner]), next = static_cast<A>(lane[j * v.inner]);
          if (now == now && (next != next || better(next, now))) best = j;
        }
        *y++ = best;
      }
  });
}

constexpr auto kLarger = [](auto a, auto b) { return a > b; };
constexpr auto kSmaller = [](auto a, auto b) { return a < b; };
}  // namespace

const OpDef op_reduce_sum{
    .name = "reduce_sum",
    .cls = OpClass::reduction,
    .flags = kNone,
    .infer = [](const InferArgs& a) { return infer_accumulated(a, "reduce_sum"); },
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
      return {expand_reduced(v.d(), v.in[0].shape(), v.attrs.ints("axes"))};
    },
    .reference = [](const KernelArgs& k) { reference_reduce(k, 0, [](auto a, auto b) { return a + b; }); },
    .flops = flops_of_input,
    .doc = "Sum over `axes`; integers and booleans give i64."};

const OpDef op_reduce_max{.name = "reduce_max",
                          .cls = OpClass::reduction,
                          .flags = kNone,
                          .infer = [](const InferArgs& a) { return infer_extremum(a, "reduce_max"); },
                          .vjp = vjp_extremum,
                          .reference = [](const KernelArgs& k) { reference_extremum(k, kLarger); },
                          .flops = flops_of_input,
                          .doc = "Largest element over `axes`; NaN propagates; ties share the gradient."};

const OpDef op_reduce_min{.name = "reduce_min",
                          .cls = OpClass::reduction,
                          .flags = kNone,
                          .infer = [](const InferArgs& a) { return infer_extremum(a, "reduce_min"); },
                          .vjp = vjp_extremum,
                          .reference = [](const KernelArgs& k) { reference_extremum(k, kSmaller); },
                          .flops = flops_of_input,
                          .doc = "Smallest element over `axes`; NaN propagates; ties share the gradient."};

const OpDef op_reduce_prod{
    .name = "reduce_prod",
    .cls = OpClass::reduction,
    .flags = kNone,
    .infer = [](const InferArgs& a) { return infer_accumulated(a, "reduce_prod"); },
    .vjp = vjp_prod,
    .reference = [](const KernelArgs& k) { reference_reduce(k, 1, [](auto a, auto b) { return a * b; }); },
    .flops = flops_of_input,
    .doc = "Product over `axes`; integers and booleans give i64."};

const OpDef op_argmax{.name = "argmax",
                      .cls = OpClass::other,
                      .flags = kNotDifferentiable,
                      .infer = [](const InferArgs& a) { return infer_arg(a, "argmax"); },
                      .vjp = nullptr,
                      .reference = [](const KernelArgs& k) { reference_arg(k, kLarger); },
                      .flops = flops_of_input,
                      .doc = "Position (i64) of the first largest element along `axis`, which vanishes."};

const OpDef op_argmin{.name = "argmin",
                      .cls = OpClass::other,
                      .flags = kNotDifferentiable,
                      .infer = [](const InferArgs& a) { return infer_arg(a, "argmin"); },
                      .vjp = nullptr,
                      .reference = [](const KernelArgs& k) { reference_arg(k, kSmaller); },
                      .flops = flops_of_input,
                      .doc = "Position (i64) of the first smallest element along `axis`, which vanishes."};

}  // namespace ir

using namespace ops;

namespace {
Tensor reduce(OpId op, const Tensor& x, const Axes& axes, bool keep) {
  const Ints over = normalize_axes(axes, x.rank(), ir::name_of(op));
  const Tensor out = record1(op, {x}, {{"axes", over}});
  return keep ? reshape(out, with_ones(x.shape(), over)) : out;
}
}  // namespace

Tensor sum(const Tensor& x, const Axes& axes, bool keep) { return reduce(OpId::reduce_sum, x, axes, keep); }
Tensor max(const Tensor& x, const Axes& axes, bool keep) { return reduce(OpId::reduce_max, x, axes, keep); }
Tensor min(const Tensor& x, const Axes& axes, bool keep) { return reduce(OpId::reduce_min, x, axes, keep); }
Tensor prod(const Tensor& x, const Axes& axes, bool keep) { return reduce(OpId::reduce_prod, x, axes, keep); }

Tensor argmax(const Tensor& x, int axis) {
  return record1(OpId::argmax, {x}, {{"axis", std::int64_t{normalize_axis(axis, x.rank(), "argmax")}}});
}
Tensor argmin(const Tensor& x, int axis) {
  return record1(OpId::argmin, {x}, {{"axis", std::int64_t{normalize_axis(axis, x.rank(), "argmin")}}});
}

}  // namespace bp

// Stable sorting along an axis, and top_k made of it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
std::vector<Type> infer_sort(const InferArgs& a) {
  normalize_axis(static_cast<int>(a.attrs.integer("axis")), a.in[0].shape.rank(), "sort");
  return {a.in[0], {DType::i64, a.in[0].shape}};
}

void reference_sort(const KernelArgs& k) {
  const AxisView v(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  const bool descending = k.attrs.flag("descending");
  std::vector<std::int64_t> order(static_cast<std::size_t>(v.n));
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    for (std::int64_t lane = 0; lane < v.outer * v.inner; ++lane) {
      const std::int64_t base = lane / v.inner * v.n * v.inner + lane % v.inner;
      const T* x = k.in[0].as<T>() + base;
      const auto value = [&](std::int64_t i) { return static_cast<A>(x[i * v.inner]); };
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
        const A a = value(descending ? j : i), b = value(descending ? i : j);
        return a < b || (a == a && b != b);  // NaN is larger than everything else
      });
      for (std::int64_t j = 0; j < v.n; ++j) {
        const std::int64_t from = order[static_cast<std::size_t>(j)];
        k.out[0].as<T>()[base + j * v.inner] = x[from * v.inner];
        k.out[1].as<std::int64_t>()[base + j * v.inner] = from;
      }
    }
  });
}

std::vector<Tensor> vjp_sort(const VjpArgs& v) {
  if (!v.d().defined()) return {Tensor()};
  const int axis = static_cast<int>(v.attrs.integer("axis"));
  return {scatter_along(v.d(), v.out[1], axis, v.in[0].shape()[axis])};
}

double flops_sort(std::span<const Type> in, std::span<const Type>, const Attrs& attrs) {
  const auto n = static_cast<double>(in[0].shape[static_cast<int>(attrs.integer("axis"))]);
  return static_cast<double>(in[0].shape.numel()) * std::max(std::log2(n), 1.0);
}
}  // namespace

const OpDef op_sort{.name = "sort",
                    .cls = OpClass::other,
                    .flags = kNone,
                    .infer = infer_sort,
                    .vjp = vjp_sort,
                    .reference = reference_sort,
                    .flops = flops_sort,
                    .doc =
                        "Stable sort along `axis` (ascending, or `descending`), NaN largest: values and i64 "
                        "positions."};

}  // namespace ir

using namespace ops;

std::pair<Tensor, Tensor> sort(const Tensor& x, int axis, bool descending) {
  const std::int64_t a = normalize_axis(axis, x.rank(), "sort");
  const auto node = record(OpId::sort, {x}, {{"axis", a}, {"descending", descending}});
  return {Tensor(node, 0), Tensor(node, 1)};
}

std::pair<Tensor, Tensor> top_k(const Tensor& x, int k, int axis) {
  const int a = normalize_axis(axis, x.rank(), "top_k");
  if (k < 0 || k > x.shape()[a])
    fail(ErrorKind::shape, "[top_k] expected 0 <= k <= {} (axis {} of {}), got {}", x.shape()[a], axis, x.shape(), k);
  const auto [values, positions] = sort(x, a, true);
  return {slice(values, a, 0, k), slice(positions, a, 0, k)};
}

}  // namespace bp

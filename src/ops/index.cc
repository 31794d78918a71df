// Reading and adding by integer positions: gather and scatter_add of whole slices, take_along and scatter_along of
// elements, and one_hot. A position outside [0, n) reads NaN (0 for integers) and adds nothing.
#include <algorithm>
#include <limits>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
void require_indices(const Type& t, const char* op) {
  if (t.dtype != DType::i32 && t.dtype != DType::i64)
    fail(ErrorKind::dtype, "[{}] expected indices of dtype i32 or i64, got {}", op, t.str());
}

template <class T> T missing() {
  if constexpr (is_float(dtype_of<T>))
    return static_cast<T>(std::numeric_limits<arithmetic_t<T>>::quiet_NaN());
  else
    return T{};
}

// Sums in f64 (floats) or i64 (integers), rounded once.
template <class T> using sum_t = std::conditional_t<is_float(dtype_of<T>), double, std::int64_t>;

template <class T> void store_sums(const std::vector<sum_t<T>>& sums, T* y) {
  for (std::size_t i = 0; i < sums.size(); ++i) y[i] = static_cast<T>(static_cast<arithmetic_t<T>>(sums[i]));
}

// true where the entry counts, in the shape of the indices.
Tensor inside(const Tensor& indices, std::int64_t n) {
  return logical_and(indices >= 0.0, indices < static_cast<double>(n));
}

std::vector<Type> infer_gather(const InferArgs& a) {
  const Shape &x = a.in[0].shape, &indices = a.in[1].shape;
  const int axis = normalize_axis(static_cast<int>(a.attrs.integer("axis")), x.rank(), "gather");
  require_indices(a.in[1], "gather");
  Shape out;
  for (int d = 0; d < axis; ++d) out.push_back(x[d]);
  for (auto n : indices) out.push_back(n);
  for (int d = axis + 1; d < x.rank(); ++d) out.push_back(x[d]);
  return {{a.in[0].dtype, out}};
}

void reference_gather(const KernelArgs& k) {
  const AxisView v(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  const std::int64_t count = k.in[1].type.shape.numel();
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* x = k.in[0].as<T>();
    T* y = k.out[0].as<T>();
    for (std::int64_t o = 0; o < v.outer; ++o)
      for (std::int64_t c = 0; c < count; ++c, y += v.inner) {
        const std::int64_t i = index_at(k.in[1], c);
        if (i < 0 || i >= v.n)
          std::fill_n(y, v.inner, missing<T>());
        else
          std::copy_n(x + (o * v.n + i) * v.inner, v.inner, y);
      }
  });
}

// The gathered axis comes first, where scatter_add adds slices.
std::vector<Tensor> vjp_gather(const VjpArgs& v) {
  const int axis = static_cast<int>(v.attrs.integer("axis")), index_rank = v.in[1].rank();
  const Shape& shape = v.in[0].shape();
  if (axis == 0) return {scatter_add(shape, v.in[1], v.d()), Tensor()};
  Axes indices_first, axis_back;
  for (int d = 0; d < index_rank; ++d) indices_first.push_back(axis + d);
  for (int d = 0; d < v.d().rank(); ++d)
    if (d < axis || d >= axis + index_rank) indices_first.push_back(d);
  Shape moved{shape[axis]};
  for (int d = 0; d < shape.rank(); ++d) {
    if (d != axis) moved.push_back(shape[d]);
    axis_back.push_back(d == axis ? 0 : d < axis ? d + 1 : d);
  }
  return {transpose(scatter_add(moved, v.in[1], transpose(v.d(), indices_first)), axis_back), Tensor()};
}

std::vector<Type> infer_scatter_add(const InferArgs& a) {
  const Shape shape = a.attrs.shape("shape");
  require_indices(a.in[0], "scatter_add");
  if (shape.rank() == 0) fail(ErrorKind::shape, "[scatter_add] expected a shape with an axis to add along, got []");
  Shape expected = a.in[0].shape;
  for (int d = 1; d < shape.rank(); ++d) expected.push_back(shape[d]);
  if (!(a.in[1].shape == expected))
    fail(ErrorKind::shape, "[scatter_add] expected updates {} for indices {} into {}, got {}", expected, a.in[0].shape,
         shape, a.in[1].shape);
  if (a.in[1].dtype == DType::boolean)
    fail(ErrorKind::dtype, "[scatter_add] expected numbers to add, got {}", a.in[1].str());
  return {{a.in[1].dtype, shape}};
}

void reference_scatter_add(const KernelArgs& k) {
  const AxisView v(k.out[0].type.shape, 0);
  dispatch(k.out[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* updates = k.in[1].as<T>();
    std::vector<sum_t<T>> sums(static_cast<std::size_t>(v.n * v.inner));
    for (std::int64_t c = 0; c < k.in[0].type.shape.numel(); ++c) {
      const std::int64_t i = index_at(k.in[0], c);
      if (i < 0 || i >= v.n) continue;
      for (std::int64_t j = 0; j < v.inner; ++j)
        sums[static_cast<std::size_t>(i * v.inner + j)] +=
            static_cast<sum_t<T>>(static_cast<arithmetic_t<T>>(updates[c * v.inner + j]));
    }
    store_sums(sums, k.out[0].as<T>());
  });
}

std::vector<Tensor> vjp_scatter_add(const VjpArgs& v) {
  const Tensor& indices = v.in[0];
  Shape column = indices.shape();
  while (column.rank() < v.in[1].rank()) column.push_back(1);
  const Tensor counts = reshape(inside(indices, v.attrs.shape("shape")[0]), column);
  const Tensor read = gather(v.d(), indices, 0);
  return {Tensor(), select(counts, read, zeros_like(read))};
}

void require_same_but(const Shape& a, const Shape& b, int axis, const char* op) {
  bool same = a.rank() == b.rank();
  for (int d = 0; same && d < a.rank(); ++d) same = d == axis || a[d] == b[d];
  if (!same) fail(ErrorKind::shape, "[{}] expected indices like {} except along axis {}, got {}", op, a, axis, b);
}

std::vector<Type> infer_take_along(const InferArgs& a) {
  const int axis = normalize_axis(static_cast<int>(a.attrs.integer("axis")), a.in[0].shape.rank(), "take_along");
  require_indices(a.in[1], "take_along");
  require_same_but(a.in[0].shape, a.in[1].shape, axis, "take_along");
  return {{a.in[0].dtype, a.in[1].shape}};
}

void reference_take_along(const KernelArgs& k) {
  const AxisView v(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  const AxisView w(k.in[1].type.shape, static_cast<int>(k.attrs.integer("axis")));
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t at = 0; at < k.out[0].type.shape.numel(); ++at) {
      const std::int64_t o = at / (w.n * w.inner), j = at % w.inner, i = index_at(k.in[1], at);
      k.out[0].as<T>()[at] = i < 0 || i >= v.n ? missing<T>() : k.in[0].as<T>()[(o * v.n + i) * v.inner + j];
    }
  });
}

std::vector<Type> infer_scatter_along(const InferArgs& a) {
  const int axis = normalize_axis(static_cast<int>(a.attrs.integer("axis")), a.in[0].shape.rank(), "scatter_along");
  require_indices(a.in[1], "scatter_along");
  if (!(a.in[0].shape == a.in[1].shape))
    fail(ErrorKind::shape, "[scatter_along] expected indices {} like the updates, got {}", a.in[0].shape,
         a.in[1].shape);
  if (a.in[0].dtype == DType::boolean)
    fail(ErrorKind::dtype, "[scatter_along] expected numbers to add, got {}", a.in[0].str());
  Shape out = a.in[0].shape;
  out[axis] = a.attrs.integer("size");
  if (out[axis] < 0) fail(ErrorKind::shape, "[scatter_along] expected a size >= 0, got {}", out[axis]);
  return {{a.in[0].dtype, out}};
}

void reference_scatter_along(const KernelArgs& k) {
  const AxisView v(k.out[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  const AxisView w(k.in[0].type.shape, static_cast<int>(k.attrs.integer("axis")));
  dispatch(k.out[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<sum_t<T>> sums(static_cast<std::size_t>(k.out[0].type.shape.numel()));
    for (std::int64_t at = 0; at < k.in[0].type.shape.numel(); ++at) {
      const std::int64_t o = at / (w.n * w.inner), j = at % w.inner, i = index_at(k.in[1], at);
      if (i >= 0 && i < v.n)
        sums[static_cast<std::size_t>((o * v.n + i) * v.inner + j)] +=
            static_cast<sum_t<T>>(static_cast<arithmetic_t<T>>(k.in[0].as<T>()[at]));
    }
    store_sums(sums, k.out[0].as<T>());
  });
}

std::vector<Tensor> vjp_scatter_along(const VjpArgs& v) {
  const Tensor read = take_along(v.d(), v.in[1], static_cast<int>(v.attrs.integer("axis")));
  return {select(inside(v.in[1], v.attrs.integer("size")), read, zeros_like(read)), Tensor()};
}

double flops_of_updates(std::span<const Type> in, std::span<const Type>, const Attrs&) {
  return static_cast<double>(std::max(in[0].shape.numel(), in[1].shape.numel()));
}
}  // namespace

const OpDef op_gather{.name = "gather",
                      .cls = OpClass::other,
                      .flags = kNone,
                      .infer = infer_gather,
                      .vjp = vjp_gather,
                      .reference = reference_gather,
                      .flops = no_flops,
                      .doc =
                          "Slices of x at `indices` along `axis`: [a.., n, b..] by [i..] gives [a.., i.., b..]; "
                          "outside [0, n): NaN, 0 for integers."};

const OpDef op_take_along{
    .name = "take_along",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = infer_take_along,
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
      const int axis = static_cast<int>(v.attrs.integer("axis"));
      return {scatter_along(v.d(), v.in[1], axis, v.in[0].shape()[axis]), Tensor()};
    },
    .reference = reference_take_along,
    .flops = no_flops,
    .doc = "out[.., j, ..] = x[.., indices[.., j, ..], ..] along `axis`; outside [0, n): NaN, 0 for integers."};

const OpDef op_scatter_add{.name = "scatter_add",
                           .cls = OpClass::other,
                           .flags = kNone,
                           .infer = infer_scatter_add,
                           .vjp = vjp_scatter_add,
                           .reference = reference_scatter_add,
                           .flops = flops_of_updates,
                           .doc = "zeros(shape) with out[indices[i]] += updates[i]; outside [0, n): ignored."};

const OpDef op_scatter_along{
    .name = "scatter_along",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = infer_scatter_along,
    .vjp = vjp_scatter_along,
    .reference = reference_scatter_along,
    .flops = flops_of_updates,
    .doc =
        "zeros with out[.., indices[.., j, ..], ..] += updates[.., j, ..] along `axis` of `size`; outside: ignored."};

}  // namespace ir

using namespace ops;

Tensor gather(const Tensor& x, const Tensor& indices, int axis) {
  return record1(OpId::gather, {x, indices}, {{"axis", std::int64_t{normalize_axis(axis, x.rank(), "gather")}}});
}

Tensor take_along(const Tensor& x, const Tensor& indices, int axis) {
  return record1(OpId::take_along, {x, indices},
                 {{"axis", std::int64_t{normalize_axis(axis, x.rank(), "take_along")}}});
}

Tensor scatter_add(const Shape& shape, const Tensor& indices, const Tensor& updates) {
  return record1(OpId::scatter_add, {indices, updates}, {{"shape", ir::to_ints(shape)}});
}

Tensor scatter_along(const Tensor& updates, const Tensor& indices, int axis, std::int64_t n) {
  return record1(OpId::scatter_along, {updates, indices},
                 {{"axis", std::int64_t{normalize_axis(axis, updates.rank(), "scatter_along")}}, {"size", n}});
}

// A comparison with the column number: it fuses with what reads it, where a scatter would not.
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  if (!is_integer(indices.dtype()))
    fail(ErrorKind::dtype, "[one_hot] expected integer ids, got {}", indices.type().str());
  const DType t = indices.dtype() == DType::u8 ? DType::i32 : indices.dtype();
  return cast(equal(unsqueeze(cast(indices, t), -1), arange(classes, t)), dtype);
}

}  // namespace bp

// What the op families share: promotion and broadcasting of operands, type rules and loops of elementwise ops.
#pragma once

#include <utility>

#include "base/error.h"
#include "bp/ops.h"
#include "ir/op.h"
#include "trace/node.h"

namespace bp::ops {

using detail::record;
using detail::record1;
using ir::Attrs;
using ir::InferArgs;
using ir::Ints;
using ir::KernelArgs;
using ir::OpClass;
using ir::OpDef;
using ir::OpId;
using ir::VjpArgs;

// Casts both to their promoted dtype and broadcasts both to their common shape.
std::pair<Tensor, Tensor> meet(const Tensor& a, const Tensor& b, const char* op);
// Whether an element of dtype t can be v: floats round, integers must be exact.
bool holds(DType t, double v) noexcept;
// x in a floating dtype: integers and booleans become f32.
Tensor to_float(const Tensor& x);
// The transpose of broadcasting: sums d over the dimensions that broadcasting to d.shape() added or stretched.
Tensor sum_to(const Tensor& d, const Shape& shape);
// Sorted, normalised axes; empty means all. Throws for duplicates.
Ints normalize_axes(const Axes& axes, int rank, const char* op);
Shape without_axes(const Shape& shape, const Ints& axes);
Shape with_ones(const Shape& shape, const Ints& axes);  // sizes at `axes` replaced by 1
// Undoes without_axes and broadcasts: [2, 4] with axes {1} to [2, 3, 4].
Tensor expand_reduced(const Tensor& reduced, const Shape& full, const Ints& axes);

// Type rules.
std::vector<Type> same_as_input(const InferArgs& a);                 // one operand, same type out
std::vector<Type> same_float(const InferArgs& a, const char* op);    // and the operand is floating
std::vector<Type> same_pair(const InferArgs& a, const char* op);     // two operands of one type, that type out
std::vector<Type> compare_pair(const InferArgs& a, const char* op);  // two of one type, bool out

// Of a product: that of its factors, or f32 for bf16 factors with the attribute "result", which the pass "precision"
// sets.
inline DType product_result(const Attrs& attrs, DType factors) {
  if (!attrs.has("result")) return factors;
  if (factors != DType::bf16 || attrs.dtype("result") != DType::f32)
    fail(ErrorKind::dtype, "a product of {} cannot give {}", name_of(factors), name_of(attrs.dtype("result")));
  return DType::f32;
}

// Reference loops. `f` maps values of the storage type (bf16 as float).
template <class T> struct Arithmetic { using type = T; };
template <> struct Arithmetic<bfloat16> { using type = float; };
template <class T> using arithmetic_t = typename Arithmetic<T>::type;

template <class F> void map_unary(const KernelArgs& k, F f) {
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    const T* x = k.in[0].as<T>();
    T* y = k.out[0].as<T>();
    for (std::int64_t i = 0, n = k.out[0].type.shape.numel(); i < n; ++i)
      y[i] = static_cast<T>(f(static_cast<A>(x[i])));
  });
}
template <class F> void map_binary(const KernelArgs& k, F f) {
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    const T *a = k.in[0].as<T>(), *b = k.in[1].as<T>();
    T* y = k.out[0].as<T>();
    for (std::int64_t i = 0, n = k.out[0].type.shape.numel(); i < n; ++i)
      y[i] = static_cast<T>(f(static_cast<A>(a[i]), static_cast<A>(b[i])));
  });
}

}  // namespace bp::ops

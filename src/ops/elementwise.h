// Type rules and reference loops of the elementwise families (unary, binary, select, cast).
#pragma once

#include <type_traits>

#include "ops/common.h"

namespace bp::ops {

// One operand of any dtype but bool, the same type out.
inline std::vector<Type> numeric(const InferArgs& a, const char* op) {
  if (a.in[0].dtype == DType::boolean)
    fail(ErrorKind::dtype, "[{}] expected numbers, got {}: cast to i32 or f32, or use logical_not", op, a.in[0].str());
  return {a.in[0]};
}

// Two floating operands of one type, that type out.
inline std::vector<Type> float_pair(const InferArgs& a, const char* op) {
  same_pair(a, op);
  return same_float(a, op);
}

// One or two bool operands of one shape, bool out.
inline std::vector<Type> boolean_operands(const InferArgs& a, const char* op) {
  for (const Type& t : a.in)
    if (t.dtype != DType::boolean || t.shape != a.in[0].shape)
      fail(ErrorKind::dtype, "[{}] expected bool{}, got {}", op, a.in[0].shape, t.str());
  return {a.in[0]};
}

// Integer arithmetic wraps modulo 2^bits. `f` is applied to unsigned numbers of the operands' width.
template <class A, class F> A wrapping(A a, A b, F f) {
  if constexpr (std::is_integral_v<A> && !std::is_same_v<A, bool>) {
    using U = std::make_unsigned_t<A>;
    return static_cast<A>(static_cast<U>(f(static_cast<U>(a), static_cast<U>(b))));
  } else {
    return static_cast<A>(f(a, b));
  }
}

// As map_unary and map_binary, over floating dtypes only: fewer instances, and no integer reaches <cmath>.
template <class F> void map_float(const KernelArgs& k, F f) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t n = k.out[0].type.shape.numel();
    T* y = k.out[0].as<T>();
    using A = arithmetic_t<T>;
    const T* a = k.in[0].as<T>();
    if constexpr (std::is_invocable_v<F, A>) {
      for (std::int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(f(static_cast<A>(a[i])));
    } else {
      const T* b = k.in[1].as<T>();
      for (std::int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(f(static_cast<A>(a[i]), static_cast<A>(b[i])));
    }
  };
  switch (k.out[0].type.dtype) {
    case DType::f64: return run(double{});
    case DType::f32: return run(float{});
    default: return run(bfloat16{});
  }
}

// One or two operands of any one dtype, bool out.
template <class F> void map_to_bool(const KernelArgs& k, F f) {
  dispatch(k.in[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = arithmetic_t<T>;
    const std::int64_t n = k.out[0].type.shape.numel();
    bool* y = k.out[0].as<bool>();
    const T* a = k.in[0].as<T>();
    if constexpr (std::is_invocable_v<F, A>) {
      for (std::int64_t i = 0; i < n; ++i) y[i] = f(static_cast<A>(a[i]));
    } else {
      const T* b = k.in[1].as<T>();
      for (std::int64_t i = 0; i < n; ++i) y[i] = f(static_cast<A>(a[i]), static_cast<A>(b[i]));
    }
  });
}

}  // namespace bp::ops

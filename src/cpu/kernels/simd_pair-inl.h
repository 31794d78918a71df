// Two vectors that go through a function side by side, operation by operation. A polynomial is one long chain, and the
// schedulers of a core hold too few iterations of a loop to hide its latency; two chains in one iteration take the
// place of twice as many. Functions written with the lower-case names below take a vector or a Pair. Pairs nest.
// Included once per instruction set by the kernels.
#if defined(BP_SIMD_PAIR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BP_SIMD_PAIR_INL_H_
#undef BP_SIMD_PAIR_INL_H_
#else
#define BP_SIMD_PAIR_INL_H_
#endif

#include <hwy/highway.h>

#include "cpu/kernels/simd_portable-inl.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class V> struct Pair { V first, second; };
template <class A> inline constexpr bool is_pair = false;
template <class V> inline constexpr bool is_pair<Pair<V>> = true;
template <class... A>
concept AnyPair = (is_pair<A> || ...);

// What is no pair (a constant, a tag) serves both halves.
template <class A> HWY_INLINE A first_of(A a) { return a; }
template <class V> HWY_INLINE V first_of(Pair<V> p) { return p.first; }
template <class A> HWY_INLINE A second_of(A a) { return a; }
template <class V> HWY_INLINE V second_of(Pair<V> p) { return p.second; }
template <class V> HWY_INLINE Pair<V> pair_of(V a, V b) { return {a, b}; }

// Highway's functions on vectors, the same on both halves of pairs.
#define BP_ON_PAIRS(name, Function)                                \
  template <class... A> HWY_INLINE auto name(A... a) {             \
    if constexpr (AnyPair<A...>)                                   \
      return pair_of(name(first_of(a)...), name(second_of(a)...)); \
    else                                                           \
      return Function(a...);                                       \
  }
BP_ON_PAIRS(add, hn::Add)
BP_ON_PAIRS(sub, hn::Sub)
BP_ON_PAIRS(mul, hn::Mul)
BP_ON_PAIRS(div, hn::Div)
BP_ON_PAIRS(mul_add, hn::MulAdd)
BP_ON_PAIRS(neg_mul_add, hn::NegMulAdd)
BP_ON_PAIRS(neg, hn::Neg)
BP_ON_PAIRS(abs, hn::Abs)
BP_ON_PAIRS(copy_sign, hn::CopySign)
BP_ON_PAIRS(bit_cast, hn::BitCast)
BP_ON_PAIRS(less, hn::Lt)
BP_ON_PAIRS(greater, hn::Gt)
BP_ON_PAIRS(if_then_else, hn::IfThenElse)
BP_ON_PAIRS(if_negative_then_else, hn::IfNegativeThenElse)
BP_ON_PAIRS(min_second, min_or_second)
BP_ON_PAIRS(max_second, max_or_second)
BP_ON_PAIRS(reciprocal_about, hn::ApproximateReciprocal)
#undef BP_ON_PAIRS
template <int kBits, class A> HWY_INLINE auto shift_left(A a) {
  if constexpr (is_pair<A>)
    return pair_of(shift_left<kBits>(a.first), shift_left<kBits>(a.second));
  else
    return hn::ShiftLeft<kBits>(a);
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

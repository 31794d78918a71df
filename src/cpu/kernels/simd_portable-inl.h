// Where Highway's operations differ from one instruction set to another: masked loads, NaN in min and max, rounding to
// bf16. The kernels use these. Included once per instruction set.
#if defined(BP_SIMD_PORTABLE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BP_SIMD_PORTABLE_INL_H_
#undef BP_SIMD_PORTABLE_INL_H_
#else
#define BP_SIMD_PORTABLE_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// x86's instructions return the second operand when either is NaN; Highway's emulation, the one that is a number.
// a > b ? a : b, hence b where either is NaN.
template <class V> HWY_INLINE V max_or_second(V a, V b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Max(a, b);
#else
  return hn::IfThenElse(hn::Gt(a, b), a, b);
#endif
}
// a < b ? a : b, hence b where either is NaN.
template <class V> HWY_INLINE V min_or_second(V a, V b) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Min(a, b);
#else
  return hn::IfThenElse(hn::Lt(a, b), a, b);
#endif
}

// NaN where either is.
template <class V> HWY_INLINE V nan_max(V a, V b) { return hn::IfThenElse(hn::IsNaN(a), a, max_or_second(a, b)); }
template <class V> HWY_INLINE V nan_min(V a, V b) { return hn::IfThenElse(hn::IsNaN(a), a, min_or_second(a, b)); }

// The first lanes of p, those of mask m = FirstN(d, n), and zeros; touches nothing behind them and p need not be
// aligned. Before AVX2 Highway would load a whole aligned vector.
template <class D> HWY_INLINE hn::Vec<D> load_first(D d, hn::Mask<D> m, const hn::TFromD<D>* p) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(m, d, p);
#else
  HWY_ALIGN hn::TFromD<D> lane[hn::MaxLanes(d)] = {};
  const std::size_t n = hn::CountTrue(d, m);
  for (std::size_t i = 0; i < n; ++i) lane[i] = p[i];
  return hn::Load(d, lane);
#endif
}

// Rounds f32 to the values bf16 can hold, which lie in the upper halves: nearest, ties to even; NaN stays a (quiet)
// NaN.
template <class D> HWY_INLINE hn::Vec<D> round_to_bf16(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto up = hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fffu))), quiet = hn::Or(u, hn::Set(du, 0x400000u));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, up);
  return hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000u)));
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

// Transcendental functions on vectors, f32 and f64, complete over NaN, infinities and zeros. Highway's polynomials with
// the ends of the range added. Worst errors found by tests/kernels/tiles_test.cc are written there.
// Included once per instruction set by the kernels.
#if defined(BP_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BP_SIMD_MATH_INL_H_
#undef BP_SIMD_MATH_INL_H_
#else
#define BP_SIMD_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "cpu/kernels/simd_portable-inl.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D> HWY_INLINE hn::Vec<D> constant(D d, double v) { return hn::Set(d, static_cast<hn::TFromD<D>>(v)); }

// NaN, the second operand of both, stays.
template <class D, class V> HWY_INLINE V clamp(D d, V x, double lo, double hi) {
  return min_or_second(constant(d, hi), max_or_second(constant(d, lo), x));
}

// Calls f on every lane: for what is rare or needs no speed.
template <class D, class V, class F> HWY_INLINE V each_lane(D d, V x, F f) {
  HWY_ALIGN hn::TFromD<D> lane[hn::MaxLanes(d)];
  hn::Store(x, d, lane);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) lane[i] = f(lane[i]);
  return hn::Load(d, lane);
}
template <class D, class V, class F> HWY_INLINE V each_lane(D d, V x, V y, F f) {
  HWY_ALIGN hn::TFromD<D> lane[hn::MaxLanes(d)], other[hn::MaxLanes(d)];
  hn::Store(x, d, lane);
  hn::Store(y, d, other);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) lane[i] = f(lane[i], other[i]);
  return hn::Load(d, lane);
}

// Highway's Exp without its last comparison: the clamp below already ends in 0.
template <class D, class V> HWY_INLINE V exp_v(D d, V x) {
  using T = hn::TFromD<D>;
  const V y = sizeof(T) == 4 ? clamp(d, x, -104.0, 104.0) : clamp(d, x, -746.0, 710.0);
  hn::impl::ExpImpl<T> impl;
  const V signed_half = hn::Or(constant(d, 0.5), hn::And(y, constant(d, -0.0)));
  const auto q = impl.ToInt32(d, hn::MulAdd(y, constant(d, 1.442695040888963407359924681), signed_half));
  const V p = hn::Add(impl.ExpPoly(d, impl.ExpReduce(d, y, q)), constant(d, 1.0));
  return impl.LoadExpShortRange(d, p, q);
}

template <class D, class V> HWY_INLINE V expm1_v(D d, V x) {
  return hn::Expm1(d, min_or_second(constant(d, sizeof(hn::TFromD<D>) == 4 ? 104.0 : 710.0), x));
}

// The ends of log and log1p: -inf at the pole, NaN below it, inf and NaN stay.
template <class D, class V> HWY_INLINE V end_log(D d, V x, V pole, V y) {
  const V inf = constant(d, std::numeric_limits<double>::infinity());
  const V below = hn::IfThenElse(hn::Eq(x, pole), hn::Neg(inf), hn::NaN(d));
  y = hn::IfThenElse(hn::Gt(x, pole), y, below);
  return hn::IfThenElse(hn::Lt(x, inf), y, hn::IfThenElse(hn::Eq(x, inf), inf, x));
}
template <class D, class V> HWY_INLINE V log_v(D d, V x) { return end_log(d, x, hn::Zero(d), hn::Log(d, x)); }
template <class D, class V> HWY_INLINE V log1p_v(D d, V x) {
  return hn::IfThenElse(hn::Eq(x, hn::Zero(d)), x, end_log(d, x, constant(d, -1.0), hn::Log1p(d, x)));
}

// Highway reduces the range of sin and cos up to 39000; beyond, or at NaN, the C library does.
template <class D, class V> HWY_INLINE V sin_v(D d, V x) {
  if (hn::AllTrue(d, hn::Lt(hn::Abs(x), constant(d, 39000.0)))) return hn::Sin(d, x);
  return each_lane(d, x, [](auto v) { return std::sin(v); });
}
template <class D, class V> HWY_INLINE V cos_v(D d, V x) {
  if (hn::AllTrue(d, hn::Lt(hn::Abs(x), constant(d, 39000.0)))) return hn::Cos(d, x);
  return each_lane(d, x, [](auto v) { return std::cos(v); });
}

// f32: 1 - 2 / (exp(2|x|) + 1), which loses digits near 0: x + x^3 p(x^2) there (S. Moshier's Cephes). At 10 it is 1,
// so that no exponent leaves its range.
template <class D, class V> HWY_INLINE V tanh_v(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::Tanh(d, x);
  } else {
    const hn::RebindToSigned<D> di;
    const V y = hn::Mul(min_or_second(constant(d, 10.0), hn::Abs(x)), constant(d, 2.0));
    hn::impl::ExpImpl<float> impl;
    const auto q = impl.ToInt32(d, hn::MulAdd(y, constant(d, 1.442695040888963407359924681), constant(d, 0.5)));
    const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, q), hn::Set(di, 127))));
    const V grown = hn::MulAdd(impl.ExpPoly(d, impl.ExpReduce(d, y, q)), power, power);  // exp(2|x|)
    const V large =
        hn::NegMulAdd(constant(d, 2.0), hn::Div(constant(d, 1.0), hn::Add(grown, constant(d, 1.0))), constant(d, 1.0));
    const V z = hn::Mul(x, x);
    V p = hn::MulAdd(constant(d, -5.70498872745e-3), z, constant(d, 2.06390887954e-2));
    p = hn::MulAdd(p, z, constant(d, -5.37397155531e-2));
    p = hn::MulAdd(p, z, constant(d, 1.33314422036e-1));
    p = hn::MulAdd(p, z, constant(d, -3.33332819422e-1));
    const V small = hn::MulAdd(hn::Mul(p, z), x, x);
    return hn::IfThenElse(hn::Lt(hn::Abs(x), constant(d, 0.625)), small, hn::CopySign(large, x));
  }
}

// Never overflows: e = exp(-|x|) is at most 1.
template <class D, class V> HWY_INLINE V sigmoid_v(D d, V x) {
  const V e = exp_v(d, hn::Neg(hn::Abs(x)));
  const V one = constant(d, 1.0);
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

// f32: N. Juffa's two minimax polynomials (under 1 ULP with FMA): x + x p(x^2) below 475/512, 1 - exp(q(|x|)) above.
// f64: the C library's, a lane at a time.
template <class D, class V> HWY_INLINE V erf_v(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return each_lane(d, x, [](double v) { return std::erf(v); });
  } else {
    const V t = min_or_second(constant(d, 4.0), hn::Abs(x)), s = hn::Mul(t, t);
    V r = hn::MulAdd(constant(d, -1.72853470e-5), t, constant(d, 3.83197126e-4));
    const V u = hn::MulAdd(constant(d, -3.88396438e-3), t, constant(d, 2.42546219e-2));
    r = hn::MulAdd(r, s, u);
    r = hn::MulAdd(r, t, constant(d, -1.06777877e-1));
    r = hn::MulAdd(r, t, constant(d, -6.34846687e-1));
    r = hn::MulAdd(r, t, constant(d, -1.28717512e-1));
    r = hn::MulAdd(r, t, hn::Neg(t));
    const V tail = hn::CopySign(hn::Sub(constant(d, 1.0), exp_v(d, r)), x);
    const V z = hn::Mul(x, x);
    V p = hn::MulAdd(constant(d, -5.96761703e-4), z, constant(d, 4.99119423e-3));
    p = hn::MulAdd(p, z, constant(d, -2.67681349e-2));
    p = hn::MulAdd(p, z, constant(d, 1.12819925e-1));
    p = hn::MulAdd(p, z, constant(d, -3.76125336e-1));
    p = hn::MulAdd(p, z, constant(d, 1.28379166e-1));
    return hn::IfThenElse(hn::Gt(t, constant(d, 0.927734375)), tail, hn::MulAdd(p, x, x));
  }
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

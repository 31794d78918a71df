// Transcendental functions on vectors, f32 and f64, complete over NaN, infinities and zeros. Highway's polynomials with
// the ends of the range added. Worst errors found by tests/kernels/tiles_test.cc are written there.
// Those of f32 written with lower-case names take Pairs too (simd_pair-inl.h).
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

#include "cpu/kernels/exp_table.h"
#include "cpu/kernels/simd_pair-inl.h"
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

// exp of f32 where there are fewer lanes than 16, in three parts: (growth + 1) * 2^n, of x = n ln 2 + r by a minimax
// polynomial of degree 6 on r (error 2^-28). n is found by adding 1.5 * 2^23, which leaves n + 127 in the lowest bits.
template <class V> struct ExpParts {
  V growth;    // exp(r) - 1
  V exponent;  // the bits of 2^n where it is a normal number
};
template <class D, class V> HWY_INLINE ExpParts<V> exp_parts(D d, V x) {
  const auto magic = constant(d, 12582912.0 + 127);
  const V shifted = mul_add(x, constant(d, 1.442695040888963407359924681), magic);
  const V n = sub(shifted, magic);
  const V r = neg_mul_add(n, constant(d, -2.12194440e-4), neg_mul_add(n, constant(d, 0.693359375), x));
  const V s = mul(r, r);
  const V low = mul_add(r, constant(d, 0.16666521), constant(d, 0.49999994));
  V high = mul_add(r, constant(d, 0.008368736), constant(d, 0.04166839));
  high = mul_add(s, constant(d, 0.0013814558), high);
  const hn::RebindToSigned<D> di;
  return {mul_add(mul_add(high, s, low), s, r), bit_cast(d, shift_left<23>(bit_cast(di, shifted)))};
}

#if HWY_TARGET == HWY_AVX3
template <class D> inline constexpr bool kLooksUpExp = hn::MaxLanes(D()) == 16 && sizeof(hn::TFromD<D>) == 4;

template <class V> HWY_INLINE V sixteenth_power(V index) {
  if constexpr (is_pair<V>)
    return pair_of(sixteenth_power(index.first), sixteenth_power(index.second));
  else
    return V{_mm512_permutexvar_ps(_mm512_castps_si512(index.raw), _mm512_load_ps(kSixteenthPowers.data()))};
}
// v 2^floor(n), beyond the normal numbers too.
template <class V> HWY_INLINE V scaled(V v, V n) {
  if constexpr (is_pair<V>)
    return pair_of(scaled(v.first, n.first), scaled(v.second, n.second));
  else
    return V{_mm512_scalef_ps(v.raw, n.raw)};
}

// exp by exp_table.h, |x| at most 104.
template <class D, class V> HWY_INLINE V looked_up_exp(D d, V x) {
  using C = ExpConstants;
  const auto magic = constant(d, C::kSixteenths);
  const V shifted = mul_add(x, constant(d, C::kLog2E), magic);
  const V n = sub(shifted, magic);
  const V r = neg_mul_add(n, constant(d, C::kLn2Rest), neg_mul_add(n, constant(d, C::kLn2), x));
  const V growth = mul_add(mul(r, r), mul_add(r, constant(d, C::kThird), constant(d, C::kSecond)), r);
  const V power = sixteenth_power(shifted);
  return scaled(mul_add(growth, power, power), n);
}
#else
template <class D> inline constexpr bool kLooksUpExp = false;
#endif

// Where the result is a normal number.
template <class D, class V> HWY_INLINE V normal_exp(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kLooksUpExp<D>) return looked_up_exp(d, x);
#endif
  const ExpParts<V> e = exp_parts(d, x);
  return mul_add(e.growth, e.exponent, e.exponent);
}

// f32 that cannot overflow, numbers up to some 80; 0 for the least.
template <class D, class V> HWY_INLINE V small_exp(D d, V x) {
  // Of the parts: at -88 the power of two is 2^-127, whose bits are those of 0.
  return normal_exp(d, max_second(constant(d, kLooksUpExp<D> ? -104.0 : -88.0), x));
}

template <class D, class V> HWY_INLINE V single_exp(D d, V x) {
  const V y = min_second(constant(d, 89.0), max_second(constant(d, -104.0), x));
#if HWY_TARGET == HWY_AVX3
  if constexpr (kLooksUpExp<D>) return looked_up_exp(d, y);
#endif
  const ExpParts<V> e = exp_parts(d, y);
  // 2^n by two factors, the second of which over- or underflows as the result does.
  const hn::RebindToSigned<D> di;
  const V last = if_negative_then_else(y, constant(d, 0x1p-64), constant(d, 0x1p64));
  const auto bits = add(sub(bit_cast(di, e.exponent), bit_cast(di, last)), hn::Set(di, 127 << 23));
  const V power = bit_cast(d, bits);
  return mul(mul_add(e.growth, power, power), last);
}

template <class D, class V> HWY_INLINE V exp_v(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return single_exp(d, x);
  } else {
    // Highway's Exp without its last comparison: the clamp already ends in 0.
    const V y = clamp(d, x, -746.0, 710.0);
    hn::impl::ExpImpl<double> impl;
    const V signed_half = hn::Or(constant(d, 0.5), hn::And(y, constant(d, -0.0)));
    const auto q = impl.ToInt32(d, hn::MulAdd(y, constant(d, 1.442695040888963407359924681), signed_half));
    const V p = hn::Add(impl.ExpPoly(d, impl.ExpReduce(d, y, q)), constant(d, 1.0));
    return impl.LoadExpShortRange(d, p, q);
  }
}

// a / b for b in [1, 2^30]. With 16 lanes by Newton's step from an approximation of 14 bits: a division keeps the unit
// of multiplications busy for six of them.
template <class D, class V, class A> HWY_INLINE V quotient(D, A a, V b) {
  if constexpr (kLooksUpExp<D>) {
    const V about = reciprocal_about(b);
    const V first = mul(a, about);
    return mul_add(neg_mul_add(b, first, a), about, first);
  }
  return div(a, b);
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
    const V size = abs(x);
    const V grown = normal_exp(d, mul(min_second(constant(d, 10.0), size), constant(d, 2.0)));
    const V large = sub(constant(d, 1.0), quotient(d, constant(d, 2.0), add(grown, constant(d, 1.0))));
    const V z = mul(x, x);
    V p = mul_add(constant(d, -5.70498872745e-3), z, constant(d, 2.06390887954e-2));
    p = mul_add(p, z, constant(d, -5.37397155531e-2));
    p = mul_add(p, z, constant(d, 1.33314422036e-1));
    p = mul_add(p, z, constant(d, -3.33332819422e-1));
    const V small = mul_add(mul(p, z), x, x);
    return if_then_else(less(size, constant(d, 0.625)), small, copy_sign(large, x));
  }
}

// Never overflows: e = exp(-|x|) is at most 1.
template <class D, class V> HWY_INLINE V sigmoid_v(D d, V x) {
  const V e = exp_v(d, neg(abs(x)));
  const auto one = constant(d, 1.0);
  return quotient(d, if_then_else(less(x, constant(d, 0.0)), e, one), add(one, e));
}

// f32: N. Juffa's two minimax polynomials (under 1 ULP with FMA): x + x p(x^2) below 475/512, 1 - exp(q(|x|)) above.
// f64: the C library's, a lane at a time.
template <class D, class V> HWY_INLINE V erf_v(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return each_lane(d, x, [](double v) { return std::erf(v); });
  } else {
    const V t = min_second(constant(d, 4.0), abs(x)), s = mul(t, t);
    V r = mul_add(constant(d, -1.72853470e-5), t, constant(d, 3.83197126e-4));
    const V u = mul_add(constant(d, -3.88396438e-3), t, constant(d, 2.42546219e-2));
    r = mul_add(r, s, u);
    r = mul_add(r, t, constant(d, -1.06777877e-1));
    r = mul_add(r, t, constant(d, -6.34846687e-1));
    r = mul_add(r, t, constant(d, -1.28717512e-1));
    r = mul_add(r, t, neg(t));
    const V tail = copy_sign(sub(constant(d, 1.0), normal_exp(d, r)), x);
    const V z = mul(x, x);
    V p = mul_add(constant(d, -5.96761703e-4), z, constant(d, 4.99119423e-3));
    p = mul_add(p, z, constant(d, -2.67681349e-2));
    p = mul_add(p, z, constant(d, 1.12819925e-1));
    p = mul_add(p, z, constant(d, -3.76125336e-1));
    p = mul_add(p, z, constant(d, 1.28379166e-1));
    return if_then_else(greater(t, constant(d, 0.927734375)), tail, mul_add(p, x, x));
  }
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#if defined(BP_MACHINE_CODE)
#include "cpu/kernels/jit_vectors.h"

#include <algorithm>
#include <bit>

#include "cpu/kernels/exp_table.h"

namespace bp::cpu {

// ---- registers and constants

JitVectors::Vec JitVectors::fresh() {
  for (int i = 0; i < kRegisters; ++i)
    if (held_[static_cast<std::size_t>(i)] == 0) {
      most_in_use_ = std::max(most_in_use_, ++in_use_);
      return Vec(this, i);
    }
  throw OutOfRegisters{};
}

JitVectors::Last JitVectors::last(const Arg& a) {
  if (a.vec) return {true, a.vec.zmm(), ptr_b[rip]};
  Constant& c = constants_[a.bits];
  ++c.uses;
  if (c.kept) return {true, c.kept.zmm(), ptr_b[rip]};
  return {false, Xbyak::Zmm(0), ptr_b[rip + c.at]};
}

JitVectors::Vec JitVectors::loaded(const Arg& a) {
  if (a.vec) return a.vec;
  Constant& c = constants_[a.bits];
  ++c.uses;
  if (c.kept) return c.kept;
  Vec v = fresh();
  vbroadcastss(v.zmm(), ptr[rip + c.at]);
  return v;
}

JitVectors::Vec JitVectors::broadcast(const Xbyak::Address& from) {
  Vec v = fresh();
  vbroadcastss(v.zmm(), from);
  return v;
}

std::map<std::uint32_t, int> JitVectors::constant_uses() const {
  std::map<std::uint32_t, int> out;
  for (const auto& [bits, c] : constants_) out[bits] = c.uses;
  return out;
}

std::span<const std::byte> JitVectors::finish() {
  align(64);
  for (auto& [bits, c] : constants_) {
    c.kept = Vec();
    L(c.at);
    dd(bits);
  }
  if (looks_up_) {
    align(64);
    L(powers_);
    for (const float power : kSixteenthPowers) dd(std::bit_cast<std::uint32_t>(power));
  }
  return {reinterpret_cast<const std::byte*>(getCode()), getSize()};
}

// a, or a copy when others hold it too.
JitVectors::Vec JitVectors::in_place(Vec a) {
  if (a.alone()) return a;
  Vec v = fresh();
  vmovaps(v.zmm(), a.zmm());
  return v;
}

// ---- memory

JitVectors::Vec JitVectors::load(DType t, const Xbyak::Address& from, bool masked) {
  Vec v = fresh();
  const Xbyak::Zmm z = masked ? v.zmm() | k1 | T_z : v.zmm();
  switch (t) {
    case DType::f32: vmovups(z, from); break;
    case DType::i32: vcvtdq2ps(z, from); break;
    case DType::bf16:
      vpmovzxwd(z, from);
      vpslld(v.zmm(), v.zmm(), 16);
      break;
    default:  // u8, boolean
      vpmovzxbd(z, from);
      vcvtdq2ps(v.zmm(), v.zmm());
  }
  return v;
}

// round_to_bf16 before the lower half is cleared.
JitVectors::Vec JitVectors::bf16_bits(const Vec& a) {
  Vec up = fresh();
  vpsrld(up.zmm(), a.zmm(), 16);
  vpandd(up.zmm(), up.zmm(), last(1u).operand());
  vpaddd(up.zmm(), up.zmm(), last(0x7fffu).operand());
  vpaddd(up.zmm(), up.zmm(), a.zmm());
  vcmpps(k2, a.zmm(), a.zmm(), kUnordered);
  vpord(up.zmm() | k2, a.zmm(), last(0x400000u).operand());
  return up;
}

JitVectors::Vec JitVectors::to_bf16(const Vec& a) {
  Vec v = bf16_bits(a);
  vpandd(v.zmm(), v.zmm(), last(0xffff0000u).operand());
  return v;
}

void JitVectors::store(DType t, const Xbyak::Address& to, const Vec& v, bool masked) {
  const Xbyak::Address at = masked ? to | k1 : to;
  if (t == DType::f32) return vmovups(at, v.zmm());
  if (t == DType::bf16) {
    const Vec bits = bf16_bits(v);
    vpsrld(bits.zmm(), bits.zmm(), 16);
    return vpmovdw(at, bits.zmm());
  }
  compare(v, 0.0f, kNotEq);
  const Vec one = loaded(1u), flag = fresh();
  vmovdqa32(flag.zmm() | k2 | T_z, one.zmm());
  vpmovdb(at, flag.zmm());
}

// ---- arithmetic

JitVectors::Vec JitVectors::of_two(TwoOperands instruction, const Arg& a, const Arg& b) {
  const Vec x = loaded(a);
  Vec v = fresh();
  (this->*instruction)(v.zmm(), x.zmm(), last(b).operand());
  return v;
}
// Division and roots take their time by the lane.
Xbyak::Xmm JitVectors::needed_lanes(const Vec& a) const {
  return first_lane_only_ ? Xbyak::Xmm(a.zmm().getIdx()) : Xbyak::Xmm(a.zmm());
}
JitVectors::Vec JitVectors::div(const Arg& a, const Arg& b) {
  const Vec x = loaded(a), y = loaded(b);
  Vec v = fresh();
  vdivps(needed_lanes(v), needed_lanes(x), needed_lanes(y));
  return v;
}
JitVectors::Vec JitVectors::add(const Arg& a, const Arg& b) {
  return a.vec ? of_two(&CodeGenerator::vaddps, a, b) : of_two(&CodeGenerator::vaddps, b, a);
}
JitVectors::Vec JitVectors::mul(const Arg& a, const Arg& b) {
  return a.vec ? of_two(&CodeGenerator::vmulps, a, b) : of_two(&CodeGenerator::vmulps, b, a);
}
JitVectors::Vec JitVectors::sub(const Arg& a, const Arg& b) { return of_two(&CodeGenerator::vsubps, a, b); }
JitVectors::Vec JitVectors::max_second(const Arg& a, const Arg& b) { return of_two(&CodeGenerator::vmaxps, a, b); }
JitVectors::Vec JitVectors::min_second(const Arg& a, const Arg& b) { return of_two(&CodeGenerator::vminps, a, b); }

// The form by what may lie in memory: c, or b where that is a constant.
JitVectors::Vec JitVectors::fused(ThreeOperands form213, ThreeOperands form132, Vec a, const Arg& b, const Arg& c) {
  const Vec v = in_place(std::move(a));
  if (b.vec)
    (this->*form213)(v.zmm(), b.vec.zmm(), last(c).operand());
  else
    (this->*form132)(v.zmm(), loaded(c).zmm(), last(b).operand());
  return v;
}
JitVectors::Vec JitVectors::fma(Vec a, const Arg& b, const Arg& c) {
  return fused(&CodeGenerator::vfmadd213ps, &CodeGenerator::vfmadd132ps, std::move(a), b, c);
}
JitVectors::Vec JitVectors::fms(Vec a, const Arg& b, const Arg& c) {
  return fused(&CodeGenerator::vfmsub213ps, &CodeGenerator::vfmsub132ps, std::move(a), b, c);
}
JitVectors::Vec JitVectors::nfma(Vec a, const Arg& b, const Arg& c) {
  return fused(&CodeGenerator::vfnmadd213ps, &CodeGenerator::vfnmadd132ps, std::move(a), b, c);
}

JitVectors::Vec JitVectors::max_nan(const Vec& a, const Vec& b) {
  Vec v = max_second(a, b);
  vcmpps(k2, a.zmm(), a.zmm(), kUnordered);
  vmovaps(v.zmm() | k2, a.zmm());
  return v;
}
JitVectors::Vec JitVectors::min_nan(const Vec& a, const Vec& b) {
  Vec v = min_second(a, b);
  vcmpps(k2, a.zmm(), a.zmm(), kUnordered);
  vmovaps(v.zmm() | k2, a.zmm());
  return v;
}

JitVectors::Vec JitVectors::neg(const Vec& a) {
  Vec v = fresh();
  vpxord(v.zmm(), a.zmm(), last(0x80000000u).operand());
  return v;
}
JitVectors::Vec JitVectors::abs(const Vec& a) {
  Vec v = fresh();
  vpandd(v.zmm(), a.zmm(), last(0x7fffffffu).operand());
  return v;
}
JitVectors::Vec JitVectors::neg_abs(const Vec& a) {
  Vec v = fresh();
  vpord(v.zmm(), a.zmm(), last(0x80000000u).operand());
  return v;
}
JitVectors::Vec JitVectors::copy_sign(const Vec& size, const Vec& sign) {
  const Vec out = in_place(loaded(0x80000000u));
  vpternlogd(out.zmm(), sign.zmm(), size.zmm(), 0xca);  // the mask chooses: sign where it is set, size elsewhere
  return out;
}
JitVectors::Vec JitVectors::sqrt(const Vec& a) {
  Vec v = fresh();
  vsqrtps(needed_lanes(v), needed_lanes(a));
  return v;
}
JitVectors::Vec JitVectors::rounded(const Vec& a, int how) {
  Vec v = fresh();
  vrndscaleps(v.zmm(), a.zmm(), static_cast<std::uint8_t>(how));
  return v;
}

void JitVectors::compare(const Vec& a, const Arg& b, int predicate) {
  vcmpps(k2, a.zmm(), last(b).operand(), static_cast<std::uint8_t>(predicate));
}
JitVectors::Vec JitVectors::one_where() {
  const Vec one = loaded(1.0f);
  Vec v = fresh();
  vmovaps(v.zmm() | k2 | T_z, one.zmm());
  return v;
}
JitVectors::Vec JitVectors::where(const Arg& yes, const Vec& no) {
  Vec v = fresh();
  vblendmps(v.zmm() | k2, no.zmm(), last(yes).operand());
  return v;
}

// ---- functions: see simd_math-inl.h for what they are

JitVectors::Vec JitVectors::scaled(const Vec& a, const Vec& exponent) {
  Vec v = fresh();
  vscalefps(v.zmm(), a.zmm(), exponent.zmm());
  return v;
}

// exp(x) where |x| is at most 104.
JitVectors::Vec JitVectors::looked_up_exp(const Vec& x) {
  using C = ExpConstants;
  const Vec shifted = fma(x, C::kLog2E, C::kSixteenths);
  const Vec n = sub(shifted, C::kSixteenths);
  const Vec r = nfma(n, C::kLn2Rest, nfma(n, C::kLn2, x));
  Vec growth = fma(mul(r, r), fma(r, C::kThird, C::kSecond), r);
  const Vec power = fresh();
  vpermps(power.zmm(), shifted.zmm(), ptr[rip + powers_]);
  looks_up_ = true;
  return scaled(fma(std::move(growth), power, power), n);
}

JitVectors::Vec JitVectors::quotient(const Arg& a, const Vec& b) {
  const Vec about = fresh();
  vrcp14ps(about.zmm(), b.zmm());
  const Vec first = mul(about, a);
  return fma(nfma(b, first, a), about, first);
}

JitVectors::Vec JitVectors::exp(const Vec& x) { return looked_up_exp(min_second(89.0, max_second(-104.0, x))); }

JitVectors::Vec JitVectors::exp_of_negative(const Vec& x) { return looked_up_exp(max_second(-104.0, x)); }

JitVectors::Vec JitVectors::tanh(const Vec& x) {
  const Vec size = abs(x);
  const Vec grown = looked_up_exp(mul(min_second(10.0, size), 2.0));
  const Vec large = sub(1.0, quotient(2.0, add(grown, 1.0)));
  const Vec z = mul(x, x);
  Vec p = fma(z, -5.70498872745e-3, 2.06390887954e-2);
  p = fma(std::move(p), z, -5.37397155531e-2);
  p = fma(std::move(p), z, 1.33314422036e-1);
  p = fma(std::move(p), z, -3.33332819422e-1);
  const Vec small = fma(mul(p, z), x, x);
  compare(size, 0.625, kLt);
  const Vec signed_large = copy_sign(large, x);
  return where(small, signed_large);
}

JitVectors::Vec JitVectors::sigmoid(const Vec& x) {
  const Vec e = looked_up_exp(max_second(-104.0, neg_abs(x)));
  compare(x, 0.0, kLt);
  const Vec above = where(e, loaded(1.0));
  return quotient(above, add(e, 1.0));
}

JitVectors::Vec JitVectors::erf(const Vec& x) {
  const Vec t = min_second(4.0, abs(x)), s = mul(t, t);
  Vec r = fma(t, -1.72853470e-5, 3.83197126e-4);
  const Vec u = fma(t, -3.88396438e-3, 2.42546219e-2);
  r = fma(std::move(r), s, u);
  for (const double c : {-1.06777877e-1, -6.34846687e-1, -1.28717512e-1}) r = fma(std::move(r), t, c);
  r = fma(std::move(r), t, neg(t));
  const Vec tail = copy_sign(sub(1.0, looked_up_exp(r)), x);
  const Vec z = mul(x, x);
  Vec p = fma(z, -5.96761703e-4, 4.99119423e-3);
  for (const double c : {-2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1}) p = fma(std::move(p), z, c);
  const Vec near = fma(std::move(p), x, x);
  compare(t, 0.927734375, kGt);
  return where(tail, near);
}

}  // namespace bp::cpu
#endif

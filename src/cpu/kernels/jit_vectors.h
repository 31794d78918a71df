// An assembler for vectors of 16 floats (AVX-512): values in registers, freed with their last handle, and the functions
// of simd_math-inl.h operation by operation, so that machine code and tiles give the same bits.
// Used by loop_jit.cc only.
#pragma once

#include <xbyak/xbyak.h>

#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "bp/dtype.h"

namespace bp::cpu {

// Thrown while code is made when values need more than the registers there are: the caller takes fewer steps.
struct OutOfRegisters {};

class JitVectors : public Xbyak::CodeGenerator {
 public:
  static constexpr int kLanes = 16, kRegisters = 32;
  static constexpr std::size_t kMostBytes = 1 << 16;

  // A value in a register. Copies share the register.
  class Vec {
   public:
    Vec() = default;
    Vec(const Vec& o) : jit_(o.jit_), reg_(o.reg_) { retain(); }
    Vec(Vec&& o) noexcept : jit_(std::exchange(o.jit_, nullptr)), reg_(o.reg_) {}
    Vec& operator=(Vec o) noexcept {
      std::swap(jit_, o.jit_);
      std::swap(reg_, o.reg_);
      return *this;
    }
    ~Vec() {
      if (jit_ && --jit_->held_[static_cast<std::size_t>(reg_)] == 0) --jit_->in_use_;
    }
    explicit operator bool() const noexcept { return jit_ != nullptr; }
    Xbyak::Zmm zmm() const { return Xbyak::Zmm(reg_); }

   private:
    friend class JitVectors;
    Vec(JitVectors* jit, int reg) : jit_(jit), reg_(reg) { retain(); }
    void retain() {
      if (jit_) ++jit_->held_[static_cast<std::size_t>(reg_)];
    }
    bool alone() const { return jit_->held_[static_cast<std::size_t>(reg_)] == 1; }
    JitVectors* jit_ = nullptr;
    int reg_ = 0;
  };

  // What an instruction reads: a value or a constant, which lies behind the code unless keep() put it into a register.
  class Arg {
   public:
    Arg(Vec v) : vec(std::move(v)) {}
    Arg(float v) : bits(std::bit_cast<std::uint32_t>(v)) {}
    Arg(double v) : Arg(static_cast<float>(v)) {}
    Arg(std::uint32_t word) : bits(word) {}
    Vec vec;
    std::uint32_t bits = 0;
  };

  JitVectors() : JitVectors(std::make_unique_for_overwrite<std::uint8_t[]>(kMostBytes)) {}

  // Writes the constants behind the code; it is complete then.
  std::span<const std::byte> finish();

  Vec fresh();
  Vec loaded(const Arg& a);
  Vec broadcast(const Xbyak::Address& from);
  void keep(std::uint32_t constant) { constants_[constant].kept = loaded(Arg(constant)); }
  // From now on values may be right in their first lane only.
  void first_lane_only(bool only) { first_lane_only_ = only; }
  int most_in_use() const noexcept { return most_in_use_; }
  // How often each constant was read.
  std::map<std::uint32_t, int> constant_uses() const;

  // Memory of a dtype: f32, bf16, i32, u8 or boolean; stores take f32, bf16 or boolean. masked: the lanes of k1 only;
  // the others read as zero.
  static bool loads(DType t) noexcept { return t != DType::f64 && t != DType::i64; }
  static bool stores(DType t) noexcept { return t == DType::f32 || t == DType::bf16 || t == DType::boolean; }
  Vec load(DType t, const Xbyak::Address& from, bool masked);
  void store(DType t, const Xbyak::Address& to, const Vec& v, bool masked);

  using CodeGenerator::add, CodeGenerator::sub, CodeGenerator::mul, CodeGenerator::div, CodeGenerator::neg;
  Vec add(const Arg& a, const Arg& b);
  Vec sub(const Arg& a, const Arg& b);
  Vec mul(const Arg& a, const Arg& b);
  Vec div(const Arg& a, const Arg& b);
  Vec fma(Vec a, const Arg& b, const Arg& c);   // a * b + c
  Vec fms(Vec a, const Arg& b, const Arg& c);   // a * b - c
  Vec nfma(Vec a, const Arg& b, const Arg& c);  // c - a * b
  Vec max_second(const Arg& a, const Arg& b);   // b where either is NaN
  Vec min_second(const Arg& a, const Arg& b);
  Vec max_nan(const Vec& a, const Vec& b);  // NaN where either is
  Vec min_nan(const Vec& a, const Vec& b);
  Vec neg(const Vec& a);
  Vec abs(const Vec& a);
  Vec neg_abs(const Vec& a);
  Vec copy_sign(const Vec& size, const Vec& sign);
  Vec sqrt(const Vec& a);
  Vec rounded(const Vec& a, int how);                       // vrndscaleps: 8 nearest, 9 down, 10 up, 11 to zero
  Vec to_bf16(const Vec& a);                                // as a float
  void compare(const Vec& a, const Arg& b, int predicate);  // into k2
  Vec one_where();                                          // 1 where k2, else 0
  Vec where(const Arg& yes, const Vec& no);                 // by k2

  Vec exp(const Vec& x);
  Vec exp_of_negative(const Vec& x);  // the same for x <= 0 and NaN
  Vec tanh(const Vec& x);
  Vec sigmoid(const Vec& x);
  Vec erf(const Vec& x);

  // Comparison predicates of vcmpps that raise no exceptions.
  static constexpr int kEq = 0, kOrderedNotEq = 12, kLt = 17, kLe = 18, kNotEq = 4, kGe = 29, kGt = 30, kUnordered = 3,
                       kOrdered = 7;

 private:
  struct Constant {
    Xbyak::Label at;
    Vec kept;
    int uses = 0;
  };
  // The last operand of an instruction.
  struct Last {
    const Xbyak::Operand& operand() const { return in_register ? static_cast<const Xbyak::Operand&>(zmm) : memory; }
    bool in_register;
    Xbyak::Zmm zmm;
    Xbyak::Address memory;
  };
  explicit JitVectors(std::unique_ptr<std::uint8_t[]> memory)
      : CodeGenerator(kMostBytes, memory.get()), memory_(std::move(memory)) {}
  Last last(const Arg& a);
  using TwoOperands = void (CodeGenerator::*)(const Xbyak::Xmm&, const Xbyak::Operand&, const Xbyak::Operand&);
  using ThreeOperands = void (CodeGenerator::*)(const Xbyak::Xmm&, const Xbyak::Xmm&, const Xbyak::Operand&);
  Vec of_two(TwoOperands instruction, const Arg& a, const Arg& b);
  Vec fused(ThreeOperands form213, ThreeOperands form132, Vec a, const Arg& b, const Arg& c);
  Vec in_place(Vec a);
  Vec bf16_bits(const Vec& a);
  Vec scaled(const Vec& a, const Vec& exponent);
  Xbyak::Xmm needed_lanes(const Vec& a) const;
  Vec looked_up_exp(const Vec& x);
  Vec quotient(const Arg& a, const Vec& b);

  std::unique_ptr<std::uint8_t[]> memory_;
  std::array<int, kRegisters> held_{};
  int in_use_ = 0, most_in_use_ = 0;
  bool first_lane_only_ = false;
  std::map<std::uint32_t, Constant> constants_;
  Xbyak::Label powers_;  // kSixteenthPowers
  bool looks_up_ = false;
};

}  // namespace bp::cpu

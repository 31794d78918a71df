// reference_run: LoopPrograms by plain scalar loops, whole tensors at a time. The tests' oracle for CompiledLoop.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random_word.h"
#include "cpu/kernels/loop_program.h"

namespace bp::cpu {

namespace {

double load_element(const void* p, DType t, std::int64_t at) {
  return dispatch(t, [&](auto zero) { return static_cast<double>(static_cast<const decltype(zero)*>(p)[at]); });
}

template <class T> T saturate(double v) {
  if (std::isnan(v)) return 0;
  const double lo = static_cast<double>(std::numeric_limits<T>::min());
  const double hi = static_cast<double>(std::numeric_limits<T>::max());
  if (v <= lo) return std::numeric_limits<T>::min();
  if (v >= hi) return std::numeric_limits<T>::max();
  return static_cast<T>(v);
}

void store_element(void* p, DType t, std::int64_t at, double v) {
  switch (t) {
    case DType::f64: static_cast<double*>(p)[at] = v; break;
    case DType::f32: static_cast<float*>(p)[at] = static_cast<float>(v); break;
    case DType::bf16: static_cast<bfloat16*>(p)[at] = bfloat16(static_cast<float>(v)); break;
    case DType::i64: static_cast<std::int64_t*>(p)[at] = saturate<std::int64_t>(v); break;
    case DType::i32: static_cast<std::int32_t*>(p)[at] = saturate<std::int32_t>(v); break;
    case DType::u8: static_cast<std::uint8_t*>(p)[at] = saturate<std::uint8_t>(v); break;
    case DType::boolean: static_cast<bool*>(p)[at] = v != 0; break;
  }
}

double nan_max(double a, double b) { return std::isnan(a) ? a : std::isnan(b) || b > a ? b : a; }
double nan_min(double a, double b) { return std::isnan(a) ? a : std::isnan(b) || b < a ? b : a; }

double floor_remainder(double a, double b) {
  double m = std::fmod(a, b);
  if (m == 0) return std::copysign(0.0, b);
  if ((b < 0) != (m < 0)) m += b;
  return m;
}

double unary(LoopOp op, double a) {
  switch (op) {
    case LoopOp::neg: return -a;
    case LoopOp::abs: return std::fabs(a);
    case LoopOp::sign: return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a;
    case LoopOp::exp: return std::exp(a);
    case LoopOp::expm1: return std::expm1(a);
    case LoopOp::log: return std::log(a);
    case LoopOp::log1p: return std::log1p(a);
    case LoopOp::sqrt: return std::sqrt(a);
    case LoopOp::rsqrt: return 1 / std::sqrt(a);
    case LoopOp::reciprocal: return 1 / a;
    case LoopOp::sin: return std::sin(a);
    case LoopOp::cos: return std::cos(a);
    case LoopOp::tanh: return std::tanh(a);
    case LoopOp::sigmoid: return a >= 0 ? 1 / (1 + std::exp(-a)) : std::exp(a) / (1 + std::exp(a));
    case LoopOp::erf: return std::erf(a);
    case LoopOp::floor: return std::floor(a);
    case LoopOp::ceil: return std::ceil(a);
    case LoopOp::round: return std::nearbyint(a);
    case LoopOp::trunc: return std::trunc(a);
    case LoopOp::is_finite: return std::isfinite(a);
    case LoopOp::logical_not: return a == 0;
    case LoopOp::to_bf16: return static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(a))));
    default: return static_cast<double>(static_cast<float>(a));  // to_f32
  }
}

double binary(LoopOp op, double a, double b) {
  switch (op) {
    case LoopOp::add: return a + b;
    case LoopOp::sub: return a - b;
    case LoopOp::mul: return a * b;
    case LoopOp::div: return a / b;
    case LoopOp::pow: return std::pow(a, b);
    case LoopOp::max: return nan_max(a, b);
    case LoopOp::min: return nan_min(a, b);
    case LoopOp::remainder: return floor_remainder(a, b);
    case LoopOp::eq: return a == b;
    case LoopOp::ne: return a != b;
    case LoopOp::lt: return a < b;
    case LoopOp::le: return a <= b;
    case LoopOp::gt: return a > b;
    case LoopOp::ge: return a >= b;
    case LoopOp::logical_and: return a != 0 && b != 0;
    default: return a != 0 || b != 0;  // logical_or
  }
}

double combine(LoopOp op, double a, double b) {
  switch (op) {
    case LoopOp::row_max:
    case LoopOp::column_max: return nan_max(a, b);
    case LoopOp::row_min:
    case LoopOp::column_min: return nan_min(a, b);
    case LoopOp::row_prod: return a * b;
    default: return a + b;
  }
}

class Reference {
 public:
  Reference(const LoopProgram& p, void* const* operands) : p_(p), operands_(operands), values_(p.instrs.size()) {}

  void run() {
    for (std::size_t i = 0; i < p_.instrs.size(); ++i) {
      const LoopInstr& in = p_.instrs[i];
      if (in.op >= LoopOp::column_sum) {
        columns(in);
      } else if (in.op == LoopOp::store) {
        store(in);
      } else if (in.op >= LoopOp::row_sum) {
        values_[i] = rows(in);
      } else {
        values_[i] = elements(in);
      }
    }
  }

 private:
  double round(double v) const { return p_.compute == f32 ? static_cast<double>(static_cast<float>(v)) : v; }
  double value(int v, std::int64_t r, std::int64_t c) const {
    return values_[static_cast<std::size_t>(v)][static_cast<std::size_t>(r * p_.cols + c)];
  }
  const LoopOperand& operand(const LoopInstr& in) const { return p_.operands[static_cast<std::size_t>(in.operand)]; }
  void* memory(const LoopInstr& in) const {
    const LoopOperand& o = operand(in);
    return static_cast<char*>(operands_[in.operand]) + o.base * static_cast<std::int64_t>(size_of(o.dtype));
  }

  double element(const LoopInstr& in, std::int64_t r, std::int64_t c) const {
    switch (in.op) {
      case LoopOp::load: return load_element(memory(in), operand(in).dtype, operand(in).access.offset(r, c));
      case LoopOp::constant: return in.imm;
      case LoopOp::column_index: return static_cast<double>(c);
      case LoopOp::row_index: return static_cast<double>(r);
      case LoopOp::random: {
        const auto* key = static_cast<const std::int64_t*>(memory(in));
        const auto word = random_word(key[0], key[1], in.place, static_cast<std::uint64_t>(r * p_.cols + c));
        return word >> (32 - static_cast<int>(in.imm));
      }
      case LoopOp::select: return value(in.a, r, c) != 0 ? value(in.b, r, c) : value(in.c, r, c);
      default: break;
    }
    if (in.op >= LoopOp::add) return binary(in.op, value(in.a, r, c), value(in.b, r, c));
    return unary(in.op, value(in.a, r, c));
  }

  std::vector<double> elements(const LoopInstr& in) const {
    std::vector<double> out;
    out.reserve(static_cast<std::size_t>(p_.rows * p_.cols));
    for (std::int64_t r = 0; r < p_.rows; ++r)
      for (std::int64_t c = 0; c < p_.cols; ++c) out.push_back(round(element(in, r, c)));
    return out;
  }

  // A row's result is repeated over its columns. A row without columns has no place here, see store().
  std::vector<double> rows(const LoopInstr& in) const {
    std::vector<double> out;
    for (std::int64_t r = 0; r < p_.rows; ++r) {
      double total = start_of(in.op);
      for (std::int64_t c = 0; c < p_.cols; ++c) total = combine(in.op, total, value(in.a, r, c));
      out.insert(out.end(), static_cast<std::size_t>(p_.cols), round(total));
    }
    return out;
  }

  void store(const LoopInstr& in) const {
    const LoopOperand& o = operand(in);
    for (std::int64_t r = 0; r < p_.rows; ++r)
      for (std::int64_t c = 0; c < p_.cols; ++c)
        store_element(memory(in), o.dtype, o.access.offset(r, c), value(in.a, r, c));
  }

  void columns(const LoopInstr& in) const {
    const LoopOperand& o = operand(in);
    for (std::int64_t c = 0; c < p_.cols; ++c) {
      double total = start_of(in.op);
      for (std::int64_t r = 0; r < p_.rows; ++r) total = combine(in.op, total, value(in.a, r, c));
      store_element(memory(in), o.dtype, o.access.offset(0, c), round(total));
    }
  }

  const LoopProgram& p_;
  void* const* operands_;
  std::vector<std::vector<double>> values_;  // [rows * cols] of each instruction
};

}  // namespace

void reference_run(const LoopProgram& program, void* const* operands) {
  // With no columns a row value cannot be stored through its columns: run one column of empty reductions instead.
  if (program.cols == 0) {
    LoopProgram p = program;
    p.cols = 1;
    for (LoopInstr& in : p.instrs) {
      const bool row = in.op >= LoopOp::row_sum && in.op <= LoopOp::row_prod;
      const bool reads = in.op == LoopOp::load && p.operands[static_cast<std::size_t>(in.operand)].access.col_stride;
      const bool dead = in.op == LoopOp::store
                            ? p.operands[static_cast<std::size_t>(in.operand)].access.varies_with_column()
                            : in.op > LoopOp::store;
      if (row || reads || dead) in = {.op = LoopOp::constant, .imm = row ? start_of(in.op) : 0.0};
    }
    Reference(p, operands).run();
    return;
  }
  Reference(program, operands).run();
}

}  // namespace bp::cpu

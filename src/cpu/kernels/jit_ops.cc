#if defined(BP_MACHINE_CODE)
#include "cpu/kernels/jit_ops.h"

namespace bp::cpu {

namespace {

using Vec = JitVectors::Vec;
using Arg = JitVectors::Arg;

Vec sign(JitVectors& j, const Vec& a) {
  j.compare(a, 0.0, JitVectors::kEq);
  const Vec zero_or_nan = j.where(0.0, a);
  const Vec one = j.copy_sign(j.loaded(1.0), a);
  j.compare(a, 0.0, JitVectors::kOrderedNotEq);
  return j.where(one, zero_or_nan);
}
Vec truth(JitVectors& j, const Vec& a, const Arg& b, int predicate) {
  j.compare(a, b, predicate);
  return j.one_where();
}
Vec both_or_either(JitVectors& j, const Vec& a, const Vec& b, bool both) {
  const Vec x = truth(j, a, 0.0, JitVectors::kNotEq), y = truth(j, b, 0.0, JitVectors::kNotEq);
  return both ? j.mul(x, y) : j.max_second(x, y);
}

Vec unary_code(JitVectors& j, TileOp op, const Vec& a) {
  if (op == TileOp::copy) return a;
  switch (static_cast<LoopOp>(op)) {
    case LoopOp::neg: return j.neg(a);
    case LoopOp::abs: return j.abs(a);
    case LoopOp::sign: return sign(j, a);
    case LoopOp::sqrt: return j.sqrt(a);
    case LoopOp::rsqrt: return j.div(1.0, j.sqrt(a));
    case LoopOp::reciprocal: return j.div(1.0, a);
    case LoopOp::floor: return j.rounded(a, 9);
    case LoopOp::ceil: return j.rounded(a, 10);
    case LoopOp::round: return j.rounded(a, 8);
    case LoopOp::trunc: return j.rounded(a, 11);
    case LoopOp::to_bf16: return j.to_bf16(a);
    case LoopOp::to_f32: return a;
    case LoopOp::exp: return j.exp(a);
    case LoopOp::tanh: return j.tanh(a);
    case LoopOp::sigmoid: return j.sigmoid(a);
    case LoopOp::erf: return j.erf(a);
    case LoopOp::is_finite: return truth(j, j.sub(a, a), 0.0, JitVectors::kEq);
    default: return truth(j, a, 0.0, JitVectors::kEq);  // logical_not
  }
}
Vec binary_code(JitVectors& j, TileOp op, const Arg& a, const Arg& b) {
  switch (op) {
    case TileOp::exp_sub: return j.exp(j.sub(a, b));
    case TileOp::add_relu: return j.max_second(0.0, j.add(a, b));
    case TileOp::relu_mask: {
      const Vec x = j.loaded(a);
      const Vec zero = j.loaded(0.0);
      j.compare(x, zero, JitVectors::kGt);
      return j.where(b, zero);
    }
    default: break;
  }
  switch (static_cast<LoopOp>(op)) {
    case LoopOp::add: return j.add(a, b);
    case LoopOp::sub: return j.sub(a, b);
    case LoopOp::mul: return j.mul(a, b);
    case LoopOp::div: return j.div(a, b);
    case LoopOp::max: return j.max_nan(j.loaded(a), j.loaded(b));
    case LoopOp::min: return j.min_nan(j.loaded(a), j.loaded(b));
    case LoopOp::eq: return truth(j, j.loaded(a), b, JitVectors::kEq);
    case LoopOp::ne: return truth(j, j.loaded(a), b, JitVectors::kNotEq);
    case LoopOp::lt: return truth(j, j.loaded(a), b, JitVectors::kLt);
    case LoopOp::le: return truth(j, j.loaded(a), b, JitVectors::kLe);
    case LoopOp::gt: return truth(j, j.loaded(a), b, JitVectors::kGt);
    case LoopOp::ge: return truth(j, j.loaded(a), b, JitVectors::kGe);
    case LoopOp::logical_and: return both_or_either(j, j.loaded(a), j.loaded(b), true);
    default: return both_or_either(j, j.loaded(a), j.loaded(b), false);
  }
}

Vec ternary_code(JitVectors& j, TileOp op, const Vec& a, const Arg& b, const Arg& c) {
  switch (op) {
    case TileOp::fma: return j.fma(a, b, c);
    case TileOp::fms: return j.fms(a, b, c);
    case TileOp::nfma: return j.nfma(a, b, c);
    case TileOp::sub_mul: return j.mul(j.sub(a, b), c);
    default: {  // select
      const Vec otherwise = j.loaded(c);
      j.compare(a, 0.0, JitVectors::kNotEq);
      return j.where(b, otherwise);
    }
  }
}

}  // namespace

int operands_of(TileOp op) {
  switch (op) {
    case TileOp::fma:
    case TileOp::fms:
    case TileOp::nfma:
    case TileOp::sub_mul: return 3;
    case TileOp::axpby:
    case TileOp::axpbyy:
    case TileOp::exp_sub:
    case TileOp::add_relu:
    case TileOp::relu_mask:
    case TileOp::row_dot:
    case TileOp::column_dot: return 2;
    case TileOp::copy:
    case TileOp::column_sum:
    case TileOp::column_max:
    case TileOp::column_min: return 1;
    case TileOp::row_pick: return 0;
    default: break;
  }
  const auto plain = static_cast<LoopOp>(op);
  return plain == LoopOp::select ? 3 : plain >= LoopOp::add && plain < LoopOp::select ? 2 : 1;
}

bool has_code(LoopOp op) {
  switch (op) {
    case LoopOp::random:
    case LoopOp::expm1:
    case LoopOp::log:
    case LoopOp::log1p:
    case LoopOp::sin:
    case LoopOp::cos:
    case LoopOp::pow:
    case LoopOp::remainder: return false;
    default: return true;
  }
}
bool has_code(TileOp op) { return op != TileOp::ramp && has_code(static_cast<LoopOp>(op)); }

Vec element_code(JitVectors& j, TileOp op, const Arg* operands) {
  const Vec a = j.loaded(operands[0]);
  switch (operands_of(op)) {
    case 1: return unary_code(j, op, a);
    case 2: return binary_code(j, op, a, operands[1]);
    default: return ternary_code(j, op, a, operands[1], operands[2]);
  }
}

}  // namespace bp::cpu
#endif

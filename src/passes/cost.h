// What computing costs, in bytes of memory traffic: how passes weigh computing a value again against keeping it.
#pragma once

#include "ir/op.h"

namespace bp::passes {

// At the 10 GB/s of one core beside the others an instruction of a fused loop takes the time of half a byte an element,
// a transcendental one that of eight.
inline constexpr double kCheapOp = 0.5, kDearOp = 8;

inline double op_cost(ir::OpId op) {
  using ir::OpId;
  switch (op) {
    case OpId::pow:
    case OpId::remainder: return 1e9;
    case OpId::exp:
    case OpId::expm1:
    case OpId::log:
    case OpId::log1p:
    case OpId::sin:
    case OpId::cos:
    case OpId::tanh:
    case OpId::sigmoid:
    case OpId::erf:
    case OpId::random_bits: return kDearOp;
    default: return kCheapOp;
  }
}

}  // namespace bp::passes

// The element-wise instructions of tiles as machine code, bit for bit what loop_tiles_basic.cc and loop_tiles_math.cc
// compute. Used by jit_run.cc and loop_jit.cc only.
#pragma once

#include "cpu/kernels/jit_vectors.h"
#include "cpu/kernels/loop_tiles.h"

namespace bp::cpu {

// How many of an instruction's operands are tiles or scalars at every vector (the coefficients of axpby are neither).
int operands_of(TileOp op);

// Whether an instruction has code; reductions and accumulators do.
bool has_code(LoopOp op);
bool has_code(TileOp op);

// Code of an element-wise instruction other than axpby and axpbyy, of as many operands as it has.
JitVectors::Vec element_code(JitVectors& j, TileOp op, const JitVectors::Arg* operands);

}  // namespace bp::cpu

// A loop program without instructions, for the tests of this room to fill.
#pragma once

#include "cpu/kernels/loop_program.h"

namespace bp::cpu {

inline LoopProgram space(std::int64_t rows, std::int64_t cols, DType compute) {
  LoopProgram p;
  p.rows = rows, p.cols = cols, p.compute = compute;
  return p;
}

}  // namespace bp::cpu

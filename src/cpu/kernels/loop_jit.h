// Machine code for fused loops: one pass over a block, values in registers, in place of one pass an instruction over
// tiles in the first cache. Used by loop_compile.cc only.
#pragma once

#include "cpu/kernels/loop_plan.h"

namespace bp::cpu {

// Whether all that the program computes for each element has code.
bool runs_as_code(const LoopProgram& program);

// Puts one step in place of each run of tile steps that code can take, where it is wanted and the program computes in
// f32. What has no code (other functions, gathers, random bits) stays a step between them. Before scratch is laid out:
// values that only code reads need none.
void choose_runs(CompiledLoop::Plan& plan);

// Makes the code of the runs. std::bad_alloc where the system has no memory for it.
void make_code(CompiledLoop::Plan& plan);

// Other threads see what code stored past the caches on this one.
void finish_stores();

}  // namespace bp::cpu

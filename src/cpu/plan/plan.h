// Memory planning: lifetimes of a program's arena buffers to offsets in one arena.
#pragma once

#include "cpu/exec/program.h"

namespace bp::cpu {

// Sets offsets and arena_bytes. Buffers whose lifetimes overlap never share bytes; what the prologue
// writes lives to the end. Greedy by size (Pisarchyk and Lee
// 2020, "Efficient memory management for deep neural net inference"): largest first, at the lowest offset that is free
// during its life. Programs of thousands of buffers are placed in order of time, best fit, in n log n.
void plan_memory(Program& program);

}  // namespace bp::cpu

// Machine code of one run of steps. Used by loop_jit.cc only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cpu/kernels/loop_plan.h"

namespace bp::cpu {

inline bool is_accumulator(const LoopStep& s) {
  return s.fn != nullptr && s.op >= TileOp::column_sum && s.op <= TileOp::column_dot;
}
// Accumulates down the columns of rows, rather than side by side.
inline bool is_wide_accumulator(const LoopStep& s) { return is_accumulator(s) && s.span == LoopSpan::rowwise; }

// Nothing where the steps need more registers than there are. kept[s]: slot s must be in memory afterwards.
// Row reductions and accumulators down registers must not meet in one run, nor other accumulators and steps by row; of
// several stages, rows are whole and accumulators go row by row.
std::optional<RunNeeds> needs_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages,
                                     const std::vector<bool>& kept);

// A LoopCodeFn that does not depend on its address; the scratch of its slots is laid out. uncached: stores the plan's
// uncached outputs past the caches where that is faster.
std::vector<std::byte> code_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages,
                                   const std::vector<bool>& kept, const RunNeeds& needs, bool uncached);

}  // namespace bp::cpu

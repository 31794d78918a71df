// Reductions over an axis with others before and behind it, as the mean over the positions of [batch, position,
// channel]: rows of the last axis are folded into one. f32 and f64. Called by lowering's reduction steps. Results do
// not depend on the number of threads.
#pragma once

#include <cstdint>

#include "bp/dtype.h"

namespace bp::cpu {

// x: [outer, rows, columns]   y: [outer, columns]
struct ReduceRowsSpec {
  enum class Fold : std::uint8_t { sum, max, min, prod };  // max, min: NaN where any is
  std::int64_t outer = 0, rows = 0, columns = 0;           // max, min: at least one row
  Fold fold = Fold::sum;
  DType dtype = f32;

  int preferred_threads(int most) const;
};

// Sums and products are made of short chains (64 rows) in the dtype, then of these in f64.
void reduce_rows(const ReduceRowsSpec& spec, const void* x, void* y, int threads);

}  // namespace bp::cpu

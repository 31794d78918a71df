// Reading and adding by index: rows of a table (embeddings) and elements along an axis. Called by lowering's gather
// steps. Results do not depend on the number of threads: scatters are partitioned by destination and add in index
// order.
#pragma once

#include <cstdint>

#include "bp/dtype.h"

namespace bp::cpu {

// table: [outer, rows, inner]   index: [count] (shared by every `outer`)   out: [outer, count, inner]
// An index outside [0, rows) reads NaN (floats) or 0 (integers), and adds nothing.
struct GatherSpec {
  std::int64_t outer = 1, rows = 0, count = 0, inner = 1;
  DType dtype = f32;  // of the table; a sum of bf16 is rounded after each addition
  DType index = i64;  // i64 or i32
  int preferred_threads(int most) const noexcept;
};

// out[o, c, :] = table[o, index[c], :]
void gather_rows(const GatherSpec& spec, const void* table, const void* index, void* out, int threads);

// table[o, index[c], :] += values[o, c, :]; the caller has set `table` (zeros for a gradient).
void scatter_add_rows(const GatherSpec& spec, const void* values, const void* index, void* table, int threads);

// table: [outer, rows, inner]   index: [outer, count, inner]   out: [outer, count, inner]
// out[o, c, i] = table[o, index[o, c, i], i]; `index` of the spec is its dtype.
void take_along(const GatherSpec& spec, const void* table, const void* index, void* out, int threads);

// table[o, index[o, c, i], i] += values[o, c, i]
void scatter_add_along(const GatherSpec& spec, const void* values, const void* index, void* table, int threads);

}  // namespace bp::cpu

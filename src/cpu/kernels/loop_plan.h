// What CompiledLoop prepares and runs: slots (addresses), steps (tile instructions over slots), stages and geometry.
// loop_compile.cc writes it, loop_exec.cc runs it.
#pragma once

#include <vector>

#include "cpu/kernels/loop_program.h"
#include "cpu/kernels/loop_tiles.h"

namespace bp::cpu {

// An address that steps read or write, resolved once a run (constant, scratch, operand) or once a block (operand_row).
struct LoopSlot {
  enum class Kind : std::uint8_t { constant, scratch, tile_register, operand, operand_row };
  Kind kind = Kind::scratch;
  bool moves = false;  // advances with the column when a row is cut into tiles
  int operand = -1;
  std::size_t offset = 0;  // bytes into the constants or a thread's scratch
};

// How much a step covers: one element, one element per row of the block, the block as one run of elements, or the
// block row by row.
enum class LoopSpan : std::uint8_t { one, rows, flat, rowwise };

// What no tile function does: conversions, gathers, indices, random bits.
struct LoopTransfer {
  enum class Kind : std::uint8_t { load, store, column_index, row_index, random };
  Kind kind = Kind::load;
  int operand = -1;
  bool dense = false;       // the block is one run of elements in memory
  bool replicated = false;  // every row of the block is the same
  ConvertFn convert = nullptr;
  std::int64_t width = 0;
  std::uint64_t place = 0;
};

struct LoopStep {
  TileFn fn = nullptr;  // null: transfer
  int dst = 0, a = 0, b = 0, c = 0;
  LoopSpan span = LoopSpan::one;
  int transfer = -1;
  int reduction = -1;       // a row reduction: its number
  bool only_first = false;  // writes what all threads would write alike: one does
  TileOp op = TileOp::copy;
};

// A row reduction: tiles' partial results are joined in f64 with compensation when a row takes several tiles.
struct LoopReduction {
  LoopOp op = LoopOp::row_sum;
  int result = 0;   // slot, one element per row of the block
  int partial = 0;  // slot, one element: the result of a tile
};

struct LoopAccumulator {
  LoopOp op = LoopOp::column_sum;
  int slot = 0;  // accumulator_rows x cols elements
  int operand = -1;
  ConvertFn store = nullptr;
};

// Row steps run before the tiles of their phase; row reductions of phase k are complete before phase k + 1.
struct LoopPhase {
  std::vector<LoopStep> row_steps, tile_steps;
  std::vector<int> reductions;
};

struct CompiledLoop::Plan {
  LoopProgram program;      // after collapsing
  bool by_columns = false;  // one row at a time, threads share its columns
  std::int64_t block_rows = 1, tile = 0, tiles_per_row = 1;
  std::int64_t blocks = 0, chunk_blocks = 1, chunks = 0;  // rows mode: chunks of blocks own column partials
  std::int64_t chunk_tiles = 1;                           // columns mode: chunks of tiles
  std::int64_t accumulator_rows = 1;  // narrow rows are accumulated side by side and folded at the end
  std::vector<LoopSlot> slots;
  std::vector<LoopTransfer> transfers;
  std::vector<LoopStep> uniform_steps, column_steps;  // once a run and thread
  std::vector<LoopPhase> phases;
  std::vector<LoopReduction> reductions;
  std::vector<LoopAccumulator> accumulators;
  std::vector<double> constants;  // raw bytes, aligned
  std::vector<int> row_slots;     // slots of kind operand_row
  std::vector<int> moving_slots;
  std::vector<int> streams;       // slots of operands too large for the cache: the next tile is fetched ahead
  std::size_t stream_quota = 0;   // cache lines to fetch before each step on tiles
  std::size_t scratch_bytes = 0;  // a thread's registers
  std::size_t shared_bytes = 0;   // partial results of chunks
  double ns = 0;                  // estimated time on one thread

  // Few blocks: accumulators go to the output without partial results.
  bool direct_accumulators() const noexcept { return chunks <= 1 && blocks <= kFlushBlocks; }
  // An accumulator in the compute dtype takes this many blocks before it joins an f64 partial result: short chains of
  // f32 roundings.
  static constexpr std::int64_t kFlushBlocks = 32;

  std::size_t element_bytes() const noexcept { return size_of(program.compute); }
  std::size_t thread_bytes() const noexcept;
};

}  // namespace bp::cpu

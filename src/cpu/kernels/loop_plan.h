// What CompiledLoop prepares and runs: slots (addresses), steps (tile instructions over slots), stages and geometry.
// loop_compile.cc writes it, loop_exec.cc runs it.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/kernels/loop_program.h"
#include "cpu/kernels/loop_tiles.h"
#include "cpu/kernels/machine_code.h"

namespace bp::cpu {

// An address that steps read or write, resolved once a run (constant, scratch, operand) or once a block (operand_row).
struct LoopSlot {
  enum class Kind : std::uint8_t { constant, scratch, tile_register, operand, operand_row };
  Kind kind = Kind::scratch;
  bool moves = false;  // advances with the column when a row is cut into tiles
  int operand = -1;
  std::size_t offset = 0;     // bytes into the constants or a thread's scratch
  std::int64_t elements = 0;  // scratch: as many, of the compute dtype; 0: the element behind the first of slot `after`
  int after = -1;
  bool column = false;    // what varies with the column only: the same in every row of a block
  std::size_t width = 0;  // bytes of an element in memory; 0: those of the compute dtype
};

// How much a step covers: one element, one element per row of the block, the block as one run of elements, the block
// row by row, or the block as rows of kFoldedColumns elements and a shorter last one.
enum class LoopSpan : std::uint8_t { one, rows, flat, rowwise, folded };
inline constexpr std::int64_t kFoldedColumns = 64;

// Rows that machine code takes stage by stage, where it does not take them one by one.
constexpr std::int64_t rows_of_group(std::int64_t cols) {
  return std::max<std::int64_t>(cols > 0 ? 1024 / cols : 1, 1);
}

// What no tile function does: conversions, gathers, indices, random bits.
struct LoopTransfer {
  enum class Kind : std::uint8_t { load, store, column_index, row_index, random };
  Kind kind = Kind::load;
  int operand = -1;
  bool dense = false;       // the block is one run of elements in memory
  bool replicated = false;  // every row of the block is the same
  ConvertFn convert = nullptr;
  int memory = -1;  // where machine code finds it: the slot of a dense one's place in memory, of random bits' state
  std::int64_t width = 0;
  std::uint64_t place = 0;
};

// What machine code draws random bits from, in a thread's scratch.
struct RandomState {
  std::uint64_t blocks[8];    // of the first element of a tile and on; see kBlockOrder
  std::uint64_t counter[2];   // the step's lower and upper word
  std::uint32_t keys[10][2];  // of Philox's rounds
  // Even lanes give the words of one vector, odd lanes those of the next.
  static constexpr std::uint64_t kBlockOrder[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  void set_keys(std::uint64_t key, std::uint64_t step) noexcept;
  void set_first(std::uint64_t element) noexcept;  // a multiple of 4
};

// Machine code of a run of steps: slots, rows of the block, elements of a row.
using LoopCodeFn = void (*)(char* const* slots, std::size_t rows, std::size_t n);

struct LoopStep {
  TileFn fn = nullptr;                 // null: transfer, or code
  LoopCodeFn code = nullptr;           // of the run
  LoopCodeFn uncached_code = nullptr;  // the same, storing past the caches
  int dst = 0, a = 0, b = 0, c = 0;
  LoopSpan span = LoopSpan::one;
  int transfer = -1;
  int reduction = -1;       // a row reduction: its number
  bool only_first = false;  // writes what all threads would write alike: one does
  TileOp op = TileOp::copy;
  int run = -1;          // in place of several steps: their number among the runs
  unsigned scalars = 0;  // bit k: operand k is one value, or one a row where the span is rowwise
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

// A value that is the same at many elements: at `offset` of a slot, one for each row or not.
struct SteadyValue {
  int slot = 0, offset = 0;
  bool by_row = false;
  auto operator<=>(const SteadyValue&) const = default;
};

// What code of a run needs, learnt by making it once.
struct RunNeeds {
  int registers = 0;                                     // at the same time
  std::vector<int> pointers;                             // slots whose addresses it reads, in that order
  int scratch_anchor = -1;                               // the slot from which a thread's scratch is addressed
  std::vector<SteadyValue> steady;                       // worth a register each
  std::vector<std::pair<std::uint32_t, int>> constants;  // and how often each is read
  std::int64_t column_rows = 1;                          // rows of a block in which columns must be replicated
};

// Steps on the elements of a row, after steps on values of the row.
struct LoopStage {
  std::vector<LoopStep> row_steps, tile_steps;
};

// Steps that machine code takes at once: of one phase, or of several, row by row through all of them.
struct LoopRun {
  std::vector<LoopStage> stages;
  std::vector<bool> kept;  // by slot: others read it, so that it must be in memory
  RunNeeds needs;
  std::shared_ptr<const MachineCode> code = nullptr, uncached_code = nullptr;
};

struct CompiledLoop::Plan {
  LoopProgram program;      // after collapsing
  bool by_columns = false;  // one row at a time, threads share its columns
  std::int64_t block_rows = 1, tile = 0, tiles_per_row = 1;
  std::int64_t blocks = 0, chunk_blocks = 1, chunks = 0;  // rows mode: chunks of blocks own column partials
  std::int64_t column_rows = 0;                           // rows of a block in which columns are replicated; 0: all
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
  std::vector<int> streams;           // slots of operands too large for the cache: the next tile is fetched ahead
  std::vector<int> random_transfers;  // those with a RandomState
  std::size_t stream_quota = 0;       // cache lines to fetch before each step on tiles
  std::vector<LoopRun> runs;
  bool fetches_ahead = false;         // machine code asks for what it will read
  bool only_sums = false;             // no result has an element for each of the space
  std::vector<int> uncached_outputs;  // operands that may be stored past the caches, where they begin with a line
  std::size_t scratch_bytes = 0;      // a thread's registers
  std::size_t shared_bytes = 0;       // partial results of chunks
  double ns = 0;                      // estimated time on one thread

  // Few blocks: accumulators go to the output without partial results.
  bool direct_accumulators() const noexcept { return chunks <= 1 && blocks <= flush_blocks(); }
  // An accumulator in the compute dtype takes this many blocks before it joins an f64 partial result: short chains of
  // f32 roundings.
  std::int64_t flush_blocks() const noexcept {
    constexpr std::int64_t kMost = 32, kRows = 96;
    return accumulate_by_row(static_cast<std::size_t>(program.cols))
               ? std::clamp<std::int64_t>(kRows / block_rows, 1, kMost)
               : kMost;
  }

  std::size_t element_bytes() const noexcept { return size_of(program.compute); }
  std::size_t thread_bytes() const noexcept;
};

}  // namespace bp::cpu

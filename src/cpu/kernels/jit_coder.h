// The assembler of one run of steps of fused loops: jit_run.cc has its loops, jit_steps.cc what happens at one vector
// and at one row, jit_random.cc random bits. Used by those only.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <vector>

#include "cpu/kernels/jit_ops.h"
#include "cpu/kernels/jit_run.h"

namespace bp::cpu {

// The loops around the steps. flat: the block is one run of elements. rows: row by row, where values vary with the row
// or rows are reduced. columns: 64 columns at a time down the rows, where narrow columns are reduced: in wider rows
// that would not be how memory is fetched ahead.
enum class Nest { flat, rows, columns };

// One run of steps on its way to code. Made twice: first to learn how many registers the steps need and what they read,
// then with what is read again and again kept in the registers that are left.
class RunCoder {
 public:
  RunCoder(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages, const std::vector<bool>& kept,
           const RunNeeds* needs, bool uncached);
  std::int64_t column_rows() const;
  RunNeeds needs() const;
  std::span<const std::byte> make();

 private:
  using Vec = JitVectors::Vec;
  using Arg = JitVectors::Arg;
  using Address = Xbyak::Address;
  using Reg64 = Xbyak::Reg64;
  enum class Part { main, single, tail };
  static constexpr int kStep = 4 * JitVectors::kLanes;  // elements of a turn of the main loop

  struct Accumulator {
    const LoopStep* step;
    std::array<Vec, 4> sum;
  };

  void choose_nest();
  void find_inner_values();
  bool computes_much() const;
  bool draws_random() const;

  template <class F> static void for_reads(const LoopStep& s, F f) {
    if (s.fn == nullptr) {
      if (s.a != 0) f(s.a);
      return;
    }
    const int slot[3] = {s.a, s.b, s.c};
    for (int k = 0; k < operands_of(s.op); ++k)
      if (!(s.scalars >> k & 1u)) f(slot[k]);
  }
  const LoopSlot& slot(int s) const { return plan_.slots[static_cast<std::size_t>(s)]; }

  // ---- registers that hold addresses and counters: slots rdi, rows rsi, columns rdx, element rax, column rcx (in a
  // flat nest: elements), row r9, start of the remainder r10, scratch r11 and r8
  static constexpr std::size_t kPointers = 6;
  Reg64 pointer(std::size_t i) const;
  // All of a thread's scratch that does not move is addressed from one of its slots.
  bool in_scratch(int s) const {
    const LoopSlot& l = slot(s);
    return (l.kind == LoopSlot::Kind::scratch || l.kind == LoopSlot::Kind::tile_register) && !l.moves;
  }
  int anchor(int s);
  struct Base {
    Reg64 reg;
    int offset;
  };
  Base base(int s);

  // Vector `v` of a turn, of a slot of elements.
  Address at(int s, int v);

  void enter();
  std::size_t used_pointers() const { return given_ == nullptr ? 0 : std::min(pointers_.size(), kPointers); }
  void leave();
  void release();

  // ---- stages
  void begin_stage(std::size_t number);
  static bool reads(const std::vector<LoopStep>& steps, int s);
  bool read_in(const LoopStage& stage, int s) const { return reads(stage.row_steps, s) || reads(stage.tile_steps, s); }
  bool read_after(std::size_t number, int s) const;

  // ---- values of the row, right in the first lane and in all where elements read them
  bool read_by_elements(std::size_t number, int s) const;
  void define_row_value(int s, const Vec& v, std::size_t number);
  Address row_address(int s);
  void row_steps(std::size_t number);
  Arg row_operand(const LoopStep& s, int k);

  // ---- what stays in registers
  void choose_steady();
  void load_steady(const SteadyValue& key, const Vec& v);
  Address steady_columns(const SteadyValue& key);
  Address steady_address(const SteadyValue& key);
  Vec steady(const SteadyValue& key);
  void note(const SteadyValue& key);
  void begin_row(const LoopStage& stage);

  // ---- values
  Arg read(const LoopStep& s, int k);
  Arg constant(int id, std::size_t offset) const;
  Vec element(int id);
  Vec fetched(int id);
  void define(const LoopStep& s, const Vec& v);

  // ---- the steps at one vector
  void claim_outputs();
  bool goes_past_caches(int s) const;
  void fetch_ahead(int s);
  void body(int vector, Part part);
  void transfer(const LoopStep& s);
  // Random bits of the present vector: those of a whole turn are drawn at its first.
  Vec random(const LoopTransfer& t);
  void draw(const LoopTransfer& t, int batches);
  Vec value(const LoopStep& s);
  bool is_maximum(int top, int elements) const;
  // c[0] * a + c[1] * b, or b * b
  Vec moments(const LoopStep& s);

  // ---- sums over rows and columns
  static LoopOp joining(TileOp op);
  // x into acc, registers of the same width, in the lanes of k1 where masked.
  void join(LoopOp op, const Xbyak::Xmm& acc, const Xbyak::Xmm& x, bool masked);
  // Column sums that are registers while a block is walked.
  bool in_registers(const LoopStep& s) const { return nest_ == Nest::columns || s.span == LoopSpan::folded; }
  const Vec& sum_of(const LoopStep& s, int v) const;
  void accumulate(const LoopStep& s);
  // The present vector of an accumulator in memory.
  Address accumulator(const LoopStep& s);

  // The sums start at what changes nothing: for columns, -0.
  void start_sums(bool reductions);
  // Joins the column sums of a turn's vectors with those in memory, at column rcx, or at 0 in a flat nest.
  void flush_sums(int vectors, bool masked);
  // The element of the row at the column that its index says, or 0, as in loop_tiles_reduce.cc.
  Vec picked(const LoopStep& s);
  // Folds the four sums of each row reduction into its result for this row, in the order of loop_tiles_reduce.cc.
  void finish_row(std::size_t number);

  // ---- the loops
  // k1 = the lowest `count` lanes; spoils both registers.
  void mask_lanes(const Reg64& count, const Reg64& scratch);
  void turn();
  void flat();
  // The vectors of a part from the present element on.
  void vectors(Part part);
  // Calls at(part) for columns rcx from 0 to rdx: turns, then single vectors, then the lanes of k1, r8 of them.
  template <class F> void along_columns(F at);
  template <class F> void along_fixed_columns(F at);
  void rows();
  void stage_rows(std::size_t number, const Reg64& end);
  // The rows at columns rcx and on: four vectors, one, or the lanes of k1.
  void down_the_rows(Part part);
  void columns();

  const CompiledLoop::Plan& plan_;
  std::span<const LoopStage> stages_;
  const LoopStage* stage_ = nullptr;  // the present one
  const std::vector<bool>& kept_;     // slots that are read after the run
  const RunNeeds* given_;             // null: they are being learnt
  JitVectors j_;                      // before all that holds its registers
  Nest nest_ = Nest::flat;
  bool folds_ = false;
  bool uncached_ = false;       // outputs are stored past the caches
  bool by_groups_ = false;      // stage by stage over a few rows, whose values are in memory; else row by row
  bool periodic_ = false;       // columns repeat every kFoldedColumns elements, with which the turns begin
  bool fixed_columns_ = false;  // the columns of a row are known, k1 their last lanes
  std::map<int, int> reads_;    // of a slot, by the steps of the stage
  std::map<int, int> left_;     // of them after the present step
  std::map<int, Vec> values_;
  std::map<SteadyValue, Vec> steady_;
  std::map<int, std::vector<Vec>> drawn_;  // random vectors of this turn by their state's slot, the next one last
  std::map<int, Vec> row_values_;          // of this row
  std::vector<bool> inner_;                // slots of values of a row that the run computes
  std::vector<SteadyValue> seen_;          // steady values
  std::vector<Accumulator> accumulators_;
  std::vector<int> pointers_;  // slots whose address is in pointer(i)
  int scratch_anchor_ = -1;
  int vector_ = 0;
  Part part_ = Part::main;
};

}  // namespace bp::cpu

// LoopProgram -> CompiledLoop::Plan: choose tiles, emit steps phase by phase on demand, assign registers. Values are
// classified by loop_nodes.cc; the running is in loop_exec.cc.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>
#include <tuple>

#include "cpu/kernels/loop_jit.h"
#include "cpu/kernels/loop_nodes.h"
#include "cpu/kernels/loop_plan.h"

namespace bp::cpu {

namespace {

class Compiler {
 public:
  Compiler(const LoopProgram& program, CompiledLoop::Plan& plan, LoopCode code)
      : plan_(plan), code_(code), nodes_(program), p_(nodes_.program()), traffic_(traffic_of(p_)) {}

  void compile() {
    plan_.program = p_;
    plan_.constants.push_back(0);
    add_slot({.kind = LoopSlot::Kind::constant});  // slot 0: the operand of steps that have none
    choose_geometry();
    find_roots();
    emit();
    redirect_stores();
    if (code_ == LoopCode::machine) choose_runs(plan_);
    lay_out();
    assign_registers();
    make_code(plan_);
    finish();
  }

 private:
  struct Root {
    std::size_t instr;
    unsigned vary;
    int phase;
    bool in_place;
  };
  struct Store {
    int phase, operand, slot;
  };

  const LoopOperand& operand(int k) const { return p_.operands[static_cast<std::size_t>(k)]; }
  const LoopNode& node(int v) const { return nodes_.node(v); }
  bool tiled() const { return plan_.tiles_per_row > 1; }
  std::size_t esize() const { return size_of(p_.compute); }

  // Rows of fewer columns have too few independent sums for registers: several rows lie side by side in the
  // accumulator.
  static constexpr std::int64_t kNarrow = 32;
  // Those that divide kFoldedColumns fill the accumulator's rows evenly: the block is summed as if it were so wide.
  bool folds() const { return p_.cols > 0 && p_.cols <= kNarrow && kFoldedColumns % p_.cols == 0; }

  // Long rows that lie apart in memory (slices of longer ones) are read in place when a block is one of them: copying
  // several into a register costs more than a block does.
  bool reads_rows_apart() const {
    constexpr std::int64_t kLongRow = 128;
    return p_.cols >= kLongRow && std::any_of(p_.operands.begin(), p_.operands.end(), [&](const LoopOperand& o) {
             return o.access.col_stride == 1 && o.access.rank > 0 && !is_dense(o.access, p_.rows, p_.cols);
           });
  }

  void choose_geometry() {
    // With values in registers a block need not leave room for them in the cache: long ones cost fewer calls (bias and
    // relu of 32768 elements 0.08 ns each for 0.10). Small loops keep short ones, and small models small workspaces:
    // columns that do not fill vectors are copied for each row of a block.
    const std::int64_t elements = p_.rows * p_.cols;
    const bool fills = p_.cols >= kFoldedColumns || (p_.cols > 0 && kFoldedColumns % p_.cols == 0);
    const bool large = elements >= (1 << 16);
    const bool coded = (large || (fills && elements >= (1 << 13))) && runs_as_code(p_);
    const std::int64_t unit = esize() == 4 ? 512 : 256, resident = 4 * unit;
    const std::int64_t tile = coded && nodes_.last_phase() == 0 ? 4 * unit : unit;
    const bool accumulates =
        std::any_of(p_.instrs.begin(), p_.instrs.end(), [](const LoopInstr& in) { return in.op > LoopOp::store; });
    const std::int64_t rows = p_.rows, cols = p_.cols, limit = nodes_.last_phase() > 0 ? resident : tile;
    plan_.by_columns = cols > limit && !accumulates && rows <= 4;
    if (cols <= limit) {
      const std::int64_t block = nodes_.last_phase() > 0 ? phased_block(large, tile) : tile;
      plan_.tile = cols;
      plan_.block_rows =
          reads_rows_apart() ? 1 : std::clamp<std::int64_t>(rows_of(block), 1, std::max<std::int64_t>(rows, 1));
    } else {
      plan_.tiles_per_row = (cols + tile - 1) / tile;
      plan_.tile =
          std::min<std::int64_t>(tile, ((cols + plan_.tiles_per_row - 1) / plan_.tiles_per_row + 15) / 16 * 16);
      plan_.tiles_per_row = (cols + plan_.tile - 1) / plan_.tile;
    }
    plan_.accumulator_rows = folds() ? kFoldedColumns / cols : cols < kNarrow ? plan_.block_rows : 1;
    plan_.blocks = (rows + plan_.block_rows - 1) / plan_.block_rows;
    const std::int64_t block_elements = std::max<std::int64_t>(plan_.block_rows * cols, 1), chunk = 16384;
    // At least eight blocks a chunk: its partial results cost about as much as two.
    plan_.chunk_blocks =
        std::max<std::int64_t>({8, (plan_.blocks + 31) / 32, (chunk + block_elements - 1) / block_elements});
    if (!accumulates) plan_.chunk_blocks = 1;
    plan_.chunks = (plan_.blocks + plan_.chunk_blocks - 1) / plan_.chunk_blocks;
    if (plan_.by_columns) {
      // Reductions have a partial result a chunk; without them a chunk is what a thread may take by itself.
      if (nodes_.last_phase() > 0)
        plan_.chunk_tiles = std::max<std::int64_t>(8192 / plan_.tile, (plan_.tiles_per_row + 63) / 64);
      plan_.chunks = (plan_.tiles_per_row + plan_.chunk_tiles - 1) / plan_.chunk_tiles;
    }
  }

  // Whole groups of rows, where they are several.
  std::int64_t rows_of(std::int64_t block) const {
    const std::int64_t rows = block / std::max<std::int64_t>(p_.cols, 1), group = rows_of_group(p_.cols);
    return rows > group ? rows - rows % group : rows;
  }
  // Rows that are read again and again pay once a block for it. Machine code goes through the phases row by row; from
  // memory short blocks overlap better. Steps on rows are calls, fewer where a block need not hold results.
  std::int64_t phased_block(bool large, std::int64_t tile) const {
    const bool far = traffic_.from_memory();
    if (large && esize() == 4 && machine_code_wanted()) return (!traffic_.writes ? 8 : far ? 2 : 4) * tile;
    return far ? tile : 2 * tile;
  }

  // ---- slots ----
  int add_slot(LoopSlot s) {
    plan_.slots.push_back(s);
    return static_cast<int>(plan_.slots.size()) - 1;
  }
  int scratch_slot(std::int64_t elements, bool moves) {
    return add_slot({.kind = LoopSlot::Kind::scratch, .moves = moves && tiled(), .elements = elements});
  }
  int constant_slot(double value) {
    const std::size_t offset = plan_.constants.size() * sizeof(double);
    const auto single = static_cast<float>(value);
    double raw = value;
    if (esize() == 4) std::memcpy(&raw, &single, sizeof single);
    plan_.constants.push_back(raw);
    return add_slot({.kind = LoopSlot::Kind::constant, .offset = offset});
  }
  int column_slot(int s) {
    plan_.slots[static_cast<std::size_t>(s)].column = true;
    return s;
  }
  int operand_slot(int k, LoopSlot::Kind kind, bool moves) {
    const auto key = std::pair(k, static_cast<int>(kind) * 2 + (moves ? 1 : 0));
    auto [it, fresh] = operand_slots_.try_emplace(key, 0);
    if (fresh) it->second = add_slot({.kind = kind, .moves = moves && tiled(), .operand = k});
    return it->second;
  }
  // A register for an element value: scratch is found for it when lifetimes are known.
  int tile_register() { return add_slot({.kind = LoopSlot::Kind::tile_register}); }

  // ---- emission ----
  std::vector<LoopStep>& stage(unsigned vary, int phase) {
    if (vary == kUniform) return plan_.uniform_steps;
    if (vary == kColumn) return plan_.column_steps;
    LoopPhase& p = plan_.phases[static_cast<std::size_t>(phase)];
    return vary == kRow ? p.row_steps : p.tile_steps;
  }
  int result_slot(unsigned vary) {
    switch (vary) {
      case kUniform: return scratch_slot(1, false);
      case kRow: return scratch_slot(plan_.block_rows, false);
      case kColumn: return column_slot(scratch_slot(plan_.block_rows * p_.cols, true));
      default: return tile_register();
    }
  }
  LoopSpan span_of(unsigned vary) const {
    return vary == kUniform ? LoopSpan::one : vary == kRow ? LoopSpan::rows : LoopSpan::flat;
  }

  // The memory of operand k can stand for a value of this kind without a copy.
  bool addressable(int k, unsigned vary) const {
    const LoopOperand& o = operand(k);
    if (o.dtype != p_.compute) return false;
    if (vary == kUniform) return true;
    if (plan_.block_rows == 1) return vary == kRow || o.access.col_stride == 1 || p_.cols == 1;
    return is_run(k, vary);
  }

  // A block of such a value is one run of elements of operand k.
  bool is_run(int k, unsigned vary) const {
    const LoopAccess& a = operand(k).access;
    if (vary == kRow) return a.rank == 1 && a.stride[0] == 1;
    return vary == kBoth && (is_dense(a, p_.rows, p_.cols) || (plan_.block_rows == 1 && a.col_stride == 1));
  }

  int emit_load(const LoopNode& n, int phase) {
    const int k = n.operand;
    if (addressable(k, n.vary)) {
      const bool fixed = n.vary == kUniform || n.vary == kColumn;
      const int slot = operand_slot(k, fixed ? LoopSlot::Kind::operand : LoopSlot::Kind::operand_row, n.vary & kColumn);
      return n.vary == kColumn ? column_slot(slot) : slot;
    }
    LoopTransfer t{.kind = LoopTransfer::Kind::load, .operand = k};
    t.convert = load_converter(operand(k).dtype, p_.compute);
    t.dense = is_run(k, n.vary);
    t.replicated = operand(k).access.rank == 0;
    return emit_transfer(t, n.vary, phase);
  }

  int emit_transfer(const LoopTransfer& t, unsigned vary, int phase) {
    const int dst = result_slot(vary);
    plan_.transfers.push_back(t);
    stage(vary, phase)
        .push_back({.dst = dst, .span = span_of(vary), .transfer = static_cast<int>(plan_.transfers.size()) - 1});
    return dst;
  }

  int emit_leaf(const LoopNode& n, int phase) {
    switch (static_cast<LoopOp>(n.op)) {
      case LoopOp::constant: return constant_slot(n.imm);
      case LoopOp::load: return emit_load(n, phase);
      case LoopOp::column_index: return emit_transfer({.kind = LoopTransfer::Kind::column_index}, n.vary, phase);
      case LoopOp::row_index:
        if (n.vary == kUniform) return constant_slot(0);
        return emit_transfer({.kind = LoopTransfer::Kind::row_index}, n.vary, phase);
      default:
        return emit_transfer({.kind = LoopTransfer::Kind::random,
                              .operand = n.operand,
                              .width = static_cast<std::int64_t>(n.imm),
                              .place = n.place},
                             n.vary, phase);
    }
  }

  // The slot of value v for use in `phase`, emitting what is missing.
  int value(int v, int phase) {
    const LoopNode n = node(v);
    const int home = n.vary == kBoth ? phase : n.level;
    if (n.vary != kBoth) {
      if (auto it = memo_.find({v, 0}); it != memo_.end()) return it->second;
    } else {
      if (auto it = memo_.find({v, home}); it != memo_.end()) return it->second;
      if (const int kept = reuse(v, phase); kept >= 0) return kept;
    }
    const int slot = n.is_reduction() ? emit_reduction(n)
                     : n.op == kPair  ? emit_pair(n)
                     : n.is_leaf()    ? emit_leaf(n, home)
                                      : emit_op(n, home);
    memo_[{v, n.vary == kBoth ? home : 0}] = slot;
    return slot;
  }

  // An element value computed in an earlier phase: still there when the whole row is, else kept in a row of scratch
  // when computing it again would cost more than writing and reading it.
  int reuse(int v, int phase) {
    for (int q = phase - 1; q >= 0; --q) {
      const auto it = memo_.find({v, q});
      if (it == memo_.end()) continue;
      LoopSlot& s = plan_.slots[static_cast<std::size_t>(it->second)];
      if (tiled() && s.kind == LoopSlot::Kind::tile_register) {
        if (plan_.by_columns || p_.cols > 32768 || recompute_cost(v) < 4) return -1;
        s = {.kind = LoopSlot::Kind::scratch, .moves = true, .elements = p_.cols};
      }
      return it->second;
    }
    return -1;
  }

  int recompute_cost(int v) {
    const LoopNode& n = node(v);
    if (n.vary != kBoth) return 0;
    if (n.is(LoopOp::load)) return addressable(n.operand, n.vary) ? 0 : 1;
    int cost = cost_of(n);
    for (int a : n.arg)
      if (a >= 0 && cost < 100) cost += recompute_cost(a);
    return cost;
  }

  int emit_pair(const LoopNode& n) {
    const int pair = scratch_slot(2, false);
    const int dst[2] = {pair, add_slot({.kind = LoopSlot::Kind::scratch, .after = pair})};
    for (int k : {0, 1}) emit_copy(dst[k], value(n.arg[k], 0), kUniform, kUniform, 0);
    return pair;
  }

  // Copies a value that varies with `from` into a slot of kind `to`.
  void emit_copy(int dst, int src, unsigned from, unsigned to, int phase, bool only_first = false) {
    const bool scalar = to != kUniform && !(from & kColumn) && from != to;
    const bool by_row = scalar && from == kRow && to == kBoth;
    stage(to, phase).push_back(
        {.fn = table().at(TileOp::copy, scalar && !(to == kRow && plan_.block_rows == 1) ? 1 : 0),
         .dst = dst,
         .a = src,
         .span = by_row ? LoopSpan::rowwise : span_of(to),
         .only_first = only_first,
         .scalars = scalar ? 1u : 0u});
  }
  // A value spread to a wider kind, once per kind and phase.
  int expanded(int v, unsigned to, int phase) {
    const unsigned from = node(v).vary;
    // Where uniform meets per-row operands it is repeated for each row of a block: once a run.
    const auto key = std::tuple(v, to, to == kBoth ? phase : 0);
    if (auto it = expanded_.find(key); it != expanded_.end()) return it->second;
    const int src = value(v, phase), dst = result_slot(to);
    if (from == kUniform && to == kRow) {
      plan_.uniform_steps.push_back({.fn = table().at(TileOp::copy, 1), .dst = dst, .a = src, .span = LoopSpan::rows});
    } else {
      emit_copy(dst, src, from, to, phase);
    }
    return expanded_[key] = dst;
  }

  const TileTable& table() const { return tile_table(p_.compute); }

  int emit_op(const LoopNode& n, int phase) {
    LoopStep s = operands_of(n, phase);
    s.dst = result_slot(n.vary);
    stage(n.vary, phase).push_back(s);
    return s.dst;
  }

  // Finds the form of n's instruction for what its operands vary with, spreading those for which there is none.
  LoopStep operands_of(const LoopNode& n, int phase) {
    LoopStep s;
    s.op = n.op;
    s.span = span_of(n.vary);
    const bool coefficients = n.op == TileOp::axpby || n.op == TileOp::axpbyy;
    bool by_row = false;
    unsigned mask = 0;
    for (unsigned k = 0; k < 3; ++k) {
      if (n.arg[k] < 0 || (coefficients && k == 2)) continue;
      const unsigned vary = node(n.arg[k]).vary;
      if (!(vary & kColumn) && n.vary & kColumn) mask |= 1u << k;
      if (n.vary == kRow && vary == kUniform && plan_.block_rows > 1) mask |= 1u << k;
      by_row |= n.vary == kBoth && vary == kRow && plan_.block_rows > 1;
    }
    unsigned form = mask;
    while (table().at(n.op, form) == nullptr) form &= form - 1;  // drop the lowest scalar: form 0 always exists
    s.fn = table().at(n.op, form);
    s.scalars = form;
    if (by_row && form != 0) s.span = LoopSpan::rowwise;
    int* slot[3] = {&s.a, &s.b, &s.c};
    for (unsigned k = 0; k < 3; ++k) {
      if (n.arg[k] < 0) continue;
      const bool spread_it = (mask & ~form) >> k & 1u;
      const bool per_row = s.span == LoopSpan::rowwise && form >> k & 1u && node(n.arg[k]).vary == kUniform;
      *slot[k] = spread_it ? expanded(n.arg[k], n.vary, phase)
                 : per_row ? expanded(n.arg[k], kRow, phase)
                           : value(n.arg[k], phase);
    }
    return s;
  }

  int emit_reduction(const LoopNode& n) {
    const int phase = n.level - 1;
    LoopStep s{.span = LoopSpan::rowwise, .reduction = static_cast<int>(plan_.reductions.size()), .op = n.op};
    s.fn = table().at(n.op, 0);
    s.a = tile_of(n.arg[0], phase);
    if (n.op == TileOp::row_pick) {
      s.b = node(n.arg[1]).vary == kUniform ? expanded(n.arg[1], kRow, phase) : value(n.arg[1], phase);
      s.c = value(n.arg[2], phase);
    } else if (n.arg[1] >= 0) {
      s.b = tile_of(n.arg[1], phase);
    }
    LoopReduction r;
    r.op = n.op > tile_op(LoopOp::column_min) ? LoopOp::row_sum : static_cast<LoopOp>(n.op);
    r.result = scratch_slot(plan_.block_rows, false);
    r.partial = tiled() ? scratch_slot(1, false) : r.result;
    s.dst = r.partial;
    plan_.reductions.push_back(r);
    LoopPhase& p = plan_.phases[static_cast<std::size_t>(phase)];
    p.tile_steps.push_back(s);
    p.reductions.push_back(s.reduction);
    return r.result;
  }

  int tile_of(int v, int phase) { return is_tile(node(v).vary) ? value(v, phase) : expanded(v, kBoth, phase); }

  void emit() {
    plan_.phases.resize(static_cast<std::size_t>(nodes_.last_phase()) + 1);
    // Phase by phase, so that a value needed in several is computed in the first.
    for (int phase = 0; phase <= nodes_.last_phase(); ++phase) {
      for (std::size_t i = 0; i < p_.instrs.size(); ++i) {
        const LoopNode& n = node(static_cast<int>(i));
        if (n.is_reduction() && n.level == phase + 1 && n.uses > 0) value(static_cast<int>(i), phase + 1);
      }
      for (const Root& r : roots_)
        if (r.phase == phase && !r.in_place) emit_root(r);
    }
    // In-place stores overwrite inputs: every value first, then the stores.
    for (const Root& r : roots_)
      if (r.in_place) value(p_.instrs[r.instr].a, r.phase);
    for (const Root& r : roots_)
      if (r.in_place) emit_root(r);
  }

  void find_roots() {
    for (std::size_t i = 0; i < p_.instrs.size(); ++i) {
      const LoopInstr& in = p_.instrs[i];
      if (in.op < LoopOp::store) continue;
      const unsigned from = node(in.a).vary;
      unsigned vary = in.op == LoopOp::store ? nodes_.vary_of(operand(in.operand).access) : unsigned{kBoth};
      if (p_.rows == 1 && vary == kUniform) vary = from;  // the one row's own result
      assert((from & ~vary) == 0 && "a value may not vary beyond where it is stored");
      const bool in_place = operand(in.operand).in_place_of >= 0;
      roots_.push_back({i, vary, in_place ? nodes_.last_phase() : node(static_cast<int>(i)).level, in_place});
    }
  }

  void emit_root(const Root& r) {
    if (p_.instrs[r.instr].op == LoopOp::store)
      emit_store(r);
    else
      emit_accumulator(r);
  }

  void emit_store(const Root& r) {
    const LoopInstr& in = p_.instrs[r.instr];
    const unsigned from = node(in.a).vary;
    const bool first = !(r.vary & kRow) || (plan_.by_columns && r.vary == kRow);
    if (addressable(in.operand, r.vary)) {
      const bool fixed = !(r.vary & kRow);
      const int dst =
          operand_slot(in.operand, fixed ? LoopSlot::Kind::operand : LoopSlot::Kind::operand_row, r.vary & kColumn);
      emit_copy(dst, value(in.a, r.phase), from, r.vary, r.phase, first);
      if (r.vary == kBoth) stores_.push_back({r.phase, in.operand, dst});
      return;
    }
    LoopTransfer t{.kind = LoopTransfer::Kind::store, .operand = in.operand};
    t.convert = store_converter(p_.compute, operand(in.operand).dtype);
    t.dense = is_run(in.operand, r.vary);
    t.replicated = r.vary == kColumn;
    plan_.transfers.push_back(t);
    const int number = static_cast<int>(plan_.transfers.size()) - 1;
    const bool whole = from == r.vary || (from & kColumn);
    const int src = whole ? value(in.a, r.phase) : expanded(in.a, r.vary, r.phase);
    stage(r.vary, r.phase).push_back({.a = src, .span = span_of(r.vary), .transfer = number, .only_first = first});
  }

  void emit_accumulator(const Root& r) {
    const LoopInstr& in = p_.instrs[r.instr];
    const LoopNode& n = node(static_cast<int>(r.instr));
    LoopAccumulator acc{.op = in.op, .operand = in.operand};
    acc.store = store_converter(p_.compute, operand(in.operand).dtype);
    acc.slot = scratch_slot(plan_.accumulator_rows * p_.cols, true);
    plan_.accumulators.push_back(acc);
    LoopStep s{.dst = acc.slot,
               .span = folds()             ? LoopSpan::folded
                       : p_.cols < kNarrow ? LoopSpan::flat
                                           : LoopSpan::rowwise};
    s.op = n.arg[1] >= 0 ? TileOp::column_dot : accumulator_op(in.op);
    s.fn = table().at(s.op, 0);
    s.a = tile_of(n.arg[0], r.phase);
    if (n.arg[1] >= 0) s.b = tile_of(n.arg[1], r.phase);
    stage(kBoth, r.phase).push_back(s);
  }

  // ---- after emission ----
  bool reads_operand(const LoopStep& s, int k) const {
    if (s.transfer >= 0) {
      const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
      if (t.kind == LoopTransfer::Kind::load && t.operand == k) return true;
    }
    for (int v : {s.a, s.b, s.c}) {
      const LoopSlot& slot = plan_.slots[static_cast<std::size_t>(v)];
      if (slot.kind == LoopSlot::Kind::operand_row && slot.operand == k) return true;
    }
    return false;
  }

  // A value that is stored as it is may be computed straight into the output, unless an input that shares the
  // output's memory is still read afterwards.
  void redirect_stores() {
    for (const Store& store : stores_) {
      auto& steps = plan_.phases[static_cast<std::size_t>(store.phase)].tile_steps;
      const auto copy = std::find_if(steps.begin(), steps.end(), [&](const LoopStep& s) {
        return s.dst == store.slot && s.op == TileOp::copy && s.fn != nullptr;
      });
      const int src = copy->a;
      LoopSlot& slot = plan_.slots[static_cast<std::size_t>(src)];
      if (slot.kind != LoopSlot::Kind::tile_register || !may_redirect(src, operand(store.operand).in_place_of))
        continue;
      slot = plan_.slots[static_cast<std::size_t>(store.slot)];
      steps.erase(copy);
    }
  }
  bool may_redirect(int src, int shared_input) const {
    if (shared_input < 0) return true;
    bool computed = false;
    for (const LoopPhase& phase : plan_.phases)
      for (const LoopStep& s : phase.tile_steps) {
        if (computed && reads_operand(s, shared_input)) return false;
        computed |= s.dst == src;
      }
    return true;
  }

  // Bytes of so many elements, in whole cache lines, so that neighbours do not share one.
  std::size_t line_bytes(std::int64_t elements) const {
    return (static_cast<std::size_t>(elements) * esize() + 63) / 64 * 64;
  }

  void lay_out() {
    const std::int64_t rows = plan_.column_rows != 0 ? plan_.column_rows : plan_.block_rows;
    for (LoopSlot& s : plan_.slots) {
      if (s.kind != LoopSlot::Kind::scratch) continue;
      if (s.after >= 0) {
        s.offset = plan_.slots[static_cast<std::size_t>(s.after)].offset + esize();
        continue;
      }
      s.offset = plan_.scratch_bytes;
      plan_.scratch_bytes += line_bytes(s.column ? s.elements / plan_.block_rows * rows : s.elements);
    }
  }

  // The steps on tiles in their order, those of runs too.
  template <class F> void each_tile_step(F f) const {
    for (const LoopPhase& phase : plan_.phases)
      for (const LoopStep& s : phase.tile_steps) {
        if (s.run < 0) {
          f(s);
          continue;
        }
        for (const LoopStage& stage : plan_.runs[static_cast<std::size_t>(s.run)].stages)
          for (const LoopStep& inner : stage.tile_steps) f(inner);
      }
  }
  // Registers, but for the values that only code sees.
  std::vector<bool> registers() const {
    std::vector<bool> out(plan_.slots.size());
    for (std::size_t v = 0; v < out.size(); ++v) out[v] = plan_.slots[v].kind == LoopSlot::Kind::tile_register;
    for (const LoopRun& run : plan_.runs)
      for (const LoopStage& stage : run.stages)
        for (const LoopStep& s : stage.tile_steps)
          if (!run.kept[static_cast<std::size_t>(s.dst)]) out[static_cast<std::size_t>(s.dst)] = false;
    return out;
  }

  // Linear scan: a register is free again after its value's last use, also for the step that uses it last.
  void assign_registers() {
    const std::size_t bytes = line_bytes(plan_.block_rows * plan_.tile);
    const std::vector<bool> is_register = registers();
    std::vector<int> last_use(plan_.slots.size(), -1);
    int at = 0;
    each_tile_step([&](const LoopStep& s) {
      for (int v : {s.a, s.b, s.c, s.dst}) last_use[static_cast<std::size_t>(v)] = at;
      ++at;
    });
    std::vector<std::size_t> free;
    std::vector<bool> placed(plan_.slots.size());
    at = 0;
    each_tile_step([&](const LoopStep& s) {
      const int reads[3] = {s.a, s.b, s.c};
      for (int k = 0; k < 3; ++k) {
        const auto v = static_cast<std::size_t>(reads[k]);
        const bool seen = std::find(reads, reads + k, reads[k]) != reads + k;
        if (!seen && is_register[v] && last_use[v] == at) free.push_back(plan_.slots[v].offset);
      }
      const auto dst = static_cast<std::size_t>(s.dst);
      if (is_register[dst] && !placed[dst]) {
        if (free.empty()) {
          free.push_back(plan_.scratch_bytes);
          plan_.scratch_bytes += bytes;
        }
        plan_.slots[dst].offset = free.back();
        placed[dst] = true;
        free.pop_back();
      }
      ++at;
    });
  }

  // Where operands come from memory, the processor's own prefetching halts while a tile is computed with.
  void find_streams() {
    std::size_t steps = 0;
    bool walks = false;  // machine code reads streams as the processor expects
    for (const LoopPhase& phase : plan_.phases) {
      steps += phase.tile_steps.size();
      for (const LoopStep& s : phase.tile_steps) walks |= s.run < 0;
    }
    if (!traffic_.from_memory() || !walks) return;
    for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
      const LoopSlot& s = plan_.slots[i];
      const bool element = s.kind == LoopSlot::Kind::operand_row || (s.kind == LoopSlot::Kind::operand && p_.rows == 1);
      if (element && is_stream(p_, operand(s.operand))) plan_.streams.push_back(static_cast<int>(i));
    }
    if (plan_.streams.empty()) return;
    const std::size_t lines = static_cast<std::size_t>(plan_.block_rows * plan_.tile) * esize() / 64 + 1;
    plan_.stream_quota = (lines * plan_.streams.size() + steps - 1) / steps;
  }

  void finish() {
    for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
      if (plan_.slots[i].kind == LoopSlot::Kind::operand_row) plan_.row_slots.push_back(static_cast<int>(i));
      if (plan_.slots[i].moves) plan_.moving_slots.push_back(static_cast<int>(i));
    }
    find_streams();
    const auto chunks = static_cast<std::size_t>(plan_.chunks);
    if (plan_.by_columns) {
      plan_.shared_bytes = plan_.reductions.size() * chunks * sizeof(double);
    } else if (!plan_.accumulators.empty() && !plan_.direct_accumulators()) {
      plan_.shared_bytes = plan_.accumulators.size() * chunks * static_cast<std::size_t>(p_.cols) * sizeof(double);
    }
    double element = 0;
    for (std::size_t i = 0; i < p_.instrs.size(); ++i) {
      const LoopNode& n = node(static_cast<int>(i));
      if (n.vary == kBoth && (n.uses > 0 || n.op >= tile_op(LoopOp::store))) element += 0.1 * cost_of(n);
    }
    plan_.ns = element * static_cast<double>(p_.rows * p_.cols) * (esize() == 8 ? 2 : 1);
  }

  CompiledLoop::Plan& plan_;
  LoopCode code_;
  LoopNodes nodes_;
  const LoopProgram& p_;
  const LoopTraffic traffic_;
  std::vector<Root> roots_;
  std::vector<Store> stores_;
  std::map<std::pair<int, int>, int> memo_;                 // (value, phase) -> slot
  std::map<std::tuple<int, unsigned, int>, int> expanded_;  // (value, kind, phase) -> slot
  std::map<std::pair<int, int>, int> operand_slots_;
};

}  // namespace

CompiledLoop::CompiledLoop(const LoopProgram& program, LoopCode code) {
  auto plan = std::make_unique<Plan>();
  Compiler(program, *plan, code).compile();
  plan_ = std::move(plan);
}

}  // namespace bp::cpu

#if defined(BP_MACHINE_CODE)
#include "cpu/kernels/jit_run.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>

#include "cpu/kernels/jit_ops.h"

namespace bp::cpu {

namespace {

using Vec = JitVectors::Vec;
using Arg = JitVectors::Arg;
using Xbyak::Address;
using Xbyak::Reg64;

// The loops around the steps. flat: the block is one run of elements. rows: row by row, where values vary with the row
// or rows are reduced. columns: 64 columns at a time down the rows, where narrow columns are reduced: in wider rows
// that would not be how memory is fetched ahead.
enum class Nest { flat, rows, columns };

// One run of steps on its way to code. Made twice: first to learn how many registers the steps need and what they read,
// then with what is read again and again kept in the registers that are left.
class RunCoder {
 public:
  RunCoder(const CompiledLoop::Plan& plan, std::span<const LoopStep> steps, const std::vector<bool>& kept,
           const RunNeeds* needs)
      : plan_(plan), steps_(steps), kept_(kept), given_(needs) {
    nest_ = Nest::flat;
    bool sums_columns = false;
    for (const LoopStep& s : steps_) {
      if (s.span == LoopSpan::rowwise && nest_ == Nest::flat) nest_ = Nest::rows;
      if (is_wide_accumulator(s)) sums_columns = true;
      folds_ |= is_accumulator(s) && s.span != LoopSpan::rowwise;
      for_reads(s, [&](int slot) { ++reads_[slot]; });
    }
    const std::int64_t cols = plan_.program.cols;
    if (sums_columns && !accumulate_by_row(static_cast<std::size_t>(cols))) nest_ = Nest::columns;
    periodic_ = nest_ == Nest::flat && plan_.tiles_per_row == 1 && cols > 0 && kFoldedColumns % cols == 0;
    // Long rows read columns once a row rather than copies for each row of the block.
    const bool columns = std::any_of(reads_.begin(), reads_.end(), [&](const auto& r) { return slot(r.first).column; });
    if (nest_ == Nest::flat && columns && !periodic_ && cols >= kStep && !folds_) nest_ = Nest::rows;
  }

  std::int64_t column_rows() const {
    if (nest_ != Nest::flat) return 1;
    return periodic_ ? kFoldedColumns / plan_.program.cols : plan_.block_rows;
  }

  RunNeeds needs() const {
    RunNeeds n;
    n.registers = j_.most_in_use();
    n.pointers = pointers_;
    n.scratch_anchor = scratch_anchor_;
    n.steady = seen_;
    for (const auto& [bits, uses] : j_.constant_uses()) n.constants.emplace_back(bits, uses);
    std::stable_sort(n.constants.begin(), n.constants.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    n.column_rows = column_rows();
    return n;
  }

  std::span<const std::byte> make() {
    enter();
    switch (nest_) {
      case Nest::flat: flat(); break;
      case Nest::rows: rows(); break;
      case Nest::columns: columns(); break;
    }
    leave();
    release();
    return j_.finish();
  }

 private:
  enum class Part { main, single, tail };
  static constexpr int kStep = 4 * JitVectors::kLanes;  // elements of a turn of the main loop

  struct Accumulator {
    const LoopStep* step;
    std::array<Vec, 4> sum;
  };

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
  Reg64 pointer(std::size_t i) const {
    const Reg64 pool[kPointers] = {j_.rbx, j_.rbp, j_.r12, j_.r13, j_.r14, j_.r15};
    return pool[i];
  }
  // All of a thread's scratch that does not move is addressed from one of its slots.
  bool in_scratch(int s) const {
    const LoopSlot& l = slot(s);
    return (l.kind == LoopSlot::Kind::scratch || l.kind == LoopSlot::Kind::tile_register) && !l.moves;
  }
  int anchor(int s) {
    if (!in_scratch(s)) return s;
    if (scratch_anchor_ < 0) scratch_anchor_ = s;
    return scratch_anchor_;
  }
  struct Base {
    Reg64 reg;
    int offset;
  };
  Base base(int s) {
    const int a = anchor(s);
    const int offset = a == s ? 0 : static_cast<int>(slot(s).offset) - static_cast<int>(slot(a).offset);
    for (std::size_t i = 0; i < pointers_.size() && i < kPointers; ++i)
      if (pointers_[i] == a) return {pointer(i), offset};
    if (given_ == nullptr && std::find(pointers_.begin(), pointers_.end(), a) == pointers_.end())
      pointers_.push_back(a);
    j_.mov(j_.r11, j_.ptr[j_.rdi + 8 * a]);
    return {j_.r11, offset};
  }

  // Vector `v` of a turn, of a slot of elements.
  Address at(int s, int v) {
    const Base b = base(s);
    const int width = slot(s).width != 0 ? static_cast<int>(slot(s).width) : 4;
    const int disp = b.offset + v * JitVectors::kLanes * width;
    if (!slot(s).column || (nest_ == Nest::flat && !periodic_)) return j_.ptr[b.reg + j_.rax * width + disp];
    if (nest_ != Nest::flat) return j_.ptr[b.reg + j_.rcx * 4 + disp];
    return part_ == Part::main ? j_.ptr[b.reg + disp] : j_.ptr[b.reg + j_.r8 * 4 + disp];
  }

  void enter() {
    if (given_ != nullptr) {
      pointers_ = given_->pointers;
      scratch_anchor_ = given_->scratch_anchor;
    }
    for (std::size_t i = 0; i < used_pointers(); ++i) j_.push(pointer(i));
    for (std::size_t i = 0; i < used_pointers(); ++i) j_.mov(pointer(i), j_.ptr[j_.rdi + 8 * pointers_[i]]);
    for (const LoopStep& s : steps_)
      if (const bool row = s.reduction >= 0; row || is_accumulator(s)) {
        if (!row && !in_registers(s)) continue;
        accumulators_.push_back({&s, {}});
        for (Vec& v : accumulators_.back().sum) v = j_.fresh();
      }
    if (given_ != nullptr) choose_steady();
    for (auto& [key, v] : steady_)
      if (!key.by_row) load_steady(key, v);
  }
  std::size_t used_pointers() const { return given_ == nullptr ? 0 : std::min(pointers_.size(), kPointers); }
  void leave() {
    j_.vzeroupper();
    for (std::size_t i = used_pointers(); i-- > 0;) j_.pop(pointer(i));
    j_.ret();
  }
  void release() {
    accumulators_.clear();
    steady_.clear();
  }

  // ---- what stays in registers
  void choose_steady() {
    int left = JitVectors::kRegisters - given_->registers;
    for (const SteadyValue& key : given_->steady) {
      if (left-- <= 0) return;
      steady_[key] = j_.fresh();
    }
    for (const auto& [bits, uses] : given_->constants) {
      if (left-- <= 0) return;
      j_.keep(bits);
    }
  }
  void load_steady(const SteadyValue& key, const Vec& v) {
    if (slot(key.slot).column && !key.by_row)
      j_.vmovups(v.zmm(), steady_columns(key));
    else
      j_.vbroadcastss(v.zmm(), steady_address(key));
  }
  Address steady_columns(const SteadyValue& key) {
    const Base b = base(key.slot);
    return j_.ptr[b.reg + b.offset + key.offset];
  }
  Address steady_address(const SteadyValue& key) {
    const Base b = base(key.slot);
    return key.by_row ? j_.ptr[b.reg + j_.r9 * 4 + b.offset] : j_.ptr[b.reg + b.offset + key.offset];
  }
  Vec steady(const SteadyValue& key) {
    note(key);
    if (const auto it = steady_.find(key); it != steady_.end()) return it->second;
    return j_.broadcast(steady_address(key));
  }
  void note(const SteadyValue& key) {
    if (given_ == nullptr && std::find(seen_.begin(), seen_.end(), key) == seen_.end()) seen_.push_back(key);
  }
  void begin_row() {
    for (auto& [key, v] : steady_)
      if (key.by_row) load_steady(key, v);
  }

  // ---- values
  Arg read(const LoopStep& s, int k) {
    const int id = k == 0 ? s.a : k == 1 ? s.b : s.c;
    if (!(s.scalars >> k & 1u)) return element(id);
    if (slot(id).kind == LoopSlot::Kind::constant && s.span != LoopSpan::rowwise) return constant(id, 0);
    return steady({id, 0, s.span == LoopSpan::rowwise});
  }
  Arg constant(int id, std::size_t offset) const {
    std::uint32_t bits;
    const char* raw = reinterpret_cast<const char*>(plan_.constants.data());
    std::memcpy(&bits, raw + slot(id).offset + offset, sizeof bits);
    return bits;
  }
  Vec element(int id) {
    Vec v;
    if (const auto it = values_.find(id); it != values_.end())
      v = it->second;
    else
      v = fetched(id);
    if (--left_[id] == 0)
      values_.erase(id);
    else
      values_[id] = v;
    return v;
  }
  Vec fetched(int id) {
    const bool narrow = periodic_ && plan_.program.cols <= JitVectors::kLanes;
    if (slot(id).column && slot(id).kind == LoopSlot::Kind::scratch && narrow) {  // every vector is the same
      const SteadyValue key{id, 0, false};
      note(key);
      if (const auto it = steady_.find(key); it != steady_.end()) return it->second;
    }
    return j_.load(f32, at(id, vector_), part_ == Part::tail);
  }
  void define(const LoopStep& s, const Vec& v) {
    if (kept_[static_cast<std::size_t>(s.dst)]) j_.store(f32, at(s.dst, vector_), v, part_ == Part::tail);
    if (left_.contains(s.dst) && left_[s.dst] > 0) values_[s.dst] = v;
  }

  // ---- the steps at one vector
  void body(int vector, Part part) {
    vector_ = vector;
    part_ = part;
    left_ = reads_;
    values_.clear();
    for (const LoopStep& s : steps_) {
      if (s.fn == nullptr)
        transfer(s);
      else if (s.reduction >= 0 || is_accumulator(s))
        accumulate(s);
      else
        define(s, value(s));
    }
    values_.clear();
  }

  void transfer(const LoopStep& s) {
    const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    const DType type = plan_.program.operands[static_cast<std::size_t>(t.operand)].dtype;
    if (t.kind == LoopTransfer::Kind::load) return define(s, j_.load(type, at(t.memory, vector_), part_ == Part::tail));
    const Vec v = element(s.a);
    j_.store(type, at(t.memory, vector_), v, part_ == Part::tail);
  }

  Vec value(const LoopStep& s) {
    if (s.op == TileOp::axpby || s.op == TileOp::axpbyy) return moments(s);
    Arg operands[3] = {0.0, 0.0, 0.0};
    for (int k = 0; k < operands_of(s.op); ++k) operands[k] = read(s, k);
    return element_code(j_, s.op, operands);
  }

  // c[0] * a + c[1] * b, or b * b
  Vec moments(const LoopStep& s) {
    const Vec a = element(s.a), b = element(s.b);
    const Vec second = steady({s.c, 4, false});
    const Vec term = j_.mul(second, s.op == TileOp::axpbyy ? j_.mul(b, b) : b);
    return j_.fma(a, steady({s.c, 0, false}), term);
  }

  // ---- sums over rows and columns
  static LoopOp joining(TileOp op) {
    switch (op) {
      case TileOp::row_dot:
      case TileOp::column_dot:
      case TileOp::column_sum: return LoopOp::row_sum;
      case TileOp::column_max: return LoopOp::row_max;
      case TileOp::column_min: return LoopOp::row_min;
      default: return static_cast<LoopOp>(op);
    }
  }
  Vec joined(LoopOp op, const Vec& acc, const Vec& x) {
    switch (op) {
      case LoopOp::row_sum: return j_.add(acc, x);
      case LoopOp::row_prod: return j_.mul(acc, x);
      case LoopOp::row_max: return j_.max_nan(acc, x);
      default: return j_.min_nan(acc, x);
    }
  }
  // x into the register of acc, in the lanes of k1 where masked.
  void join_into(LoopOp op, const Vec& acc, const Vec& x, bool masked) {
    const Xbyak::Zmm to = masked ? acc.zmm() | j_.k1 : acc.zmm();
    if (op == LoopOp::row_sum) return j_.vaddps(to, acc.zmm(), x.zmm());
    if (op == LoopOp::row_prod) return j_.vmulps(to, acc.zmm(), x.zmm());
    j_.vmovaps(to, joined(op, acc, x).zmm());
  }
  // Column sums that are registers while a block is walked.
  bool in_registers(const LoopStep& s) const { return nest_ == Nest::columns || s.span == LoopSpan::folded; }
  const Vec& sum_of(const LoopStep& s, int v) const {
    const auto own =
        std::find_if(accumulators_.begin(), accumulators_.end(), [&](const Accumulator& a) { return a.step == &s; });
    return own->sum[static_cast<std::size_t>(v)];
  }

  void accumulate(const LoopStep& s) {
    const bool dot = s.op == TileOp::row_dot || s.op == TileOp::column_dot;
    const Vec x = element(s.a), y = dot ? element(s.b) : Vec();
    const bool masked = part_ == Part::tail;
    if (s.reduction >= 0) {
      const int v = part_ == Part::main ? vector_ : masked ? 1 : 0;
      return join_into(joining(s.op), sum_of(s, v), dot ? j_.mul(x, y) : x, masked);
    }
    if (in_registers(s) && (nest_ == Nest::columns || part_ == Part::main)) {
      const Vec& sum = sum_of(s, vector_);
      if (dot) return j_.vfmadd231ps(sum.zmm(), x.zmm(), y.zmm());
      return join_into(joining(s.op), sum, x, false);
    }
    const Vec old = j_.load(f32, accumulator(s), masked);
    j_.store(f32, accumulator(s), joined(joining(s.op), old, dot ? j_.mul(x, y) : x), masked);
  }
  // The present vector of an accumulator in memory.
  Address accumulator(const LoopStep& s) {
    const Base b = base(s.dst);
    const Reg64 column = s.span == LoopSpan::folded ? j_.r8 : s.span == LoopSpan::flat ? j_.rax : j_.rcx;
    return j_.ptr[b.reg + column * 4 + b.offset + vector_ * 4 * JitVectors::kLanes];
  }

  // The sums start at what changes nothing: for columns, -0.
  void start_sums(bool reductions) {
    for (const Accumulator& a : accumulators_) {
      if ((a.step->reduction >= 0) != reductions) continue;
      const LoopOp op = joining(a.step->op);
      const float start = !reductions && op == LoopOp::row_sum ? -0.0f : static_cast<float>(start_of(op));
      for (const Vec& v : a.sum) j_.vmovaps(v.zmm(), j_.loaded(start).zmm());
    }
  }
  // Joins the column sums of a turn's vectors with those in memory, at column rcx, or at 0 in a flat nest.
  void flush_sums(int vectors, bool masked) {
    for (const Accumulator& a : accumulators_) {
      if (a.step->reduction >= 0) continue;
      const Base b = base(a.step->dst);
      for (int v = 0; v < vectors; ++v) {
        const int disp = b.offset + 4 * JitVectors::kLanes * v;
        const Address place = nest_ == Nest::flat ? j_.ptr[b.reg + disp] : j_.ptr[b.reg + j_.rcx * 4 + disp];
        const Vec old = j_.load(f32, place, masked);
        const Vec both = joined(joining(a.step->op), old, a.sum[static_cast<std::size_t>(v)]);
        j_.store(f32, place, both, masked);
      }
    }
  }
  // Folds the four sums of each row reduction into its result for this row, in the order of loop_tiles_reduce.cc.
  void finish_row() {
    for (const Accumulator& a : accumulators_) {
      if (a.step->reduction < 0) continue;
      const LoopOp op = joining(a.step->op);
      Vec v = joined(op, joined(op, a.sum[0], a.sum[1]), joined(op, a.sum[2], a.sum[3]));
      const Vec upper = j_.fresh();
      j_.vextractf64x4(Xbyak::Ymm(upper.zmm().getIdx()), v.zmm(), 1);
      v = joined(op, v, upper);
      j_.vextractf32x4(Xbyak::Xmm(upper.zmm().getIdx()), v.zmm(), 1);
      v = joined(op, v, upper);
      for (const int halves : {0x0e, 0x01}) {
        j_.vpermilps(upper.zmm(), v.zmm(), static_cast<std::uint8_t>(halves));
        v = joined(op, v, upper);
      }
      const Base b = base(a.step->dst);
      j_.vmovss(j_.ptr[b.reg + j_.r9 * 4 + b.offset], Xbyak::Xmm(v.zmm().getIdx()));
    }
  }

  // ---- the loops
  // k1 = the lowest `count` lanes; spoils both registers.
  void mask_lanes(const Reg64& count, const Reg64& scratch) {
    j_.mov(scratch.cvt32(), -1);
    j_.bzhi(scratch.cvt32(), scratch.cvt32(), count.cvt32());
    j_.kmovw(j_.k1, scratch.cvt32());
  }
  void turn() {
    for (int v = 0; v < 4; ++v) body(v, Part::main);
  }

  void flat() {
    Xbyak::Label main, single, tail, after, done;
    constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
    j_.mov(j_.rcx, j_.rsi);
    j_.imul(j_.rcx, j_.rdx);
    j_.xor_(j_.eax, j_.eax);
    start_sums(false);
    j_.cmp(j_.rcx, kStep);
    j_.jb(after, kNear);
    j_.L(main);
    turn();
    j_.add(j_.rax, kStep);
    j_.lea(j_.r11, j_.ptr[j_.rax + kStep]);
    j_.cmp(j_.r11, j_.rcx);
    j_.jbe(main, kNear);
    flush_sums(4, false);
    j_.L(after);
    j_.mov(j_.r10, j_.rax);
    j_.xor_(j_.r8d, j_.r8d);
    j_.L(single);
    j_.lea(j_.r11, j_.ptr[j_.rax + JitVectors::kLanes]);
    j_.cmp(j_.r11, j_.rcx);
    j_.ja(tail, kNear);
    body(0, Part::single);
    j_.add(j_.rax, JitVectors::kLanes);
    j_.add(j_.r8, JitVectors::kLanes);
    j_.jmp(single, kNear);
    j_.L(tail);
    j_.sub(j_.rcx, j_.rax);
    j_.jz(done, kNear);
    mask_lanes(j_.rcx, j_.rdx);
    body(0, Part::tail);
    j_.L(done);
  }

  // The vectors of a part from the present element on.
  void vectors(Part part) {
    if (part == Part::main)
      turn();
    else
      body(0, part);
  }

  // Calls at(part) for columns rcx from 0 to rdx: turns, then single vectors, then the lanes of k1, r8 of them.
  template <class F> void along_columns(F at) {
    Xbyak::Label main, single, tail, end;
    constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
    j_.xor_(j_.ecx, j_.ecx);
    j_.L(main);
    j_.lea(j_.r11, j_.ptr[j_.rcx + kStep]);
    j_.cmp(j_.r11, j_.rdx);
    j_.ja(single, kNear);
    at(Part::main);
    j_.add(j_.rcx, kStep);
    j_.jmp(main, kNear);
    j_.L(single);
    j_.lea(j_.r11, j_.ptr[j_.rcx + JitVectors::kLanes]);
    j_.cmp(j_.r11, j_.rdx);
    j_.ja(tail, kNear);
    at(Part::single);
    j_.add(j_.rcx, JitVectors::kLanes);
    j_.jmp(single, kNear);
    j_.L(tail);
    j_.mov(j_.r8, j_.rdx);
    j_.sub(j_.r8, j_.rcx);
    j_.jz(end, kNear);
    mask_lanes(j_.r8, j_.r10);
    at(Part::tail);
    j_.L(end);
  }

  void rows() {
    Xbyak::Label row;
    j_.xor_(j_.eax, j_.eax);
    j_.xor_(j_.r9d, j_.r9d);
    j_.L(row);
    begin_row();
    start_sums(true);
    along_columns([&](Part part) {
      vectors(part);
      if (part == Part::tail)
        j_.add(j_.rax, j_.r8);
      else
        j_.add(j_.rax, part == Part::main ? kStep : JitVectors::kLanes);
    });
    finish_row();
    j_.inc(j_.r9);
    j_.cmp(j_.r9, j_.rsi);
    j_.jb(row, Xbyak::CodeGenerator::T_NEAR);
  }

  // The rows at columns rcx and on: four vectors, one, or the lanes of k1.
  void down_the_rows(Part part) {
    Xbyak::Label row;
    start_sums(false);
    j_.mov(j_.rax, j_.rcx);
    j_.xor_(j_.r9d, j_.r9d);
    j_.L(row);
    begin_row();
    vectors(part);
    j_.add(j_.rax, j_.rdx);
    j_.inc(j_.r9);
    j_.cmp(j_.r9, j_.rsi);
    j_.jb(row, Xbyak::CodeGenerator::T_NEAR);
    flush_sums(part == Part::main ? 4 : 1, part == Part::tail);
  }
  void columns() {
    along_columns([&](Part part) { down_the_rows(part); });
  }

  const CompiledLoop::Plan& plan_;
  std::span<const LoopStep> steps_;
  const std::vector<bool>& kept_;  // slots that are read after the run
  const RunNeeds* given_;          // null: they are being learnt
  JitVectors j_;                   // before all that holds its registers
  Nest nest_ = Nest::flat;
  bool folds_ = false;
  bool periodic_ = false;     // columns repeat every kFoldedColumns elements, with which the turns begin
  std::map<int, int> reads_;  // of a slot, by the steps of the run
  std::map<int, int> left_;   // of them after the present step
  std::map<int, Vec> values_;
  std::map<SteadyValue, Vec> steady_;
  std::vector<SteadyValue> seen_;  // steady values
  std::vector<Accumulator> accumulators_;
  std::vector<int> pointers_;  // slots whose address is in pointer(i)
  int scratch_anchor_ = -1;
  int vector_ = 0;
  Part part_ = Part::main;
};

}  // namespace

std::optional<RunNeeds> needs_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStep> steps,
                                     const std::vector<bool>& kept) {
  try {
    RunCoder rehearsal(plan, steps, kept, nullptr);
    rehearsal.make();
    return rehearsal.needs();
  } catch (const OutOfRegisters&) { return std::nullopt; } catch (const Xbyak::Error& e) {
    if (static_cast<int>(e) != Xbyak::ERR_CODE_IS_TOO_BIG) throw;
    return std::nullopt;
  }
}

std::vector<std::byte> code_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStep> steps,
                                   const std::vector<bool>& kept, const RunNeeds& needs) {
  RunCoder coder(plan, steps, kept, &needs);
  const std::span<const std::byte> bytes = coder.make();
  return {bytes.begin(), bytes.end()};
}

}  // namespace bp::cpu
#endif

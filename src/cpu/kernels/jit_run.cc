#if defined(BP_MACHINE_CODE)
#include "cpu/kernels/jit_coder.h"

namespace bp::cpu {

namespace {
using Vec = JitVectors::Vec;
using Arg = JitVectors::Arg;
using Xbyak::Address;
using Xbyak::Reg64;
}  // namespace

RunCoder::RunCoder(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages, const std::vector<bool>& kept,
                   const RunNeeds* needs, bool uncached)
    : plan_(plan), stages_(stages), kept_(kept), given_(needs) {
  choose_nest();
  const std::int64_t cols = plan_.program.cols;
  fixed_columns_ = plan_.tiles_per_row == 1 && nest_ != Nest::flat && cols > 0;
  find_inner_values();
  by_groups_ = stages_.size() > 1 && computes_much();
  // Where one stage computes much, lines are there before they are written, and leave while others are computed.
  uncached_ = uncached && (stages_.size() > 1 || !(computes_much() || draws_random()));
}

void RunCoder::find_inner_values() {
  inner_.resize(plan_.slots.size());
  for (const LoopStage& stage : stages_) {
    for (const LoopStep& s : stage.row_steps) inner_[static_cast<std::size_t>(s.dst)] = true;
    for (const LoopStep& s : stage.tile_steps)
      if (s.reduction >= 0) inner_[static_cast<std::size_t>(s.dst)] = true;
  }
}

// Exponentials and the like: the units are busy with one row's while the next one's sum is waited for.
bool RunCoder::computes_much() const {
  constexpr TileOp kLong[] = {TileOp::exp_sub, tile_op(LoopOp::exp), tile_op(LoopOp::tanh), tile_op(LoopOp::sigmoid),
                              tile_op(LoopOp::erf)};
  return std::any_of(stages_.begin(), stages_.end(), [&](const LoopStage& stage) {
    return std::any_of(stage.tile_steps.begin(), stage.tile_steps.end(), [&](const LoopStep& s) {
      return s.fn != nullptr && std::find(std::begin(kLong), std::end(kLong), s.op) != std::end(kLong);
    });
  });
}

bool RunCoder::draws_random() const {
  return std::any_of(stages_.begin(), stages_.end(), [&](const LoopStage& stage) {
    return std::any_of(stage.tile_steps.begin(), stage.tile_steps.end(), [&](const LoopStep& s) {
      return s.fn == nullptr &&
             plan_.transfers[static_cast<std::size_t>(s.transfer)].kind == LoopTransfer::Kind::random;
    });
  });
}

std::int64_t RunCoder::column_rows() const {
  if (nest_ != Nest::flat) return 1;
  return periodic_ ? kFoldedColumns / plan_.program.cols : plan_.block_rows;
}

RunNeeds RunCoder::needs() const {
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

std::span<const std::byte> RunCoder::make() {
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

void RunCoder::choose_nest() {
  bool sums_columns = false, reads_columns = false;
  for (const LoopStage& stage : stages_)
    for (const LoopStep& s : stage.tile_steps) {
      if (s.span == LoopSpan::rowwise) nest_ = Nest::rows;
      sums_columns |= is_wide_accumulator(s);
      folds_ |= is_accumulator(s) && s.span != LoopSpan::rowwise;
      for_reads(s, [&](int read) { reads_columns |= slot(read).column; });
    }
  const std::int64_t cols = plan_.program.cols;
  if (stages_.size() > 1) nest_ = Nest::rows;
  if (sums_columns && !accumulate_by_row(static_cast<std::size_t>(cols))) nest_ = Nest::columns;
  periodic_ = nest_ == Nest::flat && plan_.tiles_per_row == 1 && cols > 0 && kFoldedColumns % cols == 0;
  // Long rows read columns once a row rather than copies for each row of the block.
  if (nest_ == Nest::flat && reads_columns && !periodic_ && cols >= kStep && !folds_) nest_ = Nest::rows;
}

Reg64 RunCoder::pointer(std::size_t i) const {
  const Reg64 pool[kPointers] = {j_.rbx, j_.rbp, j_.r12, j_.r13, j_.r14, j_.r15};
  return pool[i];
}

void RunCoder::enter() {
  if (given_ != nullptr) {
    pointers_ = given_->pointers;
    scratch_anchor_ = given_->scratch_anchor;
  }
  for (std::size_t i = 0; i < used_pointers(); ++i) j_.push(pointer(i));
  for (std::size_t i = 0; i < used_pointers(); ++i) j_.mov(pointer(i), j_.ptr[j_.rdi + 8 * pointers_[i]]);
  if (given_ != nullptr) choose_steady();
  for (auto& [key, v] : steady_)
    if (!key.by_row) load_steady(key, v);
  if (fixed_columns_ && plan_.program.cols % JitVectors::kLanes != 0) {
    j_.mov(j_.eax, (1 << plan_.program.cols % JitVectors::kLanes) - 1);
    j_.kmovw(j_.k1, j_.eax);
  }
}

void RunCoder::leave() {
  j_.vzeroupper();
  for (std::size_t i = used_pointers(); i-- > 0;) j_.pop(pointer(i));
  j_.ret();
}

void RunCoder::release() {
  accumulators_.clear();
  steady_.clear();
  row_values_.clear();
  drawn_.clear();
}

void RunCoder::choose_steady() {
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

void RunCoder::mask_lanes(const Reg64& count, const Reg64& scratch) {
  j_.mov(scratch.cvt32(), -1);
  j_.bzhi(scratch.cvt32(), scratch.cvt32(), count.cvt32());
  j_.kmovw(j_.k1, scratch.cvt32());
}

void RunCoder::turn() {
  for (int v = 0; v < 4; ++v) body(v, Part::main);
}

void RunCoder::flat() {
  begin_stage(0);
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

void RunCoder::vectors(Part part) {
  if (part == Part::main)
    turn();
  else
    body(0, part);
}

template <class F> void RunCoder::along_columns(F at) {
  if (fixed_columns_) return along_fixed_columns(at);
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

template <class F> void RunCoder::along_fixed_columns(F at) {
  const std::int64_t cols = plan_.program.cols;
  Xbyak::Label main;
  j_.xor_(j_.ecx, j_.ecx);
  if (cols >= kStep) {
    j_.L(main);
    at(Part::main);
    j_.add(j_.rcx, kStep);
    if (cols >= 2 * kStep) {
      j_.cmp(j_.rcx, static_cast<std::uint32_t>(cols / kStep * kStep));
      j_.jb(main, Xbyak::CodeGenerator::T_NEAR);
    }
  }
  for (std::int64_t i = 0; i < cols % kStep / JitVectors::kLanes; ++i) {
    at(Part::single);
    j_.add(j_.rcx, JitVectors::kLanes);
  }
  if (cols % JitVectors::kLanes != 0) at(Part::tail);
}

// Row by row through the stages, or, where much is computed, stage by stage over a few rows: what waits for the sum of
// one row would leave the units idle, that of the others does not wait.
void RunCoder::rows() {
  j_.xor_(j_.eax, j_.eax);
  j_.xor_(j_.r9d, j_.r9d);
  if (stages_.size() == 1) return stage_rows(0, j_.rsi);
  const std::int64_t rows = by_groups_ ? rows_of_group(plan_.program.cols) : 1;
  Xbyak::Label group;
  j_.L(group);
  j_.lea(j_.r8, j_.ptr[j_.r9 + static_cast<int>(rows)]);
  j_.cmp(j_.r8, j_.rsi);
  j_.cmova(j_.r8, j_.rsi);
  j_.push(j_.rax);
  j_.push(j_.r9);
  for (std::size_t k = 0; k < stages_.size(); ++k) {
    if (k > 0) {
      j_.mov(j_.r9, j_.ptr[j_.rsp]);
      j_.mov(j_.rax, j_.ptr[j_.rsp + 8]);
    }
    stage_rows(k, j_.r8);
  }
  j_.CodeGenerator::add(j_.rsp, 16);
  j_.cmp(j_.r9, j_.rsi);
  j_.jb(group, Xbyak::CodeGenerator::T_NEAR);
}

// From row r9 and element rax on.
void RunCoder::stage_rows(std::size_t number, const Reg64& end) {
  Xbyak::Label row;
  j_.L(row);
  begin_row(stages_[number]);
  row_steps(number);
  begin_stage(number);
  start_sums(true);
  along_columns([&](Part part) {
    vectors(part);
    if (part != Part::tail)
      j_.add(j_.rax, part == Part::main ? kStep : JitVectors::kLanes);
    else if (fixed_columns_)
      j_.add(j_.rax, static_cast<std::uint32_t>(plan_.program.cols % JitVectors::kLanes));
    else
      j_.add(j_.rax, j_.r8);
  });
  finish_row(number);
  j_.inc(j_.r9);
  j_.cmp(j_.r9, end);
  j_.jb(row, Xbyak::CodeGenerator::T_NEAR);
}

void RunCoder::down_the_rows(Part part) {
  Xbyak::Label row;
  start_sums(false);
  j_.mov(j_.rax, j_.rcx);
  j_.xor_(j_.r9d, j_.r9d);
  j_.L(row);
  begin_row(stages_[0]);
  vectors(part);
  j_.add(j_.rax, j_.rdx);
  j_.inc(j_.r9);
  j_.cmp(j_.r9, j_.rsi);
  j_.jb(row, Xbyak::CodeGenerator::T_NEAR);
  flush_sums(part == Part::main ? 4 : 1, part == Part::tail);
}

void RunCoder::columns() {
  begin_stage(0);
  along_columns([&](Part part) { down_the_rows(part); });
}

std::optional<RunNeeds> needs_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages,
                                     const std::vector<bool>& kept) {
  try {
    RunCoder rehearsal(plan, stages, kept, nullptr, false);
    rehearsal.make();
    return rehearsal.needs();
  } catch (const OutOfRegisters&) { return std::nullopt; } catch (const Xbyak::Error& e) {
    if (static_cast<int>(e) != Xbyak::ERR_CODE_IS_TOO_BIG) throw;
    return std::nullopt;
  }
}

std::vector<std::byte> code_of_run(const CompiledLoop::Plan& plan, std::span<const LoopStage> stages,
                                   const std::vector<bool>& kept, const RunNeeds& needs, bool uncached) {
  RunCoder coder(plan, stages, kept, &needs, uncached);
  const std::span<const std::byte> bytes = coder.make();
  return {bytes.begin(), bytes.end()};
}

}  // namespace bp::cpu
#endif

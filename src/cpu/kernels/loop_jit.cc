#include "cpu/kernels/loop_jit.h"

#if defined(BP_MACHINE_CODE)
#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "base/isa.h"
#include "cpu/kernels/jit_ops.h"
#include "cpu/kernels/jit_run.h"

namespace bp::cpu {

namespace {

using Plan = CompiledLoop::Plan;

class Replacement {
 public:
  explicit Replacement(Plan& plan) : plan_(plan) {}

  void phase(std::vector<LoopStep>& steps) {
    for (LoopStep& s : steps) place_transfer(s);
    std::vector<LoopStep> out;
    for (std::size_t i = 0; i < steps.size();) {
      std::size_t end = i;
      while (end < steps.size() && replaceable(steps[end]) && agrees(steps, i, end)) ++end;
      if (end == i) {
        out.push_back(steps[i++]);
        continue;
      }
      i = replace(steps, i, end, out);
    }
    steps = std::move(out);
  }

 private:
  bool replaceable(const LoopStep& s) const {
    if (s.fn != nullptr) return !s.only_first && has_code(s.op);
    const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    return t.memory >= 0;
  }

  // A dense transfer gets a slot for its place in memory.
  void place_transfer(LoopStep& s) {
    if (s.fn != nullptr) return;
    LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    const bool load = t.kind == LoopTransfer::Kind::load, store = t.kind == LoopTransfer::Kind::store;
    if (!t.dense || s.span != LoopSpan::flat || !(load || store)) return;
    const DType type = plan_.program.operands[static_cast<std::size_t>(t.operand)].dtype;
    if (load ? !JitVectors::loads(type) : !JitVectors::stores(type)) return;
    plan_.slots.push_back({.kind = LoopSlot::Kind::operand_row,
                           .moves = plan_.tiles_per_row > 1,
                           .operand = t.operand,
                           .width = size_of(type)});
    t.memory = static_cast<int>(plan_.slots.size()) - 1;
  }

  // Sums over rows and over columns ask for other nests, and folded columns for a flat one.
  bool agrees(const std::vector<LoopStep>& steps, std::size_t begin, std::size_t at) const {
    const bool by_row = accumulate_by_row(static_cast<std::size_t>(plan_.program.cols));
    const auto clash = [&](const LoopStep& a, const LoopStep& b) {
      if (is_wide_accumulator(a) && !by_row && b.reduction >= 0) return true;
      return is_accumulator(a) && a.span != LoopSpan::rowwise && b.span == LoopSpan::rowwise;
    };
    for (std::size_t i = begin; i < at; ++i)
      if (clash(steps[i], steps[at]) || clash(steps[at], steps[i])) return false;
    return true;
  }

  // One instruction over a run of elements is as fast as a tile.
  bool gains(const LoopStep& s) const {
    bool columns = false;
    for (int v : {s.a, s.b, s.c}) columns |= plan_.slots[static_cast<std::size_t>(v)].column;
    return columns || s.span != LoopSpan::flat;
  }

  // Makes a run of steps [begin, end), or of fewer where registers run out; returns the first that is left.
  std::size_t replace(const std::vector<LoopStep>& steps, std::size_t begin, std::size_t end,
                      std::vector<LoopStep>& out) {
    for (std::size_t to = end; to > begin; to = begin + (to - begin) * 3 / 4) {
      const std::span<const LoopStep> run(steps.data() + begin, to - begin);
      if (run.size() == 1 && !gains(run[0])) break;
      std::vector<bool> in_memory = kept(steps, begin, to);
      const std::optional<RunNeeds> needs = needs_of_run(plan_, run, in_memory);
      if (!needs) continue;
      plan_.column_rows = std::max(plan_.column_rows, needs->column_rows);
      out.push_back({.span = LoopSpan::flat, .run = static_cast<int>(plan_.runs.size())});
      plan_.runs.push_back({{run.begin(), run.end()}, std::move(in_memory), *needs, nullptr});
      return to;
    }
    out.push_back(steps[begin]);
    return begin + 1;
  }

  // Slots that others than these steps read, or that are memory of their own.
  std::vector<bool> kept(const std::vector<LoopStep>& steps, std::size_t begin, std::size_t end) const {
    std::vector<bool> out(plan_.slots.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = plan_.slots[i].kind != LoopSlot::Kind::tile_register;
    const auto mark = [&](const LoopStep& s) {
      for (int v : {s.a, s.b, s.c}) out[static_cast<std::size_t>(v)] = true;
    };
    for (const LoopPhase& p : plan_.phases) {
      for (const LoopStep& s : p.row_steps) mark(s);
      if (&p.tile_steps == &steps) {
        for (std::size_t i = end; i < steps.size(); ++i) mark(steps[i]);
        for (std::size_t i = 0; i < begin; ++i) mark(steps[i]);
      } else {
        for (const LoopStep& s : p.tile_steps) mark(s);
      }
    }
    for (const LoopRun& run : plan_.runs)
      for (const LoopStep& s : run.steps) mark(s);
    return out;
  }

  Plan& plan_;
};

}  // namespace

bool machine_code_wanted() {
  static const bool wanted = [] {
    const char* off = std::getenv("BP_MACHINE_CODE");
    // Tiles of other vectors (sanitized builds know one instruction set) would sum rows in another order.
    if (running_isa() != Isa::avx512 || tile_lanes() != JitVectors::kLanes ||
        (off != nullptr && std::string_view(off) == "off"))
      return false;
    return MachineCode::make(std::array{std::byte{0xc3}}) != nullptr;  // ret: may memory be executed here?
  }();
  return wanted;
}

bool runs_as_code(const LoopProgram& program) {
  if (!machine_code_wanted() || program.compute != f32) return false;
  return std::all_of(program.instrs.begin(), program.instrs.end(), [](const LoopInstr& i) { return has_code(i.op); }) &&
         std::all_of(program.operands.begin(), program.operands.end(), [](const LoopOperand& o) {
           return o.output ? JitVectors::stores(o.dtype) : JitVectors::loads(o.dtype);
         });
}

void choose_runs(CompiledLoop::Plan& plan) {
  if (!machine_code_wanted() || plan.program.compute != f32) return;
  Replacement replacement(plan);
  plan.column_rows = 1;
  for (LoopPhase& p : plan.phases) replacement.phase(p.tile_steps);
  for (const LoopPhase& p : plan.phases)
    for (const LoopStep& s : p.tile_steps)
      if (s.run < 0) plan.column_rows = plan.block_rows;
  plan.column_rows = std::min(plan.column_rows, plan.block_rows);
}

void make_code(CompiledLoop::Plan& plan) {
  for (LoopRun& run : plan.runs) {
    run.code = MachineCode::make(code_of_run(plan, run.steps, run.kept, run.needs));
    if (run.code == nullptr) throw std::bad_alloc();
  }
  for (LoopPhase& p : plan.phases)
    for (LoopStep& s : p.tile_steps)
      if (s.run >= 0) s.code = plan.runs[static_cast<std::size_t>(s.run)].code->entry<LoopCodeFn>();
}

}  // namespace bp::cpu

#else

namespace bp::cpu {
bool machine_code_wanted() { return false; }
bool runs_as_code(const LoopProgram&) { return false; }
void choose_runs(CompiledLoop::Plan&) {}
void make_code(CompiledLoop::Plan&) {}
}  // namespace bp::cpu

#endif

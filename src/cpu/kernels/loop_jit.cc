#include "cpu/kernels/loop_jit.h"

#if defined(BP_MACHINE_CODE)
#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <utility>

#include "cpu/kernels/jit_ops.h"
#include "cpu/kernels/jit_run.h"
#include "cpu/kernels/loop_nodes.h"
#include "cpu/kernels/machine_code.h"

namespace bp::cpu {

namespace {

using Plan = CompiledLoop::Plan;

// Vectors begin with whole blocks of four words.
bool random_has_code(const LoopProgram& p) { return p.rows == 1 || p.cols % 4 == 0; }

void mark_reads(std::span<const LoopStep> steps, std::vector<bool>& out) {
  for (const LoopStep& s : steps)
    for (int v : {s.a, s.b, s.c}) out[static_cast<std::size_t>(v)] = true;
}

// An element of a row is picked from memory.
void mark_picked(const std::vector<LoopStep>& steps, std::vector<bool>& out) {
  for (const LoopStep& s : steps)
    if (s.op == TileOp::row_pick) out[static_cast<std::size_t>(s.a)] = true;
}

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
    if (s.op == TileOp::row_pick && plan_.tiles_per_row > 1) return false;
    if (s.fn != nullptr) return !s.only_first && has_code(s.op);
    const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    return t.memory >= 0;
  }

  // A dense transfer gets a slot for its place in memory.
  void place_transfer(LoopStep& s) {
    if (s.fn != nullptr) return;
    LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
    if (t.kind == LoopTransfer::Kind::random && random_has_code(plan_.program)) {
      constexpr auto kElements = static_cast<std::int64_t>((sizeof(RandomState) + 3) / 4);
      plan_.slots.push_back({.kind = LoopSlot::Kind::scratch, .elements = kElements});
      t.memory = static_cast<int>(plan_.slots.size()) - 1;
      plan_.random_transfers.push_back(s.transfer);
      return;
    }
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
      std::vector<LoopStage> stages(1);
      stages[0].tile_steps.assign(run.begin(), run.end());
      std::vector<bool> in_memory = kept(steps, begin, to);
      mark_picked(stages[0].tile_steps, in_memory);
      const std::optional<RunNeeds> needs = needs_of_run(plan_, stages, in_memory);
      if (!needs) continue;
      out.push_back({.span = LoopSpan::flat, .run = static_cast<int>(plan_.runs.size())});
      plan_.runs.push_back({std::move(stages), std::move(in_memory), *needs});
      return to;
    }
    out.push_back(steps[begin]);
    return begin + 1;
  }

  // Slots that others than these steps read, or that are memory of their own.
  std::vector<bool> kept(const std::vector<LoopStep>& steps, std::size_t begin, std::size_t end) const {
    std::vector<bool> out(plan_.slots.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = plan_.slots[i].kind != LoopSlot::Kind::tile_register;
    for (const LoopPhase& p : plan_.phases) {
      mark_reads(p.row_steps, out);
      if (&p.tile_steps == &steps) {
        mark_reads(std::span(steps).subspan(end), out);
        mark_reads(std::span(steps).first(begin), out);
      } else {
        mark_reads(p.tile_steps, out);
      }
    }
    for (const LoopRun& run : plan_.runs)
      for (const LoopStage& stage : run.stages) mark_reads(stage.tile_steps, out);
    return out;
  }

  Plan& plan_;
};

// Joins runs of consecutive phases: each row, or a few, goes through all of them while it is in the first cache. The
// run is the last one of its first phase, all of those between and the first one of its last phase.
class Joining {
 public:
  explicit Joining(Plan& plan) : plan_(plan), phases_(plan.phases) {}

  void join() {
    if (plan_.tiles_per_row != 1 || plan_.program.cols == 0) return;
    for (std::size_t first = 0; first + 1 < phases_.size();) {
      std::size_t last = reach(first);
      while (last > first && !join(first, last)) --last;
      first = std::max(last, first + 1);
    }
    renumber();
  }

 private:
  const LoopRun* run_of(const LoopStep& s) const {
    return s.run < 0 ? nullptr : &plan_.runs[static_cast<std::size_t>(s.run)];
  }
  // Column sums that rows join one after another.
  bool by_row(const LoopRun& run) const {
    const bool wide = accumulate_by_row(static_cast<std::size_t>(plan_.program.cols));
    const std::vector<LoopStep>& steps = run.stages[0].tile_steps;
    return std::none_of(steps.begin(), steps.end(),
                        [&](const LoopStep& s) { return is_accumulator(s) && !(wide && is_wide_accumulator(s)); });
  }
  bool joins(const LoopStep& s) const { return run_of(s) != nullptr && by_row(*run_of(s)); }
  std::size_t reach(std::size_t first) const {
    std::size_t last = first;
    if (phases_[first].tile_steps.empty() || !joins(phases_[first].tile_steps.back())) return first;
    while (last + 1 < phases_.size()) {
      const std::vector<LoopStep>& next = phases_[last + 1].tile_steps;
      if (next.empty() || !joins(next.front())) break;
      ++last;
      if (next.size() > 1) break;
    }
    return last;
  }

  bool join(std::size_t first, std::size_t last) {
    std::vector<LoopStage> stages;
    std::vector<std::vector<LoopStep>> later(phases_.size());  // row steps that have no code
    if (!collect(first, last, stages, later)) return false;
    LoopStep& place = phases_[first].tile_steps.back();
    std::vector<bool> in_memory = kept(first, last, stages, later);
    const std::optional<RunNeeds> needs = needs_of_run(plan_, stages, in_memory);
    if (!needs) return false;
    for (std::size_t k = first + 1; k <= last; ++k) {
      phases_[k].row_steps = std::move(later[k]);
      phases_[k].tile_steps.erase(phases_[k].tile_steps.begin());
    }
    plan_.runs[static_cast<std::size_t>(place.run)] = {std::move(stages), std::move(in_memory), *needs};
    return true;
  }

  // The stages, and the row steps that wait until the block is done; false where elements need one of those.
  bool collect(std::size_t first, std::size_t last, std::vector<LoopStage>& stages,
               std::vector<std::vector<LoopStep>>& later) const {
    std::vector<bool> late(plan_.slots.size());
    const auto reads_late = [&](const LoopStep& s) {
      return late[static_cast<std::size_t>(s.a)] || late[static_cast<std::size_t>(s.b)] ||
             late[static_cast<std::size_t>(s.c)];
    };
    for (std::size_t k = first; k <= last; ++k) {
      LoopStage stage;
      for (const LoopStep& s : k == first ? std::vector<LoopStep>() : phases_[k].row_steps) {
        const bool coded = s.fn != nullptr && !s.only_first && has_code(s.op) && !reads_late(s);
        (coded ? stage.row_steps : later[k]).push_back(s);
        if (!coded && s.dst != 0) late[static_cast<std::size_t>(s.dst)] = true;
      }
      const std::vector<LoopStep>& tiles = phases_[k].tile_steps;
      stage.tile_steps = run_of(k == first ? tiles.back() : tiles.front())->stages[0].tile_steps;
      if (std::any_of(stage.tile_steps.begin(), stage.tile_steps.end(), reads_late)) return false;
      stages.push_back(std::move(stage));
    }
    return true;
  }

  // Slots that steps outside the run read, that another stage reads as elements, or that are memory of their own.
  std::vector<bool> kept(std::size_t first, std::size_t last, const std::vector<LoopStage>& stages,
                         const std::vector<std::vector<LoopStep>>& later) const {
    std::vector<bool> out(plan_.slots.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = plan_.slots[i].kind != LoopSlot::Kind::tile_register;
    for (const LoopStage& stage : stages) {
      const auto own = [&](const LoopStep& s) {
        if (plan_.slots[static_cast<std::size_t>(s.dst)].kind == LoopSlot::Kind::scratch)
          out[static_cast<std::size_t>(s.dst)] = false;
      };
      for (const LoopStep& s : stage.row_steps) own(s);
      for (const LoopStep& s : stage.tile_steps)
        if (s.reduction >= 0) own(s);
    }
    for (std::size_t k = 0; k < phases_.size(); ++k) {
      const bool inside = k > first && k <= last;
      mark_reads(inside ? later[k] : phases_[k].row_steps, out);
      for (std::size_t i = 0; i < phases_[k].tile_steps.size(); ++i) {
        const bool own = inside ? i == 0 : k == first && i + 1 == phases_[k].tile_steps.size();
        if (!own) mark(phases_[k].tile_steps[i], out);
      }
    }
    for (std::size_t k = 0; k < stages.size(); ++k) mark_other_stages(stages, k, out);
    for (const LoopStage& stage : stages) mark_picked(stage.tile_steps, out);
    return out;
  }
  void mark(const LoopStep& s, std::vector<bool>& out) const {
    mark_reads(std::span(&s, 1), out);
    if (const LoopRun* run = run_of(s))
      for (const LoopStage& stage : run->stages) {
        mark_reads(stage.row_steps, out);
        mark_reads(stage.tile_steps, out);
      }
  }
  // Elements that stage k computes and later ones read.
  void mark_other_stages(const std::vector<LoopStage>& stages, std::size_t k, std::vector<bool>& out) const {
    std::vector<bool> read(plan_.slots.size());
    for (std::size_t i = k + 1; i < stages.size(); ++i) mark_reads(stages[i].tile_steps, read);
    for (const LoopStep& s : stages[k].tile_steps)
      if (s.reduction < 0 && read[static_cast<std::size_t>(s.dst)]) out[static_cast<std::size_t>(s.dst)] = true;
  }

  void renumber() {
    std::vector<LoopRun> runs;
    for (LoopPhase& p : phases_)
      for (LoopStep& s : p.tile_steps)
        if (s.run >= 0) {
          runs.push_back(std::move(plan_.runs[static_cast<std::size_t>(s.run)]));
          s.run = static_cast<int>(runs.size()) - 1;
        }
    plan_.runs = std::move(runs);
  }

  Plan& plan_;
  std::vector<LoopPhase>& phases_;
};

// Rows must begin with a line for stores past the caches to be whole lines.
void choose_memory(Plan& plan) {
  const LoopProgram& p = plan.program;
  const LoopTraffic traffic = traffic_of(p);
  plan.fetches_ahead = traffic.from_memory();
  plan.only_sums = !traffic.writes;
  if (!traffic.beyond_caches() || (p.rows > 1 && p.cols % JitVectors::kLanes != 0)) return;
  for (std::size_t k = 0; k < p.operands.size(); ++k) {
    const LoopOperand& o = p.operands[k];
    if (o.output && o.in_place_of < 0 && o.dtype == f32 && is_stream(p, o))
      plan.uncached_outputs.push_back(static_cast<int>(k));
  }
}

}  // namespace

bool runs_as_code(const LoopProgram& program) {
  if (!machine_code_wanted() || program.compute != f32) return false;
  const auto coded = [&](const LoopInstr& i) {
    return i.op == LoopOp::random ? random_has_code(program) : has_code(i.op);
  };
  return std::all_of(program.instrs.begin(), program.instrs.end(), coded) &&
         std::all_of(program.operands.begin(), program.operands.end(), [&](const LoopOperand& o) {
           const auto k = static_cast<int>(&o - program.operands.data());
           const bool loaded = std::any_of(program.instrs.begin(), program.instrs.end(), [&](const LoopInstr& in) {
             return in.op == LoopOp::load && in.operand == k;
           });
           return o.output ? JitVectors::stores(o.dtype) : !loaded || JitVectors::loads(o.dtype);
         });
}

void choose_runs(CompiledLoop::Plan& plan) {
  if (!machine_code_wanted() || plan.program.compute != f32) return;
  Replacement replacement(plan);
  for (LoopPhase& p : plan.phases) replacement.phase(p.tile_steps);
  Joining(plan).join();
  plan.column_rows = 1;
  for (const LoopRun& run : plan.runs) plan.column_rows = std::max(plan.column_rows, run.needs.column_rows);
  for (const LoopPhase& p : plan.phases)
    for (const LoopStep& s : p.tile_steps)
      if (s.run < 0) plan.column_rows = plan.block_rows;
  plan.column_rows = std::min(plan.column_rows, plan.block_rows);
}

void make_code(CompiledLoop::Plan& plan) {
  if (plan.runs.empty()) return;
  choose_memory(plan);
  const auto make = [&](const LoopRun& run, bool uncached) {
    auto code = MachineCode::make(code_of_run(plan, run.stages, run.kept, run.needs, uncached));
    return code != nullptr ? code : throw std::bad_alloc();
  };
  for (LoopRun& run : plan.runs) {
    run.code = make(run, false);
    if (!plan.uncached_outputs.empty()) run.uncached_code = make(run, true);
  }
  for (LoopPhase& p : plan.phases)
    for (LoopStep& s : p.tile_steps) {
      if (s.run < 0) continue;
      const LoopRun& run = plan.runs[static_cast<std::size_t>(s.run)];
      s.code = run.code->entry<LoopCodeFn>();
      if (run.uncached_code != nullptr) s.uncached_code = run.uncached_code->entry<LoopCodeFn>();
    }
}

void finish_stores() { __builtin_ia32_sfence(); }

}  // namespace bp::cpu

#else

namespace bp::cpu {
bool runs_as_code(const LoopProgram&) { return false; }
void choose_runs(CompiledLoop::Plan&) {}
void make_code(CompiledLoop::Plan&) {}
void finish_stores() {}
}  // namespace bp::cpu

#endif

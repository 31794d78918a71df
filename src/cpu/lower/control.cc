// Loops and branches: scan and cond as kernels that run the programs of their bodies. Slices are pointers into the
// operands, outputs are written where they are stacked, carries go from hand to hand: nothing is copied that need not
// be. What depends on invariants only (packed weights above all) is computed once, before the first iteration.
#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "cpu/exec/bound_program.h"
#include "cpu/kernels/share.h"
#include "cpu/lower/lowering.h"
#include "cpu/plan/plan.h"
#include "ir/body.h"
#include "ir/flops.h"
#include "passes/batch_rows.h"
#include "passes/pipeline.h"

namespace bp::cpu {

namespace {

constexpr std::size_t kAlign = 64;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Moves what lasts longest to the front, and what copies of the program have alike to memory of its own.
void find_prologue(Program& p) {
  std::stable_sort(p.steps.begin(), p.steps.end(), [](const Step& a, const Step& b) { return a.lasting > b.lasting; });
  const auto lasts = [&](Lasting least) {
    return static_cast<std::size_t>(
        std::count_if(p.steps.begin(), p.steps.end(), [&](const Step& s) { return s.lasting >= least; }));
  };
  p.shared = lasts(Lasting::loop);
  p.prologue = lasts(Lasting::part);
  for (std::size_t i = 0; i < p.shared; ++i)
    for (BufferId b : p.steps[i].writes) {
      MemoryRef& m = p.buffers[b];
      m.kind = MemoryRef::Kind::shared;
      m.offset = p.shared_bytes;
      p.shared_bytes += aligned(m.bytes);
    }
}

Program lowered_body(ir::Graph body, const LowerOptions& options) {
  const passes::Optimised o = passes::run_pipeline(std::move(body), {});
  return lower(o.graph, o.partition, options);
}

// Where a new carry goes.
struct CarryPlace {
  enum class Kind : std::uint8_t {
    pair,     // one of two buffers, in turn
    output,   // it is output `stack` as well: the next iteration reads it there
    previous  // output `stack` is the carry before the iteration: the new one goes to the next slot
  };
  Kind kind = Kind::pair;
  std::size_t stack = 0;
};

// How the body's outputs are written: those that the program itself writes, and the place of each carry.
struct ScanOutputs {
  std::vector<CarryPlace> carries;
  std::vector<std::size_t> written;  // program output -> body output
  std::vector<Type> types;           // of all outputs of the body
};

ScanOutputs place_outputs(ir::Graph& body, const ir::ScanLayout& layout) {
  ScanOutputs out;
  const std::size_t count = body.outputs.size();
  std::vector<bool> taken(count, false), written(count, true);
  for (const ir::Output& o : body.outputs) out.types.push_back(body.type(o.value));
  for (std::size_t k = 0; k < layout.carries; ++k) {
    CarryPlace place;
    const ir::Value next = body.outputs[k].value, before{body.inputs[layout.invariants + k].node, 0};
    for (std::size_t j = layout.carries; j < count && place.kind == CarryPlace::Kind::pair; ++j)
      if (!taken[j] && body.outputs[j].value == next && !(next == before)) place = {CarryPlace::Kind::output, j};
    for (std::size_t j = layout.carries; j < count && place.kind == CarryPlace::Kind::pair; ++j)
      if (!taken[j] && body.outputs[j].value == before) place = {CarryPlace::Kind::previous, j};
    if (place.kind != CarryPlace::Kind::pair) taken[place.stack] = true;
    if (place.kind == CarryPlace::Kind::output) written[k] = false;
    if (place.kind == CarryPlace::Kind::previous) written[place.stack] = false;
    out.carries.push_back(place);
  }
  std::vector<ir::Output> kept;
  for (std::size_t k = 0; k < count; ++k)
    if (written[k]) {
      out.written.push_back(k);
      kept.push_back(body.outputs[k]);
    }
  body.outputs = std::move(kept);
  return out;
}

// The loop over some rows of the batch, or over all of it.
class ScanPart {
 public:
  struct Rows {
    std::int64_t first = 0, count = 0, all = 0;
  };

  // batch: where operands and results have their rows; null for the whole loop as it is.
  ScanPart(const ir::Graph& whole, const ScanOutputs& outputs, const ir::ScanLayout& layout,
           const passes::BatchAxis* batch, Rows rows, const LowerOptions& options)
      : layout_(layout), outputs_(outputs) {
    for (const ir::Input& in : whole.inputs)
      inputs_.push_back(portion(whole.nodes[in.node].types[0], batch && batch->along[in.node], rows));
    for (const Type& type : outputs_.types) outputs_at_.push_back(portion(type, batch != nullptr, rows));
    program_ = lowered_body(batch ? passes::with_rows(whole, *batch, rows.count) : whole, options);
    find_prologue(program_);
    plan_memory(program_);
    bound_.emplace(program_, options.threads, options.shared_threads);
    arena_ = aligned(program_.arena_bytes);
    scratch_ = aligned(program_.workspace_bytes);
    for (std::size_t k = 0; k < layout_.carries; ++k) {
      pair_offset_.push_back(arena_ + scratch_ + pairs_);
      if (outputs_.carries[k].kind == CarryPlace::Kind::pair) pairs_ += 2 * aligned(outputs_at_[k].bytes);
    }
    carry_.resize(layout_.carries);
  }

  std::size_t memory_bytes() const noexcept { return arena_ + scratch_ + pairs_; }
  std::size_t shared_bytes() const noexcept { return program_.shared_bytes; }
  BoundProgram& bound() const noexcept { return *bound_; }

  // Computes what parts of as many rows read of `shared`.
  void prepare(void* const* in, std::byte* memory, std::byte* shared) const {
    if (layout_.length == 0) return;
    place(in, memory, shared);
    bound_->run(0, program_.shared);
  }

  // in: the operands of the scan, out: its results.
  void run(void* const* in, void* const* out, std::byte* memory, std::byte* shared) const {
    if (layout_.length == 0) {
      for (std::size_t k = 0; k < layout_.carries; ++k) copy(at(out, k), initial(in, k), outputs_at_[k].bytes);
      return;
    }
    place(in, memory, shared);
    bound_->run(program_.shared, program_.prologue);
    start_carries(in, out);
    for (std::int64_t i = 0; i < layout_.length; ++i) {
      set_inputs(in, i);
      set_outputs(out, memory, i);
      bound_->run(program_.prologue, bound_->steps());
    }
    for (std::size_t k = 0; k < layout_.carries; ++k)
      if (outputs_.carries[k].kind == CarryPlace::Kind::output) copy(at(out, k), carry_[k], outputs_at_[k].bytes);
  }

 private:
  // The rows of this part within a value of all rows.
  struct Portion {
    std::size_t offset, bytes, whole;
  };
  static Portion portion(const Type& type, bool along, const Rows& rows) {
    const std::size_t whole = type.bytes();
    if (!along) return {0, whole, whole};
    const std::size_t row = whole / static_cast<std::size_t>(rows.all);
    return {static_cast<std::size_t>(rows.first) * row, static_cast<std::size_t>(rows.count) * row, whole};
  }
  void place(void* const* in, std::byte* memory, std::byte* shared) const {
    bound_->place(memory, memory + arena_, shared);
    for (std::size_t i = 0; i < std::min(layout_.invariants, bound_->inputs()); ++i)
      bound_->set_input(i, static_cast<std::byte*>(in[i]) + inputs_[i].offset);
  }
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(to, from, bytes);
  }
  const std::byte* initial(void* const* in, std::size_t carry) const {
    const std::size_t i = layout_.invariants + carry;
    return static_cast<const std::byte*>(in[i]) + inputs_[i].offset;
  }
  std::byte* at(void* const* out, std::size_t k) const {
    return static_cast<std::byte*>(out[k]) + outputs_at_[k].offset;
  }
  std::byte* slot(void* const* out, std::size_t stack, std::int64_t iteration) const {
    return at(out, stack) + static_cast<std::size_t>(layout_.at(iteration)) * outputs_at_[stack].whole;
  }
  bool is_last(std::int64_t i) const noexcept { return i + 1 == layout_.length; }

  void start_carries(void* const* in, void* const* out) const {
    for (std::size_t k = 0; k < layout_.carries; ++k) {
      const std::byte* init = initial(in, k);
      if (outputs_.carries[k].kind == CarryPlace::Kind::previous) {
        std::byte* first = slot(out, outputs_.carries[k].stack, 0);
        copy(first, init, outputs_at_[k].bytes);
        init = first;
      }
      carry_[k] = init;
    }
  }

  void set_inputs(void* const* in, std::int64_t iteration) const {
    for (std::size_t i = layout_.invariants; i < bound_->inputs(); ++i) {
      if (i < layout_.first_slice()) {
        bound_->set_input(i, carry_[i - layout_.invariants]);
      } else {
        const Portion& p = inputs_[i];
        bound_->set_input(
            i, static_cast<std::byte*>(in[i]) + p.offset + static_cast<std::size_t>(layout_.at(iteration)) * p.whole);
      }
    }
  }

  // Where this iteration writes; carry_ becomes what the next one reads.
  void set_outputs(void* const* out, std::byte* memory, std::int64_t i) const {
    for (std::size_t p = 0; p < outputs_.written.size(); ++p) {
      const std::size_t k = outputs_.written[p];
      void* to = k < layout_.carries ? carry_target(out, memory, k, i) : slot(out, k, i);
      if (k < layout_.carries) carry_[k] = to;
      if (p < bound_->outputs()) bound_->set_output(p, to);
    }
    for (std::size_t k = 0; k < layout_.carries; ++k)
      if (outputs_.carries[k].kind == CarryPlace::Kind::output) carry_[k] = slot(out, outputs_.carries[k].stack, i);
  }

  void* carry_target(void* const* out, std::byte* memory, std::size_t k, std::int64_t i) const {
    if (is_last(i)) return at(out, k);
    if (outputs_.carries[k].kind == CarryPlace::Kind::previous) return slot(out, outputs_.carries[k].stack, i + 1);
    return memory + pair_offset_[k] + (i % 2 == 0 ? 0 : aligned(outputs_at_[k].bytes));
  }

  const ir::ScanLayout& layout_;
  const ScanOutputs& outputs_;
  std::vector<Portion> inputs_, outputs_at_;
  std::vector<std::size_t> pair_offset_;
  Program program_;
  mutable std::optional<BoundProgram> bound_;  // an executable runs on one caller at a time
  mutable std::vector<const void*> carry_;
  std::size_t arena_ = 0, scratch_ = 0, pairs_ = 0;
};

// How many threads run the loop on rows of their own; 1: the steps of its body share the threads.
int batch_parts(const ir::Graph& body, const passes::BatchAxis& batch, const ir::ScanLayout& layout, int threads) {
  // Each thread reads all weights for its rows: with fewer rows a MiB of weights it waits for them. An LSTM of 64 to
  // 256 units gains 10 to 30% from 4 rows on, one of 512 loses with fewer than 16, one of 1024 with fewer than 64.
  constexpr double kRowsPerPart = 4, kWeights = 1 << 20;
  constexpr double kFlopsPerPart = 1e5;
  double shared = 0;
  for (std::size_t i = 0; i < layout.invariants; ++i)
    if (const ir::NodeId n = body.inputs[i].node; !batch.along[n])
      shared += static_cast<double>(body.nodes[n].types[0].bytes());
  const double by_rows = static_cast<double>(batch.rows) / (kRowsPerPart * std::max(1.0, shared / kWeights));
  const double by_work = ir::graph_flops(body) * static_cast<double>(layout.length) / kFlopsPerPart;
  return static_cast<int>(std::clamp<double>(std::min(by_rows, by_work), 1, threads));
}

class ScanKernel final : public Kernel {
 public:
  ScanKernel(const ir::Graph& g, ir::NodeId n, const LowerOptions& options)
      : layout_(g.nodes[n].attrs), inputs_(g.nodes[n].inputs.size()) {
    ir::Graph body = ir::body_of(g.nodes[n].attrs);
    outputs_ = place_outputs(body, layout_);
    std::optional<passes::BatchAxis> batch;
    if (options.threads > 1 && !options.reference) batch = passes::find_batch(body, layout_);
    const int parts = batch ? batch_parts(body, *batch, layout_, options.threads) : 1;
    LowerOptions body_options{.threads = parts > 1 ? 1 : options.threads, .reference = options.reference};
    body_options.runs = std::max<std::int64_t>(layout_.length, 1);
    body_options.shared_threads = options.threads;
    for (std::size_t i = 0; i < layout_.invariants; ++i) {
      const bool along = parts > 1 && batch->along[body.inputs[i].node];
      body_options.inputs.push_back(along ? Lasting::part : Lasting::loop);
    }
    ScanPart::Rows rows{0, 0, batch ? batch->rows : 0};
    std::int64_t rows_before = -1;
    for (int p = 0; p < parts; ++p, rows.first += rows.count, rows_before = rows.count) {
      rows.count = (rows.all + parts - 1 - p) / parts;  // the first has most
      add_part(std::make_unique<ScanPart>(body, outputs_, layout_, parts > 1 ? &*batch : nullptr, rows, body_options),
               rows.count == rows_before);
    }
  }

  std::size_t workspace_bytes(int) const override { return memory_bytes_; }
  int preferred_threads() const override {
    return std::max(static_cast<int>(parts_.size()), parts_[0].part->bound().most_threads());
  }
  std::vector<KernelBody> bodies() const override {
    return {{&parts_[0].part->bound(), static_cast<int>(parts_.size())}};
  }

  void run(void* const* args, void* workspace, int threads) const override {
    auto* const memory = static_cast<std::byte*>(workspace);
    for (const Part& p : parts_)
      if (p.prepares) p.part->prepare(args, memory + p.offset, memory + p.shared);
    share(static_cast<std::int64_t>(parts_.size()), threads, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        const Part& p = parts_[i];
        p.part->run(args, args + inputs_, memory + p.offset, memory + p.shared);
      }
    });
  }

 private:
  struct Part {
    std::unique_ptr<ScanPart> part;
    bool prepares;               // what the next ones share with it
    std::size_t offset, shared;  // of its memory, of what it shares
  };

  // alike: of as many rows as the part before, so that the same kernels want the same packed weights.
  void add_part(std::unique_ptr<ScanPart> part, bool alike) {
    const std::size_t offset = memory_bytes_;
    memory_bytes_ += aligned(part->memory_bytes());
    const std::size_t shared = alike ? parts_.back().shared : memory_bytes_;
    if (!alike) memory_bytes_ += part->shared_bytes();
    parts_.push_back({std::move(part), !alike, offset, shared});
  }

  ir::ScanLayout layout_;
  std::size_t inputs_;
  ScanOutputs outputs_;
  std::vector<Part> parts_;
  std::size_t memory_bytes_ = 0;
};

class CondKernel final : public Kernel {
 public:
  CondKernel(const ir::Graph& g, ir::NodeId n, const LowerOptions& options) : inputs_(g.nodes[n].inputs.size()) {
    const ir::Attrs& attrs = g.nodes[n].attrs;
    for (int b : {0, 1}) {
      Branch& branch = branches_[b];
      branch.operands = ir::branch_operands(attrs, inputs_, b);
      branch.program = lowered_body(ir::body_of(attrs, ir::kBranches[b]), {options.threads, options.reference});
      plan_memory(branch.program);
      branch.bound.emplace(branch.program, options.threads);
    }
  }

  std::size_t workspace_bytes(int) const override {
    return std::max(branches_[0].memory_bytes(), branches_[1].memory_bytes());
  }
  int preferred_threads() const override {
    return std::max(branches_[0].bound->most_threads(), branches_[1].bound->most_threads());
  }
  std::vector<KernelBody> bodies() const override { return {{&*branches_[0].bound}, {&*branches_[1].bound}}; }

  void run(void* const* args, void* workspace, int) const override {
    const Branch& b = branches_[*static_cast<const bool*>(args[0]) ? 0 : 1];
    BoundProgram& bound = *b.bound;
    auto* const memory = static_cast<std::byte*>(workspace);
    bound.place(memory, memory + aligned(b.program.arena_bytes));
    for (std::size_t i = 0; i < bound.inputs(); ++i) bound.set_input(i, args[b.operands[i]]);
    for (std::size_t k = 0; k < bound.outputs(); ++k) bound.set_output(k, args[inputs_ + k]);
    bound.run(0, bound.steps());
  }

 private:
  struct Branch {
    std::size_t memory_bytes() const { return aligned(program.arena_bytes) + program.workspace_bytes; }
    std::vector<std::size_t> operands;
    Program program;
    mutable std::optional<BoundProgram> bound;
  };
  std::size_t inputs_;
  Branch branches_[2];
};

}  // namespace

bool lower_control(Lowering& l, const passes::Group& group) {
  const ir::NodeId n = group.nodes[0];
  const ir::Node& node = l.graph().nodes[n];
  if (group.nodes.size() != 1) return false;
  if (node.op == ir::OpId::scan)
    l.emit_node(n, std::make_unique<ScanKernel>(l.graph(), n, l.options()));
  else if (node.op == ir::OpId::cond)
    l.emit_node(n, std::make_unique<CondKernel>(l.graph(), n, l.options()));
  else
    return false;
  return true;
}

}  // namespace bp::cpu

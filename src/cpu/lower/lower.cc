// The dispatch from groups to steps, and the memory of values.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "cpu/lower/lowering.h"
#include "ir/flops.h"

namespace bp::cpu {

namespace {

constexpr std::uint32_t kNone = ~0u;

class CopyKernel final : public Kernel {
 public:
  explicit CopyKernel(std::size_t bytes) : bytes_(bytes) {}
  void run(void* const* args, void*, int) const override {
    if (bytes_ != 0 && args[0] != args[1]) std::memcpy(args[1], args[0], bytes_);
  }

 private:
  std::size_t bytes_;
};

// Whether each state that a step overwrites has a reader after it, or beside it where that is not safe.
std::vector<bool> unsafe_updates(const ir::Graph& g, const Program& p) {
  std::vector<std::uint32_t> reader(g.inputs.size(), kNone);   // last step that reads the input
  std::vector<std::uint32_t> writer(g.outputs.size(), kNone);  // first step that writes the output
  for (std::uint32_t s = 0; s < p.steps.size(); ++s) {
    for (BufferId b : p.steps[s].reads)
      if (p.buffers[b].kind == MemoryRef::Kind::input) reader[p.buffers[b].index] = s;
    for (BufferId b : p.steps[s].writes)
      if (const MemoryRef& m = p.buffers[b]; m.kind == MemoryRef::Kind::output && writer[m.index] == kNone)
        writer[m.index] = s;
  }
  std::vector<bool> unsafe(g.outputs.size(), false);
  for (std::size_t k = 0; k < g.outputs.size(); ++k) {
    if (g.outputs[k].updates < 0 || writer[k] == kNone) continue;
    const std::uint32_t last = reader[static_cast<std::size_t>(g.outputs[k].updates)];
    if (last == kNone) continue;
    unsafe[k] = last > writer[k] || (last == writer[k] && !p.steps[last].inplace_safe);
  }
  return unsafe;
}

// Nodes that follow from the backward pass and lead to nothing in it: an optimizer's work.
std::vector<bool> update_nodes(const ir::Graph& g) {
  std::vector<bool> after(g.nodes.size(), false), needed(g.nodes.size(), false);
  for (ir::NodeId n = 0; n < g.nodes.size(); ++n)
    for (ir::Value v : g.nodes[n].inputs)
      if (g.nodes[v.node].backward || after[v.node]) after[n] = true;
  for (ir::NodeId n = static_cast<ir::NodeId>(g.nodes.size()); n-- > 0;)
    for (ir::Value v : g.nodes[n].inputs)
      if (g.nodes[n].backward || needed[n]) needed[v.node] = true;
  for (ir::NodeId n = 0; n < g.nodes.size(); ++n) after[n] = after[n] && !needed[n] && !g.nodes[n].backward;
  return after;
}

}  // namespace

Lowering::Lowering(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options)
    : graph_(g),
      partition_(p),
      options_(options),
      results_(passes::all_group_results(g, p)),
      input_index_(g.nodes.size(), kNone),
      update_(update_nodes(g)) {
  for (std::uint32_t i = 0; i < g.inputs.size(); ++i) input_index_[g.inputs[i].node] = i;
}

ir::Value Lowering::resolve(ir::Value v) const {
  while (graph_.def(v.node).cls == ir::OpClass::view && partition_.group_of[v.node] == passes::kNoGroup)
    v = graph_.nodes[v.node].inputs[0];
  return v;
}

BufferId Lowering::buffer(ir::Value v) {
  v = resolve(v);
  const auto [at, fresh] = buffers_.try_emplace(v, static_cast<BufferId>(program_.buffers.size()));
  if (!fresh) return at->second;
  MemoryRef ref;
  ref.bytes = graph_.type(v).bytes();
  if (const std::uint32_t i = input_index_[v.node]; i != kNone) {
    ref.kind = MemoryRef::Kind::input;
    ref.index = i;
  }
  program_.buffers.push_back(std::move(ref));
  return at->second;
}

BufferId Lowering::temporary(std::size_t bytes) {
  program_.buffers.push_back({MemoryRef::Kind::arena, bytes});
  return static_cast<BufferId>(program_.buffers.size() - 1);
}

BufferId Lowering::constant(Buffer data) {
  program_.buffers.push_back({MemoryRef::Kind::constant, data.bytes(), 0, std::move(data)});
  return static_cast<BufferId>(program_.buffers.size() - 1);
}

Lasting Lowering::lasting(BufferId b) const {
  const MemoryRef& m = program_.buffers[b];
  if (m.kind == MemoryRef::Kind::constant) return Lasting::loop;
  if (m.kind == MemoryRef::Kind::input)
    return m.index < options_.inputs.size() ? options_.inputs[m.index] : Lasting::iteration;
  return b < lasting_.size() ? lasting_[b] : Lasting::iteration;
}

int Lowering::threads_of(Lasting reads) const {
  return reads == Lasting::loop && options_.shared_threads > 0 ? options_.shared_threads : options_.threads;
}

void Lowering::emit(std::unique_ptr<Kernel> kernel, std::vector<BufferId> reads, std::vector<BufferId> writes,
                    StepInfo info, bool inplace_safe) {
  if (info.bytes == 0)
    for (const auto* list : {&reads, &writes})
      for (BufferId b : *list) info.bytes += static_cast<double>(program_.buffers[b].bytes);
  Lasting last = Lasting::loop;
  for (BufferId b : reads) last = std::min(last, lasting(b));
  for (BufferId b : writes)
    if (program_.buffers[b].kind != MemoryRef::Kind::arena) last = Lasting::iteration;
  lasting_.resize(program_.buffers.size(), Lasting::iteration);
  for (BufferId b : writes) lasting_[b] = last;
  program_.workspace_bytes = std::max(program_.workspace_bytes, kernel->workspace_bytes(threads_of(last)));
  program_.steps.push_back(
      {std::move(kernel), std::move(reads), std::move(writes), inplace_safe, last, std::move(info)});
}

void Lowering::emit_node(ir::NodeId n, std::unique_ptr<Kernel> kernel) {
  const ir::Node& node = graph_.nodes[n];
  std::vector<BufferId> reads, writes;
  for (ir::Value v : node.inputs) reads.push_back(buffer(v));
  for (std::uint32_t k = 0; k < node.types.size(); ++k) writes.push_back(buffer({n, k}));
  emit(std::move(kernel), std::move(reads), std::move(writes), info_of(n));
}

StepInfo Lowering::info_of(ir::NodeId n) const {
  const ir::Node& node = graph_.nodes[n];
  StepInfo info;
  info.name = ir::name_of(node.op);
  info.scope = node.scope;
  info.backward = node.backward;
  info.update = update_[n];
  if (!node.inputs.empty()) info.dtype = graph_.type(node.inputs[0]).dtype;
  info.flops = ir::node_flops(graph_, node);
  return info;
}

// The first output that is a given value is written by the value's own step; others are copied at the end.
void Lowering::assign_outputs(const std::vector<bool>& copied) {
  for (std::uint32_t k = 0; k < graph_.outputs.size(); ++k) {
    const ir::Value v = resolve(graph_.outputs[k].value);
    if (copied[k] || input_index_[v.node] != kNone || buffers_.count(v) != 0) continue;
    buffers_[v] = static_cast<BufferId>(program_.buffers.size());
    program_.buffers.push_back({MemoryRef::Kind::output, graph_.type(v).bytes(), k});
  }
}

// Outputs that no step writes directly. States may be swapped by an assignment, so what is read from inputs is saved
// before anything is overwritten.
void Lowering::copy_outputs(const std::vector<bool>& copied) {
  std::vector<std::pair<BufferId, BufferId>> copies;  // from, to
  for (std::uint32_t k = 0; k < graph_.outputs.size(); ++k) {
    const ir::Value v = resolve(graph_.outputs[k].value);
    const BufferId from = buffer(v);
    const MemoryRef& source = program_.buffers[from];
    if (source.kind == MemoryRef::Kind::output && source.index == k && !copied[k]) continue;
    const int updates = graph_.outputs[k].updates;
    if (source.kind == MemoryRef::Kind::input && updates >= 0 && source.index == static_cast<std::uint32_t>(updates))
      continue;
    program_.buffers.push_back({MemoryRef::Kind::output, graph_.type(v).bytes(), k});
    copies.emplace_back(from, static_cast<BufferId>(program_.buffers.size() - 1));
  }
  const auto copy = [&](BufferId from, BufferId to) {
    const std::size_t bytes = program_.buffers[from].bytes;
    emit(std::make_unique<CopyKernel>(bytes), {from}, {to},
         StepInfo{.name = "copy", .bytes = 2.0 * static_cast<double>(bytes)}, true);
  };
  const bool overwrites =
      std::any_of(graph_.outputs.begin(), graph_.outputs.end(), [](const ir::Output& o) { return o.updates >= 0; });
  for (auto& [from, to] : copies)
    if (overwrites && program_.buffers[from].kind == MemoryRef::Kind::input) {
      const BufferId saved = temporary(program_.buffers[from].bytes);
      copy(from, saved);
      from = saved;
    }
  for (auto [from, to] : copies) copy(from, to);
}

Program Lowering::finish() { return std::move(program_); }

namespace {
void lower_group(Lowering& l, const passes::Group& group) {
  if (!l.options().reference &&
      (lower_loop(l, group) || lower_product(l, group) || lower_movement(l, group) || lower_window(l, group) ||
       lower_reduction(l, group) || lower_indexing(l, group) || lower_attention(l, group) || lower_control(l, group)))
    return;
  for (ir::NodeId n : group.nodes) lower_reference(l, n);
}
}  // namespace

Program lower(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options) {
  std::vector<bool> copied(g.outputs.size(), false);
  for (;;) {
    Lowering l(g, p, options);
    l.assign_outputs(copied);
    for (const passes::Group& group : p.groups) lower_group(l, group);
    l.copy_outputs(copied);
    const std::vector<bool> unsafe = unsafe_updates(g, l.program_);
    bool again = false;
    for (std::size_t k = 0; k < unsafe.size(); ++k) again |= unsafe[k] && !copied[k];
    if (!again) return l.finish();
    for (std::size_t k = 0; k < unsafe.size(); ++k)
      if (unsafe[k]) copied[k] = true;
  }
}

}  // namespace bp::cpu

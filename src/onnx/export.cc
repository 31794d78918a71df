// export_onnx: traces the model twice, at two batch sizes, and writes what the captures have in common.
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <utility>

#include "base/error.h"
#include "bp/attention.h"
#include "bp/onnx.h"
#include "bp/version.h"
#include "ir/body.h"
#include "onnx/exporter.h"
#include "passes/pipeline.h"
#include "runtime/trace_function.h"

namespace bp::onnx {

namespace {

using ModelCall = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

// Primes, larger than sizes in models usually are: a size that is the batch must not look like one that is not.
constexpr std::int64_t kBatches[] = {1009, 1013};
constexpr std::int64_t kIrVersion = 8, kOpset = 17;

// The weights that attention makes and what they do, in plain operations.
std::vector<Tensor> written_out_attention(const ir::Node& n, std::span<const Tensor> in) {
  AttentionOptions o;
  std::size_t next = 3;
  o.causal = n.attrs.flag("causal");
  o.scale = n.attrs.real("scale");
  if (n.attrs.flag("mask")) o.mask = in[next++];
  if (n.attrs.flag("lengths")) o.key_lengths = in[next++];
  if (n.attrs.flag("offset")) o.query_offset = in[next++];
  if (n.attrs.flag("random"))
    fail(ErrorKind::value, "[export_onnx] {}: dropout within attention has no ONNX operation", ir::scope_path(n.scope));
  return {attend(attention_weights(in[0], in[1], o), in[2]), Tensor()};
}

// Records the graph again with attention written out.
std::vector<Tensor> replay(const ir::Graph& g, std::span<const Tensor> inputs) {
  std::vector<std::vector<Tensor>> values(g.nodes.size());
  for (std::size_t i = 0; i < g.inputs.size(); ++i) values[g.inputs[i].node] = {inputs[i]};
  bp::detail::ThreadState& thread = bp::detail::thread_state();
  const ir::ScopeId scope = thread.scope;
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i) {
    const ir::Node& n = g.nodes[i];
    if (n.op == ir::OpId::input) continue;
    std::vector<Tensor> in;
    for (const ir::Value v : n.inputs) in.push_back(values[v.node][v.output]);
    thread.scope = n.scope;
    if (n.op == ir::OpId::attention) {
      values[i] = written_out_attention(n, in);
    } else {
      const auto node = bp::detail::record(n.op, std::move(in), n.attrs);
      for (std::uint32_t k = 0; k < n.types.size(); ++k) values[i].emplace_back(node, k);
    }
  }
  thread.scope = scope;
  std::vector<Tensor> out;
  for (const ir::Output& o : g.outputs) out.push_back(values[o.value.node][o.value.output]);
  return out;
}

struct CapturedModel {
  ir::Graph graph;  // inputs: arguments, then states, then constants
  std::vector<std::shared_ptr<bp::detail::Cell>> states;
  std::vector<Tensor> constants;
};

CapturedModel captured(const ModelCall& f, std::span<const Type> inputs) {
  runtime::Traced t = runtime::trace_function(f, inputs, Mode::eval, "export_onnx");
  if (!t.updates.empty())
    fail(ErrorKind::value,
         "[export_onnx] the model assigns the Variable \"{}\" when it is called: return the new value instead",
         t.states[t.updates[0].second]->name);
  std::vector<Type> types;
  for (const ir::Input& in : t.graph.inputs) types.push_back(t.graph.nodes[in.node].types[0]);
  const runtime::Traced again = runtime::trace_function([&](std::span<const Tensor> in) { return replay(t.graph, in); },
                                                        types, Mode::eval, "export_onnx");
  return {passes::simplify(again.graph), std::move(t.states), std::move(t.constants)};
}

std::vector<Type> with_batch(std::span<const Type> inputs, std::int64_t batch) {
  std::vector<Type> out(inputs.begin(), inputs.end());
  for (Type& t : out) t.shape[0] = batch;
  return out;
}

[[noreturn]] void refuse_difference(const ir::Graph& g, ir::NodeId i) {
  const ir::Node& n = g.nodes[i];
  fail(ErrorKind::value,
       "[export_onnx] {}: {}: the model computes something else at another batch size: export it with a fixed batch "
       "(dynamic_batch = false)",
       ir::scope_path(n.scope), ir::name_of(n.op));
}

void check_same(const ir::Graph& a, const ir::Graph& b) {
  for (ir::NodeId i = 0; i < a.nodes.size(); ++i) {
    const bool there = i < b.nodes.size();
    if (!there || a.nodes[i].op != b.nodes[i].op || a.nodes[i].inputs != b.nodes[i].inputs) refuse_difference(a, i);
    for (const char* name : {"body", ir::kBranches[0], ir::kBranches[1]})
      if (a.nodes[i].attrs.has(name))
        check_same(ir::body_of(a.nodes[i].attrs, name), ir::body_of(b.nodes[i].attrs, name));
  }
  if (a.nodes.size() != b.nodes.size()) refuse_difference(b, static_cast<ir::NodeId>(a.nodes.size()));
}

void check_inputs(std::span<const Type> inputs, const ExportOptions& o) {
  if (inputs.empty()) fail(ErrorKind::value, "[export_onnx] expected the type of at least one input");
  for (const Type& t : inputs)
    if (o.dynamic_batch && t.shape.rank() == 0)
      fail(ErrorKind::shape, "[export_onnx] expected inputs with a batch dimension, got {}", t.str());
  for (const auto& [key, value] : o.metadata)
    if (key.empty()) fail(ErrorKind::value, "[export_onnx] a metadata key is empty");
}

// "input", or "input_0", "input_1", .. unless names are given.
std::vector<std::string> port_names(const std::vector<std::string>& given, std::size_t n, const char* base) {
  if (!given.empty() && given.size() != n)
    fail(ErrorKind::value, "[export_onnx] expected {} names of {}s, got {}", n, base, given.size());
  std::vector<std::string> out = given;
  for (std::size_t i = out.size(); i < n; ++i) out.push_back(n == 1 ? base : fmt::format("{}_{}", base, i));
  return out;
}

std::string name_of_state(std::span<const nn::NamedVariable> state, const std::shared_ptr<bp::detail::Cell>& cell) {
  for (const nn::NamedVariable& s : state)
    if (s.variable.cell() == cell) return s.name;
  return cell->name.empty() ? "variable" : cell->name;
}

// One file under way.
class ModelWriter {
 public:
  ModelWriter(CapturedModel a, const ir::Graph& b, const ExportOptions& o) : a_(std::move(a)), options_(o) {
    shared_.main = &model_.graph;
    exporter_ = std::make_unique<Exporter>(shared_, a_.graph, b, model_.graph);
  }

  void write(const std::string& path, std::size_t arguments, std::span<const nn::NamedVariable> state) {
    const std::vector<std::string> in = port_names(options_.inputs, arguments, "input"),
                                   out = port_names(options_.outputs, a_.graph.outputs.size(), "output");
    for (const auto* names : {&in, &out})
      for (const std::string& name : *names)
        if (name.empty() || !shared_.taken.insert(name).second)
          fail(ErrorKind::value, "[export_onnx] the name \"{}\" of an input or output is empty or given twice", name);
    for (std::size_t i = 0; i < arguments; ++i) argument(i, in[i]);
    shared_.first_input = in[0];
    if (options_.dynamic_batch) shared_.batch[0] = kBatches[0], shared_.batch[1] = kBatches[1];
    weights(arguments, state);
    exporter_->run();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const ir::Value v = a_.graph.outputs[i].value;
      exporter_->finish(v, out[i], images_first(v));
    }
    finish(path);
  }

 private:
  bool images_first(ir::Value v) const { return options_.channels_first && a_.graph.type(v).shape.rank() >= 4; }

  void argument(std::size_t i, const std::string& name) {
    const ir::Value v{a_.graph.inputs[i].node, 0};
    const bool first = images_first(v);
    pending_inputs_.push_back({v, name, first});
    exporter_->bind(v, first ? Named{.channels_first = name} : Named{.plain = name});
  }

  void weights(std::size_t arguments, std::span<const nn::NamedVariable> state) {
    std::vector<std::string> names;
    for (const auto& cell : a_.states) {
      arrays_.push_back({cell->type.dtype, cell->type.shape, cell->value.buffer()});
      names.push_back(name_of_state(state, cell));
    }
    for (const Tensor& c : a_.constants) {
      arrays_.push_back({c.dtype(), c.shape(), c.buffer()});
      names.push_back("constant");
    }
    for (std::size_t k = 0; k < arrays_.size(); ++k)
      exporter_->bind({a_.graph.inputs[arguments + k].node, 0}, {.weight = &arrays_[k], .weight_name = names[k]});
  }

  void finish(const std::string& path) {
    for (const auto& [v, name, first] : pending_inputs_) model_.graph.inputs.push_back(exporter_->info(v, name, first));
    model_.graph.nodes.insert(model_.graph.nodes.begin(), shared_.prologue.begin(), shared_.prologue.end());
    model_.graph.name = "bp";
    model_.ir_version = kIrVersion;
    model_.opsets = {{"", kOpset}};
    model_.producer = "bp";
    model_.producer_version = BP_VERSION_STRING;
    model_.metadata = {options_.metadata.begin(), options_.metadata.end()};
    proto::write_model(path, model_);
  }

  struct PendingInput {
    ir::Value value;
    std::string name;
    bool first;
  };
  CapturedModel a_;
  const ExportOptions& options_;
  proto::Model model_;
  Shared shared_;
  std::unique_ptr<Exporter> exporter_;
  std::vector<Array> arrays_;
  std::vector<PendingInput> pending_inputs_;
};

}  // namespace

namespace detail {

void export_function(const std::string& path, const ModelCall& f, std::span<const nn::NamedVariable> state,
                     std::span<const Type> inputs, const ExportOptions& options) {
  check_inputs(inputs, options);
  if (!options.dynamic_batch) {
    CapturedModel m = captured(f, inputs);
    const ir::Graph same = m.graph;
    return ModelWriter(std::move(m), same, options).write(path, inputs.size(), state);
  }
  CapturedModel a = captured(f, with_batch(inputs, kBatches[0]));
  const CapturedModel b = captured(f, with_batch(inputs, kBatches[1]));
  check_same(a.graph, b.graph);
  ModelWriter(std::move(a), b.graph, options).write(path, inputs.size(), state);
}

}  // namespace detail

}  // namespace bp::onnx

// onnx::Model: a file's graph, walked node by node each time it is called.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include "base/nearest.h"
#include "bp/io.h"
#include "bp/onnx.h"
#include "onnx/importer.h"
#include "runtime/trace_function.h"
#include "trace/node.h"

namespace bp::onnx {

// ---- Call ----------------------------------------------------------------------------------------------------------

void Call::refuse(std::string_view why) const {
  fail(ErrorKind::value, "[onnx] {}{}: {}", node.op, node.name.empty() ? "" : fmt::format(" \"{}\"", node.name), why);
}
const Tensor& Call::at(std::size_t i) const {
  if (!has(i)) refuse(fmt::format("input {} is missing", i));
  return in[i];
}
const proto::Attribute* Call::find(std::string_view name) const noexcept {
  for (const proto::Attribute& a : node.attributes)
    if (a.name == name) return &a;
  return nullptr;
}
std::int64_t Call::integer(std::string_view name, std::int64_t otherwise) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? a->i : otherwise;
}
std::int64_t Call::integer(std::string_view name) const {
  if (find(name) == nullptr) refuse(fmt::format("the attribute \"{}\" is missing", name));
  return find(name)->i;
}
double Call::number(std::string_view name, double otherwise) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? static_cast<double>(a->f) : otherwise;
}
std::string Call::text(std::string_view name, const std::string& otherwise) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? a->s : otherwise;
}
Ints64 Call::integers(std::string_view name, const Ints64& otherwise) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? a->ints : otherwise;
}
std::vector<float> Call::numbers(std::string_view name) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? a->floats : std::vector<float>();
}
std::vector<std::string> Call::texts(std::string_view name) const {
  const proto::Attribute* a = find(name);
  return a != nullptr ? a->strings : std::vector<std::string>();
}
const proto::Graph& Call::graph(std::string_view name) const {
  const proto::Attribute* a = find(name);
  if (a == nullptr || a->g == nullptr) refuse(fmt::format("the graph \"{}\" is missing", name));
  return *a->g;
}
bool Call::known(std::size_t i) const { return has(i) && is_known(in[i]); }
void Call::require_known(std::size_t i) const {
  at(i);
  if (!is_known(in[i]))
    refuse(
        fmt::format("input {} (\"{}\") must be known before anything runs, but depends on an argument or a parameter",
                    i, node.inputs[i]));
}
Ints64 Call::integers_at(std::size_t i, std::string_view attribute, const Ints64& otherwise) const {
  if (has(i)) return values(i);
  return integers(attribute, otherwise);
}
int Call::axis(std::int64_t value, int rank) const {
  if (value < -rank || value >= rank) refuse(fmt::format("the axis {} is out of range for rank {}", value, rank));
  return static_cast<int>(value < 0 ? value + rank : value);
}

// What a small file could claim without holding it.
constexpr std::int64_t kMostConstants = std::int64_t{1} << 29;

bool is_known(const Tensor& t) {
  const auto& n = *t.node();
  return n.evaluated() && n.trace == 0 && !n.tracked && n.cell.expired();  // and no gradient asks for it
}

Tensors computed_now(const std::function<Tensors()>& f) {
  struct Outside {
    bp::detail::ThreadState before = bp::detail::thread_state();
    Outside() { bp::detail::thread_state() = {nullptr, before.mode, 0, false}; }
    ~Outside() { bp::detail::thread_state() = before; }
  } outside;
  Tensors out;
  for (const Tensor& t : f()) {
    if (t.defined() && t.numel() > kMostConstants)
      fail(ErrorKind::value, "a constant of {} is too large", t.type().str());
    // A leaf over the value, which knows nothing of where it came from.
    out.push_back(t.defined() ? Tensor::from_buffer(t.buffer(), t.dtype(), t.shape()) : Tensor());
  }
  return out;
}

Tensor constant_tensor(const Array& a) { return Tensor::from_buffer(a.buffer, a.dtype, a.shape); }

namespace {

constexpr std::int64_t kNewestOpset = 17;

Builder builder_of(std::string_view op) {
  for (const Builders* table : {&math_builders(), &shape_builders(), &layer_builders(), &loop_builders()})
    if (const auto found = table->find(op); found != table->end()) return found->second;
  return nullptr;
}

// Operands whose elements are read before anything runs, or that are no weights: floats among them stay constants.
bool is_setting(const proto::Node& n, std::size_t input) {
  static const std::set<std::string_view> kOps{"Resize",  "Upsample", "Pad",    "Clip",
                                               "Dropout", "Range",    "OneHot", "ConstantOfShape"};
  return (input > 0 || n.op == "Range") && kOps.contains(n.op);
}
// Statistics, which no gradient reaches.
bool is_statistic(const proto::Node& n, std::size_t input) { return n.op == "BatchNormalization" && input >= 3; }

// [N, s.., C] to [N, C, s..], or back.
Tensor moved_channels(const Tensor& x, bool to_last) {
  Axes p{0};
  if (!to_last) p.push_back(x.rank() - 1);
  for (int d = to_last ? 2 : 1; d < x.rank() - (to_last ? 0 : 1); ++d) p.push_back(d);
  if (to_last) p.push_back(1);
  return transpose(x, p);
}

void for_each_node(const proto::Graph& g, const std::function<void(const proto::Node&)>& f) {
  for (const proto::Node& n : g.nodes) {
    f(n);
    for (const proto::Attribute& a : n.attributes)
      if (a.g != nullptr) for_each_node(*a.g, f);
  }
}

}  // namespace

// ---- Model ---------------------------------------------------------------------------------------------------------

struct Model::Graph {
  proto::Model file;
  std::string path;
  std::int64_t opset = kNewestOpset;
  std::vector<std::pair<std::string, Tensor>> constants;
  std::vector<proto::ValueInfo> inputs;  // that are no initializers
  bool draws = false;                    // has a Dropout
};

// A call under way.
struct Model::Run final : Host {
  explicit Run(const Model& m) : model(m) {}

  Tensors run_graph(const proto::Graph& g, Environment environment) override {
    for (const proto::Node& n : g.nodes) node(n, environment);
    Tensors out;
    for (const proto::ValueInfo& v : g.outputs) out.push_back(value(v.name, environment, "an output"));
    return out;
  }

  void update(const std::string& name, const Tensor& value) override {
    for (const auto& [key, variable] : model.weights_)
      if (key == name) variable.alias().set(value);
  }
  Tensor random_state() override {
    const Variable state = model.random_.alias();
    const Tensor now = state.get();
    state.alias().set(now + Tensor::from(std::vector<std::int64_t>{0, 1}, {2}));
    return now;
  }

  bool unrolls(std::size_t operations) override {
    unrolled += operations;
    return unrolled <= kMostUnrolled;
  }

  static Tensor value(const std::string& name, const Environment& environment, std::string_view what) {
    const auto found = environment.find(name);
    if (found == environment.end()) fail(ErrorKind::format, "[onnx] {} \"{}\" is made by no node", what, name);
    return found->second;
  }

  void node(const proto::Node& n, Environment& environment) {
    Tensors in;
    bool constant = true;
    for (const std::string& name : n.inputs) {
      in.push_back(name.empty() ? Tensor() : value(name, environment, fmt::format("{}: input", n.op)));
      constant = constant && (!in.back().defined() || is_known(in.back()));
    }
    const Call call(*this, n, environment, model.graph_->opset, std::move(in));
    const Builder build = builder_of(n.op);
    const Scope scope(n.name.empty() ? n.op : n.name);
    const bool now = constant && n.op != "Dropout" && !has_graph(n);
    Tensors out = built(call, build, now);
    for (std::size_t i = 0; i < n.outputs.size(); ++i) {
      if (n.outputs[i].empty()) continue;
      if (i >= out.size() || !out[i].defined()) call.refuse(fmt::format("output {} is not supported", i));
      environment[n.outputs[i]] = out[i];
    }
  }

  // Errors of bp's operations get the name of the node.
  static Tensors built(const Call& call, Builder build, bool now) {
    try {
      return now ? computed_now([&] { return build(call); }) : build(call);
    } catch (const Error& e) {
      if (std::string_view(e.what()).starts_with("[onnx]")) throw;
      const proto::Node& n = call.node;
      throw Error(e.kind(),
                  fmt::format("[onnx] {}{}: {}", n.op, n.name.empty() ? "" : " \"" + n.name + "\"", e.what()));
    } catch (const std::out_of_range&) { call.refuse("an attribute or operand has too few values"); }
  }

  static bool has_graph(const proto::Node& n) {
    return std::any_of(n.attributes.begin(), n.attributes.end(), [](const auto& a) { return a.g != nullptr; });
  }

  const Model& model;
  std::size_t unrolled = 0;
};

Model::Model(const std::string& path, ImportOptions options) : Model(io::read_file(path), path, options) {}

Model::Model(const Buffer& bytes, const std::string& name, ImportOptions options) : options_(options) {
  auto graph = std::make_shared<Graph>();
  graph->file = proto::parse_model({bytes.as<std::byte>(), bytes.bytes()}, name);
  graph->path = name;
  const auto set = graph->file.opsets.find("");
  graph->opset = set != graph->file.opsets.end() ? set->second : 1;
  if (graph->opset < 1 || graph->opset > kNewestOpset)
    fail(ErrorKind::value, "{}: operator set {} is not supported: expected 1 to {}", name, graph->opset, kNewestOpset);
  check(*graph);
  take_initializers(*graph);
  graph_ = std::move(graph);
}

// Every operator that is not supported, at once.
void Model::check(const Graph& graph) {
  std::map<std::string, std::string> unknown;
  for_each_node(graph.file.graph, [&](const proto::Node& n) {
    const bool foreign = !n.domain.empty() && n.domain != "ai.onnx";
    if (foreign || builder_of(n.op) == nullptr) unknown.try_emplace(foreign ? n.domain + "." + n.op : n.op, n.name);
  });
  if (unknown.empty()) return;
  std::string list;
  for (const auto& [op, node] : unknown)
    list += fmt::format("{}{}{}", list.empty() ? "" : ", ", op, node.empty() ? "" : fmt::format(" (\"{}\")", node));
  fail(ErrorKind::value, "{}: operators that are not supported: {}", graph.path, list);
}

void Model::take_initializers(Graph& graph) {
  std::set<std::string> settings, statistics, names;
  for_each_node(graph.file.graph, [&](const proto::Node& n) {
    for (std::size_t i = 0; i < n.inputs.size(); ++i) {
      if (is_setting(n, i)) settings.insert(n.inputs[i]);
      if (is_statistic(n, i)) statistics.insert(n.inputs[i]);
    }
    graph.draws = graph.draws || n.op == "Dropout";
  });
  for (auto& [name, array] : graph.file.graph.initializers) {
    if (name.empty() || !names.insert(name).second)
      fail(ErrorKind::format, "{}: the initializer \"{}\" has no name, or one that is given twice", graph.path, name);
    const Tensor value = constant_tensor(array);
    if (!is_float(array.dtype) || array.shape.rank() == 0 || settings.contains(name)) {
      graph.constants.emplace_back(name, value);
    } else {
      weights_.emplace_back(name, Variable(value, !statistics.contains(name)));
      weights_.back().second.set_name(name);
    }
  }
  graph.file.graph.initializers.clear();
  if (graph.draws) random_ = Variable(bp::random_state(Key{0}), false);
  for (const proto::ValueInfo& v : graph.file.graph.inputs)
    if (!names.contains(v.name)) graph.inputs.push_back(v);
}

std::vector<Tensor> Model::operator()(std::span<const Tensor> x) const {
  const Graph& g = *graph_;
  if (x.size() != g.inputs.size())
    fail(ErrorKind::value, "[onnx] {}: expected {} inputs, got {}", g.path, g.inputs.size(), x.size());
  Environment environment;
  for (const auto& [name, value] : g.constants) environment.emplace(name, value);
  for (const auto& [name, variable] : weights_) environment.emplace(name, variable.get());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bool moves = options_.channels_last && x[i].defined() && x[i].rank() >= 4;
    const Tensor in = moves ? moved_channels(x[i], false) : x[i];
    check_input(i, in);
    environment[g.inputs[i].name] = in;
  }
  Run run(*this);
  std::vector<Tensor> out = run.run_graph(g.file.graph, std::move(environment));
  for (Tensor& y : out)
    if (options_.channels_last && y.rank() >= 4) y = moved_channels(y, true);
  return out;
}

void Model::check_input(std::size_t i, const Tensor& x) const {
  const proto::ValueInfo& v = graph_->inputs[i];
  if (!x.defined()) fail(ErrorKind::value, "[onnx] input \"{}\" is undefined", v.name);
  bool fits = !v.has_shape || v.dims.size() == static_cast<std::size_t>(x.rank());
  std::string wanted;
  for (std::size_t d = 0; d < v.dims.size(); ++d) {
    const proto::Dim& dim = v.dims[d];
    fits = fits && (dim.value < 0 || dim.value == x.shape()[static_cast<int>(d)]);
    wanted += (d == 0 ? "" : ", ") + (dim.value >= 0 ? std::to_string(dim.value) : dim.param.empty() ? "?" : dim.param);
  }
  if (!fits) fail(ErrorKind::shape, "[onnx] input \"{}\": expected [{}], got {}", v.name, wanted, x.shape());
  const DType dtype = proto::dtype_of_elem(v.elem, fmt::format("[onnx] input \"{}\"", v.name));
  if (x.dtype() != dtype)
    fail(ErrorKind::dtype, "[onnx] input \"{}\": expected {}, got {}", v.name, bp::name_of(dtype), x.type().str());
}

Tensor Model::operator()(const Tensor& x) const {
  std::vector<Tensor> out = (*this)(std::span<const Tensor>(&x, 1));
  if (out.size() != 1)
    fail(ErrorKind::value, "[onnx] {}: expected one output, the graph has {}", graph_->path, out.size());
  return out[0];
}

Shape Model::output_shape(const Shape& in) const {
  if (graph_->inputs.size() != 1)
    fail(ErrorKind::value, "[onnx] {}: expected one input, the graph has {}", graph_->path, graph_->inputs.size());
  const proto::ValueInfo& v = graph_->inputs[0];
  // In a trace, which is thrown away: nothing is computed and no statistic changes.
  const Type type{proto::dtype_of_elem(v.elem, v.name), in};
  const auto call = [this](std::span<const Tensor> x) -> std::vector<Tensor> { return {(*this)(x[0])}; };
  return runtime::trace_function(call, std::span<const Type>(&type, 1), Mode::eval, "onnx").result_types[0].shape;
}

std::string Model::describe() const {
  return fmt::format("onnx({}, {} nodes)", graph_->path, graph_->file.graph.nodes.size());
}

void Model::visit(const std::string& path, nn::Visitor& visitor) {
  for (auto& [name, variable] : weights_) visitor.on_variable(nn::join_path(path, name), variable, false);
  if (graph_->draws) visitor.on_variable(nn::join_path(path, "random_state"), random_, false);
}

namespace {

std::vector<Model::Port> ports_of(const std::vector<proto::ValueInfo>& values) {
  std::vector<Model::Port> out;
  for (const proto::ValueInfo& v : values) {
    out.push_back({v.name, proto::dtype_of_elem(v.elem, "[onnx] " + v.name), {}});
    for (const proto::Dim& d : v.dims) out.back().sizes.push_back(d.value);
  }
  return out;
}

}  // namespace

std::vector<Model::Port> Model::inputs() const { return ports_of(graph_->inputs); }
std::vector<Model::Port> Model::outputs() const { return ports_of(graph_->file.graph.outputs); }

}  // namespace bp::onnx

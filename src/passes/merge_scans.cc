// Merging scans: the bodies are put into one graph, where equal nodes meet; if the carries meet too, one loop does.
#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/hash.h"
#include "ir/body.h"
#include "passes/pipeline.h"
#include "passes/scan.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::ScanLayout;
using ir::Value;

// The operands of a scan under construction, and its body.
struct Loop {
  ScanLayout layout;
  Graph body;
  std::vector<Value> invariants, carries, slices;

  Loop(const Node& n) : layout(n.attrs), body(ir::body_of(n.attrs)) {
    const auto carry = n.inputs.begin() + static_cast<std::ptrdiff_t>(layout.invariants);
    const auto slice = carry + static_cast<std::ptrdiff_t>(layout.carries);
    invariants.assign(n.inputs.begin(), carry);
    carries.assign(carry, slice);
    slices.assign(slice, n.inputs.end());
  }
  std::size_t ys() const { return body.outputs.size() - layout.carries; }
};

struct Merged {
  Node node;
  std::vector<std::uint32_t> second;  // output of the second scan -> output of the merged one
};

// Position of an outer value among operands of one kind; appended when it is new, with a body input for it.
std::size_t operand_at(std::vector<Value>& operands, Value v) {
  const auto found = std::find(operands.begin(), operands.end(), v);
  if (found != operands.end()) return static_cast<std::size_t>(found - operands.begin());
  operands.push_back(v);
  return operands.size() - 1;
}

// Appends a body's nodes, its inputs being `inputs`; returns its outputs.
std::vector<Value> append(Graph& to, const Graph& from, const std::vector<Value>& inputs) {
  std::vector<NodeId> at(from.nodes.size(), 0);
  for (std::size_t i = 0; i < inputs.size(); ++i) at[from.inputs[i].node] = inputs[i].node;
  for (NodeId i = 0; i < from.nodes.size(); ++i) {
    if (from.nodes[i].op == OpId::input) continue;
    Node n = from.nodes[i];
    for (Value& v : n.inputs) v.node = at[v.node];
    at[i] = to.add(std::move(n));
  }
  std::vector<Value> out;
  for (const ir::Output& o : from.outputs) out.push_back({at[o.value.node], o.value.output});
  return out;
}

std::optional<Merged> merge(const Node& first, const Node& second) {
  Loop a(first);
  const Loop b(second);
  std::vector<std::size_t> invariant_at, slice_at;
  const std::size_t old_invariants = a.invariants.size(), old_slices = a.slices.size();
  for (Value v : b.invariants) invariant_at.push_back(operand_at(a.invariants, v));
  for (Value v : b.slices) slice_at.push_back(operand_at(a.slices, v));

  // One graph: the inputs of both, a's nodes, b's nodes; its outputs: a's, then b's.
  Graph both;
  const auto add_input = [&](const Type& t, const std::string& name) {
    const NodeId id = both.add({OpId::input, {}, {}, {t}, 0, false});
    both.inputs.push_back({id, ir::InputKind::argument, name, {}});
    return Value{id, 0};
  };
  const auto input_of = [&](const Graph& g, std::size_t i) {
    return add_input(g.nodes[g.inputs[i].node].types[0], g.inputs[i].name);
  };
  std::vector<Value> invariants, carries, slices;
  for (std::size_t i = 0; i < old_invariants; ++i) invariants.push_back(input_of(a.body, i));
  for (std::size_t i = 0; i < b.invariants.size(); ++i)
    if (invariant_at[i] == invariants.size()) invariants.push_back(input_of(b.body, i));
  for (std::size_t i = 0; i < a.carries.size(); ++i) carries.push_back(input_of(a.body, old_invariants + i));
  for (std::size_t i = 0; i < old_slices; ++i)
    slices.push_back(input_of(a.body, old_invariants + a.carries.size() + i));
  for (std::size_t i = 0; i < b.slices.size(); ++i)
    if (slice_at[i] == slices.size()) slices.push_back(input_of(b.body, b.layout.first_slice() + i));

  std::vector<Value> of_a(invariants.begin(), invariants.begin() + static_cast<std::ptrdiff_t>(old_invariants)), of_b;
  of_a.insert(of_a.end(), carries.begin(), carries.end());
  of_a.insert(of_a.end(), slices.begin(), slices.begin() + static_cast<std::ptrdiff_t>(old_slices));
  for (std::size_t at : invariant_at) of_b.push_back(invariants[at]);
  of_b.insert(of_b.end(), carries.begin(), carries.end());
  for (std::size_t at : slice_at) of_b.push_back(slices[at]);
  for (Value v : append(both, a.body, of_a)) both.outputs.push_back({v, -1, ""});
  for (Value v : append(both, b.body, of_b)) both.outputs.push_back({v, -1, ""});
  both = simplify(both);

  const std::size_t offset = a.body.outputs.size();
  for (std::size_t k = 0; k < a.carries.size(); ++k)
    if (!(both.outputs[k].value == both.outputs[offset + k].value)) return std::nullopt;
  Merged m;
  std::vector<ir::Output> outputs(both.outputs.begin(), both.outputs.begin() + static_cast<std::ptrdiff_t>(offset));
  for (std::size_t k = 0; k < b.body.outputs.size(); ++k) {
    const ir::Output& o = both.outputs[offset + k];
    std::size_t at = k < a.carries.size() ? k : a.carries.size();
    if (k >= a.carries.size())
      while (at < outputs.size() && !(outputs[at].value == o.value)) ++at;
    if (at == outputs.size()) outputs.push_back(o);
    m.second.push_back(static_cast<std::uint32_t>(at));
  }
  both.outputs = std::move(outputs);

  m.node = first;
  m.node.inputs = a.invariants;
  m.node.inputs.insert(m.node.inputs.end(), a.carries.begin(), a.carries.end());
  m.node.inputs.insert(m.node.inputs.end(), a.slices.begin(), a.slices.end());
  m.node.types.resize(offset);
  for (std::size_t k = 0; k < m.second.size(); ++k)
    if (m.second[k] >= m.node.types.size()) m.node.types.push_back(second.types[k]);
  m.node.attrs.set("invariants", static_cast<std::int64_t>(a.invariants.size()));
  m.node.attrs.set("body", ir::make_body(std::move(both)));
  return m;
}

class Merger {
 public:
  explicit Merger(Graph g) : g_(std::move(g)), redirect_(g_.nodes.size()) {}

  Graph run() {
    for (NodeId i = 0; i < g_.nodes.size(); ++i) {
      for (Value& v : g_.nodes[i].inputs) v = redirected(v);
      if (g_.nodes[i].op == OpId::scan) meet(i);
    }
    for (ir::Output& o : g_.outputs) o.value = redirected(o.value);
    return std::move(g_);
  }

 private:
  Value redirected(Value v) const { return redirect_[v.node].empty() ? v : redirect_[v.node][v.output]; }

  // Scans that could be one loop have this in common.
  std::size_t key(const Node& n) const {
    const ScanLayout layout(n.attrs);
    std::size_t h = hash_combine(static_cast<std::size_t>(layout.length), layout.reverse ? 1 : 2);
    for (std::size_t k = 0; k < layout.carries; ++k)
      h = hash_combine(h, std::hash<Value>{}(n.inputs[layout.invariants + k]));
    return h;
  }
  bool alike(const Node& a, const Node& b) const {
    const ScanLayout x(a.attrs), y(b.attrs);
    if (x.length != y.length || x.reverse != y.reverse || x.carries != y.carries ||
        a.attrs.flag("checkpoint") != b.attrs.flag("checkpoint"))
      return false;
    for (std::size_t k = 0; k < x.carries; ++k)
      if (!(a.inputs[x.invariants + k] == b.inputs[y.invariants + k])) return false;
    // Without carries any two would do: those that read the same slices are worth it.
    return x.carries > 0 || (a.inputs.size() > x.first_slice() && b.inputs.size() > y.first_slice() &&
                             a.inputs[x.first_slice()] == b.inputs[y.first_slice()]);
  }

  void meet(NodeId i) {
    const std::size_t h = key(g_.nodes[i]);
    const auto [first, last] = seen_.equal_range(h);
    for (auto it = first; it != last; ++it) {
      const NodeId earlier = it->second;
      const Node& n = g_.nodes[i];
      const bool ready = std::all_of(n.inputs.begin(), n.inputs.end(), [&](Value v) { return v.node < earlier; });
      if (!ready || !alike(g_.nodes[earlier], n)) continue;
      std::optional<Merged> m = merge(g_.nodes[earlier], n);
      if (!m) continue;
      g_.nodes[earlier] = std::move(m->node);
      for (std::uint32_t k : m->second) redirect_[i].push_back({earlier, k});
      return;
    }
    seen_.emplace(h, i);
  }

  Graph g_;
  std::vector<std::vector<Value>> redirect_;
  std::unordered_multimap<std::size_t, NodeId> seen_;
};

}  // namespace

Graph merge_scans(const Graph& g) { return Merger(g).run(); }

}  // namespace bp::passes

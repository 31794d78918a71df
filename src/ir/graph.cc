// Graph: building, hashing, printing and verifying.
#include "ir/graph.h"

#include <stdexcept>

#include "base/error.h"
#include "base/hash.h"

namespace bp::ir {

Value Graph::add_op(OpId op, std::vector<Value> in, Attrs attrs, ScopeId scope, bool backward) {
  std::vector<Type> types;
  types.reserve(in.size());
  for (Value v : in) types.push_back(type(v));
  std::vector<Type> out = op_def(op).infer({types, attrs});
  return {add(Node{op, std::move(attrs), std::move(in), std::move(out), scope, backward}), 0};
}

namespace {
std::size_t hash_type(std::size_t h, const Type& t) {
  h = hash_combine(h, static_cast<std::size_t>(t.dtype) * 16 + static_cast<std::size_t>(t.shape.rank()));
  for (auto n : t.shape) h = hash_combine(h, static_cast<std::size_t>(n));
  return h;
}
}  // namespace

std::size_t Graph::hash() const {
  std::size_t h = nodes.size();
  for (const Node& n : nodes) {
    h = hash_combine(h, static_cast<std::size_t>(n.op));
    h = hash_combine(h, n.attrs.hash());
    for (Value v : n.inputs) h = hash_combine(h, std::hash<Value>{}(v));
    for (const Type& t : n.types) h = hash_type(h, t);
  }
  for (const Output& o : outputs) h = hash_combine(h, std::hash<Value>{}(o.value));
  return h;
}

bool Graph::same_structure(const Graph& other) const {
  if (nodes.size() != other.nodes.size() || outputs.size() != other.outputs.size() ||
      inputs.size() != other.inputs.size())
    return false;
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (!(outputs[i].value == other.outputs[i].value) || outputs[i].updates != other.outputs[i].updates) return false;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].node != other.inputs[i].node || inputs[i].kind != other.inputs[i].kind) return false;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node &a = nodes[i], &b = other.nodes[i];
    if (a.op != b.op || a.inputs != b.inputs || a.types != b.types || !(a.attrs == b.attrs)) return false;
  }
  return true;
}

std::string Graph::str() const {
  std::string text;
  for (NodeId i = 0; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    text += fmt::format("%{} =", i);
    for (const Type& t : n.types) text += fmt::format(" {}", t.str());
    text += fmt::format(" {}(", name_of(n.op));
    for (std::size_t k = 0; k < n.inputs.size(); ++k) {
      const Value v = n.inputs[k];
      text += fmt::format("{}%{}", k ? ", " : "", v.node);
      if (v.output != 0) text += fmt::format(".{}", v.output);
    }
    text += ")";
    if (!n.attrs.empty()) text += fmt::format(" {{{}}}", n.attrs.str());
    for (const Input& in : inputs)
      if (n.op == OpId::input && in.node == i) text += fmt::format("  \"{}\"", in.name);
    if (n.scope != 0) text += fmt::format("  # {}{}", scope_path(n.scope), n.backward ? " (backward)" : "");
    text += "\n";
  }
  for (const Output& o : outputs)
    text +=
        fmt::format("return %{}.{}{}\n", o.value.node, o.value.output,
                    o.updates >= 0 ? fmt::format(" -> \"{}\"", inputs[static_cast<std::size_t>(o.updates)].name) : "");
  return text;
}

void Graph::verify() const {
  for (NodeId i = 0; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    std::vector<Type> in;
    for (Value v : n.inputs) {
      if (v.node >= i) throw std::logic_error(fmt::format("%{} reads %{}, which comes after it", i, v.node));
      if (v.output >= nodes[v.node].types.size())
        throw std::logic_error(fmt::format("%{} reads output {} of %{}, which has fewer", i, v.output, v.node));
      in.push_back(type(v));
    }
    if (n.op == OpId::input) continue;
    if (op_def(n.op).infer({in, n.attrs}) != n.types)
      throw std::logic_error(fmt::format("%{} = {}: its types are not those of its rule", i, name_of(n.op)));
  }
  for (const Output& o : outputs)
    if (o.value.node >= nodes.size() || o.value.output >= nodes[o.value.node].types.size())
      throw std::logic_error("an output names a value that does not exist");
}

std::vector<std::uint32_t> use_counts(const Graph& g) {
  std::vector<std::uint32_t> uses(g.nodes.size(), 0);
  for (const Node& n : g.nodes)
    for (Value v : n.inputs) ++uses[v.node];
  for (const Output& o : g.outputs) ++uses[o.value.node];
  return uses;
}

}  // namespace bp::ir

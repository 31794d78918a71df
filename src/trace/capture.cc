// From Tensors to a Graph: the nodes below the roots, in order of creation.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "trace/node.h"

namespace bp::detail {

namespace {

// Whether the walk stops here: the node's values exist already.
bool is_leaf(const Node& n) { return n.evaluated(); }

std::vector<Node*> reachable(std::span<const Tensor> roots) {
  std::vector<Node*> stack, found;
  std::unordered_set<Node*> seen;
  const auto visit = [&](const Tensor& t) {
    if (seen.insert(t.node().get()).second) stack.push_back(t.node().get());
  };
  for (const Tensor& t : roots) visit(t);
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    found.push_back(n);
    if (!is_leaf(*n))
      for (const Tensor& t : n->inputs) visit(t);
  }
  std::sort(found.begin(), found.end(), [](const Node* a, const Node* b) { return a->serial < b->serial; });
  return found;
}

class Capture {
 public:
  Captured out;

  void add_input(const Node* n, const Type& type, ir::InputKind kind, Buffer constant) {
    const std::shared_ptr<Cell> cell = n->cell.lock();
    const ir::NodeId id = out.graph.add({ir::OpId::input, {}, {}, {type}, 0, false});
    out.graph.inputs.push_back({id, kind, cell ? cell->name : std::string(), std::move(constant)});
    values_[{n, 0}] = {id, 0};
  }

  void add_node(const Node* n) {
    if (is_leaf(*n)) return;  // each used output becomes a constant on demand
    ir::Node node{n->op, n->attrs, {}, n->types, n->scope, n->backward};
    // The user's backward has done its work: executables of equal structure are equal without it, and let go of it.
    if (n->op == ir::OpId::custom_vjp) node.attrs = {{"outputs", static_cast<std::int64_t>(n->types.size())}};
    node.inputs.reserve(n->inputs.size());
    for (const Tensor& t : n->inputs) node.inputs.push_back(value(t));
    const ir::NodeId id = out.graph.add(std::move(node));
    for (std::uint32_t k = 0; k < n->types.size(); ++k) values_[{n, k}] = {id, k};
  }

  ir::Value value(const Tensor& t) {
    const auto found = values_.find({t.node().get(), t.output()});
    if (found != values_.end()) return found->second;
    const Node* n = t.node().get();
    const ir::NodeId id = out.graph.add({ir::OpId::input, {}, {}, {t.type()}, 0, false});
    out.graph.inputs.push_back({id, ir::InputKind::constant, "", n->values[t.output()]});
    out.constants.push_back(t);
    return values_[{n, t.output()}] = {id, 0};
  }

 private:
  struct Hash {
    std::size_t operator()(const std::pair<const Node*, std::uint32_t>& k) const noexcept {
      return std::hash<const void*>{}(k.first) ^ k.second;
    }
  };
  std::unordered_map<std::pair<const Node*, std::uint32_t>, ir::Value, Hash> values_;
};

}  // namespace

Captured capture(std::span<const Tensor> roots, std::span<const Tensor> arguments, std::span<const Tensor> states,
                 std::uint64_t trace) {
  Capture c;
  for (const Tensor& t : arguments) c.add_input(t.node().get(), t.type(), ir::InputKind::argument, {});
  for (const Tensor& t : states) c.add_input(t.node().get(), t.type(), ir::InputKind::variable, {});
  for (const Node* n : reachable(roots)) {
    const bool placeholder = n->op == ir::OpId::input && !n->evaluated();
    if (!placeholder) {
      c.add_node(n);
    } else if (n->trace != trace) {
      fail(ErrorKind::trace,
           "a value recorded inside a compiled function was read after the function ended: return it from the "
           "function, or "
           "keep it in a Variable");
    }
  }
  for (const Tensor& t : roots) c.out.graph.outputs.push_back({c.value(t), -1, ""});
  return std::move(c.out);
}

}  // namespace bp::detail

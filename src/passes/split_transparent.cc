// Gives every loop its own copy of what it looks through (broadcasts, reshapes, fills), and attention of the slices in
// which it reads its operands. Shared ones tie groups together that do not depend on each other: a broadcast that one
// user needs in memory would have to be written before a loop that only looks through it.
#include <optional>
#include <unordered_map>

#include "passes/head_view.h"
#include "passes/loop_space.h"
#include "passes/pipeline.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::Value;

class Splitter {
 public:
  explicit Splitter(const Graph& g) : g_(g), shared_(g.nodes.size()) {}

  Graph run() {
    for (NodeId i = 0; i < g_.nodes.size(); ++i)
      if (!is_transparent(g_, i)) copy(i);
    out_.inputs = g_.inputs;
    for (ir::Input& in : out_.inputs) in.node = *shared_[in.node];
    for (const ir::Output& o : g_.outputs) out_.outputs.push_back({shared(o.value), o.updates, o.name});
    return std::move(out_);
  }

 private:
  void copy(NodeId i) {
    Node n = g_.nodes[i];
    const bool loop = is_loop_op(g_, i);
    std::unordered_map<NodeId, NodeId> own;  // this user's copies
    for (std::size_t k = 0; k < n.inputs.size(); ++k)
      n.inputs[k] = loop || reads_in_place(i, k) ? private_copy(n.inputs[k], own) : shared(n.inputs[k]);
    shared_[i] = out_.add(std::move(n));
  }

  bool reads_in_place(NodeId i, std::size_t input) const {
    if (!is_head_operand(g_, i, input)) return false;
    const auto transparent = [&](NodeId n) { return is_transparent(g_, n); };
    return !transparent(head_view(g_, g_.nodes[i].inputs[input], transparent).base.node);
  }

  Value private_copy(Value v, std::unordered_map<NodeId, NodeId>& own) {
    if (!is_transparent(g_, v.node)) return shared(v);
    const auto found = own.find(v.node);
    if (found != own.end()) return {found->second, v.output};
    Node n = g_.nodes[v.node];
    for (Value& x : n.inputs) x = private_copy(x, own);
    return {own[v.node] = out_.add(std::move(n)), v.output};
  }

  // The copy that all other users read; made when the first asks.
  Value shared(Value v) {
    if (!shared_[v.node]) {
      Node n = g_.nodes[v.node];
      for (Value& x : n.inputs) x = shared(x);
      shared_[v.node] = out_.add(std::move(n));
    }
    return {*shared_[v.node], v.output};
  }

  const Graph& g_;
  Graph out_;
  std::vector<std::optional<NodeId>> shared_;
};

}  // namespace

Graph split_transparent(const Graph& g) { return Splitter(g).run(); }

}  // namespace bp::passes

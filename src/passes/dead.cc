// What a graph's outputs need, and the graph without the rest. Passes call these after they have rewritten.
#include "passes/pipeline.h"

namespace bp::passes {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::Value;

std::vector<bool> live_nodes(const Graph& g) {
  std::vector<bool> live(g.nodes.size(), false);
  for (const ir::Output& o : g.outputs) live[o.value.node] = true;
  for (NodeId i = static_cast<NodeId>(g.nodes.size()); i-- > 0;)
    if (live[i])
      for (Value v : g.nodes[i].inputs) live[v.node] = true;
  return live;
}

Graph drop_dead(const Graph& g, std::vector<NodeId>* moved) {
  std::vector<bool> live = live_nodes(g);
  for (const ir::Input& in : g.inputs) live[in.node] = true;
  Graph out;
  std::vector<NodeId> at(g.nodes.size(), kDropped);
  for (NodeId i = 0; i < g.nodes.size(); ++i) {
    if (!live[i]) continue;
    Node n = g.nodes[i];
    for (Value& v : n.inputs) v.node = at[v.node];
    at[i] = out.add(std::move(n));
  }
  out.inputs = g.inputs;
  for (ir::Input& in : out.inputs) in.node = at[in.node];
  out.outputs = g.outputs;
  for (ir::Output& o : out.outputs) o.value.node = at[o.value.node];
  if (moved != nullptr) *moved = std::move(at);
  return out;
}

}  // namespace bp::passes

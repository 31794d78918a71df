// What can be done to a product before it is stored joins its group: bias, residual, activation. Called by the fuse
// pass before it forms loops; src/cpu/lower/products.cc gives these groups to one kernel.
#include "passes/epilogue.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::Value;

// A broadcast of a vector along the last dimension.
bool is_row(const Graph& g, Value v) {
  const Node& n = g.nodes[v.node];
  if (n.op != OpId::broadcast) return false;
  const Shape &from = g.type(n.inputs[0]).shape, &to = n.types[0].shape;
  return from.rank() > 0 && from.numel() == from.back() && from.back() == to.back();
}

class Epilogues {
 public:
  explicit Epilogues(const Graph& g) : g_(g), uses_(ir::use_counts(g)), user_(g.nodes.size()) {
    for (NodeId i = 0; i < g.nodes.size(); ++i)
      for (Value v : g.nodes[i].inputs) user_[v.node] = i;
    for (const ir::Output& o : g.outputs) user_[o.value.node] = kNone;
  }

  // The nodes of the chain that starts with this product, in topological order.
  std::vector<NodeId> chain(NodeId product) {
    std::vector<NodeId> out{product}, views;
    bool bias = false, residual = false;
    NodeId at = product;
    for (;;) {
      const NodeId next = uses_[at] == 1 ? user_[at] : kNone;
      if (next == kNone) return out;
      const Node& n = g_.nodes[next];
      if (n.op == OpId::reshape) {
        if (!keeps_columns(at, next)) return out;
        views.push_back(next);
        at = next;
        continue;
      }
      std::vector<NodeId> taken;
      if (n.op == OpId::add) {
        const Value other = n.inputs[0].node == at ? n.inputs[1] : n.inputs[0];
        if (!bias && !residual && is_row(g_, other)) {
          bias = true;
          if (uses_[other.node] == 1) taken.push_back(other.node);
        } else if (!residual) {
          residual = true;
        } else {
          return out;
        }
      } else if (n.op != OpId::relu && n.op != OpId::tanh && n.op != OpId::sigmoid) {
        return out;
      }
      out.insert(out.end(), views.begin(), views.end());
      out.insert(out.end(), taken.begin(), taken.end());
      out.push_back(next);
      views.clear();
      at = next;
      if (n.op != OpId::add) return out;
    }
  }

 private:
  static constexpr NodeId kNone = ~0u;

  bool keeps_columns(NodeId from, NodeId to) const {
    const Shape &a = g_.nodes[from].types[0].shape, &b = g_.nodes[to].types[0].shape;
    return a.rank() > 0 && b.rank() > 0 && a.back() == b.back();
  }

  const Graph& g_;
  std::vector<std::uint32_t> uses_;
  std::vector<NodeId> user_;  // the last one
};

bool takes_epilogue(const Graph& g, NodeId n) {
  const OpId op = g.nodes[n].op;
  const DType t = g.nodes[n].types[0].dtype;
  return (op == OpId::matmul || op == OpId::conv) && (t == f32 || t == f64);
}

}  // namespace

void attach_epilogues(const Graph& g, Partition& p) {
  Epilogues epilogues(g);
  std::vector<Group> groups;
  std::vector<std::vector<NodeId>> ending(g.nodes.size());  // chains by their last node
  std::vector<bool> taken(g.nodes.size(), false);
  for (NodeId i = 0; i < g.nodes.size(); ++i) {
    if (!takes_epilogue(g, i)) continue;
    std::vector<NodeId> chain = epilogues.chain(i);
    // Two products may meet in one add: the first has it.
    bool free = chain.size() > 1;
    for (NodeId n : chain) free = free && !taken[n];
    if (!free) continue;
    for (NodeId n : chain) taken[n] = true;
    ending[chain.back()] = std::move(chain);
  }
  for (const Group& group : p.groups) {
    const NodeId n = group.nodes.back();
    if (!ending[n].empty()) {
      groups.push_back({Group::Kind::product, ending[n]});
    } else if (!taken[n]) {
      groups.push_back(group);
    }
  }
  p.groups = std::move(groups);
  for (std::uint32_t k = 0; k < p.groups.size(); ++k)
    for (NodeId n : p.groups[k].nodes) p.group_of[n] = k;
}

ProductChain product_chain(const Graph& g, const Group& group) {
  ProductChain c;
  c.product = group.nodes[0];
  NodeId at = c.product;
  for (NodeId id : group.nodes) {
    const Node& n = g.nodes[id];
    if (id == c.product || n.op == OpId::broadcast) continue;
    if (n.op == OpId::add) {
      const Value other = n.inputs[0].node == at ? n.inputs[1] : n.inputs[0];
      if (!c.has_bias && !c.has_residual && is_row(g, other)) {
        c.has_bias = true;
        c.bias = g.nodes[other.node].inputs[0];
      } else {
        c.has_residual = true;
        c.residual = other;
      }
    } else if (n.op != OpId::reshape) {
      c.activation = n.op;
    }
    at = id;
  }
  c.result = {at, 0};
  return c;
}

}  // namespace bp::passes

// The graph in which some groups run twice.
#include "passes/remat.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::Value;

class SecondRuns {
 public:
  SecondRuns(const Graph& g, const Partition& p, const RematModel& model, const RematModel::Dropped& dropped)
      : g_(g), p_(p), model_(model), dropped_(dropped), results_(all_group_results(g, p)) {
    for (auto* made : {&first_, &second_}) made->assign(g.nodes.size(), kDropped);
  }

  Rematerialised run() {
    out_.graph.inputs = g_.inputs;
    for (ir::Input& in : out_.graph.inputs) in.node = first_[in.node] = out_.graph.add(g_.nodes[in.node]);
    for (const RematModel::Run& run : model_.order(dropped_)) emit(run);
    out_.graph.outputs = g_.outputs;
    for (ir::Output& o : out_.graph.outputs) o.value = copied(o.value, false);
    out_.partition.group_of.assign(out_.graph.nodes.size(), kNoGroup);
    for (std::uint32_t k = 0; k < out_.partition.groups.size(); ++k)
      for (NodeId n : out_.partition.groups[k].nodes) out_.partition.group_of[n] = k;
    return std::move(out_);
  }

 private:
  void emit(RematModel::Run run) {
    const Group& group = p_.groups[run.group];
    std::vector<NodeId>& made = run.again ? second_ : first_;
    Group copy{group.kind, {}, {}};
    for (NodeId n : group.nodes) {
      Node node = g_.nodes[n];
      node.backward = node.backward || run.again;
      for (Value& v : node.inputs) {
        if (p_.group_of[v.node] == run.group)
          v = {made[v.node], v.output};
        else if (run.again)
          v = copied(model_.read_again(run.group, v), true);
        else
          v = copied(v, model_.late(run.group));
      }
      copy.nodes.push_back(made[n] = out_.graph.add(std::move(node)));
    }
    // A loop rounds a product and a sum together where nobody reads the product: both runs have the same readers.
    if (dropped_[run.group] && group.kind == Group::Kind::loop)
      for (Value v : results_[run.group]) copy.stores.push_back({made[v.node], v.output});
    out_.partition.groups.push_back(std::move(copy));
  }

  // v for a reader of first or of second runs, with the views on the way.
  Value copied(Value v, bool second) {
    second = second && model_.is_second(v, dropped_);
    NodeId& made = (second ? second_ : first_)[v.node];
    if (made == kDropped) {  // a view, or a leaf that loops look through
      Node node = g_.nodes[v.node];
      for (Value& x : node.inputs) x = copied(x, second);
      made = out_.graph.add(std::move(node));
    }
    return {made, v.output};
  }

  const Graph& g_;
  const Partition& p_;
  const RematModel& model_;
  const RematModel::Dropped& dropped_;
  std::vector<std::vector<Value>> results_;  // by group
  std::vector<NodeId> first_, second_;       // by node: its copies
  Rematerialised out_;
};

}  // namespace

Rematerialised run_again(const Graph& g, const Partition& p, const RematModel& model,
                         const RematModel::Dropped& dropped) {
  return SecondRuns(g, p, model, dropped).run();
}

}  // namespace bp::passes

// What a scheduled partition keeps in memory, and what it would keep if some groups ran twice.
#include <algorithm>

#include "ir/body.h"
#include "ir/flops.h"
#include "passes/cost.h"
#include "passes/loop_space.h"
#include "passes/remat.h"

namespace bp::passes {

namespace {

constexpr RematModel::ValueId kNoValue = ~0u;
// A product makes some 70 GFLOP/s a core where memory moves 10 GB/s.
constexpr double kBytesPerFlop = 1.0 / 7;

// Custom ops are the user's code, which may count its calls.
bool is_repeatable(const ir::Node& n) {
  const auto body = [&](const char* name) {
    const ir::Graph& g = ir::body_of(n.attrs, name);
    return std::all_of(g.nodes.begin(), g.nodes.end(), is_repeatable);
  };
  if (n.op == ir::OpId::scan) return body("body");
  if (n.op == ir::OpId::cond) return body(ir::kBranches[0]) && body(ir::kBranches[1]);
  return (ir::op_def(n.op).flags & ir::kImpure) == 0;
}

}  // namespace

RematModel::RematModel(const ir::Graph& g, const Partition& p) : g_(g), p_(p), groups_(p.groups.size()) {
  number_values();
  find_reads();
  find_late();
  for (GroupId k = 0; k < groups_.size(); ++k) groups_[k].cost = cost_of(k);
  find_candidates();
}

void RematModel::number_values() {
  first_output_.reserve(g_.nodes.size());
  std::size_t outputs = 0;
  for (const ir::Node& n : g_.nodes) first_output_.push_back(outputs), outputs += n.types.size();
  value_of_.assign(outputs, kNoValue);
  const auto results = all_group_results(g_, p_);
  const auto add = [&](ir::Value v, GroupId k) {
    ValueId& id = id_of(v);
    if (id != kNoValue) return;
    id = static_cast<ValueId>(values_.size());
    values_.push_back({k, g_.type(v).bytes(), false, {}});
    groups_[k].results.push_back(id);
  };
  for (GroupId k = 0; k < groups_.size(); ++k) {
    for (ir::Value v : results[k]) add(v, k);
    // A kernel of its own writes all its results, read or not.
    if (const Group& group = p_.groups[k]; group.kind == Group::Kind::single)
      for (std::uint32_t o = 0; o < g_.nodes[group.nodes[0]].types.size(); ++o) add({group.nodes[0], o}, k);
  }
  for (const ir::Output& o : g_.outputs) {
    const ir::Value v = behind_views(o.value);
    const GroupId k = p_.group_of[v.node];
    if (k == kNoGroup) continue;
    groups_[k].is_root = true;
    values_[id_of(v)].outside = true;
  }
}

void RematModel::find_reads() {
  for (GroupId k = 0; k < groups_.size(); ++k) {
    std::vector<ValueId>& reads = groups_[k].reads;
    for (ir::NodeId n : p_.groups[k].nodes)
      for (ir::Value v : g_.nodes[n].inputs) {
        v = behind_views(v);
        const GroupId from = p_.group_of[v.node];
        if (from != kNoGroup && from != k) reads.push_back(id_of(v));
      }
    std::sort(reads.begin(), reads.end());
    reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
    for (ValueId v : reads) values_[v].readers.push_back(k);
  }
}

// A loop of the forward pass may make sums for the backward pass alone, and one of the backward pass hold copies of
// forward nodes (the pass recompute). What tells them apart is whether the forward pass needs the group.
void RematModel::find_late() {
  std::vector<bool> after(g_.nodes.size(), false);  // by node: follows from the backward pass
  for (ir::NodeId n = 0; n < g_.nodes.size(); ++n) {
    after[n] = g_.nodes[n].backward;
    for (ir::Value v : g_.nodes[n].inputs) after[n] = after[n] || after[v.node];
  }
  std::vector<bool> forward(groups_.size(), false);
  for (const ir::Output& o : g_.outputs)
    if (const ir::NodeId n = behind_views(o.value).node; !after[n] && p_.group_of[n] != kNoGroup)
      forward[p_.group_of[n]] = true;
  for (GroupId k = static_cast<GroupId>(groups_.size()); k-- > 0;) {
    const auto& nodes = p_.groups[k].nodes;
    forward[k] = forward[k] || std::none_of(nodes.begin(), nodes.end(), [&](ir::NodeId n) { return after[n]; });
    groups_[k].late =
        !forward[k] && std::any_of(nodes.begin(), nodes.end(), [&](ir::NodeId n) { return g_.nodes[n].backward; });
    if (forward[k])
      for (ValueId v : groups_[k].reads) forward[values_[v].producer] = true;
  }
}

double RematModel::cost_of(GroupId k) const {
  const Group& group = p_.groups[k];
  double cost = 0;
  for (ValueId v : groups_[k].reads) cost += static_cast<double>(values_[v].bytes);
  for (ValueId v : groups_[k].results) cost += static_cast<double>(values_[v].bytes);
  for (ir::NodeId n : group.nodes) {
    const ir::Node& node = g_.nodes[n];
    if (!is_loop_op(g_, n) || is_transparent(g_, n)) {
      cost += ir::node_flops(g_, node) * kBytesPerFlop;
      continue;
    }
    const Type& worked = is_reduction(node.op) ? g_.type(node.inputs[0]) : node.types[0];
    cost += op_cost(node.op) * static_cast<double>(worked.shape.numel());
  }
  return cost;
}

// A second run reads states as the first did, before they are overwritten: so their writer must be able to wait. What
// a group does to a state of its own (the running statistics of a batch norm) its second run does to the new value, in
// vain: nothing else may depend on it.
void RematModel::find_candidates() {
  std::vector<ir::Value> next(g_.nodes.size(), {kDropped, 0});  // by input node: the state's new value
  for (const ir::Output& o : g_.outputs)
    if (o.updates >= 0) next[g_.inputs[static_cast<std::size_t>(o.updates)].node] = o.value;
  const auto can_read = [&](ir::Value v, GroupId reader) {
    const ir::NodeId state = behind_views(v).node;
    if (next[state].node == kDropped) return true;
    const GroupId writer = p_.group_of[behind_views(next[state]).node];
    if (writer == reader) return v.node == state && p_.group_of[next[state].node] == reader;
    if (writer == kNoGroup || groups_[writer].late) return true;
    const auto unread = [&](ValueId r) { return values_[r].readers.empty(); };
    return std::all_of(groups_[writer].results.begin(), groups_[writer].results.end(), unread);
  };
  for (GroupId k = 0; k < groups_.size(); ++k) {
    bool can = !groups_[k].late;
    std::vector<ir::NodeId> vain;  // follow from a state of the group's own
    for (ir::NodeId n : p_.groups[k].nodes) {
      const ir::Node& node = g_.nodes[n];
      can = can && is_repeatable(node);
      for (ir::Value v : node.inputs) {
        can = can && can_read(v, k);
        const ir::Value state = next[v.node];
        const bool own = state.node != kDropped && p_.group_of[state.node] == k;
        if (own) groups_[k].own_states.emplace_back(v.node, state);
        if (own || std::find(vain.begin(), vain.end(), v.node) != vain.end()) vain.push_back(n);
      }
    }
    for (ir::NodeId n : vain)
      for (std::uint32_t o = 0; o < g_.nodes[n].types.size(); ++o)
        if (const ValueId id = id_of({n, o}); id != kNoValue) can = can && values_[id].outside;
    groups_[k].can_drop = can;
  }
}

ir::Value RematModel::read_again(GroupId k, ir::Value v) const {
  for (const auto& [state, next] : groups_[k].own_states)
    if (v.node == state) return next;
  return v;
}

bool RematModel::is_second(ir::Value v, const Dropped& dropped) const {
  v = behind_views(v);
  return p_.group_of[v.node] != kNoGroup && is_second(value_of_[first_output_[v.node] + v.output], dropped);
}

std::vector<RematModel::Run> RematModel::order(const Dropped& dropped) const {
  std::vector<Run> runs;
  runs.reserve(groups_.size());
  std::vector<bool> made(groups_.size(), false);
  std::vector<GroupId> todo, fresh;
  const auto ask = [&](GroupId k) {
    for (ValueId v : groups_[k].reads)
      if (const GroupId j = values_[v].producer; dropped[j] && !made[j]) made[j] = true, todo.push_back(j);
  };
  for (GroupId k = 0; k < groups_.size(); ++k) {
    if (late(k)) {
      fresh.clear();
      for (ask(k); !todo.empty();) {
        const GroupId j = todo.back();
        todo.pop_back();
        fresh.push_back(j);
        ask(j);
      }
      std::sort(fresh.begin(), fresh.end());
      for (GroupId j : fresh) runs.push_back({j, true});
    }
    runs.push_back({k, false});
  }
  const std::vector<bool> keep = needed(runs, dropped);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < runs.size(); ++i)
    if (keep[i]) runs[kept++] = runs[i];
  runs.resize(kept);
  return runs;
}

// Where all readers of a dropped group are late, its first run has become idle.
std::vector<bool> RematModel::needed(const std::vector<Run>& runs, const Dropped& dropped) const {
  std::vector<bool> read(2 * values_.size(), false), keep(runs.size());
  for (std::size_t i = runs.size(); i-- > 0;) {
    const GroupFacts& group = groups_[runs[i].group];
    const std::size_t at = runs[i].again ? values_.size() : 0;
    keep[i] = !dropped[runs[i].group] || (group.is_root && !runs[i].again) ||
              std::any_of(group.results.begin(), group.results.end(), [&](ValueId v) { return read[at + v]; });
    if (keep[i])
      for (ValueId v : group.reads) read[seen_by(runs[i], v, dropped)] = true;
  }
  return keep;
}

RematModel::Outcome RematModel::outcome(const Dropped& dropped) const {
  const std::vector<Run> runs = order(dropped);
  std::vector<std::uint32_t> last(2 * values_.size(), 0);
  std::vector<bool> first_kept(groups_.size(), false);
  for (std::uint32_t i = 0; i < runs.size(); ++i)
    for (ValueId v : groups_[runs[i].group].reads) last[seen_by(runs[i], v, dropped)] = i;
  Outcome out;
  std::size_t live = 0;
  std::vector<std::size_t> ends(runs.size(), 0);  // bytes that die after a run
  for (std::uint32_t i = 0; i < runs.size(); ++i) {
    const Run run = runs[i];
    for (ValueId v : groups_[run.group].results) {
      const std::size_t bytes = values_[v].outside && !run.again ? 0 : values_[v].bytes;
      live += bytes;
      ends[std::max(i, last[v + (run.again ? values_.size() : 0)])] += bytes;
    }
    out.peak_bytes = std::max(out.peak_bytes, live);
    live -= ends[i];
    if (!run.again) first_kept[run.group] = true;
    if (run.again && first_kept[run.group]) out.cost += groups_[run.group].cost;
  }
  return out;
}

}  // namespace bp::passes

// The order of groups: a topological order that stays close to the recorded one, but overwrites states after their last
// reader and runs what frees memory as soon as it can.
#include <algorithm>
#include <queue>
#include <set>
#include <unordered_map>
#include <utility>

#include "passes/pipeline.h"

namespace bp::passes {

namespace {

class Scheduler {
 public:
  Scheduler(const ir::Graph& g, const Partition& p)
      : g_(g), p_(p), after_(p.groups.size()), waits_(p.groups.size(), 0) {
    for (std::uint32_t k = 0; k < p.groups.size(); ++k)
      for (ir::NodeId n : p.groups[k].nodes)
        for (ir::Value v : g.nodes[n].inputs) {
          const std::uint32_t from = producer(v);
          if (from != kNoGroup && from != k) edge(from, k);
        }
  }

  // Readers of a state before the group that computes its new value. A cycle (a reader needs the new value) is found by
  // order(): then the executable copies at the end instead.
  void add_state_edges() {
    std::unordered_map<ir::NodeId, std::vector<std::uint32_t>> readers;
    for (std::uint32_t k = 0; k < p_.groups.size(); ++k)
      for (ir::NodeId n : p_.groups[k].nodes)
        for (ir::Value v : g_.nodes[n].inputs) readers[source(v)].push_back(k);
    for (const ir::Output& o : g_.outputs) {
      if (o.updates < 0) continue;
      const std::uint32_t writer = producer(o.value);
      if (writer == kNoGroup) continue;
      for (std::uint32_t reader : readers[g_.inputs[static_cast<std::size_t>(o.updates)].node])
        if (reader != writer) edge(reader, writer);
    }
  }

  // Kahn's algorithm: among the ready groups, one that only consumes (writes states, ends lives) or makes next to
  // nothing first, otherwise the earliest recorded.
  std::vector<std::uint32_t> order() const {
    std::vector<std::uint32_t> waits = waits_, out;
    std::priority_queue<std::pair<std::int64_t, std::uint32_t>, std::vector<std::pair<std::int64_t, std::uint32_t>>,
                        std::greater<>>
        ready;
    for (std::uint32_t k = 0; k < waits.size(); ++k)
      if (waits[k] == 0) ready.emplace(rank(k), k);
    while (!ready.empty()) {
      const std::uint32_t k = ready.top().second;
      ready.pop();
      out.push_back(k);
      for (std::uint32_t next : after_[k])
        if (--waits[next] == 0) ready.emplace(rank(next), next);
    }
    return out;
  }

 private:
  std::int64_t rank(std::uint32_t k) const {
    return after_[k].empty() || is_tiny(k) ? static_cast<std::int64_t>(k) - (std::int64_t{1} << 40) : k;
  }
  // What an optimizer computes once a step, for all parameters: done early, no gradient waits for it.
  bool is_tiny(std::uint32_t k) const {
    constexpr std::size_t kTiny = 64;
    const auto& nodes = p_.groups[k].nodes;
    return std::all_of(nodes.begin(), nodes.end(), [&](ir::NodeId n) {
      const auto& types = g_.nodes[n].types;
      return std::all_of(types.begin(), types.end(), [](const Type& t) { return t.bytes() <= kTiny; });
    });
  }

  void edge(std::uint32_t from, std::uint32_t to) {
    if (!edges_.emplace(from, to).second) return;
    after_[from].push_back(to);
    ++waits_[to];
  }
  ir::NodeId source(ir::Value v) const { return behind_views(g_, p_, v).node; }
  std::uint32_t producer(ir::Value v) const { return p_.group_of[source(v)]; }

  const ir::Graph& g_;
  const Partition& p_;
  std::vector<std::vector<std::uint32_t>> after_;
  std::vector<std::uint32_t> waits_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> edges_;
};

void reorder(Partition& p, const std::vector<std::uint32_t>& order) {
  std::vector<Group> groups;
  groups.reserve(order.size());
  for (std::uint32_t k : order) groups.push_back(std::move(p.groups[k]));
  p.groups = std::move(groups);
  for (std::uint32_t k = 0; k < p.groups.size(); ++k)
    for (ir::NodeId n : p.groups[k].nodes) p.group_of[n] = k;
}

}  // namespace

void schedule(const ir::Graph& g, Partition& p) {
  Scheduler with_states(g, p);
  with_states.add_state_edges();
  std::vector<std::uint32_t> order = with_states.order();
  if (order.size() != p.groups.size()) order = Scheduler(g, p).order();
  reorder(p, order);
}

}  // namespace bp::passes

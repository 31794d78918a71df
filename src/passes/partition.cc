// Partition: building, querying, verifying.
#include "passes/partition.h"

#include <algorithm>
#include <stdexcept>

#include "base/error.h"
#include "passes/loop_space.h"

namespace bp::passes {

namespace {
bool is_memory_name(const ir::Graph& g, ir::NodeId n) {
  return g.nodes[n].op == ir::OpId::input || g.def(n).cls == ir::OpClass::view;
}
}  // namespace

Partition singletons(const ir::Graph& g) {
  Partition p;
  p.group_of.assign(g.nodes.size(), kNoGroup);
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i) {
    if (is_memory_name(g, i)) continue;
    p.group_of[i] = static_cast<std::uint32_t>(p.groups.size());
    p.groups.push_back({Group::Kind::single, {i}});
  }
  return p;
}

std::vector<std::vector<ir::Value>> all_group_results(const ir::Graph& g, const Partition& p) {
  std::vector<std::vector<ir::Value>> out(p.groups.size());
  const auto add = [&](ir::Value v) {
    const std::uint32_t k = p.group_of[v.node];
    if (k != kNoGroup && std::find(out[k].begin(), out[k].end(), v) == out[k].end()) out[k].push_back(v);
  };
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i)
    for (ir::Value v : g.nodes[i].inputs)
      if (p.group_of[i] == kNoGroup || p.group_of[i] != p.group_of[v.node]) add(v);
  for (const ir::Output& o : g.outputs) add(o.value);
  for (const Group& group : p.groups)
    for (ir::Value v : group.stores) add(v);
  return out;
}

ir::Value behind_views(const ir::Graph& g, const Partition& p, ir::Value v) {
  while (p.group_of[v.node] == kNoGroup && !g.nodes[v.node].inputs.empty()) v = g.nodes[v.node].inputs[0];
  return v;
}

void verify(const ir::Graph& g, const Partition& p) {
  std::vector<bool> done(g.nodes.size(), false);
  const auto ready = [&](ir::NodeId n, auto&& self) -> bool {
    if (done[n] || g.nodes[n].op == ir::OpId::input) return true;
    if (p.group_of[n] != kNoGroup || !(is_transparent(g, n) || g.nodes[n].op == ir::OpId::iota)) return false;
    return std::all_of(g.nodes[n].inputs.begin(), g.nodes[n].inputs.end(),
                       [&](ir::Value v) { return self(v.node, self); });
  };
  for (std::uint32_t k = 0; k < p.groups.size(); ++k) {
    for (ir::NodeId n : p.groups[k].nodes) {
      if (p.group_of[n] != k)
        throw std::logic_error(fmt::format("%{} stands in group {} but belongs to {}", n, k, p.group_of[n]));
      for (ir::Value v : g.nodes[n].inputs)
        if (!ready(v.node, ready))
          throw std::logic_error(fmt::format("group {} reads %{} before it is computed", k, v.node));
      done[n] = true;
    }
  }
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i)
    if (p.group_of[i] != kNoGroup && !done[i]) throw std::logic_error(fmt::format("%{} is never computed", i));
  for (const ir::Output& o : g.outputs)
    if (!ready(o.value.node, ready)) throw std::logic_error(fmt::format("output %{} is never computed", o.value.node));
}

}  // namespace bp::passes

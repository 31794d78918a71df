// Grouping nodes that are computed together: elementwise chains, row reductions, column accumulators and broadcasts
// over one rows x columns space become loops. A node joins the loops that produce its operands when a common space
// exists and no other group lies between; what is merged saves a write and a read of memory and computes nothing twice.
#include <algorithm>
#include <queue>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "passes/epilogue.h"
#include "passes/head_view.h"
#include "passes/loop_space.h"
#include "passes/pipeline.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::NodeId;
using ir::OpId;
using ir::Value;

constexpr std::size_t kMaxMembers = 64;
constexpr std::size_t kLarge = 64 * 1024;  // bytes of a value
constexpr std::size_t kMaxVisits = 4000;   // of a search for cycles; a longer search counts as a cycle

class Fuser {
 public:
  Fuser(const Graph& g, std::span<const NodeId> tied) : g_(g), group_of_(g.nodes.size(), kNoGroup) {
    for (NodeId i = 0; i < tied.size(); ++i)
      if (tied[i] != kNoTie) tied_to_[tied[i]].push_back(i), is_tied_.insert(i);
  }

  Partition run() {
    take_products();
    find_large_readers();
    for (NodeId i = 0; i < g_.nodes.size(); ++i)
      if (!is_tied_.contains(i)) visit(i);
    for (NodeId i : std::set<NodeId>(is_tied_.begin(), is_tied_.end())) visit(i);  // whose user joined a product
    join_loops();
    find_memory();
    place_transparent();
    join_heads();
    return ordered();
  }

 private:
  bool is_view(NodeId n) const { return g_.def(n).cls == ir::OpClass::view; }
  bool is_loop(std::uint32_t k) const { return kinds_[k] == Group::Kind::loop; }
  std::uint32_t add_group(Group::Kind kind, std::vector<NodeId> nodes) {
    const auto k = static_cast<std::uint32_t>(groups_.size());
    for (NodeId n : nodes) group_of_[n] = k;
    groups_.push_back(std::move(nodes));
    kinds_.push_back(kind);
    return k;
  }
  // The kind of a node alone.
  // A slice that is wanted in memory is a movement, which has a kernel.
  Group::Kind kind_of(NodeId n) const {
    if (g_.nodes[n].op == OpId::slice) return Group::Kind::single;
    return loop_space(g_, std::vector<NodeId>{n}) ? Group::Kind::loop : Group::Kind::single;
  }

  void take_products() {
    Partition p = singletons(g_);
    attach_epilogues(g_, p);
    for (Group& group : p.groups)
      if (group.kind == Group::Kind::product) add_group(group.kind, std::move(group.nodes));
  }

  // The group that computes what v shows, through transparent nodes.
  std::uint32_t producer(Value v) const { return group_of_[behind_transparent(g_, v).node]; }

  void visit(NodeId i) {
    if (g_.nodes[i].op == OpId::input || is_transparent(g_, i) || group_of_[i] != kNoGroup) return;
    std::vector<NodeId> nodes = with_tied(i);
    const Group::Kind kind = nodes.size() > 1    ? Group::Kind::loop
                             : is_loop_op(g_, i) ? kind_of(i)
                                                 : Group::Kind::single;
    add_group(kind, nodes);
    if (kind != Group::Kind::loop) return;
    std::vector<std::uint32_t> candidates;
    for (NodeId n : nodes)
      for (Value v : g_.nodes[n].inputs)
        if (const std::uint32_t k = producer(v); k != kNoGroup && is_loop(k) && k != group_of_[i])
          candidates.push_back(k);
    // The latest first: it has the most between itself and the others to pull in.
    std::sort(candidates.begin(), candidates.end(),
              [&](std::uint32_t a, std::uint32_t b) { return groups_[a].back() > groups_[b].back(); });
    for (std::uint32_t k : candidates)
      if (!groups_[k].empty() && k != group_of_[i] && (is_number(i) || !is_shared_number(k))) merge(k, group_of_[i]);
  }

  // Numbers that large loops read (an optimizer's step sizes) stay out of larger loops: those would wait for each
  // other, and no gradient could die before the last is there.
  bool is_number(NodeId n) const { return g_.nodes[n].types[0].shape.numel() == 1; }
  bool is_shared_number(std::uint32_t k) const {
    const auto& nodes = groups_[k];
    return std::all_of(nodes.begin(), nodes.end(), [&](NodeId n) { return is_number(n); }) &&
           std::any_of(nodes.begin(), nodes.end(), [&](NodeId n) { return feeds_large_[n]; });
  }
  void find_large_readers() {
    feeds_large_.assign(g_.nodes.size(), false);
    for (NodeId i = 0; i < g_.nodes.size(); ++i)
      if (!is_transparent(g_, i) && g_.nodes[i].types[0].bytes() >= kLarge)
        for (Value v : g_.nodes[i].inputs) feeds_large_[behind_transparent(g_, v).node] = true;
  }

  // A node with those that are tied to it, where they share a space; they stand alone otherwise.
  std::vector<NodeId> with_tied(NodeId i) {
    const auto found = tied_to_.find(i);
    if (found == tied_to_.end()) return {i};
    std::vector<NodeId> nodes = found->second;  // they come before their user
    nodes.push_back(i);
    if (loop_space(g_, nodes)) return nodes;
    for (NodeId n : found->second) is_tied_.erase(n);
    for (NodeId n : found->second) visit(n);
    return {i};
  }

  // Moves group b into a when both fit one loop.
  bool merge(std::uint32_t a, std::uint32_t b) {
    if (groups_[a].size() + groups_[b].size() > kMaxMembers) return false;
    std::vector<NodeId> nodes(groups_[a].size() + groups_[b].size());
    std::merge(groups_[a].begin(), groups_[a].end(), groups_[b].begin(), groups_[b].end(), nodes.begin());
    if (!loop_space(g_, nodes) || makes_cycle(a, b, nodes)) return false;
    for (NodeId n : groups_[b]) group_of_[n] = a;
    groups_[b].clear();
    groups_[a] = std::move(nodes);
    return true;
  }

  // Whether a path leaves the two groups and comes back: then they cannot run as one.
  bool makes_cycle(std::uint32_t a, std::uint32_t b, const std::vector<NodeId>& nodes) {
    ++stamp_;
    std::vector<std::uint32_t> todo;  // groups on the way back
    bool found = false;
    // Looks behind what the nodes of a group read.
    const auto expand = [&](const std::vector<NodeId>& of, bool outside) {
      for (NodeId n : of)
        for (Value v : g_.nodes[n].inputs) {
          const std::uint32_t k = group_of_[transparent_source(v)];
          if (k == a || k == b) {
            found |= outside;
          } else if (k != kNoGroup && mark_[k] != stamp_ && latest(k) > nodes.front()) {
            mark_[k] = stamp_;
            todo.push_back(k);
          }
        }
    };
    mark_.resize(groups_.size(), 0);
    expand(nodes, false);
    for (std::size_t visits = 0; !todo.empty() && !found; ++visits) {
      if (visits > kMaxVisits) return true;
      const std::uint32_t k = todo.back();
      todo.pop_back();
      expand(groups_[k], true);
    }
    return found;
  }
  NodeId transparent_source(Value v) const {
    while (group_of_[v.node] == kNoGroup && is_transparent(g_, v.node) && !g_.nodes[v.node].inputs.empty())
      v = g_.nodes[v.node].inputs[0];
    return v.node;
  }
  NodeId latest(std::uint32_t k) const { return *std::max_element(groups_[k].begin(), groups_[k].end()); }

  // Transparent nodes that somebody reads from memory: outputs, nodes that are no loops, and iotas that loops load.
  void find_memory() {
    needs_memory_.assign(g_.nodes.size(), false);
    for (const ir::Output& o : g_.outputs) needs_memory_[o.value.node] = true;
    for (std::uint32_t k = 0; k < groups_.size(); ++k) {
      if (kinds_[k] == Group::Kind::product) {
        const ProductChain c = product_chain(g_, {kinds_[k], groups_[k]});
        for (Value v : g_.nodes[c.product].inputs) needs_memory_[v.node] = true;
        if (c.has_bias) needs_memory_[c.bias.node] = true;
        if (c.has_residual) needs_memory_[c.residual.node] = true;
      } else if (!is_loop(k)) {
        for (NodeId n : groups_[k])
          for (std::size_t i = 0; i < g_.nodes[n].inputs.size(); ++i) needs_memory_[memory_of(n, i).node] = true;
      } else if (!groups_[k].empty()) {
        const auto space = loop_space(g_, groups_[k]);
        for (const LoopMember& m : space->members)
          for (const LoopRead& r : m.reads)
            if (r.kind == LoopRead::Kind::memory) needs_memory_[r.value.node] = true;
      }
    }
  }

  // What a node that is no loop reads from memory.
  Value memory_of(NodeId n, std::size_t input) const {
    const Value v = g_.nodes[n].inputs[input];
    if (!is_head_operand(g_, n, input)) return v;
    return head_view(g_, v, [&](NodeId m) { return is_transparent(g_, m) && group_of_[m] == kNoGroup; }).base;
  }

  // A loop writes its values where the concatenate that reads them wants them: loops that compute all of its parts,
  // of rows that are not short, become one for that.
  void join_loops() {
    constexpr std::int64_t kShortestRow = 32;
    for (std::uint32_t c = 0; c < groups_.size(); ++c) {
      if (groups_[c].size() != 1 || g_.nodes[groups_[c][0]].op != OpId::concatenate) continue;
      const NodeId concatenate = groups_[c][0];
      std::vector<std::uint32_t> makers;
      for (Value v : g_.nodes[concatenate].inputs)
        if (const std::uint32_t k = producer(v); std::find(makers.begin(), makers.end(), k) == makers.end())
          makers.push_back(k);
      std::vector<NodeId> nodes{concatenate};
      for (std::uint32_t k : makers)
        if (k != kNoGroup && is_loop(k)) nodes.insert(nodes.end(), groups_[k].begin(), groups_[k].end());
      std::sort(nodes.begin(), nodes.end());
      const auto space = nodes.size() <= kMaxMembers ? loop_space(g_, nodes) : std::nullopt;
      if (!space || space->cols < kShortestRow) continue;
      const std::uint32_t k = makers[0];
      if (!std::all_of(makers.begin() + 1, makers.end(), [&](std::uint32_t other) { return merge(k, other); }))
        continue;
      groups_[k] = std::move(nodes);
      group_of_[concatenate] = k;
      groups_[c].clear();
    }
  }

  // A gradient of attention writes dq, dk and dv where the concatenate that reads them wants them.
  void join_heads() {
    const std::vector<std::uint32_t> uses = ir::use_counts(g_);
    for (std::vector<NodeId>& group : groups_) {
      if (group.size() != 1 || g_.nodes[group[0]].op != OpId::concatenate) continue;
      const JoinedHeads joined = joined_heads(g_, group[0], uses);
      if (joined.nodes.empty()) continue;
      const std::uint32_t k = group_of_[joined.gradient];
      for (NodeId n : joined.nodes) group_of_[n] = k;
      groups_[k].insert(groups_[k].end(), joined.nodes.begin(), joined.nodes.end());
      group.clear();
    }
  }

  // Transparent nodes (and iotas) that nobody reads vanish into the loops. Others are written by a loop of their own.
  void place_transparent() {
    for (NodeId i = static_cast<NodeId>(g_.nodes.size()); i-- > 0;) {
      const OpId op = g_.nodes[i].op;
      if (op == OpId::iota && !needs_memory_[i]) {
        groups_[group_of_[i]].clear();
        group_of_[i] = kNoGroup;
      }
      if (!is_transparent(g_, i) || !needs_memory_[i] || group_of_[i] != kNoGroup) continue;
      const Group::Kind kind = is_view(i) ? Group::Kind::single : kind_of(i);
      if (kind == Group::Kind::single && !g_.nodes[i].inputs.empty()) needs_memory_[g_.nodes[i].inputs[0].node] = true;
      if (!is_view(i)) add_group(kind, {i});
    }
    adopt();
  }

  // What only one loop looks through belongs to it, so that its operand does not count as read by others.
  void adopt() {
    std::vector<std::uint32_t> only(g_.nodes.size(), kNoGroup);
    std::vector<bool> many(g_.nodes.size(), false);
    const auto used_by = [&](NodeId n, std::uint32_t k) {
      if (k == kNoGroup || (only[n] != kNoGroup && only[n] != k)) many[n] = true;
      only[n] = k;
    };
    for (const ir::Output& o : g_.outputs) many[o.value.node] = true;
    for (NodeId i = static_cast<NodeId>(g_.nodes.size()); i-- > 0;) {
      if (group_of_[i] == kNoGroup && is_transparent(g_, i) && !many[i] && only[i] != kNoGroup && is_loop(only[i]))
        group_of_[i] = only[i];
      // A transparent node of no group, or a written one, passes its users on as they are.
      const std::uint32_t user = group_of_[i] == kNoGroup && many[i] ? kNoGroup : group_of_[i];
      for (Value v : g_.nodes[i].inputs) used_by(v.node, user);
    }
    for (NodeId i = 0; i < g_.nodes.size(); ++i)
      if (group_of_[i] != kNoGroup && is_loop(group_of_[i]) && is_transparent(g_, i)) {
        auto& nodes = groups_[group_of_[i]];
        const auto at = std::lower_bound(nodes.begin(), nodes.end(), i);
        if (at == nodes.end() || *at != i) nodes.insert(at, i);
      }
  }

  // Kahn's algorithm over the groups, the earliest recorded first.
  Partition ordered() const {
    const auto count = static_cast<std::uint32_t>(groups_.size());
    std::set<std::pair<std::uint32_t, std::uint32_t>> edges;
    std::vector<std::uint32_t> waits(count, 0);
    for (std::uint32_t k = 0; k < count; ++k)
      for (NodeId n : groups_[k])
        for (Value v : g_.nodes[n].inputs) {
          const std::uint32_t from = source_group(v);
          if (from != kNoGroup && from != k && edges.emplace(from, k).second) ++waits[k];
        }
    using Ready = std::pair<NodeId, std::uint32_t>;
    std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready;
    for (std::uint32_t k = 0; k < count; ++k)
      if (waits[k] == 0 && !groups_[k].empty()) ready.emplace(groups_[k].front(), k);
    Partition p;
    p.group_of.assign(g_.nodes.size(), kNoGroup);
    while (!ready.empty()) {
      const std::uint32_t k = ready.top().second;
      ready.pop();
      for (NodeId n : groups_[k]) p.group_of[n] = static_cast<std::uint32_t>(p.groups.size());
      p.groups.push_back({kinds_[k], groups_[k]});
      for (auto it = edges.lower_bound({k, 0}); it != edges.end() && it->first == k; ++it)
        if (--waits[it->second] == 0) ready.emplace(groups_[it->second].front(), it->second);
    }
    return p;
  }

  std::uint32_t source_group(Value v) const {
    while (group_of_[v.node] == kNoGroup && !g_.nodes[v.node].inputs.empty()) v = g_.nodes[v.node].inputs[0];
    return group_of_[v.node];
  }

  const Graph& g_;
  std::unordered_map<NodeId, std::vector<NodeId>> tied_to_;  // by user
  std::unordered_set<NodeId> is_tied_;
  std::vector<std::uint32_t> group_of_;      // by node
  std::vector<std::vector<NodeId>> groups_;  // members in topological order; empty once merged away
  std::vector<Group::Kind> kinds_;           // by group
  std::vector<std::uint32_t> mark_;          // by group: the last search that met it
  std::uint32_t stamp_ = 0;
  std::vector<bool> needs_memory_;  // by node
  std::vector<bool> feeds_large_;   // by node
};

}  // namespace

Partition fuse(const ir::Graph& g, std::span<const NodeId> tied) { return Fuser(g, tied).run(); }

}  // namespace bp::passes

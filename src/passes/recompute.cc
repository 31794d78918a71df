// Values that one loop would write to memory for another are computed again where they are read, when that costs less:
// what they are made of is read there anyway, or is small. The input of a GELU serves its gradient; of a normalised
// and rectified convolution the gradient needs only the convolution and a few numbers a channel. (The rule by which
// XLA duplicates producers into fusions, with bytes instead of counts of users.)
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "passes/cost.h"
#include "passes/loop_space.h"
#include "passes/pipeline.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::Value;

constexpr double kSmall = 16;  // a leaf this many times smaller than the value costs next to nothing
constexpr double kMaxOps = 24;

class Recomputer {
 public:
  Recomputer(const Graph& g, const Partition& p, std::size_t worth_bytes)
      : g_(g),
        p_(p),
        worth_bytes_(worth_bytes),
        kept_(g.nodes.size(), false),
        readers_(g.nodes.size()),
        loops_(p.groups.size()) {}

  Recomputed run() {
    find_readers();
    bool any = false;
    for (NodeId i = 0; i < g_.nodes.size(); ++i) any |= drop(i);
    return any ? rebuilt() : Recomputed{};
  }

 private:
  struct Loop {
    std::unordered_set<NodeId> reads;   // from memory
    std::unordered_set<NodeId> copies;  // computed again
  };
  // How a loop would come by a value.
  struct Expansion {
    double bytes = 0, ops = 0;              // an element of the value
    std::vector<NodeId> copies, new_reads;  // topological order
  };

  double bytes_of(NodeId n) const { return static_cast<double>(g_.nodes[n].types[0].bytes()); }
  bool in_loop(NodeId n) const {
    return p_.group_of[n] != kNoGroup && p_.groups[p_.group_of[n]].kind == Group::Kind::loop && is_loop_op(g_, n);
  }

  // What is read from memory, and what has to be there whatever this pass does.
  void find_readers() {
    for (const ir::Output& o : g_.outputs) keep(o.value);
    for (std::uint32_t k = 0; k < p_.groups.size(); ++k) {
      const Group& group = p_.groups[k];
      const bool loop = group.kind == Group::Kind::loop && std::any_of(group.nodes.begin(), group.nodes.end(),
                                                                       [&](NodeId n) { return is_loop_op(g_, n); });
      if (!loop) {
        for (NodeId n : group.nodes)
          for (Value v : g_.nodes[n].inputs) keep(v);
        continue;
      }
      const auto space = loop_space(g_, group.nodes);
      for (const LoopMember& m : space->members)
        for (const LoopRead& r : m.reads)
          if (r.kind == LoopRead::Kind::memory && loops_[k].reads.insert(r.value.node).second)
            readers_[r.value.node].push_back(k);
    }
  }
  void keep(Value v) { kept_[v.node] = kept_[behind_transparent(g_, v).node] = true; }

  // Decides about one value, in topological order: earlier ones have been decided.
  bool drop(NodeId v) {
    if (kept_[v] || readers_[v].empty() || !in_loop(v) || is_reduction(g_.nodes[v].op)) return false;
    if (g_.nodes[v].types[0].bytes() < worth_bytes_) return false;
    // Written once (a line of cache is fetched before it is overwritten), read by each.
    const double bytes = bytes_of(v), elements = static_cast<double>(g_.nodes[v].types[0].shape.numel());
    double gain = 2 * bytes;
    std::vector<Expansion> expansions;
    for (std::uint32_t k : readers_[v]) {
      Expansion e;
      if (!expand(v, v, loops_[k], e)) return false;
      // Nor more memory at once: what is read instead lives as long as the value would have.
      if (e.bytes > 1.25 * bytes) return false;
      gain += bytes - e.bytes - e.ops * elements;
      expansions.push_back(std::move(e));
    }
    if (gain <= 0) return false;
    for (std::size_t i = 0; i < expansions.size(); ++i) {
      const std::uint32_t k = readers_[v][i];
      loops_[k].reads.erase(v);
      loops_[k].copies.insert(expansions[i].copies.begin(), expansions[i].copies.end());
      for (NodeId n : expansions[i].new_reads)
        if (loops_[k].reads.insert(n).second) readers_[n].push_back(k);
    }
    readers_[v].clear();
    return true;
  }

  bool is_stored(NodeId n) const {
    return kept_[n] || !readers_[n].empty() || g_.nodes[n].op == OpId::input || !in_loop(n);
  }

  // Adds to `e` how `loop` would compute n on the way to the value `target`: the cheaper of reading and computing it.
  bool expand(NodeId n, NodeId target, const Loop& loop, Expansion& e) const {
    const auto has = [n](const std::vector<NodeId>& list) {
      return std::find(list.begin(), list.end(), n) != list.end();
    };
    if (n != target) {
      if (loop.reads.contains(n) || loop.copies.contains(n) || has(e.copies) || has(e.new_reads)) return true;
      if (bytes_of(n) * kSmall <= bytes_of(target) && g_.nodes[n].op != OpId::iota) {
        e.new_reads.push_back(n);
        e.bytes += bytes_of(n);
        return true;
      }
    }
    Expansion computed = e;
    const bool possible = in_loop(n) && !is_reduction(g_.nodes[n].op) && expand_inputs(n, target, loop, computed);
    const double elements = static_cast<double>(g_.nodes[target].types[0].shape.numel());
    if (n != target && is_stored(n)) {
      const double reading = e.bytes + bytes_of(n) + e.ops * elements;
      if (!possible || reading <= computed.bytes + computed.ops * elements) {
        e.new_reads.push_back(n);
        e.bytes += bytes_of(n);
        return true;
      }
    }
    if (!possible) return false;
    e = std::move(computed);
    return true;
  }

  bool expand_inputs(NodeId n, NodeId target, const Loop& loop, Expansion& e) const {
    if (g_.nodes[n].types[0].shape.numel() != g_.nodes[target].types[0].shape.numel()) return false;
    e.ops += op_cost(g_.nodes[n].op);
    if (e.ops > kMaxOps) return false;
    for (Value v : g_.nodes[n].inputs) {
      const NodeId base = behind_transparent(g_, v).node;
      if (g_.nodes[base].op == OpId::full) continue;
      if (!expand(base, target, loop, e)) return false;
    }
    e.copies.push_back(n);
    return true;
  }

  // ---- the new graph ----
  Recomputed rebuilt() {
    at_.resize(g_.nodes.size());
    own_.resize(p_.groups.size());
    for (NodeId i = 0; i < g_.nodes.size(); ++i) {
      Node n = g_.nodes[i];
      const std::uint32_t k = is_transparent(g_, i) ? kNoGroup : p_.group_of[i];
      const bool copies = k != kNoGroup && !loops_[k].copies.empty();
      std::vector<NodeId> made;
      for (Value& v : n.inputs) v = copies ? local(v, k, made) : Value{at_[v.node], v.output};
      at_[i] = out_.add(std::move(n));
      tied_.resize(out_.nodes.size(), kNoTie);
      for (NodeId c : made) tied_[c] = at_[i];
    }
    out_.inputs = g_.inputs;
    for (ir::Input& in : out_.inputs) in.node = at_[in.node];
    out_.outputs = g_.outputs;
    for (ir::Output& o : out_.outputs) o.value.node = at_[o.value.node];
    std::vector<NodeId> moved;
    Recomputed r{drop_dead(out_, &moved), {}};
    r.tied.assign(r.graph.nodes.size(), kNoTie);
    for (NodeId i = 0; i < moved.size(); ++i)
      if (moved[i] != kDropped && tied_[i] != kNoTie) r.tied[moved[i]] = moved[tied_[i]];
    return r;
  }

  // v as group k sees it; copies that were missing go to `made`.
  Value local(Value v, std::uint32_t k, std::vector<NodeId>& made) {
    const NodeId base = behind_transparent(g_, v).node;
    if (!loops_[k].copies.contains(base)) return {at_[v.node], v.output};
    if (is_transparent(g_, v.node)) return shown(v, k, made);
    const auto found = own_[k].find(base);
    if (found != own_[k].end()) return {found->second, 0};
    Node n = g_.nodes[base];
    for (Value& x : n.inputs) x = shown(x, k, made);
    const NodeId copy = out_.add(std::move(n));
    tied_.resize(out_.nodes.size(), kNoTie);
    made.push_back(copy);
    own_[k][base] = copy;
    return {copy, 0};
  }
  // Through transparent nodes of its own.
  Value shown(Value v, std::uint32_t k, std::vector<NodeId>& made) {
    if (!is_transparent(g_, v.node)) return local(v, k, made);
    Node n = g_.nodes[v.node];
    for (Value& x : n.inputs) x = shown(x, k, made);
    const NodeId copy = out_.add(std::move(n));
    tied_.resize(out_.nodes.size(), kNoTie);
    return {copy, v.output};
  }

  const Graph& g_;
  const Partition& p_;
  std::size_t worth_bytes_;
  std::vector<bool> kept_;                           // by node
  std::vector<std::vector<std::uint32_t>> readers_;  // by node: loops that read it from memory
  std::vector<Loop> loops_;                          // by group
  Graph out_;
  std::vector<NodeId> at_, tied_;
  std::vector<std::unordered_map<NodeId, NodeId>> own_;  // by group
};

}  // namespace

Recomputed recompute(const Graph& g, const Partition& p, std::size_t worth_bytes) {
  return Recomputer(g, p, worth_bytes).run();
}

}  // namespace bp::passes

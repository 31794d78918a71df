// Bodies of scan and cond.
#include "trace/body.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"

namespace bp::detail {

namespace {
std::uint64_t next_region() noexcept {
  static std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

using Key = std::pair<const Node*, std::uint32_t>;
struct KeyHash {
  std::size_t operator()(const Key& k) const noexcept { return std::hash<const void*>{}(k.first) ^ k.second; }
};
Key key_of(const Tensor& t) { return {t.node().get(), t.output()}; }

class BodyCapture {
 public:
  BodyCapture(std::span<const Tensor> arguments, const Region& region, std::span<const Bound> bound)
      : arguments_(arguments), region_(region) {
    for (std::size_t i = 0; i < arguments.size(); ++i) argument_.try_emplace(key_of(arguments[i]), i);
    for (const Bound& b : bound) bound_.emplace(key_of(b.placeholder), b.value);
  }

  CapturedBody run(std::span<const Tensor> roots) {
    for (const Tensor& t : roots) visit(t);
    while (!stack_.empty()) {
      const Node* n = stack_.back();
      stack_.pop_back();
      for (const Tensor& t : n->inputs) visit(t);
    }
    std::sort(nodes_.begin(), nodes_.end(), [](const Node* a, const Node* b) { return a->serial < b->serial; });
    CapturedBody out;
    for (const Tensor& t : invariants_) {
      add_input(t);
      const auto stands_for = bound_.find(key_of(t));
      out.invariants.push_back(stands_for == bound_.end() ? t : stands_for->second);
    }
    for (const Tensor& t : arguments_) add_input(t);
    for (const Node* n : nodes_) add_node(*n);
    for (const Tensor& t : roots) graph_.outputs.push_back({values_.at(key_of(t)), -1, ""});
    out.used = used_arguments();
    out.body = ir::make_body(std::move(graph_));
    return out;
  }

 private:
  bool inside(const Node& n) const { return n.region >= region_.id(); }
  bool taken_along(const Node& n) const {
    return is_rearrangement(n) && !n.evaluated() && n.serial > region_.first_serial();
  }

  void visit(const Tensor& t) {
    const Node* n = t.node().get();
    if (argument_.count(key_of(t)) != 0) return;
    const bool placeholder = n->op == ir::OpId::input && !n->evaluated() && inside(*n);
    if (placeholder && bound_.count(key_of(t)) == 0)
      fail(ErrorKind::trace, "a value of an enclosing body was read after that body ended");
    if (placeholder || !(inside(*n) || taken_along(*n))) {
      if (known_.insert(key_of(t)).second) invariants_.push_back(t);
    } else if (seen_.insert(n).second) {
      nodes_.push_back(n);
      stack_.push_back(n);
    }
  }

  void add_input(const Tensor& t) {
    const ir::NodeId id = graph_.add({ir::OpId::input, {}, {}, {t.type()}, 0, false});
    const std::shared_ptr<Cell> cell = t.node()->cell.lock();
    graph_.inputs.push_back({id, ir::InputKind::argument, cell ? cell->name : std::string(), {}});
    values_.try_emplace(key_of(t), ir::Value{id, 0});
  }

  void add_node(const Node& n) {
    ir::Node node{n.op, n.attrs, {}, n.types, n.scope, n.backward};
    for (const Tensor& t : n.inputs) node.inputs.push_back(values_.at(key_of(t)));
    const ir::NodeId id = graph_.add(std::move(node));
    for (std::uint32_t k = 0; k < n.types.size(); ++k) values_.try_emplace({&n, k}, ir::Value{id, k});
  }

  std::vector<bool> used_arguments() const {
    const std::vector<std::uint32_t> uses = ir::use_counts(graph_);
    std::vector<bool> used;
    for (std::size_t i = 0; i < arguments_.size(); ++i)
      used.push_back(uses[graph_.inputs[invariants_.size() + i].node] != 0);
    return used;
  }

  std::span<const Tensor> arguments_;
  const Region& region_;
  std::unordered_map<Key, std::size_t, KeyHash> argument_;
  std::unordered_map<Key, Tensor, KeyHash> bound_;
  std::unordered_set<Key, KeyHash> known_;
  std::unordered_set<const Node*> seen_;
  std::vector<Tensor> invariants_;
  std::vector<const Node*> nodes_, stack_;
  std::unordered_map<Key, ir::Value, KeyHash> values_;
  ir::Graph graph_;
};

}  // namespace

Region::Region()
    : id_(next_region()), first_serial_(make_placeholder({}, 0).node()->serial), outer_(thread_state().region) {
  thread_state().region = this;
}
Region::~Region() { thread_state().region = outer_; }

Tensor Region::placeholder(const Type& type) const {
  const ThreadState& thread = thread_state();
  Tensor t = make_placeholder(type, thread.trace != nullptr ? thread.trace->id : 0);
  t.node()->region = id_;
  t.node()->tracked = true;
  return t;
}

CapturedBody capture_body(std::span<const Tensor> roots, std::span<const Tensor> arguments, const Region& region,
                          std::span<const Bound> bound) {
  return BodyCapture(arguments, region, bound).run(roots);
}

std::vector<Tensor> instantiate(const ir::Graph& g, std::span<const Tensor> inputs) {
  ThreadState& thread = thread_state();
  struct Restore {
    ThreadState& thread;
    ir::ScopeId scope;
    bool backward;
    ~Restore() {
      thread.scope = scope;
      thread.backward = backward;
    }
  } restore{thread, thread.scope, thread.backward};
  std::vector<std::vector<Tensor>> values(g.nodes.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) values[g.inputs[i].node] = {inputs[i]};
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i) {
    const ir::Node& n = g.nodes[i];
    if (n.op == ir::OpId::input) continue;
    std::vector<Tensor> in;
    for (ir::Value v : n.inputs) in.push_back(values[v.node][v.output]);
    thread.scope = n.scope;
    thread.backward = n.backward;
    const std::shared_ptr<Node> node = record(n.op, std::move(in), n.attrs);
    for (std::uint32_t k = 0; k < n.types.size(); ++k) values[i].emplace_back(node, k);
  }
  std::vector<Tensor> out;
  for (const ir::Output& o : g.outputs) out.push_back(values[o.value.node][o.value.output]);
  return out;
}

bool is_rearrangement(const Node& n) noexcept {
  switch (n.op) {
    case ir::OpId::full:
    case ir::OpId::iota:
    case ir::OpId::broadcast:
    case ir::OpId::reshape:
    case ir::OpId::transpose: return true;
    default: return false;
  }
}

}  // namespace bp::detail

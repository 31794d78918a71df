// Products that need not wait for the loop. A loop over time multiplies thin slices with the same weights again and
// again; stacked, the slices make one large product (LSTM: x W_ih before the loop, dW = sum h^T dz and dx = dz W_ih^T
// after it).
#include <algorithm>
#include <optional>

#include "ir/body.h"
#include "passes/pipeline.h"
#include "passes/scan.h"

namespace bp::passes {

namespace {

using ir::Attrs;
using ir::Graph;
using ir::Ints;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::ScanLayout;
using ir::Value;

Attrs reshape_to(const Shape& s) { return {{"shape", ir::to_ints(s)}}; }
// The stack over all iterations of a value of the body: an operand of the scan, or one of its outputs.
struct Stack {
  bool slice = true;
  std::size_t index = 0;  // into the slices, or the outputs
};

// What becomes of an output of the scan after the loop.
struct After {
  enum class Kind : std::uint8_t { itself, unchanged, product, outer_sum, column_sum };
  Kind kind = Kind::itself;
  // itself: an output of the new scan. unchanged: a carry that no iteration changes.
  // product: stack(a) x invariant; outer_sum: sum over iterations of a^T b; column_sum: of reduce_sum(a, axes)
  Stack a, b;
  Node op;          // the node of the body
  Value invariant;  // product: outside
};

class ScanRewriter {
 public:
  // `n` with operands in `out`, into which everything is added.
  ScanRewriter(Graph& out, const Node& n, const std::vector<bool>& used)
      : out_(out), node_(n), layout_(n.attrs), body_(ir::body_of(n.attrs)), used_(used) {
    const auto carry = n.inputs.begin() + static_cast<std::ptrdiff_t>(layout_.invariants);
    const auto slice = carry + static_cast<std::ptrdiff_t>(layout_.carries);
    invariants_.assign(n.inputs.begin(), carry);
    carries_.assign(carry, slice);
    slices_.assign(slice, n.inputs.end());
    for (const ir::Input& in : body_.inputs) input_nodes_.push_back(in.node);
  }

  // The values of the old scan's outputs.
  std::vector<Value> run() {
    analyse();
    after_.resize(body_.outputs.size());
    dead_carry_.assign(carries_.size(), false);
    if (!node_.attrs.flag("checkpoint")) {  // stacks for all iterations are what checkpointing avoids
      hoist();
      sink();
    }
    return finish();
  }

 private:
  // ---- what depends on what
  struct Depends {
    bool carry = false, slice = false;
  };
  void analyse() {
    depends_.assign(body_.nodes.size(), {});
    for (std::size_t i = 0; i < input_nodes_.size(); ++i) {
      if (i >= layout_.invariants + carries_.size())
        depends_[input_nodes_[i]].slice = true;
      else if (i >= layout_.invariants)
        depends_[input_nodes_[i]].carry = true;
    }
    for (NodeId i = 0; i < body_.nodes.size(); ++i)
      for (Value v : body_.nodes[i].inputs) {
        depends_[i].carry |= depends_[v.node].carry;
        depends_[i].slice |= depends_[v.node].slice;
      }
    uses_ = ir::use_counts(body_);
  }
  bool is_invariant(Value v) const { return !depends_[v.node].carry && !depends_[v.node].slice; }
  const Type& type(Value v) const { return body_.type(v); }
  bool is(Value v, OpId op) const { return body_.nodes[v.node].op == op; }

  // ---- building outside
  Value add(OpId op, std::vector<Value> in, Attrs attrs, const Node& like) {
    return out_.add_op(op, std::move(in), std::move(attrs), like.scope, like.backward);
  }
  // A value that depends on invariants only, computed outside the loop.
  Value outside(Value v) {
    for (std::size_t i = 0; i < layout_.invariants; ++i)
      if (input_nodes_[i] == v.node) return invariants_[i];
    Node n = body_.nodes[v.node];
    for (Value& in : n.inputs) in = outside(in);
    return {out_.add(std::move(n)), v.output};
  }
  // [T, rows, k] -> [T * rows, k]
  Value rows_of(Value stack, const Node& like) {
    const Shape& s = out_.type(stack).shape;
    return add(OpId::reshape, {stack}, reshape_to({s[0] * s[1], s[2]}), like);
  }
  Value unrows(Value rows, const Node& like) {
    const Shape& s = out_.type(rows).shape;
    return add(OpId::reshape, {rows}, reshape_to({layout_.length, s[0] / layout_.length, s[1]}), like);
  }

  std::optional<std::size_t> slice_of(Value v) const {
    for (std::size_t i = layout_.invariants + carries_.size(); i < input_nodes_.size(); ++i)
      if (input_nodes_[i] == v.node) return i - layout_.invariants - carries_.size();
    return std::nullopt;
  }

  // ---- before the loop
  // The stack of a value that is a slice, or a rearrangement of one.
  std::optional<Value> stacked_slice(Value v) {
    if (const auto i = slice_of(v)) return slices_[*i];
    const Node& n = body_.nodes[v.node];
    if (n.op != OpId::reshape && n.op != OpId::cast) return std::nullopt;
    const std::optional<Value> x = stacked_slice(n.inputs[0]);
    if (!x) return std::nullopt;
    if (n.op == OpId::cast) return add(OpId::cast, {*x}, n.attrs, n);
    return add(OpId::reshape, {*x}, reshape_to(ir::stack_type(layout_.length, n.types[0]).shape), n);
  }

  static bool is_plain_product(const Node& n, const Graph& g) {
    return n.op == OpId::matmul && g.type(n.inputs[0]).shape.rank() == 2 && g.type(n.inputs[1]).shape.rank() == 2 &&
           !n.attrs.flag("transpose_a");
  }

  void hoist() {
    for (NodeId i = 0; i < body_.nodes.size(); ++i) {
      const Node n = body_.nodes[i];
      if (depends_[i].carry || !depends_[i].slice || !is_plain_product(n, body_) || !is_invariant(n.inputs[1]))
        continue;
      const std::optional<Value> x = stacked_slice(n.inputs[0]);
      if (!x) continue;
      Value y = add(OpId::matmul, {rows_of(*x, n), outside(n.inputs[1])}, n.attrs, n);
      NodeId last = i;
      for (std::optional<NodeId> next = bias_add(last); next; next = bias_add(last)) {
        y = add(OpId::add, {y, bias_rows(*next, last, out_.type(y))}, {}, body_.nodes[*next]);
        last = *next;
      }
      y = unrows(y, n);
      become_slice(last, y);
    }
  }

  // The only reader of node i, if it adds a broadcast row that depends on invariants only.
  std::optional<NodeId> bias_add(NodeId i) const {
    if (uses_[i] != 1) return std::nullopt;
    for (NodeId j = i + 1; j < body_.nodes.size(); ++j) {
      const Node& n = body_.nodes[j];
      if (std::none_of(n.inputs.begin(), n.inputs.end(), [&](Value v) { return v.node == i; })) continue;
      if (n.op != OpId::add) return std::nullopt;
      const Value b = n.inputs[n.inputs[0].node == i ? 1 : 0];
      const bool row = is(b, OpId::broadcast) && is_invariant(b) &&
                       type(body_.nodes[b.node].inputs[0]).shape.numel() == n.types[0].shape.back() &&
                       type(body_.nodes[b.node].inputs[0]).shape.rank() > 0 &&
                       type(body_.nodes[b.node].inputs[0]).shape.back() == n.types[0].shape.back();
      return row ? std::optional<NodeId>(j) : std::nullopt;
    }
    return std::nullopt;
  }
  Value bias_rows(NodeId sum, NodeId product, const Type& rows) {
    const Node& n = body_.nodes[sum];
    const Value b = n.inputs[n.inputs[0].node == product ? 1 : 0];
    const Value row = outside(body_.nodes[b.node].inputs[0]);
    const Value flat = add(OpId::reshape, {row}, reshape_to({rows.shape.back()}), n);
    return add(OpId::broadcast, {flat}, {{"shape", ir::to_ints(rows.shape)}}, n);
  }

  // A node of the body becomes an input of it, fed from `stack`.
  void become_slice(NodeId i, Value stack) {
    Node& n = body_.nodes[i];
    n = {OpId::input, {}, {}, {n.types[0]}, n.scope, n.backward};
    input_nodes_.push_back(i);
    slices_.push_back(stack);
    analyse();
  }

  // ---- after the loop
  void sink() {
    const std::size_t count = body_.outputs.size();
    for (std::size_t k = carries_.size(); k < count; ++k) sink_output(k);
    for (std::size_t k = 0; k < carries_.size(); ++k) sink_sum(k, false);
    for (std::size_t k = 0; k < carries_.size(); ++k) sink_sum(k, true);
  }

  // An output y = v x invariant that is nothing else.
  void sink_output(std::size_t k) {
    if (!used_[k]) return;
    const Value y = body_.outputs[k].value;
    const Node& n = body_.nodes[y.node];
    if (!is_plain_product(n, body_) || uses_[y.node] != 1 || is_invariant(n.inputs[0]) || !is_invariant(n.inputs[1]))
      return;
    // Kept instead of y: worth it when it is no larger, or kept anyway.
    const Value v = n.inputs[0];
    if (!find_stack(v) && type(v).shape.numel() > 4 * type(y).shape.numel()) return;
    after_[k] = {After::Kind::product, stack_of(v), {}, n, outside(n.inputs[1])};
    gone_.push_back(k);
  }

  std::optional<Stack> find_stack(Value v) const {
    if (const auto i = slice_of(v)) return Stack{true, *i};
    for (std::size_t k = carries_.size(); k < body_.outputs.size(); ++k)
      if (body_.outputs[k].value == v && std::find(gone_.begin(), gone_.end(), k) == gone_.end())
        return Stack{false, k};
    return std::nullopt;
  }
  Stack stack_of(Value v) {
    if (const auto found = find_stack(v)) {
      if (!found->slice && found->index < used_.size()) used_[found->index] = true;
      ++uses_[v.node];
      return *found;
    }
    body_.outputs.push_back({v, -1, ""});
    ++uses_[v.node];
    return {false, body_.outputs.size() - 1};
  }

  // A carry that only collects: c' = c + f, f a product of two values of the iteration (first), or the sum over the
  // rows of one that is kept anyway (second, when `rows`).
  void sink_sum(std::size_t k, bool rows) {
    if (dead_carry_[k]) return;
    // The carry's only reader is the sum, so f does not depend on it.
    const NodeId carry = input_nodes_[layout_.invariants + k];
    const Value next = body_.outputs[k].value;
    if (next == Value{carry, 0} && uses_[carry] == 1) {
      after_[k].kind = After::Kind::unchanged;
      dead_carry_[k] = true;
      return;
    }
    const Node& sum = body_.nodes[next.node];
    if (sum.op != OpId::add || uses_[carry] != 1 || uses_[next.node] != 1) return;
    const int at = sum.inputs[0].node == carry ? 0 : sum.inputs[1].node == carry ? 1 : -1;
    if (at < 0) return;
    const Value f = sum.inputs[static_cast<std::size_t>(1 - at)];
    const Node& n = body_.nodes[f.node];
    if (!used_[k]) {
      dead_carry_[k] = true;
      return;
    }
    if (!rows && n.op == OpId::matmul && type(n.inputs[0]).shape.rank() == 2 && type(n.inputs[1]).shape.rank() == 2 &&
        n.attrs.flag("transpose_a") && !n.attrs.flag("transpose_b")) {
      const Node copy = n;
      after_[k] = {After::Kind::outer_sum, stack_of(copy.inputs[0]), stack_of(copy.inputs[1]), copy, {}};
    } else if (rows && n.op == OpId::reduce_sum && find_stack(n.inputs[0])) {
      const Node copy = n;
      after_[k] = {After::Kind::column_sum, stack_of(copy.inputs[0]), {}, copy, {}};
    } else {
      return;
    }
    dead_carry_[k] = true;
  }
  // ---- putting it together
  std::vector<Value> finish() {
    std::vector<std::size_t> new_output(body_.outputs.size(), 0);
    Graph body = std::move(body_);  // simplify drops the inputs that it lists no more
    std::vector<ir::Output> outputs;
    std::vector<ir::Input> inputs;
    std::vector<Value> operands;
    const auto add_output = [&](std::size_t k) {
      new_output[k] = outputs.size();
      outputs.push_back(body.outputs[k]);
    };
    std::size_t carries = 0;
    for (std::size_t k = 0; k < carries_.size(); ++k)
      if (!dead_carry_[k]) {
        add_output(k);
        ++carries;
      }
    for (std::size_t k = carries_.size(); k < body.outputs.size(); ++k)
      if ((k >= used_.size() || used_[k]) && std::find(gone_.begin(), gone_.end(), k) == gone_.end()) add_output(k);
    body.outputs = std::move(outputs);
    const std::vector<bool> live = live_nodes(body);
    const auto add_input = [&](std::size_t i, Value operand) {
      inputs.push_back({input_nodes_[i], ir::InputKind::argument, "", {}});
      operands.push_back(operand);
    };
    std::size_t invariants = 0;
    for (std::size_t i = 0; i < layout_.invariants; ++i)
      if (live[input_nodes_[i]]) {
        add_input(i, invariants_[i]);
        ++invariants;
      }
    for (std::size_t k = 0; k < carries_.size(); ++k)
      if (!dead_carry_[k]) add_input(layout_.invariants + k, carries_[k]);
    for (std::size_t j = 0; j < slices_.size(); ++j)
      if (live[input_nodes_[layout_.invariants + carries_.size() + j]])
        add_input(layout_.invariants + carries_.size() + j, slices_[j]);
    body.inputs = std::move(inputs);
    Node n = node_;
    n.inputs = std::move(operands);
    n.attrs.set("body", ir::make_body(simplify(body)));
    n.attrs.set("invariants", static_cast<std::int64_t>(invariants));
    n.attrs.set("carries", static_cast<std::int64_t>(carries));
    std::vector<Type> in;
    for (Value v : n.inputs) in.push_back(out_.type(v));
    n.types = ir::op_def(OpId::scan).infer({in, n.attrs});
    const NodeId scan = out_.add(std::move(n));
    return results(scan, new_output);
  }

  std::vector<Value> results(NodeId scan, const std::vector<std::size_t>& new_output) {
    const auto output = [&](std::size_t k) { return Value{scan, static_cast<std::uint32_t>(new_output[k])}; };
    const auto stack = [&](const Stack& s) { return s.slice ? slices_[s.index] : output(s.index); };
    std::vector<Value> out;
    for (std::size_t k = 0; k < used_.size(); ++k) {
      const After& a = after_[k];
      switch (a.kind) {
        case After::Kind::itself: out.push_back(output(k)); break;
        case After::Kind::unchanged: out.push_back(carries_[k]); break;
        case After::Kind::product:
          out.push_back(unrows(add(OpId::matmul, {rows_of(stack(a.a), a.op), a.invariant}, a.op.attrs, a.op), a.op));
          break;
        case After::Kind::outer_sum: {
          const Value total =
              add(OpId::matmul, {rows_of(stack(a.a), a.op), rows_of(stack(a.b), a.op)}, a.op.attrs, a.op);
          out.push_back(add(OpId::add, {carries_[k], total}, {}, a.op));
          break;
        }
        case After::Kind::column_sum: {
          Ints axes{0};
          for (auto axis : a.op.attrs.ints("axes")) axes.push_back(axis + 1);
          const Value total = add(OpId::reduce_sum, {stack(a.a)}, {{"axes", axes}}, a.op);
          out.push_back(add(OpId::add, {carries_[k], total}, {}, a.op));
          break;
        }
      }
    }
    return out;
  }

  Graph& out_;
  const Node& node_;
  ScanLayout layout_;
  Graph body_;
  std::vector<bool> used_;  // outputs of the old scan that somebody reads
  std::vector<Value> invariants_, carries_, slices_;
  std::vector<NodeId> input_nodes_;  // of the body, in the order of the operands
  std::vector<Depends> depends_;
  std::vector<std::uint32_t> uses_;
  std::vector<After> after_;
  std::vector<bool> dead_carry_;
  std::vector<std::size_t> gone_;  // outputs that the loop no longer writes
};

}  // namespace

Graph hoist_and_sink(const Graph& g) {
  std::vector<std::vector<bool>> used(g.nodes.size());
  for (NodeId i = 0; i < g.nodes.size(); ++i) used[i].assign(g.nodes[i].types.size(), false);
  for (const Node& n : g.nodes)
    for (Value v : n.inputs) used[v.node][v.output] = true;
  for (const ir::Output& o : g.outputs) used[o.value.node][o.value.output] = true;
  Graph out;
  std::vector<std::vector<Value>> map(g.nodes.size());
  const auto mapped = [&](Value v) { return map[v.node][v.output]; };
  for (NodeId i = 0; i < g.nodes.size(); ++i) {
    Node n = g.nodes[i];
    for (Value& v : n.inputs) v = mapped(v);
    if (n.op == OpId::scan && n.attrs.integer("length") > 0) {
      map[i] = ScanRewriter(out, n, used[i]).run();
      continue;
    }
    const NodeId id = out.add(std::move(n));
    for (std::uint32_t k = 0; k < out.nodes[id].types.size(); ++k) map[i].push_back({id, k});
  }
  out.inputs = g.inputs;
  for (ir::Input& in : out.inputs) in.node = map[in.node][0].node;
  for (const ir::Output& o : g.outputs) out.outputs.push_back({mapped(o.value), o.updates, o.name});
  return out;
}

}  // namespace bp::passes

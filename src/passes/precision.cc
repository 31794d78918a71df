// Mixed precision: products of f32 values read bf16 and add up in f32. Micikevicius et al., "Mixed Precision Training"
// (ICLR 2018); Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training" (2019).
//
// What a product reads is rounded to bf16 once, where it is made, and kept as bf16 only: whoever else reads it (the
// gradient of the ReLU that made it, the residual it is added to) sees the rounded number, so that saved activations
// take half the memory. Everything that no product reads stays f32: statistics, losses, normalised residual streams,
// weights, moments and what goes into them. The results of products are bf16 on their way to other products, and f32
// where they end in a state or are finished by an epilogue.
#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "ir/body.h"
#include "passes/epilogue.h"
#include "passes/pipeline.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::ScanLayout;
using ir::Value;

bool is_product(const Graph& g, NodeId n) {
  return g.def(n).cls == ir::OpClass::product && g.nodes[n].types[0].dtype == f32;
}

// Attention multiplies too, and adds up in f32: the operands that it reads in bf16. Its logarithms and masks stay f32.
bool is_attention(const Node& n) {
  return (n.op == OpId::attention || n.op == OpId::attention_grad) && n.types[0].dtype == f32;
}
bool is_factor(const Node& n, std::size_t input) {
  return input < 3 || (n.op == OpId::attention_grad && (input == 3 || input == 5));
}

// Moves numbers without changing them: done on bf16 where its operands are.
bool moves(OpId op) {
  return op == OpId::reshape || op == OpId::transpose || op == OpId::slice || op == OpId::reverse ||
         op == OpId::concatenate;
}

// How the operands and results of a graph are handed over: the graph itself keeps its types, the body of a scan takes
// and gives bf16 where both sides agree.
struct Boundary {
  std::vector<bool> inputs, outputs;  // by position: bf16
};

// By input of a body: products are all that reads it, behind movements perhaps.
std::vector<bool> read_by_products_only(const Graph& body) {
  std::vector<bool> products(body.nodes.size(), false), others(body.nodes.size(), false);
  for (const ir::Output& o : body.outputs) others[o.value.node] = true;
  for (NodeId i = static_cast<NodeId>(body.nodes.size()); i-- > 0;) {
    const Node& n = body.nodes[i];
    const bool passes_on = moves(n.op) && n.inputs.size() == 1;
    for (Value v : n.inputs) {
      products[v.node] = products[v.node] || (passes_on ? products[i] : is_product(body, i));
      others[v.node] = others[v.node] || (passes_on ? others[i] : !is_product(body, i));
    }
  }
  std::vector<bool> out;
  for (const ir::Input& in : body.inputs) out.push_back(products[in.node] && !others[in.node]);
  return out;
}

// The operands of a scan that its body needs in bf16 only. Carries keep their type.
std::vector<std::size_t> narrow_operands(const Node& scan) {
  const ScanLayout layout(scan.attrs);
  const std::vector<bool> only = read_by_products_only(ir::body_of(scan.attrs));
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < scan.inputs.size(); ++i)
    if (only[i] && (i < layout.invariants || i >= layout.first_slice())) out.push_back(i);
  return out;
}

// What becomes of each value, decided before anything is rewritten.
class Analysis {
 public:
  Analysis(const Graph& g, const Boundary& boundary)
      : g_(g), rounded_(g.nodes.size()), reaches_(g.nodes.size(), false), held_(g.nodes.size(), false) {
    for (NodeId i = 0; i < g.nodes.size(); ++i) rounded_[i].assign(g.nodes[i].types.size(), false);
    for (std::size_t i = 0; i < g.outputs.size(); ++i)
      if (!boundary.outputs[i]) fixed_.insert(g.outputs[i].value);
    find_epilogues();
    for (NodeId i = static_cast<NodeId>(g.nodes.size()); i-- > 0;) visit(i);
    for (std::size_t i = 0; i < g.outputs.size(); ++i)
      if (boundary.outputs[i]) round(g.outputs[i].value);
  }

  bool rounded(Value v) const { return rounded_[v.node][v.output]; }
  // Whether a product's result goes on to other products.
  bool reaches_product(NodeId n) const { return reaches_[n]; }
  bool has_epilogue(NodeId n) const { return held_[n]; }
  // Attention whose results go on to products works on bf16.
  bool is_narrow_attention(NodeId n) const { return is_attention(g_.nodes[n]) && reaches_[n]; }

 private:
  // A product with a bias, residual or activation is finished in f32 before it is stored.
  void find_epilogues() {
    Partition p = singletons(g_);
    attach_epilogues(g_, p);
    for (const Group& group : p.groups)
      if (group.nodes.size() > 1 && group.kind == Group::Kind::product) held_[group.nodes[0]] = true;
  }

  void visit(NodeId i) {
    const Node& n = g_.nodes[i];
    const bool product = is_product(g_, i), attention = is_narrow_attention(i);
    for (std::size_t k = 0; k < n.inputs.size(); ++k) {
      const Value v = n.inputs[k];
      reaches_[v.node] = reaches_[v.node] || product || reaches_[i];
      if (product || (moves(n.op) && rounded_[i][0]) || (attention && is_factor(n, k))) round(v);
    }
    if (n.op == OpId::scan)
      for (std::size_t at : narrow_operands(n)) {
        reaches_[n.inputs[at].node] = true;
        round(n.inputs[at]);
      }
  }

  void round(Value v) {
    const Node& n = g_.nodes[v.node];
    if (n.types[v.output].dtype != f32 || n.inputs.empty()) return;
    if (fixed_.contains(v)) return;
    rounded_[v.node][v.output] = true;
  }

  const Graph& g_;
  std::vector<std::vector<bool>> rounded_;  // by node and output: kept as bf16 only
  std::vector<bool> reaches_, held_;        // by node
  std::unordered_set<Value> fixed_;         // results of the graph: f32 as they were
};

class Rewriter {
 public:
  Rewriter(const Graph& g, const Boundary& boundary)
      : g_(g), boundary_(boundary), analysis_(g, boundary), forms_(g.nodes.size()) {}

  Graph run() {
    std::vector<std::size_t> input_at(g_.nodes.size(), 0);
    for (std::size_t i = 0; i < g_.inputs.size(); ++i) input_at[g_.inputs[i].node] = i;
    for (NodeId i = 0; i < g_.nodes.size(); ++i) {
      forms_[i].resize(g_.nodes[i].types.size());
      if (g_.nodes[i].op == OpId::input)
        take_input(i, boundary_.inputs[input_at[i]]);
      else
        visit(i);
    }
    out_.inputs = g_.inputs;
    for (ir::Input& in : out_.inputs) in.node = new_input_[in.node];
    for (std::size_t i = 0; i < g_.outputs.size(); ++i) {
      const ir::Output& o = g_.outputs[i];
      out_.outputs.push_back({boundary_.outputs[i] ? narrow(o.value) : plain(o.value, g_.nodes[o.value.node].backward),
                              o.updates, o.name});
    }
    return std::move(out_);
  }

 private:
  // A value as it was, as the forward and the backward pass read it (widened once for each, so that no f32 copy lives
  // from one to the other), and as bf16.
  struct Forms {
    std::array<std::optional<Value>, 2> plain;
    std::optional<Value> narrow;
  };

  Forms& forms(Value v) { return forms_[v.node][v.output]; }
  Value cast(Value v, DType to, const Node& like, bool backward) {
    return out_.add_op(OpId::cast, {v}, {{"dtype", to}}, like.scope, backward);
  }
  Value plain(Value v, bool backward) {
    std::optional<Value>& form = forms(v).plain[backward ? 1 : 0];
    if (!form) form = cast(*forms(v).narrow, f32, g_.nodes[v.node], backward);
    return *form;
  }
  Value narrow(Value v) {
    Forms& f = forms(v);
    if (!f.narrow) f.narrow = cast(*f.plain[0], bf16, g_.nodes[v.node], g_.nodes[v.node].backward);
    return *f.narrow;
  }
  void set_plain(Value v, Value made) {
    forms(v).plain = {made, made};
    if (!analysis_.rounded(v)) return;
    const Value rounded = narrow(v);
    forms(v) = {{}, rounded};
  }

  void take_input(NodeId i, bool as_bf16) {
    Node n = g_.nodes[i];
    if (as_bf16) n.types[0].dtype = bf16;
    new_input_[i] = out_.add(std::move(n));
    const Value v{new_input_[i], 0};
    forms_[i][0] = as_bf16 ? Forms{{}, v} : Forms{{v, v}, {}};
  }

  void visit(NodeId i) {
    const Node& n = g_.nodes[i];
    if (is_product(g_, i)) return visit_product(i);
    if (n.op == OpId::scan) return visit_scan(i);
    if (analysis_.is_narrow_attention(i)) return visit_attention(i);
    if (moves(n.op) && n.types[0].dtype == f32 &&
        std::all_of(n.inputs.begin(), n.inputs.end(), [&](Value v) { return !forms(v).plain[0] && forms(v).narrow; })) {
      std::vector<Value> in;
      for (Value v : n.inputs) in.push_back(narrow(v));
      forms({i, 0}).narrow = out_.add_op(n.op, std::move(in), n.attrs, n.scope, n.backward);
      return;
    }
    Node copy = n;
    for (Value& v : copy.inputs) v = plain(v, n.backward);
    const NodeId made = out_.add(std::move(copy));
    for (std::uint32_t k = 0; k < n.types.size(); ++k) set_plain({i, k}, {made, k});
  }

  void visit_product(NodeId i) {
    const Node& n = g_.nodes[i];
    std::vector<Value> in;
    for (Value v : n.inputs) in.push_back(narrow(v));
    const bool wide = analysis_.has_epilogue(i) || !analysis_.reaches_product(i);
    ir::Attrs attrs = n.attrs;
    if (wide) attrs.set("result", f32);
    const Value made = out_.add_op(n.op, std::move(in), std::move(attrs), n.scope, n.backward);
    if (wide)
      set_plain({i, 0}, made);
    else
      forms({i, 0}).narrow = made;
  }

  void visit_attention(NodeId i) {
    const Node& n = g_.nodes[i];
    std::vector<Value> in;
    for (std::size_t k = 0; k < n.inputs.size(); ++k)
      in.push_back(is_factor(n, k) ? narrow(n.inputs[k]) : plain(n.inputs[k], n.backward));
    const NodeId made = out_.add_op(n.op, std::move(in), n.attrs, n.scope, n.backward).node;
    for (std::uint32_t k = 0; k < n.types.size(); ++k) {
      if (out_.type({made, k}).dtype == bf16)
        forms({i, k}).narrow = Value{made, k};
      else
        set_plain({i, k}, {made, k});
    }
  }

  void visit_scan(NodeId i) {
    const Node& n = g_.nodes[i];
    const Graph& body = ir::body_of(n.attrs);
    const ScanLayout layout(n.attrs);
    Boundary inside{std::vector<bool>(n.inputs.size(), false), std::vector<bool>(body.outputs.size(), false)};
    for (std::size_t at : narrow_operands(n)) inside.inputs[at] = g_.type(n.inputs[at]).dtype == f32;
    for (std::size_t at = layout.first_slice(); at < n.inputs.size(); ++at)
      if (!forms(n.inputs[at]).plain[0]) inside.inputs[at] = true;  // kept as bf16: sliced as such
    for (std::size_t k = layout.carries; k < body.outputs.size(); ++k)
      inside.outputs[k] = analysis_.rounded({i, static_cast<std::uint32_t>(k)});
    std::vector<Value> in;
    for (std::size_t at = 0; at < n.inputs.size(); ++at)
      in.push_back(inside.inputs[at] ? narrow(n.inputs[at]) : plain(n.inputs[at], n.backward));
    ir::Attrs attrs = n.attrs;
    attrs.set("body", ir::make_body(simplify(Rewriter(body, inside).run())));
    const NodeId made = out_.add_op(OpId::scan, std::move(in), std::move(attrs), n.scope, n.backward).node;
    for (std::uint32_t k = 0; k < n.types.size(); ++k) {
      if (inside.outputs[k])
        forms({i, k}).narrow = Value{made, k};
      else
        set_plain({i, k}, {made, k});
    }
  }

  const Graph& g_;
  const Boundary& boundary_;
  const Analysis analysis_;
  Graph out_;
  std::vector<std::vector<Forms>> forms_;  // by node and output
  std::unordered_map<NodeId, NodeId> new_input_;
};

}  // namespace

ir::Graph lower_precision(const ir::Graph& g) {
  const Boundary as_it_was{std::vector<bool>(g.inputs.size(), false), std::vector<bool>(g.outputs.size(), false)};
  return simplify(Rewriter(g, as_it_was).run());
}

}  // namespace bp::passes

// Following the batch through a loop's body, op by op.
#include "passes/batch_rows.h"

#include <algorithm>
#include <utility>

namespace bp::passes {

namespace {

using ir::Attrs;
using ir::Graph;
using ir::Ints;
using ir::Node;
using ir::NodeId;
using ir::OpClass;
using ir::OpId;

class BatchFinder {
 public:
  BatchFinder(const Graph& body, std::int64_t rows) : body_(body), found_{rows, std::vector<bool>(body.nodes.size())} {}

  std::optional<BatchAxis> run(const ir::ScanLayout& layout) {
    std::vector<bool> is_input(body_.nodes.size(), false), may_lead(body_.nodes.size(), false);
    for (std::size_t i = 0; i < body_.inputs.size(); ++i) {
      const NodeId n = body_.inputs[i].node;
      is_input[n] = true;
      may_lead[n] = body_.inputs[i].kind != ir::InputKind::constant && leads(n);
      // Carries and slices as long as the batch are taken for it; invariants only where they meet it.
      found_.along[n] = i >= layout.invariants && may_lead[n];
      if (i >= layout.invariants && i < layout.first_slice() && !found_.along[n]) return std::nullopt;
    }
    bool again = true;
    while (again) {
      again = false;
      for (NodeId n = 0; n < body_.nodes.size(); ++n) {
        if (is_input[n]) continue;
        const std::optional<bool> along = follow(n);
        if (along) {
          found_.along[n] = *along;
          continue;
        }
        // What is the same for all samples elsewhere may hold a row for each.
        for (ir::Value v : body_.nodes[n].inputs)
          if (may_lead[v.node] && !found_.along[v.node]) found_.along[v.node] = again = true;
        if (!again) return std::nullopt;
        break;
      }
    }
    for (const ir::Output& o : body_.outputs)
      if (!found_.along[o.value.node]) return std::nullopt;
    return std::move(found_);
  }

 private:
  // Whether axis 0 is as long as the batch.
  bool leads(NodeId n) const {
    const std::vector<Type>& types = body_.nodes[n].types;
    return types.size() == 1 && types[0].shape.rank() > 0 && types[0].shape[0] == found_.rows;
  }
  bool along(const Node& n, std::size_t i) const { return found_.along[n.inputs[i].node]; }
  bool all_along(const Node& n) const {
    return std::all_of(n.inputs.begin(), n.inputs.end(), [&](ir::Value v) { return found_.along[v.node]; });
  }
  const Shape& shape(const Node& n, std::size_t i) const { return body_.type(n.inputs[i]).shape; }

  // Whether axis 0 of the result is the batch; nullopt: samples meet, or the op is not known.
  std::optional<bool> follow(NodeId id) const {
    const Node& n = body_.nodes[id];
    const bool any = std::any_of(n.inputs.begin(), n.inputs.end(), [&](ir::Value v) { return found_.along[v.node]; });
    const std::uint32_t flags = ir::op_def(n.op).flags;
    if ((flags & ir::kImpure) != 0) return std::nullopt;
    if (!any) return repeats_rows(id);
    if (leads(id) && keeps_rows(n)) return true;
    return std::nullopt;
  }

  // Values without a sample in them are the same in each row where a row is made by repetition.
  bool repeats_rows(NodeId id) const {
    const Node& n = body_.nodes[id];
    if (!leads(id)) return false;
    if (n.op == OpId::full) return true;
    return n.op == OpId::broadcast && (shape(n, 0).rank() < n.types[0].shape.rank() || shape(n, 0)[0] == 1);
  }

  // Given operands along the batch: row i of the result follows from row i of these and from the others.
  bool keeps_rows(const Node& n) const {
    switch (n.op) {
      case OpId::reshape: return shape(n, 0)[0] == found_.rows;
      case OpId::transpose: return n.attrs.ints("permutation")[0] == 0;
      case OpId::broadcast: return shape(n, 0).rank() == n.types[0].shape.rank();
      case OpId::slice: return true;  // as long as the batch: all rows
      case OpId::pad: return n.attrs.ints("low")[0] == 0 && n.attrs.ints("interior")[0] == 0;
      case OpId::concatenate: return all_along(n);
      case OpId::reverse: return is_free_of_rows(n.attrs.ints("axes"));
      case OpId::gather: return n.attrs.integer("axis") == 0 && !along(n, 0) && along(n, 1);
      case OpId::matmul: return keeps_rows_of_product(n);
      default: break;
    }
    const OpClass cls = ir::op_def(n.op).cls;
    if (cls == OpClass::elementwise) return all_along(n);
    return cls == OpClass::reduction && n.attrs.has("axes") && is_free_of_rows(n.attrs.ints("axes"));
  }
  static bool is_free_of_rows(const Ints& axes) { return std::find(axes.begin(), axes.end(), 0) == axes.end(); }
  // Rows of a matrix times a matrix of all samples, or a matrix for each sample.
  bool keeps_rows_of_product(const Node& n) const {
    const int rank = shape(n, 0).rank();
    if (!along(n, 0)) return false;
    if (rank == 2) return !n.attrs.flag("transpose_a") && !along(n, 1) && shape(n, 1).rank() == 2;
    return along(n, 1) ? shape(n, 1).rank() == rank : shape(n, 1).rank() == 2;
  }

  const Graph& body_;
  BatchAxis found_;
};

// The attributes that hold the length of axis 0.
void set_rows(Node& n, std::int64_t rows) {
  const auto set = [&](const char* name) {
    Ints lengths = n.attrs.ints(name);
    lengths[0] = rows;
    n.attrs.set(name, std::move(lengths));
  };
  if (n.op == OpId::reshape || n.op == OpId::broadcast || n.op == OpId::full) set("shape");
  if (n.op == OpId::slice) set("stop");
  n.types[0].shape[0] = rows;
}

}  // namespace

std::optional<BatchAxis> find_batch(const Graph& body, const ir::ScanLayout& layout) {
  if (layout.carries == 0) return std::nullopt;
  const Shape& first = body.nodes[body.inputs[layout.invariants].node].types[0].shape;
  if (first.rank() == 0) return std::nullopt;
  return BatchFinder(body, first[0]).run(layout);
}

Graph with_rows(const Graph& body, const BatchAxis& batch, std::int64_t rows) {
  Graph out = body;
  for (NodeId n = 0; n < out.nodes.size(); ++n)
    if (batch.along[n]) set_rows(out.nodes[n], rows);
  return out;
}

}  // namespace bp::passes

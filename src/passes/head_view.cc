// Strides of heads through reshapes, slices and concatenates.
#include "passes/head_view.h"

#include <algorithm>
#include <array>
#include <optional>

#include "passes/loop_space.h"

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::Value;

// A walk over [B, T, H, D] in a row-major tensor.
struct Walk {
  std::array<std::int64_t, 4> counts, strides;
  std::int64_t offset = 0;

  // The same elements where each axis of the tensor, whose shape is `shape`, lies `steps` apart in a larger one. False
  // where a stride crosses axes.
  bool place(const Shape& shape, const Shape& steps) {
    const Shape own = row_major_strides(shape);
    std::int64_t at = 0;
    for (int i = 0; i < shape.rank(); ++i) at += offset / own[i] % shape[i] * steps[i];
    for (std::size_t d = 0; d < 4; ++d) {
      if (counts[d] == 1) continue;
      const int axis = axis_of(shape, strides[d], counts[d]);
      if (axis < 0) return false;
      strides[d] = strides[d] / own[axis] * steps[axis];
    }
    offset = at;
    return true;
  }
  HeadView view(Value base) const { return {base, offset, strides[0], strides[1], strides[2]}; }
};

Walk dense(const Shape& heads) {
  const Shape s = row_major_strides(heads);
  return {{heads[0], heads[1], heads[2], heads[3]}, {s[0], s[1], s[2], s[3]}};
}

bool before_slice(const Graph& g, const Node& n, Walk& w) {
  const ir::Ints &start = n.attrs.ints("start"), &step = n.attrs.ints("step");
  const Shape in = row_major_strides(g.type(n.inputs[0]).shape);
  Shape steps = in;
  std::int64_t first = 0;
  for (int i = 0; i < in.rank(); ++i) {
    const auto k = static_cast<std::size_t>(i);
    first += start[k] * in[i];
    steps[i] *= step[k];
  }
  if (!w.place(n.types[0].shape, steps)) return false;
  w.offset += first;
  return w.strides[3] == 1;
}

}  // namespace

HeadView head_view(const Graph& g, Value v, const std::function<bool(NodeId)>& seen_through) {
  Walk w = dense(g.type(v).shape);
  HeadView last = w.view(v);
  if (g.type(v).shape.numel() == 0) return last;
  while (seen_through(v.node)) {
    const Node& n = g.nodes[v.node];
    if (n.op == OpId::slice ? !before_slice(g, n, w) : n.op != OpId::reshape) break;
    v = n.inputs[0];
    last = w.view(v);
  }
  return last;
}

bool is_head_operand(const Graph& g, NodeId n, std::size_t input) {
  return input < 3 && (g.nodes[n].op == OpId::attention || g.nodes[n].op == OpId::attention_grad);
}

JoinedHeads joined_heads(const Graph& g, NodeId concatenate, const std::vector<std::uint32_t>& uses) {
  const Node& n = g.nodes[concatenate];
  if (n.op != OpId::concatenate || n.inputs.size() != 3 || n.types[0].shape.numel() == 0) return {};
  const int axis = static_cast<int>(n.attrs.integer("axis"));
  const Shape steps = row_major_strides(n.types[0].shape);
  JoinedHeads out;
  std::array<std::optional<HeadView>, 3> views;
  std::optional<NodeId> source;
  std::int64_t first = 0;
  for (Value v : n.inputs) {
    const Shape& part = g.type(v).shape;
    while (g.nodes[v.node].op == OpId::reshape && uses[v.node] == 1) {
      out.nodes.push_back(v.node);
      v = g.nodes[v.node].inputs[0];
    }
    if (g.nodes[v.node].op != OpId::attention_grad || source.value_or(v.node) != v.node || views[v.output]) return {};
    source = v.node;
    Walk w = dense(g.type(v).shape);
    if (part.numel() == 0 || !w.place(part, steps) || w.strides[3] != 1) return {};
    w.offset += first;
    first += part[axis] * steps[axis];
    views[v.output] = w.view({concatenate, 0});
  }
  if (uses[*source] != 3) return {};
  out.gradient = *source;
  std::sort(out.nodes.begin(), out.nodes.end());
  out.nodes.push_back(concatenate);
  out.dq = *views[0], out.dk = *views[1], out.dv = *views[2];
  return out;
}

}  // namespace bp::passes

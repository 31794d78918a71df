// Where attention finds its operands and leaves its gradients: heads [B, T, H, D] that lie in a larger tensor, behind
// reshapes and slices or before a concatenate, so that nothing is copied. Asked by the fuse pass and by lowering.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "ir/graph.h"

namespace bp::passes {

// Elements from one batch entry, token and head to the next, in the memory of `base`; those of a head lie side by side.
struct HeadView {
  ir::Value base;
  std::int64_t offset = 0;  // of the first element
  std::int64_t batch = 0, token = 0, head = 0;
};

// v, [B, T, H, D], in the memory of what stands behind the reshapes and slices for which `seen_through` holds; of v
// itself where that is no such view.
HeadView head_view(const ir::Graph& g, ir::Value v, const std::function<bool(ir::NodeId)>& seen_through);

// Whether an operand may be such a view: q, k and v of attention and of its gradient.
bool is_head_operand(const ir::Graph& g, ir::NodeId n, std::size_t input);

// A concatenate of dq, dk and dv, in any order, that is all that reads them, and how they lie in its result.
struct JoinedHeads {
  ir::NodeId gradient = 0;
  std::vector<ir::NodeId> nodes;  // the reshapes between, the concatenate last; empty: there is none
  HeadView dq, dk, dv;
};
JoinedHeads joined_heads(const ir::Graph& g, ir::NodeId concatenate, const std::vector<std::uint32_t>& uses);

}  // namespace bp::passes

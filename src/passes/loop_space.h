// LoopSpace: how the nodes of a loop group lie over one rows x columns space. The fuse pass asks whether they do at
// all; lowering writes the loop from the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ir/graph.h"

namespace bp::passes {

// Steps of a row-major tensor's linear index along each dimension of the space; 0: it does not vary with it.
using Strides = std::vector<std::int64_t>;

// What an operand of a member is, seen through reshapes, broadcasts and slices.
struct LoopRead {
  enum class Kind : std::uint8_t {
    member,    // a value of the group
    memory,    // `value`, at `strides`
    constant,  // the same number everywhere
    column,    // the index of the column: iota
  };
  Kind kind = Kind::memory;
  ir::Value value;
  double constant = 0;
  Strides strides;
  std::int64_t offset = 0;  // of the first element of the space, in elements of `value`
};

struct LoopMember {
  enum class Kind : std::uint8_t { element, row_reduction, column_reduction };
  ir::NodeId node = 0;
  Kind kind = Kind::element;
  Strides strides;  // of the result
  std::vector<LoopRead> reads;
};

// A concatenate of values of the group: each is stored where its part lies, and nothing is copied.
struct LoopJoin {
  struct Part {
    ir::NodeId member = 0;
    Strides strides;  // in the concatenated tensor
    std::int64_t offset = 0;
  };
  ir::NodeId concatenate = 0;
  std::vector<Part> parts;
};

struct LoopSpace {
  // Adjacent dimensions that all operands walk alike are one. The last is the columns, the others are the rows.
  std::vector<std::int64_t> dims;
  std::int64_t rows = 1, cols = 1;
  DType compute = DType::f32;
  std::vector<LoopMember> members;  // in topological order
  std::vector<LoopJoin> joins;
  const LoopMember* find(ir::NodeId n) const;
};

// The axis of a row-major shape along which a step of `stride`, taken `count` times, stays; -1 when it crosses axes.
int axis_of(const Shape& shape, std::int64_t stride, std::int64_t count);
bool is_reduction(ir::OpId op);  // over axes; argmax and cumsum are none
// Nodes that loops look through instead of reading them from memory: reshape, broadcast, full, and slices of long runs
// that are no small part of their operand.
bool is_transparent(const ir::Graph& g, ir::NodeId n);
// Whether a loop can compute the node, by its op and dtypes.
bool is_loop_op(const ir::Graph& g, ir::NodeId n);
// The first value behind transparent nodes (a full among them).
ir::Value behind_transparent(const ir::Graph& g, ir::Value v);

// `nodes` in topological order; transparent ones among them are looked through, unless there is nothing else, and
// concatenates join what the others compute. No answer when the nodes do not share a space, or depend on each other
// across what a loop can do.
std::optional<LoopSpace> loop_space(const ir::Graph& g, std::span<const ir::NodeId> nodes);

}  // namespace bp::passes

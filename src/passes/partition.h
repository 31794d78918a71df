// Partition: which nodes of a graph are computed together. Written by the fuse pass, read by schedule and lowering.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/graph.h"

namespace bp::passes {

inline constexpr std::uint32_t kNoGroup = ~0u;

struct Group {
  enum class Kind : std::uint8_t {
    single,   // one node, by its own kernel; attention_grad perhaps with the concatenate that it writes into
    loop,     // a fused loop: elementwise, broadcasts, row reductions, column accumulators, concatenates of its values
    product,  // a matmul or convolution with its epilogue; nodes[0] is the product
  };
  Kind kind = Kind::single;
  std::vector<ir::NodeId> nodes;       // in topological order
  std::vector<ir::Value> stores = {};  // written though nobody else may read them
};

// Inputs and views (reshape) belong to no group: they are other names of memory. A view inside a loop may belong to it.
struct Partition {
  std::vector<Group> groups;            // in an order in which they can run
  std::vector<std::uint32_t> group_of;  // by node
};

// Every node by itself: what the fuse pass starts from, and what runs with the pass switched off.
Partition singletons(const ir::Graph& g);

// By group: its values that others read, or that leave the graph, or that it stores anyway: what it must
// write to memory.
std::vector<std::vector<ir::Value>> all_group_results(const ir::Graph& g, const Partition& p);

// The value whose memory v names: behind views, and behind the transparent nodes that vanished into loops.
ir::Value behind_views(const ir::Graph& g, const Partition& p, ir::Value v);

// Throws std::logic_error when a node is in two groups, or the order of the groups cannot run.
void verify(const ir::Graph& g, const Partition& p);

}  // namespace bp::passes

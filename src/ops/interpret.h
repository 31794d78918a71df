// The reference interpreter: runs a graph node by node with the scalar kernels. The oracle of every optimised
// executable.
#pragma once

#include <span>
#include <vector>

#include "ir/graph.h"

namespace bp::ops {

// `inputs`: one pointer an entry of g.inputs (constants included). Returns the graph's outputs.
std::vector<Buffer> interpret(const ir::Graph& g, std::span<const void* const> inputs);
// All values of the graph, for finding where a NaN began. Indexed by node, then output.
std::vector<std::vector<Buffer>> interpret_all(const ir::Graph& g, std::span<const void* const> inputs);

}  // namespace bp::ops

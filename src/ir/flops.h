// The work of a node by its op's rule, for explain, profiles and the rules of loops.
#pragma once

#include "ir/graph.h"

namespace bp::ir {

// OpDef::flops, or one an element for elementwise ops without a rule.
double node_flops(const Graph& g, const Node& n);
double graph_flops(const Graph& g);  // the sum over all nodes

}  // namespace bp::ir

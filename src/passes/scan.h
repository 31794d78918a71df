// The pass "scan": what happens to loops between tracing and fusing. Called by the pipeline.
#pragma once

#include "ir/graph.h"

namespace bp::passes {

// Scans over the same carries and length become one, when one's carries are computed as the other's: the forward loop,
// and the same loop recorded again by the gradient with what it keeps.
ir::Graph merge_scans(const ir::Graph& g);

// In every scan: products of slices with invariants leave the loop before it, products of what the loop computes with
// invariants and sums of products over the iterations after it, each as one large product. Outputs and operands that
// nobody reads are dropped.
ir::Graph hoist_and_sink(const ir::Graph& g);

}  // namespace bp::passes

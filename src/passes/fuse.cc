// Grouping nodes that are computed together.
#include "passes/pipeline.h"

namespace bp::passes {

Partition fuse(const ir::Graph& g) { return singletons(g); }

}  // namespace bp::passes

// Grouping nodes that are computed together.
#include "passes/epilogue.h"
#include "passes/pipeline.h"

namespace bp::passes {

Partition fuse(const ir::Graph& g) {
  Partition p = singletons(g);
  attach_epilogues(g, p);
  return p;
}

}  // namespace bp::passes

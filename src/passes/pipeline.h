// The pipeline: the passes in their order, each timed, verified after, and able to be switched off by name.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/partition.h"

namespace bp::passes {

struct PipelineOptions {
  std::vector<std::string> disable;  // "simplify", "scan", "fuse", "schedule"
  bool keep_text = false;            // records the graph after each pass for explain()
};

struct PassRecord {
  std::string name;
  double seconds = 0;
  std::string text;
};

struct Optimised {
  ir::Graph graph;
  Partition partition;
  std::vector<PassRecord> passes;
};

// Throws Error(config) for an unknown name in `disable`.
Optimised run_pipeline(ir::Graph g, const PipelineOptions& options);

// The passes, one a file.
ir::Graph simplify(const ir::Graph& g);  // folds constants, merges equal nodes, drops dead ones, cancels inverse pairs
ir::Graph split_transparent(const ir::Graph& g);  // a loop's own broadcasts and fills; part of fuse
Partition fuse(const ir::Graph& g);               // groups nodes that are computed together
void schedule(const ir::Graph& g,
              Partition& p);  // orders groups: states are overwritten after their last reader, memory is freed early

}  // namespace bp::passes

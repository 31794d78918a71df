// The pipeline: the passes in their order, each timed, verified after, and able to be switched off by name.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/partition.h"

namespace bp::passes {

// The names of the passes, in their order.
const std::vector<std::string>& pass_names();

// A memory budget, and what a step is planned to take. budget 0: there is none.
struct RematOptions {
  std::size_t budget = 0;
  std::function<std::size_t(const ir::Graph&, const Partition&)> planned_bytes = {};
};

struct PipelineOptions {
  std::vector<std::string> disable = {};     // of pass_names()
  DType precision = DType::f32;              // bf16: products of f32 values read bf16
  std::size_t recompute_bytes = 128 * 1024;  // smaller values stay in cache: no loop computes them again
  bool keep_text = false;                    // records the graph after each pass for explain()
  RematOptions remat = {};
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

// Throws Error(config) for an unknown name in `disable`, and for a budget that cannot be met.
Optimised run_pipeline(ir::Graph g, const PipelineOptions& options);

// The passes, one a file.
ir::Graph simplify(const ir::Graph& g);  // folds constants, merges equal nodes, drops dead ones, cancels inverse pairs
ir::Graph lower_precision(const ir::Graph& g);    // products of f32 values read bf16 and add up in f32
ir::Graph split_transparent(const ir::Graph& g);  // a loop's own broadcasts and fills; part of fuse
// Groups nodes that are computed together. `tied` (by node; kNoTie: free): a node that shares the group of its one
// user.
inline constexpr ir::NodeId kNoTie = ~0u;
Partition fuse(const ir::Graph& g, std::span<const ir::NodeId> tied = {});
// Values that loops wrote for other loops, and that those compute again from what they read anyway. An empty `tied`:
// there are none and `graph` is empty.
struct Recomputed {
  ir::Graph graph;
  std::vector<ir::NodeId> tied;  // for fuse
};
Recomputed recompute(const ir::Graph& g, const Partition& p, std::size_t worth_bytes);
void schedule(const ir::Graph& g,
              Partition& p);  // orders groups: states are overwritten after their last reader, memory is freed early
// On a scheduled partition that takes more than the budget: groups of the forward pass run again where the backward
// pass reads them, with the same bits. Without a budget, what costs next to nothing does. False: nothing does. Throws
// Error(config) naming the least possible.
bool rematerialise(ir::Graph& g, Partition& p, const RematOptions& options);

// By node: whether an output needs it.
std::vector<bool> live_nodes(const ir::Graph& g);
// The graph of the live nodes and all inputs (their order is the caller's). `moved`: new ids by old ones, or kDropped.
inline constexpr ir::NodeId kDropped = ~0u;
ir::Graph drop_dead(const ir::Graph& g, std::vector<ir::NodeId>* moved = nullptr);

}  // namespace bp::passes

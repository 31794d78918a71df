// Lowering: from a graph and its partition to a Program. Each kind of group has its own file in this folder; they all
// talk to this class.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "cpu/exec/program.h"
#include "ir/graph.h"
#include "passes/partition.h"

namespace bp::cpu {

constexpr int kManyThreads = 1024;  // for a kernel that bounds its threads by its work alone

struct LowerOptions {
  int threads = 1;
  bool reference = false;  // every node by its scalar kernel: the executable that others are checked against
  // The body of a loop: how many iterations there are, for how long its first inputs (others: an iteration) stay the
  // same, and the threads of steps that run once for all rows (0: it is no such body).
  std::int64_t runs = 1;
  std::vector<Lasting> inputs = {};
  int shared_threads = 0;
};

class Lowering {
 public:
  Lowering(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options);

  const ir::Graph& graph() const noexcept { return graph_; }
  const passes::Partition& partition() const noexcept { return partition_; }
  const LowerOptions& options() const noexcept { return options_; }
  // The values that a group writes to memory, by its number in the partition.
  const std::vector<ir::Value>& results(std::uint32_t group) const { return results_[group]; }

  // The memory that holds a value: views share their operand's. Asking for a group's result reserves it.
  BufferId buffer(ir::Value v);
  const MemoryRef& memory(BufferId b) const { return program_.buffers[b]; }
  // Scratch memory between steps (packed weights, partial sums).
  BufferId temporary(std::size_t bytes);
  BufferId constant(Buffer data);
  Lasting lasting(BufferId b) const;
  // How many runs find the same value there, and how many threads a step has that reads nothing else.
  std::int64_t runs_of(BufferId b) const { return lasting(b) == Lasting::iteration ? 1 : options_.runs; }
  int threads_of(Lasting reads) const;

  // Appends a step. `inplace_safe`: the step reads every element of a read before it writes the same element of a write
  // of the same size, so both may be one memory.
  void emit(std::unique_ptr<Kernel> kernel, std::vector<BufferId> reads, std::vector<BufferId> writes, StepInfo info,
            bool inplace_safe = false);
  // A step that reads the inputs of a node and writes all its outputs, in their order.
  void emit_node(ir::NodeId n, std::unique_ptr<Kernel> kernel);
  // The scope, direction and name of a node, for emit.
  StepInfo info_of(ir::NodeId n) const;

  Program finish();

 private:
  friend Program lower(const ir::Graph&, const passes::Partition&, const LowerOptions&);
  ir::Value resolve(ir::Value v) const;  // through views
  void assign_outputs(const std::vector<bool>& copied);
  void copy_outputs(const std::vector<bool>& copied);

  const ir::Graph& graph_;
  const passes::Partition& partition_;
  LowerOptions options_;
  std::vector<std::vector<ir::Value>> results_;
  Program program_;
  std::unordered_map<ir::Value, BufferId> buffers_;
  std::vector<Lasting> lasting_;            // by buffer, of those that a step has written
  std::vector<std::uint32_t> input_index_;  // by node
  std::vector<bool> update_;                // by node: see StepInfo
};

// The whole graph. The executable's inputs are graph.inputs; its outputs graph.outputs; an output that updates a state
// is given the state's own memory at run time.
Program lower(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options);

// Lowers a group if this file knows it; the dispatch in lower.cc tries them in order.
bool lower_loop(Lowering& l, const passes::Group& group);
bool lower_product(Lowering& l, const passes::Group& group);
bool lower_movement(Lowering& l, const passes::Group& group);
bool lower_window(Lowering& l, const passes::Group& group);
bool lower_reduction(Lowering& l, const passes::Group& group);
bool lower_indexing(Lowering& l, const passes::Group& group);
bool lower_attention(Lowering& l, const passes::Group& group);
bool lower_control(Lowering& l, const passes::Group& group);  // scan, cond
void lower_reference(Lowering& l, ir::NodeId node);

}  // namespace bp::cpu

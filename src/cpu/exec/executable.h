// Executable: a planned program with its arena, ready to run again and again without allocating.
#pragma once

#include <atomic>
#include <span>
#include <string>
#include <vector>

#include "cpu/exec/bound_program.h"
#include "cpu/exec/program.h"
#include "cpu/lower/lowering.h"
#include "ir/graph.h"

namespace bp::cpu {

// An input whose elements index something of `limit` entries.
struct IndexCheck {
  std::uint32_t input;
  DType dtype;
  std::int64_t count, limit;
  std::string where;
  bool marked = false;  // by "index_limit" rather than by being a gather's operand
};

// The indices that come straight from an input: of gather and take_along, and of nodes with the attribute
// "index_limit", also inside loops and branches. To be called on a graph as it was recorded: passes may drop the marks.
std::vector<IndexCheck> find_index_checks(const ir::Graph& g);

// The arena and the workspace of the executable that would be made.
std::size_t planned_bytes(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options);

class Executable {
 public:
  Executable(const ir::Graph& g, const passes::Partition& p, std::vector<IndexCheck> checks,
             const LowerOptions& options);

  // One pointer an input and an output of the graph; an output that updates a state is given that state's memory.
  // Throws Error(value) when an index argument is out of range (nothing has run then), Error(state) on a concurrent
  // call.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs);

  // The same, appending the seconds of each step to its list.
  void run_timed(std::span<const void* const> inputs, std::span<void* const> outputs,
                 std::vector<std::vector<double>>& seconds);

  std::size_t arena_bytes() const noexcept { return program_.arena_bytes; }
  std::size_t workspace_bytes() const noexcept { return program_.workspace_bytes; }
  const Program& program() const noexcept { return program_; }
  double flops() const;
  int threads_of(std::size_t step) const noexcept { return bound_.threads_of(step); }
  int threads() const noexcept { return threads_; }  // the most that a step may use
  std::string str() const;                           // one line a step: name, scope, threads, flops, bytes

 private:
  template <class Each> void run_steps(std::span<const void* const> inputs, std::span<void* const> outputs, Each each);
  void check_indices(std::span<const void* const> inputs) const;

  Program program_;
  BoundProgram bound_;
  int threads_;
  Buffer arena_, workspace_;
  std::vector<IndexCheck> checks_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace bp::cpu

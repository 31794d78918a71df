// Kernel: one prepared step of an executable. Lowering makes them, the executor runs them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bp/dtype.h"
#include "ir/scope.h"

namespace bp::cpu {

class BoundProgram;

// A program inside a loop or a branch. copies: how many run it side by side, each on other rows of the batch.
struct KernelBody {
  BoundProgram* program;
  int copies = 1;
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // args: pointers to the memory that the step reads, then to what it writes, in the order given to Lowering::emit.
  // Never allocates, throws or blocks; the result must not depend on `threads`.
  virtual void run(void* const* args, void* workspace, int threads) const = 0;
  virtual std::size_t workspace_bytes(int threads) const {
    (void)threads;
    return 0;
  }
  // The programs inside a loop or a branch, to be shown and timed.
  virtual std::vector<KernelBody> bodies() const { return {}; }
  // More threads than this do not pay for this much work.
  virtual int preferred_threads() const { return 1; }
};

// What is told of a step in explain() and profiles.
struct StepInfo {
  std::string name;  // "loop(exp, sub, sum)", "matmul 64x784x512"
  ir::ScopeId scope = 0;
  bool backward = false;
  bool update = false;  // of what is computed from gradients and needed by none: optimizers
  DType dtype = f32;    // of the first operand
  double flops = 0;
  double bytes = 0;  // read and written
};

}  // namespace bp::cpu

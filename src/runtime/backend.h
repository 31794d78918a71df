// From a captured graph to an executable: the pipeline, the CPU's lowering, and the cache of eager executables.
#pragma once

#include <memory>
#include <string>

#include "bp/compile.h"
#include "cpu/exec/executable.h"
#include "passes/pipeline.h"

namespace bp::runtime {

struct Built {
  std::unique_ptr<cpu::Executable> executable;
  std::vector<passes::PassRecord> passes;
  ExecutableInfo info;
  ir::Graph graph;  // after the passes: for explain and for finding NaN
};

struct BuildOptions {
  int threads = 1;
  bool reference = false;
  bool keep_text = false;
  DType precision = DType::f32;
  std::vector<std::string> disable_passes = {};
  std::size_t memory_budget = 0;
};

Built build(ir::Graph g, const BuildOptions& options);

// OMP_NUM_THREADS or the cores this process may use.
int default_threads();

}  // namespace bp::runtime

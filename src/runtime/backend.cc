// Building executables.
#include "runtime/backend.h"

#include <omp.h>

#include <chrono>

#include "base/error.h"

namespace bp::runtime {

namespace {
std::size_t external_bytes(const ir::Graph& g) {
  std::size_t bytes = 0;
  for (const ir::Input& i : g.inputs) bytes += g.nodes[i.node].types[0].bytes();
  for (const ir::Output& o : g.outputs)
    if (o.updates < 0) bytes += g.type(o.value).bytes();
  return bytes;
}
}  // namespace

Built build(ir::Graph g, const BuildOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<cpu::IndexCheck> checks = cpu::find_index_checks(g);
  const cpu::LowerOptions lowering{options.threads, options.reference};
  const auto planned_bytes = [&](const ir::Graph& graph, const passes::Partition& p) {
    return cpu::planned_bytes(graph, p, lowering) + external_bytes(graph);
  };
  passes::PipelineOptions pipeline{.disable = options.disable_passes,
                                   .precision = options.precision,
                                   .keep_text = options.keep_text,
                                   .remat = {options.memory_budget, planned_bytes}};
  if (options.reference) pipeline.disable = passes::pass_names();
  passes::Optimised o = passes::run_pipeline(std::move(g), pipeline);
  Built b;
  b.passes = std::move(o.passes);
  b.executable = std::make_unique<cpu::Executable>(o.graph, o.partition, std::move(checks), lowering);
  b.info.arena_bytes = b.executable->arena_bytes() + b.executable->workspace_bytes();
  b.info.planned_peak_bytes = b.info.arena_bytes + external_bytes(o.graph);
  if (options.memory_budget != 0 && b.info.planned_peak_bytes > options.memory_budget)  // the pass is switched off
    fail(ErrorKind::config, "[compile] memory_budget: expected at least {} bytes without the pass remat, got {}",
         b.info.planned_peak_bytes, options.memory_budget);
  b.info.steps = b.executable->program().steps.size();
  b.info.nodes = o.graph.nodes.size();
  b.info.flops = b.executable->flops();
  b.graph = std::move(o.graph);
  b.info.compile_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return b;
}

int default_threads() { return omp_get_max_threads(); }

}  // namespace bp::runtime

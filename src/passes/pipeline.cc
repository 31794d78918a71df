// The pass pipeline.
#include "passes/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace bp::passes {

namespace {

std::string text_of(const ir::Graph& g, const Partition& p) {
  std::string out;
  for (std::size_t k = 0; k < p.groups.size(); ++k) {
    static constexpr const char* kNames[] = {"single", "loop", "product"};
    out += fmt::format("group {} ({}):", k, kNames[static_cast<int>(p.groups[k].kind)]);
    for (ir::NodeId n : p.groups[k].nodes) out += fmt::format(" %{} {}", n, ir::name_of(g.nodes[n].op));
    out += "\n";
  }
  return out;
}

class Pipeline {
 public:
  explicit Pipeline(const PipelineOptions& options) : options_(options) {
    static const std::vector<std::string> kKnown{"simplify", "fuse", "schedule"};
    for (const std::string& name : options.disable)
      if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end())
        fail(ErrorKind::config, "[compile] there is no pass \"{}\": the passes are {}", name, fmt::join(kKnown, ", "));
  }

  // Runs a pass unless it is switched off; verifies and records what it left.
  template <class Run> void pass(Optimised& state, const char* name, Run run) {
    if (std::find(options_.disable.begin(), options_.disable.end(), name) != options_.disable.end()) return;
    const auto start = std::chrono::steady_clock::now();
    run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
#ifndef NDEBUG
    state.graph.verify();
#endif
    if (!state.partition.groups.empty()) verify(state.graph, state.partition);
    record(state, name, seconds);
  }

  void record(Optimised& state, const char* name, double seconds) {
    state.passes.push_back({name, seconds, ""});
    if (!options_.keep_text) return;
    state.passes.back().text =
        state.partition.groups.empty() ? state.graph.str() : text_of(state.graph, state.partition);
  }

 private:
  const PipelineOptions& options_;
};

}  // namespace

Optimised run_pipeline(ir::Graph g, const PipelineOptions& options) {
  Optimised state{std::move(g), {}, {}};
  Pipeline pipeline(options);
  pipeline.record(state, "trace", 0);
  pipeline.pass(state, "simplify", [&] { state.graph = simplify(state.graph); });
  state.partition = singletons(state.graph);
  pipeline.pass(state, "fuse", [&] {
    state.graph = split_transparent(state.graph);
    state.partition = fuse(state.graph);
  });
  pipeline.pass(state, "schedule", [&] { schedule(state.graph, state.partition); });
  return state;
}

}  // namespace bp::passes

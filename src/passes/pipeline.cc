// The pass pipeline.
#include "passes/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "ir/body.h"
#include "passes/scan.h"

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
    const std::vector<std::string>& known = pass_names();
    for (const std::string& name : options.disable)
      if (std::find(known.begin(), known.end(), name) == known.end())
        fail(ErrorKind::config, "[compile] there is no pass \"{}\": the passes are {}", name, fmt::join(known, ", "));
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

bool has_bodies(const ir::Graph& g) {
  return std::any_of(g.nodes.begin(), g.nodes.end(),
                     [](const ir::Node& n) { return n.op == ir::OpId::scan || n.op == ir::OpId::cond; });
}

// Loops first meet, so that a loop and the same loop with more outputs are one when their bodies are looked at.
ir::Graph optimise_bodies(ir::Graph g) {
  g = merge_scans(g);
  for (ir::Node& n : g.nodes)
    for (const char* name : {"body", "then", "otherwise"}) {
      if (!n.attrs.has(name) || (n.op != ir::OpId::scan && n.op != ir::OpId::cond)) continue;
      ir::Graph body = simplify(ir::body_of(n.attrs, name));
      n.attrs.set(name, ir::make_body(has_bodies(body) ? optimise_bodies(std::move(body)) : std::move(body)));
    }
  return simplify(hoist_and_sink(g));
}

}  // namespace

const std::vector<std::string>& pass_names() {
  static const std::vector<std::string> names{"simplify",  "scan",     "precision", "fuse",
                                              "recompute", "schedule", "remat"};
  return names;
}

Optimised run_pipeline(ir::Graph g, const PipelineOptions& options) {
  Optimised state{std::move(g), {}, {}};
  Pipeline pipeline(options);
  pipeline.record(state, "trace", 0);
  pipeline.pass(state, "simplify", [&] { state.graph = simplify(state.graph); });
  if (has_bodies(state.graph)) pipeline.pass(state, "scan", [&] { state.graph = optimise_bodies(state.graph); });
  // After "scan": what has left the loops is one product then.
  if (options.precision == bf16) pipeline.pass(state, "precision", [&] { state.graph = lower_precision(state.graph); });
  state.partition = singletons(state.graph);
  pipeline.pass(state, "fuse", [&] {
    state.graph = split_transparent(state.graph);
    state.partition = fuse(state.graph);
  });
  pipeline.pass(state, "recompute", [&] {
    Recomputed r = recompute(state.graph, state.partition, options.recompute_bytes);
    if (r.tied.empty()) return;
    state.graph = std::move(r.graph);
    state.partition = fuse(state.graph, r.tied);
  });
  pipeline.pass(state, "schedule", [&] { schedule(state.graph, state.partition); });
  pipeline.pass(state, "remat", [&] { rematerialise(state.graph, state.partition, options.remat); });
  return state;
}

}  // namespace bp::passes

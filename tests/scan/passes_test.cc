// What the pass "scan" makes of loops: where products stand, and that results do not depend on the passes.
#include <gtest/gtest.h>

#include <algorithm>

#include "bp/compile.h"
#include "bp/ops.h"
#include "bp/recurrent.h"
#include "bp/scan.h"
#include "ir/body.h"
#include "passes/pipeline.h"
#include "trace/node.h"

namespace bp {
namespace {

using ir::Graph;
using ir::Node;
using ir::OpId;

std::ptrdiff_t count(const Graph& g, OpId op) {
  return std::count_if(g.nodes.begin(), g.nodes.end(), [op](const Node& n) { return n.op == op; });
}
std::vector<Graph> bodies(const Graph& g) {
  std::vector<Graph> out;
  for (const Node& n : g.nodes)
    if (n.op == OpId::scan) out.push_back(ir::body_of(n.attrs));
  return out;
}

Tensor made(const Shape& shape) { return sin(cast(reshape(arange(shape.numel()), shape), f64)); }

// Loss and gradients of an LSTM over T steps as a graph.
Graph lstm_graph(nn::LSTM& lstm, std::int64_t steps, bool by_input) {
  const Tensor x = watch(made({3, steps, 4}));
  const Tensor loss = sum(lstm(x) * 0.5);
  std::vector<Tensor> roots = grad(loss, nn::parameters(lstm));
  if (by_input) roots.push_back(grad(loss, x));
  roots.push_back(loss);
  return detail::capture(roots, {}, {}, 0).graph;
}

// x W_ih before the loop; dW_ih and dW_hh after it, each one product; inside, h W_hh and its transpose only. Twice, for
// two layers; dx of the upper layer is one product more.
TEST(ScanPass, AnLstmHasOneProductALayerOutsideForEachWeight) {
  nn::LSTM lstm(4, 5, {.layers = 2});
  nn::init(lstm, Key(1), f64);
  const passes::Optimised o = passes::run_pipeline(lstm_graph(lstm, 6, false), {});
  EXPECT_EQ(count(o.graph, OpId::scan), 4);  // forward and backward of each layer: recorded twins have met
  EXPECT_EQ(count(o.graph, OpId::matmul), 2 * 3 + 1);
  EXPECT_EQ(count(o.graph, OpId::reduce_sum) - 1, 2);  // db of a layer; the loss
  for (const Graph& body : bodies(o.graph)) {
    EXPECT_EQ(count(body, OpId::matmul), 1);
    EXPECT_EQ(count(body, OpId::reduce_sum), 0);
    EXPECT_EQ(count(body, OpId::pad), 0);
  }
}

TEST(ScanPass, LoopsWithoutCarriesMeetToo) {
  const Tensor x = watch(made({5, 3}));
  const Tensor y = scan(
                       [](std::span<const Tensor>, std::span<const Tensor> s) -> Scanned {
                         return {{}, {exp(sin(s[0]))}};
                       },
                       {}, {x})
                       .ys[0];
  const std::vector<Tensor> roots{y, grad(sum(y), x)};
  const passes::Optimised o = passes::run_pipeline(detail::capture(roots, {}, {}, 0).graph, {});
  EXPECT_EQ(count(o.graph, OpId::scan), 2);
}

TEST(ScanPass, TheGraphDoesNotGrowWithTheNumberOfIterations) {
  nn::LSTM lstm(4, 5);
  nn::init(lstm, Key(1), f64);
  const auto nodes = [&](std::int64_t steps) {
    return passes::run_pipeline(lstm_graph(lstm, steps, true), {}).graph.nodes.size();
  };
  EXPECT_EQ(nodes(3), nodes(300));
}

TEST(ScanPass, ResultsDoNotDependOnThePasses) {
  nn::GRU gru(4, 5, {.layers = 2, .bidirectional = true});
  nn::init(gru, Key(1), f64);
  const Tensor x = made({3, 6, 4});
  const auto run = [&](std::vector<std::string> disable) {
    auto step = compile(
        [&](const Tensor& in) {
          std::vector<Tensor> out = grad(sum(gru(in) * 0.5), nn::parameters(gru));
          out.push_back(grad(sum(gru(in)), in));
          return out;
        },
        {.disable_passes = std::move(disable)});
    std::vector<double> all;
    for (const Tensor& t : step(x))
      for (double v : t.to_vector<double>()) all.push_back(v);
    return all;
  };
  const auto a = run({}), b = run({"scan"}), c = run({"simplify", "scan", "fuse", "schedule"});
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], 1e-13) << i;
    ASSERT_NEAR(a[i], c[i], 1e-13) << i;
  }
}

// Memory of a checkpointed loop grows with its segments, not with its length.
TEST(ScanPass, CheckpointingKeepsCarriesOnly) {
  const auto peak = [](std::int64_t steps, std::int64_t segment) {
    nn::LSTM lstm(8, 64, {.last = true, .segment = segment});
    nn::init(lstm, Key(1));
    auto step = compile([&](const Tensor& x) { return grad(sum(lstm(x)), nn::parameters(lstm)); });
    return step.prepare({Type{f32, {16, steps, 8}}}).arena_bytes;
  };
  const auto plain = static_cast<double>(peak(256, 0)), some = static_cast<double>(peak(256, ScanOptions::kSqrt));
  EXPECT_LT(some, 0.3 * plain);
  EXPECT_LT(static_cast<double>(peak(1024, ScanOptions::kSqrt)), 3 * some);
}

}  // namespace
}  // namespace bp

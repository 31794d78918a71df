// Listings of layers, and the check of a configured model's gradient, which must find a wrong one.
#include "train/inspect.h"

#include <gtest/gtest.h>

#include "bp/ops.h"

namespace bp::train {
namespace {

Config network(const std::string& layers, const std::string& loss = "cross_entropy") {
  return parse_config(
      parse_toml("[data]\nformat = \"npy\"\ntrain = { inputs = \"x\", targets = \"y\" }\n"
                 "[model]\ninput = [6, 6, 2]\nlayers = [" +
                     layers + "]\n[loss]\ntype = \"" + loss + "\"\n[optimizer]\ntype = \"sgd\"\n[train]\nbatch = 8\n",
                 "net.toml"),
      "", "net");
}

constexpr const char* kLayers =
    R"({ type = "conv2d", filters = 4, kernel = 3, padding = "same" }, { type = "batch_norm" }, { type = "relu" },
       { type = "residual", layers = [{ type = "conv2d", filters = 4, kernel = 1 }, { type = "tanh" }] },
       { type = "max_pool", size = 2 }, { type = "dropout", rate = 0.3 }, { type = "flatten" },
       { type = "linear", units = 3 })";

data::Batch batch_of(std::int64_t n) {
  std::vector<float> x;
  std::vector<std::int64_t> y;
  Rng rng(Key{1});
  for (std::int64_t i = 0; i < n * 72; ++i) x.push_back(static_cast<float>(rng.normal()));
  for (std::int64_t i = 0; i < n; ++i) y.push_back(i % 3);
  return {Array::from(x, {n, 6, 6, 2}), Array::from(y, {n})};
}

TEST(Inspect, ListsLayersWithThoseInsideResiduals) {
  const Config c = network(kLayers);
  nn::Sequential model = c.make_model();
  const std::vector<LayerRow> rows = layer_rows(model, c.input);
  ASSERT_EQ(rows.size(), 10u);
  EXPECT_EQ(rows[0].output, (Shape{6, 6, 4}));
  EXPECT_EQ(rows[0].parameters, 9 * 2 * 4 + 4);
  EXPECT_GE(rows[0].flops, 2.0 * 6 * 6 * 9 * 2 * 4 * 0.7);  // borders are padding
  EXPECT_EQ(rows[3].what.substr(0, 8), "residual");
  EXPECT_EQ(rows[3].parameters, 4 * 4 + 4);
  EXPECT_EQ(rows[4].path, "3.inner.0");
  EXPECT_EQ(rows[4].depth, 1);
  EXPECT_EQ(rows[9].output, (Shape{3}));
  const Costs costs = costs_of(c);
  EXPECT_EQ(costs.parameters, 76 + 8 + 20 + 36 * 3 + 3);
  EXPECT_GT(costs.step.planned_peak_bytes, 8u * 72 * 4);
}

TEST(Inspect, TheGradientOfEveryParameterIsRight) {
  const std::vector<ParameterCheck> checks = check_gradients(network(kLayers), batch_of(4), {.elements = 6});
  ASSERT_EQ(checks.size(), 8u);
  for (const ParameterCheck& p : checks) {
    EXPECT_TRUE(p.worst.ok) << p.name << " " << p.worst.analytic << " " << p.worst.numeric;
    EXPECT_EQ(p.checked, std::min<std::int64_t>(6, p.elements));
  }
}

TEST(Inspect, AWrongGradientIsFound) {
  Config c = network(kLayers);
  const Loss right = c.loss;
  c.loss = [right](const Tensor& y, const Tensor& t) { return right(y, t) + stop_gradient(sum(y * y)) * 0.01; };
  bool found = false;
  for (const ParameterCheck& p : check_gradients(c, batch_of(4), {.elements = 6})) found = found || !p.worst.ok;
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace bp::train

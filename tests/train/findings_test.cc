// What a report finds out about a model: worst rows, confusion of classes and labels, saturated and dead units.
#include "train/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bp/ops.h"

namespace bp::train {
namespace {

using ::testing::ElementsAre;

// A configuration of as many layers as the text says, on data that a test makes.
Config config_of(const std::string& layers, const std::string& loss, int inputs) {
  return parse_config(parse_toml("[data]\nformat = 'csv'\ntrain = 't.csv'\ntarget = 't'\n[model]\ninput = [" +
                                     std::to_string(inputs) + "]\nlayers = [" + layers + "]\n[loss]\ntype = '" + loss +
                                     "'\n[optimizer]\ntype = 'sgd'\nlr = 0.1\n[train]\nepochs = 1\nthreads = 1\n",
                                 "t.toml"),
                      ".", "t");
}

void set_weights(nn::Sequential& model, const std::vector<std::vector<float>>& values) {
  std::vector<Variable> all = nn::parameters(model);
  ASSERT_EQ(all.size(), values.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Shape shape = all[i].shape();
    all[i].set(to_tensor(Array::from(values[i], shape)));
  }
}

TEST(Findings, SaturatedValuesAndDeadUnitsOfEachLayer) {
  const Config c = config_of(
      "{ type = 'linear', units = 3 }, { type = 'relu' }, { type = 'residual', layers = [{ type = 'tanh' }] }",
      "squared_error", 1);
  nn::Sequential model = c.make_model();
  set_weights(model, {{1, -1, 0}, {0, 0, -1}});  // units x, -x, -1: the last is dead
  const data::ArrayDataset set(Array::from(std::vector<float>{1, 2, -5, 0.5f}, {4, 1}),
                               Array::from(std::vector<float>(12, 0), {4, 3}));
  const Findings f = examine(c, model, set, "test");
  ASSERT_EQ(f.activations.size(), 2u);
  EXPECT_EQ(f.activations[0].path, "1");
  EXPECT_EQ(f.activations[0].kind, "relu");
  EXPECT_NEAR(f.activations[0].saturated, 8.0 / 12, 1e-6);  // 1 of x, 3 of -x, 4 of -1
  EXPECT_EQ(f.activations[0].dead, 1);
  EXPECT_EQ(f.activations[0].units, 3);
  EXPECT_EQ(f.activations[1].kind, "tanh");
  EXPECT_NEAR(f.activations[1].saturated, 1.0 / 12, 1e-6);  // of 5 alone: tanh 2 is 0.96
  EXPECT_EQ(f.activations[1].dead, 0);
  // y = r + tanh r, against 0: the third row is the worst.
  EXPECT_EQ(f.worst[0].row, 2);
  const double r = 5 + std::tanh(5.0);
  EXPECT_NEAR(f.worst[0].loss, r * r / 3, 1e-4);
  EXPECT_EQ(f.worst[0].target, -1);
  EXPECT_TRUE(f.confusion.empty());
  EXPECT_GT(f.parameters[0].gradient_norm, 0);
}

TEST(Findings, ClassesAreConfusedAndTheWorstComeFirst) {
  const Config c = config_of("{ type = 'linear', units = 2 }", "cross_entropy", 1);
  nn::Sequential model = c.make_model();
  set_weights(model, {{1, -1}, {0, 0}});  // class 0 where x > 0, logits x and -x
  const data::ArrayDataset set(Array::from(std::vector<float>{1, 2, -5, 0.5f}, {4, 1}),
                               Array::from(std::vector<std::int64_t>{0, 1, 1, 1}, {4}));
  const Findings f = examine(c, model, set, "test");
  ASSERT_EQ(f.confusion.size(), 1u);
  const metrics::ConfusionMatrix& m = f.confusion[0];
  EXPECT_THAT((std::vector{m.at(0, 0), m.at(0, 1), m.at(1, 0), m.at(1, 1)}), ElementsAre(1, 0, 2, 1));
  EXPECT_EQ(f.worst[0].row, 1);
  EXPECT_EQ(f.worst[0].target, 1);
  EXPECT_EQ(f.worst[0].output, 0);
  EXPECT_NEAR(f.worst[0].loss, std::log(std::exp(2) + std::exp(-2)) + 2, 1e-5);
  EXPECT_EQ(f.worst[3].row, 2);
}

TEST(Findings, EachBinaryLabelHasItsConfusion) {
  const Config c = config_of("{ type = 'linear', units = 2 }", "binary_cross_entropy", 1);
  nn::Sequential model = c.make_model();
  set_weights(model, {{1, -1}, {0, 0}});
  const data::ArrayDataset set(Array::from(std::vector<float>{1, 2, -5}, {3, 1}),
                               Array::from(std::vector<float>{1, 1, 0, 0, 1, 0}, {3, 2}));
  const Findings f = examine(c, model, set, "test");
  ASSERT_EQ(f.confusion.size(), 2u);  // logits (1, -1), (2, -2), (-5, 5)
  const auto counts = [&](int k) {
    const metrics::ConfusionMatrix& m = f.confusion[static_cast<std::size_t>(k)];
    return std::vector{m.at(0, 0), m.at(0, 1), m.at(1, 0), m.at(1, 1)};
  };
  EXPECT_THAT(counts(0), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(counts(1), ElementsAre(1, 1, 1, 0));
  EXPECT_EQ(f.worst[0].row, 2);
  EXPECT_NEAR(f.worst[0].loss, 5 + std::log1p(std::exp(-5.0)), 1e-5);
}

}  // namespace
}  // namespace bp::train

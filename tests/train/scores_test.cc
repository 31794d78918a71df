// Metrics against values by hand and from scikit-learn 1.5 (precision_recall_fscore_support, roc_auc_score,
// top_k_accuracy_score, r2_score).
#include "bp/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bp/error.h"
#include "classifier.h"

namespace bp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using train_test::message_of;

// Three classes, six rows; predictions 0 2 1 0 0 1 of targets 0 1 2 0 1 2, as in scikit-learn's documentation.
const Array kScores = Array::from(std::vector<float>{5, 1, 0, 0, 1, 2, 0, 3, 1, 9, 1, 1, 2, 1, 0, 0, 1, 0.5}, {6, 3});
const Array kTargets = Array::from(std::vector<std::int64_t>{0, 1, 2, 0, 1, 2}, {6});

TEST(Scores, ConfusionPrecisionRecallAndF1) {
  metrics::ConfusionMatrix m(3);
  m.add(kScores, kTargets);
  EXPECT_EQ(m.at(0, 0), 2);
  EXPECT_EQ(m.at(1, 2), 1);
  EXPECT_EQ(m.at(1, 0), 1);
  EXPECT_EQ(m.at(2, 1), 2);
  const metrics::ClassCounts c = m.counts();
  EXPECT_DOUBLE_EQ(c.accuracy(), 2.0 / 6);
  EXPECT_DOUBLE_EQ(c.of(0).precision, 2.0 / 3);
  EXPECT_DOUBLE_EQ(c.of(0).recall, 1);
  EXPECT_DOUBLE_EQ(c.of(0).f1, 0.8);
  EXPECT_EQ(c.of(2).support, 2);
  const metrics::ClassScores macro = c.macro();  // 0.2222 0.3333 0.2666
  EXPECT_DOUBLE_EQ(macro.precision, 2.0 / 9);
  EXPECT_DOUBLE_EQ(macro.recall, 1.0 / 3);
  EXPECT_DOUBLE_EQ(macro.f1, 0.8 / 3);
}

TEST(Scores, BatchesAddUpToTheWhole) {
  metrics::ConfusionMatrix whole(3), parts(3);
  whole.add(kScores, kTargets);
  for (const auto& [from, to] : {std::pair{0, 1}, {1, 5}, {5, 6}}) {
    const std::span<const float> s = kScores.values<float>();
    const std::span<const std::int64_t> t = kTargets.values<std::int64_t>();
    const auto a = static_cast<std::size_t>(from), n = static_cast<std::size_t>(to - from);
    parts.add(Array::from(s.subspan(3 * a, 3 * n), {to - from, 3}), Array::from(t.subspan(a, n), {to - from}));
  }
  for (int i = 0; i < 9; ++i) EXPECT_EQ(parts.at(i / 3, i % 3), whole.at(i / 3, i % 3));
}

TEST(Scores, ClassesThatNeverOccurAreLeftOutOfTheMean) {
  metrics::ClassCounts c(5);
  c.add(1, 1);
  c.add(3, 1);
  EXPECT_DOUBLE_EQ(c.macro().recall, 0.5);      // classes 1 and 3
  EXPECT_DOUBLE_EQ(c.macro().precision, 0.25);  // 1/2 and, never predicted, 0
  EXPECT_TRUE(std::isnan(metrics::ClassCounts(3).macro().f1));
  EXPECT_TRUE(std::isnan(metrics::ClassCounts(3).accuracy()));
}

TEST(Scores, TopK) {
  const std::vector<std::int64_t> t{0, 1, 2, 0, 1, 2};
  EXPECT_EQ(metrics::top_k_hits(kScores, t, 1), 2);
  EXPECT_EQ(metrics::top_k_hits(kScores, t, 2), 6);
  const Array equal = Array::zeros(f32, {1, 4});  // of equals the first ones
  for (std::int64_t c = 0; c < 4; ++c) EXPECT_EQ(metrics::top_k_hits(equal, std::vector<std::int64_t>{c}, 2), c < 2);
  EXPECT_THAT(message_of([&] { metrics::top_k_hits(kScores, t, 4); }, ErrorKind::value), HasSubstr("1 to 3"));
}

TEST(Scores, NaNIsNeverTheLargest) {
  const Array a = Array::from(std::vector<float>{NAN, 1, 2, NAN, NAN, NAN}, {2, 3});
  EXPECT_THAT(metrics::predicted_classes(a), ElementsAre(2, 0));
  EXPECT_EQ(metrics::top_k_hits(a, std::vector<std::int64_t>{0, 0}, 3), 0);
}

TEST(Scores, ProbabilitiesAsTargets) {
  const Array t = Array::from(std::vector<float>{0.2f, 0.7f, 0.1f, 0.5f, 0.1f, 0.4f}, {2, 3});
  EXPECT_THAT(metrics::target_classes(t, 3), ElementsAre(1, 0));
  EXPECT_THAT(message_of([&] { metrics::target_classes(t, 4); }, ErrorKind::shape), HasSubstr("[.., 4]"));
}

TEST(Scores, WrongTargetsAreNamedAndAddNothing) {
  metrics::ConfusionMatrix m(3);
  const Array bad = Array::from(std::vector<std::int64_t>{0, 1, 2, 0, 3, 2}, {6});
  EXPECT_THAT(message_of([&] { m.add(kScores, bad); }, ErrorKind::value), HasSubstr("target 4 is class 3"));
  message_of([&] { m.add(kScores, Array::zeros(i64, {5})); }, ErrorKind::shape);
  EXPECT_EQ(m.counts().total(), 0);
}

TEST(Scores, AreaUnderTheCurve) {
  metrics::Auc auc;
  auc.add(Array::from(std::vector<double>{0.1, 0.4, 0.35, 0.8}, {4}), Array::from(std::vector<float>{0, 0, 1, 1}, {4}));
  EXPECT_DOUBLE_EQ(auc.value(), 0.75);
  auc.add(Array::from(std::vector<double>{0.4, 0.4}, {2}), Array::from(std::vector<float>{1, 0}, {2}));
  // positives 0.35 0.8 0.4, negatives 0.1 0.4 0.4: 1 + 3 + (1 + 2 / 2)
  EXPECT_DOUBLE_EQ(auc.value(), 6.0 / 9);
  EXPECT_TRUE(std::isnan(metrics::Auc().value()));
}

TEST(Scores, BinaryLabels) {
  metrics::BinaryCounts b;
  b.add(Array::from(std::vector<float>{-1, 2, 3, -4, 0}, {5}), Array::from(std::vector<float>{0, 1, 0, 0, 1}, {5}));
  EXPECT_DOUBLE_EQ(b.accuracy(), 0.6);
  EXPECT_DOUBLE_EQ(b.positive().precision, 0.5);
  EXPECT_DOUBLE_EQ(b.positive().recall, 0.5);
  EXPECT_EQ(b.positive().support, 2);
}

TEST(Scores, RegressionKeepsItsDigitsFarFromZero) {
  metrics::RegressionErrors near, far;
  const std::vector<double> y{1, 2, 3.5}, t{1.5, 2, 3};
  std::vector<double> y_far(y), t_far(t);
  for (double& v : y_far) v += 1e8;
  for (double& v : t_far) v += 1e8;
  near.add(Array::from(y, {3}), Array::from(t, {3}));
  far.add(Array::from(y_far, {3}), Array::from(t_far, {3}));
  EXPECT_DOUBLE_EQ(near.mae(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(near.rmse(), std::sqrt(0.5 / 3));
  EXPECT_NEAR(near.r2(), 1 - 0.5 / (7.0 / 6), 1e-12);
  EXPECT_NEAR(far.r2(), near.r2(), 1e-6);
}

}  // namespace
}  // namespace bp

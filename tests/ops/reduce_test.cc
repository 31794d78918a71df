// Values and errors of reductions, scans and statistics: dtypes, empty lanes, NaN, infinities.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bp/error.h"
#include "bp/ops.h"
#include "message_of.h"
#include "ops/values.h"

namespace bp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Reduce, AxesAndKeep) {
  const Tensor x = reshape(arange(24), {2, 3, 4});
  EXPECT_EQ(sum(x).item<std::int64_t>(), 276);
  EXPECT_THAT(ints(sum(x, {1})), ElementsAre(12, 15, 18, 21, 48, 51, 54, 57));
  EXPECT_THAT(ints(sum(x, {2, 0})), ElementsAre(60, 92, 124));
  EXPECT_THAT(ints(max(x, {0, -1})), ElementsAre(15, 19, 23));
  EXPECT_THAT(ints(min(x, {1, 2})), ElementsAre(0, 12));
  EXPECT_EQ(sum(x, {2, 0}, true).shape(), (Shape{1, 3, 1}));
  EXPECT_EQ(max(x, {}, true).shape(), (Shape{1, 1, 1}));
  EXPECT_THAT(message_of([&] { sum(x, {1, -2}); }), HasSubstr("named twice"));
  EXPECT_THAT(message_of([&] { sum(x, {3}); }), HasSubstr("axis 3"));
}

TEST(Reduce, AccumulatesIntegersInI64) {
  const Tensor big = full({3}, 2147483647, i32);
  EXPECT_EQ(sum(big).dtype(), i64);
  EXPECT_EQ(sum(big).item<std::int64_t>(), 3 * std::int64_t{2147483647});
  EXPECT_EQ(sum(full({1000}, 255, u8)).item<std::int64_t>(), 255000);
  EXPECT_EQ(sum(full({300}, 1, boolean)).item<std::int64_t>(), 300);
  EXPECT_EQ(prod(full({10}, 16, u8)).item<std::int64_t>(), std::int64_t{1} << 40);
  EXPECT_EQ(ints(cumsum(full({300}, 1, u8), 0)).back(), 300);
  EXPECT_EQ(max(full({3}, 7, u8)).dtype(), u8);
}

TEST(Reduce, SumsManySmallNumbersAccurately) {
  const Tensor x = full({1 << 20}, 0.1, f32);
  EXPECT_NEAR(sum(x).item(), (1 << 20) * static_cast<double>(0.1f), 0.2);
  EXPECT_NEAR(mean(x).item(), 0.1, 1e-7);
  EXPECT_EQ(sum(full({4096}, 1, bf16)).item(), 4096);  // beyond 256 a bf16 accumulator would stand still
}

TEST(Reduce, EmptyLanes) {
  EXPECT_THAT(reals(sum(zeros({2, 0}), {1})), ElementsAre(0, 0));
  EXPECT_THAT(reals(prod(zeros({2, 0}), {1})), ElementsAre(1, 1));
  EXPECT_EQ(max(zeros({0, 3}), {1}).shape(), (Shape{0}));
  EXPECT_EQ(argmax(zeros({0, 3}), 1).shape(), (Shape{0}));
  EXPECT_THAT(message_of([] { max(zeros({2, 0}), {1}); }), HasSubstr("[reduce_max] expected at least one element"));
  EXPECT_THAT(message_of([] { min(zeros({0})); }), HasSubstr("[reduce_min] expected at least one element"));
  EXPECT_THAT(message_of([] { argmax(zeros({2, 0}), 1); }), HasSubstr("[argmax] expected at least one element"));
  EXPECT_TRUE(std::isnan(mean(zeros({0})).item()));
  EXPECT_EQ(logsumexp(zeros({0})).item(), -kInf);
}

TEST(Reduce, NaNPropagates) {
  const Tensor x = Tensor::from({1.0, kNaN, 3.0, -kInf, 2.0, kInf}, {2, 3});
  EXPECT_TRUE(std::isnan(reals(max(x, {1}))[0]));
  EXPECT_TRUE(std::isnan(reals(min(x, {1}))[0]));
  EXPECT_EQ(reals(max(x, {1}))[1], kInf);
  EXPECT_EQ(reals(min(x, {1}))[1], -kInf);
  EXPECT_THAT(ints(argmax(x, 1)), ElementsAre(1, 2));
  EXPECT_THAT(ints(argmin(x, 1)), ElementsAre(1, 0));
}

TEST(Reduce, ArgmaxTakesTheFirstAmongEquals) {
  const Tensor x = Tensor::from({1.0, 5.0, 5.0, 0.0, 0.0, 5.0}, {2, 3});
  EXPECT_THAT(ints(argmax(x)), ElementsAre(1, 2));
  EXPECT_THAT(ints(argmin(x)), ElementsAre(0, 0));
  EXPECT_THAT(ints(argmax(x, 0)), ElementsAre(0, 0, 0));
  EXPECT_THAT(message_of([] { argmax(scalar(1), 0); }), HasSubstr("axis 0"));
}

TEST(Reduce, Cumsum) {
  const Tensor x = reshape(arange(6), {2, 3});
  EXPECT_THAT(ints(cumsum(x, 1)), ElementsAre(0, 1, 3, 3, 7, 12));
  EXPECT_THAT(ints(cumsum(x, 0, true)), ElementsAre(3, 5, 7, 3, 4, 5));
}

TEST(Reduce, MeanAndVariance) {
  const Tensor x = Tensor::from({1.0, 2.0, 4.0, 9.0});
  EXPECT_DOUBLE_EQ(mean(x).item(), 4);
  EXPECT_DOUBLE_EQ(var(x).item(), 9.5);
  EXPECT_DOUBLE_EQ(var(x, {}, false, 1).item(), 38.0 / 3);
  EXPECT_EQ(mean(arange(4)).dtype(), f32);
  EXPECT_DOUBLE_EQ(mean(arange(4)).item(), 1.5);
  // Two passes keep what E[x^2] - E[x]^2 would lose.
  EXPECT_DOUBLE_EQ(var(x + 1e9).item(), 9.5);
}

TEST(Reduce, LogsumexpOfExtremes) {
  const Tensor x = Tensor::from({1e4, 1e4, -kInf, -kInf, kInf, 0.0, 0.0, -1e4}, {4, 2});
  const auto y = reals(logsumexp(x, {1}));
  EXPECT_DOUBLE_EQ(y[0], 1e4 + std::log(2));
  EXPECT_EQ(y[1], -kInf);
  EXPECT_EQ(y[2], kInf);
  EXPECT_EQ(y[3], 0);
  EXPECT_TRUE(std::isnan(logsumexp(Tensor::from({0.0, kNaN})).item()));
  EXPECT_EQ(logsumexp(x, {1}, true).shape(), (Shape{4, 1}));
}

TEST(Reduce, Norm) {
  EXPECT_DOUBLE_EQ(norm(Tensor::from({3.0, 4.0})).item(), 5);
  EXPECT_EQ(norm(zeros({3})).item(), 0);
}

}  // namespace
}  // namespace bp

// The corners of the elementwise ops that the op table's random operands do not visit: kinks, ties, NaN, overflow,
// integer arithmetic, casts, random numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "ops/values.h"

namespace bp {
namespace {

using testing::ElementsAre;
using Values = std::vector<double>;

Tensor vec(const Values& v) { return watch(Tensor::from(v, Shape{static_cast<std::int64_t>(v.size())})); }
Values values(const Tensor& t) { return t.to_vector<double>(); }

template <class F> Values gradient(F f, const Values& at) {
  const Tensor x = vec(at);
  return values(grad(sum(f(x)), x));
}

TEST(Kinks, GradientsAtTheCorner) {
  EXPECT_THAT(gradient(bp::relu, {-1, 0, 2}), ElementsAre(0, 0, 1));
  EXPECT_THAT(gradient(bp::abs, {-1, 0, 2}), ElementsAre(-1, 0, 1));
  EXPECT_THAT(gradient(bp::floor, {-1.5, 0, 2}), ElementsAre(0, 0, 0));
  EXPECT_THAT(gradient(bp::sign, {-1.5, 0, 2}), ElementsAre(0, 0, 0));
  EXPECT_THAT(gradient(bp::stop_gradient, {-1.5, 0, 2}), ElementsAre(0, 0, 0));
}

TEST(Kinks, EqualOperandsHalveTheGradient) {
  const Tensor a = vec({1, 2, 3}), b = vec({3, 2, 1});
  EXPECT_THAT(values(grad(sum(maximum(a, b)), a)), ElementsAre(0, 0.5, 1));
  EXPECT_THAT(values(grad(sum(maximum(a, b)), b)), ElementsAre(1, 0.5, 0));
  EXPECT_THAT(values(grad(sum(minimum(a, b)), a)), ElementsAre(1, 0.5, 0));
  EXPECT_THAT(values(grad(sum(minimum(a, b)), b)), ElementsAre(0, 0.5, 1));
}

TEST(Pow, BaseZero) {
  const auto power = [](double e) { return [e](const Tensor& x) { return pow(x, e); }; };
  EXPECT_THAT(gradient(power(0), {0, 2}), ElementsAre(0, 0));
  EXPECT_THAT(gradient(power(1), {0, 2}), ElementsAre(1, 1));
  EXPECT_THAT(gradient(power(2), {0, -3}), ElementsAre(0, -6));
  EXPECT_THAT(gradient(power(3), {0, -3}), ElementsAre(0, 27));
  EXPECT_THAT(gradient(power(-1), {2, -2}), ElementsAre(-0.25, -0.25));
  // By a tensor of exponents: no NaN at base 0, also in the second order.
  const Tensor a = vec({0, 0, 0, -2, 2}), b = vec({0, 1, 2, 3, 0});
  const Tensor y = pow(a, b);
  EXPECT_THAT(values(y), ElementsAre(1, 0, 0, -8, 1));
  const Tensor da = grad(sum(y), a);
  EXPECT_THAT(values(da), ElementsAre(0, 1, 0, 12, 0));
  EXPECT_THAT(values(grad(sum(da), a)), ElementsAre(0, 0, 2, -12, 0));
  const Values db = values(grad(sum(pow(a, b)), b));
  EXPECT_THAT(Values(db.begin(), db.begin() + 3), ElementsAre(0, 0, 0));
  EXPECT_TRUE(std::isnan(db[3]));  // (-2)^b is not defined beside b = 3
  EXPECT_DOUBLE_EQ(db[4], std::log(2));
  // d/db of b a^(b-1) at b = 0 is 1 / a: the guard at base 0 must not hide it.
  const Tensor p = vec({2}), q = vec({0});
  EXPECT_DOUBLE_EQ(grad(grad(sum(pow(p, q)), p), q).item(), 0.5);
}

TEST(Pow, ShortcutsEqualTheFunction) {
  const Values at = {-3, -0.5, 0.7, 4};
  for (double e : {0.0, 1.0, 2.0, -1.0}) {
    const Values y = values(pow(vec(at), e));
    for (std::size_t i = 0; i < at.size(); ++i) EXPECT_DOUBLE_EQ(y[i], std::pow(at[i], e));
  }
}

TEST(Nan, PropagatesOrStaysOut) {
  for (const Values& v :
       {values(maximum(vec({kNaN, 1}), vec({1, kNaN}))), values(minimum(vec({kNaN, 1}), vec({1, kNaN}))),
        values(relu(vec({kNaN, kNaN}))), values(sign(vec({kNaN, kNaN})))})
    for (double x : v) EXPECT_TRUE(std::isnan(x));
  // The side not taken is infinite or NaN, its gradient too: neither leaks.
  const auto safe_log = [](const Tensor& x) { return select(x > 0, log(x), zeros_like(x)); };
  EXPECT_THAT(values(safe_log(vec({-1, 0, 1}))), ElementsAre(0, 0, 0));
  const auto by_choice = [](const Tensor& x) { return select(x > 0, x, 1 / x); };
  EXPECT_THAT(gradient(by_choice, {2}), ElementsAre(1));
  EXPECT_THAT(values(isfinite(vec({1, kInf, -kInf, kNaN}))), ElementsAre(1, 0, 0, 0));
  EXPECT_THAT(values(logical_not(vec({0, -0.0, 1, kNaN}))), ElementsAre(1, 1, 0, 0));
}

TEST(Extremes, NoOverflowOnTheWay) {
  EXPECT_THAT(values(sigmoid(vec({-800, 0, 800}))), ElementsAre(0, 0.5, 1));
  EXPECT_THAT(values(tanh(vec({-800, 800}))), ElementsAre(-1, 1));
  EXPECT_THAT(gradient(bp::sigmoid, {-800, 800}), ElementsAre(0, 0));
  EXPECT_THAT(gradient(bp::tanh, {-800, 800}), ElementsAre(0, 0));
  EXPECT_DOUBLE_EQ(sigmoid(vec({-700})).item(), std::exp(-700.0));
  EXPECT_NEAR(log1p(vec({1e-12})).item(), 1e-12, 1e-24);
  EXPECT_NEAR(expm1(vec({1e-12})).item(), 1e-12, 1e-24);
  const double tiny = static_cast<double>(1e-6f);
  EXPECT_NEAR(log1p(Tensor::from({1e-6f})).item(), tiny, 2e-12);
  EXPECT_NEAR(expm1(Tensor::from({1e-6f})).item(), tiny, 2e-12);
}

TEST(Rounding, TiesGoToEven) {
  EXPECT_THAT(values(round(vec({-2.5, -1.5, -0.5, 0.5, 1.5, 2.5}))), ElementsAre(-2, -2, 0, 0, 2, 2));
  EXPECT_EQ(floor(Tensor::from({7})).dtype(), i32);
}

TEST(Remainder, HasTheSignOfTheDivisor) {
  EXPECT_THAT(values(remainder(vec({7, -7, 7, -7, 6}), vec({3, 3, -3, -3, 3}))), ElementsAre(1, 2, -2, -1, 0));
  const auto ints = [](std::initializer_list<std::int32_t> v) { return Tensor::from(v); };
  EXPECT_THAT(values(remainder(ints({7, -7, 7, -7, 6, 5}), ints({3, 3, -3, -3, 3, 0}))),
              ElementsAre(1, 2, -2, -1, 0, 0));
  const std::int32_t lowest = std::numeric_limits<std::int32_t>::min();
  EXPECT_THAT(values(remainder(ints({lowest}), ints({-1}))), ElementsAre(0));
}

TEST(Integers, Wrap) {
  const std::int64_t top = std::numeric_limits<std::int64_t>::max(), bottom = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ((Tensor::from({top}) + Tensor::from({std::int64_t{1}})).to_vector<std::int64_t>()[0], bottom);
  EXPECT_EQ((-Tensor::from({bottom})).to_vector<std::int64_t>()[0], bottom);
  EXPECT_EQ(abs(Tensor::from({bottom})).to_vector<std::int64_t>()[0], bottom);
  const Tensor a = Tensor::from({std::uint8_t{200}, std::uint8_t{3}}),
               b = Tensor::from({std::uint8_t{100}, std::uint8_t{5}});
  EXPECT_THAT((a + b).to_vector<std::uint8_t>(), ElementsAre(44, 8));
  EXPECT_THAT((a - b).to_vector<std::uint8_t>(), ElementsAre(100, 254));
  EXPECT_THAT((a * b).to_vector<std::uint8_t>(), ElementsAre(32, 15));
  const std::int32_t big = 2000000011;
  EXPECT_EQ((Tensor::from({big}) * Tensor::from({3})).to_vector<std::int32_t>()[0],
            static_cast<std::int32_t>(6000000033 - 4294967296));
  // Exact beyond what f32 or f64 could hold.
  const std::int64_t odd = (std::int64_t{1} << 60) + 1;
  EXPECT_EQ((Tensor::from({odd}) * Tensor::from({std::int64_t{3}})).to_vector<std::int64_t>()[0], 3 * odd);
  EXPECT_EQ(equal(Tensor::from({odd}), Tensor::from({odd - 1})).item(), 0);
  EXPECT_EQ(equal(Tensor::from({16777217}), Tensor::from({16777216})).item(), 0);
}

TEST(Integers, BooleansAreOrAndAnd) {
  const Tensor a = Tensor::from({true, true, false}), b = Tensor::from({true, false, false});
  EXPECT_THAT(values(a + b), ElementsAre(1, 1, 0));
  EXPECT_THAT(values(a * b), ElementsAre(1, 0, 0));
}

TEST(Cast, TruncatesSaturatesAndKeepsLowBits) {
  EXPECT_THAT(values(cast(vec({1.9, -1.9, 3e9, -3e9, kNaN, kInf}), i32)),
              ElementsAre(1, -1, 2147483647, -2147483648.0, 0, 2147483647));
  EXPECT_THAT(values(cast(vec({-5, 300, 254.9}), u8)), ElementsAre(0, 255, 254));
  EXPECT_EQ(cast(vec({1e300}), i64).to_vector<std::int64_t>()[0], std::numeric_limits<std::int64_t>::max());
  EXPECT_THAT(values(cast(Tensor::from({300, -1}), u8)), ElementsAre(44, 255));
  EXPECT_THAT(values(cast(vec({0, 0.25, -3, kNaN}), boolean)), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(values(cast(Tensor::from({256, 0}), boolean)), ElementsAre(1, 0));
  EXPECT_THAT(values(cast(vec({1.00390625, 1.01171875}), bf16)), ElementsAre(1, 1.015625));  // ties to even
  const Tensor x = vec({1});
  EXPECT_EQ(cast(x, f64).node(), x.node());
}

TEST(Cast, GradientComesBackInTheDtypeOfTheOperand) {
  const Tensor x = watch(Tensor::from({1.0f, 2.0f}));
  const Tensor g = grad(sum(cast(x, f64) * vec({3, 4})), x);
  EXPECT_EQ(g.dtype(), f32);
  EXPECT_THAT(values(g), ElementsAre(3, 4));
  const auto through_integers = [&] { return grad(sum(cast(cast(x, i32), f64)), x); };
  EXPECT_THROW(through_integers(), Error);
}

TEST(Full, RefusesWhatTheDtypeCannotHold) {
  EXPECT_THROW(full({2}, 300, u8), Error);
  EXPECT_THROW(full({2}, 0.5, i32), Error);
  EXPECT_THROW(full({2}, kNaN, i64), Error);
  EXPECT_TRUE(std::isnan(full({1}, kNaN, f32).item()));
}

TEST(Random, UniformIsInTheUnitIntervalInEveryDtype) {
  const Tensor state = random_state(Key(5));
  for (DType t : {f64, f32, bf16}) {
    const Values u = values(random_uniform(state, {20000}, t, 1));
    double mean = 0, low = 1, high = 0;
    for (double x : u) {
      mean += x / 20000;
      low = std::min(low, x);
      high = std::max(high, x);
    }
    EXPECT_GE(low, 0);
    EXPECT_LT(high, 1) << name_of(t);
    EXPECT_NEAR(mean, 0.5, 4 * std::sqrt(1.0 / 12 / 20000) + (t == bf16 ? 0.002 : 0));
  }
}

TEST(Random, NormalHasItsMoments) {
  const Values z = values(random_normal(random_state(Key(6)), {40000}, f32, 2));
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (double x : z) {
    m1 += x / 40000;
    m2 += x * x / 40000;
    m3 += x * x * x / 40000;
    m4 += x * x * x * x / 40000;
  }
  EXPECT_NEAR(m1, 0, 0.02);
  EXPECT_NEAR(m2, 1, 0.03);
  EXPECT_NEAR(m3, 0, 0.08);
  EXPECT_NEAR(m4, 3, 0.25);
}

TEST(Random, BernoulliFollowsItsProbability) {
  const Tensor state = random_state(Key(7));
  EXPECT_NEAR(mean(cast(random_bernoulli(state, {40000}, 0.3, 3), f64)).item(), 0.3, 0.01);
  EXPECT_EQ(sum(random_bernoulli(state, {1000}, 0)).item(), 0);
  EXPECT_EQ(sum(random_bernoulli(state, {1000}, 1)).item(), 1000);
  EXPECT_THROW(random_bernoulli(state, {1}, 1.5), Error);
  EXPECT_THROW(random_bernoulli(state, {1}, kNaN), Error);
}

TEST(Random, EqualArgumentsGiveEqualNumbersAndOthersDiffer) {
  const Tensor state = random_state(Key(8)), next = state + Tensor::from({std::int64_t{0}, std::int64_t{1}});
  const Values a = values(random_uniform(state, {64}, f32, 1));
  EXPECT_EQ(a, values(random_uniform(state, {8, 8}, f32, 1)));
  EXPECT_NE(a, values(random_uniform(state, {64}, f32, 2)));
  EXPECT_NE(a, values(random_uniform(next, {64}, f32, 1)));
  EXPECT_NE(a, values(random_uniform(random_state(Key(9)), {64}, f32, 1)));
  EXPECT_THROW(random_bits(state, {1}, 32), Error);
  EXPECT_THROW(random_bits(zeros({3}, i64), {1}, 8), Error);
}

TEST(Errors, NameTheOpAndTheOperands) {
  try {
    sub(ones({2}, boolean), ones({2}, boolean));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::dtype);
    EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr("[sub]"), testing::HasSubstr("bool[2]")));
  }
  const Scope layer("block1.act");
  try {
    neg(ones({3}, boolean));
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr("[neg]"), testing::HasSubstr("block1.act")));
  }
}

}  // namespace
}  // namespace bp

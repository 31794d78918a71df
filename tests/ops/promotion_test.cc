// Broadcasting and promotion against the tables of docs/ops.md, written out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "bp/error.h"
#include "bp/ops.h"
#include "bp/rng.h"

namespace bp {
namespace {

constexpr DType kDTypes[] = {boolean, u8, i32, i64, bf16, f32, f64};
constexpr DType kMeet[7][7] = {
    {boolean, u8, i32, i64, bf16, f32, f64},   // boolean
    {u8, u8, i32, i64, bf16, f32, f64},        // u8
    {i32, i32, i32, i64, bf16, f32, f64},      // i32
    {i64, i64, i64, i64, bf16, f32, f64},      // i64
    {bf16, bf16, bf16, bf16, bf16, f32, f64},  // bf16
    {f32, f32, f32, f32, f32, f32, f64},       // f32
    {f64, f64, f64, f64, f64, f64, f64},       // f64
};

// The dtype of the result, or the kind of the error.
template <class F> std::optional<DType> dtype_of_result(F f) {
  try {
    return f().dtype();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::dtype) << e.what();
    return std::nullopt;
  }
}

template <class F> void each_pair(F f) {
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < 7; ++j) {
      SCOPED_TRACE(std::string(name_of(kDTypes[i])) + " and " + std::string(name_of(kDTypes[j])));
      f(ones({2}, kDTypes[i]), ones({2}, kDTypes[j]), kMeet[i][j]);
    }
}

TEST(Promotion, OperandsMeetAsTheTableSays) {
  each_pair([](const Tensor& a, const Tensor& b, DType meet) {
    EXPECT_EQ(promote(a.dtype(), b.dtype()), meet);
    for (const Tensor& y : {add(a, b), mul(a, b), maximum(a, b), minimum(a, b), remainder(a, b)})
      EXPECT_EQ(y.dtype(), meet);
    EXPECT_EQ(select(ones({2}, boolean), a, b).dtype(), meet);
    EXPECT_EQ(dtype_of_result([&] { return sub(a, b); }), meet == boolean ? std::nullopt : std::optional(meet));
  });
}

TEST(Promotion, RealFunctionsTurnIntegersIntoF32) {
  each_pair([](const Tensor& a, const Tensor& b, DType meet) {
    const DType real = is_float(meet) ? meet : f32;
    EXPECT_EQ(div(a, b).dtype(), real);
    EXPECT_EQ(pow(a, b).dtype(), real);
  });
  for (DType t : kDTypes) {
    const Tensor x = ones({2}, t);
    const DType real = is_float(t) ? t : f32;
    for (const Tensor& y : {exp(x), expm1(x), log(x), log1p(x), sqrt(x), rsqrt(x), reciprocal(x), sin(x), cos(x),
                            tanh(x), sigmoid(x), erf(x), pow(x, 2.0), pow(x, 0.0), pow(x, 1.5)})
      EXPECT_EQ(y.dtype(), real) << name_of(t);
    for (const Tensor& y : {floor(x), ceil(x), round(x), stop_gradient(x)}) EXPECT_EQ(y.dtype(), t);
    for (const auto& f : {bp::neg, bp::abs, bp::sign, bp::relu})
      EXPECT_EQ(dtype_of_result([&] { return f(x); }), t == boolean ? std::nullopt : std::optional(t));
  }
}

TEST(Promotion, ComparisonsAndLogicGiveBool) {
  each_pair([](const Tensor& a, const Tensor& b, DType) {
    for (const Tensor& y : {equal(a, b), not_equal(a, b), less(a, b), less_equal(a, b), greater(a, b),
                            greater_equal(a, b), logical_and(a, b), logical_or(a, b), logical_not(a), isfinite(a)})
      EXPECT_EQ(y.dtype(), boolean);
  });
}

TEST(Promotion, NumbersAreWeak) {
  const struct {
    DType tensor;
    double number;
    DType result;
  } table[] = {{f64, 0.5, f64},
               {f32, 1e300, f32},
               {bf16, 0.1, bf16},
               {i64, 2, i64},
               {i32, 7, i32},
               {i32, 0.5, f32},
               {i32, 3e9, i64},
               {i64, 1e300, f32},
               {u8, 255, u8},
               {u8, 256, i64},
               {u8, -1, i64},
               {boolean, 1, boolean},
               {boolean, 2, i64},
               {boolean, 0.5, f32},
               {f32, std::numeric_limits<double>::quiet_NaN(), f32},
               {i32, std::numeric_limits<double>::infinity(), f32}};
  for (const auto& row : table) {
    const Tensor x = ones({2}, row.tensor);
    EXPECT_EQ((x + row.number).dtype(), row.result) << name_of(row.tensor) << " + " << row.number;
    EXPECT_EQ((row.number * x).dtype(), row.result) << row.number << " * " << name_of(row.tensor);
  }
}

TEST(Broadcasting, ShapesMeetAsTheTableSays) {
  const struct {
    Shape a, b;
    std::optional<Shape> result;
  } table[] = {{{}, {3}, Shape{3}},      {{4, 1}, {3}, Shape{4, 3}},    {{2, 1, 5}, {4, 1}, Shape{2, 4, 5}},
               {{0}, {1}, Shape{0}},     {{2, 0}, {1, 1}, Shape{2, 0}}, {{2}, {3}, std::nullopt},
               {{0}, {2}, std::nullopt}, {{2, 3}, {2}, std::nullopt}};
  for (const auto& row : table)
    for (const auto& f : {bp::add, bp::mul, bp::div, bp::less}) {
      SCOPED_TRACE(row.a.str() + " and " + row.b.str());
      if (row.result) {
        EXPECT_EQ(f(ones(row.a), ones(row.b)).shape(), *row.result);
        EXPECT_EQ(f(ones(row.b), ones(row.a)).shape(), *row.result);
      } else {
        try {
          f(ones(row.a), ones(row.b));
          ADD_FAILURE();
        } catch (const Error& e) {
          EXPECT_EQ(e.kind(), ErrorKind::shape);
          EXPECT_THAT(e.what(), testing::AllOf(testing::HasSubstr(row.a.str()), testing::HasSubstr(row.b.str())));
        }
      }
    }
}

// Properties over random shapes: symmetric, equal to the rule taken dimension by dimension, and every element comes
// from the operands' elements at the same coordinates (modulo sizes of 1).
TEST(Broadcasting, RandomShapesFollowTheRule) {
  Rng rng{Key(11)};
  for (int round = 0; round < 200; ++round) {
    const int rank = static_cast<int>(rng.below(5));
    Shape full, a, b;
    for (int d = 0; d < rank; ++d) {
      const auto n = static_cast<std::int64_t>(rng.below(4));  // zero sizes too
      full.push_back(n);
      const auto kind = rng.below(3);
      a.push_back(kind == 0 ? 1 : n);
      b.push_back(kind == 1 ? 1 : n);
    }
    for (auto drop = rng.below(3); drop > 0 && a.rank() > 0 && a[0] == 1; --drop) a.erase(0);
    SCOPED_TRACE(a.str() + " and " + b.str());
    ASSERT_EQ(broadcast_shapes(a, b, "test"), full);
    ASSERT_EQ(broadcast_shapes(b, a, "test"), full);
    const Tensor x = reshape(arange(a.numel()), a), y = reshape(arange(b.numel()), b) * 1000;
    const auto got = (x + y).to_vector<std::int64_t>();
    ASSERT_EQ(static_cast<std::int64_t>(got.size()), full.numel());
    const Shape strides = row_major_strides(full);
    const auto at = [&](const Shape& s, std::int64_t i) {
      const Shape own = row_major_strides(s);
      std::int64_t offset = 0;
      for (int d = 0; d < s.rank(); ++d) {
        const int k = d + full.rank() - s.rank();
        if (s[d] != 1) offset += i / strides[k] % full[k] * own[d];
      }
      return offset;
    };
    for (std::int64_t i = 0; i < full.numel(); ++i)
      ASSERT_EQ(got[static_cast<std::size_t>(i)], at(a, i) + 1000 * at(b, i)) << "element " << i;
  }
}

}  // namespace
}  // namespace bp

// Shapes, dtypes, buffers and the random generator.
#include <gtest/gtest.h>

#include <cmath>

#include "bp/buffer.h"
#include "bp/dtype.h"
#include "bp/error.h"
#include "bp/rng.h"
#include "bp/shape.h"

namespace bp {
namespace {

TEST(Shape, BroadcastsFromTheRight) {
  EXPECT_EQ(broadcast_shapes({2, 1, 3}, {4, 1}, "add"), Shape({2, 4, 3}));
  EXPECT_EQ(broadcast_shapes({}, {0, 3}, "add"), Shape({0, 3}));
  EXPECT_THROW(broadcast_shapes({2}, {3}, "add"), Error);
}

TEST(Shape, RefusesNegativeAndTooManyDimensions) {
  EXPECT_THROW(Shape({-1}), Error);
  EXPECT_THROW(Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}), Error);
}

TEST(DType, PromotesLikeTheTable) {
  EXPECT_EQ(promote(i64, f32), f32);
  EXPECT_EQ(promote(bf16, f32), f32);
  EXPECT_EQ(promote(boolean, u8), u8);
  EXPECT_EQ(dtype_from_name("bf16"), bf16);
  EXPECT_THROW(dtype_from_name("f16"), Error);
}

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(static_cast<float>(bfloat16(1.0f)), 1.0f);
  EXPECT_EQ(bfloat16(1.00390625f).bits, bfloat16(1.0f).bits);       // tie, even below
  EXPECT_EQ(bfloat16(1.01171875f).bits, bfloat16(1.015625f).bits);  // tie, even above
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(NAN))));
}

// The known-answer vectors of Random123 (kat_vectors, philox4x32 10 rounds).
TEST(Rng, PhiloxMatchesThePublishedVectors) {
  const std::array<std::uint32_t, 4> zero{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), zero);
  const std::array<std::uint32_t, 4> ones{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu};
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~std::uint64_t{0}), ones);
}

TEST(Rng, NormalHasUnitVariance) {
  Rng rng(Key(7));
  double sum = 0, squares = 0;
  constexpr int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 0.01);
  EXPECT_NEAR(squares / n, 1.0, 0.02);
}

TEST(Buffer, KnowsWhetherItIsAlone) {
  Buffer a = Buffer::allocate(10);
  EXPECT_TRUE(a.unique());
  Buffer b = a;
  EXPECT_FALSE(a.unique());
  EXPECT_TRUE(b.clone().unique());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0u);
}

}  // namespace
}  // namespace bp

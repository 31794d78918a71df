// Indexing and sorting at their edges: positions out of range, ties, NaN, errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "message_of.h"
#include "ops/values.h"

namespace bp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Computed indices: those that are given are checked before anything runs, these cannot be.
Tensor computed(std::initializer_list<std::int64_t> indices) {
  std::vector<std::int64_t> shifted;
  for (std::int64_t i : indices) shifted.push_back(i - 7);
  return Tensor::from(shifted, {static_cast<std::int64_t>(shifted.size())}) + 7;
}

TEST(Index, GatherOutOfRangeIsNaNOrZero) {
  const Tensor at = computed({1, -1, 2, std::numeric_limits<std::int64_t>::max()});
  const auto x = reals(gather(Tensor::from({5.0, 6.0}), at));
  EXPECT_EQ(x[0], 6);
  for (int i : {1, 2, 3}) EXPECT_TRUE(std::isnan(x[static_cast<std::size_t>(i)]));
  EXPECT_THAT(ints(gather(Tensor::from({5, 6}), at)), ElementsAre(6, 0, 0, 0));
  for (DType t : {f64, f32, bf16, i64, i32, u8, boolean})
    EXPECT_EQ(reals(gather(cast(Tensor::from({0.0, 1.0}), t), at))[0], 1) << name_of(t);
}

TEST(Index, GradientsIgnoreWhatIsOutOfRange) {
  const Tensor x = watch(Tensor::from({5.0, 6.0, 7.0})), at = computed({2, 3, 2, -1});
  const Tensor y = gather(x, at);
  EXPECT_THAT(reals(grad(sum(select(isfinite(y), y, zeros_like(y))), x)), ElementsAre(0, 0, 2));
  const Tensor u = watch(Tensor::from({1.0, 2.0, 3.0, 4.0}));
  EXPECT_THAT(reals(scatter_add({3}, at, u)), ElementsAre(0, 0, 4));
  EXPECT_THAT(reals(grad(sum(scatter_add({3}, at, u)), u)), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(reals(scatter_along(u, at, 0, 3)), ElementsAre(0, 0, 4));
  EXPECT_THAT(reals(grad(sum(scatter_along(u, at, 0, 3)), u)), ElementsAre(1, 0, 1, 0));
}

TEST(Index, ScattersOfIntegers) {
  const Tensor at = Tensor::from<std::int32_t>({0, 2, 0});
  for (DType t : {f64, f32, bf16, i64, i32, u8})
    EXPECT_THAT(reals(scatter_add({3}, at, cast(Tensor::from({1.0, 2.0, 3.0}), t))), ElementsAre(4, 0, 2))
        << name_of(t);
}

TEST(Index, OneHot) {
  const Tensor ids = Tensor::from<std::int64_t>({1, 0, 3, -1}, {2, 2});
  EXPECT_THAT(reals(one_hot(ids, 3)), ElementsAre(0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_EQ(one_hot(ids, 3, bf16).dtype(), bf16);
  EXPECT_EQ(one_hot(ids, 3).shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(reals(one_hot(full({1}, 255, u8), 300))[255], 1);
  EXPECT_EQ(sum(one_hot(full({1}, 255, u8), 300)).item(), 1);
  EXPECT_THAT(message_of([] { one_hot(zeros({2}), 3); }), HasSubstr("[one_hot] expected integer ids, got f32[2]"));
}

TEST(Index, Errors) {
  const Tensor x = zeros({3, 4}), at = zeros({2}, i64);
  EXPECT_THAT(message_of([&] { gather(x, zeros({2})); }), HasSubstr("[gather] expected indices of dtype i32 or i64"));
  EXPECT_THAT(message_of([&] { gather(x, at, 2); }), HasSubstr("axis 2"));
  EXPECT_THAT(message_of([&] { take_along(x, at, 1); }), HasSubstr("[take_along] expected indices like [3, 4]"));
  EXPECT_THAT(message_of([&] { scatter_add({5, 4}, at, zeros({2, 3})); }), HasSubstr("expected updates [2, 4]"));
  EXPECT_THAT(message_of([&] { scatter_add({}, at, x); }), HasSubstr("[scatter_add] expected a shape with an axis"));
  EXPECT_THAT(message_of([&] { scatter_along(x, at, 1, 3); }), HasSubstr("[scatter_along] expected indices [3, 4]"));
}

TEST(Sort, IsStableInBothDirections) {
  const Tensor x = Tensor::from({2.0, 1.0, 2.0, 1.0, 0.0});
  EXPECT_THAT(ints(sort(x).second), ElementsAre(4, 1, 3, 0, 2));
  EXPECT_THAT(ints(sort(x, 0, true).second), ElementsAre(0, 2, 1, 3, 4));
  EXPECT_THAT(ints(top_k(x, 2).second), ElementsAre(0, 2));
  EXPECT_THAT(reals(top_k(x, 0).first), ElementsAre());
}

TEST(Sort, NaNIsLargest) {
  const Tensor x = Tensor::from({2.0, kNaN, -kInf, kNaN, kInf});
  EXPECT_THAT(ints(sort(x).second), ElementsAre(2, 0, 4, 1, 3));
  EXPECT_THAT(ints(sort(x, -1, true).second), ElementsAre(1, 3, 4, 0, 2));
}

TEST(Sort, AlongTheFirstAxisAndOfEveryDtype) {
  for (DType t : {f64, f32, bf16, i64, i32, u8}) {
    const Tensor x = cast(Tensor::from({3.0, 0.0, 1.0, 5.0, 2.0, 1.0}, {3, 2}), t);
    EXPECT_THAT(reals(sort(x, 0).first), ElementsAre(1, 0, 2, 1, 3, 5)) << name_of(t);
    EXPECT_THAT(ints(sort(x, 0).second), ElementsAre(1, 0, 2, 2, 0, 1)) << name_of(t);
  }
  EXPECT_THAT(message_of([] { top_k(zeros({3}), 4); }), HasSubstr("[top_k] expected 0 <= k <= 3"));
}

}  // namespace
}  // namespace bp

// Values and errors of the shape ops, element by element against hand-written results (NumPy's).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bp/error.h"
#include "bp/ops.h"
#include "message_of.h"
#include "ops/values.h"

namespace bp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Ints = std::vector<std::int64_t>;

// 0, 1, 2, ... in any dtype that holds them.
Tensor counting(const Shape& shape, DType dtype = i64) { return reshape(cast(arange(shape.numel()), dtype), shape); }

TEST(Shape, ReshapeFillsTheOpenDimension) {
  EXPECT_EQ(reshape(counting({4, 6}), {2, -1, 3}).shape(), (Shape{2, 4, 3}));
  EXPECT_EQ(reshape(counting({0, 6}), {-1, 6}).shape(), (Shape{0, 6}));
  EXPECT_EQ(flatten(counting({2, 3, 4})).shape(), (Shape{2, 12}));
  EXPECT_EQ(flatten(counting({2, 3, 4}), 0).shape(), (Shape{24}));
  EXPECT_THAT(message_of([] { reshape(counting({4}), {-1, 3}); }), HasSubstr("[reshape]"));
  EXPECT_THAT(message_of([] { reshape(counting({4}), {-1, -1}); }), HasSubstr("[reshape]"));
  EXPECT_THAT(message_of([] { reshape(counting({4}), {0, -1}); }), HasSubstr("[reshape]"));
  EXPECT_THAT(message_of([] { reshape(counting({4}), {5}); }), HasSubstr("4 elements"));
}

TEST(Shape, SqueezeAndUnsqueeze) {
  EXPECT_EQ(unsqueeze(counting({2, 3}), -1).shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(unsqueeze(counting({2, 3}), 0).shape(), (Shape{1, 2, 3}));
  EXPECT_EQ(squeeze(counting({2, 1, 3}), 1).shape(), (Shape{2, 3}));
  EXPECT_THAT(message_of([] { squeeze(counting({2, 3}), 1); }), HasSubstr("to have size 1, got 3"));
  EXPECT_THAT(message_of([] { unsqueeze(counting({2, 3}), 3); }), HasSubstr("axis 3"));
}

TEST(Shape, TransposeOfEveryDtype) {
  for (DType t : {f64, f32, bf16, i64, i32, u8, boolean}) {
    const Tensor x = cast(Tensor::from({0, 1, 0, 0, 1, 1}, {2, 3}), t);
    EXPECT_THAT(ints(transpose(x)), ElementsAre(0, 0, 1, 1, 0, 1)) << name_of(t);
    EXPECT_EQ(transpose(x).dtype(), t);
  }
  const Tensor y = transpose(counting({2, 3, 4}), {2, 0, 1});
  EXPECT_EQ(y.shape(), (Shape{4, 2, 3}));
  EXPECT_THAT(ints(slice(y, 0, 1, 2)), ElementsAre(1, 5, 9, 13, 17, 21));
  EXPECT_EQ(transpose(counting({2, 0, 4}), {2, 0, 1}).shape(), (Shape{4, 2, 0}));
  EXPECT_THAT(message_of([] { transpose(counting({2, 3}), {0, 0}); }), HasSubstr("[transpose] expected a permutation"));
  EXPECT_THAT(message_of([] { transpose(counting({2, 3}), {0}); }), HasSubstr("[transpose] expected a permutation"));
  EXPECT_THAT(message_of([] { transpose(counting({3})); }), HasSubstr("[transpose]"));
}

TEST(Shape, BroadcastRepeats) {
  EXPECT_THAT(ints(broadcast_to(counting({2, 1}), {2, 2, 3})), ElementsAre(0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1));
  EXPECT_THAT(ints(broadcast_to(counting({}), {3})), ElementsAre(0, 0, 0));
  EXPECT_EQ(broadcast_to(counting({1, 3}), {0, 3}).shape(), (Shape{0, 3}));
  EXPECT_THAT(message_of([] { broadcast_to(counting({2}), {3}); }), HasSubstr("[broadcast]"));
  EXPECT_THAT(message_of([] { broadcast_to(counting({3, 2}), {2}); }), HasSubstr("[broadcast]"));
  EXPECT_THAT(message_of([] { broadcast_to(counting({3}), {1}); }), HasSubstr("[broadcast]"));
}

TEST(Shape, SliceIsNumPys) {
  const Tensor x = counting({10});
  EXPECT_THAT(ints(slice(x, 0, 2, 9, 3)), ElementsAre(2, 5, 8));
  EXPECT_THAT(ints(slice(x, 0, 2, 8, 3)), ElementsAre(2, 5));
  EXPECT_THAT(ints(slice(x, 0, -3, -1)), ElementsAre(7, 8));
  EXPECT_THAT(ints(slice(x, 0, -30, 2)), ElementsAre(0, 1));
  EXPECT_THAT(ints(slice(x, 0, 8, std::numeric_limits<std::int64_t>::max())), ElementsAre(8, 9));
  EXPECT_EQ(slice(x, 0, 5, 3).shape(), (Shape{0}));
  EXPECT_EQ(slice(x, 0, 20, 30).shape(), (Shape{0}));
  EXPECT_THAT(ints(slice(counting({3, 4}), {1, 0}, {1, 0}, {4, 3}, {2, 2})), ElementsAre(1, 3, 9, 11));
  EXPECT_THAT(message_of([&] { slice(x, 0, 0, 3, 0); }), HasSubstr("step >= 1"));
  EXPECT_THAT(message_of([&] { slice(x, {0, 0}, {0, 0}, {1, 1}); }), HasSubstr("named twice"));
  EXPECT_THAT(message_of([&] { slice(x, {0}, {0, 1}, {1}); }), HasSubstr("[slice] expected one start"));
  EXPECT_THAT(message_of([&] { slice(x, 1, 0, 3); }), HasSubstr("axis 1"));
}

TEST(Shape, PadGrowsCropsAndSpreads) {
  EXPECT_THAT(ints(pad(counting({3}), {1}, {2}, 9)), ElementsAre(9, 0, 1, 2, 9, 9));
  EXPECT_THAT(ints(pad(counting({3}), {0}, {0}, 9, {2})), ElementsAre(0, 9, 9, 1, 9, 9, 2));
  EXPECT_THAT(ints(pad(counting({5}), {-1}, {-2}, 9)), ElementsAre(1, 2));
  EXPECT_THAT(ints(pad(counting({4}), {-2}, {1}, 9, {2})), ElementsAre(9, 1, 9, 9, 2, 9, 9, 3, 9));
  EXPECT_THAT(ints(pad(counting({2}), {-3}, {3}, 9)), ElementsAre(9, 9));
  EXPECT_THAT(ints(pad(counting({0}), {1}, {1}, 9, {4})), ElementsAre(9, 9));
  EXPECT_THAT(ints(pad(counting({2, 2}), {0, 1}, {1, 0}, 7)), ElementsAre(7, 0, 1, 7, 2, 3, 7, 7, 7));
  EXPECT_THAT(message_of([] { pad(counting({2}), {-2}, {-1}); }), HasSubstr("a size >= 0"));
  EXPECT_THAT(message_of([] { pad(counting({2}), {0}, {0}, 0, {-1}); }), HasSubstr("interior >= 0"));
  EXPECT_THAT(message_of([] { pad(counting({2}), {0, 0}, {0}); }), HasSubstr("[pad] expected one low"));
  EXPECT_THAT(message_of([] { pad(counting({2}), {1}, {0}, INFINITY); }), HasSubstr("finite"));
}

TEST(Shape, ConcatenateStackSplitTile) {
  const Tensor a = counting({2, 2}), b = counting({2, 1}), none = counting({2, 0});
  EXPECT_THAT(ints(concatenate({a, b, none, a}, 1)), ElementsAre(0, 1, 0, 0, 1, 2, 3, 1, 2, 3));
  EXPECT_THAT(ints(concatenate({a, a}, 0)), ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  EXPECT_EQ(concatenate({a, cast(b, f32)}, 1).dtype(), f32);
  EXPECT_THAT(ints(stack({counting({2}), counting({2})}, 1)), ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(stack({a, a, a}, -1).shape(), (Shape{2, 2, 3}));
  EXPECT_THAT(ints(split(counting({2, 6}), 3, 1)[1]), ElementsAre(2, 3, 8, 9));
  EXPECT_THAT(ints(tile(counting({2}), {2, 2})), ElementsAre(0, 1, 0, 1, 0, 1, 0, 1));
  EXPECT_THAT(ints(tile(counting({2, 1}), {2})), ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(tile(counting({2, 3}), {0, 1}).shape(), (Shape{0, 3}));
  EXPECT_THAT(message_of([&] { concatenate({a, b}, 0); }), HasSubstr("[concatenate] expected tensors that differ"));
  EXPECT_THAT(message_of([&] { concatenate({}, 0); }), HasSubstr("[concatenate] expected at least one"));
  EXPECT_THAT(message_of([&] { stack({a, b}, 0); }), HasSubstr("[stack] expected tensors of one shape"));
  EXPECT_THAT(message_of([&] { split(a, 3, 0); }), HasSubstr("[split]"));
  EXPECT_THAT(message_of([&] { split(a, 0, 0); }), HasSubstr("[split]"));
}

TEST(Shape, Reverse) {
  EXPECT_THAT(ints(reverse(counting({2, 3}), {1})), ElementsAre(2, 1, 0, 5, 4, 3));
  EXPECT_THAT(ints(reverse(counting({2, 3}), {0, -1})), ElementsAre(5, 4, 3, 2, 1, 0));
  EXPECT_EQ(reverse(counting({0, 3}), {0}).shape(), (Shape{0, 3}));
  EXPECT_THAT(message_of([] { reverse(counting({3}), {1}); }), HasSubstr("axis 1"));
}

}  // namespace
}  // namespace bp

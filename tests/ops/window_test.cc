// Convolutions and pools: the rules that a table of values does not show: errors, "same", ties, NaN, storage types.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "message_of.h"
#include "ops/reference_run.h"
#include "trace/node.h"

namespace bp {
namespace {

using test::random_tensor;
using test::run_reference;

TEST(Conv, ErrorsNameExpectedAndReceived) {
  const auto message = [](const Shape& x, const Shape& w, const ConvOptions& o = {}) {
    return error_of([&] { conv(ones(x), ones(w), o); });
  };
  EXPECT_EQ(message({64, 32, 32, 3}, {3, 3, 16, 8}), "shape: [conv] expected input [N, H, W, 16], got [64, 32, 32, 3]");
  EXPECT_EQ(message({2, 9, 4}, {3, 2, 8}, {.groups = 4}), "shape: [conv] expected input [N, L, 8], got [2, 9, 4]");
  EXPECT_EQ(message({2, 9, 4}, {3, 2, 9}, {.groups = 2}),
            "shape: [conv] expected output channels to be a multiple of groups = 2, got 9");
  EXPECT_EQ(
      message({1, 4, 4, 1}, {3, 5, 1, 1}, {.padding = {0}}),
      "shape: [conv] expected an input of at least 5 in spatial dimension 1, got 4 with padding (0, 0): the window "
      "has 5 positions");
  EXPECT_EQ(
      message({1, 4, 4, 1}, {3, 3, 1, 1}, {.dilation = {2}}),
      "shape: [conv] expected an input of at least 5 in spatial dimension 0, got 4 with padding (0, 0): the window "
      "has 3 positions 2 apart");
  EXPECT_EQ(message({4, 4}, {3, 3, 1, 1}),
            "shape: [conv] expected input [N, s.., C] with one to three spatial dimensions, got [4, 4]");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 1, 1}),
            "shape: [conv] expected weights [k.., C / groups, O] of rank 4 beside [1, 4, 4, 1], got [3, 1, 1]");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.stride = {1, 1, 1}}),
            "shape: [conv] expected 1 or 2 entries of stride, got 3");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.stride = {0}}), "value: [conv] expected stride >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.stride = {0}, .same = true}),
            "value: [conv] expected stride >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.padding = {-1}}), "value: [conv] expected padding >= 0, got -1");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.groups = 0}), "value: [conv] expected groups >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 1}, {3, 3, 1, 1}, {.padding = {1}, .same = true}),
            "value: [conv] expected either \"same\" or a padding, got \"same\" with (1, 1)");
  EXPECT_EQ(error_of([] {
              conv_transpose(ones({1, 3, 3, 2}), ones({3, 3, 4, 2}), {9}, {.stride = {2}});
            }),
            "shape: [conv_input_grad] expected y [1, 4, 4, 2] beside an x of [1, 9, 9, 4] and a kernel of [3, 3], got "
            "[1, 3, 3, 2]");
}

TEST(Conv, TheLayerIsNamed) {
  const Scope scope("conv2");
  EXPECT_EQ(error_of([] {
              conv(ones({1, 4, 4, 3}), ones({3, 3, 16, 8}));
            }),
            "shape: [conv] conv2: expected input [N, H, W, 16], got [1, 4, 4, 3]");
}

TEST(Conv, SameGivesTheCeilingOfSizeOverStride) {
  for (std::int64_t size = 1; size < 9; ++size)
    for (std::int64_t kernel = 1; kernel < 6; ++kernel)
      for (std::int64_t stride = 1; stride < 4; ++stride) {
        const Tensor y = conv(ones({1, size, 1}), ones({kernel, 1, 1}), {.stride = {stride}, .same = true});
        EXPECT_EQ(y.shape(), (Shape{1, (size + stride - 1) / stride, 1})) << size << " " << kernel << " " << stride;
      }
}

TEST(Conv, IntegersBecomeFloatsAndBf16AccumulatesInMore) {
  EXPECT_EQ(conv(ones({1, 4, 1}, u8), ones({2, 1, 1}, i32)).dtype(), f32);
  // 1024 ones: a sum kept in bf16 would stop at 256.
  const Tensor y = conv(ones({1, 1024, 1}, bf16), ones({1024, 1, 1}, bf16));
  const Tensor direct =
      run_reference(ir::OpId::conv, {random_tensor({1, 4, 1}, 1, bf16), random_tensor({2, 1, 1}, 2, bf16)},
                    {{"stride", ir::Ints{1}},
                     {"dilation", ir::Ints{1}},
                     {"padding_low", ir::Ints{0}},
                     {"padding_high", ir::Ints{0}},
                     {"groups", std::int64_t{1}}})[0];
  EXPECT_EQ(direct.type(), (Type{bf16, {1, 3, 1}}));
  EXPECT_EQ(y.item(), 1024);
}

TEST(Conv, FlopsCountAMultiplyAndAnAdd) {
  const Tensor y = conv(ones({2, 8, 8, 4}), ones({3, 3, 2, 6}), {.padding = {1}, .groups = 2});
  const auto& n = *y.node();
  const std::vector<Type> in{n.inputs[0].type(), n.inputs[1].type()};
  EXPECT_EQ(ir::op_def(n.op).flops(in, n.types, n.attrs), 2.0 * (2 * 8 * 8 * 6) * (3 * 3 * 2));
}

TEST(Pool, ErrorsNameExpectedAndReceived) {
  const auto message = [](const Shape& x, const PoolOptions& o) { return error_of([&] { max_pool(ones(x), o); }); };
  EXPECT_EQ(message({4, 4}, {}),
            "shape: [max_pool] expected input [N, s.., C] with one to three spatial dimensions, got [4, 4]");
  EXPECT_EQ(message({1, 3, 3, 1}, {.window = {4}}),
            "shape: [max_pool] expected an input of at least 4 in spatial dimension 0, got 3 with padding (0, 0): the "
            "window has 4 positions");
  EXPECT_EQ(
      message({1, 3, 3, 1}, {.padding = {2}}),
      "value: [max_pool] expected a padding below the window's 2 positions, got 2: a window of nothing but padding "
      "has no value");
  EXPECT_EQ(message({1, 3, 3, 1}, {.window = {0}}), "value: [max_pool] expected window sizes >= 1, got 0");
  EXPECT_EQ(message({1, 3, 3, 1}, {.window = {2, 2, 2}}), "shape: [max_pool] expected 1 or 2 entries of window, got 3");
  EXPECT_EQ(error_of([] {
              avg_pool(ones({1, 3, 3, 1}), PoolOptions{.dilation = {2}});
            }),
            "value: [avg_pool] expected dilation 1 (it is for max_pool only), got 2");
}

TEST(Pool, TheFirstMaximumTakesTheGradient) {
  const Tensor x = watch(Tensor::from<double>({3, 3, 1, 3, 3, 3}, {1, 6, 1}));
  const Tensor y = max_pool(x, 3);
  EXPECT_EQ(grad(sum(y), x).to_vector<double>(), (std::vector<double>{1, 0, 0, 1, 0, 0}));
}

TEST(Pool, NanPropagatesAndMinusInfinityIsANumber) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const Tensor x = watch(Tensor::from<double>({1, nan, 5, 2, -inf, -inf}, {1, 6, 1}));
  const Tensor y = max_pool(x, 2);
  const std::vector<double> v = y.to_vector<double>();
  EXPECT_TRUE(std::isnan(v[0]));
  EXPECT_EQ(v[1], 5);
  EXPECT_EQ(v[2], -inf);
  EXPECT_EQ(grad(sum(y), x).to_vector<double>(), (std::vector<double>{0, 1, 1, 0, 1, 0}));
  // Padding never takes the gradient, even where nothing is larger than it.
  const Tensor z = watch(Tensor::from<double>({-inf, -inf}, {1, 2, 1}));
  const Tensor padded = max_pool(z, {.window = {2}, .padding = {1}});
  EXPECT_EQ(grad(sum(padded), z).to_vector<double>(), (std::vector<double>{1, 1}));
}

TEST(Pool, IndicesAreOneByteWhereTheyFit) {
  const auto dtype = [](std::int64_t side) {
    return max_pool(ones({1, 20, 20, 1}), PoolOptions{.window = {side, 17}}).node()->types[1].dtype;
  };
  EXPECT_EQ(dtype(15), u8);   // 255 positions
  EXPECT_EQ(dtype(16), i32);  // 272
}

TEST(Pool, IntegersBecomeFloats) {
  EXPECT_EQ(max_pool(ones({1, 4, 1}, u8), 2).dtype(), f32);
  EXPECT_EQ(avg_pool(ones({1, 4, 1}, i64), 2).dtype(), f32);
  EXPECT_EQ(max_pool(ones({1, 4, 1}, bf16), 2).dtype(), bf16);
}

}  // namespace
}  // namespace bp

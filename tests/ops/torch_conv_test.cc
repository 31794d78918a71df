// Convolutions and pools, their gradients and (convolutions) the gradients of those against PyTorch's in f64: the
// values in tests/data/torch_conv.json, which scripts/make_torch_conv_expectations.py wrote.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "bp/grad.h"
#include "bp/ops.h"

namespace bp {
namespace {

using Json = nlohmann::json;
using Sizes = std::vector<std::int64_t>;

Shape shape_of(const Json& j) {
  const auto sizes = j.get<Sizes>();
  return Shape(std::span<const std::int64_t>(sizes));
}

// The operands of the script: multiples of 1/64.
Tensor pattern(const Shape& shape, std::int64_t seed) {
  std::vector<double> v;
  for (std::int64_t i = 0; i < shape.numel(); ++i)
    v.push_back(static_cast<double>((i * 7919 + seed * 104729) % 257 - 128) / 64);
  return watch(Tensor::from(v, shape));
}

void expect_equal(const Tensor& got, const Json& want, const std::string& what) {
  const auto g = got.to_vector<double>(), w = want.get<std::vector<double>>();
  ASSERT_EQ(g.size(), w.size()) << what;
  for (std::size_t i = 0; i < g.size(); ++i)
    ASSERT_NEAR(g[i], w[i], 1e-12 * (1 + std::abs(w[i]))) << what << ", element " << i;
}

std::vector<Tensor> gradients(const Tensor& y, const Tensor& dy, const std::vector<Tensor>& xs) {
  return vjp(std::span(&y, 1), xs, std::span(&dy, 1));
}

ConvOptions conv_options(const Json& c) {
  ConvOptions o;
  o.stride = c["stride"].get<Sizes>();
  o.dilation = c["dilation"].get<Sizes>();
  o.groups = c["groups"];
  o.same = c["same"];
  if (!o.same) {
    o.padding = c["low"].get<Sizes>();
    o.padding_high = c["high"].get<Sizes>();
  }
  return o;
}

void check_conv(const Json& c) {
  const bool transposed = c["op"] == "conv_transpose";
  const Tensor x = pattern(shape_of(c["x_shape"]), 1), w = pattern(shape_of(c["w_shape"]), 2);
  const Tensor y =
      transposed ? conv_transpose(x, w, c["spatial"].get<Sizes>(), conv_options(c)) : conv(x, w, conv_options(c));
  ASSERT_EQ(y.shape(), shape_of(c["y_shape"]));
  const Tensor dy = pattern(y.shape(), 3);
  const std::vector<Tensor> d = gradients(y, dy, {x, w});
  expect_equal(y, c["y"], "y");
  expect_equal(d[0], c["dx"], "dx");
  expect_equal(d[1], c["dw"], "dw");
  if (transposed) return;
  const Tensor s = sum(d[0] * pattern(x.shape(), 4)) + sum(d[1] * pattern(w.shape(), 5));
  const std::vector<Tensor> dd = gradients(s, scalar(1, f64), {x, w, dy});
  expect_equal(dd[0], c["ddx"], "second gradient by x");
  expect_equal(dd[1], c["ddw"], "second gradient by w");
  expect_equal(dd[2], c["ddy"], "second gradient by dy");
}

void check_pool(const Json& c) {
  const Tensor x = pattern(shape_of(c["x_shape"]), 1);
  PoolOptions o;
  o.window = c["window"].get<Sizes>();
  o.stride = c["stride"].get<Sizes>();
  o.padding = c["padding"].get<Sizes>();
  o.dilation = c["dilation"].get<Sizes>();
  o.count_include_pad = c["count_include_pad"];
  const Tensor y = c["op"] == "max_pool" ? max_pool(x, o) : avg_pool(x, o);
  ASSERT_EQ(y.shape(), shape_of(c["y_shape"]));
  const std::vector<Tensor> d = gradients(y, pattern(y.shape(), 3), {x});
  expect_equal(y, c["y"], "y");
  expect_equal(d[0], c["dx"], "dx");
}

TEST(TorchConv, ValuesAndGradientsAreThoseOfPyTorch) {
  const Json all = Json::parse(std::ifstream(BP_TEST_DATA "/torch_conv.json"));
  ASSERT_GE(all["cases"].size(), 30u);
  for (const Json& c : all["cases"]) {
    SCOPED_TRACE(c["op"].get<std::string>() + ": " + c["name"].get<std::string>());
    if (c.contains("w_shape"))
      check_conv(c);
    else
      check_pool(c);
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace bp

// Gradients at kinks and ties, extreme arguments, and the errors of compositions, einsum and losses.
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

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

using Unary = std::function<Tensor(const Tensor&)>;

double value(const Unary& f, double x) { return f(scalar(x, f64)).item(); }
double slope(const Unary& f, double at, DType t = f64) {
  const Tensor x = watch(scalar(at, t));
  return grad(f(x), x).item();
}
double curvature(const Unary& f, double at) {
  const Tensor x = watch(scalar(at, f64));
  return grad(grad(f(x), x), x).item();
}

TEST(Kinks, GradientsAreThoseOfPyTorch) {
  EXPECT_EQ(slope([](const Tensor& x) { return elu(x, 1.5); }, 0), 1.5);
  EXPECT_EQ(slope([](const Tensor& x) { return leaky_relu(x, 0.1); }, 0), 0.1);
  for (double edge : {-1.0, 2.0}) EXPECT_EQ(slope([](const Tensor& x) { return clip(x, -1, 2); }, edge), 1);
  EXPECT_EQ(slope([](const Tensor& x) { return clip(x, -1, 2); }, 2.5), 0);
  EXPECT_EQ(slope([](const Tensor& x) { return norm(x); }, 0), 0);
}

// Zero logits are where training begins: |x| in the formula would lose the second derivative there.
TEST(Kinks, SmoothFunctionsHaveAllTheirDerivatives) {
  EXPECT_EQ(slope(softplus, 0), 0.5);
  EXPECT_EQ(curvature(softplus, 0), 0.25);
  const Unary bce = [](const Tensor& z) { return binary_cross_entropy(z, scalar(1, f64)); };
  EXPECT_EQ(slope(bce, 0), -0.5);
  EXPECT_EQ(curvature(bce, 0), 0.25);
  EXPECT_EQ(curvature([](const Tensor& x) { return huber_loss(x, scalar(0, f64)); }, 0), 1);
}

TEST(Kinks, TiesShareTheGradient) {
  const Tensor x = watch(Tensor::from({3.0, 1.0, 3.0, 2.0}));
  EXPECT_THAT(reals(grad(max(x), x)), ElementsAre(0.5, 0, 0.5, 0));
  EXPECT_THAT(reals(grad(min(x), x)), ElementsAre(0, 1, 0, 0));
}

TEST(Extremes, ActivationsAndTheirGradientsAreFinite) {
  const Unary all[] = {softplus,
                       gelu,
                       gelu_tanh,
                       silu,
                       [](const Tensor& x) { return elu(x); },
                       [](const Tensor& x) { return leaky_relu(x); }};
  for (DType t : {f64, f32})
    for (const Unary& f : all) {
      EXPECT_NEAR(f(scalar(1e4, t)).item(), 1e4, 1e-2);
      EXPECT_EQ(slope(f, 1e4, t), 1);
      EXPECT_GE(f(scalar(-1e4, t)).item(), -100.001);
      EXPECT_TRUE(std::isfinite(slope(f, -1e4, t)));
    }
  EXPECT_EQ(value([](const Tensor& x) { return elu(x); }, -1e4), -1);
  EXPECT_TRUE(std::isnan(value(softplus, std::nan(""))));
  EXPECT_TRUE(std::isnan(value([](const Tensor& x) { return clip(x, 0, 1); }, std::nan(""))));
}

TEST(Extremes, Softmax) {
  for (DType t : {f64, f32}) {
    const Tensor x = watch(cast(Tensor::from({1e4, -1e4, 1e4, 0.0}), t));
    EXPECT_THAT(reals(softmax(x)), ElementsAre(0.5, 0, 0.5, 0));
    EXPECT_NEAR(reals(log_softmax(x))[1], -2e4 - std::log(2), t == f64 ? 1e-11 : 2e-3);
    EXPECT_THAT(reals(grad(sum(square(softmax(x))), x)), Each(0));
  }
  const Tensor masked = watch(Tensor::from({-kInf, 0.0, 0.0}));
  EXPECT_THAT(reals(softmax(masked)), ElementsAre(0, 0.5, 0.5));
  EXPECT_EQ(reals(grad(slice(softmax(masked), 0, 1, 2), masked))[0], 0);
}

TEST(Extremes, LogsumexpOfNothingHasNoGradient) {
  const Tensor x = watch(full({3}, -kInf, f64));
  EXPECT_THAT(reals(grad(logsumexp(x), x)), Each(0));
}

TEST(CrossEntropy, ExtremeLogits) {
  for (DType t : {f64, f32}) {
    const Tensor z = watch(cast(Tensor::from({1e4, 0.0, -1e4, 0.0, 0.0, 0.0}, {2, 3}), t));
    const Tensor ids = Tensor::from<std::int64_t>({2, 0});
    const Tensor loss = cross_entropy(z, ids, {.reduction = Reduction::none});
    EXPECT_EQ(reals(loss)[0], 2e4);
    EXPECT_NEAR(reals(loss)[1], std::log(3), 1e-6);
    const auto g = reals(grad(sum(loss), z));
    EXPECT_THAT(std::vector(g.begin(), g.begin() + 3), ElementsAre(1, 0, -1));
    EXPECT_NEAR(g[3], 1.0 / 3 - 1, 1e-7);
  }
}

TEST(CrossEntropy, AnIdOutOfRangeIsNaN) {
  const Tensor z = watch(zeros({3, 2}, f64));
  for (std::int64_t id : {-1, 2, 100}) {
    const Tensor ids = Tensor::from<std::int64_t>({0, id, 1});
    const auto each = reals(cross_entropy(z, ids, {.reduction = Reduction::none}));
    EXPECT_DOUBLE_EQ(each[0], std::log(2));
    EXPECT_TRUE(std::isnan(each[1]));
    EXPECT_TRUE(std::isnan(cross_entropy(z, ids).item()));
    EXPECT_TRUE(std::isnan(cross_entropy(z, ids, {.class_weights = ones({2}, f64)}).item()));
    EXPECT_TRUE(std::isnan(cross_entropy(z, ids, {.label_smoothing = 0.1}).item()));
  }
}

TEST(CrossEntropy, MaskedClassesContributeNothing) {
  const Tensor z = watch(Tensor::from({0.0, -kInf, 0.0}, {1, 3}));
  const Tensor loss = cross_entropy(z, Tensor::from<std::int64_t>({0}));
  EXPECT_DOUBLE_EQ(loss.item(), std::log(2));
  EXPECT_THAT(reals(grad(loss, z)), ElementsAre(-0.5, 0, 0.5));
  EXPECT_DOUBLE_EQ(cross_entropy(z, Tensor::from({0.5, 0.0, 0.5}, {1, 3})).item(), std::log(2));
}

TEST(CrossEntropy, OfBf16IsComputedInF32) {
  const Tensor z = cast(Tensor::from({3.0, 1.0, -2.0, 0.5, 0.25, 4.0}, {2, 3}), bf16);
  const Tensor ids = Tensor::from<std::int64_t>({1, 2});
  EXPECT_EQ(cross_entropy(z, ids).dtype(), f32);
  EXPECT_FLOAT_EQ(cross_entropy(z, ids).item<float>(), cross_entropy(cast(z, f32), ids).item<float>());
  EXPECT_EQ(squared_error(z, z).dtype(), f32);
}

TEST(CrossEntropy, Errors) {
  const Tensor z = zeros({4, 3});
  EXPECT_THAT(message_of([&] { cross_entropy(z, zeros({4})); }), HasSubstr("expected probabilities [4, 3]"));
  EXPECT_THAT(message_of([&] { cross_entropy(z, zeros({4, 3}, i64)); }), HasSubstr("expected class ids [4]"));
  EXPECT_THAT(message_of([&] { cross_entropy(z, zeros({4}, boolean)); }), HasSubstr("expected integer class ids"));
  EXPECT_THAT(message_of([&] { cross_entropy(z, zeros({4}, i64), {.label_smoothing = 1.5}); }), HasSubstr("[0, 1]"));
  EXPECT_THAT(message_of([&] { cross_entropy(z, zeros({4}, i64), {.class_weights = ones({4})}); }),
              HasSubstr("one weight for each of 3 classes"));
  EXPECT_THAT(message_of([&] { cross_entropy(zeros({4, 0}), zeros({4}, i64)); }), HasSubstr("[.., classes]"));
}

TEST(Losses, BinaryCrossEntropyKeepsTheTail) {
  const Tensor z = scalar(30, f64);
  EXPECT_DOUBLE_EQ(binary_cross_entropy(z, ones_like(z)).item(), std::log1p(std::exp(-30.0)));
  EXPECT_EQ(binary_cross_entropy(scalar(1e4), scalar(0)).item(), 1e4);
  EXPECT_EQ(binary_cross_entropy(scalar(-1e4), scalar(1)).item(), 1e4);
}

TEST(Losses, KlOfImpossibleClasses) {
  const Tensor lq = watch(Tensor::from({std::log(0.25), -kInf, std::log(0.75)}, {1, 3}));
  const Tensor p = watch(Tensor::from({0.5, 0.0, 0.5}, {1, 3}));
  const Tensor kl = kl_divergence(lq, p);
  EXPECT_NEAR(kl.item(), 0.5 * std::log(2) + 0.5 * std::log(0.5 / 0.75), 1e-15);
  EXPECT_THAT(reals(grad(kl, lq)), ElementsAre(-0.5, 0, -0.5));
  EXPECT_EQ(reals(grad(kl, p))[1], 0);
}

TEST(Losses, ShapesMustAgree) {
  EXPECT_THAT(message_of([] {
                squared_error(zeros({4, 1}), zeros({4}));
              }),
              HasSubstr("[squared_error] expected a target of shape [4, 1], got [4]"));
  EXPECT_THAT(message_of([] { binary_cross_entropy(zeros({4, 1}), zeros({4})); }), HasSubstr("[binary_cross_entropy]"));
  EXPECT_THAT(message_of([] { huber_loss(zeros({4}), zeros({4}), 0); }), HasSubstr("[huber_loss] expected delta > 0"));
}

TEST(Compose, Errors) {
  EXPECT_THAT(message_of([] { clip(zeros({2}), 2, 1); }), HasSubstr("[clip] expected low <= high"));
  EXPECT_THAT(message_of([] { softmax(zeros({2}), 1); }), HasSubstr("axis 1"));
  const auto einsum_error = [](const char* equation, std::vector<Tensor> x) {
    return message_of([&] { einsum(equation, x); });
  };
  const Tensor x = zeros({2, 3});
  EXPECT_THAT(einsum_error("...i->i", {x}), HasSubstr("ellipsis is not supported"));
  EXPECT_THAT(einsum_error("ii->i", {x}), HasSubstr("every letter once"));
  EXPECT_THAT(einsum_error("ij->k", {x}), HasSubstr("'k'"));
  EXPECT_THAT(einsum_error("ij,jk->ik", {x}), HasSubstr("expected 2 operands"));
  EXPECT_THAT(einsum_error("ij,jk->ik", {x, x}), HasSubstr("one size for 'j'"));
  EXPECT_THAT(einsum_error("ijk->k", {x}), HasSubstr("expected 3 dimensions"));
  EXPECT_EQ(einsum("ij,jk", {x, zeros({3, 4})}).shape(), (Shape{2, 4}));
}

}  // namespace
}  // namespace bp

// The formulas of the lecture notes, delta = (W^T delta_next) g'(z), dW = delta a^T, db = delta, on a network of 2-3-1
// sigmoid units whose numbers come out by hand: sigma(0) = 1/2, sigma(ln 3) = 3/4, sigma(-ln 3) = 1/4.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bp/grad.h"
#include "bp/ops.h"

namespace bp {
namespace {

using Values = std::vector<double>;
using testing::DoubleNear;
using testing::Pointwise;

const double kLn3 = std::log(3.0);

// Columns, as in the notes: x [2, 1], W1 [3, 2], b1 [3, 1], W2 [1, 3], b2 [1, 1], t [1, 1].
struct Network {
  Tensor x = Tensor::from({1.0, 2.0}, {2, 1});
  Variable w1{Tensor::from({2.0, -1.0, 1.0, 1.0, -1.0, 0.0}, {3, 2})};
  Variable b1{Tensor::from({0.0, kLn3 - 3, 1 - kLn3}, {3, 1})};
  Variable w2{Tensor::from({2.0, -4.0, 8.0}, {1, 3})};
  Variable b2{Tensor::from({kLn3}, {1, 1})};
  Tensor t = Tensor::from({0.25}, {1, 1});
};

// Forward, by hand:
//   W1 x = (2 - 2, 1 + 2, -1 + 0) = (0, 3, -1)      z1 = W1 x + b1 = (0, ln 3, -ln 3)
//   a1 = sigma(z1) = (1/2, 3/4, 1/4)                g'(z1) = a1 (1 - a1) = (1/4, 3/16, 3/16)
//   W2 a1 = 1 - 3 + 2 = 0                           z2 = W2 a1 + b2 = ln 3
//   y = sigma(z2) = 3/4                             g'(z2) = 3/16
//   E = 1/2 (y - t)^2 = 1/2 (3/4 - 1/4)^2 = 1/8
// Backward, by hand:
//   delta2 = (y - t) g'(z2) = 1/2 * 3/16 = 3/32
//   dW2 = delta2 a1^T = (3/64, 9/128, 3/128)        db2 = delta2 = 3/32
//   W2^T delta2 = 3/32 (2, -4, 8) = (3/16, -3/8, 3/4)
//   delta1 = W2^T delta2 g'(z1) = (3/64, -9/128, 9/64)
//   dW1 = delta1 x^T = ((3/64, 6/64), (-9/128, -18/128), (9/64, 18/64))     db1 = delta1
//   dx = W1^T delta1 = (2 * 3/64 - 9/128 - 9/64, -3/64 - 9/128) = (-15/128, -15/128)
const Values kDelta1 = {3.0 / 64, -9.0 / 128, 9.0 / 64}, kDelta2 = {3.0 / 32};
const Values kDw1 = {3.0 / 64, 6.0 / 64, -9.0 / 128, -18.0 / 128, 9.0 / 64, 18.0 / 64};
const Values kDw2 = {3.0 / 64, 9.0 / 128, 3.0 / 128};
const Values kDx = {-15.0 / 128, -15.0 / 128};

void expect_values(const Tensor& got, const Values& want) {
  EXPECT_THAT(got.to_vector<double>(), Pointwise(DoubleNear(1e-15), want));
}

TEST(Notes, GradientsOfTheWorkedNetwork) {
  Network n;
  n.x = watch(n.x);
  const Tensor a1 = sigmoid(matmul(n.w1, n.x) + n.b1.get());
  const Tensor y = sigmoid(matmul(n.w2, a1) + n.b2.get());
  const Tensor loss = sum(square(y - n.t)) * 0.5;
  expect_values(a1, {0.5, 0.75, 0.25});
  expect_values(y, {0.75});
  EXPECT_NEAR(loss.item(), 0.125, 1e-16);

  std::vector<Variable> parameters;
  for (const Variable* v : {&n.w1, &n.b1, &n.w2, &n.b2}) parameters.push_back(v->alias());
  const std::vector<Tensor> g = grad(loss, parameters);
  expect_values(g[0], kDw1);
  expect_values(g[1], kDelta1);
  expect_values(g[2], kDw2);
  expect_values(g[3], kDelta2);
  expect_values(grad(loss, n.x), kDx);
}

// The formulas themselves, written with the same operations, give what the reverse walk gives.
TEST(Notes, TheFormulasAreTheReverseWalk) {
  const Network n;
  const Tensor a1 = sigmoid(matmul(n.w1, n.x) + n.b1.get());
  const Tensor y = sigmoid(matmul(n.w2, a1) + n.b2.get());
  const Tensor delta2 = (y - n.t) * (y * (1 - y));
  const Tensor delta1 = matmul(n.w2, delta2, true) * (a1 * (1 - a1));
  expect_values(delta2, kDelta2);
  expect_values(delta1, kDelta1);
  expect_values(matmul(delta2, a1, false, true), kDw2);
  expect_values(matmul(delta1, n.x, false, true), kDw1);
}

// The same step in rows, as layers compute it: x [N, in], W [in, out]; a batch of two equal samples, mean over the
// batch.
TEST(Notes, RowsAndBatchesGiveTheSameNumbers) {
  const Network n;
  const Tensor x = concatenate({transpose(n.x), transpose(n.x)}, 0);
  const Tensor w1 = watch(transpose(n.w1)), b1 = watch(reshape(n.b1, Shape{3}));
  const Tensor w2 = watch(transpose(n.w2)), b2 = watch(reshape(n.b2, Shape{1}));
  const Tensor y = sigmoid(matmul(sigmoid(matmul(x, w1) + b1), w2) + b2);
  const Tensor loss = mean(square(y - n.t)) * 0.5;
  const std::vector<Tensor> g = grad(loss, std::vector<Tensor>{w1, b1, w2, b2});
  expect_values(transpose(g[0]), kDw1);
  expect_values(g[1], kDelta1);
  expect_values(transpose(g[2]), kDw2);
  expect_values(g[3], kDelta2);
}

}  // namespace
}  // namespace bp

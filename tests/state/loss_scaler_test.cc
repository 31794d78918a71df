// Dynamic loss scaling: the scale's schedule, and that a skipped step is as if it had not happened.
#include "bp/loss_scaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "bp/compile.h"
#include "bp/grad.h"
#include "bp/nn.h"
#include "bp/ops.h"
#include "bp/optim.h"
#include "message_of.h"

namespace bp {
namespace {

struct Net {
  nn::Linear first{4, 8};
  nn::BatchNorm norm{8};
  nn::Linear last{8, 1};
  Tensor operator()(const Tensor& x) const { return last(relu(norm(first(x)))); }
  BP_FIELDS(Net, first, norm, last)
};

std::vector<std::vector<double>> values_of_all(const std::vector<nn::NamedVariable>& all) {
  std::vector<std::vector<double>> out;
  for (const auto& v : all) out.push_back(v.variable.get().to_vector<double>());
  return out;
}

const Tensor kInput = Tensor::from<float>({1, 2, 3, 4, -1, 0, 1, 2, 0.5, -2, 3, 1}, {3, 4});

TEST(LossScaler, StepsAreThoseWithoutIt) {
  const auto train = [](bool scaled) {
    Net net;
    nn::init(net, Key{1});
    optim::Adam adam(net, {.lr = 1e-2});
    optim::LossScaler scaler({.scale = 1024, .interval = 2});
    auto step = compile(
        [&](const Tensor& x) {
          const Tensor loss = mean(square(net(x) - 1.0));
          adam.update(scaled ? scaler.unscaled(grad(scaler.scaled(loss), net)) : grad(loss, net));
          return loss;
        },
        {.mode = Mode::train});
    for (int i = 0; i < 5; ++i) step(kInput);
    if (scaled) {
      EXPECT_EQ(scaler.scale.get().item(), 4096);  // doubled after two and four good steps
      EXPECT_EQ(scaler.good.get().item(), 1);
      EXPECT_EQ(scaler.skipped.get().item(), 0);
    }
    return values_of_all(nn::state(net));
  };
  EXPECT_EQ(train(true), train(false));  // powers of two scale exactly
}

TEST(LossScaler, ASkippedStepChangesNothingButTheScale) {
  Net net;
  nn::init(net, Key{2});
  optim::Adam adam(net, {.lr = 1e-2});
  optim::LossScaler scaler({.scale = 1e38});
  auto step = compile(
      [&](const Tensor& x) {
        const Tensor loss = mean(square(net(x) - 1000.0));
        adam.update(scaler.unscaled(grad(scaler.scaled(loss), net)));
        return loss;
      },
      {.mode = Mode::train});
  const auto before = values_of_all(nn::state(net)), moments = values_of_all(adam.state());
  double scale = scaler.scale.get().item();
  int skipped = 0;
  for (; skipped < 100; ++skipped) {
    step(kInput);
    if (scaler.skipped.get().item() == skipped) break;  // this one was good
    scale /= 2;
    EXPECT_EQ(scaler.scale.get().item(), scale);
    EXPECT_EQ(values_of_all(nn::state(net)), before) << "after " << skipped;  // running statistics among them
    EXPECT_EQ(values_of_all(adam.state()), moments);
  }
  EXPECT_GT(skipped, 3);
  EXPECT_LT(skipped, 60);
  EXPECT_NE(values_of_all(nn::state(net)), before);
  EXPECT_EQ(adam.step.get().item(), 1);
  EXPECT_EQ(scaler.good.get().item(), 1);
}

TEST(LossScaler, NaNIsAReasonToSkipToo) {
  Variable w(Tensor::from<float>({1}, Shape{1}));
  optim::LossScaler scaler;
  auto step = compile([&](const Tensor& x) {
    const Tensor loss = sum(w.get() * x);
    w.set(w.get() - scaler.unscaled(std::vector<Tensor>{grad(scaler.scaled(loss), w)})[0]);
    return loss;
  });
  step(Tensor::from<float>({NAN}, Shape{1}));
  EXPECT_EQ(w.get().item(), 1);
  EXPECT_EQ(scaler.scale.get().item(), 32768);
  step(Tensor::from<float>({0.5}, Shape{1}));
  EXPECT_EQ(w.get().item(), 0.5);
  EXPECT_EQ(scaler.skipped.get().item(), 1);
}

TEST(LossScaler, BadUseIsNamed) {
  using testing::HasSubstr;
  const auto make = [](optim::LossScalerOptions o) { return [o] { optim::LossScaler s(o); }; };
  EXPECT_THAT(message_of(ErrorKind::value, make({.scale = 0})), HasSubstr("scale: expected a positive number"));
  EXPECT_THAT(message_of(ErrorKind::value, make({.scale = 1e39})), HasSubstr("that f32 holds, got 1e+39"));
  EXPECT_THAT(message_of(ErrorKind::value, make({.growth = 0.5})), HasSubstr("growth: expected 1 or more, got 0.5"));
  EXPECT_THAT(message_of(ErrorKind::value, make({.backoff = 1})), HasSubstr("backoff: expected a number between"));
  EXPECT_THAT(message_of(ErrorKind::value, make({.interval = 0})), HasSubstr("interval: expected 1 or more, got 0"));
  optim::LossScaler s;
  const std::vector<Tensor> g{full({2}, 1.0)};
  EXPECT_THAT(message_of(ErrorKind::state, [&] { s.unscaled(g); }), HasSubstr("[commit_if] outside compile"));
  const auto commit = [](const Tensor& c) {
    return [c] {
      auto f = compile([&](const Tensor& x) {
        commit_if(c);
        return x;
      });
      f(full({2}, 1.0));
    };
  };
  EXPECT_THAT(message_of(ErrorKind::dtype, commit(full({}, 1.0))), HasSubstr("expected one boolean, got f32[]"));
  EXPECT_THAT(message_of(ErrorKind::shape, commit(full({2}, 1.0, boolean))),
              HasSubstr("expected one boolean, got bool[2]"));
}

}  // namespace
}  // namespace bp

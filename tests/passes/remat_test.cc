// Rematerialisation: a step within a memory budget gives the results of the same step without one, bit for bit; a
// budget that cannot be met is refused with the least possible, which then can.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>

#include "bp/bp.h"
#include "message_of.h"

namespace bp {
namespace {

using testing::HasSubstr;

// A training of a few steps: its results, its final state and what it was planned to take.
struct Trained {
  std::vector<Buffer> results;
  ExecutableInfo info;
};

struct Work {
  std::shared_ptr<void> owner;
  std::function<Tensor()> loss;
  std::vector<Variable> state;  // parameters, running statistics, random states
  bool guard = true;
  DType precision = f32;
  std::vector<std::string> disable = {};
};

template <class M> Work work(std::shared_ptr<M> model, std::function<Tensor(const M&)> loss) {
  Work w;
  nn::init(*model, Key(7));
  for (nn::NamedVariable& v : nn::state(*model)) w.state.push_back(v.variable.alias());
  w.loss = [m = model.get(), loss] { return loss(*m); };
  w.owner = model;
  return w;
}

Tensor uniform_numbers(const Shape& shape, std::uint64_t seed) {
  Rng rng{Key(seed)};
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (float& x : v) x = static_cast<float>(2 * rng.uniform() - 1);
  return Tensor::from(v, shape);
}
Tensor classes(const Shape& shape, std::int64_t count, std::uint64_t seed) {
  Rng rng{Key(seed)};
  std::vector<std::int64_t> v(static_cast<std::size_t>(shape.numel()));
  for (std::int64_t& x : v) x = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(count)));
  return Tensor::from(v, shape);
}

Work gpt() {
  const nn::GPTOptions options{.layers = 6, .heads = 2, .width = 32, .dropout = 0.1};
  return work<nn::GPT>(std::make_shared<nn::GPT>(20, 32, options), [](const nn::GPT& m) {
    return cross_entropy(m(classes({4, 32}, 20, 1)), classes({4, 32}, 20, 2));
  });
}

Work mixed_gpt() {
  Work w = gpt();
  w.precision = bf16;
  return w;
}

struct Residual {
  nn::Conv2d stem{3, 12, 3, {.padding = 1, .bias = false}};
  std::vector<nn::Conv2d> convs;
  std::vector<nn::BatchNorm> norms;
  nn::Linear head{12, 10};
  Residual() {
    for (int i = 0; i < 6; ++i) convs.push_back({12, 12, 3, {.padding = 1, .bias = false}});
    for (int i = 0; i < 6; ++i) norms.emplace_back(12);
  }
  Tensor operator()(Tensor x) const {
    x = stem(x);
    for (std::size_t i = 0; i < convs.size(); ++i) x = x + relu(norms[i](convs[i](x)));
    return head(mean(x, {1, 2}));
  }
  BP_FIELDS(Residual, stem, convs, norms, head)
};
Work residual() {
  return work<Residual>(std::make_shared<Residual>(), [](const Residual& m) {
    return cross_entropy(m(uniform_numbers({6, 12, 12, 3}, 1)), classes({6}, 10, 2));
  });
}

// The loop that normalises also moves the running statistics, which the second run must not. (Large enough for the pass
// recompute to leave one loop.)
Work normed() {
  auto model = std::make_shared<nn::Sequential>();
  for (int i = 0; i < 5; ++i)
    model->add(nn::Conv2d(i == 0 ? 3 : 12, 12, 3, {.padding = 1, .bias = false}))
        .add(nn::BatchNorm(12))
        .add(nn::ReLU());
  model->add(nn::GlobalAvgPool()).add(nn::Linear(12, 10));
  Work w = work<nn::Sequential>(model, [](const nn::Sequential& m) {
    return cross_entropy(m(uniform_numbers({44, 16, 16, 3}, 1)), classes({44}, 10, 2));
  });
  w.guard = false;  // a guarded state is overwritten once the loss is known, not by that loop
  return w;
}

// A loop that would round its product and sum together if nobody read the product, as nobody does after the second run.
struct Scaled {
  std::vector<nn::Linear> products;
  std::vector<Variable> gains, shifts;
  Scaled() {
    for (std::uint64_t i = 0; i < 8; ++i) {
      products.emplace_back(32, 32);
      gains.emplace_back(uniform_numbers({32}, 10 + i));
      shifts.emplace_back(uniform_numbers({32}, 20 + i));
    }
  }
  Tensor operator()(Tensor x) const {
    for (std::size_t i = 0; i < products.size(); ++i) {
      const Tensor scaled = products[i](x) * gains[i];
      x = tanh(scaled + shifts[i]) + reverse(scaled, {1});
    }
    return x;
  }
  BP_FIELDS(Scaled, products, gains, shifts)
};
Work scaled() {
  return work<Scaled>(std::make_shared<Scaled>(), [](const Scaled& m) {
    return squared_error(m(uniform_numbers({64, 32}, 1)), uniform_numbers({64, 32}, 2));
  });
}

Work dropped_mlp() {
  auto model = std::make_shared<nn::Sequential>();
  for (int i = 0; i < 8; ++i) model->add(nn::Linear(48, 48)).add(nn::Tanh()).add(nn::Dropout(0.3));
  return work<nn::Sequential>(model, [](const nn::Sequential& m) {
    return squared_error(m(uniform_numbers({256, 48}, 1)), uniform_numbers({256, 48}, 2));
  });
}

struct Recurrent {
  nn::Embedding embed{12, 16};
  nn::LSTM lstm{16, 24, {.layers = 3, .dropout = 0.2}};
  nn::Linear head{24, 12};
  Tensor operator()(const Tensor& ids) const { return head(lstm(embed(ids))); }
  BP_FIELDS(Recurrent, embed, lstm, head)
};
Work recurrent() {
  return work<Recurrent>(std::make_shared<Recurrent>(), [](const Recurrent& m) {
    return cross_entropy(m(classes({8, 20}, 12, 1)), classes({8, 20}, 12, 2));
  });
}

Trained train(const std::function<Work()>& make, std::size_t budget, int threads, int steps = 4) {
  const Work w = make();
  std::vector<Variable> parameters;
  for (const Variable& v : w.state)
    if (v.trainable()) parameters.push_back(v.alias());
  optim::AdamW optimizer(std::move(parameters), {.lr = 1e-2});
  auto step = compile(
      [&] {
        const Tensor loss = w.loss();
        optimizer.update(grad(loss, optimizer.parameters()));
        return loss;
      },
      {.mode = Mode::train,
       .threads = threads,
       .guard = w.guard,
       .precision = w.precision,
       .disable_passes = w.disable,
       .memory_budget = budget});
  Trained t;
  for (int i = 0; i < steps; ++i) t.results.push_back(step().buffer().clone());
  for (const Variable& v : w.state) t.results.push_back(v.get().buffer().clone());
  t.info = step.info();
  return t;
}

// The number that a refusal names.
std::size_t least_of(const std::function<Work()>& make) {
  const std::string message = message_of(ErrorKind::config, [&] { train(make, 1, 1, 1); });
  EXPECT_THAT(message, HasSubstr("[compile] memory_budget: expected at least "));
  EXPECT_THAT(message, HasSubstr("got 1 "));
  return std::stoul(message.substr(message.find("at least ") + 9));
}

void expect_same_bits(const Trained& a, const Trained& b, const std::string& what) {
  ASSERT_EQ(a.results.size(), b.results.size());
  for (std::size_t i = 0; i < a.results.size(); ++i) {
    ASSERT_EQ(a.results[i].bytes(), b.results[i].bytes());
    EXPECT_EQ(std::memcmp(a.results[i].data(), b.results[i].data(), a.results[i].bytes()), 0)
        << what << ", result " << i;
  }
}

struct RematCase {
  const char* name;
  Work (*make)();
  double share;  // of the arena that can be done with
};
class Remat : public testing::TestWithParam<RematCase> {};

TEST_P(Remat, EveryBudgetGivesTheSameBits) {
  const auto& [name, make, share] = GetParam();
  for (int threads : {1, 2}) {
    const Trained whole = train(make, 0, threads);
    const auto fixed = static_cast<double>(whole.info.planned_peak_bytes - whole.info.arena_bytes);
    for (double s : {0.5 + share / 2, share}) {
      const double budget = fixed + s * static_cast<double>(whole.info.arena_bytes);
      const Trained less = train(make, static_cast<std::size_t>(budget), threads);
      EXPECT_LE(static_cast<double>(less.info.planned_peak_bytes), budget);
      EXPECT_GT(less.info.flops, whole.info.flops);
      expect_same_bits(whole, less, std::to_string(s));
    }
  }
}

TEST_P(Remat, TheLeastIsNamedAndSuffices) {
  const std::size_t least = least_of(GetParam().make);
  const Trained whole = train(GetParam().make, 0, 1), tight = train(GetParam().make, least, 1);
  EXPECT_LE(tight.info.planned_peak_bytes, least);
  EXPECT_LT(least, whole.info.planned_peak_bytes);
  expect_same_bits(whole, tight, "least");
}

// Shares of the arena, which also holds packed weights: more of them where the processor knows AVX-512.
INSTANTIATE_TEST_SUITE_P(Cases, Remat,
                         testing::Values(RematCase{"gpt", gpt, 0.45}, RematCase{"mixed_gpt", mixed_gpt, 0.5},
                                         RematCase{"residual", residual, 0.75}, RematCase{"normed", normed, 0.65},
                                         RematCase{"scaled", scaled, 0.6}, RematCase{"dropout", dropped_mlp, 0.6},
                                         RematCase{"lstm", recurrent, 0.9}),
                         [](const auto& test) { return test.param.name; });

// Layer norms are made of what the backward pass keeps anyway, for a hundredth of the products' work.
TEST(RematPlan, WhatCostsNextToNothingIsComputedAgainWithoutABudget) {
  const auto make = [](bool plain) {
    auto model = std::make_shared<nn::Sequential>();
    for (int i = 0; i < 4; ++i)
      model->add(nn::LayerNorm(256)).add(nn::Linear(256, 512)).add(nn::Tanh()).add(nn::Linear(512, 256));
    Work w = work<nn::Sequential>(model, [](const nn::Sequential& m) {
      return mean(m(uniform_numbers({2048, 256}, 1)));
    });
    if (plain) w.disable = {"remat"};
    return w;
  };
  const Trained plain = train([&] { return make(true); }, 0, 1, 1), less = train([&] { return make(false); }, 0, 1, 1);
  EXPECT_LE(less.info.arena_bytes + 3 * 2048 * 256 * 4, plain.info.arena_bytes);
  EXPECT_LT(less.info.flops, 1.02 * plain.info.flops);
  expect_same_bits(plain, less, "thrift");
}

// The weight gradient, the last to read an activation, before the input gradient, which needs as much room.
TEST(RematPlan, ActivationsDieBeforeTheirGradientsAreMade) {
  const Trained t = train(
      [] {
        auto model = std::make_shared<nn::Sequential>();
        for (int i = 0; i < 4; ++i) model->add(nn::Linear(64, 64)).add(nn::Tanh());
        return work<nn::Sequential>(model, [](const nn::Sequential& m) {
          return mean(m(uniform_numbers({2048, 64}, 1)));
        });
      },
      0, 1, 1);
  // Four activations, of which the last makes place for its gradient, and that of the one before.
  EXPECT_LT(static_cast<double>(t.info.arena_bytes), 5.5 * 2048 * 64 * 4);
}

TEST(RematPlan, AWideBudgetChangesNothing) {
  const Trained whole = train(gpt, 0, 1, 1), wide = train(gpt, whole.info.planned_peak_bytes, 1, 1);
  EXPECT_EQ(wide.info.steps, whole.info.steps);
  EXPECT_EQ(wide.info.planned_peak_bytes, whole.info.planned_peak_bytes);
}

// What an optimizer computes once for all parameters is computed first, so that no gradient waits.
TEST(RematPlan, GradientsDieOneByOne) {
  constexpr int kLayers = 12;
  const Trained t = train(
      [] {
        auto model = std::make_shared<nn::Sequential>();
        for (int i = 0; i < kLayers; ++i) model->add(nn::Linear(128, 128)).add(nn::Tanh());
        return work<nn::Sequential>(model, [](const nn::Sequential& m) {
          return mean(m(uniform_numbers({2, 128}, 1)));
        });
      },
      0, 1, 1);
  EXPECT_LT(t.info.arena_bytes, 4u * 128 * 128 * 4);
}

// Sublinear checkpointing: of n equal layers some sqrt(n) are kept, at no more than one forward pass more.
TEST(RematPlan, AChainTakesAFractionForOneMoreForwardPass) {
  constexpr int kLayers = 64;
  const auto make = [](bool plain) {
    auto model = std::make_shared<nn::Sequential>();
    for (int i = 0; i < kLayers; ++i) model->add(nn::Linear(16, 16)).add(nn::Tanh());
    Work w = work<nn::Sequential>(model, [](const nn::Sequential& m) {
      return mean(m(uniform_numbers({4096, 16}, 1)));
    });
    if (plain) w.disable = {"remat"};
    return w;
  };
  const auto chain = [&] { return make(false); };
  const Trained whole = train([&] { return make(true); }, 0, 1, 1), tight = train(chain, least_of(chain), 1, 1);
  const double layer = 4096 * 16 * 4;
  EXPECT_GT(static_cast<double>(whole.info.arena_bytes), kLayers * layer);
  EXPECT_LT(static_cast<double>(tight.info.arena_bytes), 2.8 * std::sqrt(kLayers) * layer);
  EXPECT_LT(tight.info.flops, 1.34 * whole.info.flops);
  expect_same_bits(whole, tight, "chain");
}

TEST(RematPlan, WithoutABackwardPassThereIsNothingToCompute) {
  const auto evaluate = [](std::size_t budget) {
    auto model = std::make_shared<nn::Sequential>();
    for (int i = 0; i < 4; ++i) model->add(nn::Linear(32, 32)).add(nn::ReLU());
    nn::init(*model, Key(1));
    auto step = compile([model](const Tensor& x) { return (*model)(x); }, {.threads = 1, .memory_budget = budget});
    return step.prepare({Type{f32, {64, 32}}});
  };
  const ExecutableInfo info = evaluate(0);
  EXPECT_EQ(evaluate(info.planned_peak_bytes).steps, info.steps);
  const std::string message = message_of(ErrorKind::config, [&] { evaluate(info.planned_peak_bytes - 1); });
  EXPECT_THAT(message, HasSubstr("at least " + std::to_string(info.planned_peak_bytes) + " bytes"));
}

TEST(RematPlan, SwitchedOffABudgetIsStillKept) {
  const Variable w(uniform_numbers({64, 64}, 1));
  const auto planned = [&](std::size_t budget) {
    auto step = compile(
        [&](const Tensor& x) {
          Tensor y = x;
          for (int i = 0; i < 8; ++i) y = tanh(matmul(y, w));
          return grad(mean(y), w);
        },
        {.threads = 1, .disable_passes = {"remat"}, .memory_budget = budget});
    return step.prepare({Type{f32, {256, 64}}}).planned_peak_bytes;
  };
  const std::size_t whole = planned(0);
  EXPECT_EQ(planned(whole), whole);
  EXPECT_THAT(message_of(ErrorKind::config, [&] { planned(whole / 2); }), HasSubstr("without the pass remat"));
}

TEST(RematPlan, FiftyThousandNodesCompileInBoundedTime) {
  const Variable w(uniform_numbers({8, 8}, 1));
  const auto prepare = [&](std::size_t budget) {
    auto step = compile(
        [&](const Tensor& x) {
          Tensor y = x, kept = x;
          for (int i = 0; i < 4000; ++i) {
            y = tanh(matmul(y, w) + kept) * 0.5;
            if (i % 16 == 0) kept = y;
          }
          const Tensor loss = mean(y);
          return grad(loss, w);
        },
        {.threads = 1, .memory_budget = budget});
    return step.prepare({Type{f32, {32, 8}}});
  };
  const ExecutableInfo whole = prepare(0);
  const auto budget = static_cast<std::size_t>(0.4 * static_cast<double>(whole.planned_peak_bytes));
  const ExecutableInfo less = prepare(budget);
  EXPECT_GT(whole.nodes, 25000u);
  EXPECT_LE(less.planned_peak_bytes, budget);
  EXPECT_LT(less.compile_seconds, 12 * whole.compile_seconds + 10);
  RecordProperty("seconds", std::to_string(less.compile_seconds));
}

}  // namespace
}  // namespace bp

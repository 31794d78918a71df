// Optimizers against PyTorch over ten steps in f64, outside and inside compile; groups, clipping, refusals.
#include "bp/optim.h"

#include "state/expectations.h"

namespace bp {
namespace {

using nlohmann::json;
using test::Doubles;
using test::expect_close;
using test::torch_values;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Pair {
  Variable weight, bias;
  BP_FIELDS(Pair, weight, bias)
};

Pair initial() {
  const json& at = torch_values()["initial"];
  return {Variable(Tensor::from(Doubles(at["weight"]), {3, 2})), Variable(Tensor::from(Doubles(at["bias"]), {2}))};
}

std::vector<Tensor> gradients(std::size_t step) {
  const json& at = torch_values()["grads"][step];
  return {Tensor::from(Doubles(at["weight"]), {3, 2}), Tensor::from(Doubles(at["bias"]), {2})};
}

Doubles values_of_pair(const Pair& p) {
  Doubles all = p.weight.get().to_vector<double>();
  for (const double b : p.bias.get().to_vector<double>()) all.push_back(b);
  return all;
}

std::unique_ptr<optim::Optimizer> make(const json& c, Pair& p) {
  const json& o = c["options"];
  const std::string name = c["optimizer"];
  const double lr = o["lr"], decay = o.value("weight_decay", 0.0), momentum = o.value("momentum", 0.0);
  if (name == "sgd")
    return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = lr,
                                                             .momentum = momentum,
                                                             .dampening = o.value("dampening", 0.0),
                                                             .nesterov = o.value("nesterov", false),
                                                             .weight_decay = decay});
  if (name == "rmsprop")
    return std::make_unique<optim::RMSProp>(p, optim::RMSPropOptions{.lr = lr,
                                                                     .alpha = o.value("alpha", 0.99),
                                                                     .eps = o.value("eps", 1e-8),
                                                                     .centered = o.value("centered", false),
                                                                     .momentum = momentum,
                                                                     .weight_decay = decay});
  if (name == "adagrad")
    return std::make_unique<optim::Adagrad>(
        p, optim::AdagradOptions{.lr = lr,
                                 .lr_decay = o.value("lr_decay", 0.0),
                                 .initial_accumulator = o.value("initial_accumulator_value", 0.0),
                                 .eps = o.value("eps", 1e-10),
                                 .weight_decay = decay});
  const Doubles betas = o.value("betas", Doubles{0.9, 0.999});
  if (name == "adam")
    return std::make_unique<optim::Adam>(p, optim::AdamOptions{.lr = lr,
                                                               .beta1 = betas[0],
                                                               .beta2 = betas[1],
                                                               .eps = o.value("eps", 1e-8),
                                                               .weight_decay = decay,
                                                               .amsgrad = o.value("amsgrad", false)});
  optim::AdamWOptions adamw{
      .lr = lr, .weight_decay = o.value("weight_decay", 1e-2), .amsgrad = o.value("amsgrad", false)};
  if (c.contains("bias_group"))
    adamw.groups = {{.where = optim::name_ends_with("bias"),
                     .lr_scale = c["bias_group"]["lr_scale"],
                     .weight_decay = double(c["bias_group"]["weight_decay"])}};
  return std::make_unique<optim::AdamW>(p, std::move(adamw));
}

TEST(Optim, MatchesPyTorchOverTenSteps) {
  for (const json& c : torch_values()["optimizers"]) {
    Pair p = initial();
    const auto opt = make(c, p);
    for (std::size_t step = 0; step < c["values"].size(); ++step) {
      opt->update(gradients(step));
      expect_close(values_of_pair(p), c["values"][step], 1e-12,
                   c["optimizer"].dump() + c["options"].dump() + " step " + std::to_string(step));
    }
    EXPECT_EQ(opt->step.get().item<int>(), 10);
  }
}

TEST(Optim, MatchesPyTorchInsideCompile) {
  for (const json& c : torch_values()["optimizers"]) {
    Pair p = initial();
    const auto opt = make(c, p);
    auto step = compile([&](Tensor w, Tensor b) { opt->update({w, b}); });
    for (std::size_t k = 0; k < c["values"].size(); ++k) {
      const auto g = gradients(k);
      step(g[0], g[1]);
      expect_close(values_of_pair(p), c["values"][k], 1e-12,
                   c["optimizer"].dump() + c["options"].dump() + " step " + std::to_string(k));
    }
    EXPECT_EQ(step.traces(), 1);
  }
}

TEST(Optim, RateChangesWithoutRetrace) {
  Pair p{Variable(Tensor::from({1.0F, 2.0F})), Variable(Tensor::from({3.0F}))};
  optim::SGD opt(p, {.lr = 1});
  auto step = compile([&](Tensor w, Tensor b) { opt.update({w, b}); });
  const Tensor gw = Tensor::from({1.0F, 1.0F}), gb = Tensor::from({1.0F});
  step(gw, gb);
  EXPECT_THAT(values_of_pair(p), ElementsAre(0, 1, 2));
  opt.set_lr(0.5);
  step(gw, gb);
  EXPECT_THAT(values_of_pair(p), ElementsAre(-0.5, 0.5, 1.5));
  opt.lr.set(0);
  step(gw, gb);
  EXPECT_THAT(values_of_pair(p), ElementsAre(-0.5, 0.5, 1.5));
  EXPECT_EQ(step.traces(), 1);
}

TEST(Optim, Bf16ParametersKeepF32Moments) {
  Pair p{Variable(cast(Tensor::from({1.0F, 2.0F}), bf16)), Variable(Tensor::from({3.0F}))};
  optim::Adam opt(p, {.lr = 0.5});
  opt.update({cast(Tensor::from({1.0F, -1.0F}), bf16), Tensor::from({1.0F})});
  EXPECT_EQ(p.weight.dtype(), bf16);
  EXPECT_THAT(cast(p.weight, f32).to_vector<double>(), ElementsAre(0.5, 2.5));
  for (const auto& entry : opt.state())
    if (entry.name == "optim.weight.m") { EXPECT_EQ(entry.variable.dtype(), f32); }
}

TEST(Optim, StateNamesEverything) {
  struct Headed {
    nn::Linear head{2, 2, {.bias = false}};
    BP_FIELDS(Headed, head)
  };
  Headed net;
  optim::AdamW opt(net, {.amsgrad = true});
  std::vector<std::string> names;
  for (const auto& entry : opt.state()) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("optim.lr", "optim.weight_decay", "optim.beta1", "optim.beta2", "optim.step",
                                 "optim.head.weight.m", "optim.head.weight.v", "optim.head.weight.x"));
}

TEST(Optim, GroupsByPredicate) {
  Pair p{Variable(Tensor::from({1.0F, 2.0F}, {1, 2})), Variable(Tensor::from({3.0F}))};
  const Variable bias[] = {p.bias.alias()};
  optim::SGD opt(p, {.lr = 1,
                     .weight_decay = 0.5,
                     .groups = {{.where = optim::among(bias), .lr_scale = 2}, optim::no_decay_on_vectors()}});
  opt.update({Tensor::from({0.0F, 0.0F}, {1, 2}), Tensor::from({1.0F})});
  EXPECT_THAT(values_of_pair(p), ElementsAre(0.5, 1, 3 - 2 * (1 + 0.5 * 3)));  // the first group that matches counts
  Pair q{Variable(Tensor::from({1.0F, 2.0F}, {1, 2})), Variable(Tensor::from({3.0F}))};
  optim::SGD plain(q, {.lr = 1, .weight_decay = 0.5, .groups = {optim::no_decay_on_vectors()}});
  plain.update({Tensor::from({0.0F, 0.0F}, {1, 2}), Tensor::from({0.0F})});
  EXPECT_THAT(values_of_pair(q), ElementsAre(0.5, 1, 3));
}

Doubles flat(const std::vector<Tensor>& tensors) {
  Doubles all;
  for (const Tensor& t : tensors)
    for (const double v : t.to_vector<double>()) all.push_back(v);
  return all;
}

TEST(Clip, MatchesPyTorch) {
  for (const json& c : torch_values()["clipping"]) {
    const optim::Clipped clipped = optim::clip_by_norm(gradients(0), c["limit"]);
    expect_close({clipped.norm.item()}, {double(c["norm"])}, 1e-12, "norm");
    expect_close(flat(clipped.grads), c["by_norm"], 1e-12, "by norm");
    expect_close(flat(optim::clip_by_value(gradients(0), c["limit"])), c["by_value"], 1e-12, "by value");
  }
}

TEST(Clip, OptimizerClipsAndReportsTheNorm) {
  Pair p = initial();
  const Doubles before = values_of_pair(p);
  optim::SGD opt(p, {.lr = 1, .clip_norm = 0.5});
  const json& c = torch_values()["clipping"][0];
  const Tensor norm = opt.update(gradients(0));
  EXPECT_NEAR(norm.item(), double(c["norm"]), 1e-12);
  Doubles moved;
  for (std::size_t i = 0; i < before.size(); ++i) moved.push_back(before[i] - values_of_pair(p)[i]);
  expect_close(moved, c["by_norm"], 1e-12, "clipped step");
  EXPECT_FALSE(optim::SGD(p).update(gradients(0)).defined());
}

TEST(Clip, NothingNonFiniteIsHidden) {
  for (const float bad : {std::nanf(""), INFINITY, 1e30F}) {  // the square of the last overflows in f32
    const std::vector<Tensor> grads{Tensor::from({1.0F, bad}), Tensor::from({2.0F})};
    const optim::Clipped clipped = optim::clip_by_norm(grads, 1);
    EXPECT_FALSE(std::isfinite(clipped.norm.item()));
    for (const double v : flat(clipped.grads)) EXPECT_TRUE(std::isnan(v));
  }
  EXPECT_TRUE(std::isnan(flat(optim::clip_by_value(std::vector{Tensor::from({std::nanf("")})}, 1))[0]));
  const std::vector<Tensor> zero{Tensor::from({0.0F})};
  EXPECT_EQ(flat(optim::clip_by_norm(zero, 1).grads)[0], 0);
}

TEST(Optim, RefusesWrongHyperparameters) {
  Pair p = initial();
  EXPECT_THAT(message_of(ErrorKind::value, [&] { optim::SGD(p, {.lr = -0.1}); }), HasSubstr("[sgd] lr"));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { optim::Adam(p, {.lr = std::nan("")}); }), HasSubstr("got nan"));
  message_of(ErrorKind::value, [&] { optim::Adam(p, {.beta2 = 1}); });
  message_of(ErrorKind::value, [&] { optim::Adam(p, {.eps = -1}); });
  message_of(ErrorKind::value, [&] { optim::SGD(p, {.nesterov = true}); });
  message_of(ErrorKind::value, [&] { optim::SGD(p, {.clip_norm = -1}); });
  message_of(ErrorKind::value, [&] { optim::RMSProp(p, {.alpha = 1.5}); });
  message_of(ErrorKind::value, [&] { optim::Adagrad(p, {.groups = {optim::Group{}}}); });
  message_of(ErrorKind::value, [&] { optim::clip_by_norm(gradients(0), 0); });
  optim::SGD opt(p, {.lr = 0.1});
  message_of(ErrorKind::value, [&] { opt.set_lr(-1); });
  message_of(ErrorKind::value, [&] { opt.set_lr(std::nan("")); });
  EXPECT_DOUBLE_EQ(opt.lr.get().item(), 0.1);
  message_of(ErrorKind::state, [&] { opt.weight_decay.set(0.1); });  // left out at construction
}

TEST(Optim, RefusesGradientsThatDoNotFit) {
  Pair p = initial();
  optim::Adam opt(p);
  const Doubles before = values_of_pair(p);
  EXPECT_THAT(message_of(ErrorKind::state, [&] { opt.update({gradients(0)[0]}); }), HasSubstr("expected 2 gradients"));
  EXPECT_THAT(message_of(ErrorKind::shape,
                         [&] {
                           opt.update({gradients(0)[1], gradients(0)[0]});
                         }),
              HasSubstr("[adam] weight: expected a gradient [3, 2], got [2]"));
  message_of(ErrorKind::state, [&] { opt.update({gradients(0)[0], Tensor()}); });
  EXPECT_EQ(values_of_pair(p), before);
  EXPECT_EQ(opt.step.get().item<int>(), 0);
  message_of(ErrorKind::state, [] { optim::SGD(std::span<const Variable>()); });
}

}  // namespace
}  // namespace bp

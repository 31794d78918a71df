// Layers: values and gradients against PyTorch, shapes, modes, messages.
#include "bp/layers.h"

#include "state/expectations.h"

namespace bp {
namespace {

using nlohmann::json;
using test::Doubles;
using test::expect_close;
using test::torch_values;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

nn::Sequential torch_net() {
  return nn::Sequential{nn::Conv2d{2, 4, {3, 2}, {.stride = 2, .padding = 1}},
                        nn::BatchNorm{4},
                        nn::ReLU{},
                        nn::MaxPool{2},
                        nn::Flatten{{.channels_first = true}},
                        nn::Linear{8, 3},
                        nn::LayerNorm{3}};
}

// [out, in, k..] to [k.., in, out], as load_state does.
Tensor from_torch(const json& value, bool kernel) {
  Shape shape;
  for (const std::int64_t n : value["shape"]) shape.push_back(n);
  const Tensor t = Tensor::from(Doubles(value["data"]), shape);
  if (!kernel) return t;
  return transpose(t, shape.rank() == 2 ? Axes{1, 0} : Axes{2, 3, 1, 0});
}

nn::Sequential loaded() {
  nn::Sequential net = torch_net();
  nn::init(net, Key{1}, f64);
  for (auto& entry : nn::state(net))
    entry.variable.set(from_torch(torch_values()["layers"]["state"][entry.name], entry.is_kernel));
  return net;
}

Tensor input() { return Tensor::from(Doubles(torch_values()["layers"]["x_nhwc"]), {5, 4, 8, 2}); }

Tensor torch_loss(const Tensor& y) { return sum(square(y) * Tensor::from({1.0, 2.0, 3.0})); }

TEST(Layers, TrainingMatchesPyTorch) {
  const json& expected = torch_values()["layers"];
  nn::Sequential net = loaded();
  const ModeScope train(Mode::train);
  const Tensor y = net(input());
  expect_close(y.to_vector<double>(), expected["train"], 1e-11, "train");
  const auto grads = grad(torch_loss(y), net);
  const auto parameters = nn::parameters(net);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const std::string& name = parameters[i].name();
    Tensor g = grads[i];
    if (g.rank() == 2) g = transpose(g);
    if (g.rank() == 4) g = transpose(g, {3, 2, 0, 1});
    expect_close(g.to_vector<double>(), expected["grads"][name], 1e-9, name);
  }
  const auto& norm = dynamic_cast<const nn::BatchNorm&>(net[1]);
  expect_close(norm.running_mean.get().to_vector<double>(), expected["running_mean"], 1e-12, "running mean");
  expect_close(norm.running_var.get().to_vector<double>(), expected["running_var"], 1e-12, "running var");
  const ModeScope eval(Mode::eval);
  expect_close(net(input()).to_vector<double>(), expected["eval"], 1e-11, "eval");
}

TEST(Layers, CompiledTrainingMatchesPyTorch) {
  const json& expected = torch_values()["layers"];
  nn::Sequential net = loaded();
  auto train = compile([&](Tensor x) { return net(x); }, {.mode = Mode::train});
  auto eval = compile([&](Tensor x) { return net(x); });
  expect_close(train(input()).to_vector<double>(), expected["train"], 1e-11, "train");
  expect_close(eval(input()).to_vector<double>(), expected["eval"], 1e-11, "eval");
  const auto& norm = dynamic_cast<const nn::BatchNorm&>(net[1]);
  const auto mean = norm.running_mean.get().to_vector<double>();
  eval(input());
  EXPECT_EQ(norm.running_mean.get().to_vector<double>(), mean);  // assigned in train mode only
}

TEST(Layers, OutputShapeIsTheShapeOfTheOutput) {
  const struct {
    nn::Sequential layer;
    Shape in;
  } cases[] = {
      {nn::Sequential{nn::Linear{5, 3}}, {5}},
      {nn::Sequential{nn::Linear{5, 3}}, {2, 4, 5}},
      {nn::Sequential{nn::Conv1d{2, 3, 4, {.stride = 3, .padding = 2}}}, {2, 7, 2}},
      {nn::Sequential{nn::Conv2d{2, 4, {3, 2}, {.stride = {2, 1}, .padding = {0, 1}, .dilation = 2, .groups = 2}}},
       {1, 9, 8, 2}},
      {nn::Sequential{nn::Conv2d{1, 2, 3, {.stride = 2, .same = true}}}, {1, 7, 8, 1}},
      {nn::Sequential{nn::Conv3d{1, 2, 2}}, {1, 4, 3, 2, 1}},
      {nn::Sequential{nn::MaxPool{3, {.stride = 2, .padding = 1}}}, {2, 7, 8, 3}},
      {nn::Sequential{nn::MaxPool{{2, 3}, {.dilation = 2}}}, {2, 7, 8, 3}},
      {nn::Sequential{nn::AvgPool{2}}, {2, 7, 3}},
      {nn::Sequential{nn::GlobalAvgPool{}}, {2, 7, 8, 3}},
      {nn::Sequential{nn::Flatten{}}, {2, 3, 4, 5}},
      {nn::Sequential{nn::Flatten{}}, {2}},
      {nn::Sequential{nn::BatchNorm{3}, nn::LayerNorm{3}, nn::Dropout{0.5}, nn::GELU{}}, {4, 3}},
      {nn::Sequential{nn::Residual{nn::Sequential{nn::Linear{3, 3}}}}, {4, 3}},
      {nn::Sequential{nn::Residual{nn::Sequential{nn::Linear{3, 6}}, nn::Sequential{nn::Linear{3, 6}}}}, {4, 3}},
  };
  for (auto c : cases) {
    nn::init(c.layer, Key{1});
    EXPECT_EQ(c.layer.output_shape(c.in).str(), c.layer(ones(c.in)).shape().str()) << c.layer[0].describe();
  }
}

TEST(Layers, ImpossibleShapesNameTheLayer) {
  struct Net {
    std::vector<nn::Conv2d> convs{nn::Conv2d{16, 8, 3}};
    nn::Linear head{8, 2};
    nn::MaxPool pool{4};
    BP_FIELDS(Net, convs, head, pool)
  };
  Net net;
  nn::init(net, Key{1});
  const auto message = [](auto f) { return message_of(ErrorKind::shape, f); };
  EXPECT_EQ(message([&] {
              net.convs[0](ones({64, 32, 32, 3}));
            }),
            "[conv2d] convs.0: expected input [N, H, W, 16], got [64, 32, 32, 3]");
  EXPECT_EQ(message([&] { net.head(ones({2, 7})); }), "[linear] head: expected input [.., 8], got [2, 7]");
  EXPECT_EQ(message([&] {
              net.convs[0].output_shape({1, 2, 9, 16});
            }),
            "[conv2d] convs.0: expected at least 3 along axis 1 (kernel 3, dilation 1, padding 0), got [1, 2, 9, 16]");
  EXPECT_EQ(message([&] {
              net.pool(ones({1, 3, 9, 1}));
            }),
            "[max_pool] pool: expected at least 4 along axis 1 (window 4), got [1, 3, 9, 1]");
  nn::Sequential built;
  built.add("first", nn::Linear{4, 5}).add("second", nn::Linear{6, 2});
  EXPECT_EQ(message([&] { built.output_shape({1, 4}); }), "[linear] second: expected input [.., 6], got [1, 5]");
  const nn::Residual uneven{nn::Sequential{nn::Linear{3, 6}}};
  EXPECT_THAT(message([&] {
                uneven.output_shape({1, 3});
              }),
              HasSubstr("[residual] expected the shortcut to give [1, 6]"));
}

TEST(Layers, OptionsAreChecked) {
  const auto refuse = [](auto f) { return message_of(ErrorKind::value, f); };
  refuse([] { nn::Linear(0, 3); });
  refuse([] { nn::Conv2d(3, 4, 0); });
  EXPECT_THAT(refuse([] { nn::Conv2d(3, 4, {1, 2, 3}); }), HasSubstr("expected 1 or 2 sizes, got 3"));
  EXPECT_THAT(refuse([] { nn::Conv2d(3, 4, 1, {.groups = 2}); }), HasSubstr("divisor of 3 input and 4 output"));
  refuse([] { nn::Dropout(1); });
  refuse([] { nn::Dropout(std::nan("")); });
  refuse([] { nn::BatchNorm(3, {.momentum = 2}); });
  refuse([] { nn::LayerNorm(3, {.eps = -1}); });
  refuse([] { nn::AvgPool(2, {.dilation = 2}); });
  refuse([] { nn::Sequential().add("a.b", nn::ReLU{}); });
  refuse([] { nn::Sequential().add("a", nn::ReLU{}).add("a", nn::ReLU{}); });
  refuse([] { nn::Sequential()[0]; });
}

TEST(Layers, LinearIsTheFormula) {
  nn::Linear l{2, 2};
  l.weight.set(Tensor::from({1.0F, 2.0F, 3.0F, 4.0F}, {2, 2}));
  l.bias.set(Tensor::from({10.0F, 20.0F}));
  EXPECT_THAT(l(Tensor::from({1.0F, 1.0F})).to_vector<double>(), ElementsAre(14, 26));
  nn::Linear plain{2, 1, {.bias = false, .weight_init = init::ones()}};
  nn::init(plain, Key{1});
  EXPECT_FALSE(plain.bias.defined());
  EXPECT_THAT(plain(Tensor::from({1.0F, 1.0F}, {1, 2})).to_vector<double>(), ElementsAre(2));
}

TEST(Layers, PyTorchDefaultBoundsWeightAndBias) {
  nn::Linear l{100, 50, {.weight_init = init::pytorch_default(), .bias_init = init::pytorch_default()}};
  nn::init(l, Key{4});
  for (const Variable* v : {&l.weight, &l.bias}) {
    double largest = 0;
    for (const double x : v->get().to_vector<double>()) largest = std::max(largest, std::abs(x));
    EXPECT_LE(largest, 0.1);
    EXPECT_GT(largest, 0.09);
  }
}

TEST(Dropout, KeepsTheMeanAndAdvances) {
  nn::Sequential net{nn::Dropout{0.25}};
  nn::init(net, Key{7});
  const auto& layer = dynamic_cast<const nn::Dropout&>(net[0]);
  const Tensor x = ones({100, 100});
  EXPECT_EQ(net(x).to_vector<double>(), x.to_vector<double>());  // eval
  auto step = compile([&](Tensor t) { return net(t); }, {.mode = Mode::train});
  const Doubles first = step(x).to_vector<double>(), second = step(x).to_vector<double>();
  double total = 0;
  for (const double v : first) {
    EXPECT_TRUE(v == 0 || std::abs(v - 4.0 / 3) < 1e-6) << v;
    total += v;
  }
  EXPECT_NEAR(total / 10000, 1, 0.03);
  EXPECT_NE(first, second);
  EXPECT_EQ(layer.rng_state.get().data<std::int64_t>()[1], 2);
  EXPECT_EQ(step.traces(), 1);

  nn::Sequential again{nn::Dropout{0.25}};
  nn::init(again, Key{7});
  const ModeScope train(Mode::train);
  EXPECT_EQ(again(x).to_vector<double>(), first);  // the same outside compile
  EXPECT_EQ(again(x).to_vector<double>(), second);
}

TEST(Dropout, TwoApplicationsAndTwoLayersDiffer) {
  nn::Sequential net{nn::Dropout{0.5}, nn::Identity{}};
  nn::init(net, Key{7});
  auto step = compile([&](Tensor t) { return std::pair{net(t), net(t)}; }, {.mode = Mode::train});
  const auto [a, b] = step(ones({64}));
  EXPECT_NE(a.to_vector<double>(), b.to_vector<double>());
}

TEST(Dropout, GradientUsesTheSameMask) {
  nn::Dropout drop{0.5};
  drop.init(Key{3});
  const ModeScope train(Mode::train);
  const Tensor x = watch(ones({200}));
  const Tensor y = drop(x);
  EXPECT_EQ(grad(sum(y), x).to_vector<double>(), y.to_vector<double>());
}

TEST(BatchNorm, OneValuePerChannelCannotBeNormalised) {
  nn::BatchNorm norm{3};
  const ModeScope train(Mode::train);
  EXPECT_THAT(message_of(ErrorKind::shape,
                         [&] {
                           norm(ones({1, 3}));
                         }),
              HasSubstr("[batch_norm] expected more than one"));
}

TEST(Layers, Bf16IsNormalisedInF32) {
  nn::LayerNorm norm{64};
  const Tensor x = cast(iota({2, 64}, 1, f32), bf16);
  const Tensor y = norm(x);
  EXPECT_EQ(y.dtype(), bf16);
  EXPECT_NEAR(cast(y, f32).to_vector<double>()[63], 1.7055, 0.01);
}

TEST(Layers, ActivationsAreTheFunctions) {
  const Tensor x = Tensor::from({-1.5, 0.0, 2.0}, {1, 3});
  const auto same = [&](const nn::Layer& layer, const Tensor& expected) {
    EXPECT_EQ(layer(x).to_vector<double>(), expected.to_vector<double>()) << layer.kind();
    EXPECT_EQ(layer.output_shape(x.shape()), x.shape());
  };
  same(nn::ReLU{}, relu(x));
  same(nn::Tanh{}, tanh(x));
  same(nn::Sigmoid{}, sigmoid(x));
  same(nn::SiLU{}, silu(x));
  same(nn::GELU{}, gelu(x));
  same(nn::GELU{true}, gelu_tanh(x));
  same(nn::LeakyReLU{0.2}, leaky_relu(x, 0.2));
  same(nn::ELU{2}, elu(x, 2));
  same(nn::Softplus{}, softplus(x));
  same(nn::Softmax{}, softmax(x));
  same(nn::Identity{}, x);
}

TEST(Sequential, HoldsStructsAndCopiesDeep) {
  struct Own {
    nn::Linear a{2, 2};
    Tensor operator()(Tensor x) const { return relu(a(x)); }
    BP_FIELDS(Own, a)
  };
  nn::Sequential net;
  net.add("own", Own{}).add(nn::Linear{2, 1}).add(nn::Sequential{nn::Tanh{}});
  nn::init(net, Key{1});
  std::vector<std::string> names;
  for (const auto& entry : nn::state(net)) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("own.a.weight", "own.a.bias", "1.weight", "1.bias"));
  EXPECT_EQ(net.output_shape({3, 2}), Shape({3, 1}));
  EXPECT_EQ(net.size(), 3U);
  nn::Sequential copy = net;
  const Tensor x = ones({3, 2});
  EXPECT_EQ(copy(x).to_vector<double>(), net(x).to_vector<double>());
  nn::init(copy, Key{2});
  EXPECT_NE(copy(x).to_vector<double>(), net(x).to_vector<double>());
}

TEST(Residual, AddsTheShortcut) {
  nn::Residual plain{nn::Sequential{nn::Linear{2, 2, {.weight_init = init::ones()}}}};
  nn::init(plain, Key{1});
  EXPECT_THAT(plain(Tensor::from({1.0F, 2.0F}, {1, 2})).to_vector<double>(), ElementsAre(4, 5));
  std::vector<std::string> names;
  nn::Residual projected{nn::Sequential{nn::Linear{2, 3}}, nn::Sequential{nn::Linear{2, 3, {.bias = false}}}};
  for (const auto& entry : nn::state(projected)) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("inner.0.weight", "inner.0.bias", "shortcut.0.weight"));
}

}  // namespace
}  // namespace bp

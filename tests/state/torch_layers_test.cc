// Every layer against PyTorch in f64: values, gradients, gradients of gradients, running statistics and eval mode, from
// tests/data/torch_layers.json, which scripts/make_torch_layers.py wrote.
#include <functional>
#include <map>

#include "state/expectations.h"

namespace bp {
namespace {

using nlohmann::json;
using test::Doubles;
using test::expect_close;
using test::shape_of;

// The operands of the script: multiples of 1/64.
Tensor pattern(const Shape& shape, std::int64_t seed) {
  Doubles v;
  for (std::int64_t i = 0; i < shape.numel(); ++i)
    v.push_back(static_cast<double>((i * 7919 + seed * 104729) % 257 - 128) / 64);
  return watch(Tensor::from(v, shape));
}

Tensor unit(const Shape& shape, std::int64_t seed) {
  const Tensor t = pattern(shape, seed);
  return t / norm(t);
}

const std::map<std::string, std::function<nn::Sequential()>>& builders() {
  using namespace nn;
  static const std::map<std::string, std::function<Sequential()>> all = {
      {"log_sigmoid", [] { return Sequential{LogSigmoid{}}; }},
      {"mish", [] { return Sequential{Mish{}}; }},
      {"softsign", [] { return Sequential{Softsign{}}; }},
      {"selu", [] { return Sequential{SELU{}}; }},
      {"relu6", [] { return Sequential{ReLU6{}}; }},
      {"hard_sigmoid", [] { return Sequential{HardSigmoid{}}; }},
      {"hard_swish", [] { return Sequential{HardSwish{}}; }},
      {"tanh_shrink", [] { return Sequential{TanhShrink{}}; }},
      {"celu", [] { return Sequential{CELU{0.5}}; }},
      {"hard_shrink", [] { return Sequential{HardShrink{0.4}}; }},
      {"soft_shrink", [] { return Sequential{SoftShrink{0.4}}; }},
      {"hard_tanh",
       [] {
         return Sequential{HardTanh{-0.75, 1.25}};
       }},
      {"log_softmax", [] { return Sequential{LogSoftmax{}}; }},
      {"softmax", [] { return Sequential{Softmax{}}; }},
      {"relu", [] { return Sequential{ReLU{}}; }},
      {"silu", [] { return Sequential{SiLU{}}; }},
      {"gelu", [] { return Sequential{GELU{}}; }},
      {"gelu_tanh", [] { return Sequential{GELU{true}}; }},
      {"elu", [] { return Sequential{ELU{}}; }},
      {"leaky_relu", [] { return Sequential{LeakyReLU{}}; }},
      {"softplus", [] { return Sequential{Softplus{}}; }},
      {"sigmoid", [] { return Sequential{Sigmoid{}}; }},
      {"tanh", [] { return Sequential{Tanh{}}; }},
      {"glu", [] { return Sequential{GLU{}}; }},
      {"geglu", [] { return Sequential{GLU{Gate::gelu}}; }},
      {"swiglu", [] { return Sequential{GLU{Gate::silu}}; }},
      {"reglu", [] { return Sequential{GLU{Gate::relu}}; }},
      {"prelu", [] { return Sequential{PReLU{}}; }},
      {"prelu 4", [] { return Sequential{PReLU{4}}; }},
      {"conv_transpose1d",
       [] {
         return Sequential{
             ConvTranspose1d{4, 6, 3, {.stride = 2, .padding = 1, .output_padding = 1, .dilation = 2, .groups = 2}}};
       }},
      {"conv_transpose2d",
       [] {
         return Sequential{
             ConvTranspose2d{2, 3, {3, 2}, {.stride = {2, 3}, .padding = {1, 0}, .output_padding = {1, 2}}}};
       }},
      {"conv_transpose3d",
       [] {
         return Sequential{ConvTranspose3d{2, 2, 2, {.stride = 2, .padding = 1, .output_padding = 1, .bias = false}}};
       }},
      {"depthwise", [] { return Sequential{depthwise<2>(3, 3, {.padding = 1}, 2)}; }},
      {"adaptive_avg_pool 3x2",
       [] {
         return Sequential{AdaptiveAvgPool{{3, 2}}};
       }},
      {"adaptive_avg_pool 2", [] { return Sequential{AdaptiveAvgPool{2}}; }},
      {"adaptive_avg_pool 4, 1d, fewer", [] { return Sequential{AdaptiveAvgPool{4}}; }},
      {"adaptive_max_pool 3x2",
       [] {
         return Sequential{AdaptiveMaxPool{{3, 2}}};
       }},
      {"adaptive_max_pool 2, 3d", [] { return Sequential{AdaptiveMaxPool{2}}; }},
      {"global_max_pool", [] { return Sequential{GlobalMaxPool{}}; }},
      {"batch_norm",
       [] {
         return Sequential{BatchNorm{3, {.momentum = 0.3}}};
       }},
      {"batch_norm cumulative",
       [] {
         return Sequential{BatchNorm{3, {.momentum = std::nullopt}}};
       }},
      {"group_norm",
       [] {
         return Sequential{GroupNorm{2, 6}};
       }},
      {"group_norm 1d",
       [] {
         return Sequential{GroupNorm{3, 6, {.affine = false}}};
       }},
      {"instance_norm", [] { return Sequential{InstanceNorm{3}}; }},
      {"instance_norm tracked",
       [] {
         return Sequential{InstanceNorm{3, {.momentum = 0.2, .affine = true, .track = true}}};
       }},
      {"layer_norm", [] { return Sequential{LayerNorm{5}}; }},
      {"rms_norm", [] { return Sequential{RMSNorm{5}}; }},
      {"embedding",
       [] {
         return Sequential{Embedding{5, 3}};
       }},
      {"embedding padded",
       [] {
         return Sequential{Embedding{5, 3, {.padding = 4}}};
       }},
      {"weight_norm linear",
       [] {
         return Sequential{WeightNorm{Linear{4, 3}}};
       }},
      {"weight_norm conv",
       [] {
         return Sequential{WeightNorm{Conv2d{2, 3, {3, 2}}}};
       }},
      {"weight_norm conv_transpose",
       [] {
         return Sequential{WeightNorm{ConvTranspose1d{2, 3, 2, {.stride = 2}}}};
       }},
      {"spectral_norm linear",
       [] {
         return Sequential{SpectralNorm{Linear{4, 3}}};
       }},
      {"spectral_norm conv",
       [] {
         return Sequential{SpectralNorm{Conv2d{2, 3, {3, 2}}}};
       }},
      {"spectral_norm conv_transpose",
       [] {
         return Sequential{SpectralNorm{ConvTranspose1d{2, 3, 2, {.stride = 2}}}};
       }},
  };
  return all;
}

const json& cases() {
  static const json all = json::parse(std::ifstream(BP_TEST_DATA "/torch_layers.json"))["cases"];
  return all;
}

bool takes_ids(const json& c) { return std::string(c["name"]).starts_with("embedding"); }

Tensor input_of(const json& c, std::int64_t seed) {
  const Shape shape = shape_of(c["x_shape"]);
  return takes_ids(c) ? Tensor::from<std::int64_t>({1, 0, 4, 4, 2, 4}, shape) : pattern(shape, seed);
}

// The layer with the script's parameters; without a case's, first values of its own.
nn::Sequential build(const json& c) {
  nn::Sequential net = builders().at(c["name"])();
  nn::init(net, Key{1}, f64);
  std::int64_t seed = 10;
  for (auto& entry : nn::state(net)) {
    const std::string name = entry.name.substr(2);  // "0.weight"
    if (name == "weight_u") entry.variable.set(unit(entry.variable.shape(), 30));
    if (name == "weight_v" && !entry.variable.trainable()) entry.variable.set(unit(entry.variable.shape(), 31));
  }
  for (Variable& v : nn::parameters(net)) {
    EXPECT_EQ(v.shape(), shape_of(c["parameters"][v.name().substr(2)])) << v.name();
    v.set(pattern(v.shape(), seed++));
  }
  return net;
}

void check_gradients(const json& c, const json& pass, const Tensor& x, const Tensor& y, const nn::Sequential& net) {
  std::vector<Tensor> wrt;
  if (!takes_ids(c)) wrt.push_back(x);
  for (const Variable& v : nn::parameters(net)) wrt.push_back(v.get());
  const Tensor dy = pattern(y.shape(), 3);
  const std::vector<Tensor> d = vjp(std::span(&y, 1), wrt, std::span(&dy, 1));
  Tensor s = scalar(0, f64);
  for (std::size_t i = 0; i < wrt.size(); ++i) {
    expect_close(d[i].to_vector<double>(), pass["grads"][i], 1e-9, "gradient " + std::to_string(i));
    s = s + sum(d[i] * pattern(d[i].shape(), 20 + static_cast<std::int64_t>(i)));
  }
  if (!pass.contains("second")) return;
  const Tensor one = scalar(1, f64);
  const std::vector<Tensor> dd = vjp(std::span(&s, 1), wrt, std::span(&one, 1));
  for (std::size_t i = 0; i < wrt.size(); ++i)
    expect_close(dd[i].to_vector<double>(), pass["second"][i], 1e-9, "second gradient " + std::to_string(i));
}

TEST(TorchLayers, ValuesGradientsAndStatisticsAreThoseOfPyTorch) {
  ASSERT_EQ(cases().size(), builders().size());
  for (const json& c : cases()) {
    SCOPED_TRACE(c["name"]);
    const nn::Sequential net = build(c);
    {
      const ModeScope train(Mode::train);
      for (std::size_t p = 0; p < c["passes"].size(); ++p) {
        const json& pass = c["passes"][p];
        const Tensor x = input_of(c, 1 + static_cast<std::int64_t>(p)), y = net(x);
        EXPECT_EQ(y.shape(), shape_of(pass["y_shape"]));
        EXPECT_EQ(net.output_shape(x.shape()), y.shape());
        expect_close(y.to_vector<double>(), pass["y"], 1e-9, "y");
        if (p == 0) check_gradients(c, pass, x, y, net);
      }
    }
    if (c.contains("buffers"))
      for (auto& entry : nn::state(net))
        if (const std::string name = entry.name.substr(2); c["buffers"].contains(name))
          expect_close(entry.variable.get().to_vector<double>(), c["buffers"][name], 1e-9, name);
    expect_close(net(input_of(c, 1)).to_vector<double>(), c["eval"], 1e-9, "eval");
    if (HasFatalFailure()) return;
  }
}

// The same layer compiled, and in f32: a train step, and eval with the statistics that it left.
TEST(TorchLayers, CompiledIsTheSame) {
  for (const json& c : cases()) {
    SCOPED_TRACE(c["name"]);
    const nn::Sequential net = build(c);
    auto train = compile([&](Tensor x) { return net(x); }, {.mode = Mode::train});
    auto eval = compile([&](Tensor x) { return net(x); });
    for (std::size_t p = 0; p < c["passes"].size(); ++p)
      expect_close(train(input_of(c, 1 + static_cast<std::int64_t>(p))).to_vector<double>(), c["passes"][p]["y"], 1e-9,
                   "y");
    expect_close(eval(input_of(c, 1)).to_vector<double>(), c["eval"], 1e-9, "eval");
    if (HasFatalFailure()) return;
  }
}

// By finite differences, to second order, of the layer in eval mode (train mode moves statistics between the two calls)
// and of the norms also in train mode, where statistics do not enter the output.
TEST(TorchLayers, GradientsAreThoseOfFiniteDifferences) {
  for (const json& c : cases()) {
    if (takes_ids(c)) continue;
    SCOPED_TRACE(c["name"]);
    const nn::Sequential net = build(c);
    const bool moves = std::string(c["name"]).starts_with("spectral");
    for (const Mode mode : {Mode::eval, Mode::train}) {
      if (moves && mode == Mode::train) continue;
      const ModeScope scope(mode);
      const Tensor x = random_uniform(random_state(Key{5}), shape_of(c["x_shape"]), f64) * 3.3 - 1.6;
      const GradcheckResult r = gradcheck([&](const Tensor& t) { return net(t); }, x, {.second_order = true});
      EXPECT_TRUE(r.ok) << r.str();
    }
  }
}

}  // namespace
}  // namespace bp

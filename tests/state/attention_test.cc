// Attention and transformer layers against PyTorch's (scripts/make_torch_attention.py), decoding against the whole
// forward pass, second order, and messages.
#include "expectations.h"

namespace bp {
namespace {

using test::Doubles;
using test::shape_of;

Tensor made_tensor(int k, const Shape& shape) {
  Doubles v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = 0.6 * std::sin(1.7 * k + 2.39 * static_cast<double>(i) + 0.1);
  return Tensor::from(v, shape);
}

const nlohmann::json& expected(const std::string& name) {
  static const auto all = nlohmann::json::parse(std::ifstream(BP_TEST_DATA "/torch_attention.json"));
  for (const auto& c : all)
    if (c["name"] == name) return c;
  throw std::runtime_error("no case " + name);
}

// PyTorch's name of a parameter.
std::string theirs(std::string name) {
  if (const auto at = name.find("in_proj."); at != std::string::npos) name[at + 7] = '_';
  return name;
}

Doubles digest(const Doubles& g) {
  Doubles d(3);
  for (std::size_t i = 0; i < g.size(); ++i) {
    const auto x = static_cast<double>(i);
    d[0] += g[i] * std::sin(x + 1), d[1] += g[i] * std::cos(0.3 * x), d[2] += g[i] * g[i];
  }
  return d;
}

using Apply = std::function<Tensor(std::span<const Tensor>)>;

template <class M> void compare(const std::string& name, M& model, const Apply& f) {
  SCOPED_TRACE(name);
  const nlohmann::json& e = expected(name);
  nn::init(model, Key{1}, f64);
  std::vector<nn::NamedVariable> state = nn::state(model);
  ASSERT_EQ(state.size(), e["order"].size());
  for (nn::NamedVariable& s : state) {
    const int k = e["order"][theirs(s.name)];
    const Shape shape = s.variable.shape();
    s.variable.set(s.is_kernel ? transpose(made_tensor(k, {shape[1], shape[0]})) : made_tensor(k, shape));
  }
  std::vector<Tensor> inputs;
  for (const auto& s : e["shapes"])
    inputs.push_back(watch(made_tensor(100 + static_cast<int>(inputs.size()), shape_of(s))));
  const Tensor y = f(inputs);
  test::expect_close(y.to_vector<double>(), e["value"], 1e-9, "value");
  std::vector<Tensor> xs = inputs;
  for (const nn::NamedVariable& s : state) xs.push_back(s.variable.get());
  const std::vector<Tensor> g = vjp(std::vector{y}, xs, std::vector{made_tensor(200, y.shape())});
  for (std::size_t i = 0; i < inputs.size(); ++i)
    test::expect_close(g[i].to_vector<double>(), e["grads"][i], 1e-9, "gradient of input " + std::to_string(i));
  for (std::size_t i = 0; i < state.size(); ++i) {
    const Tensor& d = g[inputs.size() + i];
    test::expect_close(digest((state[i].is_kernel ? transpose(d) : d).to_vector<double>()),
                       e["parameters"][theirs(state[i].name)], 1e-9, state[i].name);
  }
}

TEST(MultiHeadAttention, IsPyTorchs) {
  nn::MultiHeadAttention m(8, 2), causal(8, 2, {.causal = true}), bare(8, 2, {.bias = false});
  compare("attention", m, [&](auto x) { return m(x[0]); });
  compare("attention_causal", causal, [&](auto x) { return causal(x[0]); });
  const Tensor lengths = Tensor::from<std::int64_t>({2, 3});
  compare("attention_lengths", m, [&](auto x) { return m(x[0], {.key_lengths = lengths}); });
  const Tensor padding = Tensor::from<std::int64_t>({1, 1, 0, 1, 1, 1}, {2, 1, 1, 3});
  compare("attention_lengths", m, [&](auto x) { return m(x[0], {.mask = cast(padding, boolean)}); });
  compare("attention_added", m, [&](auto x) { return m(x[0], {.mask = made_tensor(300, {3, 3})}); });
  compare("attention_cross", m, [&](auto x) { return m(x[0], x[1]); });
  compare("attention_no_bias", bare, [&](auto x) { return bare(x[0]); });
}

TEST(Attention, GroupedQueriesArePyTorchs) {
  const nlohmann::json& e = expected("grouped");
  std::vector<Tensor> x;
  for (const auto& s : e["shapes"]) x.push_back(watch(made_tensor(100 + static_cast<int>(x.size()), shape_of(s))));
  const Tensor y = attention(x[0], x[1], x[2], {.causal = true});
  test::expect_close(y.to_vector<double>(), e["value"], 1e-9, "value");
  const std::vector<Tensor> g = vjp(std::vector{y}, x, std::vector{made_tensor(200, y.shape())});
  for (std::size_t i = 0; i < 3; ++i)
    test::expect_close(g[i].to_vector<double>(), e["grads"][i], 1e-9, "gradient " + std::to_string(i));
}

nn::TransformerOptions options(bool pre_norm, nn::FeedForward f) {
  return {.heads = 2, .hidden = 12, .pre_norm = pre_norm, .activation = f};
}

TEST(TransformerEncoderLayer, IsPyTorchs) {
  for (const bool pre : {false, true})
    for (const auto f : {nn::FeedForward::relu, nn::FeedForward::gelu}) {
      nn::TransformerEncoderLayer m(8, options(pre, f));
      compare(std::string("encoder_") + (pre ? "pre_" : "post_") + (f == nn::FeedForward::relu ? "relu" : "gelu"), m,
              [&](auto x) { return m(x[0]); });
    }
}

TEST(TransformerDecoderLayer, IsPyTorchs) {
  for (const bool pre : {false, true}) {
    nn::TransformerDecoderLayer m(8, options(pre, nn::FeedForward::relu));
    compare(pre ? "decoder_pre" : "decoder_post", m, [&](auto x) { return m(x[0], x[1]); });
  }
}

TEST(Transformer, StacksAreLayersAndANorm) {
  nn::TransformerEncoder encoder(2, 8, {.heads = 2, .causal = true});
  nn::TransformerDecoder decoder(2, 8, {.heads = 2, .pre_norm = false});
  nn::init(encoder, Key{1}, f64);
  nn::init(decoder, Key{2}, f64);
  const Tensor x = made_tensor(1, {2, 3, 8}), memory = made_tensor(2, {2, 5, 8});
  const Tensor y = (*encoder.norm)(encoder.layers[1](encoder.layers[0](x)));
  EXPECT_EQ(encoder(x).to_vector<double>(), y.to_vector<double>());
  EXPECT_FALSE(decoder.norm.has_value());
  const Tensor z = decoder.layers[1](decoder.layers[0](x, memory), memory);
  EXPECT_EQ(decoder(x, memory).to_vector<double>(), z.to_vector<double>());
  EXPECT_EQ(nn::state(encoder)[2].name, "layers.0.self_attn.in_proj.weight");
  const nn::TransformerEncoder copy = encoder;  // deep
  nn::parameters(encoder)[0].set(2.0);
  EXPECT_EQ(copy(x).to_vector<double>(), y.to_vector<double>());
}

// d loss / d x through the fused op is differentiated again.
TEST(TransformerEncoderLayer, SecondOrder) {
  nn::TransformerEncoderLayer m(4, {.heads = 2, .hidden = 4, .key_heads = 1, .causal = true, .rotary = true});
  nn::init(m, Key{3}, f64);
  const GradcheckResult r =
      gradcheck([&](const Tensor& x) { return m(x); }, made_tensor(1, {1, 3, 4}), {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
}

TEST(MultiHeadAttention, DropoutIsDrawnAgainBackwardAndOffInEvaluation) {
  nn::MultiHeadAttention m(8, 2, {.causal = true, .dropout = 0.5});
  nn::init(m, Key{4}, f64);
  const Tensor x = made_tensor(1, {2, 5, 8});
  const auto run = [&](Mode mode) {
    auto step = compile([&](const Tensor& a) { return m(a); }, {.mode = mode});
    return step(x).to_vector<double>();
  };
  EXPECT_EQ(run(Mode::eval), run(Mode::eval));
  EXPECT_NE(run(Mode::train), run(Mode::eval));
  EXPECT_NE(run(Mode::train), run(Mode::train));  // the counter went on
  // With the counter held, the loss is a function, and its gradient that of finite differences.
  const std::vector<std::int64_t> state = m.dropout.rng_state.get().to_vector<std::int64_t>();
  const ModeScope train(Mode::train);
  const GradcheckResult r = gradcheck(
      [&](const Tensor& a) {
        m.dropout.rng_state.set(Tensor::from(state, {2}));
        return m(a);
      },
      x);
  EXPECT_TRUE(r.ok) << r.str();
}

// One place after another, in chunks of one and more, against all at once.
TEST(MultiHeadAttention, DecodingIsTheForwardPass) {
  for (const bool rotary : {false, true}) {
    nn::MultiHeadAttention m(12, 6, {.key_heads = 2, .causal = true, .rotary = rotary});
    nn::init(m, Key{5}, f64);
    const Tensor x = made_tensor(1, {2, 7, 12});
    const nn::KeyValueCache cache = m.make_cache(2, 8);
    Tensor position = scalar(0, i64);
    std::vector<Tensor> parts;
    for (const std::int64_t n : {3, 1, 1, 2}) {
      const std::int64_t from = position.item<std::int64_t>();
      parts.push_back(m.decode(slice(x, 1, from, from + n), cache, position));
      position = scalar(static_cast<double>(from + n), i64);
    }
    EXPECT_LT(max(abs(concatenate(parts, 1) - m(x))).item(), 1e-13);
  }
}

TEST(Positions, AreTheirFormulas) {
  nn::LearnedPositions learned(5, 4);
  nn::init(learned, Key{6}, f64);
  const Tensor x = made_tensor(1, {2, 3, 4});
  const Tensor y = learned(x, scalar(2, i64)), z = x + slice(learned.weight, 0, 2, 5);
  EXPECT_EQ(y.to_vector<double>(), z.to_vector<double>());
  EXPECT_EQ(learned(x).to_vector<double>(), (x + slice(learned.weight, 0, 0, 3)).to_vector<double>());
  const Doubles table = sinusoidal_positions(3, 4, f64).to_vector<double>();
  EXPECT_NEAR(table[9], std::cos(2.0), 1e-15);
  EXPECT_NEAR(table[10], std::sin(2e-2), 1e-15);
  nn::SinusoidalPositions sines(4);
  EXPECT_EQ(sines(x).to_vector<double>(), (x + sinusoidal_positions(3, 4, f64)).to_vector<double>());
  // Rotation: scores depend on the distance of two places alone, and place 0 is left as it is.
  const Tensor q = made_tensor(2, {1, 1, 1, 6}), k = made_tensor(3, {1, 1, 1, 6});
  const auto score = [&](double i, double j) {
    return sum(rotary(q, scalar(i, i64)) * rotary(k, scalar(j, i64))).item();
  };
  EXPECT_NEAR(score(3, 1), score(1003, 1001), 1e-12);
  EXPECT_NE(score(3, 1), score(3, 2));
  EXPECT_LT(max(abs(rotary(q) - q)).item(), 1e-15);
  const Doubles turned = rotary(Tensor::from<double>({1, 0, 0, 0}, {1, 1, 1, 4}), scalar(1, i64)).to_vector<double>();
  EXPECT_NEAR(turned[0], std::cos(1.0), 1e-15);
  EXPECT_NEAR(turned[2], std::sin(1.0), 1e-15);
}

TEST(MultiHeadAttention, AQueryThatSeesNothingGivesTheBias) {
  nn::MultiHeadAttention m(4, 2);
  nn::init(m, Key{7}, f64);
  m.out_proj.bias.set(3.0);
  const Tensor y = m(made_tensor(1, {1, 2, 4}), {.key_lengths = scalar(0, i64)});
  EXPECT_THAT(y.to_vector<double>(), testing::Each(3.0));
  EXPECT_EQ(m(zeros({2, 0, 4}, f64)).shape(), (Shape{2, 0, 4}));
}

TEST(Transformer, MessagesNameTheLayer) {
  using testing::HasSubstr;
  EXPECT_THAT(message_of(ErrorKind::value, [] { nn::MultiHeadAttention(8, 3); }),
              HasSubstr("[attention] heads: expected a divisor of the width 8, got 3"));
  EXPECT_THAT(message_of(ErrorKind::value, [] { nn::MultiHeadAttention(8, 4, {.key_heads = 3}); }),
              HasSubstr("key_heads"));
  EXPECT_THAT(message_of(ErrorKind::value, [] { nn::MultiHeadAttention(6, 2, {.rotary = true}); }),
              HasSubstr("even head size"));
  nn::TransformerEncoder encoder(1, 8, {.heads = 2});
  nn::init(encoder, Key{1});
  EXPECT_THAT(message_of(ErrorKind::shape,
                         [&] {
                           encoder(zeros({2, 3, 7}));
                         }),
              HasSubstr("[attention] layers.0.self_attn: expected input [B, T, 8], got [2, 3, 7]"));
  nn::MultiHeadAttention rotary(8, 2, {.rotary = true});
  nn::init(rotary, Key{1});
  EXPECT_THAT(message_of(ErrorKind::value, [&] { rotary(zeros({1, 2, 8}), zeros({1, 2, 8})); }), HasSubstr("rotary"));
  nn::MultiHeadAttention m(8, 2);
  nn::init(m, Key{1});
  EXPECT_THAT(message_of(ErrorKind::shape,
                         [&] {
                           m(zeros({1, 2, 8}), zeros({2, 2, 8}));
                         }),
              HasSubstr("memory [1, T, 8]"));
  nn::LearnedPositions p(4, 8);
  nn::init(p, Key{1});
  EXPECT_THAT(message_of(ErrorKind::shape, [&] { p(zeros({1, 5, 8})); }), HasSubstr("T of at most 4"));
}

}  // namespace
}  // namespace bp

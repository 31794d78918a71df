// GPT: decoding by cache against the whole forward pass, first values, generation.
#include "bp/gpt.h"

#include "expectations.h"

namespace bp {
namespace {

nn::GPT small(nn::GPTOptions o = {}) {
  o.layers = 2, o.heads = 4, o.width = 16;
  nn::GPT model(11, 8, std::move(o));
  nn::init(model, Key{1}, f64);
  return model;
}

Tensor some_ids(std::int64_t batch, std::int64_t length) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < batch * length; ++i) ids.push_back(i * i * 7 % 11);
  return Tensor::from(ids, {batch, length});
}

// A compiled step of one id whose cache is state, against all ids at once.
TEST(GPT, DecodingIsTheForwardPass) {
  for (const bool rotary : {false, true}) {
    const nn::GPT model = small({.key_heads = rotary ? 2 : 0, .tie = !rotary, .rotary = rotary});
    const Tensor ids = some_ids(2, 8), whole = model(ids);
    nn::GPT::Cache cache = model.make_cache(2);
    auto step = compile([&](const Tensor& x) { return model.decode(x, cache); });
    std::vector<Tensor> parts{step(slice(ids, 1, 0, 3))};
    for (std::int64_t t = 3; t < 8; ++t) parts.push_back(step(slice(ids, 1, t, t + 1)));
    EXPECT_LT(max(abs(concatenate(parts, 1) - whole)).item(), 1e-12);
    EXPECT_EQ(step.traces(), 2);
    EXPECT_EQ(cache.position.get().item(), 8);
  }
}

TEST(GPT, NoIdSeesALaterOne) {
  const nn::GPT model = small();
  const Tensor a = some_ids(1, 8);
  std::vector<std::int64_t> changed = a.to_vector<std::int64_t>();
  changed[5] = (changed[5] + 1) % 11;
  const Tensor difference = abs(model(a) - model(Tensor::from(changed, {1, 8})));
  EXPECT_EQ(max(slice(difference, 1, 0, 5)).item(), 0);
  EXPECT_GT(max(slice(difference, 1, 5, 6)).item(), 0);
}

TEST(GPT, FirstValuesAreThoseOfGPT2) {
  nn::GPT model(50, 32, {.layers = 8, .heads = 2, .width = 64, .bias = false});
  nn::init(model, Key{2});
  const auto spread = [](const Variable& v) { return std::sqrt(mean(square(v.get())).item()); };
  EXPECT_NEAR(spread(model.token.weight), 0.02, 1e-3);
  EXPECT_NEAR(spread(model.position.weight), 0.02, 1e-3);
  EXPECT_NEAR(spread(model.blocks[0].linear1.weight), 0.02, 1e-3);
  EXPECT_NEAR(spread(model.blocks[0].linear2.weight), 0.005, 3e-4);
  EXPECT_NEAR(spread(model.blocks[7].self_attn.out_proj.weight), 0.005, 3e-4);
  EXPECT_EQ(nn::parameter_count(model), 50 * 64 + 32 * 64 + 8 * (12 * 64 * 64 + 4 * 64) + 2 * 64);
  const Tensor loss = cross_entropy(model(some_ids(2, 8)), full({2, 8}, 40, i64));
  EXPECT_NEAR(loss.item(), std::log(50.0), 0.1);
}

TEST(Generate, CachedIsReadAgain) {
  const nn::GPT model = small();
  const std::vector<std::int64_t> prompt{1, 2, 3};
  const auto plain = [&](const Tensor& ids) { return model(ids); };
  for (const double temperature : {0.0, 1.0}) {
    const nn::GenerateOptions o{.tokens = 5, .temperature = temperature, .top_k = 4, .key = Key{3}};
    EXPECT_EQ(nn::generate(model, prompt, o), nn::generate(plain, 8, prompt, o));
  }
  const nn::GenerateOptions o{.tokens = 40, .key = Key{3}};  // far beyond the context
  const std::vector<std::int64_t> once = nn::generate(model, prompt, o);
  EXPECT_EQ(once.size(), 40u);
  EXPECT_EQ(once, nn::generate(model, prompt, o));
  EXPECT_NE(once, nn::generate(model, prompt, {.tokens = 40, .key = Key{4}}));
  const std::vector<std::int64_t> long_prompt(20, 1);
  EXPECT_EQ(nn::generate(model, long_prompt, {.tokens = 2}).size(), 2u);
  int seen = 0;
  nn::generate(model, prompt, {.on_token = [&](std::int64_t) { return ++seen < 3; }});
  EXPECT_EQ(seen, 3);
}

TEST(Generate, DrawsByTheScores) {
  Rng rng(Key{5});
  const std::vector<double> scores{0, std::log(3.0), -50, std::log(2.0)};
  std::vector<int> count(4);
  for (int i = 0; i < 6000; ++i) ++count[static_cast<std::size_t>(nn::draw_id(scores, 1, 0, rng))];
  EXPECT_NEAR(count[0], 1000, 120);
  EXPECT_NEAR(count[1], 3000, 160);
  EXPECT_EQ(count[2], 0);
  for (int i = 0; i < 100; ++i) EXPECT_NE(nn::draw_id(scores, 1, 2, rng), 0);  // of the two likeliest
  EXPECT_EQ(nn::draw_id(scores, 0, 0, rng), 1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(nn::draw_id(scores, 0.01, 0, rng), 1);  // cold
}

TEST(GPT, Messages) {
  using testing::HasSubstr;
  const nn::GPT model = small();
  EXPECT_THAT(message_of(ErrorKind::shape, [&] { model(some_ids(1, 9)); }),
              HasSubstr("expected ids [B, T] with T of at most 8 (the context), got [1, 9]"));
  EXPECT_THAT(message_of(ErrorKind::dtype, [&] { model(zeros({1, 2})); }), HasSubstr("ids in i32 or i64"));
  EXPECT_THAT(message_of(ErrorKind::value,
                         [&] {
                           model(Tensor::from<std::int64_t>({1, 11}, {1, 2}));
                         }),
              HasSubstr("11"));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { nn::generate(model, {}); }), HasSubstr("a prompt of one id or more"));
  const std::vector<std::int64_t> bad{1, 11};
  EXPECT_THAT(message_of(ErrorKind::value, [&] { nn::generate(model, bad); }),
              HasSubstr("prompt[1]: expected an id in [0, 11), got 11"));
  EXPECT_THAT(
      message_of(ErrorKind::value, [&] { nn::generate(model, std::vector<std::int64_t>{1}, {.temperature = -1}); }),
      HasSubstr("temperature"));
  EXPECT_THAT(message_of(ErrorKind::value, [] { nn::GPT(5, 4, {.heads = 3, .width = 16}); }), HasSubstr("heads"));
}

}  // namespace
}  // namespace bp

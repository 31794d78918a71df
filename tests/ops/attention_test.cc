// attention beyond its rows in the op table: messages, what hides everything, memory, threads, NaN.
#include "bp/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"
#include "message_of.h"

namespace bp {
namespace {

Tensor numbers(const Shape& shape, std::uint64_t seed, DType dtype = f32) {
  return random_normal(random_state(Key(seed)), shape, dtype);
}

TEST(Attention, MessagesNameWhatWasExpected) {
  const Tensor q = zeros({2, 3, 4, 8}), k = zeros({2, 5, 2, 8});
  const auto said = [&](const Tensor& a, const Tensor& b, const Tensor& c, const AttentionOptions& o = {}) {
    return message_of([&] { attention(a, b, c, o); });
  };
  using testing::HasSubstr;
  EXPECT_THAT(said(zeros({3, 8}), k, k), HasSubstr("[attention] expected q [B, Tq, H, D], got [3, 8]"));
  EXPECT_THAT(said(q, zeros({2, 5, 2, 7}), k), HasSubstr("expected k [2, Tk, K, 8] beside q [2, 3, 4, 8]"));
  EXPECT_THAT(said(q, k, zeros({2, 6, 2, 8})), HasSubstr("expected v [2, 5, 2, E]"));
  EXPECT_THAT(said(q, zeros({2, 5, 3, 8}), zeros({2, 5, 3, 8})), HasSubstr("a multiple of the 3 key heads, got 4"));
  EXPECT_THAT(said(q, k, k, {.mask = zeros({4, 5})}), HasSubstr("expected a mask broadcastable to [2, 4, 3, 5]"));
  EXPECT_THAT(said(q, k, k, {.key_lengths = zeros({2})}), HasSubstr("key_lengths: expected an integer"));
  EXPECT_THAT(said(q, k, k, {.query_offset = scalar(1, i64)}), HasSubstr("only when causal"));
  EXPECT_THAT(said(q, k, k, {.dropout = 1.0}), HasSubstr("dropout: expected 0 <= dropout < 1, got 1"));
  EXPECT_THAT(said(q, k, k, {.dropout = 0.5}), HasSubstr("dropout needs a random_state, i64[2]"));
  EXPECT_THAT(said(q, k, k, {.dropout = 0.5, .random_state = scalar(1, i64)}),
              HasSubstr("random_state i64[2], got i64"));
  EXPECT_THAT(said(cast(q, i32), k, k), HasSubstr("expected floating tensors, got i32"));
  EXPECT_THAT(message_of([&] { attend(zeros({2, 4, 3, 6}), k); }), HasSubstr("[attend] expected weights"));
}

// With a mask, by lengths, and where there are no keys: zeros, and zero gradients.
TEST(Attention, AQueryThatSeesNothingGivesZeros) {
  const Tensor q = watch(numbers({1, 3, 2, 4}, 1)), k = watch(numbers({1, 5, 2, 4}, 2)),
               v = watch(numbers({1, 5, 2, 4}, 3));
  const double inf = std::numeric_limits<double>::infinity();
  for (const AttentionOptions& o :
       {AttentionOptions{.key_lengths = scalar(0, i64)}, AttentionOptions{.mask = full({1}, 0, boolean)},
        AttentionOptions{.mask = full({3, 5}, -inf)},
        AttentionOptions{.causal = true, .query_offset = scalar(-7, i64)}}) {
    const Tensor y = attention(q, k, v, o);
    const std::vector<Tensor> g = grad(sum(y * numbers(y.shape(), 4)), std::vector<Tensor>{q, k, v});
    EXPECT_THAT(y.to_vector<double>(), testing::Each(0.0));
    for (const Tensor& x : g) EXPECT_THAT(x.to_vector<double>(), testing::Each(0.0));
    EXPECT_THAT(attend(attention_weights(q, k, o), v).to_vector<double>(), testing::Each(0.0));
  }
  EXPECT_THAT(attention(q, zeros({1, 0, 2, 4}), zeros({1, 0, 2, 4})).to_vector<double>(), testing::Each(0.0));
}

TEST(Attention, NanIsNotHidden) {
  Tensor q = numbers({1, 2, 1, 4}, 1), k = full({1, 3, 1, 4}, std::nan("")), v = numbers({1, 3, 1, 4}, 3);
  for (double x : attention(q, k, v).to_vector<double>()) EXPECT_TRUE(std::isnan(x));
  const Tensor mask = Tensor::from<float>({0, -std::numeric_limits<float>::infinity(), 0}, {3});
  for (double x : attention(q, k, v, {.mask = mask}).to_vector<double>()) EXPECT_TRUE(std::isnan(x));
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Tensor q = full({1, 1, 1, 1}, 1e4), k = Tensor::from<float>({1, 2, -3}, {1, 3, 1, 1});
  const Tensor v = Tensor::from<float>({10, 20, 30}, {1, 3, 1, 1});
  EXPECT_EQ(attention(q, k, v).item(), 20);
  EXPECT_EQ(attention(q, k, v, {.scale = -1.0}).item(), 30);
}

// Shapes around the sizes of blocks and tiles, both ways of sharing out the backward pass, in f32 and f64 against plain
// operations.
struct Case {
  std::int64_t batch, queries, keys, heads, key_heads, depth, values;
  bool causal;
};

class AttentionCases : public testing::TestWithParam<Case> {};

TEST_P(AttentionCases, FusedIsThePlainOne) {
  const Case& c = GetParam();
  for (const DType t : {f32, f64}) {
    const Tensor q = watch(numbers({c.batch, c.queries, c.heads, c.depth}, 1, t)),
                 k = watch(numbers({c.batch, c.keys, c.key_heads, c.depth}, 2, t)),
                 v = watch(numbers({c.batch, c.keys, c.key_heads, c.values}, 3, t));
    for (const double dropout : {0.0, 0.3}) {
      AttentionOptions o{.causal = c.causal};
      Tensor w = attention_weights(q, k, o);
      if (dropout > 0) {
        o.dropout = dropout, o.random_state = random_state(Key(9)), o.random_place = 77;
        const Tensor kept = random_bernoulli(o.random_state, w.shape(), 1 - dropout, o.random_place);
        w = select(kept, w / (1 - dropout), zeros_like(w));
      }
      const Tensor y = attention(q, k, v, o), z = attend(w, v), d = numbers(y.shape(), 4, t);
      const std::vector<Tensor> x{q, k, v}, ds{d};
      const std::vector<Tensor> g = vjp(std::vector{y}, x, ds), h = vjp(std::vector{z}, x, ds);
      const double tolerance = t == f32 ? 1e-4 : 1e-12;
      EXPECT_LT(max(abs(y - z)).item(), tolerance);
      for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(max(abs(g[i] - h[i])).item(), tolerance) << "gradient " << i;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCases,
                         testing::Values(Case{1, 97, 257, 16, 16, 5, 7, false}, Case{1, 96, 256, 2, 2, 16, 16, false},
                                         Case{4, 65, 129, 8, 4, 7, 9, true}, Case{1, 193, 193, 2, 1, 8, 8, true},
                                         Case{1, 64, 128, 1, 1, 33, 1, true}, Case{1, 1, 513, 3, 1, 4, 4, false},
                                         Case{1, 300, 20, 9, 3, 5, 5, true}, Case{2, 150, 150, 8, 8, 32, 32, true}));

// An offset and lengths that end within tiles, so that the first block of queries sees part of a tile of keys and the
// next one the rest, beside a mask of every shape.
TEST(Attention, OffsetsLengthsAndMasksCutTiles) {
  const Tensor q = watch(numbers({2, 130, 8, 5}, 1)), k = watch(numbers({2, 150, 8, 5}, 2)),
               v = watch(numbers({2, 150, 8, 6}, 3)), d = numbers({2, 130, 8, 6}, 4);
  const Tensor offset = Tensor::from<std::int64_t>({-24, 37}, {2}),
               lengths = Tensor::from<std::int64_t>({140, 101}, {2});
  double scale = 0.4;
  for (const Tensor& mask : {Tensor(), numbers({2, 8, 130, 150}, 5), numbers({1, 8, 1, 150}, 6), numbers({130, 1}, 7),
                             numbers({2, 1, 130, 150}, 8) > 0.0, Tensor()}) {
    const AttentionOptions o{
        .causal = true, .query_offset = offset, .key_lengths = lengths, .mask = mask, .scale = scale};
    scale = -scale;
    const Tensor y = attention(q, k, v, o), z = attend(attention_weights(q, k, o), v);
    const std::vector<Tensor> x{q, k, v}, ds{d};
    const std::vector<Tensor> g = vjp(std::vector{y}, x, ds), h = vjp(std::vector{z}, x, ds);
    EXPECT_LT(max(abs(y - z)).item(), 1e-5);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(max(abs(g[i] - h[i])).item(), 1e-4) << "gradient " << i;
  }
}

TEST(Attention, ThreadsDoNotChangeABit) {
  const Tensor q = numbers({2, 200, 4, 16}, 1), k = numbers({2, 200, 2, 16}, 2), v = numbers({2, 200, 2, 16}, 3);
  const auto run = [&](int threads) {
    auto step = compile(
        [&](const Tensor& a, const Tensor& b, const Tensor& c) {
          const Tensor y = attention(a, b, c, {.causal = true});
          std::vector<Tensor> out = grad(sum(square(y)), std::vector<Tensor>{a, b, c});
          out.push_back(y);
          return out;
        },
        {.threads = threads});
    return step(q, k, v);
  };
  const std::vector<Tensor> one = run(1), three = run(3);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].to_vector<float>(), three[i].to_vector<float>());
}

// Scores of one head would take 64 MB here, twice that backward.
TEST(Attention, MemoryIsLinearInTheLength) {
  const Tensor state = random_state(Key(1));
  const auto bytes = [&](std::int64_t length) {
    auto step = compile(
        [&](const Tensor& a, const Tensor& b, const Tensor& c) {
          const Tensor y = attention(a, b, c, {.causal = true, .dropout = 0.1, .random_state = state});
          return grad(sum(square(y)), std::vector<Tensor>{a, b, c});
        },
        {.threads = 1});
    const Type t{f32, {1, length, 1, 16}};
    return step.prepare({t, t, t}).planned_peak_bytes;
  };
  const std::size_t half = bytes(2048), whole = bytes(4096);
  EXPECT_LT(whole, std::size_t{8} << 20);
  EXPECT_LT(static_cast<double>(whole), 2.1 * static_cast<double>(half));
}

}  // namespace
}  // namespace bp

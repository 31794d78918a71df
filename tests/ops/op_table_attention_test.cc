// Rows of the op table: attention over odd lengths, grouped queries, masks, lengths and offsets.
#include "bp/attention.h"
#include "op_table.h"

namespace bp::test {
namespace {

// Operands q, k, v and what the options need, in the order mask, lengths, offset.
struct Sizes {
  std::int64_t batch, queries, keys, heads, key_heads, depth, values;
};

std::vector<Input> attention_operands(const Sizes& s, std::vector<Input> more = {}) {
  std::vector<Input> in{{{s.batch, s.queries, s.heads, s.depth}},
                        {{s.batch, s.keys, s.key_heads, s.depth}},
                        {{s.batch, s.keys, s.key_heads, s.values}}};
  for (Input& i : more) in.push_back(std::move(i));
  return in;
}

Input integers(std::int64_t batch, Values values) { return {{batch}, i64, 0, 1, std::move(values)}; }

// softmax(q k / sqrt(D)) v where `sees(b, h, i, j)`, with `added` to the scores.
using Sees = std::function<bool(std::span<const Values>, std::int64_t b, std::int64_t i, std::int64_t j)>;

Formula formula(Sees sees) {
  return [sees](std::span<const Input> in, std::span<const Values> v) {
    const Shape &q = in[0].shape, &k = in[1].shape, &u = in[2].shape;
    const std::int64_t group = k[2] == 0 ? 1 : q[2] / k[2];
    const auto at = [](std::size_t operand, const Shape& s, std::int64_t b, std::int64_t t, std::int64_t h,
                       std::int64_t d, std::span<const Values> values) {
      return values[operand][static_cast<std::size_t>(((b * s[1] + t) * s[2] + h) * s[3] + d)];
    };
    Values out;
    for (std::int64_t b = 0; b < q[0]; ++b)
      for (std::int64_t i = 0; i < q[1]; ++i)
        for (std::int64_t h = 0; h < q[2]; ++h)
          for (std::int64_t d = 0; d < u[3]; ++d) {
            double total = 0, sum = 0;
            for (std::int64_t j = 0; j < k[1]; ++j) {
              if (!sees(v, b, i, j)) continue;
              double score = 0;
              for (std::int64_t c = 0; c < q[3]; ++c)
                score += at(0, q, b, i, h, c, v) * at(1, k, b, j, h / group, c, v);
              const double w = std::exp(score / std::sqrt(static_cast<double>(q[3])));
              total += w;
              sum += w * at(2, u, b, j, h / group, d, v);
            }
            out.push_back(total == 0 ? 0 : sum / total);
          }
    return out;
  };
}

OpRow attention_row(std::string name, std::function<AttentionOptions(std::span<const Tensor>)> options,
                    Formula expected, std::vector<std::vector<Input>> cases) {
  OpRow r{std::move(name),
          [options = std::move(options)](std::span<const Tensor> x) {
            return std::vector<Tensor>{attention(x[0], x[1], x[2], options(x))};
          },
          std::move(cases), std::move(expected)};
  r.rtol = 1e-11;
  r.atol32 = 1e-5;
  r.grad_rtol32 = 1e-3;
  r.grad_atol32 = 1e-4;
  r.rtol_bf16 = kBf16;
  return r;
}

OpRow with_large_cases(OpRow r, std::vector<std::vector<Input>> large) {
  r.large = std::move(large);
  return r;
}

AttentionOptions causal() { return {.causal = true}; }

const AddRows attention_rows({
    with_large_cases(
        attention_row("attention", [](std::span<const Tensor>) { return AttentionOptions{}; },
                      formula([](auto, auto, auto, auto) { return true; }),
                      {attention_operands({1, 3, 2, 1, 1, 2, 2}), attention_operands({2, 2, 3, 2, 1, 3, 1}),
                       attention_operands({1, 0, 3, 1, 1, 2, 2}), attention_operands({1, 2, 0, 1, 1, 2, 2}),
                       attention_operands({0, 2, 3, 1, 1, 2, 2}), attention_operands({1, 1, 5, 4, 2, 1, 3})}),
        {attention_operands({2, 67, 301, 2, 1, 17, 33}), attention_operands({1, 1, 130, 2, 2, 32, 32})}),
    [] {
      OpRow r = with_large_cases(
          attention_row("attention_causal", [](std::span<const Tensor>) { return causal(); },
                        formula([](auto, auto, auto i, auto j) { return j <= i; }),
                        {attention_operands({1, 3, 3, 2, 2, 2, 2}), attention_operands({1, 2, 4, 1, 1, 3, 2}),
                         attention_operands({1, 4, 2, 1, 1, 1, 1})}),
          {attention_operands({3, 130, 130, 4, 2, 16, 16}), attention_operands({1, 97, 260, 1, 1, 8, 5}),
           attention_operands({1, 260, 97, 1, 1, 8, 8})});
      r.covers = {"attention_grad"};
      return r;
    }(),
    // Entry 0 sees nothing, entry 2 more keys than there are.
    attention_row("attention_lengths", [](std::span<const Tensor> x) { return AttentionOptions{.key_lengths = x[3]}; },
                  formula([](std::span<const Values> v, std::int64_t b, auto, auto j) {
                    return static_cast<double>(j) < v[3][static_cast<std::size_t>(b)];
                  }),
                  {attention_operands({3, 2, 4, 1, 1, 2, 2}, {integers(3, {0, 3, 9})})}),
    attention_row("attention_offset",
                  [](std::span<const Tensor> x) {
                    return AttentionOptions{.causal = true, .query_offset = x[4], .key_lengths = x[3]};
                  },
                  formula([](std::span<const Values> v, std::int64_t b, auto i, auto j) {
                    const auto k = static_cast<std::size_t>(b);
                    return static_cast<double>(j) < v[3][k] &&
                           static_cast<double>(j) <= static_cast<double>(i) + v[4][k];
                  }),
                  {attention_operands({2, 2, 5, 2, 1, 2, 2}, {integers(2, {5, 3}), integers(2, {2, -1})})}),
    // The mask is [1, 1, 3, 4]; its second row hides everything.
    attention_row("attention_mask", [](std::span<const Tensor> x) { return AttentionOptions{.mask = x[3]}; },
                  formula([](std::span<const Values> v, auto, std::int64_t i, std::int64_t j) {
                    return v[3][static_cast<std::size_t>(i * 4 + j)] != 0;
                  }),
                  {attention_operands({2, 3, 4, 2, 2, 2, 3},
                                      {{{3, 4}, boolean, 0, 1, {1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0}}})}),
    attention_row("attention_bias",
                  [](std::span<const Tensor> x) { return AttentionOptions{.causal = true, .mask = x[3]}; }, {},
                  {attention_operands({2, 2, 3, 2, 1, 2, 2}, {{{2, 2, 3}}}),
                   attention_operands({2, 2, 3, 2, 2, 2, 2}, {{{2, 1, 1, 3}}}),
                   attention_operands({1, 3, 3, 2, 1, 1, 2}, {{{1}}})}),
    // The values are compared with dropped weights in attention_test.cc.
    attention_row("attention_dropout",
                  [](std::span<const Tensor>) {
                    AttentionOptions o = causal();
                    o.dropout = 0.4, o.random_state = random_state(Key(5)), o.random_place = 3;
                    return o;
                  },
                  {}, {attention_operands({2, 3, 3, 2, 1, 2, 2}), attention_operands({1, 2, 4, 2, 2, 1, 3})}),
    // In plain operations.
    {"attention_weights",
     [](std::span<const Tensor>
            x) { return std::vector<Tensor>{attend(attention_weights(x[0], x[1], causal()), x[2])}; },
     {attention_operands({2, 3, 3, 2, 1, 2, 2}), attention_operands({1, 2, 0, 1, 1, 2, 2})},
     formula([](auto, auto, auto i, auto j) { return j <= i; })},
});

}  // namespace
}  // namespace bp::test

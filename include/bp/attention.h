// Attention as an operation: softmax(scale * q k^T + mask) v, in memory linear in the lengths, forward and backward.
// The layers around it are in bp/transformer.h.
//
//   const Tensor x = ones({1, 5, 2, 8});  // [B, T, heads, size]
//   assert(attention(x, x, x, {.causal = true}).shape() == x.shape());
#pragma once

#include <cstdint>
#include <optional>

#include "bp/ops.h"

namespace bp {

// Which keys a query sees: all that no entry here excludes. Keys and queries are counted from 0.
struct AttentionOptions {
  bool causal = false;  // query i sees the keys j <= i + query_offset
  // Position of the first query among the keys, for cached decoding: an integer or integers [B]. Undefined: 0.
  Tensor query_offset = {};
  // Integers [B], clamped to [0, Tk]: batch entry b sees the keys j < key_lengths[b] (padding).
  Tensor key_lengths = {};
  // Broadcastable to [B, H, Tq, Tk]. Boolean: true where a query sees a key. Floating: added to the scaled scores
  // (-inf hides a key).
  Tensor mask = {};
  std::optional<double> scale = std::nullopt;  // 1 / sqrt(D)
  // Each weight becomes 0 with this probability, else it is divided by 1 - dropout. Which ones is what random_bernoulli
  // draws for [B, H, Tq, Tk] from random_state (see random_state()) and random_place; drawn again going backward.
  double dropout = 0;
  Tensor random_state = {};        // i64 [2]
  std::uint64_t random_place = 0;  // tells draws of one state apart
};

// q [B, Tq, H, D], k [B, Tk, K, D], v [B, Tk, K, E] -> [B, Tq, H, E]; H must be a multiple of K: head h reads the keys
// and values h / (H / K) (grouped queries; Ainslie et al., "GQA", 2023). A query that sees no key gives zeros, and no
// gradient flows from it. Scores are never kept: blocks of them are made again in the backward pass (Dao et al.,
// "FlashAttention", NeurIPS 2022); second derivatives, and a gradient by `mask`, take memory Tq * Tk.
// bf16 is computed in f32. Throws Error(shape) for operands or masks that do not fit, Error(dtype) for integers,
// Error(value) for a dropout outside [0, 1) or without a random_state.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});

// The same in plain operations, in two halves: the weights [B, H, Tq, Tk] and what they make of v.
Tensor attention_weights(const Tensor& q, const Tensor& k, const AttentionOptions& options = {});
// [B, H, Tq, Tk] and v [B, Tk, K, E] -> [B, Tq, H, E].
Tensor attend(const Tensor& weights, const Tensor& v);

// Su et al., "RoFormer", 2021, over halves (as LLaMA's): x [B, T, H, D], D even, at places p = offset + t:
//   y = (a cos(w) - b sin(w), b cos(w) + a sin(w)), x = (a, b), w_i = p base^(-2 i / D), i < D / 2.
// offset: an integer, 0 when undefined.
Tensor rotary(const Tensor& x, const Tensor& offset = {}, double base = 10000);
// Vaswani et al., "Attention is all you need", NIPS 2017, 3.5: [length, width], width even,
// table[t][2 i] = sin(t 10000^(-2 i / width)), table[t][2 i + 1] = cos of the same. Not differentiable by anything.
Tensor sinusoidal_positions(std::int64_t length, std::int64_t width, DType dtype = f32);

}  // namespace bp

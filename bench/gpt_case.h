// The gpt case of the benchmark: token and position embeddings, four pre-norm blocks (or more), an untied head without
// bias. Included by cases.h; the recipe and sizes are those of its peers.
#pragma once

#include <array>

#include "bp/bp.h"

namespace bench {

template <std::size_t Layers> struct GptOf {
  static constexpr std::int64_t kVocabulary = 96, kContext = 128, kWidth = 192, kHeads = 6;
  struct Block {
    bp::nn::LayerNorm norm1{kWidth};
    bp::nn::Linear qkv{kWidth, 3 * kWidth}, proj{kWidth, kWidth};
    bp::nn::LayerNorm norm2{kWidth};
    bp::nn::Linear up{kWidth, 4 * kWidth}, down{4 * kWidth, kWidth};

    // x: [B, T, C]
    bp::Tensor operator()(bp::Tensor x) const {
      x = x + proj(attend(qkv(norm1(x))));
      return x + down(bp::gelu_tanh(up(norm2(x))));
    }
    // [B, T, 3 C] -> [B, T, C]
    static bp::Tensor attend(const bp::Tensor& packed) {
      const std::int64_t b = packed.size(0), t = packed.size(1);
      const auto part = [&](std::int64_t i) {
        return bp::reshape(bp::slice(packed, 2, i * kWidth, (i + 1) * kWidth), {b, t, kHeads, kWidth / kHeads});
      };
      return bp::reshape(bp::attention(part(0), part(1), part(2), {.causal = true}), {b, t, kWidth});
    }
    BP_FIELDS(Block, norm1, qkv, proj, norm2, up, down)
  };

  bp::Variable token{bp::zeros({kVocabulary, kWidth})}, position{bp::zeros({kContext, kWidth})};
  std::array<Block, Layers> blocks;
  bp::nn::LayerNorm norm{kWidth};
  bp::nn::Linear head{kWidth, kVocabulary, {.bias = false}};

  // ids [B, T] -> logits [B, T, vocabulary]
  bp::Tensor operator()(const bp::Tensor& ids) const {
    bp::Tensor x = bp::gather(token, ids) + bp::slice(position, 0, 0, ids.size(1));
    for (const Block& block : blocks) x = block(x);
    return head(norm(x));
  }
  BP_FIELDS(GptOf, token, position, blocks, norm, head)
};
using Gpt = GptOf<4>;

}  // namespace bench

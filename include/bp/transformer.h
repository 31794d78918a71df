// Layers of transformers: multi-head attention, positions, encoder and decoder. Sequences are [B, T, width].
//
//   nn::TransformerEncoder encoder(2, 32, {.heads = 4});
//   nn::init(encoder, Key{42});
//   assert(encoder(zeros({4, 20, 32})).shape() == Shape({4, 20, 32}));
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bp/attention.h"
#include "bp/layers.h"

namespace bp::nn {

// What a query does not see; all of it is put together.
struct AttentionMask {
  bool causal = false;      // keys behind the query's own place
  Tensor key_lengths = {};  // integers [B]: keys of padding behind so many
  // Broadcastable to [B, heads, Tq, Tk]: boolean, true where a key is seen (PyTorch's key_padding_mask is the opposite,
  // [B, Tk]), or floating, added to the scores.
  Tensor mask = {};
};

// Keys and values of the places already read, for decoding: [B, capacity, key_heads, head size].
struct KeyValueCache {
  Variable keys, values;  // of one layer
};

// How a MultiHeadAttention is made.
struct MultiHeadAttentionOptions {
  std::int64_t key_heads = 0;  // grouped queries: fewer heads of keys and values than of queries; 0: as many
  bool bias = true;            // with biases
  bool causal = false;         // of operator()(x)
  bool rotary = false;         // queries and keys are rotated by their place (bp::rotary)
  double rotary_base = 10000;  // of the slowest rotation
  double dropout = 0;          // of the weights, in train mode
  Initializer weight_init = init::glorot_uniform();   // of in_proj, as PyTorch's
  Initializer output_init = init::pytorch_default();  // of out_proj's weight
};

// Vaswani et al., "Attention is all you need", NIPS 2017, 3.2: heads of attention over projections of x, side by side,
// projected. torch.nn.MultiheadAttention with batch_first. A query that sees nothing gives out_proj's bias.
class MultiHeadAttention final : public LayerOf<MultiHeadAttention> {
 public:
  // Throws Error(value) for heads that do not divide the width, or key_heads that do not divide the heads.
  MultiHeadAttention(std::int64_t width, std::int64_t heads, MultiHeadAttentionOptions options = {});
  // Self-attention: x [B, T, width] -> [B, T, width]. T = 0 gives as much.
  Tensor operator()(const Tensor& x) const override { return (*this)(x, {.causal = options_.causal}); }
  Tensor operator()(const Tensor& x, const AttentionMask& mask) const;
  // Of x [B, Tq, width] to memory [B, Tk, width]. Throws Error(value) with rotary positions, which belong to one
  // sequence.
  Tensor operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask = {}) const;
  // Causal self-attention of x [B, T, width] at the places position, position + 1, ..: keys and values go into the
  // cache, and what it holds of earlier places is seen. position: an integer; position + T may not pass the capacity.
  Tensor decode(const Tensor& x, const KeyValueCache& cache, const Tensor& position) const;
  // Empty, for `batch` sequences of up to `capacity` places.
  KeyValueCache make_cache(std::int64_t batch, std::int64_t capacity) const;

  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "attention"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  std::int64_t width() const noexcept { return width_; }  // of x and of the result

  Linear in_proj;   // [width, (heads + 2 key_heads) * head size]: queries, keys, values
  Linear out_proj;  // [heads * head size, width]
  Dropout dropout;  // of the weights

 private:
  struct Projected {
    Tensor q, k, v;  // [B, T, heads | key_heads, head size]
  };
  Tensor part(const Tensor& packed, std::int64_t first, std::int64_t heads) const;
  Projected project(const Tensor& x) const;
  Projected project(const Tensor& x, const Tensor& memory) const;
  Tensor attend(const Projected& p, const AttentionOptions& options) const;
  std::int64_t width_, heads_, key_heads_, size_;
  MultiHeadAttentionOptions options_;
};

// ---- positions --------------------------------------------------------------------------------------------------

// x [B, T, width] + weight[0 .. T]. Throws Error(shape) for T beyond the capacity.
class LearnedPositions final : public LayerOf<LearnedPositions> {
 public:
  // capacity: places at most.
  LearnedPositions(std::int64_t capacity, std::int64_t width, Initializer weight_init = init::normal(0, 0.02));
  Tensor operator()(const Tensor& x) const override;
  // The places are position, position + 1, ..: an integer.
  Tensor operator()(const Tensor& x, const Tensor& position) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "learned_positions"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight;  // [capacity, width]

 private:
  std::int64_t capacity_, width_;
  Initializer weight_init_;
};

// x [B, T, width] + bp::sinusoidal_positions.
class SinusoidalPositions final : public LayerOf<SinusoidalPositions> {
 public:
  // width: even.
  explicit SinusoidalPositions(std::int64_t width);
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "sinusoidal_positions"; }

 private:
  std::int64_t width_;
};

// ---- encoder and decoder -----------------------------------------------------------------------------------------

// The function between the two products of a feed-forward part.
enum class FeedForward { relu, gelu, gelu_tanh, silu };

// How the layers of a transformer are made.
struct TransformerOptions {
  std::int64_t heads = 4;   // of attention
  std::int64_t hidden = 0;  // of the feed-forward part; 0: 4 * width
  double dropout = 0;       // of attention weights, of the hidden layer and of what is added to x
  bool pre_norm = true;     // x + f(norm(x)); otherwise norm(x + f(x)), as in the paper and PyTorch's default
  FeedForward activation = FeedForward::gelu;  // of the feed-forward part
  double eps = 1e-5;                           // of the norms
  bool bias = true;                            // of products; norms always have one
  std::int64_t key_heads = 0;                  // grouped queries; 0: as many as heads
  bool causal = false;                         // of operator()(x); of a decoder it is always
  bool rotary = false;                         // queries and keys are rotated by their place
  // Weights of products; of those whose result is added to x.
  Initializer weight_init = init::glorot_uniform(), residual_init = init::glorot_uniform();
};

// torch.nn.TransformerEncoderLayer (batch_first): attention and a feed-forward part, each added to x.
class TransformerEncoderLayer final : public LayerOf<TransformerEncoderLayer> {
 public:
  // Throws Error(value) for heads that do not divide the width, or options out of range.
  explicit TransformerEncoderLayer(std::int64_t width, TransformerOptions options = {});
  Tensor operator()(const Tensor& x) const override { return (*this)(x, {.causal = options_.causal}); }
  // The same with another mask.
  Tensor operator()(const Tensor& x, const AttentionMask& mask) const;
  // See MultiHeadAttention::decode.
  Tensor decode(const Tensor& x, const KeyValueCache& cache, const Tensor& position) const;
  Shape output_shape(const Shape& in) const override { return self_attn.output_shape(in); }
  const char* kind() const noexcept override { return "transformer_encoder_layer"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

  LayerNorm norm1;                      // of attention
  MultiHeadAttention self_attn;         // attention
  LayerNorm norm2;                      // of the feed-forward part
  Linear linear1, linear2;              // [width, hidden], [hidden, width]
  Dropout dropout, dropout1, dropout2;  // hidden, after attention, after the feed-forward part

 private:
  template <class Attend> Tensor apply(const Tensor& x, Attend attend) const;
  TransformerOptions options_;
};

// torch.nn.TransformerDecoderLayer (batch_first): causal self-attention, attention to the memory, feed-forward.
class TransformerDecoderLayer final : public LayerOf<TransformerDecoderLayer> {
 public:
  // Throws Error(value) for heads that do not divide the width, or options out of range.
  explicit TransformerDecoderLayer(std::int64_t width, TransformerOptions options = {});
  // x attends to itself as its own memory: what a memory of its own shape would give.
  Tensor operator()(const Tensor& x) const override { return (*this)(x, x); }
  // x [B, T, width], memory [B, S, width] -> [B, T, width].
  Tensor operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask = {.causal = true},
                    const AttentionMask& memory_mask = {}) const;
  Shape output_shape(const Shape& in) const override { return self_attn.output_shape(in); }
  const char* kind() const noexcept override { return "transformer_decoder_layer"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

  LayerNorm norm1;                    // of self-attention
  MultiHeadAttention self_attn;       // causal
  LayerNorm norm2;                    // of attention to the memory
  MultiHeadAttention multihead_attn;  // to the memory
  LayerNorm norm3;                    // of the feed-forward part
  Linear linear1, linear2;            // [width, hidden], [hidden, width]
  // hidden; after self-attention, after attention to the memory, after the feed-forward part.
  Dropout dropout, dropout1, dropout2, dropout3;

 private:
  TransformerOptions options_;
};

// Layers one after another; with pre_norm a last norm, as those who use it do.
class TransformerEncoder final : public LayerOf<TransformerEncoder> {
 public:
  // layers: one or more.
  TransformerEncoder(std::int64_t layers, std::int64_t width, TransformerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  // The same with a mask for all layers.
  Tensor operator()(const Tensor& x, const AttentionMask& mask) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "transformer_encoder"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

  std::vector<TransformerEncoderLayer> layers;  // in order
  std::optional<LayerNorm> norm;                // the last one; unset without pre_norm
};

// Decoder layers one after another, all of which see the memory; with pre_norm a last norm.
class TransformerDecoder final : public LayerOf<TransformerDecoder> {
 public:
  // layers: one or more.
  TransformerDecoder(std::int64_t layers, std::int64_t width, TransformerOptions options = {});
  Tensor operator()(const Tensor& x) const override { return (*this)(x, x); }
  // x [B, T, width], memory [B, S, width] -> [B, T, width].
  Tensor operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask = {.causal = true},
                    const AttentionMask& memory_mask = {}) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "transformer_decoder"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

  std::vector<TransformerDecoderLayer> layers;  // in order
  std::optional<LayerNorm> norm;                // the last one; unset without pre_norm
};

}  // namespace bp::nn

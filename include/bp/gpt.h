// GPT: a causal transformer over ids, its cache for decoding, and generation.
//
//   nn::GPT model(65, 32, {.layers = 2, .heads = 2, .width = 32});
//   nn::init(model, Key{42});
//   assert(nn::generate(model, std::vector<std::int64_t>{1, 2, 3}, {.tokens = 5}).size() == 5);
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bp/embedding.h"
#include "bp/transformer.h"

namespace bp::nn {

// The size of a GPT and how it is made.
struct GPTOptions {
  std::int64_t layers = 4, heads = 4, width = 128;  // blocks; attention heads in each; size of a token's vector
  std::int64_t hidden = 0;                          // of the feed-forward parts; 0: 4 * width
  std::int64_t key_heads = 0;                       // grouped queries; 0: as many as heads
  double dropout = 0;   // of attention weights, of hidden layers and of what is added to the stream
  bool bias = true;     // of products; norms always have one
  bool tie = true;      // the head's weight is the table of tokens (Press and Wolf, 2017)
  bool rotary = false;  // instead of learned positions
  FeedForward activation = FeedForward::gelu;  // of the feed-forward parts
};

// Radford et al., "Language models are unsupervised multitask learners", 2019: tokens and positions, pre-norm blocks of
// causal attention and feed-forward, a norm, a head without bias. ids [B, T], i32 or i64 in [0, vocabulary), T of at
// most `context` -> scores of the next id [B, T, vocabulary]. Weights are N(0, 0.02^2), those added to the residual
// stream divided by sqrt(2 layers). Throws Error(shape) for a longer T; ids outside the vocabulary as Embedding.
class GPT final : public LayerOf<GPT> {
 public:
  // Throws Error(value) for sizes below 1, heads that do not divide the width, or options out of their range.
  GPT(std::int64_t vocabulary, std::int64_t context, GPTOptions options = {});
  Tensor operator()(const Tensor& ids) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "gpt"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

  // What has been read: keys and values of `context` places a layer, and how many hold something.
  struct Cache {
    std::vector<KeyValueCache> layers;  // a layer each
    Variable position;                  // i64
  };
  Cache make_cache(std::int64_t batch = 1) const;  // empty, for `batch` sequences
  // The ids [B, T] that follow those in the cache -> their scores [B, T, vocabulary], as the whole sequence at once
  // would give; they join the cache. Inside compile the cache is state of the step. The caller keeps position + T
  // within the context.
  Tensor decode(const Tensor& ids, const Cache& cache) const;

  std::int64_t vocabulary() const noexcept { return vocabulary_; }  // ids
  std::int64_t context() const noexcept { return context_; }        // places that a sequence may have

  Embedding token;                              // the table [vocabulary, width]
  LearnedPositions position;                    // unused with rotary ones
  Dropout dropout;                              // of tokens plus positions
  std::vector<TransformerEncoderLayer> blocks;  // in order
  LayerNorm norm;                               // after the last block
  Linear head;                                  // unused when tied

 private:
  Tensor scores(const Tensor& x) const;
  void check(const Tensor& ids) const;
  std::int64_t vocabulary_, context_;
  GPTOptions options_;
};

// How generate() draws.
struct GenerateOptions {
  std::int64_t tokens = 100;  // how many ids to draw
  double temperature = 1;     // scores are divided by it; 0: always the likeliest
  std::int64_t top_k = 0;     // only the k likeliest; 0: all
  Key key{};                  // of the draws
  int threads = 0;            // as CompileOptions
  // Called with each id as it is drawn; false stops.
  std::function<bool(std::int64_t id)> on_token = {};
};

// The ids that the model draws after `prompt`. Keys and values are cached; when the context is full, the last half of
// it is read again at the first places, as a sequence of its own. Throws Error(value) for an empty prompt, an id
// outside the vocabulary, or options out of their range.
std::vector<std::int64_t> generate(const GPT& model, std::span<const std::int64_t> prompt,
                                   const GenerateOptions& options = {});
// The same for any model of ids [1, T] -> scores [1, T, vocabulary] that looks back only: the last `context` ids are
// read again for every new one.
std::vector<std::int64_t> generate(const std::function<Tensor(const Tensor&)>& model, std::int64_t context,
                                   std::span<const std::int64_t> prompt, const GenerateOptions& options = {});

// One id by scores. `rng` draws once unless temperature is 0.
std::int64_t draw_id(std::span<const double> scores, double temperature, std::int64_t top_k, Rng& rng);

}  // namespace bp::nn

// Encoder and decoder layers of transformers, and stacks of them.
#include "bp/transformer.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {

Tensor activated(const Tensor& x, FeedForward f) {
  switch (f) {
    case FeedForward::relu: return relu(x);
    case FeedForward::gelu: return gelu(x);
    case FeedForward::gelu_tanh: return gelu_tanh(x);
    case FeedForward::silu: return silu(x);
  }
  return x;
}

std::int64_t hidden(std::int64_t width, const TransformerOptions& o) { return o.hidden == 0 ? 4 * width : o.hidden; }

MultiHeadAttention attention_of(std::int64_t width, const TransformerOptions& o, bool rotary) {
  return {width,
          o.heads,
          {.key_heads = o.key_heads,
           .bias = o.bias,
           .causal = o.causal,
           .rotary = rotary,
           .dropout = o.dropout,
           .weight_init = o.weight_init,
           .output_init = o.residual_init}};
}

// x + f(norm(x)), or norm(x + f(x)).
template <class F> Tensor added(const Tensor& x, const LayerNorm& norm, bool pre_norm, F f) {
  return pre_norm ? x + f(norm(x)) : norm(x + f(x));
}

std::string described(const char* kind, std::int64_t width, const TransformerOptions& o) {
  return fmt::format("{}({}, {} heads, hidden {}{})", kind, width, o.heads, hidden(width, o),
                     o.pre_norm ? "" : ", post-norm");
}

void walk_all(const std::string& path, Visitor& visitor, std::initializer_list<std::pair<const char*, Layer*>> layers) {
  for (const auto& [name, layer] : layers) detail::walk_layer(join_path(path, name), *layer, visitor);
}

void walk_dropouts(const std::string& path, Visitor& visitor, std::initializer_list<Dropout*> dropouts) {
  int i = 0;
  for (Dropout* d : dropouts) {
    if (d->p() > 0)
      detail::walk_layer(join_path(path, i == 0 ? "dropout" : "dropout" + std::to_string(i)), *d, visitor);
    ++i;
  }
}

}  // namespace

TransformerEncoderLayer::TransformerEncoderLayer(std::int64_t width, TransformerOptions options)
    : norm1(width, {.eps = options.eps}),
      self_attn(attention_of(width, options, options.rotary)),
      norm2(width, {.eps = options.eps}),
      linear1(width, hidden(width, options), {.bias = options.bias, .weight_init = options.weight_init}),
      linear2(hidden(width, options), width, {.bias = options.bias, .weight_init = options.residual_init}),
      dropout(options.dropout),
      dropout1(options.dropout),
      dropout2(options.dropout),
      options_(std::move(options)) {}

template <class Attend> Tensor TransformerEncoderLayer::apply(const Tensor& x, Attend attend) const {
  output_shape(x.shape());  // checks
  const Tensor y = added(x, norm1, options_.pre_norm, [&](const Tensor& z) { return dropout1(attend(z)); });
  return added(y, norm2, options_.pre_norm,
               [&](const Tensor& z) { return dropout2(linear2(dropout(activated(linear1(z), options_.activation)))); });
}

Tensor TransformerEncoderLayer::operator()(const Tensor& x, const AttentionMask& mask) const {
  return apply(x, [&](const Tensor& z) { return self_attn(z, mask); });
}

Tensor TransformerEncoderLayer::decode(const Tensor& x, const KeyValueCache& cache, const Tensor& position) const {
  return apply(x, [&](const Tensor& z) { return self_attn.decode(z, cache, position); });
}

std::string TransformerEncoderLayer::describe() const {
  return described("transformer_encoder_layer", self_attn.width(), options_);
}

void TransformerEncoderLayer::visit(const std::string& path, Visitor& visitor) {
  walk_all(
      path, visitor,
      {{"norm1", &norm1}, {"self_attn", &self_attn}, {"norm2", &norm2}, {"linear1", &linear1}, {"linear2", &linear2}});
  walk_dropouts(path, visitor, {&dropout, &dropout1, &dropout2});
}

TransformerDecoderLayer::TransformerDecoderLayer(std::int64_t width, TransformerOptions options)
    : norm1(width, {.eps = options.eps}),
      self_attn(attention_of(width, options, options.rotary)),
      norm2(width, {.eps = options.eps}),
      multihead_attn(attention_of(width, options, false)),
      norm3(width, {.eps = options.eps}),
      linear1(width, hidden(width, options), {.bias = options.bias, .weight_init = options.weight_init}),
      linear2(hidden(width, options), width, {.bias = options.bias, .weight_init = options.residual_init}),
      dropout(options.dropout),
      dropout1(options.dropout),
      dropout2(options.dropout),
      dropout3(options.dropout),
      options_(std::move(options)) {}

Tensor TransformerDecoderLayer::operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask,
                                           const AttentionMask& memory_mask) const {
  output_shape(x.shape());  // checks
  const bool pre = options_.pre_norm;
  Tensor y = added(x, norm1, pre, [&](const Tensor& z) { return dropout1(self_attn(z, mask)); });
  y = added(y, norm2, pre, [&](const Tensor& z) { return dropout2(multihead_attn(z, memory, memory_mask)); });
  return added(y, norm3, pre,
               [&](const Tensor& z) { return dropout3(linear2(dropout(activated(linear1(z), options_.activation)))); });
}

std::string TransformerDecoderLayer::describe() const {
  return described("transformer_decoder_layer", self_attn.width(), options_);
}

void TransformerDecoderLayer::visit(const std::string& path, Visitor& visitor) {
  walk_all(path, visitor,
           {{"norm1", &norm1},
            {"self_attn", &self_attn},
            {"norm2", &norm2},
            {"multihead_attn", &multihead_attn},
            {"norm3", &norm3},
            {"linear1", &linear1},
            {"linear2", &linear2}});
  walk_dropouts(path, visitor, {&dropout, &dropout1, &dropout2, &dropout3});
}

// ---- stacks ----

namespace {
template <class Stack, class L>
void build(Stack& stack, std::int64_t n, std::int64_t width, const TransformerOptions& o) {
  require_size(stack.kind(), "layers", n);
  for (std::int64_t i = 0; i < n; ++i) stack.layers.push_back(L(width, o));
  if (o.pre_norm) stack.norm.emplace(width, LayerNormOptions{.eps = o.eps});
}
template <class Stack> void walk_stack(Stack& stack, const std::string& path, Visitor& visitor) {
  for (std::size_t i = 0; i < stack.layers.size(); ++i)
    detail::walk_layer(join_path(join_path(path, "layers"), std::to_string(i)), stack.layers[i], visitor);
  if (stack.norm) detail::walk_layer(join_path(path, "norm"), *stack.norm, visitor);
}
}  // namespace

TransformerEncoder::TransformerEncoder(std::int64_t n, std::int64_t width, TransformerOptions options) {
  build<TransformerEncoder, TransformerEncoderLayer>(*this, n, width, options);
}

Tensor TransformerEncoder::operator()(const Tensor& x) const {
  Tensor y = x;
  for (const TransformerEncoderLayer& layer : layers) y = layer(y);
  return norm ? (*norm)(y) : y;
}

Tensor TransformerEncoder::operator()(const Tensor& x, const AttentionMask& mask) const {
  Tensor y = x;
  for (const TransformerEncoderLayer& layer : layers) y = layer(y, mask);
  return norm ? (*norm)(y) : y;
}

Shape TransformerEncoder::output_shape(const Shape& in) const { return layers[0].output_shape(in); }
std::string TransformerEncoder::describe() const {
  return fmt::format("transformer_encoder({} layers)", layers.size());
}
void TransformerEncoder::visit(const std::string& path, Visitor& visitor) { walk_stack(*this, path, visitor); }

TransformerDecoder::TransformerDecoder(std::int64_t n, std::int64_t width, TransformerOptions options) {
  build<TransformerDecoder, TransformerDecoderLayer>(*this, n, width, options);
}

Tensor TransformerDecoder::operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask,
                                      const AttentionMask& memory_mask) const {
  Tensor y = x;
  for (const TransformerDecoderLayer& layer : layers) y = layer(y, memory, mask, memory_mask);
  return norm ? (*norm)(y) : y;
}

Shape TransformerDecoder::output_shape(const Shape& in) const { return layers[0].output_shape(in); }
std::string TransformerDecoder::describe() const {
  return fmt::format("transformer_decoder({} layers)", layers.size());
}
void TransformerDecoder::visit(const std::string& path, Visitor& visitor) { walk_stack(*this, path, visitor); }

}  // namespace bp::nn

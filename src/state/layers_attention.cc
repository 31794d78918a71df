// Multi-head attention with its cache, and the layers that add positions.
#include <cmath>

#include "bp/transformer.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {

Shape sequence(const Layer& layer, std::int64_t width, const Shape& in) {
  if (in.rank() != 3 || in[2] != width) shape_error(layer, fmt::format("input [B, T, {}]", width), in);
  return in;
}

// cache with x [B, T, K, D] in the places position, position + 1, .. of axis 1.
Tensor written(const Tensor& cache, const Tensor& x, const Tensor& position) {
  const std::int64_t capacity = cache.size(1), length = x.size(1);
  const Tensor place = arange(capacity) - position;  // [capacity], in x
  Tensor inside = place >= 0, spread = x;
  if (length != 1) {
    inside = logical_and(inside, place < static_cast<double>(length));
    spread = gather(x, clip(place, 0, static_cast<double>(length - 1)), 1);
  } else {
    inside = equal(place, 0);
  }
  return select(reshape(inside, {1, capacity, 1, 1}), cast(spread, cache.dtype()), cache);
}

}  // namespace

MultiHeadAttention::MultiHeadAttention(std::int64_t width, std::int64_t heads, MultiHeadAttentionOptions options)
    : in_proj(1, 1),
      out_proj(1, 1),
      dropout(options.dropout),
      width_(width),
      heads_(heads),
      key_heads_(options.key_heads == 0 ? heads : options.key_heads),
      options_(std::move(options)) {
  require_size("attention", "width", width);
  require_size("attention", "heads", heads);
  if (width % heads != 0)
    fail(ErrorKind::value, "[attention] heads: expected a divisor of the width {}, got {}", width, heads);
  if (key_heads_ < 1 || heads % key_heads_ != 0)
    fail(ErrorKind::value, "[attention] key_heads: expected a divisor of the {} heads, got {}", heads, key_heads_);
  size_ = width / heads;
  if (options_.rotary && size_ % 2 != 0)
    fail(ErrorKind::value, "[attention] rotary positions need an even head size, got {} (width {}, {} heads)", size_,
         width, heads);
  in_proj =
      Linear(width, (heads_ + 2 * key_heads_) * size_, {.bias = options_.bias, .weight_init = options_.weight_init});
  out_proj = Linear(heads_ * size_, width, {.bias = options_.bias, .weight_init = options_.output_init});
}

Shape MultiHeadAttention::output_shape(const Shape& in) const { return sequence(*this, width_, in); }

// Heads [first, first + heads) of [B, T, all heads * size].
Tensor MultiHeadAttention::part(const Tensor& packed, std::int64_t first, std::int64_t heads) const {
  return reshape(slice(packed, 2, first * size_, (first + heads) * size_),
                 Shape{packed.size(0), packed.size(1), heads, size_});
}

MultiHeadAttention::Projected MultiHeadAttention::project(const Tensor& x) const {
  const Tensor y = in_proj(x);
  return {part(y, 0, heads_), part(y, heads_, key_heads_), part(y, heads_ + key_heads_, key_heads_)};
}

MultiHeadAttention::Projected MultiHeadAttention::project(const Tensor& x, const Tensor& memory) const {
  require_values(*this, in_proj.weight);
  const std::int64_t split = heads_ * size_, end = (heads_ + 2 * key_heads_) * size_;
  const auto product = [&](const Tensor& in, std::int64_t from, std::int64_t to) {
    const Tensor y = matmul(in, slice(in_proj.weight, 1, from, to));
    return in_proj.bias.defined() ? y + slice(in_proj.bias, 0, from, to) : y;
  };
  const Tensor q = product(x, 0, split), kv = product(memory, split, end);
  return {part(q, 0, heads_), part(kv, 0, key_heads_), part(kv, key_heads_, key_heads_)};
}

Tensor MultiHeadAttention::attend(const Projected& p, const AttentionOptions& options) const {
  AttentionOptions thinned = options;
  if (current_mode() == Mode::train && options_.dropout > 0) {
    const Dropout::Draw draw = dropout.draw();
    thinned.dropout = options_.dropout;
    thinned.random_state = draw.state;
    thinned.random_place = draw.place;
  }
  const Tensor y = attention(p.q, p.k, p.v, thinned);
  return out_proj(reshape(y, Shape{y.size(0), y.size(1), heads_ * size_}));
}

Tensor MultiHeadAttention::operator()(const Tensor& x, const AttentionMask& mask) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  Projected p = project(x);
  if (options_.rotary) {
    p.q = rotary(p.q, {}, options_.rotary_base);
    p.k = rotary(p.k, {}, options_.rotary_base);
  }
  return attend(p, {.causal = mask.causal, .key_lengths = mask.key_lengths, .mask = mask.mask});
}

Tensor MultiHeadAttention::operator()(const Tensor& x, const Tensor& memory, const AttentionMask& mask) const {
  output_shape(x.shape());
  if (options_.rotary)
    fail(ErrorKind::value, "{} rotary positions have no meaning between two sequences", prefix(*this));
  if (memory.rank() != 3 || memory.size(0) != x.size(0) || memory.size(2) != width_)
    shape_error(*this, fmt::format("memory [{}, T, {}]", x.size(0), width_), memory.shape());
  const Scope scope(scope_name());
  return attend(project(x, memory), {.causal = mask.causal, .key_lengths = mask.key_lengths, .mask = mask.mask});
}

KeyValueCache MultiHeadAttention::make_cache(std::int64_t batch, std::int64_t capacity) const {
  require_size("attention", "batch", batch);
  require_size("attention", "capacity", capacity);
  const auto make = [&] {
    return Variable(zeros({batch, capacity, key_heads_, size_}, in_proj.weight.dtype()), false);
  };
  return {make(), make()};
}

Tensor MultiHeadAttention::decode(const Tensor& x, const KeyValueCache& cache, const Tensor& position) const {
  output_shape(x.shape());
  const Shape& held = cache.keys.shape();
  if (held[0] != x.size(0) || x.size(1) > held[1])
    shape_error(*this, fmt::format("at most {} places of a batch of {} (the cache)", held[1], held[0]), x.shape());
  const Scope scope(scope_name());
  Projected p = project(x);
  const Tensor place = cast(reshape(position, Shape{}), i64);
  if (options_.rotary) {
    p.q = rotary(p.q, place, options_.rotary_base);
    p.k = rotary(p.k, place, options_.rotary_base);
  }
  Variable targets[] = {cache.keys.alias(), cache.values.alias()};
  const Tensor values[] = {written(cache.keys, p.k, place), written(cache.values, p.v, place)};
  assign(targets, values);
  return attend({p.q, values[0], values[1]}, {.causal = true, .query_offset = place});
}

std::string MultiHeadAttention::describe() const {
  std::string text = fmt::format("attention({}, {} heads", width_, heads_);
  if (key_heads_ != heads_) text += fmt::format(", {} of keys", key_heads_);
  if (options_.causal) text += ", causal";
  if (options_.rotary) text += ", rotary";
  if (options_.dropout > 0) text += fmt::format(", dropout {}", options_.dropout);
  return text + ")";
}

void MultiHeadAttention::visit(const std::string& path, Visitor& visitor) {
  detail::walk_layer(join_path(path, "in_proj"), in_proj, visitor);
  detail::walk_layer(join_path(path, "out_proj"), out_proj, visitor);
  if (options_.dropout > 0) detail::walk_layer(join_path(path, "dropout"), dropout, visitor);
}

// ---- positions ----

LearnedPositions::LearnedPositions(std::int64_t capacity, std::int64_t width, Initializer weight_init)
    : capacity_(capacity), width_(width), weight_init_(std::move(weight_init)) {
  require_size("learned_positions", "capacity", capacity);
  require_size("learned_positions", "width", width);
  weight = parameter({capacity, width});
}

Shape LearnedPositions::output_shape(const Shape& in) const {
  if (in.rank() != 3 || in[2] != width_ || in[1] > capacity_)
    shape_error(*this, fmt::format("input [B, T, {}] with T of at most {}", width_, capacity_), in);
  return in;
}

Tensor LearnedPositions::operator()(const Tensor& x) const {
  output_shape(x.shape());
  require_values(*this, weight);
  const Scope scope(scope_name());
  return x + slice(weight, 0, 0, x.size(1));
}

Tensor LearnedPositions::operator()(const Tensor& x, const Tensor& position) const {
  output_shape(x.shape());
  require_values(*this, weight);
  const Scope scope(scope_name());
  return x + gather(weight, arange(x.size(1)) + reshape(position, Shape{}));
}

std::string LearnedPositions::describe() const { return fmt::format("learned_positions({}, {})", capacity_, width_); }

void LearnedPositions::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, false);
}

void LearnedPositions::init(Key key) { initialise(weight, weight_init_, fans_of(weight.shape()), key.fold("weight")); }

SinusoidalPositions::SinusoidalPositions(std::int64_t width) : width_(width) {
  if (width < 2 || width % 2 != 0)
    fail(ErrorKind::value, "[sinusoidal_positions] width: expected an even number, got {}", width);
}

Shape SinusoidalPositions::output_shape(const Shape& in) const { return sequence(*this, width_, in); }

Tensor SinusoidalPositions::operator()(const Tensor& x) const {
  output_shape(x.shape());
  const Scope scope(scope_name());
  return x + sinusoidal_positions(x.size(1), width_, x.dtype());
}

}  // namespace bp::nn

// The GPT module and drawing text from it.
#include "bp/gpt.h"

#include <cmath>
#include <numeric>

#include "bp/compile.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {

constexpr double kSpread = 0.02;

TransformerOptions block_options(const GPTOptions& o) {
  const double residual = kSpread / std::sqrt(2 * static_cast<double>(std::max<std::int64_t>(o.layers, 1)));
  return {.heads = o.heads,
          .hidden = o.hidden,
          .dropout = o.dropout,
          .pre_norm = true,
          .activation = o.activation,
          .bias = o.bias,
          .key_heads = o.key_heads,
          .causal = true,
          .rotary = o.rotary,
          .weight_init = init::normal(0, kSpread),
          .residual_init = init::normal(0, residual)};
}

}  // namespace

GPT::GPT(std::int64_t vocabulary, std::int64_t context, GPTOptions options)
    : token(vocabulary, options.width, {.weight_init = init::normal(0, kSpread)}),
      position(context, options.width, init::normal(0, kSpread)),
      dropout(options.dropout),
      norm(options.width),
      head(options.width, vocabulary, {.bias = false, .weight_init = init::normal(0, kSpread)}),
      vocabulary_(vocabulary),
      context_(context),
      options_(std::move(options)) {
  require_size("gpt", "layers", options_.layers);
  for (std::int64_t i = 0; i < options_.layers; ++i) blocks.emplace_back(options_.width, block_options(options_));
}

Shape GPT::output_shape(const Shape& in) const {
  if (in.rank() != 2 || in[1] > context_)
    shape_error(*this, fmt::format("ids [B, T] with T of at most {} (the context)", context_), in);
  return {in[0], in[1], vocabulary_};
}

void GPT::check(const Tensor& ids) const {
  output_shape(ids.shape());
  if (ids.dtype() != i32 && ids.dtype() != i64)
    fail(ErrorKind::dtype, "{} expected ids in i32 or i64, got {}", prefix(*this), ids.type().str());
}

Tensor GPT::scores(const Tensor& x) const {
  const Tensor y = norm(x);
  if (!options_.tie) return head(y);
  const Scope scope(join_path(scope_name(), "head"));
  return matmul(y, token.weight, false, true);
}

Tensor GPT::operator()(const Tensor& ids) const {
  check(ids);
  Tensor x = token(ids);
  if (!options_.rotary) x = position(x);
  x = dropout(x);
  for (const TransformerEncoderLayer& block : blocks) x = block(x);
  return scores(x);
}

GPT::Cache GPT::make_cache(std::int64_t batch) const {
  Cache cache;
  for (const TransformerEncoderLayer& block : blocks)
    cache.layers.push_back(block.self_attn.make_cache(batch, context_));
  cache.position = Variable(scalar(0, i64), false);
  return cache;
}

Tensor GPT::decode(const Tensor& ids, const Cache& cache) const {
  check(ids);
  const Tensor at = cache.position;
  Tensor x = token(ids);
  if (!options_.rotary) x = position(x, at);
  for (std::size_t i = 0; i < blocks.size(); ++i) x = blocks[i].decode(x, cache.layers[i], at);
  Variable next = cache.position.alias();
  next.set(at + static_cast<double>(ids.size(1)));
  return scores(x);
}

std::string GPT::describe() const {
  return fmt::format("gpt({} layers, {} heads, width {}, context {}{}{})", options_.layers, options_.heads,
                     options_.width, context_, options_.tie ? ", tied" : "", options_.rotary ? ", rotary" : "");
}

void GPT::visit(const std::string& path, Visitor& visitor) {
  detail::walk_layer(join_path(path, "token"), token, visitor);
  if (!options_.rotary) detail::walk_layer(join_path(path, "position"), position, visitor);
  if (options_.dropout > 0) detail::walk_layer(join_path(path, "dropout"), dropout, visitor);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    detail::walk_layer(join_path(join_path(path, "blocks"), std::to_string(i)), blocks[i], visitor);
  detail::walk_layer(join_path(path, "norm"), norm, visitor);
  if (!options_.tie) detail::walk_layer(join_path(path, "head"), head, visitor);
}

// ---- generation ----

std::int64_t draw_id(std::span<const double> scores, double temperature, std::int64_t top_k, Rng& rng) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::size_t kept = top_k <= 0 ? scores.size() : std::min(static_cast<std::size_t>(top_k), scores.size());
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  if (temperature == 0) return static_cast<std::int64_t>(order[0]);
  std::vector<double> weights(kept);
  double total = 0;
  for (std::size_t i = 0; i < kept; ++i)
    total += weights[i] = std::exp((scores[order[i]] - scores[order[0]]) / temperature);
  double left = rng.uniform() * total;
  for (std::size_t i = 0; i + 1 < kept; ++i)
    if ((left -= weights[i]) < 0) return static_cast<std::int64_t>(order[i]);
  return static_cast<std::int64_t>(order[kept - 1]);
}

namespace {

void check_generate(const GenerateOptions& o, std::span<const std::int64_t> prompt) {
  if (prompt.empty()) fail(ErrorKind::value, "[generate] expected a prompt of one id or more");
  if (o.tokens < 0) fail(ErrorKind::value, "[generate] tokens: expected 0 or more, got {}", o.tokens);
  if (!(o.temperature >= 0 && std::isfinite(o.temperature)))
    fail(ErrorKind::value, "[generate] temperature: expected 0 or more, got {}", o.temperature);
  if (o.top_k < 0) fail(ErrorKind::value, "[generate] top_k: expected 0 (all) or more, got {}", o.top_k);
}

Tensor row_of(std::span<const std::int64_t> ids) {
  return Tensor::from(ids, Shape{1, static_cast<std::int64_t>(ids.size())});
}

// Scores of what follows the last of ids [1, T].
Tensor last_row(const Tensor& scores) {
  const std::int64_t t = scores.size(1);
  return cast(reshape(slice(scores, 1, t - 1, t), Shape{scores.size(2)}), f64);
}

// next(ids so far, how many of them are new) -> scores.
template <class Next>
std::vector<std::int64_t> draw_all(std::span<const std::int64_t> prompt, const GenerateOptions& o, Next next) {
  Rng rng(o.key);
  std::vector<std::int64_t> ids(prompt.begin(), prompt.end());
  for (std::int64_t i = 0; i < o.tokens; ++i) {
    const std::vector<double> scores = next(std::span<const std::int64_t>(ids));
    for (std::size_t k = 0; k < scores.size(); ++k)
      if (std::isnan(scores[k])) fail(ErrorKind::value, "[generate] the model's score of id {} is NaN", k);
    ids.push_back(draw_id(scores, o.temperature, o.top_k, rng));
    if (o.on_token && !o.on_token(ids.back())) break;
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(prompt.size()), ids.end()};
}

}  // namespace

std::vector<std::int64_t> generate(const GPT& model, std::span<const std::int64_t> prompt, const GenerateOptions& o) {
  check_generate(o, prompt);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= model.vocabulary())
      fail(ErrorKind::value, "[generate] prompt[{}]: expected an id in [0, {}), got {}", i, model.vocabulary(),
           prompt[i]);
  GPT::Cache cache = model.make_cache();
  auto step = compile([&](const Tensor& ids) { return last_row(model.decode(ids, cache)); },
                      {.threads = o.threads, .name = "decoding"});
  std::size_t read = 0, begin = 0;  // ids read so far; the first that the cache holds
  const auto capacity = static_cast<std::size_t>(model.context());
  return draw_all(prompt, o, [&](std::span<const std::int64_t> ids) {
    if (ids.size() - begin > capacity) {
      begin = read = ids.size() - std::max<std::size_t>(capacity / 2, 1);
      cache.position.set(0.0);
    }
    const Tensor scores = step(row_of(ids.subspan(read)));
    read = ids.size();
    return scores.to_vector<double>();
  });
}

std::vector<std::int64_t> generate(const std::function<Tensor(const Tensor&)>& model, std::int64_t context,
                                   std::span<const std::int64_t> prompt, const GenerateOptions& o) {
  check_generate(o, prompt);
  require_size("generate", "context", context);
  auto step =
      compile([&](const Tensor& ids) { return last_row(model(ids)); }, {.threads = o.threads, .name = "generation"});
  return draw_all(prompt, o, [&](std::span<const std::int64_t> ids) {
    const std::size_t n = std::min(ids.size(), static_cast<std::size_t>(context));
    return step(row_of(ids.last(n))).template to_vector<double>();
  });
}

}  // namespace bp::nn

// Layers that normalise or regularise: Dropout, BatchNorm, LayerNorm.
#include <cmath>

#include "bp/layers.h"
#include "state/layer_support.h"

namespace bp::nn {

Dropout::Dropout(double p) : p_(p) {
  if (!(p >= 0 && p < 1)) fail(ErrorKind::value, "[dropout] p: expected 0 <= p < 1, got {}", p);
  rng_state = Variable(Tensor::from<std::int64_t>({0, 0}), false);
}

Tensor Dropout::operator()(const Tensor& x) const {
  if (current_mode() != Mode::train || p_ == 0) return x;
  require_values(*this, rng_state);
  const Scope scope(scope_name());
  const Tensor state = rng_state;
  const Tensor keep = random_bernoulli(state, x.shape(), 1 - p_, Key{}.fold(path()).value);
  Variable handle = rng_state.alias();
  handle.set(state + Tensor::from<std::int64_t>({0, 1}));
  return select(keep, x * (1 / (1 - p_)), zeros({}, x.dtype()));
}

std::string Dropout::describe() const { return fmt::format("dropout({})", p_); }

void Dropout::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "rng_state"), rng_state, false);
}

void Dropout::init(Key key) { rng_state.set(Tensor::from<std::int64_t>({static_cast<std::int64_t>(key.value), 0})); }

namespace {
void require_eps(const char* kind, double eps) {
  if (!(eps >= 0 && std::isfinite(eps))) fail(ErrorKind::value, "[{}] eps: expected 0 or more, got {}", kind, eps);
}
Shape channels_last(const Layer& layer, std::int64_t channels, const Shape& in, int least_rank) {
  if (in.rank() < least_rank || in.back() != channels)
    shape_error(layer, fmt::format("input [{}.., {}]", least_rank == 2 ? "N, " : "", channels), in);
  return in;
}
// Half precision is normalised in f32.
Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }
Tensor like(const Tensor& y, const Tensor& x) { return y.dtype() == x.dtype() ? y : cast(y, x.dtype()); }
}  // namespace

BatchNorm::BatchNorm(std::int64_t channels, BatchNormOptions options) : channels_(channels), options_(options) {
  require_size("batch_norm", "channels", channels);
  require_eps("batch_norm", options.eps);
  if (!(options.momentum >= 0 && options.momentum <= 1))
    fail(ErrorKind::value, "[batch_norm] momentum: expected 0 to 1, got {}", options.momentum);
  if (options.affine) {
    weight = parameter({channels}, 1);
    bias = parameter({channels});
  }
  running_mean = parameter({channels}, 0, false);
  running_var = parameter({channels}, 1, false);
}

Shape BatchNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 2); }

Tensor BatchNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  const Tensor v = widened(x);
  Tensor centre = running_mean, spread = running_var;
  if (current_mode() == Mode::train) {
    const std::int64_t count = x.numel() / channels_;
    if (count < 2) shape_error(*this, "more than one value per channel in train mode", x.shape());
    Axes axes;
    for (int i = 0; i + 1 < x.rank(); ++i) axes.push_back(i);
    centre = mean(v, axes);
    spread = var(v, axes);
    update_statistics(centre, spread, count);
  }
  // The gain joins the scale while both are [C]: one subtraction and one multiply-add an element.
  Tensor scale = rsqrt(widened(spread) + options_.eps);
  if (weight.defined()) scale = scale * widened(weight);
  Tensor y = (v - widened(centre)) * scale;
  if (bias.defined()) y = y + widened(bias);
  return like(y, x);
}

void BatchNorm::update_statistics(const Tensor& mean, const Tensor& var, std::int64_t count) const {
  const double m = options_.momentum, n = static_cast<double>(count);
  const auto moved = [](const Variable& running, const Tensor& batch, double factor, double keep) {
    return cast(widened(running) * keep + stop_gradient(batch) * factor, running.dtype());
  };
  Variable targets[] = {running_mean.alias(), running_var.alias()};
  const Tensor values[] = {moved(running_mean, mean, m, 1 - m), moved(running_var, var, m * n / (n - 1), 1 - m)};
  assign(targets, values);
}

std::string BatchNorm::describe() const { return fmt::format("batch_norm({})", channels_); }

void BatchNorm::visit(const std::string& path, Visitor& visitor) {
  if (weight.defined()) {
    visitor.on_variable(join_path(path, "weight"), weight, false);
    visitor.on_variable(join_path(path, "bias"), bias, false);
  }
  visitor.on_variable(join_path(path, "running_mean"), running_mean, false);
  visitor.on_variable(join_path(path, "running_var"), running_var, false);
}

void BatchNorm::init(Key) {
  if (weight.defined()) {
    weight.set(1.0);
    bias.set(0.0);
  }
  running_mean.set(0.0);
  running_var.set(1.0);
}

LayerNorm::LayerNorm(std::int64_t channels, LayerNormOptions options) : channels_(channels), options_(options) {
  require_size("layer_norm", "channels", channels);
  require_eps("layer_norm", options.eps);
  if (options.affine) {
    weight = parameter({channels}, 1);
    bias = parameter({channels});
  }
}

Shape LayerNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 1); }

Tensor LayerNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  const Tensor v = widened(x);
  const Tensor centred = v - mean(v, {-1}, true);
  Tensor y = centred * rsqrt(mean(square(centred), {-1}, true) + options_.eps);
  if (weight.defined()) y = y * widened(weight) + widened(bias);
  return like(y, x);
}

std::string LayerNorm::describe() const { return fmt::format("layer_norm({})", channels_); }

void LayerNorm::visit(const std::string& path, Visitor& visitor) {
  if (!weight.defined()) return;
  visitor.on_variable(join_path(path, "weight"), weight, false);
  visitor.on_variable(join_path(path, "bias"), bias, false);
}

void LayerNorm::init(Key) {
  if (!weight.defined()) return;
  weight.set(1.0);
  bias.set(0.0);
}

}  // namespace bp::nn

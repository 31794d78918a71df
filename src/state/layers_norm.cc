// Norms over the batch or its positions that may keep running statistics: BatchNorm, InstanceNorm.
#include "state/norm_support.h"

namespace bp::nn {

namespace {

void require_momentum(const char* kind, double momentum) {
  if (!(momentum >= 0 && momentum <= 1))
    fail(ErrorKind::value, "[{}] momentum: expected 0 to 1, got {}", kind, momentum);
}

// running = (1 - m) running + m batch; `var` is the biased variance of `count` values, the unbiased one is kept.
void move_statistics(const Variable& running_mean, const Variable& running_var, const Tensor& mean, const Tensor& var,
                     std::int64_t count, double m) {
  const double n = static_cast<double>(count);
  const auto moved = [](const Variable& running, const Tensor& batch, double factor, double keep) {
    return cast(widened(running) * keep + stop_gradient(batch) * factor, running.dtype());
  };
  Variable targets[] = {running_mean.alias(), running_var.alias()};
  const Tensor values[] = {moved(running_mean, mean, m, 1 - m), moved(running_var, var, m * n / (n - 1), 1 - m)};
  assign(targets, values);
}

}  // namespace

BatchNorm::BatchNorm(std::int64_t channels, BatchNormOptions options) : channels_(channels), options_(options) {
  require_size("batch_norm", "channels", channels);
  require_eps("batch_norm", options.eps);
  if (options.momentum)
    require_momentum("batch_norm", *options.momentum);
  else
    batches = Variable(Tensor::from<std::int64_t>({0}, {}), false);
  if (options.affine) make_affine(weight, bias, channels);
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
  if (options_.momentum) {
    move_statistics(running_mean, running_var, mean, var, count, *options_.momentum);
    return;
  }
  const double n = static_cast<double>(count);
  const Tensor seen = batches.get() + 1, share = 1.0 / cast(seen, f64);
  const auto averaged = [&share](const Variable& running, const Tensor& batch) {
    const Tensor old = widened(running);
    return cast(old + (stop_gradient(batch) - old) * cast(share, old.dtype()), running.dtype());
  };
  Variable targets[] = {running_mean.alias(), running_var.alias(), batches.alias()};
  const Tensor values[] = {averaged(running_mean, mean), averaged(running_var, var * (n / (n - 1))), seen};
  assign(targets, values);
}

std::string BatchNorm::describe() const { return fmt::format("batch_norm({})", channels_); }

void BatchNorm::visit(const std::string& path, Visitor& visitor) {
  visit_affine(path, visitor, weight, bias);
  visitor.on_variable(join_path(path, "running_mean"), running_mean, false);
  visitor.on_variable(join_path(path, "running_var"), running_var, false);
  if (batches.defined()) visitor.on_variable(join_path(path, "num_batches_tracked"), batches, false);
}

void BatchNorm::init(Key) {
  init_affine(weight, bias);
  running_mean.set(0.0);
  running_var.set(1.0);
  if (batches.defined()) batches.set(0.0);
}

InstanceNorm::InstanceNorm(std::int64_t channels, InstanceNormOptions options)
    : channels_(channels), options_(options) {
  require_size("instance_norm", "channels", channels);
  require_eps("instance_norm", options.eps);
  require_momentum("instance_norm", options.momentum);
  if (options.affine) make_affine(weight, bias, channels);
  if (!options.track) return;
  running_mean = parameter({channels}, 0, false);
  running_var = parameter({channels}, 1, false);
}

Shape InstanceNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 3); }

Tensor InstanceNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  const Tensor v = widened(x);
  const bool train = current_mode() == Mode::train;
  Tensor centre, spread;
  if (options_.track && !train) {
    centre = widened(running_mean);
    spread = widened(running_var);
  } else {
    const std::int64_t count = x.shape()[0] == 0 ? 2 : x.numel() / channels_ / x.shape()[0];
    if (count < 2) shape_error(*this, "more than one position to normalise over", x.shape());
    Axes axes;
    for (int i = 1; i + 1 < x.rank(); ++i) axes.push_back(i);
    centre = mean(v, axes, true);
    spread = mean(square(v - centre), axes, true);
    if (options_.track && x.shape()[0] > 0) update_statistics(centre, spread, count);
  }
  return like(with_affine((v - centre) * rsqrt(spread + options_.eps), weight, bias), x);
}

void InstanceNorm::update_statistics(const Tensor& mean, const Tensor& var, std::int64_t count) const {
  const auto over_batch = [this](const Tensor& t) { return bp::mean(reshape(t, Shape{t.shape()[0], channels_}), {0}); };
  move_statistics(running_mean, running_var, over_batch(mean), over_batch(var), count, options_.momentum);
}

std::string InstanceNorm::describe() const { return fmt::format("instance_norm({})", channels_); }

void InstanceNorm::visit(const std::string& path, Visitor& visitor) {
  visit_affine(path, visitor, weight, bias);
  if (!running_mean.defined()) return;
  visitor.on_variable(join_path(path, "running_mean"), running_mean, false);
  visitor.on_variable(join_path(path, "running_var"), running_var, false);
}

void InstanceNorm::init(Key) {
  init_affine(weight, bias);
  if (!running_mean.defined()) return;
  running_mean.set(0.0);
  running_var.set(1.0);
}

}  // namespace bp::nn

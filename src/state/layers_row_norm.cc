// Norms of a sample by itself, without running statistics: LayerNorm, RMSNorm, GroupNorm.
#include "state/norm_support.h"

namespace bp::nn {

LayerNorm::LayerNorm(std::int64_t channels, LayerNormOptions options) : channels_(channels), options_(options) {
  require_size("layer_norm", "channels", channels);
  require_eps("layer_norm", options.eps);
  if (options.affine) make_affine(weight, bias, channels);
}

Shape LayerNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 1); }

Tensor LayerNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  const Tensor v = widened(x);
  const Tensor centred = v - mean(v, {-1}, true);
  const Tensor y = centred * rsqrt(mean(square(centred), {-1}, true) + options_.eps);
  return like(with_affine(y, weight, bias), x);
}

std::string LayerNorm::describe() const { return fmt::format("layer_norm({})", channels_); }

void LayerNorm::visit(const std::string& path, Visitor& visitor) { visit_affine(path, visitor, weight, bias); }

void LayerNorm::init(Key) { init_affine(weight, bias); }

RMSNorm::RMSNorm(std::int64_t channels, RMSNormOptions options) : channels_(channels), options_(options) {
  require_size("rms_norm", "channels", channels);
  require_eps("rms_norm", options.eps);
  if (options.affine) weight = parameter({channels}, 1);
}

Shape RMSNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 1); }

Tensor RMSNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  const Tensor v = widened(x);
  const Tensor y = v * rsqrt(mean(square(v), {-1}, true) + options_.eps);
  return like(weight.defined() ? y * widened(weight) : y, x);
}

std::string RMSNorm::describe() const { return fmt::format("rms_norm({})", channels_); }

void RMSNorm::visit(const std::string& path, Visitor& visitor) {
  if (weight.defined()) visitor.on_variable(join_path(path, "weight"), weight, false);
}

void RMSNorm::init(Key) {
  if (weight.defined()) weight.set(1.0);
}

GroupNorm::GroupNorm(std::int64_t groups, std::int64_t channels, GroupNormOptions options)
    : groups_(groups), channels_(channels), options_(options) {
  require_size("group_norm", "groups", groups);
  require_size("group_norm", "channels", channels);
  require_eps("group_norm", options.eps);
  if (channels % groups != 0)
    fail(ErrorKind::value, "[group_norm] groups: expected a divisor of {} channels, got {}", channels, groups);
  if (options.affine) make_affine(weight, bias, channels);
}

Shape GroupNorm::output_shape(const Shape& in) const { return channels_last(*this, channels_, in, 2); }

Tensor GroupNorm::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  std::int64_t positions = 1;
  for (int i = 1; i + 1 < x.rank(); ++i) positions *= x.shape()[i];
  const Tensor v = reshape(widened(x), Shape{x.shape()[0], positions, groups_, channels_ / groups_});
  const Tensor centred = v - mean(v, {1, 3}, true);
  const Tensor y = centred * rsqrt(mean(square(centred), {1, 3}, true) + options_.eps);
  return like(with_affine(reshape(y, x.shape()), weight, bias), x);
}

std::string GroupNorm::describe() const {
  return fmt::format("group_norm({} groups of {})", groups_, channels_ / groups_);
}

void GroupNorm::visit(const std::string& path, Visitor& visitor) { visit_affine(path, visitor, weight, bias); }

void GroupNorm::init(Key) { init_affine(weight, bias); }

}  // namespace bp::nn

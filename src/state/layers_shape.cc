// Layers without parameters that change the shape: pooling and flattening.
#include "bp/layers.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {

PoolOptions pool_options(const char* kind, const Sizes& window, const PoolLayerOptions& options) {
  const auto checked = [&](const char* what, const Sizes& sizes, std::int64_t least) {
    if (sizes.values().empty() || sizes.values().size() > 3)
      fail(ErrorKind::value, "[{}] {}: expected 1 to 3 sizes, got {}", kind, what, sizes.values().size());
    return per_dim(kind, what, sizes, static_cast<int>(sizes.values().size()), least);
  };
  PoolOptions pool;
  pool.window = checked("window", window, 1);
  pool.stride = checked("stride", options.stride.value_or(window), 1);
  pool.padding = checked("padding", options.padding, 0);
  pool.dilation = checked("dilation", options.dilation, 1);
  pool.count_include_pad = options.count_include_pad;
  return pool;
}

Shape pooled(const Layer& layer, const PoolOptions& pool, const Shape& in) {
  if (in.rank() < 3 || in.rank() > 5) shape_error(layer, "input [N, spatial.., C] of rank 3 to 5", in);
  Shape out = in;
  const int dims = in.rank() - 2;
  const char* kind = layer.kind();
  const auto window = per_dim(kind, "window", pool.window, dims, 1),
             stride = per_dim(kind, "stride", pool.stride, dims, 1),
             padding = per_dim(kind, "padding", pool.padding, dims, 0),
             dilation = per_dim(kind, "dilation", pool.dilation, dims, 1);
  for (int d = 0; d < dims; ++d) {
    const auto k = static_cast<std::size_t>(d);
    const std::int64_t extent = dilation[k] * (window[k] - 1) + 1, padded = in[d + 1] + 2 * padding[k];
    if (padded < extent)
      shape_error(layer,
                  fmt::format("at least {} along axis {} (window {})", extent - 2 * padding[k], d + 1, window[k]), in);
    out[d + 1] = (padded - extent) / stride[k] + 1;
  }
  return out;
}

std::string describe_pool(const Layer& layer, const PoolOptions& pool) {
  std::string text = fmt::format("{}(window {}", layer.kind(), list(pool.window));
  if (pool.stride != pool.window) text += ", stride " + list(pool.stride);
  if (std::any_of(pool.padding.begin(), pool.padding.end(), [](std::int64_t n) { return n != 0; }))
    text += ", padding " + list(pool.padding);
  return text + ")";
}

std::vector<std::int64_t> adaptive_sizes(const char* kind, const Sizes& sizes) {
  const std::size_t n = sizes.values().size();
  if (n < 1 || n > 3) fail(ErrorKind::value, "[{}] sizes: expected 1 to 3, got {}", kind, n);
  return per_dim(kind, "sizes", sizes, static_cast<int>(n), 1);
}

Shape adapted(const Layer& layer, const Shape& in, const std::vector<std::int64_t>& sizes) {
  if (in.rank() < 3 || in.rank() > 5) shape_error(layer, "input [N, spatial.., C] of rank 3 to 5", in);
  const auto to = per_dim(layer.kind(), "sizes", sizes, in.rank() - 2, 1);
  Shape out = in;
  for (int d = 1; d + 1 < in.rank(); ++d) {
    if (in[d] < 1) shape_error(layer, fmt::format("at least 1 along axis {}", d), in);
    out[d] = to[static_cast<std::size_t>(d - 1)];
  }
  return out;
}

}  // namespace

MaxPool::MaxPool(Sizes window, PoolLayerOptions options) : pool_(pool_options("max_pool", window, options)) {}
Shape MaxPool::output_shape(const Shape& in) const { return pooled(*this, pool_, in); }
Tensor MaxPool::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  return max_pool(x, pool_);
}
std::string MaxPool::describe() const { return describe_pool(*this, pool_); }

AvgPool::AvgPool(Sizes window, PoolLayerOptions options) : pool_(pool_options("avg_pool", window, options)) {
  if (std::any_of(pool_.dilation.begin(), pool_.dilation.end(), [](std::int64_t n) { return n != 1; }))
    fail(ErrorKind::value, "[avg_pool] dilation: expected 1, got {}", list(pool_.dilation));
}
Shape AvgPool::output_shape(const Shape& in) const { return pooled(*this, pool_, in); }
Tensor AvgPool::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  return avg_pool(x, pool_);
}
std::string AvgPool::describe() const { return describe_pool(*this, pool_); }

Shape GlobalAvgPool::output_shape(const Shape& in) const {
  if (in.rank() < 3) shape_error(*this, "input [N, spatial.., C]", in);
  return Shape{in[0], in.back()};
}
Tensor GlobalAvgPool::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  Axes axes;
  for (int i = 1; i < x.rank() - 1; ++i) axes.push_back(i);
  return mean(x, axes);
}

Shape GlobalMaxPool::output_shape(const Shape& in) const {
  adapted(*this, in, std::vector<std::int64_t>(1, 1));  // checks
  return Shape{in[0], in.back()};
}
Tensor GlobalMaxPool::operator()(const Tensor& x) const {
  const Shape out = output_shape(x.shape());
  const Scope scope(scope_name());
  return reshape(adaptive_max_pool(x, std::vector<std::int64_t>(1, 1)), out);
}

AdaptiveMaxPool::AdaptiveMaxPool(Sizes sizes) : sizes_(adaptive_sizes("adaptive_max_pool", sizes)) {}
Shape AdaptiveMaxPool::output_shape(const Shape& in) const { return adapted(*this, in, sizes_); }
Tensor AdaptiveMaxPool::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  return adaptive_max_pool(x, sizes_);
}
std::string AdaptiveMaxPool::describe() const { return fmt::format("adaptive_max_pool({})", list(sizes_)); }

AdaptiveAvgPool::AdaptiveAvgPool(Sizes sizes) : sizes_(adaptive_sizes("adaptive_avg_pool", sizes)) {}
Shape AdaptiveAvgPool::output_shape(const Shape& in) const { return adapted(*this, in, sizes_); }
Tensor AdaptiveAvgPool::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  return adaptive_avg_pool(x, sizes_);
}
std::string AdaptiveAvgPool::describe() const { return fmt::format("adaptive_avg_pool({})", list(sizes_)); }

Shape Flatten::output_shape(const Shape& in) const {
  if (in.rank() < 1) shape_error(*this, "input [N, ..]", in);
  std::int64_t n = 1;
  for (int i = 1; i < in.rank(); ++i) n *= in[i];
  return Shape{in[0], n};
}
Tensor Flatten::operator()(const Tensor& x) const {
  const Shape out = output_shape(x.shape());
  const Scope scope(scope_name());
  if (!options_.channels_first || x.rank() < 3) return reshape(x, out);
  Axes order{0, x.rank() - 1};
  for (int i = 1; i < x.rank() - 1; ++i) order.push_back(i);
  return reshape(transpose(x, order), out);
}
std::string Flatten::describe() const { return options_.channels_first ? "flatten(channels first)" : "flatten"; }

}  // namespace bp::nn

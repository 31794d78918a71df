// Pooling to given sizes, composed of max_pool and avg_pool: a dimension at a time, since the windows are products of
// intervals. The last dimension comes first, so that among equals max_pool's first one wins in row-major order.
#include "ops/window.h"

namespace bp {

using namespace ops;

namespace {

using Pool = Tensor (*)(const Tensor&, const PoolOptions&);

// Windows of `size` side by side along one spatial dimension.
Tensor pool_along(const Tensor& x, std::size_t dim, std::int64_t size, Pool pool) {
  PoolOptions o;
  o.window.assign(static_cast<std::size_t>(x.rank() - 2), 1);
  o.window[dim] = size;
  return pool(x, o);
}

Tensor uneven(const Tensor& x, std::size_t dim, std::int64_t out, Pool pool) {
  const int axis = static_cast<int>(dim) + 1;
  const std::int64_t in = x.shape()[axis];
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i < out; ++i) {
    const std::int64_t start = i * in / out, stop = ((i + 1) * in + out - 1) / out;
    parts.push_back(pool_along(slice(x, axis, start, stop), dim, stop - start, pool));
  }
  return concatenate(parts, axis);
}

Tensor adaptive(const Tensor& x, const std::vector<std::int64_t>& sizes, Pool pool, const char* op) {
  check_channels_last(x.shape(), op, "input");
  const Ints in = spatial_of(x.shape()), out = one_each(sizes, x.rank() - 2, op, "sizes");
  for (std::size_t d = 0; d < in.size(); ++d) {
    if (out[d] < 1) fail(ErrorKind::value, "[{}] expected sizes of 1 or more, got {}", op, out[d]);
    if (in[d] < 1) fail(ErrorKind::shape, "[{}] expected an input with elements, got {}", op, x.shape());
  }
  Ints whole;
  for (std::size_t d = 0; d < in.size(); ++d)
    if (in[d] % out[d] == 0) whole.push_back(in[d] / out[d]);
  if (whole.size() == in.size()) return pool(x, PoolOptions{.window = whole});
  Tensor y = x;
  for (std::size_t d = in.size(); d-- > 0;)
    if (in[d] != out[d]) y = in[d] % out[d] == 0 ? pool_along(y, d, in[d] / out[d], pool) : uneven(y, d, out[d], pool);
  return y;
}

}  // namespace

Tensor adaptive_max_pool(const Tensor& x, const std::vector<std::int64_t>& sizes) {
  Scope scope("adaptive_max_pool");
  return adaptive(
      x, sizes, [](const Tensor& t, const PoolOptions& o) { return max_pool(t, o); }, "adaptive_max_pool");
}

Tensor adaptive_avg_pool(const Tensor& x, const std::vector<std::int64_t>& sizes) {
  Scope scope("adaptive_avg_pool");
  return adaptive(
      x, sizes, [](const Tensor& t, const PoolOptions& o) { return avg_pool(t, o); }, "adaptive_avg_pool");
}

}  // namespace bp

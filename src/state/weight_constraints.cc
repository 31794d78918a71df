// What WeightNorm and SpectralNorm do to a weight [k.., in, out] before their layer uses it.
#include <numeric>

#include "bp/init.h"
#include "bp/regularisers.h"

namespace bp::nn::detail {

namespace {

Axes all_but_last(const Tensor& w) {
  Axes axes(static_cast<std::size_t>(w.rank() - 1));
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

// [the rest, out]; a transposed convolution keeps [k.., out, in].
Tensor matrix_of(const Tensor& w, bool transposed) {
  const std::int64_t out = matrix_columns(w.shape(), transposed);
  return reshape(transposed ? transpose(w) : w, Shape{w.numel() / out, out});
}

Tensor unit(const Tensor& x, double eps) { return x / maximum(norm(x), eps); }

// u [out], v [the rest], after `iterations` steps from v.
std::pair<Tensor, Tensor> power_method(const Tensor& matrix, Tensor u, Tensor v, int iterations, double eps) {
  for (int i = 0; i < iterations; ++i) {
    u = unit(matmul(v, matrix), eps);
    v = unit(matmul(matrix, u), eps);
  }
  return {u, v};
}

}  // namespace

std::int64_t matrix_columns(const Shape& weight, bool transposed) {
  return transposed ? weight[weight.rank() - 2] : weight.back();
}

Tensor column_norms(const Tensor& w) { return norm(w, all_but_last(w)); }

Tensor weight_normalised(const Tensor& w, const Tensor& gain) { return w * (gain / norm(w, all_but_last(w), true)); }

Tensor spectrally_normalised(const Tensor& w, Variable& u, Variable& v, int iterations, double eps, bool transposed) {
  const Tensor matrix = matrix_of(w, transposed);
  std::pair<Tensor, Tensor> uv{u.get(), v.get()};
  if (iterations > 0) {
    uv = power_method(stop_gradient(matrix), uv.first, uv.second, iterations, eps);
    Variable targets[] = {u.alias(), v.alias()};
    const Tensor values[] = {uv.first, uv.second};
    assign(targets, values);
  }
  return w / sum(matmul(stop_gradient(uv.second), matrix) * stop_gradient(uv.first));
}

void init_spectral(const Tensor& w, Variable& u, Variable& v, double eps, bool transposed, Key key) {
  const auto drawn = [&](const Variable& x, const char* name) {
    return unit(init::normal(0, 1)(x.shape(), key.fold(name), w.dtype()), eps);
  };
  const auto [first, second] =
      power_method(matrix_of(w, transposed), drawn(u, "weight_u"), drawn(v, "weight_v"), 15, eps);
  u.set(first);
  v.set(second);
}

}  // namespace bp::nn::detail

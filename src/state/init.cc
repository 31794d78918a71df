// Initialisers: drawn in f64 from a key, then rounded to the parameter's dtype. Called by nn::init.
#include "bp/init.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"

namespace bp {

Fans fans_of(const Shape& weight) {
  const int rank = weight.rank();
  if (rank < 2)
    fail(ErrorKind::shape, "[init] a fan needs a weight of two dimensions or more ([k.., in, out]), got {}", weight);
  double receptive = 1;
  for (int i = 0; i < rank - 2; ++i) receptive *= static_cast<double>(weight[i]);
  return {receptive * static_cast<double>(weight[rank - 2]), receptive * static_cast<double>(weight[rank - 1])};
}

Tensor Initializer::operator()(const Shape& shape, Fans fans, Key key, DType dtype) const {
  const auto n = static_cast<std::size_t>(shape.numel());
  std::vector<double> values(n);
  fill_(values, shape, fans, key);
  if (dtype == f64) return Tensor::from(values, shape);
  if (!is_float(dtype)) fail(ErrorKind::dtype, "[init] {}: parameters are floats, got {}", name_, name_of(dtype));
  Buffer buffer = Buffer::allocate(n * size_of(dtype));
  if (dtype == f32)
    std::transform(values.begin(), values.end(), buffer.as_mutable<float>(),
                   [](double v) { return static_cast<float>(v); });
  else
    std::transform(values.begin(), values.end(), buffer.as_mutable<bfloat16>(),
                   [](double v) { return bfloat16(static_cast<float>(v)); });
  return Tensor::from_buffer(std::move(buffer), dtype, shape);
}

namespace init {
namespace {

void init_requires(bool ok, const char* what, const char* expected, double got) {
  if (!ok || std::isnan(got)) fail(ErrorKind::value, "[init] {}: expected {}, got {}", what, expected, got);
}

void fill_uniform(std::span<double> out, double low, double high, Key key) {
  Rng rng(key);
  for (double& v : out) v = low + (high - low) * rng.uniform();
}

void fill_normal(std::span<double> out, double mean, double stddev, Key key) {
  Rng rng(key);
  for (double& v : out) v = mean + stddev * rng.normal();
}

double fan_of(Fans fans, FanMode mode) {
  const double fan = mode == FanMode::in ? fans.in : mode == FanMode::out ? fans.out : (fans.in + fans.out) / 2;
  return std::max(fan, 1.0);  // an empty weight has no values to scale
}

// Var = scale / fan.
Initializer scaled(std::string name, double scale, FanMode mode, bool uniform) {
  return Initializer(std::move(name), [=](std::span<double> out, const Shape&, Fans fans, Key key) {
    const double variance = scale / fan_of(fans, mode);
    const double bound = std::sqrt(3 * variance);
    if (uniform)
      fill_uniform(out, -bound, bound, key);
    else
      fill_normal(out, 0, std::sqrt(variance), key);
  });
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// Phi^-1 by bisection on the tail where Phi is accurate, then two Newton steps: 1e-15 and short; speed does not matter.
double inverse_normal_cdf(double u) {
  if (u > 0.5) return -inverse_normal_cdf(1 - u);
  double low = -39, high = 0;
  for (int i = 0; i < 40; ++i) {
    const double middle = 0.5 * (low + high);
    (normal_cdf(middle) < u ? low : high) = middle;
  }
  double x = 0.5 * (low + high);
  for (int i = 0; i < 2; ++i) {
    const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    if (density > 0) x -= (normal_cdf(x) - u) / density;
  }
  return x;
}

// Orthonormal columns of a normal rows x cols matrix (rows >= cols), row-major into q. Householder reflections are
// accumulated backwards onto the identity; column signs are those of R's diagonal (Mezzadri 2007).
void orthonormal_columns(std::span<double> q, std::size_t rows, std::size_t cols, Key key) {
  std::vector<double> a(rows * cols);
  fill_normal(a, 0, 1, key);
  std::vector<double> sign(cols);
  const auto reflect = [&](std::vector<double>& v, std::size_t from, std::span<double> m, std::size_t first_column) {
    for (std::size_t j = first_column; j < cols; ++j) {
      double dot = 0;
      for (std::size_t i = from; i < rows; ++i) dot += v[i] * m[i * cols + j];
      for (std::size_t i = from; i < rows; ++i) m[i * cols + j] -= 2 * dot * v[i];
    }
  };
  std::vector<std::vector<double>> reflectors(cols, std::vector<double>(rows, 0.0));
  for (std::size_t k = 0; k < cols; ++k) {
    std::vector<double>& v = reflectors[k];
    double norm = 0;
    for (std::size_t i = k; i < rows; ++i) norm += (v[i] = a[i * cols + k]) * v[i];
    norm = std::sqrt(norm);
    const double alpha = v[k] > 0 ? -norm : norm;  // R's diagonal
    sign[k] = alpha < 0 ? -1 : 1;
    v[k] -= alpha;
    double length = 0;
    for (std::size_t i = k; i < rows; ++i) length += v[i] * v[i];
    if (length > 0)
      for (std::size_t i = k; i < rows; ++i) v[i] /= std::sqrt(length);
    reflect(v, k, a, k);
  }
  std::fill(q.begin(), q.end(), 0.0);
  for (std::size_t k = 0; k < cols; ++k) q[k * cols + k] = 1;
  for (std::size_t k = cols; k-- > 0;) reflect(reflectors[k], k, q, k);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j) q[i * cols + j] *= sign[j];
}

}  // namespace

Initializer constant(double value) {
  return Initializer("constant",
                     [=](std::span<double> out, const Shape&, Fans, Key) { std::fill(out.begin(), out.end(), value); });
}
Initializer zeros() { return constant(0); }
Initializer ones() { return constant(1); }

Initializer uniform(double low, double high) {
  init_requires(low < high && std::isfinite(high - low), "uniform", "low < high, both finite", high);
  return Initializer("uniform",
                     [=](std::span<double> out, const Shape&, Fans, Key key) { fill_uniform(out, low, high, key); });
}

Initializer normal(double mean, double stddev) {
  init_requires(std::isfinite(mean), "normal", "a finite mean", mean);
  init_requires(stddev >= 0 && std::isfinite(stddev), "normal", "a finite deviation of 0 or more", stddev);
  return Initializer("normal",
                     [=](std::span<double> out, const Shape&, Fans, Key key) { fill_normal(out, mean, stddev, key); });
}

Initializer truncated_normal(double mean, double stddev, double low, double high) {
  init_requires(std::isfinite(mean), "truncated_normal", "a finite mean", mean);
  init_requires(stddev > 0 && std::isfinite(stddev), "truncated_normal", "a positive, finite deviation", stddev);
  init_requires(low < high && !std::isnan(low), "truncated_normal", "low < high", high);
  const double from = normal_cdf((low - mean) / stddev), to = normal_cdf((high - mean) / stddev);
  init_requires(to > from, "truncated_normal", "an interval that the normal distribution reaches", high);
  return Initializer("truncated_normal", [=](std::span<double> out, const Shape&, Fans, Key key) {
    Rng rng(key);
    for (double& v : out)
      v = std::clamp(mean + stddev * inverse_normal_cdf(from + (to - from) * rng.uniform()), low, high);
  });
}

Initializer glorot_uniform(double gain) {
  init_requires(gain > 0, "glorot_uniform", "a positive gain", gain);
  return scaled("glorot_uniform", gain * gain, FanMode::average, true);
}
Initializer glorot_normal(double gain) {
  init_requires(gain > 0, "glorot_normal", "a positive gain", gain);
  return scaled("glorot_normal", gain * gain, FanMode::average, false);
}
Initializer he_uniform(double slope, FanMode mode) {
  init_requires(std::isfinite(slope), "he_uniform", "a finite slope", slope);
  return scaled("he_uniform", 2 / (1 + slope * slope), mode, true);
}
Initializer he_normal(double slope, FanMode mode) {
  init_requires(std::isfinite(slope), "he_normal", "a finite slope", slope);
  return scaled("he_normal", 2 / (1 + slope * slope), mode, false);
}
Initializer lecun_uniform() { return scaled("lecun_uniform", 1, FanMode::in, true); }
Initializer lecun_normal() { return scaled("lecun_normal", 1, FanMode::in, false); }
Initializer pytorch_default() { return scaled("pytorch", 1.0 / 3, FanMode::in, true); }

Initializer orthogonal(double gain) {
  init_requires(std::isfinite(gain), "orthogonal", "a finite gain", gain);
  return Initializer("orthogonal", [=](std::span<double> out, const Shape& shape, Fans, Key key) {
    if (shape.rank() < 2) fail(ErrorKind::shape, "[init] orthogonal: expected two dimensions or more, got {}", shape);
    if (out.empty()) return;
    const auto cols = static_cast<std::size_t>(shape.back());
    const std::size_t rows = out.size() / cols;
    if (rows >= cols) {
      orthonormal_columns(out, rows, cols, key);
    } else {
      std::vector<double> transposed(out.size());
      orthonormal_columns(transposed, cols, rows, key);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) out[i * cols + j] = transposed[j * rows + i];
    }
    for (double& v : out) v *= gain;
  });
}

Initializer from_name(std::string_view name) {
  static const std::pair<std::string_view, Initializer (*)()> kNames[] = {
      {"glorot_uniform", [] { return glorot_uniform(); }},
      {"glorot_normal", [] { return glorot_normal(); }},
      {"he_uniform", [] { return he_uniform(); }},
      {"he_normal", [] { return he_normal(); }},
      {"lecun_uniform", [] { return lecun_uniform(); }},
      {"lecun_normal", [] { return lecun_normal(); }},
      {"orthogonal", [] { return orthogonal(); }},
      {"truncated_normal", [] { return truncated_normal(); }},
      {"pytorch", [] { return pytorch_default(); }},
      {"zeros", [] { return zeros(); }},
      {"ones", [] { return ones(); }},
  };
  std::string known;
  for (const auto& [key, make] : kNames) {
    if (key == name) return make();
    known += (known.empty() ? "" : ", ") + std::string(key);
  }
  fail(ErrorKind::value, "[init] there is no initialiser \"{}\": expected one of {}", name, known);
}

}  // namespace init
}  // namespace bp

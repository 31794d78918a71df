// Activations: compositions of the primitives with stable formulas. Where a function has a kink its branches are chosen
// by a comparison that reads a stopped value, and its gradient there is PyTorch's.
#include <cmath>
#include <utility>

#include "ops/common.h"

namespace bp {

using namespace ops;

// Both terms change their form at 0, so that every derivative there is right: |x| alone would lose the odd ones.
Tensor softplus(const Tensor& x) {
  Scope scope("softplus");
  const Tensor y = to_float(x);
  const Tensor positive = greater_equal(y, weak_scalar(0, y));
  return select(positive, y, zeros_like(y)) + log1p(exp(select(positive, -y, y)));
}

Tensor gelu(const Tensor& x) {
  Scope scope("gelu");
  const Tensor y = to_float(x);
  return 0.5 * y * (1 + erf(y * std::sqrt(0.5)));
}

// (1 + tanh u) / 2 is sigmoid(2 u), which keeps its digits where tanh is near -1 and takes one polynomial instead of
// two.
Tensor gelu_tanh(const Tensor& x) {
  Scope scope("gelu_tanh");
  const Tensor y = to_float(x);
  const double c = 2 * 0.79788456080286535588;  // 2 sqrt(2 / pi)
  return y * sigmoid(y * (c + (c * 0.044715) * square(y)));
}

Tensor silu(const Tensor& x) {
  Scope scope("silu");
  return to_float(x) * sigmoid(x);
}

// The branch not taken is computed at 0: no overflow there, and at the kink the gradient is the left one (PyTorch's).
Tensor elu(const Tensor& x, double alpha) {
  Scope scope("elu");
  const Tensor y = to_float(x);
  const Tensor positive = y > 0;
  return select(positive, y, alpha * expm1(select(positive, zeros_like(y), y)));
}

Tensor leaky_relu(const Tensor& x, double slope) {
  Scope scope("leaky_relu");
  const Tensor y = to_float(x);
  return select(stop_gradient(y) > 0, y, slope * y);
}

Tensor log_sigmoid(const Tensor& x) {
  Scope scope("log_sigmoid");
  return -softplus(-to_float(x));
}

Tensor mish(const Tensor& x) {
  Scope scope("mish");
  const Tensor y = to_float(x);
  return y * tanh(softplus(y));
}

Tensor softsign(const Tensor& x) {
  Scope scope("softsign");
  const Tensor y = to_float(x);
  return y / (1 + abs(y));
}

Tensor prelu(const Tensor& x, const Tensor& slope) {
  Scope scope("prelu");
  const Tensor y = to_float(x);
  return select(stop_gradient(y) > 0, y, slope * y);
}

Tensor celu(const Tensor& x, double alpha) {
  Scope scope("celu");
  if (!(alpha > 0)) fail(ErrorKind::value, "[celu] expected alpha > 0, got {}", alpha);
  const Tensor y = to_float(x);
  const Tensor positive = y > 0;
  return select(positive, y, alpha * expm1(select(positive, zeros_like(y), y) / alpha));
}

// Alpha and scale keep mean 0 and variance 1 from layer to layer: Klambauer et al., "Self-normalizing neural networks",
// NeurIPS 2017, equation 14.
Tensor selu(const Tensor& x) {
  Scope scope("selu");
  return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717);
}

// Flat at the bounds themselves, where clip passes the gradient.
Tensor hard_tanh(const Tensor& x, double low, double high) {
  Scope scope("hard_tanh");
  if (!(low < high)) fail(ErrorKind::value, "[hard_tanh] expected low < high, got {} and {}", low, high);
  const Tensor y = to_float(x), at = stop_gradient(y);
  return select(at <= low, weak_scalar(low, y), select(at >= high, weak_scalar(high, y), y));
}

Tensor relu6(const Tensor& x) {
  Scope scope("relu6");
  return hard_tanh(x, 0, 6);
}

Tensor hard_sigmoid(const Tensor& x) {
  Scope scope("hard_sigmoid");
  return hard_tanh(to_float(x) + 3, 0, 6) / 6;
}

Tensor hard_swish(const Tensor& x) {
  Scope scope("hard_swish");
  const Tensor y = to_float(x), at = stop_gradient(y);
  return select(at < -3, zeros_like(y), select(at <= 3, y * (y + 3) / 6, y));
}

Tensor hard_shrink(const Tensor& x, double lambda) {
  Scope scope("hard_shrink");
  if (!(lambda >= 0)) fail(ErrorKind::value, "[hard_shrink] expected lambda >= 0, got {}", lambda);
  const Tensor y = to_float(x);
  return select(abs(stop_gradient(y)) <= lambda, zeros_like(y), y);
}

Tensor soft_shrink(const Tensor& x, double lambda) {
  Scope scope("soft_shrink");
  if (!(lambda >= 0)) fail(ErrorKind::value, "[soft_shrink] expected lambda >= 0, got {}", lambda);
  const Tensor y = to_float(x), at = stop_gradient(y);
  return select(at > lambda, y - lambda, select(at < -lambda, y + lambda, zeros_like(y)));
}

Tensor tanh_shrink(const Tensor& x) {
  Scope scope("tanh_shrink");
  const Tensor y = to_float(x);
  return y - tanh(y);
}

namespace {

std::pair<Tensor, Tensor> halves(const Tensor& x, int axis, const char* op) {
  const int a = normalize_axis(axis, x.rank(), op);
  const std::int64_t n = x.shape()[a];
  if (n % 2 != 0) fail(ErrorKind::shape, "[{}] expected an even size along axis {}, got {}", op, a, x.shape());
  const Tensor y = to_float(x);
  return {slice(y, a, 0, n / 2), slice(y, a, n / 2, n)};
}

}  // namespace

Tensor glu(const Tensor& x, int axis) {
  Scope scope("glu");
  const auto [a, b] = halves(x, axis, "glu");
  return a * sigmoid(b);
}

Tensor geglu(const Tensor& x, int axis) {
  Scope scope("geglu");
  const auto [a, b] = halves(x, axis, "geglu");
  return a * gelu(b);
}

Tensor swiglu(const Tensor& x, int axis) {
  Scope scope("swiglu");
  const auto [a, b] = halves(x, axis, "swiglu");
  return a * silu(b);
}

Tensor reglu(const Tensor& x, int axis) {
  Scope scope("reglu");
  const auto [a, b] = halves(x, axis, "reglu");
  return a * relu(b);
}

}  // namespace bp

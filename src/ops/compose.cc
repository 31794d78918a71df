// Compositions with stable formulas: softmax, activations, clip.
#include <cmath>
#include <limits>

#include "ops/common.h"

namespace bp {

using namespace ops;

// exp(x - m) / sum(exp(x - m)), m = max(x): no overflow, and one division a row.
Tensor softmax(const Tensor& x, int axis) {
  Scope scope("softmax");
  const Tensor y = to_float(x);
  const int a = normalize_axis(axis, x.rank(), "softmax");
  if (x.numel() == 0) return y;
  const Tensor e = exp(y - stop_gradient(max(y, {a}, true)));
  return e * reciprocal(sum(e, {a}, true));
}

Tensor log_softmax(const Tensor& x, int axis) {
  Scope scope("log_softmax");
  const Tensor y = to_float(x);
  const int a = normalize_axis(axis, x.rank(), "log_softmax");
  if (x.numel() == 0) return y;
  const Tensor shifted = y - stop_gradient(max(y, {a}, true));
  return shifted - log(sum(exp(shifted), {a}, true));
}

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

Tensor gelu_tanh(const Tensor& x) {
  Scope scope("gelu_tanh");
  const Tensor y = to_float(x);
  const double c = 0.79788456080286535588;  // sqrt(2 / pi)
  return 0.5 * y * (1 + tanh(y * (c + (c * 0.044715) * square(y))));
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

// The gradient passes where low <= x <= high. The comparisons read a stopped value: the second derivative is zero, not
// an error.
Tensor clip(const Tensor& x, double low, double high) {
  Scope scope("clip");
  if (!(low <= high)) fail(ErrorKind::value, "[clip] expected low <= high, got {} and {}", low, high);
  Tensor y = x;
  if (high < std::numeric_limits<double>::infinity()) y = select(stop_gradient(y) > high, weak_scalar(high, y), y);
  if (low > -std::numeric_limits<double>::infinity()) y = select(stop_gradient(y) < low, weak_scalar(low, y), y);
  return y;
}

}  // namespace bp

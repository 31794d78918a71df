// Compositions with stable formulas: softmax, clip. Activations are in activations.cc.
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

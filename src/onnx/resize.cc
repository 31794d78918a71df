// The matrices of Resize (ONNX operator set 13; the cubic kernel is that of Keys, "Cubic convolution interpolation for
// digital image processing", 1981).
#include "onnx/resize.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace bp::onnx {

namespace {

// Where element x of the result lies in the input.
double place_of(const ResizeAxis& a, std::int64_t i) {
  const auto x = static_cast<double>(i), in = static_cast<double>(a.in), out = a.scale * in;
  if (a.coordinates == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (a.coordinates == "pytorch_half_pixel") return out > 1 ? (x + 0.5) / a.scale - 0.5 : 0;
  if (a.coordinates == "align_corners") return out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (a.coordinates == "asymmetric") return x / a.scale;
  if (a.coordinates == "tf_half_pixel_for_nn") return (x + 0.5) / a.scale;
  if (a.coordinates == "tf_crop_and_resize")
    return out > 1 ? a.roi_start * (in - 1) + x * (a.roi_end - a.roi_start) * (in - 1) / (out - 1)
                   : 0.5 * (a.roi_start + a.roi_end) * (in - 1);
  fail(ErrorKind::value, "[onnx] Resize: the coordinates \"{}\" are not supported", a.coordinates);
}

std::int64_t nearest_to(const ResizeAxis& a, double x) {
  double at = 0;
  if (a.nearest == "round_prefer_floor")
    at = std::ceil(x - 0.5);
  else if (a.nearest == "round_prefer_ceil")
    at = std::floor(x + 0.5);
  else if (a.nearest == "floor")
    at = std::floor(x);
  else if (a.nearest == "ceil")
    at = std::ceil(x);
  else
    fail(ErrorKind::value, "[onnx] Resize: the nearest mode \"{}\" is not supported", a.nearest);
  return static_cast<std::int64_t>(at);
}

double cubic_weight(double distance, double a) {
  const double d = std::abs(distance);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
  return 0;
}

// Adds the weights of the row for place x.
void add_row(const ResizeAxis& a, double x, float* row) {
  const auto add = [&](std::int64_t at, double w) {
    row[std::clamp<std::int64_t>(at, 0, a.in - 1)] += static_cast<float>(w);
  };
  const auto first = static_cast<std::int64_t>(std::floor(x));
  const double share = x - std::floor(x);
  if (a.mode == "nearest") return add(nearest_to(a, x), 1);
  if (a.mode == "linear") {
    add(first, 1 - share);
    return add(first + 1, share);
  }
  if (a.mode != "cubic") fail(ErrorKind::value, "[onnx] Resize: the mode \"{}\" is not supported", a.mode);
  double weights[4], total = 0;
  for (int k = 0; k < 4; ++k) {
    const std::int64_t at = first - 1 + k;
    weights[k] = a.exclude_outside && (at < 0 || at >= a.in) ? 0 : cubic_weight(share + 1 - k, a.cubic);
    total += weights[k];
  }
  for (int k = 0; k < 4; ++k) add(first - 1 + k, a.exclude_outside ? weights[k] / total : weights[k]);
}

}  // namespace

ResizeMatrix resize_matrix(const ResizeAxis& a) {
  ResizeMatrix m;
  m.weights.resize(static_cast<std::size_t>(a.in * a.out));
  for (std::int64_t i = 0; i < a.out; ++i) {
    const double x = place_of(a, i);
    m.outside.push_back(a.coordinates == "tf_crop_and_resize" && (x < 0 || x > static_cast<double>(a.in - 1)));
    add_row(a, x, m.weights.data() + i * a.in);
  }
  return m;
}

}  // namespace bp::onnx

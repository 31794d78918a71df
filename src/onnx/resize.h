// Interpolation along one axis as a matrix, of which ONNX's Resize is made: it is separable in every mode.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bp::onnx {

struct ResizeAxis {
  std::int64_t in = 0, out = 0;
  double scale = 1;  // out / in, or as the file says
  double roi_start = 0, roi_end = 1;
  std::string mode = "nearest", coordinates = "half_pixel", nearest = "round_prefer_floor";
  double cubic = -0.75;
  bool exclude_outside = false;
};

// [out, in], row-major; `outside`: rows whose place lies beyond the input (of tf_crop_and_resize). Throws Error(value)
// for a mode that is not known.
struct ResizeMatrix {
  std::vector<float> weights;
  std::vector<bool> outside;
};
ResizeMatrix resize_matrix(const ResizeAxis& axis);

}  // namespace bp::onnx

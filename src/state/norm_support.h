// What the norms share. Used by layers_norm.cc and layers_row_norm.cc only.
#pragma once

#include <cmath>

#include "bp/norms.h"
#include "bp/ops.h"
#include "state/layer_support.h"

namespace bp::nn {

inline void require_eps(const char* kind, double eps) {
  if (!(eps >= 0 && std::isfinite(eps))) fail(ErrorKind::value, "[{}] eps: expected 0 or more, got {}", kind, eps);
}

inline Shape channels_last(const Layer& layer, std::int64_t channels, const Shape& in, int least_rank) {
  static constexpr const char* kOpening[] = {"", "", "N, ", "N, s.., "};
  if (in.rank() < least_rank || in.back() != channels)
    shape_error(layer, fmt::format("input [{}{}{}]", kOpening[least_rank], least_rank == 3 ? "" : ".., ", channels),
                in);
  return in;
}

// Half precision is normalised in f32.
inline Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }
inline Tensor like(const Tensor& y, const Tensor& x) { return y.dtype() == x.dtype() ? y : cast(y, x.dtype()); }

// A gain of ones and a bias of zeros.
inline void make_affine(Variable& weight, Variable& bias, std::int64_t channels) {
  weight = parameter({channels}, 1);
  bias = parameter({channels});
}
inline Tensor with_affine(const Tensor& y, const Variable& weight, const Variable& bias) {
  return weight.defined() ? y * widened(weight) + widened(bias) : y;
}
inline void visit_affine(const std::string& path, Visitor& visitor, Variable& weight, Variable& bias) {
  if (!weight.defined()) return;
  visitor.on_variable(join_path(path, "weight"), weight, false);
  visitor.on_variable(join_path(path, "bias"), bias, false);
}
inline void init_affine(Variable& weight, Variable& bias) {
  if (!weight.defined()) return;
  weight.set(1.0);
  bias.set(0.0);
}

}  // namespace bp::nn

// Promotion, broadcasting, axes and the common type rules.
#include "ops/common.h"

#include <algorithm>
#include <cmath>

namespace bp {

Tensor weak_scalar(double v, const Tensor& beside) {
  DType t = beside.dtype();
  if (!is_float(t) && !ops::holds(t, v)) t = ops::holds(DType::i64, v) ? DType::i64 : DType::f32;
  return full({}, v, t);
}

namespace ops {

bool holds(DType t, double v) noexcept {
  if (is_float(t)) return true;
  const auto within = [&](double low, double past_high) { return v == std::trunc(v) && v >= low && v < past_high; };
  switch (t) {
    case DType::i64: return within(-0x1p63, 0x1p63);
    case DType::i32: return within(-0x1p31, 0x1p31);
    case DType::u8: return within(0, 256);
    default: return within(0, 2);
  }
}

Tensor to_float(const Tensor& x) { return is_float(x.dtype()) ? x : cast(x, DType::f32); }

std::pair<Tensor, Tensor> meet(const Tensor& a, const Tensor& b, const char* op) {
  const DType t = promote(a.dtype(), b.dtype());
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), op);
  return {broadcast_to(cast(a, t), shape), broadcast_to(cast(b, t), shape)};
}

Tensor sum_to(const Tensor& d, const Shape& shape) {
  if (!d.defined() || d.shape() == shape) return d;
  const int extra = d.rank() - shape.rank();
  Axes axes;
  for (int i = 0; i < d.rank(); ++i)
    if (i < extra || (shape[i - extra] == 1 && d.shape()[i] != 1)) axes.push_back(i);
  const Tensor reduced = axes.empty() ? d : sum(d, axes);
  return reduced.shape() == shape ? reduced : reshape(reduced, shape);
}

Ints normalize_axes(const Axes& axes, int rank, const char* op) {
  Ints out;
  if (axes.empty())
    for (int i = 0; i < rank; ++i) out.push_back(i);
  for (int a : axes) out.push_back(normalize_axis(a, rank, op));
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end())
    fail(ErrorKind::shape, "[{}] axis {} is named twice", op, *std::adjacent_find(out.begin(), out.end()));
  return out;
}

Shape without_axes(const Shape& shape, const Ints& axes) {
  Shape out;
  for (int i = 0; i < shape.rank(); ++i)
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) out.push_back(shape[i]);
  return out;
}

Shape with_ones(const Shape& shape, const Ints& axes) {
  Shape out = shape;
  for (auto a : axes) out[static_cast<int>(a)] = 1;
  return out;
}

Tensor expand_reduced(const Tensor& reduced, const Shape& full_shape, const Ints& axes) {
  return broadcast_to(reshape(reduced, with_ones(full_shape, axes)), full_shape);
}

std::vector<Type> same_as_input(const InferArgs& a) { return {a.in[0]}; }

std::vector<Type> same_float(const InferArgs& a, const char* op) {
  if (!is_float(a.in[0].dtype)) fail(ErrorKind::dtype, "[{}] expected a floating tensor, got {}", op, a.in[0].str());
  return {a.in[0]};
}

std::vector<Type> same_pair(const InferArgs& a, const char* op) {
  if (!(a.in[0] == a.in[1]))
    fail(ErrorKind::shape, "[{}] expected two operands of one type, got {} and {}", op, a.in[0].str(), a.in[1].str());
  return {a.in[0]};
}

std::vector<Type> compare_pair(const InferArgs& a, const char* op) {
  same_pair(a, op);
  return {{DType::boolean, a.in[0].shape}};
}

}  // namespace ops
}  // namespace bp

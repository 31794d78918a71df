// Shape, strides and broadcasting.
#include "bp/shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace bp {

Shape::Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::int64_t> dims) {
  for (std::int64_t n : dims) {
    if (n < 0) fail(ErrorKind::shape, "a dimension cannot be negative: got {}", n);
    push_back(n);
  }
}

void Shape::push_back(std::int64_t n) { insert(rank_, n); }

void Shape::insert(int axis, std::int64_t n) {
  if (rank_ == kMaxRank) fail(ErrorKind::shape, "a tensor has at most {} dimensions", kMaxRank);
  std::copy_backward(dims_.begin() + axis, dims_.begin() + rank_, dims_.begin() + rank_ + 1);
  dims_[static_cast<std::size_t>(axis)] = n;
  ++rank_;
}

void Shape::erase(int axis) {
  std::copy(dims_.begin() + axis + 1, dims_.begin() + rank_, dims_.begin() + axis);
  dims_[static_cast<std::size_t>(--rank_)] = 0;
}

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(begin(), end(), ", ")); }

Shape row_major_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, const char* where) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const int offset = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    const std::int64_t m = longer[offset + i], n = shorter[i];
    if (m != n && m != 1 && n != 1)
      fail(ErrorKind::shape, "[{}] shapes {} and {} do not broadcast: {} against {}", where, a, b, m, n);
    out[offset + i] = m == 1 ? n : m;
  }
  return out;
}

int normalize_axis(int axis, int rank, const char* where) {
  const int i = axis < 0 ? axis + rank : axis;
  if (i < 0 || i >= rank)
    fail(ErrorKind::shape, "[{}] axis {} is outside a tensor of {} dimensions", where, axis, rank);
  return i;
}

}  // namespace bp

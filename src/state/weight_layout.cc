// Between the layouts of weights.
#include "state/weight_layout.h"

#include <cstring>
#include <vector>

namespace bp {

namespace {
// `a` with its dimensions reordered: out.shape[i] = a.shape[order[i]].
Array permuted(const Array& a, const std::vector<int>& order) {
  const int rank = a.shape.rank();
  Shape shape, stride;
  const Shape from = row_major_strides(a.shape);
  for (const int axis : order) {
    shape.push_back(a.shape[axis]);
    stride.push_back(from[axis]);
  }
  Array out = Array::empty(a.dtype, shape);
  const std::size_t size = size_of(a.dtype);
  auto* to = out.buffer.as_mutable<std::byte>();
  const auto* source = a.buffer.as<std::byte>();
  std::vector<std::int64_t> index(static_cast<std::size_t>(rank), 0);
  std::int64_t at = 0;
  for (std::int64_t i = 0, n = out.numel(); i < n; ++i, to += size) {
    std::memcpy(to, source + static_cast<std::size_t>(at) * size, size);
    for (int axis = rank - 1; axis >= 0; --axis) {
      auto& count = index[static_cast<std::size_t>(axis)];
      at += stride[axis];
      if (++count < shape[axis]) break;
      at -= stride[axis] * count;
      count = 0;
    }
  }
  return out;
}
}  // namespace

Array to_pytorch(const Array& a) {
  const int rank = a.shape.rank();
  std::vector<int> order{rank - 1, rank - 2};
  for (int i = 0; i < rank - 2; ++i) order.push_back(i);
  return permuted(a, order);
}

Array from_pytorch(const Array& a) {
  std::vector<int> order;
  for (int i = 2; i < a.shape.rank(); ++i) order.push_back(i);
  order.push_back(1);
  order.push_back(0);
  return permuted(a, order);
}

}  // namespace bp

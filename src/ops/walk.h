// Walking over the elements of row-major and strided blocks: what the reference kernels of the shape, reduction and
// index ops share.
#pragma once

#include <array>
#include <cstdint>

#include "ops/common.h"

namespace bp::ops {

// In elements, one a dimension, of any sign.
using Strides = std::array<std::int64_t, Shape::kMaxRank>;

Strides strides_of(const Shape& shape);

// Where the elements of a box lie in a block: element (i0, i1, ..) at base + sum_d i_d * strides[d].
struct Place {
  std::int64_t base = 0;
  Strides strides{};
};

// f(at) for every element of `box` in row-major order.
template <class F> void walk(const Shape& box, const Place& place, F f) {
  Strides index{};
  std::int64_t at = place.base;
  for (std::int64_t i = 0, all = box.numel(); i < all; ++i) {
    f(at);
    for (int d = box.rank() - 1; d >= 0; --d) {
      const auto k = static_cast<std::size_t>(d);
      at += place.strides[k];
      if (++index[k] < box[d]) break;
      at -= place.strides[k] * box[d];
      index[k] = 0;
    }
  }
}

// out[to(i)] = in[from(i)] for every i of `box`; both blocks hold the same dtype.
void copy_box(const Shape& box, const ir::View& in, const Place& from, const ir::View& out, const Place& to);

// A row-major block seen as [outer, n, inner] around one axis.
struct AxisView {
  std::int64_t outer = 1, n = 1, inner = 1;
  AxisView(const Shape& shape, int axis);
};

// One integer of an index operand (i32 or i64).
std::int64_t index_at(const ir::View& v, std::int64_t i);

inline double no_flops(std::span<const Type>, std::span<const Type>, const Attrs&) { return 0; }

}  // namespace bp::ops

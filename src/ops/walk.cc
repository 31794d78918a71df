// The strided copy behind the reference kernels of the movement ops.
#include "ops/walk.h"

namespace bp::ops {

Strides strides_of(const Shape& shape) {
  Strides out{};
  std::int64_t step = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    out[static_cast<std::size_t>(d)] = step;
    step *= shape[d];
  }
  return out;
}

namespace {
template <class T>
void copy_as(const Shape& box, const ir::View& in, const Place& from, const ir::View& out, const Place& to) {
  const T* src = in.as<T>();
  T* dst = out.as<T>();
  std::vector<std::int64_t> places;
  places.reserve(static_cast<std::size_t>(box.numel()));
  walk(box, to, [&](std::int64_t at) { places.push_back(at); });
  std::size_t i = 0;
  walk(box, from, [&](std::int64_t at) { dst[places[i++]] = src[at]; });
}
}  // namespace

void copy_box(const Shape& box, const ir::View& in, const Place& from, const ir::View& out, const Place& to) {
  switch (size_of(in.type.dtype)) {
    case 8: return copy_as<std::uint64_t>(box, in, from, out, to);
    case 4: return copy_as<std::uint32_t>(box, in, from, out, to);
    case 2: return copy_as<std::uint16_t>(box, in, from, out, to);
    default: return copy_as<std::uint8_t>(box, in, from, out, to);
  }
}

AxisView::AxisView(const Shape& shape, int axis) : n(shape[axis]) {
  for (int d = 0; d < axis; ++d) outer *= shape[d];
  for (int d = axis + 1; d < shape.rank(); ++d) inner *= shape[d];
}

std::int64_t index_at(const ir::View& v, std::int64_t i) {
  return v.type.dtype == DType::i32 ? v.as<std::int32_t>()[i] : v.as<std::int64_t>()[i];
}

}  // namespace bp::ops

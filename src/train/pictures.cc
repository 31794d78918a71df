// Pictures of samples.
#include "train/pictures.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace bp::train {

namespace {

// [height, width, channels] of a sample that is an image.
std::optional<Shape> image_shape(const Config& c) {
  if (c.data.vocabulary) return std::nullopt;
  const Shape& s = c.input;
  if (s.rank() == 3 && (s[2] == 1 || s[2] == 3)) return s;
  if (c.data.format != "idx" || s.rank() < 1 || s.rank() > 2) return std::nullopt;
  if (s.rank() == 2) return Shape{s[0], s[1], 1};
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(s[0]))));
  return side >= 8 && side * side == s[0] ? std::optional(Shape{side, side, 1}) : std::nullopt;
}

double of_channel(const std::vector<double>& values, std::size_t channel, double otherwise) {
  return values.empty() ? otherwise : values[values.size() == 1 ? 0 : channel % values.size()];
}

}  // namespace

std::optional<Array> picture_of(const Config& c, const Array& x, std::int64_t row) {
  const std::optional<Shape> shape = image_shape(c);
  if (!shape || x.rows() == 0 || x.numel() / x.rows() != shape->numel()) return std::nullopt;
  Array one = x;
  one.shape[0] = 1;
  one.buffer = Buffer::wrap(x.buffer.as_mutable<std::byte>() + static_cast<std::size_t>(row) * x.row_bytes(),
                            x.row_bytes(), std::make_shared<Buffer>(x.buffer));
  const Array values = convert(one, DType::f64);
  const auto n = static_cast<std::size_t>(shape->numel()), channels = static_cast<std::size_t>((*shape)[2]);
  std::vector<double> v(values.data<double>(), values.data<double>() + n);
  for (std::size_t i = 0; i < n; ++i)
    v[i] = v[i] * of_channel(c.data.std, i % channels, 1) + of_channel(c.data.mean, i % channels, 0);
  const auto [least, most] = std::minmax_element(v.begin(), v.end());
  const double low = std::min(*least, 0.0), high = std::max(*most, 1.0);
  Array picture = Array::empty(DType::u8, *shape);
  auto* to = picture.mutable_data<std::uint8_t>();
  for (std::size_t i = 0; i < n; ++i) {
    const double share = (v[i] - low) / (high - low);
    to[i] = std::isfinite(share) ? static_cast<std::uint8_t>(std::lround(255 * std::clamp(share, 0.0, 1.0))) : 0;
  }
  return picture;
}

Array grid_of(const std::vector<Array>& pictures, std::int64_t columns) {
  const Shape& one = pictures.front().shape;
  const auto n = static_cast<std::int64_t>(pictures.size());
  columns = std::min(columns, n);
  const std::int64_t height = one[0] + 1, width = one[1] + 1, channels = one[2];
  Array grid = Array::zeros(DType::u8, {(n + columns - 1) / columns * height - 1, columns * width - 1, channels});
  auto* to = grid.mutable_data<std::uint8_t>();
  for (std::int64_t k = 0; k < n; ++k) {
    const std::uint8_t* from = pictures[static_cast<std::size_t>(k)].data<std::uint8_t>();
    for (std::int64_t y = 0; y < one[0]; ++y) {
      const std::int64_t at = ((k / columns * height + y) * grid.shape[1] + k % columns * width) * channels;
      std::memcpy(to + at, from + y * one[1] * channels, static_cast<std::size_t>(one[1] * channels));
    }
  }
  return grid;
}

}  // namespace bp::train

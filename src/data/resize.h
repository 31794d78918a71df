// Changing the size of an image [H, W, C]. Used by augmentation and by images from files.
#pragma once

#include <cstdint>

namespace bp::data {

template <class T> struct ImageView {
  const T* values;
  std::int64_t height, width, channels;
};
// A part of an image, in pixels; pixel i reaches from i to i + 1.
struct Region {
  double top, left, height, width;
};

// `to`: [height, width, channels]. Each value is read between the four pixels around its middle; the border repeats.
void resize_bilinear(const ImageView<float>& from, const Region& part, float* to, std::int64_t height,
                     std::int64_t width);
// The whole image. Where it shrinks, each value is the mean of what it covers, partly covered pixels by their share;
// where it grows, bilinear.
void resize(const ImageView<std::uint8_t>& from, float* to, std::int64_t height, std::int64_t width);

}  // namespace bp::data

// Resizing along y, then along x; each output is a weighted sum of a few inputs.
#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace bp::data {

namespace {

// For each of `n` outputs: the first input, and the weights of it and those after it.
struct Taps {
  std::vector<std::int64_t> first, count;
  std::vector<float> weights;  // width of each
  std::int64_t most = 0;
  const float* of(std::int64_t i) const { return weights.data() + i * most; }
};

Taps bilinear(std::int64_t inputs, double begin, double length, std::int64_t n) {
  Taps t;
  t.most = 2;
  for (std::int64_t i = 0; i < n; ++i) {
    const double middle = begin + (static_cast<double>(i) + 0.5) * length / static_cast<double>(n) - 0.5;
    const double at = std::clamp(middle, 0.0, static_cast<double>(inputs - 1));
    const auto low = std::min(static_cast<std::int64_t>(at), std::max<std::int64_t>(0, inputs - 2));
    const auto share = static_cast<float>(at - static_cast<double>(low));
    t.first.push_back(low);
    t.count.push_back(std::min<std::int64_t>(2, inputs));
    t.weights.push_back(inputs == 1 ? 1.0f : 1 - share);
    t.weights.push_back(inputs == 1 ? 0.0f : share);
  }
  return t;
}

Taps area(std::int64_t inputs, std::int64_t n) {
  Taps t;
  const double step = static_cast<double>(inputs) / static_cast<double>(n);
  t.most = static_cast<std::int64_t>(std::ceil(step)) + 1;
  t.weights.resize(static_cast<std::size_t>(n * t.most), 0.0f);
  for (std::int64_t i = 0; i < n; ++i) {
    const double begin = static_cast<double>(i) * step, end = begin + step;
    const auto first = std::min(static_cast<std::int64_t>(begin), inputs - 1);
    std::int64_t k = 0;
    for (; k < t.most && first + k < inputs; ++k) {
      const auto low = static_cast<double>(first + k);
      const double covered = std::min(end, low + 1) - std::max(begin, low);
      if (covered <= 0) break;
      t.weights[static_cast<std::size_t>(i * t.most + k)] = static_cast<float>(covered / step);
    }
    t.first.push_back(first);
    t.count.push_back(k);
  }
  return t;
}

// One row of C channels to `width` pixels.
template <std::int64_t C> void narrow_row(const float* row, const Taps& columns, float* to, std::int64_t width) {
  for (std::int64_t x = 0; x < width; ++x, to += C) {
    const float* from = row + columns.first[static_cast<std::size_t>(x)] * C;
    const float* w = columns.of(x);
    float sum[C] = {};
    for (std::int64_t j = 0, n = columns.count[static_cast<std::size_t>(x)]; j < n; ++j, from += C)
      for (std::int64_t c = 0; c < C; ++c) sum[c] += w[j] * from[c];
    for (std::int64_t c = 0; c < C; ++c) to[c] = sum[c];
  }
}

// Of any number of channels.
void narrow_row(const float* row, std::int64_t channels, const Taps& columns, float* to, std::int64_t width) {
  if (channels == 1) return narrow_row<1>(row, columns, to, width);
  if (channels == 3) return narrow_row<3>(row, columns, to, width);
  for (std::int64_t x = 0; x < width; ++x)
    for (std::int64_t c = 0; c < channels; ++c, ++to) {
      const float* from = row + columns.first[static_cast<std::size_t>(x)] * channels + c;
      *to = 0;
      for (std::int64_t j = 0, n = columns.count[static_cast<std::size_t>(x)]; j < n; ++j)
        *to += columns.of(x)[j] * from[j * channels];
    }
}

template <class T> void add_row(const T* __restrict from, float w, float* __restrict to, std::int64_t n) {
  constexpr std::int64_t kBlock = 16;  // a count that the compiler knows becomes vectors
  for (; n >= kBlock; n -= kBlock, from += kBlock, to += kBlock)
    for (std::int64_t i = 0; i < kBlock; ++i) to[i] += w * static_cast<float>(from[i]);
  for (std::int64_t i = 0; i < n; ++i) to[i] += w * static_cast<float>(from[i]);
}

// Along y first, which is one long vector a row, then along x.
template <class T>
void resample(const ImageView<T>& in, const Taps& rows, const Taps& columns, float* to, std::int64_t height,
              std::int64_t width) {
  const std::int64_t line = in.width * in.channels;
  std::vector<float> sum(static_cast<std::size_t>(line));
  for (std::int64_t y = 0; y < height; ++y, to += width * in.channels) {
    const auto i = static_cast<std::size_t>(y);
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (std::int64_t j = 0; j < rows.count[i]; ++j)
      add_row(in.values + (rows.first[i] + j) * line, rows.of(y)[j], sum.data(), line);
    narrow_row(sum.data(), in.channels, columns, to, width);
  }
}

Taps taps(std::int64_t inputs, std::int64_t n) {
  return n < inputs ? area(inputs, n) : bilinear(inputs, 0, static_cast<double>(inputs), n);
}

}  // namespace

void resize_bilinear(const ImageView<float>& from, const Region& part, float* to, std::int64_t height,
                     std::int64_t width) {
  resample(from, bilinear(from.height, part.top, part.height, height),
           bilinear(from.width, part.left, part.width, width), to, height, width);
}

void resize(const ImageView<std::uint8_t>& from, float* to, std::int64_t height, std::int64_t width) {
  resample(from, taps(from.height, height), taps(from.width, width), to, height, width);
}

}  // namespace bp::data

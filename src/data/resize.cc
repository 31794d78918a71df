// Resizing in two passes: along x into rows, then along y; each output is a weighted sum of a few inputs.
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

template <class T>
void resample(const ImageView<T>& in, const Taps& rows, const Taps& columns, float* to, std::int64_t height,
              std::int64_t width) {
  const std::int64_t c = in.channels;
  const auto line = static_cast<std::size_t>(width * c);
  // A band of the image's rows, narrowed along x: only those that the outputs read.
  const std::int64_t begin = *std::min_element(rows.first.begin(), rows.first.end());
  const std::int64_t end = std::min(in.height, rows.first.back() + rows.count.back());
  std::vector<float> band(static_cast<std::size_t>(end - begin) * line);
  float* narrow = band.data();
  for (std::int64_t y = begin; y < end; ++y)
    for (std::int64_t x = 0; x < width; ++x, narrow += c) {
      const auto i = static_cast<std::size_t>(x);
      const T* from = in.values + (y * in.width + columns.first[i]) * c;
      const float* w = columns.of(x);
      for (std::int64_t k = 0; k < c; ++k) {
        float sum = 0;
        for (std::int64_t j = 0; j < columns.count[i]; ++j) sum += w[j] * static_cast<float>(from[j * c + k]);
        narrow[k] = sum;
      }
    }
  for (std::int64_t y = 0; y < height; ++y, to += line) {
    const auto i = static_cast<std::size_t>(y);
    std::fill(to, to + line, 0.0f);
    for (std::int64_t j = 0; j < rows.count[i]; ++j) {
      const float w = rows.of(y)[j];
      const float* from = band.data() + static_cast<std::size_t>(rows.first[i] + j - begin) * line;
      for (std::size_t x = 0; x < line; ++x) to[x] += w * from[x];
    }
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

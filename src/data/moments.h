// Means and deviations by channel of values that can be gone through twice. Used by datasets and streams.
#pragma once

#include <cmath>
#include <vector>

#include "bp/data.h"

namespace bp::data {

// each(f) calls f(channel, value) for every value, `count` a channel. Two passes: the second one around the mean, so
// that large offsets do not cancel. Bytes are divided by 255; a constant channel reports a deviation of 1.
template <class Each> Moments moments_of(std::size_t channels, double count, DType dtype, Each&& each) {
  std::vector<double> mean(channels, 0.0), squares(channels, 0.0);
  each([&](std::size_t c, double v) { mean[c] += v; });
  for (double& m : mean) m /= count;
  each([&](std::size_t c, double v) { squares[c] += (v - mean[c]) * (v - mean[c]); });
  Moments m;
  for (std::size_t c = 0; c < channels; ++c) {
    const double scale = dtype == DType::u8 ? 1.0 / 255.0 : 1.0;
    const auto deviation = static_cast<float>(std::sqrt(squares[c] / count) * scale);
    m.mean.push_back(static_cast<float>(mean[c] * scale));
    m.stddev.push_back(deviation > 0 ? deviation : 1.0f);
  }
  return m;
}

}  // namespace bp::data

// What the steps of bp/augment.h share: checks of parameters, draws, places outside an image, and pairs. For
// src/data/augment*.cc.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/augment.h"

namespace bp::augment {

// Throws Error(value) "[augment] shift: most is -1: expected 0 or more".
inline void require(bool ok, const char* step, const char* what, double got, const char* expected) {
  if (!ok) fail(ErrorKind::value, "[augment] {}: {} is {}: expected {}", step, what, got, expected);
}
inline void require_probability(double p, const char* step) {
  require(p >= 0 && p <= 1, step, "probability", p, "0 to 1");
}
inline void require_not_negative(double x, const char* step, const char* what) {
  require(x >= 0 && std::isfinite(x), step, what, x, "0 or more");
}

inline double uniform(Rng& rng, double low, double high) { return low + (high - low) * rng.uniform(); }
inline double log_uniform(Rng& rng, double low, double high) {
  return std::exp(uniform(rng, std::log(low), std::log(high)));
}
// In -most .. most.
inline std::int64_t whole(Rng& rng, std::int64_t most) {
  return most == 0 ? 0 : static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(2 * most + 1))) - most;
}

// The place inside [0, n) whose pixel stands at i; -1 where the border is constant.
inline std::int64_t inside(std::int64_t i, std::int64_t n, Border border) {
  if (i >= 0 && i < n) return i;
  if (border == Border::constant) return -1;
  if (border == Border::edge || n == 1) return i < 0 ? 0 : n - 1;
  const std::int64_t period = 2 * (n - 1), r = ((i % period) + period) % period;
  return r < n ? r : period - r;
}

// A rectangle of pixels, cut at the border.
struct Box {
  std::int64_t top, left, bottom, right;  // the last two not included
};
inline Box centred(std::int64_t y, std::int64_t x, std::int64_t height, std::int64_t width, const Image& image) {
  const auto cut = [](std::int64_t i, std::int64_t n) { return std::clamp<std::int64_t>(i, 0, n); };
  const std::int64_t top = y - height / 2, left = x - width / 2;
  return {cut(top, image.height), cut(left, image.width), cut(top + height, image.height),
          cut(left + width, image.width)};
}
inline void fill(Image& image, const Box& b, float value) {
  for (std::int64_t y = b.top; y < b.bottom; ++y)
    std::fill(image.pixel(y, b.left), image.pixel(y, b.left) + (b.right - b.left) * image.channels, value);
}

// A step that needs a second image, given by whoever knows the source.
class Pair : public Step {
 public:
  Pair(double alpha, std::int64_t classes, double probability, const char* step);
  std::int64_t classes() const noexcept { return classes_; }
  double probability() const noexcept { return probability_; }
  void apply(Image& image, Rng& rng) const final;  // throws: there is no second image
  // Returns the share of `image` in the result. Both are of the same shape.
  virtual double mix(Image& image, Image& other, Rng& rng) const = 0;

 protected:
  double share(Rng& rng) const;  // from Beta(alpha, alpha)

 private:
  double alpha_;
  std::int64_t classes_;
  double probability_;
};

}  // namespace bp::augment

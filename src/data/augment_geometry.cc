// Steps that move pixels: flips, shifts, crops, affine maps, resized crops. Made by whoever builds a Pipeline.
#include <cstring>
#include <numbers>

#include "data/augment_steps.h"
#include "data/resize.h"

namespace bp::augment {

namespace {

class Flip final : public Step {
 public:
  Flip(double probability, bool vertical) : probability_(probability), vertical_(vertical) {
    require_probability(probability, name_of());
  }
  std::string name() const override { return name_of(); }
  void apply(Image& image, Rng& rng) const override {
    if (rng.uniform() >= probability_) return;
    const std::int64_t c = image.channels;
    if (vertical_) {
      for (std::int64_t y = 0; y < image.height / 2; ++y)
        std::swap_ranges(image.pixel(y, 0), image.pixel(y + 1, 0), image.pixel(image.height - 1 - y, 0));
      return;
    }
    for (std::int64_t y = 0; y < image.height; ++y)
      for (std::int64_t x = 0; x < image.width / 2; ++x)
        std::swap_ranges(image.pixel(y, x), image.pixel(y, x) + c, image.pixel(y, image.width - 1 - x));
  }

 private:
  const char* name_of() const { return vertical_ ? "flip_vertical" : "flip"; }
  double probability_;
  bool vertical_;
};

void require_reflectable(const char* step, std::int64_t most, const Shape& image, Border border) {
  if (border == Border::reflect && most >= std::min(image[0], image[1]))
    fail(ErrorKind::shape, "[augment] {}: cannot mirror {} pixels of images {}: expected fewer than their sides", step,
         most, image);
}

// The part of height x width that begins at (top, left), which may lie outside.
void cut(Image& image, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width, Border border,
         float value) {
  const std::int64_t c = image.channels;
  image.spare.resize(static_cast<std::size_t>(height * width * c));
  float* to = image.spare.data();
  const std::int64_t first = std::clamp<std::int64_t>(-left, 0, width);                  // columns before the image,
  const std::int64_t last = std::clamp<std::int64_t>(image.width - left, first, width);  // and up to its end
  for (std::int64_t y = 0; y < height; ++y, to += width * c) {
    const std::int64_t row = inside(top + y, image.height, border);
    if (row < 0) {
      std::fill(to, to + width * c, value);
      continue;
    }
    const auto outside = [&](std::int64_t x) {
      const std::int64_t column = inside(left + x, image.width, border);
      for (std::int64_t k = 0; k < c; ++k) to[x * c + k] = column < 0 ? value : image.pixel(row, column)[k];
    };
    for (std::int64_t x = 0; x < first; ++x) outside(x);
    if (last > first)
      std::memcpy(to + first * c, image.pixel(row, left + first),
                  static_cast<std::size_t>((last - first) * c) * sizeof(float));
    for (std::int64_t x = last; x < width; ++x) outside(x);
  }
  image.values.swap(image.spare);
  image.height = height;
  image.width = width;
}

class Shift final : public Step {
 public:
  Shift(std::int64_t most, Border border, float value) : most_(most), border_(border), value_(value) {
    require(most >= 0 && most <= 1 << 20, "shift", "most", static_cast<double>(most), "0 to 1048576");
  }
  std::string name() const override { return "shift"; }
  Shape output(const Shape& image) const override {
    require_reflectable("shift", most_, image, border_);
    return image;
  }
  void apply(Image& image, Rng& rng) const override {
    const std::int64_t dy = whole(rng, most_), dx = whole(rng, most_);
    cut(image, -dy, -dx, image.height, image.width, border_, value_);
  }

 private:
  std::int64_t most_;
  Border border_;
  float value_;
};

class Crop final : public Step {
 public:
  Crop(std::int64_t height, std::int64_t width, std::int64_t padding, Border border, float value)
      : height_(height), width_(width), padding_(padding), border_(border), value_(value) {
    require(height >= 1, "crop", "height", static_cast<double>(height), "1 or more");
    require(width >= 1, "crop", "width", static_cast<double>(width), "1 or more");
    require(padding >= 0 && padding <= 1 << 20, "crop", "padding", static_cast<double>(padding), "0 to 1048576");
  }
  std::string name() const override { return "crop"; }
  Shape output(const Shape& image) const override {
    require_reflectable("crop", padding_, image, border_);
    if (image[0] + 2 * padding_ < height_ || image[1] + 2 * padding_ < width_)
      fail(ErrorKind::shape, "[augment] crop: {} x {} pixels do not fit into images {} with {} pixels around them",
           height_, width_, image, padding_);
    return {height_, width_, image[2]};
  }
  void apply(Image& image, Rng& rng) const override {
    const auto begin = [&](std::int64_t n, std::int64_t part) {
      return static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(n + 2 * padding_ - part + 1))) - padding_;
    };
    const std::int64_t top = begin(image.height, height_), left = begin(image.width, width_);
    cut(image, top, left, height_, width_, border_, value_);
  }

 private:
  std::int64_t height_, width_, padding_;
  Border border_;
  float value_;
};

// The image between its pixels: at (y, x), counted from the middle of the first pixel. Writes `channels` values.
void sample(Image& image, double y, double x, Border border, float value, float* to) {
  const double top = std::floor(y), left = std::floor(x);
  const auto y0 = static_cast<std::int64_t>(top), x0 = static_cast<std::int64_t>(left);
  const auto fy = static_cast<float>(y - top), fx = static_cast<float>(x - left);
  const float weight[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
  const float* from[4];
  for (int k = 0; k < 4; ++k) {
    const std::int64_t row = inside(y0 + k / 2, image.height, border), column = inside(x0 + k % 2, image.width, border);
    from[k] = row < 0 || column < 0 ? nullptr : image.pixel(row, column);
  }
  for (std::int64_t c = 0; c < image.channels; ++c) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += weight[k] * (from[k] == nullptr ? value : from[k][c]);
    to[c] = sum;
  }
}

class Affine final : public Step {
 public:
  explicit Affine(const AffineOptions& o) : o_(o) {
    require_not_negative(o.degrees, "affine", "degrees");
    require_not_negative(o.shift, "affine", "shift");
    require(o.shear >= 0 && o.shear < 90, "affine", "shear", o.shear, "0 to 90, not included");
    require(o.min_scale > 0 && std::isfinite(o.min_scale), "affine", "min_scale", o.min_scale, "above 0");
    require(o.max_scale >= o.min_scale && std::isfinite(o.max_scale), "affine", "max_scale", o.max_scale,
            "min_scale or more");
  }
  std::string name() const override { return "affine"; }
  void apply(Image& image, Rng& rng) const override {
    constexpr double kRadians = std::numbers::pi / 180;
    const double angle = uniform(rng, -o_.degrees, o_.degrees) * kRadians;
    const double scale = log_uniform(rng, o_.min_scale, o_.max_scale);
    const double shear = std::tan(uniform(rng, -o_.shear, o_.shear) * kRadians);
    const double dy = uniform(rng, -o_.shift, o_.shift), dx = uniform(rng, -o_.shift, o_.shift);
    // What lands on (x, y) comes from the inverse: rotate back, scale back, then x - shear y. Rows point down.
    const double cosine = std::cos(angle) / scale, sine = std::sin(angle) / scale;
    const double yx = sine, yy = cosine, xx = cosine - shear * yx, xy = -sine - shear * yy;
    const double cy = static_cast<double>(image.height - 1) / 2, cx = static_cast<double>(image.width - 1) / 2;
    image.spare.resize(image.values.size());
    float* to = image.spare.data();
    for (std::int64_t row = 0; row < image.height; ++row) {
      const double y = static_cast<double>(row) - cy - dy;
      for (std::int64_t column = 0; column < image.width; ++column, to += image.channels) {
        const double x = static_cast<double>(column) - cx - dx;
        sample(image, yx * x + yy * y + cy, xx * x + xy * y + cx, o_.border, o_.value, to);
      }
    }
    image.values.swap(image.spare);
  }

 private:
  AffineOptions o_;
};

class ResizedCrop final : public Step {
 public:
  ResizedCrop(std::int64_t height, std::int64_t width, const ResizedCropOptions& o)
      : height_(height), width_(width), o_(o) {
    require(height >= 1, "resized_crop", "height", static_cast<double>(height), "1 or more");
    require(width >= 1, "resized_crop", "width", static_cast<double>(width), "1 or more");
    require(o.min_area > 0 && o.min_area <= 1, "resized_crop", "min_area", o.min_area, "above 0, at most 1");
    require(o.max_area >= o.min_area && o.max_area <= 1, "resized_crop", "max_area", o.max_area, "min_area to 1");
    require(o.min_ratio > 0 && std::isfinite(o.min_ratio), "resized_crop", "min_ratio", o.min_ratio, "above 0");
    require(o.max_ratio >= o.min_ratio && std::isfinite(o.max_ratio), "resized_crop", "max_ratio", o.max_ratio,
            "min_ratio or more");
  }
  std::string name() const override { return "resized_crop"; }
  Shape output(const Shape& image) const override { return {height_, width_, image[2]}; }
  void apply(Image& image, Rng& rng) const override {
    const auto h = static_cast<double>(image.height), w = static_cast<double>(image.width);
    const double area = uniform(rng, o_.min_area, o_.max_area) * h * w;
    const double ratio = log_uniform(rng, o_.min_ratio, o_.max_ratio);
    const double width = std::min(w, std::sqrt(area * ratio)), height = std::min(h, std::sqrt(area / ratio));
    const double top = uniform(rng, 0, h - height), left = uniform(rng, 0, w - width);
    image.spare.resize(static_cast<std::size_t>(height_ * width_ * image.channels));
    data::resize_bilinear({image.values.data(), image.height, image.width, image.channels}, {top, left, height, width},
                          image.spare.data(), height_, width_);
    image.values.swap(image.spare);
    image.height = height_;
    image.width = width_;
  }

 private:
  std::int64_t height_, width_;
  ResizedCropOptions o_;
};

}  // namespace

StepPtr flip(double probability) { return std::make_shared<const Flip>(probability, false); }
StepPtr flip_vertical(double probability) { return std::make_shared<const Flip>(probability, true); }
StepPtr shift(std::int64_t most, Border border, float value) {
  return std::make_shared<const Shift>(most, border, value);
}
StepPtr crop(std::int64_t height, std::int64_t width, std::int64_t padding, Border border, float value) {
  return std::make_shared<const Crop>(height, width, padding, border, value);
}
StepPtr affine(const AffineOptions& options) { return std::make_shared<const Affine>(options); }
StepPtr rotate(double degrees, Border border, float value) {
  return affine({.degrees = degrees, .border = border, .value = value});
}
StepPtr resized_crop(std::int64_t height, std::int64_t width, const ResizedCropOptions& options) {
  return std::make_shared<const ResizedCrop>(height, width, options);
}

}  // namespace bp::augment

// Steps that change values where they are: colour, noise, holes, normalising; and those made of other steps.
#include <numbers>

#include "data/augment_steps.h"

namespace bp::augment {

namespace {

float clamped(float v) { return std::clamp(v, 0.0f, 1.0f); }
float grey_of(const float* p) { return 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2]; }

// Turns the colour circle by `turn` (of 1), through hue, saturation and value.
void turn_hue(float* p, float turn) {
  const float high = std::max({p[0], p[1], p[2]}), low = std::min({p[0], p[1], p[2]}), span = high - low;
  if (span <= 0) return;
  float sector = high == p[0]   ? (p[1] - p[2]) / span
                 : high == p[1] ? 2 + (p[2] - p[0]) / span
                                : 4 + (p[0] - p[1]) / span;
  sector += 6 * turn;
  const auto channel = [&](float n) {  // f(n) = v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60) mod 6
    float k = std::fmod(n + sector, 6.0f);
    if (k < 0) k += 6;
    return high - span * std::max(0.0f, std::min({k, 4 - k, 1.0f}));
  };
  const float r = channel(5), g = channel(3), b = channel(1);
  p[0] = r;
  p[1] = g;
  p[2] = b;
}

class Color final : public Step {
 public:
  explicit Color(const ColorOptions& o) : o_(o) {
    require_not_negative(o.brightness, "color", "brightness");
    require_not_negative(o.contrast, "color", "contrast");
    require_not_negative(o.saturation, "color", "saturation");
    require(o.hue >= 0 && o.hue <= 0.5, "color", "hue", o.hue, "0 to 0.5");
  }
  std::string name() const override { return "color"; }
  Shape output(const Shape& image) const override {
    if ((o_.saturation > 0 || o_.hue > 0) && image[2] != 3)
      fail(ErrorKind::shape, "[augment] color: saturation and hue need images of 3 channels, got {}", image);
    return image;
  }
  void apply(Image& image, Rng& rng) const override {
    const auto factor = [&](double by) { return static_cast<float>(uniform(rng, std::max(0.0, 1 - by), 1 + by)); };
    const float brightness = factor(o_.brightness), contrast = factor(o_.contrast), saturation = factor(o_.saturation);
    const auto turn = static_cast<float>(uniform(rng, -o_.hue, o_.hue));
    if (o_.brightness > 0)
      for (float& v : image.values) v = clamped(v * brightness);
    if (o_.contrast > 0) {
      const float mean = mean_grey(image);
      for (float& v : image.values) v = clamped(mean + contrast * (v - mean));
    }
    for (float *p = image.values.data(), *end = p + image.values.size(); o_.saturation > 0 && p < end; p += 3) {
      const float grey = grey_of(p);
      for (int k = 0; k < 3; ++k) p[k] = clamped(grey + saturation * (p[k] - grey));
    }
    for (float *p = image.values.data(), *end = p + image.values.size(); o_.hue > 0 && p < end; p += 3)
      turn_hue(p, turn);
  }

 private:
  static float mean_grey(Image& image) {
    double sum = 0;
    if (image.channels == 3) {
      for (std::size_t i = 0; i < image.values.size(); i += 3) sum += grey_of(image.values.data() + i);
    } else {
      for (const float v : image.values) sum += v;
    }
    const std::int64_t pixels = image.height * image.width * (image.channels == 3 ? 1 : image.channels);
    return static_cast<float>(sum / static_cast<double>(std::max<std::int64_t>(1, pixels)));
  }
  ColorOptions o_;
};

class Noise final : public Step {
 public:
  explicit Noise(double stddev) : stddev_(static_cast<float>(stddev)) {
    require_not_negative(stddev, "noise", "stddev");
  }
  std::string name() const override { return "noise"; }
  // Box and Muller: each pair of uniform numbers makes two normal ones.
  void apply(Image& image, Rng& rng) const override {
    const std::size_t n = image.values.size();
    for (std::size_t i = 0; i < n; i += 2) {
      const float u = (static_cast<float>(rng.bits() >> 8) + 0.5f) * 0x1p-24f;
      const float angle = static_cast<float>(rng.bits() >> 8) * (0x1p-23f * std::numbers::pi_v<float>);
      const float radius = stddev_ * std::sqrt(-2 * std::log(u));
      image.values[i] += radius * std::cos(angle);
      if (i + 1 < n) image.values[i + 1] += radius * std::sin(angle);
    }
  }

 private:
  float stddev_;
};

class Cutout final : public Step {
 public:
  Cutout(std::int64_t size, std::int64_t holes, float value) : size_(size), holes_(holes), value_(value) {
    require(size >= 1, "cutout", "size", static_cast<double>(size), "1 or more");
    require(holes >= 1 && holes <= 1 << 20, "cutout", "holes", static_cast<double>(holes), "1 to 1048576");
  }
  std::string name() const override { return "cutout"; }
  void apply(Image& image, Rng& rng) const override {
    for (std::int64_t k = 0; k < holes_; ++k) {
      const auto y = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.height)));
      const auto x = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.width)));
      fill(image, centred(y, x, size_, size_, image), value_);
    }
  }

 private:
  std::int64_t size_, holes_;
  float value_;
};

class Erase final : public Step {
 public:
  explicit Erase(const EraseOptions& o) : o_(o) {
    require_probability(o.probability, "erase");
    require(o.min_area > 0 && o.min_area <= 1, "erase", "min_area", o.min_area, "above 0, at most 1");
    require(o.max_area >= o.min_area && o.max_area <= 1, "erase", "max_area", o.max_area, "min_area to 1");
    require(o.min_ratio > 0 && std::isfinite(o.min_ratio), "erase", "min_ratio", o.min_ratio, "above 0");
    require(o.max_ratio >= o.min_ratio && std::isfinite(o.max_ratio), "erase", "max_ratio", o.max_ratio,
            "min_ratio or more");
  }
  std::string name() const override { return "erase"; }
  void apply(Image& image, Rng& rng) const override {
    if (rng.uniform() >= o_.probability) return;
    const double area = uniform(rng, o_.min_area, o_.max_area) * static_cast<double>(image.height * image.width);
    const double ratio = log_uniform(rng, o_.min_ratio, o_.max_ratio);
    const auto side = [](double length, std::int64_t most) {
      return std::clamp<std::int64_t>(std::llround(length), 1, most);
    };
    const std::int64_t h = side(std::sqrt(area * ratio), image.height), w = side(std::sqrt(area / ratio), image.width);
    const auto top = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.height - h + 1)));
    const auto left = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.width - w + 1)));
    fill(image, {top, left, top + h, left + w}, o_.value);
  }

 private:
  EraseOptions o_;
};

class Normalize final : public Step {
 public:
  Normalize(const std::vector<float>& mean, const std::vector<float>& stddev) {
    if (mean.empty() || mean.size() != stddev.size())
      fail(ErrorKind::value, "[augment] normalize: {} means and {} deviations: expected as many, one or one a channel",
           mean.size(), stddev.size());
    for (std::size_t c = 0; c < mean.size(); ++c) {
      require(std::isfinite(mean[c]), "normalize", "mean", mean[c], "a finite number");
      require(stddev[c] > 0 && std::isfinite(stddev[c]), "normalize", "stddev", stddev[c], "above 0");
      scale_.push_back(1 / stddev[c]);
      shift_.push_back(-mean[c] / stddev[c]);
    }
  }
  std::string name() const override { return "normalize"; }
  Shape output(const Shape& image) const override {
    if (scale_.size() != 1 && static_cast<std::int64_t>(scale_.size()) != image[2])
      fail(ErrorKind::shape, "[augment] normalize: {} means for images {}: expected 1 or {}", scale_.size(), image,
           image[2]);
    return image;
  }
  void apply(Image& image, Rng&) const override {
    const std::size_t period = scale_.size();
    for (std::size_t c = 0; c < period; ++c)
      for (std::size_t i = c; i < image.values.size(); i += period)
        image.values[i] = image.values[i] * scale_[c] + shift_[c];
  }

 private:
  std::vector<float> scale_, shift_;
};

// None of the steps a pair.
void require_single(const StepPtr& step, const char* in) {
  if (!step) fail(ErrorKind::value, "[augment] {}: a step is missing", in);
  if (dynamic_cast<const Pair*>(step.get()) != nullptr)
    fail(ErrorKind::value, "[augment] {}: {} has a probability of its own and stands by itself", in, step->name());
}

class Sometimes final : public Step {
 public:
  Sometimes(double probability, StepPtr step) : probability_(probability), step_(std::move(step)) {
    require_probability(probability, "sometimes");
    require_single(step_, "sometimes");
  }
  std::string name() const override { return "sometimes " + step_->name(); }
  Shape output(const Shape& image) const override {
    const Shape after = step_->output(image);
    if (after != image)
      fail(ErrorKind::shape, "[augment] {}: changes images {} to {}: expected the same shape always", name(), image,
           after);
    return image;
  }
  void apply(Image& image, Rng& rng) const override {
    if (rng.uniform() < probability_) step_->apply(image, rng);
  }

 private:
  double probability_;
  StepPtr step_;
};

class OneOf final : public Step {
 public:
  explicit OneOf(std::vector<StepPtr> steps) : steps_(std::move(steps)) {
    if (steps_.empty()) fail(ErrorKind::value, "[augment] one_of: expected at least one step");
    for (const StepPtr& s : steps_) require_single(s, "one_of");
  }
  std::string name() const override { return "one_of"; }
  Shape output(const Shape& image) const override {
    const Shape first = steps_[0]->output(image);
    for (const StepPtr& s : steps_)
      if (const Shape other = s->output(image); other != first)
        fail(ErrorKind::shape, "[augment] one_of: {} makes images of {}, {} of {}: expected one shape",
             steps_[0]->name(), first, s->name(), other);
    return first;
  }
  void apply(Image& image, Rng& rng) const override { steps_[rng.below(steps_.size())]->apply(image, rng); }

 private:
  std::vector<StepPtr> steps_;
};

class Custom final : public Step {
 public:
  Custom(std::string name, std::function<void(Image&, Rng&)> f) : name_(std::move(name)), f_(std::move(f)) {
    if (!f_) fail(ErrorKind::value, "[augment] {}: the function is missing", name_);
  }
  std::string name() const override { return name_; }
  void apply(Image& image, Rng& rng) const override { f_(image, rng); }

 private:
  std::string name_;
  std::function<void(Image&, Rng&)> f_;
};

}  // namespace

StepPtr color(const ColorOptions& options) { return std::make_shared<const Color>(options); }
StepPtr noise(double stddev) { return std::make_shared<const Noise>(stddev); }
StepPtr cutout(std::int64_t size, std::int64_t holes, float value) {
  return std::make_shared<const Cutout>(size, holes, value);
}
StepPtr erase(const EraseOptions& options) { return std::make_shared<const Erase>(options); }
StepPtr normalize(std::vector<float> mean, std::vector<float> stddev) {
  return std::make_shared<const Normalize>(mean, stddev);
}
StepPtr sometimes(double probability, StepPtr step) {
  return std::make_shared<const Sometimes>(probability, std::move(step));
}
StepPtr one_of(std::vector<StepPtr> steps) { return std::make_shared<const OneOf>(std::move(steps)); }
StepPtr custom(std::string name, std::function<void(Image&, Rng&)> f) {
  return std::make_shared<const Custom>(std::move(name), std::move(f));
}

}  // namespace bp::augment

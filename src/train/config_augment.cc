// [[augment]]: tables become the steps of a pipeline.
#include "base/error.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using augment::Border;
using augment::StepPtr;

struct Between {
  double low, high;
};
Between between(Section& s, std::string_view key) {
  const std::vector<double> v = s.numbers(key);
  if (v.size() != 2 || v[0] > v[1]) s.wrong(key, "expected two numbers, ascending, got " + s.value(key)->str());
  return {v[0], v[1]};
}

Border border(Section& s) {
  const std::string text = s.text("border");
  return text == "edge" ? Border::edge : text == "reflect" ? Border::reflect : Border::constant;
}

float fill(Section& s) { return static_cast<float>(s.number("value")); }

StepPtr affine(Section& s) {
  const Between scale = between(s, "scale");
  return augment::affine({.degrees = s.number("degrees"),
                          .shift = s.number("shift"),
                          .min_scale = scale.low,
                          .max_scale = scale.high,
                          .shear = s.number("shear"),
                          .border = border(s),
                          .value = fill(s)});
}

StepPtr resized_crop(Section& s, const Shape& image) {
  const Between area = between(s, "area"), ratio = between(s, "ratio");
  return augment::resized_crop(
      image[0], image[1],
      {.min_area = area.low, .max_area = area.high, .min_ratio = ratio.low, .max_ratio = ratio.high});
}

StepPtr erase(Section& s) {
  const Between area = between(s, "area"), ratio = between(s, "ratio");
  return augment::erase({.probability = s.number("probability"),
                         .min_area = area.low,
                         .max_area = area.high,
                         .min_ratio = ratio.low,
                         .max_ratio = ratio.high,
                         .value = fill(s)});
}

StepPtr color(Section& s) {
  return augment::color({.brightness = s.number("brightness"),
                         .contrast = s.number("contrast"),
                         .saturation = s.number("saturation"),
                         .hue = s.number("hue")});
}

StepPtr pair(Section& s, const Config& c) {
  if (c.task != Task::classification)
    s.wrong("type", "targets are mixed as probabilities: expected a loss of classes (cross_entropy, kl_divergence)");
  const double alpha = s.number("alpha"), probability = s.number("probability");
  return s.type() == "mixup" ? augment::mixup(alpha, c.output.back(), probability)
                             : augment::cutmix(alpha, c.output.back(), probability);
}

// Steps that are always done.
StepPtr certain(Section& s, const Shape& image) {
  const std::string& type = s.type();
  if (type == "shift") return augment::shift(s.integer("pixels"), border(s), fill(s));
  if (type == "crop") return augment::crop(image[0], image[1], s.integer("padding"), border(s), fill(s));
  if (type == "rotate") return augment::rotate(s.number("degrees"), border(s), fill(s));
  if (type == "affine") return affine(s);
  if (type == "resized_crop") return resized_crop(s, image);
  if (type == "color") return color(s);
  if (type == "noise") return augment::noise(s.number("stddev"));
  return augment::cutout(s.integer("size"), s.integer("holes"), fill(s));
}

StepPtr step(Section& s, const Config& c) {
  const std::string& type = s.type();
  if (type == "flip") return augment::flip(s.number("probability"));
  if (type == "flip_vertical") return augment::flip_vertical(s.number("probability"));
  if (type == "erase") return erase(s);
  if (type == "mixup" || type == "cutmix") return pair(s, c);
  const double probability = s.number("probability");
  StepPtr made = certain(s, c.input);
  return probability < 1 ? augment::sometimes(probability, std::move(made)) : made;
}

}  // namespace

augment::Pipeline read_augment(Node& steps, const Config& c) {
  std::vector<StepPtr> made;
  for (std::size_t i = 0; i < steps.items.size(); ++i) {
    Section s(steps.items[i], fmt::format("augment[{}]", i), "augment");
    if (c.input.rank() != 3) s.wrong("type", fmt::format("expected model.input = [H, W, C], got {}", c.input));
    try {
      made.push_back(step(s, c));
      (void)augment::Pipeline(made).output(c.input);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::config) throw;
      fail(ErrorKind::config, "{}: {}: {}", s.where(), s.path(), e.what());
    }
  }
  return augment::Pipeline(std::move(made));
}

}  // namespace bp::train

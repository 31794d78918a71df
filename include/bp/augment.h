// Augmentation: images of a training set altered at random while a loader fetches them, on the loader's threads.
//
//   const data::ArrayDataset images(Array::zeros(u8, {64, 28, 28, 1}), Array::zeros(i64, {64}));
//   const augment::Pipeline p{augment::flip(), augment::shift(2), augment::normalize({0.29f}, {0.35f})};
//   data::DataLoader loader(augment::augmented(images, p), {.batch_size = 32, .key = Key{1}, .threads = 2});
//   assert(loader.next()->x.dtype == f32);
//
// Steps run in order, in f32. Every draw depends only on (the loader's key, epoch, row, place of the step): an image
// looks the same whatever the batch, the number of threads, or an interruption. Impossible parameters throw
// Error(value) where the step is made; what does not fit the images throws Error(shape) where the pipeline meets them.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "bp/array.h"
#include "bp/data.h"
#include "bp/rng.h"

namespace bp::augment {

// An image on its way through the steps: values [height, width, channels].
struct Image {
  std::int64_t height = 0, width = 0, channels = 0;  // pixels, pixels, values a pixel
  std::vector<float> values;                         // row-major
  std::vector<float> spare{};  // memory for a step that does not work in place: fill it, then swap it with `values`
  // The `channels` values of a pixel.
  float* pixel(std::int64_t y, std::int64_t x) { return values.data() + (y * width + x) * channels; }
};

// One alteration. Steps of one's own derive from it, or are made by custom().
class Step {
 public:
  virtual ~Step() = default;
  virtual std::string name() const = 0;  // for messages: "flip"
  // Of the result, for images [H, W, C]. Throws Error(shape) for images that it cannot take.
  virtual Shape output(const Shape& image) const { return image; }
  // Called from several threads at once; draws only from `rng`.
  virtual void apply(Image& image, Rng& rng) const = 0;
};
using StepPtr = std::shared_ptr<const Step>;  // how steps are handed around

// What lies outside an image.
enum class Border {
  constant,  // one value in all channels
  edge,      // the nearest pixel
  reflect    // mirrored at the outermost pixel, which is not repeated: c b | a b c | b a
};

// ---- Geometry ---------------------------------------------------------------------------------------------------

StepPtr flip(double probability = 0.5);           // left and right
StepPtr flip_vertical(double probability = 0.5);  // top and bottom
// By whole pixels, each direction uniform in -most .. most.
StepPtr shift(std::int64_t most, Border border = Border::constant, float value = 0);
// A part of height x width from a random place of the image with `padding` pixels around it.
StepPtr crop(std::int64_t height, std::int64_t width, std::int64_t padding = 0, Border border = Border::constant,
             float value = 0);

// What affine() does at most.
struct AffineOptions {
  double degrees = 0;                   // counterclockwise, uniform in -degrees .. degrees
  double shift = 0;                     // pixels, in each direction, uniform in -shift .. shift
  double min_scale = 1, max_scale = 1;  // log-uniform; 2 doubles what is seen
  double shear = 0;                     // degrees along x, uniform in -shear .. shear
  Border border = Border::constant;     // what lies outside of the image
  float value = 0;                      // of Border::constant
};
// Shear, then scale, then rotation about the centre, then shift; bilinear.
StepPtr affine(const AffineOptions& options);
// About the centre, counterclockwise, uniform in -degrees .. degrees; bilinear.
StepPtr rotate(double degrees, Border border = Border::constant, float value = 0);

// Which part resized_crop() takes.
struct ResizedCropOptions {
  double min_area = 0.08, max_area = 1;             // share of the image, uniform
  double min_ratio = 3.0 / 4, max_ratio = 4.0 / 3;  // width / height, log-uniform
};
// A random part stretched to height x width, bilinear (Szegedy et al. 2015).
StepPtr resized_crop(std::int64_t height, std::int64_t width, const ResizedCropOptions& options = {});

// ---- Colour, for values in [0, 1], which they stay in -------------------------------------------------------------

// How far color() goes; 0 leaves a property alone.
struct ColorOptions {
  double brightness = 0;  // v * f, f uniform in [max(0, 1 - b), 1 + b]
  double contrast = 0;    // m + f (v - m), m the mean grey of the image
  double saturation = 0;  // g + f (v - g), g the pixel's grey: 0.299 r + 0.587 g + 0.114 b. Three channels
  double hue = 0;         // turns the colour circle by a share uniform in -hue .. hue, at most 0.5. Three channels
};
// In this order, as torchvision's ColorJitter does in a random one.
StepPtr color(const ColorOptions& options);
StepPtr noise(double stddev);  // adds N(0, stddev^2); not clamped

// ---- Missing parts ------------------------------------------------------------------------------------------------

// Squares of `size` pixels around random pixels, cut at the border (DeVries and Taylor 2017).
StepPtr cutout(std::int64_t size, std::int64_t holes = 1, float value = 0);

// Which rectangle erase() blanks, and how often.
struct EraseOptions {
  double probability = 0.5;                       // of an image to be altered
  double min_area = 0.02, max_area = 0.33;        // share of the image
  double min_ratio = 0.3, max_ratio = 1.0 / 0.3;  // height / width, log-uniform
  float value = 0;                                // what the rectangle is filled with
};
StepPtr erase(const EraseOptions& options = {});  // a rectangle (Zhong et al. 2017)

// ---- Pairs: targets become probabilities [N, classes] f32 ---------------------------------------------------------

// The other image is a random row of the source that went through the steps before. The share l of the image itself is
// drawn from Beta(alpha, alpha); targets are l and 1 - l in their classes. Class ids outside [0, classes) throw
// Error(value). cross_entropy takes such targets; accuracy counts the class of the larger share.
StepPtr mixup(double alpha, std::int64_t classes, double probability = 1);  // l x + (1 - l) x' (Zhang et al. 2017)
// A rectangle of 1 - l of the area comes from the other image; l is then what is left of the image itself (Yun et al.
// 2019).
StepPtr cutmix(double alpha, std::int64_t classes, double probability = 1);

// ---- The rest -----------------------------------------------------------------------------------------------------

// (x - mean) / stddev; one, or one a channel.
StepPtr normalize(std::vector<float> mean, std::vector<float> stddev);
// `step` with this probability, otherwise nothing.
StepPtr sometimes(double probability, StepPtr step);
StepPtr one_of(std::vector<StepPtr> steps);  // any, equally often; none of them a pair
// What `f` makes of an image without changing its shape.
StepPtr custom(std::string name, std::function<void(Image&, Rng&)> f);

// Steps in order: what augmented() puts between a source and a loader.
class Pipeline {
 public:
  Pipeline() = default;
  Pipeline(std::initializer_list<StepPtr> steps) : Pipeline(std::vector<StepPtr>(steps)) {}  // in this order
  explicit Pipeline(std::vector<StepPtr> steps);  // in this order; throws Error(value) for a step that is null

  bool empty() const noexcept { return steps_.empty(); }                 // no steps at all
  const std::vector<StepPtr>& steps() const noexcept { return steps_; }  // in order
  Shape output(const Shape& image) const;  // [H, W, C]; throws Error(shape) naming the step
  // images: [N, H, W, C] of u8 (divided by 255) or floats; the result is f32. Row i draws from key.fold(i). Throws
  // Error(value) when a step makes pairs, which need targets.
  Array operator()(const Array& images, Key key) const;

 private:
  std::vector<StepPtr> steps_;
};

// Rows of `source` through the steps. x: [N, H', W', C], f64 where the source's is, otherwise f32 (u8 divided by 255).
class Augmented final : public data::Source {
 public:
  // Throws Error(shape) when the rows are not images [H, W, C] that the steps take; Error(value) for pairs of a source
  // without class ids.
  Augmented(std::shared_ptr<const data::Source> source, Pipeline pipeline);

  std::int64_t size() const override { return source_->size(); }
  data::Batch fetch(std::span<const std::int64_t> rows, Key key) const override;
  void check_targets(std::int64_t classes, const char* what) const override { source_->check_targets(classes, what); }
  std::string name() const override { return source_->name(); }
  bool reads_forward() const override { return source_->reads_forward(); }

 private:
  struct Sample;
  void through(Sample& sample, std::size_t steps, Key key, Key epoch) const;
  std::shared_ptr<const data::Source> source_;
  Pipeline pipeline_;
  Shape output_;              // of one image
  std::int64_t classes_ = 0;  // of the targets that pairs make; 0: targets stay as they are
};

// Rows of a source or of a dataset through the steps (Augmented); throws as its constructor.
std::shared_ptr<const data::Source> augmented(std::shared_ptr<const data::Source> source, Pipeline pipeline);
std::shared_ptr<const data::Source> augmented(data::ArrayDataset dataset, Pipeline pipeline);

}  // namespace bp::augment

// Pipelines of steps, pairs of images, and the source that a loader reads through them.
#include "bp/augment.h"

#include "data/augment_steps.h"

namespace bp::augment {

// ---- Pairs ----------------------------------------------------------------------------------------------------------

Pair::Pair(double alpha, std::int64_t classes, double probability, const char* step)
    : alpha_(alpha), classes_(classes), probability_(probability) {
  require(alpha > 0 && alpha <= 1e6, step, "alpha", alpha, "above 0, at most 1e6");
  require(classes >= 2 && classes <= 1 << 20, step, "classes", static_cast<double>(classes), "2 to 1048576");
  require_probability(probability, step);
}

void Pair::apply(Image&, Rng&) const {
  fail(ErrorKind::value, "[augment] {}: needs a second image and targets: expected a source of both (augmented())",
       name());
}

namespace {

// Gamma(shape, 1): Marsaglia and Tsang 2000; below 1 by the power of a uniform number.
double gamma(Rng& rng, double shape) {
  if (shape < 1) return gamma(rng, shape + 1) * std::pow(1 - rng.uniform(), 1 / shape);
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = rng.normal(), v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(1 - rng.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

class Mixup final : public Pair {
 public:
  Mixup(double alpha, std::int64_t classes, double probability) : Pair(alpha, classes, probability, "mixup") {}
  std::string name() const override { return "mixup"; }
  double mix(Image& image, Image& other, Rng& rng) const override {
    const double l = share(rng);
    const auto own = static_cast<float>(l);
    for (std::size_t i = 0; i < image.values.size(); ++i)
      image.values[i] = own * image.values[i] + (1 - own) * other.values[i];
    return l;
  }
};

class Cutmix final : public Pair {
 public:
  Cutmix(double alpha, std::int64_t classes, double probability) : Pair(alpha, classes, probability, "cutmix") {}
  std::string name() const override { return "cutmix"; }
  double mix(Image& image, Image& other, Rng& rng) const override {
    const double side = std::sqrt(1 - share(rng));
    const auto length = [&](std::int64_t n) { return static_cast<std::int64_t>(side * static_cast<double>(n)); };
    const auto y = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.height)));
    const auto x = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(image.width)));
    const Box b = centred(y, x, length(image.height), length(image.width), image);
    for (std::int64_t row = b.top; row < b.bottom; ++row)
      std::copy(other.pixel(row, b.left), other.pixel(row, b.left) + (b.right - b.left) * image.channels,
                image.pixel(row, b.left));
    const auto taken = static_cast<double>((b.bottom - b.top) * (b.right - b.left));
    return 1 - taken / static_cast<double>(image.height * image.width);
  }
};

const Pair* pair_of(const StepPtr& step) { return dynamic_cast<const Pair*>(step.get()); }

// Row i of images [N, H, W, C].
void read_image(const Array& images, std::int64_t i, Image& to) {
  to.height = images.shape[1];
  to.width = images.shape[2];
  to.channels = images.shape[3];
  const std::int64_t n = to.height * to.width * to.channels;
  to.values.resize(static_cast<std::size_t>(n));
  dispatch(images.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = images.data<T>() + i * n;
    const float scale = std::is_same_v<T, std::uint8_t> ? 1.0f / 255 : 1.0f;
    for (std::int64_t k = 0; k < n; ++k) to.values[static_cast<std::size_t>(k)] = static_cast<float>(from[k]) * scale;
  });
}

void write_image(const Image& image, const Shape& expected, Array& to, std::int64_t i) {
  const std::int64_t n = expected.numel();
  if (static_cast<std::int64_t>(image.values.size()) != n || image.height != expected[0] || image.width != expected[1])
    fail(ErrorKind::shape, "[augment] a step made an image of {} x {} x {}: expected {}", image.height, image.width,
         image.channels, expected);
  const auto put = [&](auto* out) {
    for (std::int64_t k = 0; k < n; ++k) out[i * n + k] = image.values[static_cast<std::size_t>(k)];
  };
  if (to.dtype == DType::f64) {
    put(to.mutable_data<double>());
  } else {
    put(to.mutable_data<float>());
  }
}

Shape image_shape(const Array& images) {
  if (images.shape.rank() != 4 || !(is_float(images.dtype) || images.dtype == DType::u8))
    fail(ErrorKind::shape, "[augment] expected images [N, H, W, C] of u8 or floats, got {} {}", name_of(images.dtype),
         images.shape);
  return {images.shape[1], images.shape[2], images.shape[3]};
}

Array images_of(std::int64_t n, const Shape& image, DType dtype) {
  return Array::empty(dtype, {n, image[0], image[1], image[2]});
}

}  // namespace

double Pair::share(Rng& rng) const {
  const double a = gamma(rng, alpha_), b = gamma(rng, alpha_);
  return a + b > 0 ? a / (a + b) : 0.5;
}

StepPtr mixup(double alpha, std::int64_t classes, double probability) {
  return std::make_shared<const Mixup>(alpha, classes, probability);
}
StepPtr cutmix(double alpha, std::int64_t classes, double probability) {
  return std::make_shared<const Cutmix>(alpha, classes, probability);
}

// ---- Pipeline -------------------------------------------------------------------------------------------------------

Pipeline::Pipeline(std::vector<StepPtr> steps) : steps_(std::move(steps)) {
  for (std::size_t i = 0; i < steps_.size(); ++i)
    if (!steps_[i]) fail(ErrorKind::value, "[augment] step {} is missing", i);
}

Shape Pipeline::output(const Shape& image) const {
  if (image.rank() != 3 || image.numel() == 0)
    fail(ErrorKind::shape, "[augment] expected images [H, W, C], got {}", image);
  Shape shape = image;
  for (const StepPtr& s : steps_) shape = s->output(shape);
  return shape;
}

Array Pipeline::operator()(const Array& images, Key key) const {
  const Shape after = output(image_shape(images));
  Array out = images_of(images.rows(), after, DType::f32);
  Image image;
  for (std::int64_t i = 0; i < images.rows(); ++i) {
    read_image(images, i, image);
    const Key own = key.fold(static_cast<std::uint64_t>(i));
    for (std::size_t k = 0; k < steps_.size(); ++k) {
      Rng rng(own.fold(k));
      steps_[k]->apply(image, rng);
    }
    write_image(image, after, out, i);
  }
  return out;
}

// ---- Source ---------------------------------------------------------------------------------------------------------

struct Augmented::Sample {
  Image image;
  std::vector<double> target;  // probabilities, where pairs are made
};

Augmented::Augmented(std::shared_ptr<const data::Source> source, Pipeline pipeline)
    : source_(std::move(source)), pipeline_(std::move(pipeline)) {
  if (!source_) fail(ErrorKind::value, "[augment] no source given");
  const std::int64_t first = 0;
  const data::Batch one = source_->fetch({&first, 1}, Key{});
  output_ = pipeline_.output(image_shape(one.x));
  for (const StepPtr& s : pipeline_.steps()) {
    const Pair* pair = pair_of(s);
    if (pair == nullptr) continue;
    if (!one.y.buffer || !is_integer(one.y.dtype) || one.y.shape.rank() != 1)
      fail(ErrorKind::value, "[augment] {}: expected a source with class ids [N] as targets", s->name());
    if (source_->reads_forward())
      fail(ErrorKind::value, "[augment] {}: {} can only be read forward, and a pair is of any two rows: decompress it",
           s->name(), source_->name());
    if (classes_ != 0 && classes_ != pair->classes())
      fail(ErrorKind::value, "[augment] {}: {} classes, {} in the step before: expected the same", s->name(),
           pair->classes(), classes_);
    classes_ = pair->classes();
  }
}

namespace {
std::vector<double> one_hot(const Array& ids, std::int64_t i, std::int64_t classes) {
  std::int64_t id = -1;
  dispatch(ids.dtype, [&](auto zero) { id = static_cast<std::int64_t>(ids.data<decltype(zero)>()[i]); });
  if (id < 0 || id >= classes) fail(ErrorKind::value, "[augment] class {}: expected 0 to {}", id, classes - 1);
  std::vector<double> p(static_cast<std::size_t>(classes), 0.0);
  p[static_cast<std::size_t>(id)] = 1;
  return p;
}
}  // namespace

// The first `steps` steps. `key` belongs to the sample, `epoch` to the epoch.
void Augmented::through(Sample& s, std::size_t steps, Key key, Key epoch) const {
  for (std::size_t k = 0; k < steps; ++k) {
    Rng rng(key.fold(k));
    const Pair* pair = pair_of(pipeline_.steps()[k]);
    if (pair == nullptr) {
      pipeline_.steps()[k]->apply(s.image, rng);
      continue;
    }
    if (rng.uniform() >= pair->probability()) continue;
    const auto row = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(size())));
    const data::Batch one = source_->fetch({&row, 1}, epoch);
    Sample other;
    read_image(one.x, 0, other.image);
    other.target = one_hot(one.y, 0, classes_);
    through(other, k, key.fold("pair").fold(k), epoch);
    const double own = pair->mix(s.image, other.image, rng);
    for (std::size_t c = 0; c < s.target.size(); ++c) s.target[c] = own * s.target[c] + (1 - own) * other.target[c];
  }
}

data::Batch Augmented::fetch(std::span<const std::int64_t> rows, Key key) const {
  const data::Batch in = source_->fetch(rows, key);
  const auto n = static_cast<std::int64_t>(rows.size());
  const DType dtype = in.x.dtype == DType::f64 ? DType::f64 : DType::f32;
  data::Batch out{images_of(n, output_, dtype), in.y};
  std::vector<double> targets;
  Sample s;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = static_cast<std::uint64_t>(rows[static_cast<std::size_t>(i)]);
    read_image(in.x, i, s.image);
    if (classes_ != 0) s.target = one_hot(in.y, i, classes_);
    through(s, pipeline_.steps().size(), key.fold("augment").fold(row), key);
    write_image(s.image, output_, out.x, i);
    targets.insert(targets.end(), s.target.begin(), s.target.end());
  }
  if (classes_ != 0) out.y = convert(Array::from(targets, {n, classes_}), dtype);
  return out;
}

std::shared_ptr<const data::Source> augmented(std::shared_ptr<const data::Source> source, Pipeline pipeline) {
  return std::make_shared<const Augmented>(std::move(source), std::move(pipeline));
}
std::shared_ptr<const data::Source> augmented(data::ArrayDataset dataset, Pipeline pipeline) {
  return augmented(std::make_shared<const data::ArrayDataset>(std::move(dataset)), std::move(pipeline));
}

}  // namespace bp::augment

// Augmentation: steps against images worked out by hand, pairs against their own targets, and the same images whatever
// the batch, the threads or an interruption.
#include "bp/augment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <map>
#include <set>

#include "bp/error.h"
#include "message_of.h"

namespace bp::augment {
namespace {

using data::Batch;
using data::DataLoader;
using ::testing::HasSubstr;
using Values = std::vector<float>;

Values values_of(const Array& a) {
  const auto v = a.values<float>();
  return {v.begin(), v.end()};
}

// One image of one channel through one step.
Values through(const StepPtr& step, const Values& image, std::int64_t height, std::int64_t width, Key key = Key{}) {
  return values_of(Pipeline{step}(Array::from(image, {1, height, width, 1}), key));
}
// What the first step draws for the first image.
Rng draws(Key key) { return Rng(key.fold(0).fold(0)); }

const Values kSix{1, 2, 3,  //
                  4, 5, 6};

TEST(Augment, Flips) {
  EXPECT_EQ(through(flip(1), kSix, 2, 3), (Values{3, 2, 1, 6, 5, 4}));
  EXPECT_EQ(through(flip_vertical(1), kSix, 2, 3), (Values{4, 5, 6, 1, 2, 3}));
  EXPECT_EQ(through(flip_vertical(1), kSix, 3, 2), (Values{5, 6, 3, 4, 1, 2}));
  EXPECT_EQ(through(flip(0), kSix, 2, 3), kSix);
  const Array two = Array::from(Values{1, 2, 3, 4}, {1, 1, 2, 2});  // channels stay together
  EXPECT_EQ(values_of(Pipeline{flip(1)}(two, Key{})), (Values{3, 4, 1, 2}));
  int flipped = 0;
  for (std::uint64_t k = 0; k < 400; ++k) flipped += through(flip(0.25), kSix, 2, 3, Key{k}) != kSix;
  EXPECT_NEAR(flipped, 100, 30);
}

TEST(Augment, ShiftsReachEveryPlace) {
  const Values one{0, 0, 0, 0, 1, 0, 0, 0, 0};
  std::map<std::int64_t, int> seen;
  for (std::uint64_t k = 0; k < 900; ++k) {
    const Values v = through(shift(1, Border::constant, 0), one, 3, 3, Key{k});
    const auto at = std::max_element(v.begin(), v.end()) - v.begin();
    EXPECT_EQ(std::count(v.begin(), v.end(), 1.0f), 1);
    ++seen[at];
  }
  ASSERT_EQ(seen.size(), 9u);
  for (const auto& [at, n] : seen) EXPECT_NEAR(n, 100, 45) << at;
  std::set<Values> rows;
  for (std::uint64_t k = 0; k < 200; ++k) rows.insert(through(shift(2, Border::constant, 9), {1, 2, 3}, 1, 3, Key{k}));
  // Vertical shifts of one row leave only the border.
  EXPECT_EQ(rows, (std::set<Values>{{9, 9, 9}, {1, 2, 3}, {9, 1, 2}, {9, 9, 1}, {2, 3, 9}, {3, 9, 9}}));
  rows.clear();
  for (std::uint64_t k = 0; k < 200; ++k) rows.insert(through(shift(1, Border::edge), {1, 2, 3}, 1, 3, Key{k}));
  EXPECT_EQ(rows, (std::set<Values>{{1, 2, 3}, {1, 1, 2}, {2, 3, 3}}));
  EXPECT_EQ(through(shift(0), kSix, 2, 3), kSix);
}

TEST(Augment, CropsSeeThePadding) {
  EXPECT_EQ(through(crop(4, 5, 1, Border::constant, 7), kSix, 2, 3),
            (Values{7, 7, 7, 7, 7, 7, 1, 2, 3, 7, 7, 4, 5, 6, 7, 7, 7, 7, 7, 7}));
  EXPECT_EQ(through(crop(4, 5, 1, Border::reflect), kSix, 2, 3),
            (Values{5, 4, 5, 6, 5, 2, 1, 2, 3, 2, 5, 4, 5, 6, 5, 2, 1, 2, 3, 2}));
  EXPECT_EQ(through(crop(4, 5, 1, Border::edge), kSix, 2, 3),
            (Values{1, 1, 2, 3, 3, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 4, 4, 5, 6, 6}));
  std::set<Values> parts;
  for (std::uint64_t k = 0; k < 100; ++k) parts.insert(through(crop(1, 2), kSix, 2, 3, Key{k}));
  EXPECT_EQ(parts, (std::set<Values>{{1, 2}, {2, 3}, {4, 5}, {5, 6}}));
}

TEST(Augment, RotationTurnsCounterclockwise) {
  // A key whose first draw is next to 1: all but 90 degrees.
  Key key{};
  for (std::uint64_t k = 0; Rng(draws(key)).uniform() < 0.9999; ++k) key = Key{k};
  const Values right{0, 0, 0, 0, 0, 1, 0, 0, 0};
  const Values turned = through(rotate(90), right, 3, 3, key);
  EXPECT_NEAR(turned[1], 1, 1e-2);  // right has become up
  EXPECT_NEAR(turned[5], 0, 1e-2);
}

// Another way to the same: each output pixel, through complex numbers, from the four around its origin.
TEST(Augment, AffineMapsAsAScalarReference) {
  const std::int64_t h = 5, w = 7;
  Values image;
  for (int i = 0; i < h * w; ++i) image.push_back(static_cast<float>(i * i % 17));
  const AffineOptions o{.degrees = 40, .shift = 2, .min_scale = 0.7, .max_scale = 1.4, .shear = 15, .value = 3};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Values got = through(affine(o), image, h, w, Key{seed});
    Rng rng = draws(Key{seed});
    const auto between = [&](double low, double high) { return low + (high - low) * rng.uniform(); };
    const double degree = std::acos(-1.0) / 180, angle = between(-40, 40) * degree;
    const double scale = std::exp(between(std::log(0.7), std::log(1.4))), shear = std::tan(between(-15, 15) * degree);
    const double dy = between(-2, 2), dx = between(-2, 2);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x) {
        const std::complex<double> to(static_cast<double>(x) - 3 - dx, -(static_cast<double>(y) - 2 - dy));  // y up
        const std::complex<double> from = to / std::polar(scale, angle);
        const double v = -from.imag() + 2, u = from.real() - shear * -from.imag() + 3;
        double expected = 0;
        for (std::int64_t i = 0; i < h; ++i)
          for (std::int64_t j = 0; j < w; ++j)
            expected += (image[static_cast<std::size_t>(i * w + j)] - 3) *
                        std::max(0.0, 1 - std::abs(v - static_cast<double>(i))) *
                        std::max(0.0, 1 - std::abs(u - static_cast<double>(j)));
        EXPECT_NEAR(got[static_cast<std::size_t>(y * w + x)], expected + 3, 1e-4) << seed << " " << y << " " << x;
      }
  }
  EXPECT_EQ(through(affine({}), kSix, 2, 3), kSix);
}

TEST(Augment, ResizedCropsStretch) {
  const ResizedCropOptions all{.min_area = 1, .max_area = 1, .min_ratio = 1.5, .max_ratio = 1.5};
  EXPECT_EQ(through(resized_crop(2, 3, all), kSix, 2, 3), kSix);
  const Values wide = through(resized_crop(2, 6, all), kSix, 2, 3);
  EXPECT_THAT(wide, ::testing::Pointwise(::testing::FloatNear(1e-5f),
                                         Values{1, 1.25, 1.75, 2.25, 2.75, 3, 4, 4.25, 4.75, 5.25, 5.75, 6}));
  // A ramp stays a ramp: its slope tells the part's width.
  Values ramp;
  for (int i = 0; i < 16 * 16; ++i) ramp.push_back(static_cast<float>(i % 16));
  for (std::uint64_t k = 0; k < 50; ++k) {
    const Values v = through(resized_crop(4, 4, {.min_area = 0.25, .max_area = 0.5}), ramp, 16, 16, Key{k});
    const float slope = v[2] - v[1];
    EXPECT_GT(slope, 16 * std::sqrt(0.25 * 0.75) / 4 - 0.1);
    EXPECT_LT(slope, 16 * std::sqrt(0.5 * 4 / 3) / 4 + 0.1);
    EXPECT_LE(v[3], 15);
  }
}

TEST(Augment, BrightnessAndContrast) {
  float low = 2, high = 0;
  for (std::uint64_t k = 0; k < 200; ++k) {
    const Values v = through(color({.brightness = 0.5}), {0.1f, 0.2f, 0.4f, 1.0f}, 2, 2, Key{k});
    const float f = v[0] / 0.1f;
    EXPECT_NEAR(v[1], 0.2f * f, 1e-6);
    EXPECT_NEAR(v[3], std::min(1.0f, f), 1e-6);
    low = std::min(low, f);
    high = std::max(high, f);
  }
  EXPECT_NEAR(low, 0.5, 0.05);
  EXPECT_NEAR(high, 1.5, 0.05);
  const Values v = through(color({.contrast = 1}), {0.4f, 0.4f, 0.6f, 0.6f}, 2, 2, Key{3});
  const float f = (v[2] - v[0]) / 0.2f;
  EXPECT_NEAR(v[0] + v[2], 1, 1e-6);
  EXPECT_GE(f, 0);
  EXPECT_LE(f, 2);
}

TEST(Augment, SaturationAndHue) {
  const auto pixel = [](const StepPtr& step, const Values& rgb, Key key) {
    return values_of(Pipeline{step}(Array::from(rgb, {1, 1, 1, 3}), key));
  };
  const auto grey = [](const Values& p) { return 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2]; };
  const Values rgb{0.5f, 0.4f, 0.3f};
  for (std::uint64_t k = 0; k < 50; ++k) {
    const Values s = pixel(color({.saturation = 0.5}), rgb, Key{k});
    EXPECT_NEAR(grey(s), grey(rgb), 1e-6);
    EXPECT_NEAR((s[0] - s[1]), (s[1] - s[2]), 1e-6);
    // Hue: the largest and the smallest stay, and turning by h moves the circle of six sectors by 6 h.
    Rng rng = draws(Key{k});
    for (int i = 0; i < 3; ++i) (void)rng.uniform();
    const double turn = -0.5 + rng.uniform();
    const Values h = pixel(color({.hue = 0.5}), rgb, Key{k});
    EXPECT_NEAR(std::max({h[0], h[1], h[2]}), 0.5, 1e-6);
    EXPECT_NEAR(std::min({h[0], h[1], h[2]}), 0.3, 1e-6);
    const double sector = std::fmod(0.5 + 6 * turn + 6, 6.0);  // 0.5: between red and yellow
    const double red = std::abs(sector - 3) - 1, green = 2 - std::abs(sector - 2), blue = 2 - std::abs(sector - 4);
    const double share[3] = {red, green, blue};
    for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(h[c], 0.3 + 0.2 * std::clamp(share[c], 0.0, 1.0), 1e-5) << turn;
  }
  EXPECT_EQ(pixel(color({.hue = 0.5}), {0.5f, 0.5f, 0.5f}, Key{1}), (Values{0.5f, 0.5f, 0.5f}));
}

TEST(Augment, NoiseHasItsMoments) {
  const Values v = through(noise(0.5), Values(10001, 1.0f), 73, 137);
  double mean = 0, square = 0;
  for (const float x : v) mean += x / 10001.0;
  for (const float x : v) square += (x - mean) * (x - mean) / 10001;
  EXPECT_NEAR(mean, 1, 0.02);
  EXPECT_NEAR(square, 0.25, 0.01);
  EXPECT_EQ(through(noise(0), kSix, 2, 3), kSix);
}

TEST(Augment, HolesAreCutAtTheBorder) {
  std::set<std::int64_t> sizes;
  for (std::uint64_t k = 0; k < 200; ++k) {
    const Values v = through(cutout(3, 1, -1), Values(25, 1.0f), 5, 5, Key{k});
    const auto n = std::count(v.begin(), v.end(), -1.0f);
    sizes.insert(n);
    if (n == 4) {
      EXPECT_EQ(v[0] + v[4] + v[20] + v[24], 2);  // in one corner
    }
  }
  EXPECT_EQ(sizes, (std::set<std::int64_t>{4, 6, 9}));
  EXPECT_EQ(through(cutout(100), kSix, 2, 3), Values(6, 0.0f));
  int erased = 0;
  for (std::uint64_t k = 0; k < 400; ++k) {
    const Values v = through(erase({.probability = 0.5, .min_area = 0.1, .max_area = 0.2, .value = 2}),
                             Values(400, 1.0f), 20, 20, Key{k});
    const auto n = std::count(v.begin(), v.end(), 2.0f);
    if (n == 0) continue;
    ++erased;
    EXPECT_GE(n, 30);
    EXPECT_LE(n, 95);
  }
  EXPECT_NEAR(erased, 200, 50);
}

TEST(Augment, NormalizesByChannel) {
  const Array x = Array::from(std::vector<std::uint8_t>{0, 51, 255, 102}, {1, 1, 2, 2});
  EXPECT_THAT(values_of(Pipeline{normalize({0.5f, 0.2f}, {0.5f, 0.1f})}(x, Key{})),
              ::testing::Pointwise(::testing::FloatNear(1e-5f), Values{-1, 0, 1, 2}));
}

TEST(Augment, StepsOfSteps) {
  int flips = 0, holes = 0;
  for (std::uint64_t k = 0; k < 300; ++k) {
    const Values v = through(one_of({flip(1), cutout(9)}), kSix, 2, 3, Key{k});
    (v[0] == 3 ? flips : holes) += 1;
  }
  EXPECT_EQ(flips + holes, 300);
  EXPECT_NEAR(flips, 150, 40);
  EXPECT_EQ(through(sometimes(1, flip(1)), kSix, 2, 3), (Values{3, 2, 1, 6, 5, 4}));
  EXPECT_EQ(through(sometimes(0, flip(1)), kSix, 2, 3), kSix);
  const StepPtr twice = custom("twice", [](Image& image, Rng&) {
    for (float& v : image.values) v *= 2;
  });
  EXPECT_EQ(through(twice, {1, 2}, 1, 2), (Values{2, 4}));
}

// ---- as a source ----------------------------------------------------------------------------------------------------

// Image i is 4 x 4 of the value i, its class is i.
data::ArrayDataset flat(std::int64_t n) {
  Values x;
  std::vector<std::int64_t> y;
  for (std::int64_t i = 0; i < n; ++i) {
    x.insert(x.end(), 16, static_cast<float>(i));
    y.push_back(i);
  }
  return data::ArrayDataset(Array::from(x, {n, 4, 4, 1}), Array::from(y, {n}));
}

// Every batch of two epochs, the rows by class.
std::map<std::string, Values> rows_of_epochs(DataLoader& loader) {
  std::map<std::string, Values> rows;
  for (const char* epoch : {"a", "b"})
    for (const auto& [x, y] : loader)
      for (std::int64_t i = 0; i < x.rows(); ++i) {
        const float* from = x.data<float>() + i * 16;
        rows[epoch + std::to_string(y.data<std::int64_t>()[i])] = Values(from, from + 16);
      }
  return rows;
}

TEST(Augmented, AnImageLooksTheSameInEveryBatchAndThread) {
  const Pipeline p{flip(), shift(2), rotate(20), noise(0.1), cutout(2), erase()};
  const auto source = augmented(flat(30), p);
  DataLoader reference(source, {.batch_size = 30, .key = Key{4}, .threads = 0});
  const auto expected = rows_of_epochs(reference);
  EXPECT_EQ(expected.size(), 60u);
  EXPECT_NE(expected.at("a3"), expected.at("b3"));
  for (const int threads : {1, 3, 8}) {
    DataLoader loader(source, {.batch_size = 4 + threads, .key = Key{4}, .drop_last = false, .threads = threads});
    EXPECT_EQ(rows_of_epochs(loader), expected) << threads;
  }
}

TEST(Augmented, ResumesInTheMiddleOfAnEpoch) {
  const auto source = augmented(flat(20), {flip(), noise(1), mixup(0.4, 20)});
  DataLoader whole(source, {.batch_size = 3, .key = Key{2}, .threads = 2});
  for (int i = 0; i < 9; ++i) (void)whole.next();  // 6 batches an epoch and its end
  DataLoader resumed(source, {.batch_size = 3, .key = Key{2}, .threads = 1});
  resumed.restore(whole.state());
  for (int i = 0; i < 3; ++i) {
    const auto a = whole.next(), b = resumed.next();
    ASSERT_TRUE(a && b);
    EXPECT_EQ(values_of(a->x), values_of(b->x));
    EXPECT_EQ(values_of(a->y), values_of(b->y));
  }
}

// Of flat images the mean of a mixed one is the mean of its classes.
TEST(Augmented, PairsMixTargetsAsImages) {
  for (const auto& make : {mixup, cutmix}) {
    const auto source = augmented(flat(10), {make(1, 10, 0.8)});
    DataLoader loader(source, {.batch_size = 10, .key = Key{7}});
    int mixed = 0, seen = 0;
    double own = 0;
    for (int epoch = 0; epoch < 40; ++epoch)
      for (const auto& [x, y] : loader) {
        ASSERT_EQ(y.shape, (Shape{10, 10}));
        for (std::int64_t i = 0; i < 10; ++i, ++seen) {
          const float *p = y.data<float>() + i * 10, *v = x.data<float>() + i * 16;
          double expected = 0, mean = 0, sum = 0;
          for (int c = 0; c < 10; ++c) expected += static_cast<double>(p[c]) * c;
          for (int c = 0; c < 10; ++c) sum += p[c];
          for (int k = 0; k < 16; ++k) mean += static_cast<double>(v[k]) / 16;
          EXPECT_NEAR(mean, expected, 1e-5);
          EXPECT_NEAR(sum, 1, 1e-6);
          const float most = *std::max_element(p, p + 10);
          mixed += most < 1;
          own += most;
        }
      }
    EXPECT_GT(mixed, seen / 3);
    EXPECT_LT(mixed, seen);
    EXPECT_LT(own / seen, 0.95);
  }
}

TEST(Augmented, MixesWhatTheStepsBeforeMade) {
  // Doubled before the pair, one more after it.
  const auto scale = [](float a, float b) {
    return custom("linear", [a, b](Image& image, Rng&) {
      for (float& v : image.values) v = a * v + b;
    });
  };
  const auto source = augmented(flat(6), {scale(2, 0), mixup(1, 6), scale(1, 1)});
  const std::vector<std::int64_t> rows{0, 1, 2, 3, 4, 5};
  const Batch b = source->fetch(rows, Key{9});
  for (std::int64_t i = 0; i < 6; ++i) {
    double expected = 1;
    for (std::int64_t c = 0; c < 6; ++c) expected += 2.0 * static_cast<double>(c * b.y.data<float>()[i * 6 + c]);
    EXPECT_NEAR(b.x.data<float>()[i * 16], expected, 1e-5);
  }
}

TEST(Augmented, BytesAndDoubles) {
  const std::vector<std::int64_t> rows{0};
  const Array bytes = Array::from(std::vector<std::uint8_t>{0, 255, 51, 102}, {1, 2, 2, 1});
  EXPECT_FLOAT_EQ(augmented(data::ArrayDataset(bytes), {flip(1)})->fetch(rows, Key{}).x.values<float>()[0], 1);
  const Array wide = Array::from(std::vector<double>{1, 2, 3, 4}, {1, 2, 2, 1});
  const Batch b = augmented(data::ArrayDataset(wide), {flip(1)})->fetch(rows, Key{});
  EXPECT_EQ(b.x.values<double>()[0], 2);
  EXPECT_FALSE(b.y.buffer);
}

TEST(Augmented, MistakesAreExplained) {
  const auto value = [](const auto& f) { return message_of(ErrorKind::value, f); };
  const auto shape = [](const auto& f) { return message_of(ErrorKind::shape, f); };
  EXPECT_THAT(value([] { flip(1.5); }), HasSubstr("[augment] flip: probability is 1.5: expected 0 to 1"));
  EXPECT_THAT(value([] { flip_vertical(std::nan("")); }), HasSubstr("flip_vertical"));
  EXPECT_THAT(value([] { shift(-1); }), HasSubstr("most is -1"));
  EXPECT_THAT(value([] { crop(0, 3); }), HasSubstr("height is 0"));
  EXPECT_THAT(value([] { affine({.min_scale = 0}); }), HasSubstr("min_scale"));
  EXPECT_THAT(value([] { affine({.shear = 90}); }), HasSubstr("shear"));
  EXPECT_THAT(value([] { rotate(INFINITY); }), HasSubstr("degrees"));
  EXPECT_THAT(value([] { resized_crop(8, 8, {.min_area = 0.9, .max_area = 0.5}); }), HasSubstr("max_area"));
  EXPECT_THAT(value([] { color({.hue = 0.6}); }), HasSubstr("hue is 0.6"));
  EXPECT_THAT(value([] { noise(-1); }), HasSubstr("stddev"));
  EXPECT_THAT(value([] { cutout(0); }), HasSubstr("size is 0"));
  EXPECT_THAT(value([] { erase({.max_area = 2}); }), HasSubstr("max_area"));
  EXPECT_THAT(value([] { mixup(0, 10); }), HasSubstr("alpha is 0"));
  EXPECT_THAT(value([] { cutmix(1, 1); }), HasSubstr("classes is 1"));
  EXPECT_THAT(value([] { normalize({0}, {0}); }), HasSubstr("stddev is 0"));
  EXPECT_THAT(value([] { normalize({0, 1}, {1}); }), HasSubstr("2 means and 1 deviations"));
  EXPECT_THAT(value([] { one_of({}); }), HasSubstr("at least one"));
  EXPECT_THAT(value([] { sometimes(0.5, mixup(1, 10)); }), HasSubstr("stands by itself"));
  EXPECT_THAT(value([] { Pipeline{nullptr}; }), HasSubstr("step 0"));
  EXPECT_THAT(value([] { through(mixup(1, 10), kSix, 2, 3); }), HasSubstr("second image"));
  EXPECT_THAT(value([] { augmented(flat(12), {mixup(1, 10)})->fetch(std::vector<std::int64_t>{11}, Key{}); }),
              HasSubstr("class 11: expected 0 to 9"));
  EXPECT_THAT(value([] { augmented(data::ArrayDataset(flat(3).inputs()), {cutmix(1, 10)}); }), HasSubstr("class ids"));
  EXPECT_THAT(value([] { augmented(flat(3), {mixup(1, 10), cutmix(1, 9)}); }), HasSubstr("9 classes, 10"));

  EXPECT_THAT(shape([] { through(crop(4, 4), kSix, 2, 3); }),
              HasSubstr("4 x 4 pixels do not fit into images [2, 3, 1]"));
  EXPECT_THAT(shape([] { through(shift(2, Border::reflect), kSix, 2, 3); }), HasSubstr("mirror 2 pixels"));
  EXPECT_THAT(shape([] { through(color({.saturation = 1}), kSix, 2, 3); }), HasSubstr("3 channels, got [2, 3, 1]"));
  EXPECT_THAT(shape([] { through(normalize({0, 0}, {1, 1}), kSix, 2, 3); }), HasSubstr("expected 1 or 1"));
  EXPECT_THAT(shape([] { through(sometimes(0.5, crop(1, 1)), kSix, 2, 3); }), HasSubstr("the same shape"));
  EXPECT_THAT(shape([] { through(one_of({flip(), crop(1, 1)}), kSix, 2, 3); }), HasSubstr("expected one shape"));
  EXPECT_THAT(shape([] {
                augmented(data::ArrayDataset(Array::zeros(DType::f32, {3, 4})), {flip()});
              }),
              HasSubstr("expected images [N, H, W, C]"));
  const StepPtr grows = custom("grows", [](Image& image, Rng&) { image.values.push_back(0); });
  EXPECT_THAT(shape([&] { through(grows, kSix, 2, 3); }), HasSubstr("a step made an image"));
}

}  // namespace
}  // namespace bp::augment

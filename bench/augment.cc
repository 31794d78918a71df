// How many images a second one thread augments, step by step, through a source as a loader reads it.
#include <fmt/format.h>

#include <chrono>
#include <numeric>

#include "bp/augment.h"

namespace {

using namespace bp;
using namespace bp::augment;

double images_per_second(const data::Source& source) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(source.size()));
  std::iota(rows.begin(), rows.end(), 0);
  (void)source.fetch(rows, Key{1});
  const auto start = std::chrono::steady_clock::now();
  std::int64_t done = 0;
  double seconds = 0;
  for (std::uint64_t k = 2; seconds < 0.2; ++k) {
    (void)source.fetch(rows, Key{k});
    done += source.size();
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return static_cast<double>(done) / seconds;
}

data::ArrayDataset images(std::int64_t side, std::int64_t channels) {
  Array x = Array::empty(DType::u8, {256, side, side, channels});
  Rng rng(Key{3});
  for (std::int64_t i = 0; i < x.numel(); ++i)
    x.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(rng.bits());
  std::vector<std::int64_t> y(256);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<std::int64_t>(i % 10);
  return data::ArrayDataset(x, Array::from(y, {256})).scaled();
}

}  // namespace

int main() {
  const std::pair<const char*, Pipeline> rows[] = {
      {"nothing", Pipeline{}},
      {"flip", Pipeline{flip(1)}},
      {"shift 2", Pipeline{shift(2)}},
      {"crop, 4 around", Pipeline{shift(4, Border::reflect)}},
      {"affine", Pipeline{affine({.degrees = 15, .shift = 2, .min_scale = 0.9, .max_scale = 1.1, .shear = 5})}},
      {"resized_crop", Pipeline{resized_crop(28, 28)}},
      {"brightness, contrast", Pipeline{color({.brightness = 0.4, .contrast = 0.4})}},
      {"noise", Pipeline{noise(0.1)}},
      {"cutout 8", Pipeline{cutout(8)}},
      {"erase", Pipeline{erase({.probability = 1})}},
      {"mixup", Pipeline{mixup(0.2, 10)}},
      {"cutmix", Pipeline{cutmix(1, 10)}},
      {"flip shift cutout norm", Pipeline{flip(), shift(2), cutout(8), normalize({0.3f}, {0.35f})}},
  };
  fmt::print("images a second on one thread {:>14} {:>14}\n", "28 x 28 x 1", "32 x 32 x 3");
  for (const auto& [name, pipeline] : rows)
    fmt::print("{:<29} {:>14.0f} {:>14.0f}\n", name, images_per_second(*augmented(images(28, 1), pipeline)),
               images_per_second(*augmented(images(32, 3), pipeline)));
  const Pipeline hue{color({.saturation = 0.4, .hue = 0.1})};
  fmt::print("{:<29} {:>14} {:>14.0f}\n", "saturation, hue", "", images_per_second(*augmented(images(32, 3), hue)));
  return 0;
}

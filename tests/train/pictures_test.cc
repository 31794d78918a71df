// Samples as pictures again.
#include "train/pictures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bp::train {
namespace {

using ::testing::ElementsAre;

Config images(const std::string& format, const std::string& input, const std::string& more) {
  return parse_config(parse_toml("[data]\nformat = \"" + format + "\"\ntrain = { inputs = \"x\", targets = \"y\" }\n" +
                                     more + "\n[model]\ninput = " + input +
                                     "\nlayers = [{ type = \"flatten\" }, { type = \"linear\", units = 2 }]\n"
                                     "[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\n",
                                 "net.toml"),
                      "", "net");
}

std::vector<int> pixels(const Array& a) {
  const auto values = a.values<std::uint8_t>();
  return {values.begin(), values.end()};
}

TEST(Pictures, MeanAndDeviationAreUndone) {
  const Config c = images("npy", "[1, 2, 3]", "mean = [0.5, 0.25, 0]\nstd = [0.5, 0.25, 1]");
  const Array x = Array::from(std::vector<float>{9, 9, 9, 9, 9, 9, 1, 3, 0.2f, -1, -1, 0.4f}, {2, 1, 2, 3});
  const std::optional<Array> picture = picture_of(c, x, 1);
  ASSERT_TRUE(picture);
  EXPECT_EQ(picture->shape, (Shape{1, 2, 3}));
  EXPECT_THAT(pixels(*picture), ElementsAre(255, 255, 51, 0, 0, 102));
}

TEST(Pictures, OtherRangesAreStretchedAndNaNIsBlack) {
  const Config c = images("npy", "[1, 3, 1]", "");
  const Array x = Array::from(std::vector<float>{-1, 1, 3}, {1, 1, 3, 1});
  EXPECT_THAT(pixels(*picture_of(c, x, 0)), ElementsAre(0, 128, 255));
  const Array broken = Array::from(std::vector<float>{NAN, 0, 1}, {1, 1, 3, 1});
  EXPECT_EQ(pixels(*picture_of(c, broken, 0))[0], 0);
}

TEST(Pictures, OnlyImagesAreShown) {
  const Array x = Array::zeros(DType::f32, {1, 64});
  EXPECT_EQ(picture_of(images("idx", "[64]", ""), x, 0)->shape, (Shape{8, 8, 1}));
  EXPECT_FALSE(picture_of(images("npy", "[64]", ""), x, 0));
  EXPECT_FALSE(picture_of(images("idx", "[63]", ""), Array::zeros(DType::f32, {1, 63}), 0));
  EXPECT_FALSE(picture_of(images("npy", "[4, 4, 4]", ""), x, 0));
}

TEST(Pictures, AGridHasRowsAndGaps) {
  const Array one = Array::from(std::vector<std::uint8_t>{1, 2}, {1, 2, 1});
  const Array grid = grid_of({one, one, one}, 2);
  EXPECT_EQ(grid.shape, (Shape{3, 5, 1}));
  EXPECT_THAT(pixels(grid), ElementsAre(1, 2, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0));
  EXPECT_EQ(grid_of({one}, 4).shape, (Shape{1, 2, 1}));
}

}  // namespace
}  // namespace bp::train

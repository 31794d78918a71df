// Images: exact pixels of PNG, close ones of JPEG, every way a file can be cut or damaged, sizes that are only claimed.
#include <png.h>

#include <cstdio>
// jpeglib.h wants FILE declared before it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <jpeglib.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "bp/error.h"
#include "bp/images.h"
#include "message_of.h"

namespace bp::io {
namespace {

using ::testing::HasSubstr;
using Values = std::vector<std::uint8_t>;

Bytes elements_of(const Values& v) { return {reinterpret_cast<const std::byte*>(v.data()), v.size()}; }
Values values_of(const Array& a) {
  const auto v = a.values<std::uint8_t>();
  return {v.begin(), v.end()};
}

// Any layout that libpng writes, by its simplified interface: of 8 bits in sRGB.
Values png(std::uint32_t format, std::uint32_t height, std::uint32_t width, const Values& pixels,
           const Values& colormap = {}) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = format;
  image.colormap_entries = static_cast<png_uint_32>(colormap.size() / 3);
  png_alloc_size_t size = 0;
  EXPECT_TRUE(png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, colormap.data()));
  Values out(size);
  EXPECT_TRUE(png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, colormap.data()));
  out.resize(size);
  return out;
}

struct Jpeg {
  int quality = 95;
  bool progressive = false;
  J_COLOR_SPACE space = JCS_RGB;
  int components = 3;
};
Values jpeg(int height, int width, const Values& pixels, const Jpeg& o = {}) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &memory, &size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = o.components;
  info.in_color_space = o.space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, o.quality, TRUE);
  if (o.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < height; ++y) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels.data() + static_cast<std::ptrdiff_t>(y) * width * o.components);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  Values out(memory, memory + size);
  jpeg_destroy_compress(&info);
  std::free(memory);
  return out;
}

// A smooth picture, which JPEG keeps well.
Values smooth(int height, int width, int channels) {
  Values v;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) v.push_back(static_cast<std::uint8_t>(60 + 5 * y + 3 * x + 20 * c));
  return v;
}

const Values kRgb{255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30, 40, 50, 60, 255, 255, 255};  // 2 x 3
const Values kGrey{76, 150, 29, 18, 48, 255};

TEST(Png, PixelsAreExact) {
  const Values rgb = png(PNG_FORMAT_RGB, 2, 3, kRgb);
  const Array image = parse_image(elements_of(rgb), "x.png");
  EXPECT_EQ(image.shape, (Shape{2, 3, 3}));
  EXPECT_EQ(values_of(image), kRgb);
  EXPECT_EQ(values_of(parse_image(elements_of(rgb), "x.png", {.channels = 1})), kGrey);
  const Values grey = png(PNG_FORMAT_GRAY, 2, 3, kGrey);
  EXPECT_EQ(values_of(parse_image(elements_of(grey), "x.png", {.channels = 1})), kGrey);
  const Values three = values_of(parse_image(elements_of(grey), "x.png"));
  for (std::size_t i = 0; i < 18; ++i) EXPECT_EQ(three[i], kGrey[i / 3]);
}

TEST(Png, OtherLayouts) {
  // Transparency is dropped, colours stay.
  EXPECT_EQ(values_of(parse_image(elements_of(png(PNG_FORMAT_RGBA, 1, 2, {1, 2, 3, 255, 4, 5, 6, 128})), "x")),
            (Values{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values_of(parse_image(elements_of(png(PNG_FORMAT_GA, 1, 2, {7, 255, 9, 128})), "x", {.channels = 1})),
            (Values{7, 9}));
  EXPECT_EQ(values_of(parse_image(
                elements_of(png(PNG_FORMAT_RGB_COLORMAP, 1, 3, {1, 0, 1}, {10, 20, 30, 200, 100, 50})), "x")),
            (Values{200, 100, 50, 10, 20, 30, 200, 100, 50}));
}

TEST(Png, WritesWhatItReads) {
  const std::string path = ::testing::TempDir() + "bp_image_test.png";
  for (const std::int64_t channels : {1, 3}) {
    const Values pixels = smooth(7, 5, static_cast<int>(channels));
    write_png(path, Array::from(pixels, {7, 5, channels}));
    EXPECT_EQ(values_of(read_image(path, {.channels = static_cast<int>(channels)})), pixels);
  }
  std::filesystem::remove(path);
  message_of(ErrorKind::dtype, [&] { write_png(path, Array::zeros(DType::f32, {2, 2, 1})); });
  message_of(ErrorKind::shape, [&] { write_png(path, Array::zeros(DType::u8, {2, 2, 2})); });
  message_of(ErrorKind::shape, [&] { write_png(path, Array::zeros(DType::u8, {0, 2, 1})); });
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_THAT(message_of(ErrorKind::io, [&] { read_image(path); }), HasSubstr(path));
}

void expect_near(const Values& got, const Values& expected, int most) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], most) << i;
}

TEST(Jpeg, PixelsAreClose) {
  for (const bool progressive : {false, true}) {
    const Values pixels = smooth(17, 23, 3);
    const Values file = jpeg(17, 23, pixels, {.progressive = progressive});
    const Array image = parse_image(elements_of(file), "x.jpg");
    EXPECT_EQ(image.shape, (Shape{17, 23, 3}));
    expect_near(values_of(image), pixels, 6);
    Values grey;
    for (std::size_t i = 0; i < pixels.size(); i += 3)
      grey.push_back(
          static_cast<std::uint8_t>(std::lround(0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2])));
    expect_near(values_of(parse_image(elements_of(file), "x.jpg", {.channels = 1})), grey, 6);
  }
  const Values grey = smooth(9, 9, 1), file = jpeg(9, 9, grey, {.space = JCS_GRAYSCALE, .components = 1});
  expect_near(values_of(parse_image(elements_of(file), "x", {.channels = 1})), grey, 4);
  Values three;
  for (const std::uint8_t v : grey) three.insert(three.end(), 3, v);
  expect_near(values_of(parse_image(elements_of(file), "x")), three, 4);
}

TEST(Jpeg, FourInks) {
  Values inks;
  for (int i = 0; i < 64; ++i) inks.insert(inks.end(), {30, 60, 90, 51});
  // libjpeg marks CMYK as Adobe's, so the inks count as inverted: 255 is none.
  const Values file = jpeg(8, 8, inks, {.quality = 100, .space = JCS_CMYK, .components = 4});
  const Values rgb = values_of(parse_image(elements_of(file), "x"));
  EXPECT_NEAR(rgb[0], 30 * 51 / 255.0, 2);
  EXPECT_NEAR(rgb[1], 60 * 51 / 255.0, 2);
  EXPECT_NEAR(rgb[2], 90 * 51 / 255.0, 2);
}

TEST(Image, OtherFilesAreNotImages) {
  EXPECT_THAT(message_of(ErrorKind::format, [] { parse_image({}, "x.png"); }), HasSubstr("x.png: the file is empty"));
  EXPECT_THAT(message_of(ErrorKind::format,
                         [] {
                           parse_image(elements_of(Values{'G', 'I', 'F', '8'}), "x.png");
                         }),
              HasSubstr("expected a PNG or JPEG image"));
  const Values one = png(PNG_FORMAT_GRAY, 1, 1, {1});
  message_of(ErrorKind::value, [&] { parse_image(elements_of(one), "x", {.channels = 2}); });
  message_of(ErrorKind::value, [&] { parse_image(elements_of(one), "x", {.max_pixels = 0}); });
}

// Cut at every byte: always an error that names the file.
TEST(Image, EveryTruncationIsFound) {
  for (const Values& file : {png(PNG_FORMAT_RGB, 5, 4, smooth(5, 4, 3)), jpeg(9, 10, smooth(9, 10, 3)),
                             jpeg(9, 10, smooth(9, 10, 3), {.progressive = true})})
    for (std::size_t n = 0; n < file.size(); ++n) {
      const std::string message =
          message_of(ErrorKind::format, [&] { parse_image(elements_of(file).first(n), "cut"); });
      EXPECT_THAT(message, HasSubstr("cut: ")) << n;
    }
}

// What is missing in the middle, before a proper end, is not made up.
TEST(Jpeg, DataThatEndBeforeTheEndAreFound) {
  for (const bool progressive : {false, true}) {
    Values file = jpeg(32, 32, smooth(32, 32, 3), {.progressive = progressive});
    file.resize(file.size() - 20);
    file.insert(file.end(), {0xFF, 0xD9});
    EXPECT_THAT(message_of(ErrorKind::format, [&] { parse_image(elements_of(file), "cut.jpg"); }),
                HasSubstr("cut.jpg: a damaged JPEG image: "));
  }
}

// Every bit flipped: an error or an image of its claimed size, never anything worse. PNG's checksums find all but those
// in chunks that may be left out.
TEST(Image, EveryFlippedBitIsSurvived) {
  for (const Values& original : {png(PNG_FORMAT_RGB, 5, 4, smooth(5, 4, 3)), jpeg(9, 10, smooth(9, 10, 3)),
                                 jpeg(9, 10, smooth(9, 10, 3), {.progressive = true})}) {
    Values file = original;
    for (std::size_t i = 0; i < file.size(); ++i)
      for (int bit = 0; bit < 8; ++bit) {
        file[i] = static_cast<std::uint8_t>(file[i] ^ (1 << bit));
        try {
          const Array image = parse_image(elements_of(file), "x", {.max_pixels = 1 << 16});
          EXPECT_LE(image.shape[0] * image.shape[1], 1 << 16);
        } catch (const Error& e) { EXPECT_EQ(e.kind(), ErrorKind::format); }
        file[i] = original[i];
      }
  }
}

TEST(Image, HugeClaimsAreRefusedBeforeMemoryIsTaken) {
  Values file = png(PNG_FORMAT_GRAY, 1, 1, {1});
  for (std::size_t i = 16; i < 24; ++i) file[i] = i % 4 == 0 ? 0x7f : 0xff;  // width and height: 2^31 - 1
  std::uint32_t crc = 0xffffffff;
  for (std::size_t i = 12; i < 29; ++i) {
    crc ^= file[i];
    for (int k = 0; k < 8; ++k) crc = crc >> 1 ^ (0xEDB88320u & (0 - (crc & 1)));
  }
  for (std::size_t i = 0; i < 4; ++i) file[29 + i] = static_cast<std::uint8_t>(~crc >> (24 - 8 * i));
  EXPECT_THAT(message_of(ErrorKind::format, [&] { parse_image(elements_of(file), "big.png"); }),
              HasSubstr("big.png: claims 2147483647 x 2147483647 pixels: expected at most 67108864"));
  Values large = jpeg(8, 8, smooth(8, 8, 3));
  for (std::size_t i = 0; i + 8 < large.size(); ++i)
    if (large[i] == 0xFF && large[i + 1] == 0xC0)
      std::fill_n(large.begin() + static_cast<std::ptrdiff_t>(i) + 5, 4, 0xFE);
  EXPECT_THAT(message_of(ErrorKind::format, [&] { parse_image(elements_of(large), "big.jpg"); }),
              HasSubstr("big.jpg: claims 65278 x 65278 pixels"));
}

}  // namespace
}  // namespace bp::io

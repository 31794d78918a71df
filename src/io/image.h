// The decoders behind io::read_image. Their libraries report errors by longjmp, so every method that calls one returns
// false instead, holds nothing that a jump would leak, and leaves the reason in message().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "bp/io.h"

namespace bp::io {

class ImageDecoder {
 public:
  virtual ~ImageDecoder() = default;
  virtual const char* format() const noexcept = 0;
  virtual const char* message() const noexcept = 0;
  // Reads as far as the size; `channels` (1 or 3) are wanted.
  virtual bool begin(int channels) = 0;
  std::int64_t height = 0, width = 0;
  int channels = 0;  // of what rows() writes: 1, 3, or 4 for inverted cyan, magenta, yellow, black
  // All rows into `to`, [height, width, channels], and the rest of the file.
  virtual bool rows(std::uint8_t* to) = 0;
};

bool is_png(Bytes bytes) noexcept;
bool is_jpeg(Bytes bytes) noexcept;
// What io::write_png writes; `name` stands for the path in its errors.
std::string encode_png(const Array& image, std::string_view name);
std::unique_ptr<ImageDecoder> png_decoder(Bytes bytes);
std::unique_ptr<ImageDecoder> jpeg_decoder(Bytes bytes);

}  // namespace bp::io

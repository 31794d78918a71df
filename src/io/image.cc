// Images from bytes: which decoder, how large, and how many channels.
#include "io/image.h"

#include "bp/images.h"
#include "io/file.h"

namespace bp::io {

namespace {

std::uint8_t grey_of(unsigned r, unsigned g, unsigned b) {
  return static_cast<std::uint8_t>((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16);
}

// n pixels of one number of channels to another.
void convert_pixels(const std::uint8_t* from, int channels, std::uint8_t* to, int wanted, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i, from += channels, to += wanted) {
    unsigned p[3] = {from[0], from[0], from[0]};
    if (channels >= 3) p[1] = from[1], p[2] = from[2];
    if (channels == 4)
      for (unsigned& v : p) v = (v * from[3] + 127) / 255;
    if (wanted == 1) {
      to[0] = channels == 1 ? from[0] : grey_of(p[0], p[1], p[2]);
    } else {
      for (int c = 0; c < 3; ++c) to[c] = static_cast<std::uint8_t>(p[c]);
    }
  }
}

}  // namespace

Array parse_image(Bytes bytes, std::string_view name, const ImageReadOptions& o) {
  if (o.channels != 1 && o.channels != 3)
    fail(ErrorKind::value, "[image] channels is {}: expected 1 (grey) or 3 (r g b)", o.channels);
  if (o.max_pixels < 1) fail(ErrorKind::value, "[image] max_pixels is {}: expected 1 or more", o.max_pixels);
  if (!is_png(bytes) && !is_jpeg(bytes))
    fail(ErrorKind::format, "{}: {}: expected a PNG or JPEG image", name,
         bytes.empty() ? "the file is empty" : "its first bytes are of neither");
  const std::unique_ptr<ImageDecoder> decoder = is_png(bytes) ? png_decoder(bytes) : jpeg_decoder(bytes);
  ImageDecoder& d = *decoder;
  if (!d.begin(o.channels)) fail(ErrorKind::format, "{}: not a {} image: {}", name, d.format(), d.message());
  if (d.height < 1 || d.width < 1 || d.height > o.max_pixels / d.width)
    fail(ErrorKind::format, "{}: claims {} x {} pixels: expected at most {} (max_pixels)", name, d.height, d.width,
         o.max_pixels);
  Array out = Array::empty(DType::u8, {d.height, d.width, o.channels});
  Array decoded = d.channels == o.channels ? out : Array::empty(DType::u8, {d.height, d.width, d.channels});
  if (!d.rows(decoded.mutable_data<std::uint8_t>()))
    fail(ErrorKind::format, "{}: a damaged {} image: {}", name, d.format(), d.message());
  if (d.channels != o.channels)
    convert_pixels(decoded.data<std::uint8_t>(), d.channels, out.mutable_data<std::uint8_t>(), o.channels,
                   d.height * d.width);
  return out;
}

Array read_image(const std::string& path, const ImageReadOptions& options) {
  const Buffer content = read_file(path, {.max_bytes = std::uint64_t{1} << 30});
  return parse_image(bytes_of(content), path, options);
}

}  // namespace bp::io

// PNG by libpng, whose errors jump.
#include <png.h>

#include <csetjmp>
#include <cstring>

#include "bp/images.h"
#include "io/file.h"
#include "io/image.h"

namespace bp::io {

namespace {

struct Messages {
  char text[160] = "out of memory";
};

extern "C" void on_png_error(png_structp png, png_const_charp text) {
  auto* m = static_cast<Messages*>(png_get_error_ptr(png));
  std::strncpy(m->text, text, sizeof m->text - 1);
  png_longjmp(png, 1);
}
extern "C" void on_png_warning(png_structp, png_const_charp) {}

struct Input {
  Bytes bytes;
  std::size_t at = 0;
};
extern "C" void read_png(png_structp png, png_bytep to, std::size_t n) {
  auto* in = static_cast<Input*>(png_get_io_ptr(png));
  if (n > in->bytes.size() - in->at) png_error(png, "the file ends early");
  std::memcpy(to, in->bytes.data() + in->at, n);
  in->at += n;
}

class PngDecoder final : public ImageDecoder {
 public:
  explicit PngDecoder(Bytes bytes) : in_{bytes} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &messages_, on_png_error, on_png_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngDecoder() override { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;
  const char* format() const noexcept override { return "PNG"; }
  const char* message() const noexcept override { return messages_.text; }

  bool begin(int) override {
    if (info_ == nullptr) return false;
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, &in_, read_png);
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);  // the caller has its own limit
    png_read_info(png_, info_);
    height = png_get_image_height(png_, info_);
    width = png_get_image_width(png_, info_);
    channels = (png_get_color_type(png_, info_) & PNG_COLOR_MASK_COLOR) != 0 ? 3 : 1;
    return true;
  }

  bool rows(std::uint8_t* to) override {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_expand(png_);
    png_set_scale_16(png_);
    png_set_strip_alpha(png_);
    const int passes = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != static_cast<std::size_t>(width * channels)) png_error(png_, "unknown layout");
    for (int pass = 0; pass < passes; ++pass)
      for (std::int64_t y = 0; y < height; ++y) png_read_row(png_, to + y * width * channels, nullptr);
    png_read_end(png_, nullptr);
    return true;
  }

 private:
  Messages messages_;
  Input in_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

extern "C" void write_bytes(png_structp png, png_bytep from, std::size_t n) {
  static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(from), n);
}
extern "C" void flush_bytes(png_structp) {}

// False when libpng cannot; nothing here is lost by its jump.
bool encode(png_structp png, png_infop info, const std::uint8_t* values, std::int64_t height, std::int64_t width,
            int channels, std::string* out) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_write_fn(png, out, write_bytes, flush_bytes);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8,
               channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_BASE,
               PNG_FILTER_TYPE_BASE);
  png_write_info(png, info);
  for (std::int64_t y = 0; y < height; ++y) png_write_row(png, values + y * width * channels);
  png_write_end(png, nullptr);
  return true;
}

}  // namespace

bool is_png(Bytes bytes) noexcept {
  return bytes.size() >= 8 && png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, 8) == 0;
}

std::unique_ptr<ImageDecoder> png_decoder(Bytes bytes) { return std::make_unique<PngDecoder>(bytes); }

std::string encode_png(const Array& image, std::string_view name) {
  if (image.dtype != DType::u8)
    fail(ErrorKind::dtype, "{}: expected an image of u8, got {}", name, name_of(image.dtype));
  constexpr std::int64_t kMost = 0x7fffffff;
  const Shape& s = image.shape;
  if (s.rank() != 3 || (s[2] != 1 && s[2] != 3) || s[0] < 1 || s[1] < 1 || s[0] > kMost || s[1] > kMost)
    fail(ErrorKind::shape, "{}: expected an image [height, width, 1 or 3], got {}", name, s);
  Messages messages;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &messages, on_png_error, on_png_warning);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  std::string out;
  const bool done =
      info != nullptr && encode(png, info, image.data<std::uint8_t>(), s[0], s[1], static_cast<int>(s[2]), &out);
  png_destroy_write_struct(&png, &info);
  if (!done) fail(ErrorKind::value, "{}: cannot encode the image: {}", name, messages.text);
  return out;
}

void write_png(const std::string& path, const Array& image) { write_file(path, encode_png(image, path)); }

}  // namespace bp::io

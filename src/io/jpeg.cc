// JPEG by libjpeg (or its turbo), whose errors jump.
#include <csetjmp>
#include <cstddef>
#include <cstdio>
// jpeglib.h wants size_t and FILE declared before it.
#include <jerror.h>
#include <jpeglib.h>

#include "io/image.h"

namespace bp::io {

namespace {

// What libjpeg calls back with; `base` comes first, so that its address is that of the whole.
struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf place;
  char text[JMSG_LENGTH_MAX] = "out of memory";
};

extern "C" [[noreturn]] void on_jpeg_error(j_common_ptr info) {
  auto* e = reinterpret_cast<Errors*>(info->err);
  (*info->err->format_message)(info, e->text);
  std::longjmp(e->place, 1);
}

// Warnings after which pixels are made up are errors; the others are not shown.
extern "C" void on_jpeg_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC: on_jpeg_error(info);
    default: break;
  }
}
extern "C" void on_jpeg_output(j_common_ptr) {}

// A progressive file may repeat its scans at little cost to itself and much to its reader.
extern "C" void on_jpeg_progress(j_common_ptr info) {
  constexpr int kMostScans = 500;
  if (info->is_decompressor && reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMostScans)
    ERREXIT(info, JERR_BAD_PROGRESSION);
}

class JpegDecoder final : public ImageDecoder {
 public:
  explicit JpegDecoder(Bytes bytes) : bytes_(bytes) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_jpeg_error;
    errors_.base.emit_message = on_jpeg_message;
    errors_.base.output_message = on_jpeg_output;
    progress_.progress_monitor = on_jpeg_progress;
  }
  ~JpegDecoder() override { jpeg_destroy_decompress(&info_); }  // also of one that was never created
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;
  const char* format() const noexcept override { return "JPEG"; }
  const char* message() const noexcept override { return errors_.text; }

  bool begin(int wanted) override {
    channels = wanted;
    if (setjmp(errors_.place) != 0) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_;
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
    jpeg_read_header(&info_, TRUE);
    height = info_.image_height;
    width = info_.image_width;
    const bool four = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    info_.out_color_space = four ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    if (four) channels = 4;
    return true;
  }

  bool rows(std::uint8_t* to) override {
    if (setjmp(errors_.place) != 0) return false;
    jpeg_start_decompress(&info_);
    if (info_.output_components != channels) ERREXIT(&info_, JERR_CONVERSION_NOTIMPL);
    while (info_.output_scanline < info_.output_height) {
      JSAMPROW row = to + static_cast<std::int64_t>(info_.output_scanline) * width * channels;
      jpeg_read_scanlines(&info_, &row, 1);
    }
    // Adobe's programs write the four inks inverted, and say so.
    if (channels == 4 && !info_.saw_Adobe_marker)
      for (std::int64_t i = 0; i < height * width * 4; ++i) to[i] = static_cast<std::uint8_t>(255 - to[i]);
    jpeg_finish_decompress(&info_);
    return true;
  }

 private:
  Bytes bytes_;
  jpeg_decompress_struct info_{};
  jpeg_progress_mgr progress_{};
  Errors errors_{};
};

}  // namespace

bool is_jpeg(Bytes b) noexcept {
  return b.size() >= 3 && b[0] == std::byte{0xFF} && b[1] == std::byte{0xD8} && b[2] == std::byte{0xFF};
}

std::unique_ptr<ImageDecoder> jpeg_decoder(Bytes bytes) { return std::make_unique<JpegDecoder>(bytes); }

}  // namespace bp::io

// Event files: TFRecord framing around messages of TensorFlow's event.proto and summary.proto.
#include "bp/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <system_error>
#include <vector>

#include "io/file.h"
#include "io/image.h"
#include "io/protobuf.h"

namespace bp::io {

namespace {

constexpr std::size_t kMostPending = std::size_t{1} << 20;
constexpr int kBins = 64;

// CRC-32C (Castagnoli), reflected.
constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}

// As TFRecord stores it: a checksum of data that hold checksums would be weak.
std::uint32_t masked_crc(std::string_view data) {
  static constexpr auto kTable = crc_table();
  std::uint32_t c = ~0u;
  for (const char byte : data) c = kTable[(c ^ static_cast<unsigned char>(byte)) & 0xff] ^ (c >> 8);
  c = ~c;
  return (c >> 15 | c << 17) + 0xa282ead8u;
}

template <class T> std::string little_endian(T value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A file of this name that did not exist.
int open_new(const std::string& folder, std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_io("make the folder", folder, error.value());
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  for (int number = 0;; ++number) {
    path = (std::filesystem::path(folder) / fmt::format("events.out.tfevents.{}.{}.{}.{}",
                                                        static_cast<std::int64_t>(wall_time()), host, getpid(), number))
               .string();
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (file >= 0) return file;
    if (errno != EEXIST) fail_io("write", path, errno);
  }
}

// What HistogramProto holds. bucket[i] counts the values in (limit[i - 1], limit[i]].
struct Histogram {
  double min = std::numeric_limits<double>::infinity(), max = -std::numeric_limits<double>::infinity();
  double count = 0, sum = 0, squares = 0;
  std::vector<double> limits, buckets;

  template <class T> void measure(const T* values, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      const auto x = static_cast<double>(values[i]);
      if (!std::isfinite(x)) continue;
      min = std::min(min, x);
      max = std::max(max, x);
      count += 1;
      sum += x;
      squares += x * x;
    }
  }
  template <class T> void fill(const T* values, std::int64_t n) {
    if (count == 0) min = max = 0;
    const int bins = max > min ? kBins : 1;
    const double width = max / bins - min / bins;  // of the largest doubles too
    for (int k = 1; k < bins; ++k) limits.push_back(min + width * k);
    limits.push_back(max);
    buckets.assign(static_cast<std::size_t>(bins), 0);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto x = static_cast<double>(values[i]);
      if (!std::isfinite(x)) continue;
      const double place = width > 0 ? std::ceil(x / width - min / width) - 1 : 0;
      buckets[static_cast<std::size_t>(std::clamp(place, 0.0, bins - 1.0))] += 1;
    }
  }
};

// u8 as they are.
Array as_bytes(const Array& image, std::string_view tag) {
  if (!is_float(image.dtype)) return image;
  const Array values = convert(image, DType::f32);
  Array out = Array::empty(DType::u8, image.shape);
  auto* to = out.mutable_data<std::uint8_t>();
  const float* from = values.data<float>();
  for (std::int64_t i = 0; i < image.numel(); ++i) {
    if (!(from[i] >= 0 && from[i] <= 1))
      fail(ErrorKind::value, "[image] {}: expected values in [0, 1], got {} at element {}", tag, from[i], i);
    to[i] = static_cast<std::uint8_t>(std::lround(255 * from[i]));
  }
  return out;
}

}  // namespace

EventWriter::EventWriter(const std::string& folder, std::int64_t first_step) : file_(open_new(folder, path_)) {
  add(Message().number(1, wall_time()).bytes(3, "brain.Event:2").str());
  constexpr int kStart = 1;
  if (first_step > 0)
    add(Message().number(1, wall_time()).integer(2, first_step).bytes(7, Message().integer(1, kStart).str()).str());
  flush();
}

EventWriter::~EventWriter() {
  try {
    flush();
  } catch (const Error&) {}  // a destructor has nobody to tell
  ::close(file_);
}

void EventWriter::add(std::string_view event) {
  const std::string length = little_endian(std::uint64_t{event.size()});
  pending_ += length;
  pending_ += little_endian(masked_crc(length));
  pending_ += event;
  pending_ += little_endian(masked_crc(event));
  if (pending_.size() > kMostPending) flush();
}

void EventWriter::add_value(std::string_view value, std::int64_t step) {
  add(Message().number(1, wall_time()).integer(2, step).bytes(5, Message().bytes(1, value).str()).str());
}

void EventWriter::scalar(std::string_view tag, double value, std::int64_t step) {
  add_value(Message().bytes(1, tag).single(2, static_cast<float>(value)).str(), step);
}

void EventWriter::histogram(std::string_view tag, const Array& values, std::int64_t step) {
  Histogram h;
  dispatch(values.dtype, [&](auto zero) {
    const auto* p = values.data<decltype(zero)>();
    h.measure(p, values.numel());
    h.fill(p, values.numel());
  });
  const Message histogram = Message()
                                .number(1, h.min)
                                .number(2, h.max)
                                .number(3, h.count)
                                .number(4, h.sum)
                                .number(5, h.squares)
                                .numbers(6, h.limits)
                                .numbers(7, h.buckets);
  add_value(Message().bytes(1, tag).bytes(5, histogram.str()).str(), step);
}

void EventWriter::image(std::string_view tag, const Array& image, std::int64_t step) {
  const std::string png = encode_png(as_bytes(image, tag), tag);
  const Message picture =
      Message().integer(1, image.shape[0]).integer(2, image.shape[1]).integer(3, image.shape[2]).bytes(4, png);
  add_value(Message().bytes(1, tag).bytes(4, picture.str()).str(), step);
}

void EventWriter::text(std::string_view tag, std::string_view text, std::int64_t step) {
  constexpr int kString = 7;  // DT_STRING
  const Message shape = Message().bytes(2, Message().integer(1, 1).str());
  const Message tensor = Message().integer(1, kString).bytes(2, shape.str()).bytes(8, text);
  const Message metadata = Message().bytes(1, Message().bytes(1, "text").str());
  add_value(Message().bytes(1, tag).bytes(9, metadata.str()).bytes(8, tensor.str()).str(), step);
}

void EventWriter::flush() {
  const off_t before = ::lseek(file_, 0, SEEK_END);
  std::size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t n = ::write(file_, pending_.data() + done, pending_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      if (done != 0 && before >= 0) (void)!::ftruncate(file_, before);  // no torn record stays
      pending_.clear();
      fail_io("write", path_, error);
    }
    done += static_cast<std::size_t>(n);
  }
  pending_.clear();
}

}  // namespace bp::io

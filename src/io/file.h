// Open files, system errors turned into advice, gzip, and integers of a given byte order. For the readers of src/io.
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "base/error.h"
#include "bp/io.h"

namespace bp::io {

inline Bytes bytes_of(const Buffer& b) noexcept { return {b.as<std::byte>(), b.bytes()}; }

// Throws Error(io): "cannot <action> <path>: <reason of errno>; <what to do>".
[[noreturn]] void fail_io(std::string_view action, std::string_view path, int error);

// A file open for reading.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  int descriptor() const noexcept { return file_; }
  bool regular() const noexcept { return regular_; }     // otherwise a pipe or device, whose size is unknown
  std::uint64_t size() const noexcept { return size_; }  // of a regular file
  void read_at(std::uint64_t offset, void* to, std::size_t bytes) const;  // all of them, or throws
  std::size_t read_some(void* to, std::size_t bytes) const;               // 0 at the end

 private:
  std::string path_;
  int file_ = -1;
  bool regular_ = false;
  std::uint64_t size_ = 0;
};

bool is_gzip(Bytes bytes) noexcept;
// Decompresses all members; throws Error(format) when they are corrupt or truncated or exceed max_bytes.
Buffer inflate_gzip(Bytes bytes, std::string_view name, std::uint64_t max_bytes);

template <class T> T swap_bytes(T v) noexcept {
  std::array<std::byte, sizeof(T)> b;
  std::memcpy(b.data(), &v, sizeof(T));
  for (std::size_t i = 0; i < sizeof(T) / 2; ++i) std::swap(b[i], b[sizeof(T) - 1 - i]);
  std::memcpy(&v, b.data(), sizeof(T));
  return v;
}

// The T at `from` (any alignment), stored with its most (big) or least significant byte first.
template <class T> T load(const std::byte* from, bool big) noexcept {
  T v;
  std::memcpy(&v, from, sizeof(T));
  return sizeof(T) > 1 && big != (std::endian::native == std::endian::big) ? swap_bytes(v) : v;
}

// Elements of `shape`, or 2^64 - 1 when they (zeros aside) overflow 2^46: what a header claims, before it is believed.
std::uint64_t claimed_elements(const Shape& shape) noexcept;

// The value of an IEEE binary16.
inline float half_to_float(std::uint16_t h) noexcept {
  const std::uint32_t sign = std::uint32_t{h & 0x8000u} << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
  const float v = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -v : v;
}

}  // namespace bp::io

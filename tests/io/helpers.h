// For the tests of readers and writers: a folder that disappears, errors with their text, and systematic damage.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bp/error.h"
#include "bp/io.h"
#include "bp/rng.h"

namespace bp {

class TempDir {
 public:
  TempDir() {
    // In memory where possible: every atomic write waits for the disk.
    const std::filesystem::path memory = "/dev/shm";
    const auto parent = ::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
    std::string pattern = (parent / "bp_test_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(path_)) out.push_back(e.path().filename().string());
    return out;
  }

 private:
  std::filesystem::path path_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spill(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

namespace io {
inline Bytes bytes_of(const std::string& s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }
}  // namespace io

template <class F> void expect_error(ErrorKind kind, const std::string& part, F&& f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one about \"" << part << "\"";
  } catch (const Error& e) {
    EXPECT_STREQ(name_of(e.kind()), name_of(kind)) << e.what();
    EXPECT_THAT(e.what(), testing::HasSubstr(part));
  }
}

// Runs `parse` on every truncation of `valid`, on every byte changed in several ways, and with garbage behind. It must
// return or throw bp::Error(format); returns how many damaged inputs were refused.
template <class Parse> int damage(const std::string& valid, Parse&& parse) {
  int refused = 0;
  const auto run = [&](const std::string& bytes, const char* how, std::size_t at) {
    // An exact heap copy, so that a sanitizer sees every read past the end.
    const std::vector<std::byte> copy(io::bytes_of(bytes).begin(), io::bytes_of(bytes).end());
    try {
      parse(io::Bytes(copy));
    } catch (const Error& e) {
      ++refused;
      EXPECT_EQ(e.kind(), ErrorKind::format) << how << " at " << at << ": " << e.what();
    }
  };
  for (std::size_t n = 0; n < valid.size(); ++n) run(valid.substr(0, n), "truncation", n);
  Rng rng(Key(1));
  for (std::size_t i = 0; i < valid.size(); ++i) {
    for (unsigned change : {0x01u, 0x80u, 0xffu, 1 + static_cast<unsigned>(rng.below(255))}) {
      std::string s = valid;
      s[i] = static_cast<char>(static_cast<unsigned char>(s[i]) ^ change);
      run(s, "change", i);
    }
    for (char c : {'\0', '"', '9', '-', ',', '\n'}) {
      std::string s = valid;
      s[i] = c;
      run(s, "replacement", i);
    }
  }
  run(valid + "x", "garbage", valid.size());
  run(valid + valid, "repetition", valid.size());
  return refused;
}

// Values of any bit pattern that the dtype allows.
inline Array random_array(DType dtype, const Shape& shape, Rng& rng) {
  Array a = Array::empty(dtype, shape);
  auto* b = a.buffer.as_mutable<std::uint8_t>();
  for (std::size_t i = 0; i < a.bytes(); ++i)
    b[i] = static_cast<std::uint8_t>(dtype == DType::boolean ? rng.below(2) : rng.below(256));
  return a;
}

inline Shape random_shape(Rng& rng, int max_rank = 4) {
  Shape s;
  const auto rank = rng.below(static_cast<std::uint64_t>(max_rank) + 1);
  for (std::uint64_t i = 0; i < rank; ++i) s.push_back(static_cast<std::int64_t>(rng.below(5)));
  return s;
}

inline bool same_bits(const Array& a, const Array& b) {
  return a.dtype == b.dtype && a.shape == b.shape &&
         (a.bytes() == 0 || std::memcmp(a.buffer.data(), b.buffer.data(), a.bytes()) == 0);
}

}  // namespace bp

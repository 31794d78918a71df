// What every fuzz target is written with. Each feeds one reader with bytes: under libFuzzer (fuzz/CMakeLists.txt) as a
// program of its own, in the tests all in one program, which replays the kept corpus (replay.cc).
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "bp/error.h"
#include "bp/io.h"

namespace bp::fuzz {

using Target = void (*)(io::Bytes);
// For replay.cc: makes a target known by its name.
struct Registered {
  Registered(const char* name, Target target);
};

[[noreturn]] inline void broken(const char* what) {
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// Runs a reader: true when it took the bytes, false when it refused them. A refusal is an Error and nothing else, and
// not that of an allocation, which would come of a size that was believed.
template <class F> bool accepted(F&& read) {
  try {
    read();
    return true;
  } catch (const Error& e) {
    if (std::string_view(e.what()).starts_with("cannot allocate")) broken(e.what());
    return false;
  }
}

// The bytes as a file, for readers that want a path.
class File {
 public:
  explicit File(io::Bytes bytes, const char* name = "fuzz") : file_(::memfd_create(name, 0)) {
    if (file_ < 0 || ::write(file_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      broken("cannot make a file in memory");
  }
  ~File() { ::close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

inline std::string_view text_of(io::Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace bp::fuzz

#ifdef BP_LIBFUZZER
#define BP_FUZZ_TARGET(name)                                                          \
  static void fuzz_##name(bp::io::Bytes bytes);                                       \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);  \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    fuzz_##name({reinterpret_cast<const std::byte*>(data), size});                    \
    return 0;                                                                         \
  }                                                                                   \
  static void fuzz_##name(bp::io::Bytes bytes)
#else
#define BP_FUZZ_TARGET(name)                                                \
  static void fuzz_##name(bp::io::Bytes bytes);                             \
  static const bp::fuzz::Registered registered_##name(#name, &fuzz_##name); \
  static void fuzz_##name(bp::io::Bytes bytes)
#endif

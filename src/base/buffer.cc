// Aligned shared memory.
#include "bp/buffer.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/pages.h"

namespace bp {

namespace {
constexpr std::size_t kAlign = 64;
}  // namespace

Buffer Buffer::allocate(std::size_t bytes) {
  if (bytes > (std::size_t{1} << 46)) fail(ErrorKind::value, "cannot allocate {} bytes", bytes);
  const std::size_t rounded = (bytes + kReadableBehind + kAlign - 1) / kAlign * kAlign;
  void* memory = std::aligned_alloc(kAlign, rounded);
  if (memory == nullptr) fail(ErrorKind::value, "cannot allocate {} bytes: the system has no more memory", bytes);
  Buffer b;
  b.memory_ = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
  b.bytes_ = bytes;
  return b;
}

Buffer Buffer::wrap(void* data, std::size_t bytes, std::shared_ptr<void> keep_alive) {
  Buffer b;
  b.memory_ = std::shared_ptr<void>(std::move(keep_alive), data);
  b.bytes_ = bytes;
  b.wrapped_ = true;
  return b;
}

Buffer Buffer::clone() const {
  Buffer copy = allocate(bytes_);
  if (bytes_ != 0) std::memcpy(copy.mutable_data(), data(), bytes_);
  return copy;
}

}  // namespace bp

// Aligned shared memory.
#include "bp/buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace bp {

namespace {
constexpr std::size_t kAlign = 64;
constexpr std::size_t kSlack = 64;  // vector loads may read, never use, past the end
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t up_to(std::size_t bytes, std::size_t step) { return (bytes + step - 1) / step * step; }

// Large memory in huge pages where the system has them: walks along columns change pages at each step, and a processor
// drops what it is asked for ahead where it does not know the page. Only whole pages, so that no more memory is taken.
void* allocate_large(std::size_t bytes) {
  void* memory = std::aligned_alloc(kHugePage, up_to(bytes, kHugePage));
#if defined(__linux__)
  if (memory != nullptr)
    ::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // a wish: its answer is no matter
#endif
  return memory;
}
}  // namespace

Buffer Buffer::allocate(std::size_t bytes) {
  if (bytes > (std::size_t{1} << 46)) fail(ErrorKind::value, "cannot allocate {} bytes", bytes);
  const std::size_t rounded = up_to(bytes + kSlack, kAlign);
  void* memory = rounded < 2 * kHugePage ? std::aligned_alloc(kAlign, rounded) : allocate_large(rounded);
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

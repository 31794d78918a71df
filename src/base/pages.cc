#include "base/pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <memory>

#include "base/error.h"

namespace bp {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

namespace {

constexpr std::size_t kPage = std::size_t{2} << 20, kLeast = 2 * kPage;

struct Mapping {
  explicit Mapping(std::size_t size)
      : base(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), bytes(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (base != MAP_FAILED) ::munmap(base, bytes);
  }
  void* base;
  std::size_t bytes;
};

}  // namespace

Buffer allocate_pages(std::size_t bytes) {
  if (bytes < kLeast || bytes > (std::size_t{1} << 46)) return Buffer::allocate(bytes);
  const auto mapping = std::make_shared<Mapping>(bytes + kReadableBehind + kPage);
  if (mapping->base == MAP_FAILED)
    fail(ErrorKind::value, "cannot allocate {} bytes: the system has no more memory", bytes);
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(mapping->base) + kPage - 1) / kPage * kPage;
  auto* const data = reinterpret_cast<void*>(begin);
  ::madvise(data, bytes / kPage * kPage, MADV_HUGEPAGE);  // a wish: without it pages are small
  return Buffer::wrap(data, bytes, mapping);
}

#else

Buffer allocate_pages(std::size_t bytes) { return Buffer::allocate(bytes); }

#endif

}  // namespace bp

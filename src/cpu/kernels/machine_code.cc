#include "cpu/kernels/machine_code.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "base/isa.h"
#include "cpu/kernels/loop_tiles.h"

namespace bp::cpu {

namespace {

// Equal programs give equal code, and a large graph has many of them; each would take a page of its own.
struct CodeCache {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<const MachineCode>, std::less<>> codes;
  std::size_t sweep_at = 64;

  void sweep() {
    if (codes.size() < sweep_at) return;
    std::erase_if(codes, [](const auto& entry) { return entry.second.expired(); });
    sweep_at = 64 + 2 * codes.size();
  }
};
CodeCache& code_cache() {
  static CodeCache cache;
  return cache;
}

}  // namespace

#if defined(BP_MACHINE_CODE)
bool machine_code_wanted() {
  static const bool wanted = [] {
    constexpr std::size_t kLanes = 16;
    const char* off = std::getenv("BP_MACHINE_CODE");
    // Tiles of other vectors (sanitized builds know one instruction set) would sum rows in another order.
    if (running_isa() != Isa::avx512 || tile_lanes() != kLanes || (off != nullptr && std::string_view(off) == "off"))
      return false;
    return MachineCode::make(std::array{std::byte{0xc3}}) != nullptr;  // ret: may memory be executed here?
  }();
  return wanted;
}
#else
bool machine_code_wanted() { return false; }
#endif

std::shared_ptr<const MachineCode> MachineCode::make(std::span<const std::byte> code) {
  CodeCache& cache = code_cache();
  const std::string_view key(reinterpret_cast<const char*>(code.data()), code.size());
  const std::lock_guard lock(cache.mutex);
  if (const auto it = cache.codes.find(key); it != cache.codes.end())
    if (auto known = it->second.lock()) return known;
  void* memory = ::mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::shared_ptr<const MachineCode> made(new MachineCode(memory, code.size()));
  std::memcpy(memory, code.data(), code.size());
  if (::mprotect(memory, code.size(), PROT_READ | PROT_EXEC) != 0) return nullptr;
  cache.sweep();
  cache.codes.insert_or_assign(std::string(key), made);
  return made;
}

MachineCode::~MachineCode() { ::munmap(memory_, bytes_); }

}  // namespace bp::cpu

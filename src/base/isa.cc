// The limit that BP_MAX_ISA sets; see isa.h.
#include "base/isa.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace bp {

namespace {
constexpr const char* kNames[] = {"base", "sse4", "avx2", "avx512"};
}

Isa parse_isa(std::string_view name) {
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return static_cast<Isa>(i);
  fail(ErrorKind::config, "[BP_MAX_ISA] expected base, sse4, avx2 or avx512, got \"{}\"", name);
}

const char* name_of(Isa isa) noexcept { return kNames[static_cast<int>(isa)]; }

Isa max_isa() {
  static const Isa isa = [] {
    const char* name = std::getenv("BP_MAX_ISA");
    return name == nullptr || *name == '\0' ? Isa::avx512 : parse_isa(name);
  }();
  return isa;
}

Isa running_isa() {
  Isa widest = Isa::base;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") != 0) widest = Isa::sse4;
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) widest = Isa::avx2;
  if (__builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0) widest = Isa::avx512;
#endif
  return std::min(widest, max_isa());
}

}  // namespace bp

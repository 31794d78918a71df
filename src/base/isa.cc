// The limit that BP_MAX_ISA sets; see isa.h.
#include "base/isa.h"

#include <cstdlib>

#include "base/error.h"

namespace bp {

Isa parse_isa(std::string_view name) {
  constexpr std::string_view kNames[] = {"base", "sse4", "avx2", "avx512"};
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return static_cast<Isa>(i);
  fail(ErrorKind::config, "[BP_MAX_ISA] expected base, sse4, avx2 or avx512, got \"{}\"", name);
}

Isa max_isa() {
  static const Isa isa = [] {
    const char* name = std::getenv("BP_MAX_ISA");
    return name == nullptr || *name == '\0' ? Isa::avx512 : parse_isa(name);
  }();
  return isa;
}

}  // namespace bp

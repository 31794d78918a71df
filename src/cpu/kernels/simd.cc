// The limit of BP_MAX_ISA on Highway's choice of instruction set; see simd.h.
#include "cpu/kernels/simd.h"

#include <cstdint>
// clang-format off
#include <hwy/highway.h>
// clang-format on

#include "base/isa.h"

namespace bp::cpu {

namespace {

// The instruction sets beyond the limit, as bits of hwy::DisableTargets: a better one has a lower bit.
std::int64_t beyond([[maybe_unused]] Isa isa) {
#if HWY_ARCH_X86
  switch (isa) {
    case Isa::base: return (HWY_SSSE3 << 1) - 1;
    case Isa::sse4: return (HWY_AVX2 << 1) - 1;
    case Isa::avx2: return (HWY_AVX3 << 1) - 1;
    case Isa::avx512: break;
  }
#endif
  return 0;
}

}  // namespace

void limit_simd() {
  [[maybe_unused]] static const bool limited = [] {
    if (const std::int64_t sets = beyond(max_isa())) hwy::DisableTargets(sets);
    return true;
  }();
}

}  // namespace bp::cpu

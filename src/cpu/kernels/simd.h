// Which instruction sets the SIMD kernels are compiled for, and how one is chosen. Include before hwy/highway.h in
// every kernel: the compiler's baseline, SSE4, AVX2 with FMA, AVX-512. The steps between cost binary size and gain
// little.
#pragma once

#include <hwy/detect_compiler_arch.h>

#if HWY_ARCH_X86
// HWY_SSSE3 and HWY_AVX3_DL by number: the names exist only after the target detection that reads this.
#define HWY_DISABLED_TARGETS ((1LL << 12) | (1LL << 7))
#endif

// HWY_DYNAMIC_DISPATCH within the limit of BP_MAX_ISA.
#define BP_SIMD_DISPATCH(function) (::bp::cpu::limit_simd(), HWY_DYNAMIC_DISPATCH(function))

namespace bp::cpu {
// Tells Highway of BP_MAX_ISA, once a process.
void limit_simd();
}  // namespace bp::cpu

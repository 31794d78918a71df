// Which instruction sets the SIMD kernels are compiled for. Include before hwy/highway.h in every kernel: the
// compiler's baseline, SSE4, AVX2 with FMA, AVX-512. The steps between cost binary size and gain little.
#pragma once

#include <hwy/detect_compiler_arch.h>

#if HWY_ARCH_X86
// HWY_SSSE3 and HWY_AVX3_DL by number: the names exist only after the target detection that reads this.
#define HWY_DISABLED_TARGETS ((1LL << 12) | (1LL << 7))
#endif

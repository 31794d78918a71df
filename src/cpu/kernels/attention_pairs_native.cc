// Products of pairs of bf16 by VDPBF16PS, which Highway's instruction sets of this version do not reach.
#include "cpu/kernels/attention_pairs.h"

#include "base/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>
#endif

namespace bp::cpu {

#if defined(__x86_64__)
namespace {

constexpr std::int64_t kNativeLanes = 16;
constexpr int kNativeVectors = 4;

template <int kRows, int kCols>
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void native_pair_product(const TileProduct& s) {
  // Of the last vector only.
  const auto mask = static_cast<__mmask16>((1u << s.tail) - 1);
  __m512 acc[kRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[r][j] = _mm512_setzero_ps();
  const auto* a = static_cast<const char*>(s.a);
  const auto* b = static_cast<const std::uint32_t*>(s.b);
  for (std::int64_t p = 0; p < s.k; ++p, a += 4 * s.a_k, b += s.ldb) {
    __m512bh row[kCols];
#pragma GCC unroll 8
    for (int j = 0; j < kCols - 1; ++j) row[j] = (__m512bh)_mm512_loadu_si512(b + j * kNativeLanes);
    row[kCols - 1] = (__m512bh)_mm512_maskz_loadu_epi32(mask, b + (kCols - 1) * kNativeLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int pair;
      std::memcpy(&pair, a + 4 * r * s.a_row, sizeof pair);
      const auto x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
      for (int j = 0; j < kCols; ++j) acc[r][j] = _mm512_dpbf16_ps(acc[r][j], x, row[j]);
    }
  }
  auto* c = static_cast<float*>(s.out.c);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) {
      float* to = c + r * s.out.ldc + j * kNativeLanes;
      const auto part = j == kCols - 1 ? mask : static_cast<__mmask16>(0xffff);
      const __m512 sum = s.out.accumulate ? _mm512_add_ps(acc[r][j], _mm512_maskz_loadu_ps(part, to)) : acc[r][j];
      if (part == 0xffff)
        _mm512_storeu_ps(to, sum);  // masked stores are slow on Zen
      else
        _mm512_mask_storeu_ps(to, part, sum);
    }
}

template <int kRows, int... kCols> void set_native_row(MicroTable& t, std::integer_sequence<int, kCols...>) {
  ((t.direct[kRows - 1][kCols][0] = t.direct[kRows - 1][kCols][1] = native_pair_product<kRows, kCols + 1>), ...);
}
template <int... kRows> MicroTable native_table(std::integer_sequence<int, kRows...>) {
  MicroTable t;
  (set_native_row<kRows + 1>(t, std::make_integer_sequence<int, kNativeVectors>()), ...);
  t.lanes = kNativeLanes;
  t.vectors = kNativeVectors;
  return t;
}

}  // namespace

const MicroTable* native_pair_products() {
  static const MicroTable table = native_table(std::make_integer_sequence<int, kMicroRows>());
  return running_isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16") != 0 ? &table : nullptr;
}
#else
const MicroTable* native_pair_products() { return nullptr; }
#endif

}  // namespace bp::cpu

// Products of pairs of bf16 by VDPBF16PS, which Highway's instruction sets of this version do not reach.
#include "cpu/kernels/attention_pairs.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>
#endif

namespace bp::cpu {

#if defined(__x86_64__)
namespace {

#define BP_NATIVE_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

constexpr std::int64_t kNativeLanes = 16;
constexpr int kNativeVectors = 4;

template <int kRows, int kCols> BP_NATIVE_BF16 void native_pair_product(const TileProduct& s) {
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

// Numbers of two vectors, rounded, as pairs of one of each.
BP_NATIVE_BF16 inline __m512i native_pairs(__m512 first, __m512 second) {
  // Place i of the first, place i of the second, which stands behind it.
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order =
      _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(0x10001)), _mm512_set1_epi32(kNativeLanes << 16));
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

BP_NATIVE_BF16 void native_pair_keys(const TileView& t, const float* x, std::uint32_t* out) {
  for (std::int64_t j = 0; j < t.keys; j += 2, x += 2 * kTileLd, out += kTileLd)
    for (std::int64_t i = 0; i < t.queries; i += kNativeLanes) {
      // Whether a query of the vector sees the keys.
      const std::int64_t seen = std::min(i + kNativeLanes + t.shift, t.keys);
      const __m512 first = j < seen ? _mm512_loadu_ps(x + i) : _mm512_setzero_ps();
      const __m512 second = j + 1 < seen ? _mm512_loadu_ps(x + kTileLd + i) : _mm512_setzero_ps();
      _mm512_storeu_si512(out + i, native_pairs(first, second));
    }
}

BP_NATIVE_BF16 void native_pair_queries(const TileView& t, const float* x, std::uint32_t* out) {
  for (std::int64_t j = 0; j < t.keys; ++j, x += kTileLd, out += kTileLd / 2)
    for (std::int64_t i = 0; i < t.queries; i += 2 * kNativeLanes)
      _mm512_storeu_si512(out + i / 2,
                          (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + kNativeLanes), _mm512_loadu_ps(x + i)));
}

BP_NATIVE_BF16 void native_narrow(const float* from, std::int64_t n, bfloat16* to) {
  std::int64_t i = 0;
  for (; i + kNativeLanes <= n; i += kNativeLanes)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
  for (; i < n; ++i) to[i] = bfloat16(from[i]);
}

}  // namespace

void take_native_conversions(AttentionBf16& table) {
  if (native_pair_products() == nullptr) return;
  table.pair_keys = native_pair_keys, table.pair_queries = native_pair_queries, table.narrow = native_narrow;
}

const MicroTable* native_pair_products() {
  static const MicroTable table = native_table(std::make_integer_sequence<int, kMicroRows>());
  // Beside tiles of as many lanes only: a build may hold one instruction set, and BP_MAX_ISA another.
  return micro_table(f32).lanes == kNativeLanes && __builtin_cpu_supports("avx512bf16") != 0 ? &table : nullptr;
}
#else
const MicroTable* native_pair_products() { return nullptr; }
void take_native_conversions(AttentionBf16&) {}
#endif

}  // namespace bp::cpu

// Products of pairs of bf16 as two products of f32 each, for every instruction set.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/attention_pairs.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <bit>
#include <cstring>
#include <utility>

#include "cpu/kernels/attention_pairs.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_AVX3
constexpr int kPairVectors = 4;
#else
constexpr int kPairVectors = 2;
#endif

template <int kRows, int kCols, bool kMasked> void pair_product(const TileProduct& s) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto mask = hn::FirstN(d, static_cast<std::size_t>(s.tail));
  const auto upper = hn::Set(du, 0xffff0000u);
  V acc[kRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[r][j] = hn::Zero(d);
  const auto* a = static_cast<const char*>(s.a);
  const auto* b = static_cast<const float*>(s.b);
  for (std::int64_t p = 0; p < s.k; ++p, a += 4 * s.a_k, b += s.ldb) {
    V first[kCols], second[kCols];
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) {
      const V both = kMasked && j == kCols - 1 ? load_first(d, mask, b + j * lanes) : hn::LoadU(d, b + j * lanes);
      first[j] = hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(du, both)));
      second[j] = hn::BitCast(d, hn::And(hn::BitCast(du, both), upper));
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      std::uint32_t pair;
      std::memcpy(&pair, a + 4 * r * s.a_row, sizeof pair);
      const V x = hn::Set(d, std::bit_cast<float>(pair << 16)),
              y = hn::Set(d, std::bit_cast<float>(pair & 0xffff0000u));
#pragma GCC unroll 8
      for (int j = 0; j < kCols; ++j) acc[r][j] = hn::MulAdd(y, second[j], hn::MulAdd(x, first[j], acc[r][j]));
    }
  }
  auto* c = static_cast<float*>(s.out.c);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) {
      float* to = c + r * s.out.ldc + j * lanes;
      if (kMasked && j == kCols - 1)
        hn::BlendedStore(s.out.accumulate ? hn::Add(acc[r][j], load_first(d, mask, to)) : acc[r][j], mask, d, to);
      else
        hn::StoreU(s.out.accumulate ? hn::Add(acc[r][j], hn::LoadU(d, to)) : acc[r][j], d, to);
    }
}

template <int kRows, int... kCols> void set_pair_row(MicroTable& t, std::integer_sequence<int, kCols...>) {
  ((t.direct[kRows - 1][kCols][0] = pair_product<kRows, kCols + 1, false>), ...);
  ((t.direct[kRows - 1][kCols][1] = pair_product<kRows, kCols + 1, true>), ...);
}
template <int... kRows> void set_pairs(MicroTable& t, std::integer_sequence<int, kRows...>) {
  (set_pair_row<kRows + 1>(t, std::make_integer_sequence<int, kPairVectors>()), ...);
}
void fill_pairs(MicroTable& t) {
  set_pairs(t, std::make_integer_sequence<int, kMicroRows>());
  t.lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  t.vectors = kPairVectors;
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_pairs);
const MicroTable& pair_products() {
  static const MicroTable table = [] {
    if (const MicroTable* native = native_pair_products()) return *native;
    MicroTable t;
    BP_SIMD_DISPATCH(fill_pairs)(t);
    return t;
  }();
  return table;
}
}  // namespace bp::cpu
#endif

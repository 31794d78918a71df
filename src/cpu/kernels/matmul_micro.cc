// Register tiles of the matrix product.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/matmul_micro.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_math-inl.h"
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "cpu/kernels/matmul_micro.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

// With 32 registers a tile of 6 x 4 vectors keeps both FMA units busy; 16 registers hold 6 x 2.
#if HWY_TARGET == HWY_AVX3
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif

template <class D, class V> HWY_NOINLINE V activate(D d, V v, Activation activation) {
  return activation == Activation::tanh ? tanh_v(d, v) : sigmoid_v(d, v);
}

// Part of a vector is loaded under a mask only where the tile ends.
template <bool kMasked, class D, class M, class T>
HWY_INLINE hn::Vec<D> load_part(D d, [[maybe_unused]] M mask, const T* p) {
  if constexpr (kMasked)
    return load_first(d, mask, p);
  else
    return hn::LoadU(d, p);
}

// A finished tile on its way to C. Every question is asked once a tile; the loops unroll.
template <class T, int kRows, int kCols, bool kMasked> struct Finish {
  using D = hn::ScalableTag<T>;
  using V = hn::Vec<D>;
  V (&acc)[kRows][kCols];
  hn::Mask<D> mask;
  const TileEpilogue& e;

  // acc = f(acc, row, column, is the last vector)
  template <class F> HWY_INLINE void each(F f) const {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int j = 0; j < kCols - 1; ++j) acc[r][j] = f(acc[r][j], r, j * lanes, std::false_type());
      acc[r][kCols - 1] = f(acc[r][kCols - 1], r, (kCols - 1) * lanes, std::bool_constant<kMasked>());
    }
  }
  HWY_INLINE void add(const T* p, std::int64_t ld) const {
    each([&](V v, int r, std::int64_t j, auto part) {
      return hn::Add(v, load_part<part()>(D(), mask, p + r * ld + j));
    });
  }
  HWY_INLINE void run() const {
    const D d;
    T* c = static_cast<T*>(e.c);
    if (e.accumulate) add(c, e.ldc);
    if (e.bias != nullptr) {
      const T* bias = static_cast<const T*>(e.bias);
      if (e.bias_is_one)
        each([&](V v, int, std::int64_t, auto) { return hn::Add(v, hn::Set(d, *bias)); });
      else
        add(bias, 0);
    }
    if (e.activation == Activation::relu) {
      each([&](V v, int, std::int64_t, auto) { return max_or_second(hn::Zero(d), v); });
    } else if (e.activation != Activation::none) {
      each([&](V v, int, std::int64_t, auto) { return activate(d, v, e.activation); });
    }
    if (e.residual != nullptr) add(static_cast<const T*>(e.residual), e.ldr);
    each([&](V v, int r, std::int64_t j, auto part) {
      if constexpr (part())
        hn::BlendedStore(v, mask, d, c + r * e.ldc + j);
      else
        hn::StoreU(v, d, c + r * e.ldc + j);
      return v;
    });
  }
};

template <class T, int kRows, int kCols, bool kMasked, bool kPacked> void product(const TileProduct& s) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto mask = hn::FirstN(d, static_cast<std::size_t>(s.tail));
  // Unrolled, so that the accumulators are indexed by constants and stay in registers.
  V acc[kRows][kCols];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[r][j] = hn::Zero(d);
  const T* HWY_RESTRICT a = static_cast<const T*>(s.a);
  const T* HWY_RESTRICT b = static_cast<const T*>(s.b);
  const std::int64_t a_row = kPacked ? 1 : s.a_row, a_k = kPacked ? kMicroRows : s.a_k;
  const std::int64_t ldb = kPacked ? kVectors * lanes : s.ldb;
  for (std::int64_t p = 0; p < s.k; ++p, a += a_k, b += ldb) {
    V row[kCols];
#pragma GCC unroll 8
    for (int j = 0; j < kCols - 1; ++j) row[j] = hn::LoadU(d, b + j * lanes);
    row[kCols - 1] = load_part < kMasked && !kPacked > (d, mask, b + (kCols - 1) * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(d, a[r * a_row]);
#pragma GCC unroll 8
      for (int j = 0; j < kCols; ++j) acc[r][j] = hn::MulAdd(x, row[j], acc[r][j]);
    }
  }
  Finish<T, kRows, kCols, kMasked>{acc, mask, s.out}.run();
}

// ---- dot products ----
template <class T> void finish_element(T v, const TileEpilogue& e, std::int64_t at) {
  T* c = static_cast<T*>(e.c) + at * e.ldc;
  if (e.accumulate) v += *c;
  if (e.bias != nullptr) v += static_cast<const T*>(e.bias)[e.bias_is_one ? 0 : at];
  switch (e.activation) {
    case Activation::none: break;
    case Activation::relu: v = v < 0 ? T{0} : v; break;
    case Activation::tanh: v = std::tanh(v); break;
    case Activation::sigmoid: v = v < 0 ? std::exp(v) / (1 + std::exp(v)) : 1 / (1 + std::exp(-v)); break;
  }
  if (e.residual != nullptr) v += static_cast<const T*>(e.residual)[at * e.ldr];
  *c = v;
}

template <class T, int kCount>
HWY_INLINE void dot_group(std::int64_t k, const T* p, std::int64_t ldp, const T* q, T* out) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V acc[kCount];
  for (V& v : acc) v = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= k; i += lanes) {
    const V x = hn::LoadU(d, q + i);
    for (int g = 0; g < kCount; ++g) acc[g] = hn::MulAdd(hn::LoadU(d, p + g * ldp + i), x, acc[g]);
  }
  if (i < k) {
    const auto mask = hn::FirstN(d, static_cast<std::size_t>(k - i));
    const V x = load_first(d, mask, q + i);
    for (int g = 0; g < kCount; ++g) acc[g] = hn::MulAdd(load_first(d, mask, p + g * ldp + i), x, acc[g]);
  }
  for (int g = 0; g < kCount; ++g) out[g] = hn::GetLane(hn::SumOfLanes(d, acc[g]));
}

template <class T>
void dots(std::int64_t count, std::int64_t k, const void* p_, std::int64_t ldp, const void* q_, std::int64_t step,
          const TileEpilogue& e) {
  const T* p = static_cast<const T*>(p_);
  const T* q = static_cast<const T*>(q_);
  T out[8];
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    dot_group<T, 8>(k, p + i * ldp, ldp, q, out);
    for (std::int64_t g = 0; g < 8; ++g) finish_element(out[g], e, (i + g) * step);
  }
  for (; i < count; ++i) {
    dot_group<T, 1>(k, p + i * ldp, ldp, q, out);
    finish_element(out[0], e, i * step);
  }
}

// ---- transposition ----
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
template <class T> constexpr std::int64_t kBlock = 1;
template <class T> HWY_INLINE void transpose_block(const T* src, std::int64_t, T* dst, std::int64_t) { *dst = *src; }
#else
template <class T> constexpr std::int64_t kBlock = 16 / sizeof(T);
HWY_INLINE void transpose_block(const float* src, std::int64_t lds, float* dst, std::int64_t ldd) {
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> d2;
  const auto r0 = hn::LoadU(d, src), r1 = hn::LoadU(d, src + lds), r2 = hn::LoadU(d, src + 2 * lds),
             r3 = hn::LoadU(d, src + 3 * lds);
  const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3));
  const auto up01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1));
  const auto up23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, low01, low23)), d, dst);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23)), d, dst + ldd);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, up01, up23)), d, dst + 2 * ldd);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, up01, up23)), d, dst + 3 * ldd);
}
HWY_INLINE void transpose_block(const double* src, std::int64_t lds, double* dst, std::int64_t ldd) {
  const hn::CappedTag<double, 2> d;
  const auto r0 = hn::LoadU(d, src), r1 = hn::LoadU(d, src + lds);
  hn::StoreU(hn::InterleaveLower(d, r0, r1), d, dst);
  hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, dst + ldd);
}
#endif

template <class T>
void transpose(const void* src_, std::int64_t lds, std::int64_t rows, std::int64_t cols, void* dst_, std::int64_t ldd) {
  const T* src = static_cast<const T*>(src_);
  T* dst = static_cast<T*>(dst_);
  constexpr std::int64_t n = kBlock<T>;
  std::int64_t r = 0;
  for (; r + n <= rows; r += n) {
    std::int64_t c = 0;
    for (; c + n <= cols; c += n) transpose_block(src + r * lds + c, lds, dst + c * ldd + r, ldd);
    for (; c < cols; ++c)
      for (std::int64_t i = r; i < r + n; ++i) dst[c * ldd + i] = src[i * lds + c];
  }
  for (; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) dst[c * ldd + r] = src[r * lds + c];
}

// ---- packing ----
// Whole vectors where the next row overwrites what is too much (masked stores are slow on Zen); the last row ends where
// it ends.
template <class T>
void copy_rows(const void* src_, std::int64_t from_step, std::int64_t count, std::int64_t cols, void* dst_,
               std::int64_t to_step) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const T* src = static_cast<const T*>(src_);
  T* dst = static_cast<T*>(dst_);
  const std::int64_t whole = cols / lanes * lanes, rest = cols - whole;
  const auto m = hn::FirstN(d, static_cast<std::size_t>(rest));
  for (std::int64_t i = 0; i < count; ++i, src += from_step, dst += to_step) {
    for (std::int64_t c = 0; c < whole; c += lanes) hn::StoreU(hn::LoadU(d, src + c), d, dst + c);
    if (rest == 0) continue;
    const auto v = load_first(d, m, src + whole);
    if (i + 1 < count && whole + lanes <= 2 * to_step)
      hn::StoreU(v, d, dst + whole);
    else
      hn::BlendedStore(v, m, d, dst + whole);
  }
}

template <class T, int kRows, int kCols> void set_products(MicroTable& t) {
  t.direct[kRows - 1][kCols - 1][0] = product<T, kRows, kCols, false, false>;
  t.direct[kRows - 1][kCols - 1][1] = product<T, kRows, kCols, true, false>;
  t.packed[kRows - 1][kCols - 1][0] = product<T, kRows, kCols, false, true>;
  t.packed[kRows - 1][kCols - 1][1] = product<T, kRows, kCols, true, true>;
}
template <class T, int kRows, int... kCols> void set_row(MicroTable& t, std::integer_sequence<int, kCols...>) {
  (set_products<T, kRows, kCols + 1>(t), ...);
}
template <class T, int... kRows> void set_all(MicroTable& t, std::integer_sequence<int, kRows...>) {
  (set_row<T, kRows + 1>(t, std::make_integer_sequence<int, kVectors>()), ...);
  t.lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  t.vectors = kVectors;
  t.dots = dots<T>;
  t.copy_rows = copy_rows<T>;
  t.transpose = transpose<T>;
}

void fill_micro(MicroTable& f32_table, MicroTable& f64_table) {
  set_all<float>(f32_table, std::make_integer_sequence<int, kMicroRows>());
  set_all<double>(f64_table, std::make_integer_sequence<int, kMicroRows>());
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_micro);
const MicroTable& micro_table(DType dtype) {
  struct Tables {
    MicroTable f32_table, f64_table;
    Tables() { BP_SIMD_DISPATCH(fill_micro)(f32_table, f64_table); }
  };
  static const Tables tables;
  return dtype == f64 ? tables.f64_table : tables.f32_table;
}
}  // namespace bp::cpu
#endif

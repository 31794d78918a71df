// Tile instructions that reduce: over the columns of each row, and into column accumulators.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/loop_tiles_reduce.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
#include "cpu/kernels/tile_loops-inl.h"
// clang-format on
#include <limits>

#include "cpu/kernels/loop_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

struct Sum {
  template <class T> static constexpr T start() { return 0; }
  template <class T> static constexpr T nothing() { return -T{0}; }  // joined with x, gives x
  template <class D, class V> static HWY_INLINE V join(D, V acc, V x) { return hn::Add(acc, x); }
};
struct Prod {
  template <class T> static constexpr T start() { return 1; }
  template <class D, class V> static HWY_INLINE V join(D, V acc, V x) { return hn::Mul(acc, x); }
};
struct Max {
  template <class T> static constexpr T start() { return -std::numeric_limits<T>::infinity(); }
  template <class T> static constexpr T nothing() { return start<T>(); }
  template <class D, class V> static HWY_INLINE V join(D, V acc, V x) { return nan_max(acc, x); }
};
struct Min {
  template <class T> static constexpr T start() { return std::numeric_limits<T>::infinity(); }
  template <class T> static constexpr T nothing() { return start<T>(); }
  template <class D, class V> static HWY_INLINE V join(D, V acc, V x) { return nan_min(acc, x); }
};

// Folds the lanes of one vector in halves: an order fixed by the vector width.
template <class R, class D, class V> HWY_INLINE hn::TFromD<D> fold([[maybe_unused]] D d, V v) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(d) > 1) {
    const hn::Half<D> half;
    return fold<R>(half, R::join(half, hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
  return hn::GetLane(v);
}

// The element fed to a reduction: a, or a * b for the dot product.
template <bool kDot, class D, class T> HWY_INLINE hn::Vec<D> term(D d, const T* a, const T* b, std::size_t i) {
  const auto x = hn::LoadU(d, a + i);
  if constexpr (kDot) return hn::Mul(x, hn::LoadU(d, b + i));
  return x;
}

// Four independent accumulators of native width: speed, and a depth of n / (4 lanes) roundings.
template <class T, class R, bool kDot>
void reduce_rows(void* dst_, const void* a_, const void* b_, const void*, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* dst = static_cast<T*>(dst_);
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  for (std::size_t r = 0; r < rows; ++r, a += n, b += kDot ? n : 0) {
    const auto start = hn::Set(d, R::template start<T>());
    auto s0 = start, s1 = start, s2 = start, s3 = start;
    std::size_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
      s0 = R::join(d, s0, term<kDot>(d, a, b, i));
      s1 = R::join(d, s1, term<kDot>(d, a, b, i + lanes));
      s2 = R::join(d, s2, term<kDot>(d, a, b, i + 2 * lanes));
      s3 = R::join(d, s3, term<kDot>(d, a, b, i + 3 * lanes));
    }
    for (; i + lanes <= n; i += lanes) s0 = R::join(d, s0, term<kDot>(d, a, b, i));
    if (i < n) {
      const auto m = hn::FirstN(d, n - i);
      auto x = load_first(d, m, a + i);
      if constexpr (kDot) x = hn::Mul(x, load_first(d, m, b + i));
      s1 = R::join(d, s1, hn::IfThenElse(m, x, start));
    }
    dst[r] = fold<R>(d, R::join(d, R::join(d, s0, s1), R::join(d, s2, s3)));
  }
}

// Indices are integers below 2^24, so that the difference is exact where it is not negative.
template <class T>
void pick(void* dst_, const void* a_, const void* b_, const void* c_, std::size_t rows, std::size_t n) {
  T* dst = static_cast<T*>(dst_);
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  const T first = *static_cast<const T*>(c_);
  for (std::size_t r = 0; r < rows; ++r, a += n) {
    const T at = b[r] - first;
    const bool inside = at >= 0 && at < static_cast<T>(n);
    const auto k = inside ? static_cast<std::size_t>(at) : 0;
    dst[r] = inside && static_cast<T>(k) == at ? a[k] + T{0} : T{0};  // a sum of zeros and -0 is +0
  }
}

template <class R, bool kDot, class D, class V> HWY_INLINE V accumulated(D d, V acc, V x, V y, bool row_by_row) {
  if constexpr (kDot) return row_by_row ? R::join(d, acc, hn::Mul(x, y)) : hn::MulAdd(x, y, acc);
  return R::join(d, acc, x);
}

// The rows' terms in kVectors vectors of columns, joined with acc: row after row, or their own result at the end.
template <class R, bool kDot, std::size_t kVectors, class D, class T>
HWY_INLINE void accumulate_columns(D d, T* acc, const T* a, const T* b, std::size_t rows, std::size_t n,
                                   bool row_by_row) {
  const std::size_t lanes = hn::Lanes(d);
  hn::Vec<D> s[kVectors];
#pragma GCC unroll 4
  for (std::size_t k = 0; k < kVectors; ++k)
    s[k] = row_by_row ? hn::LoadU(d, acc + k * lanes) : hn::Set(d, R::template nothing<T>());
  for (std::size_t r = 0; r < rows; ++r, a += n, b += kDot ? n : 0) {
#pragma GCC unroll 4
    for (std::size_t k = 0; k < kVectors; ++k) {
      const auto x = hn::LoadU(d, a + k * lanes);
      s[k] = accumulated<R, kDot>(d, s[k], x, kDot ? hn::LoadU(d, b + k * lanes) : x, row_by_row);
    }
  }
#pragma GCC unroll 4
  for (std::size_t k = 0; k < kVectors; ++k)
    hn::StoreU(row_by_row ? s[k] : R::join(d, hn::LoadU(d, acc + k * lanes), s[k]), d, acc + k * lanes);
}

// The rows of a block are joined in registers: an accumulator is read and written once a block. Rows that
// accumulate_by_row join it one after another, so that machine code may walk along them for the same bits.
template <class T, class R, bool kDot>
void accumulate(void* dst_, const void* a_, const void* b_, const void*, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* dst = static_cast<T*>(dst_);
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  const bool by_row = accumulate_by_row(n);
  if (rows == 0) return;
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) accumulate_columns<R, kDot, 4>(d, dst + i, a + i, b + i, rows, n, by_row);
  for (; i + lanes <= n; i += lanes) accumulate_columns<R, kDot, 1>(d, dst + i, a + i, b + i, rows, n, by_row);
  if (i == n) return;
  const auto m = hn::FirstN(d, n - i);
  auto s = by_row ? load_first(d, m, dst + i) : hn::Set(d, R::template nothing<T>());
  for (std::size_t r = 0; r < rows; ++r) {
    const auto x = load_first(d, m, a + r * n + i);
    s = accumulated<R, kDot>(d, s, x, kDot ? load_first(d, m, b + r * n + i) : x, by_row);
  }
  hn::BlendedStore(by_row ? s : R::join(d, load_first(d, m, dst + i), s), m, d, dst + i);
}

template <class T> void fill(TileTable& t) {
  t.at(tile_op(LoopOp::row_sum), 0) = reduce_rows<T, Sum, false>;
  t.at(tile_op(LoopOp::row_max), 0) = reduce_rows<T, Max, false>;
  t.at(tile_op(LoopOp::row_min), 0) = reduce_rows<T, Min, false>;
  t.at(tile_op(LoopOp::row_prod), 0) = reduce_rows<T, Prod, false>;
  t.at(TileOp::row_dot, 0) = reduce_rows<T, Sum, true>;
  t.at(TileOp::row_pick, 0) = pick<T>;
  t.at(TileOp::column_sum, 0) = accumulate<T, Sum, false>;
  t.at(TileOp::column_max, 0) = accumulate<T, Max, false>;
  t.at(TileOp::column_min, 0) = accumulate<T, Min, false>;
  t.at(TileOp::column_dot, 0) = accumulate<T, Sum, true>;
}

std::size_t float_lanes() { return hn::Lanes(hn::ScalableTag<float>()); }

void fill_reduce(TileTable& f32_table, TileTable& f64_table) {
  fill<float>(f32_table);
  fill<double>(f64_table);
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_reduce);
HWY_EXPORT(float_lanes);
std::size_t tile_lanes() { return BP_SIMD_DISPATCH(float_lanes)(); }
void add_reduce_tiles(TileTable& f32_table, TileTable& f64_table) {
  BP_SIMD_DISPATCH(fill_reduce)(f32_table, f64_table);
}

const TileTable& tile_table(DType compute) {
  struct Tables {
    TileTable f32_table, f64_table;
    Tables() {
      add_basic_tiles(f32_table, f64_table);
      add_math_tiles(f32_table, f64_table);
      add_reduce_tiles(f32_table, f64_table);
    }
  };
  static const Tables tables;
  return compute == f64 ? tables.f64_table : tables.f32_table;
}
}  // namespace bp::cpu
#endif

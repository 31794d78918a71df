// Blocks of columns that stay in L1 with their totals; bandwidth is the limit, so one row at a time will do.
#include "cpu/kernels/reduce_rows.h"

#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/reduce_rows.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <algorithm>

#include "cpu/kernels/share.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using Fold = ReduceRowsSpec::Fold;

constexpr std::int64_t kColumns = 256;  // of a block: its rows, chain and totals are a few KiB
constexpr std::int64_t kChain = 64;     // rows

template <Fold fold, class V> HWY_INLINE V folded(V a, V b) {
  if constexpr (fold == Fold::sum) return hn::Add(a, b);
  if constexpr (fold == Fold::prod) return hn::Mul(a, b);
  if constexpr (fold == Fold::max) return nan_max(a, b);
  if constexpr (fold == Fold::min) return nan_min(a, b);
}

// Folds up to four rows of x into columns [c, n) of chain, as many as fill vectors; returns the first column left.
template <Fold fold, class D, class T>
HWY_INLINE std::int64_t fold_rows(D d, const T* x, std::int64_t stride, std::int64_t rows, std::int64_t c,
                                  std::int64_t n, T* chain) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (; c + lanes <= n; c += lanes) {
    const auto at = [&](std::int64_t r) HWY_ATTR { return hn::LoadU(d, x + r * stride + c); };
    auto v = hn::LoadU(d, chain + c);
    if (rows == 4)
      v = folded<fold>(v, folded<fold>(folded<fold>(at(0), at(1)), folded<fold>(at(2), at(3))));
    else
      for (std::int64_t r = 0; r < rows; ++r) v = folded<fold>(v, at(r));
    hn::StoreU(v, d, chain + c);
  }
  return c;
}

// chain = the fold of `rows` rows of n columns, four rows a turn.
template <Fold fold, class T>
void fold_chain(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n, T* chain) {
  std::copy(x, x + n, chain);
  for (std::int64_t r = 1, here; r < rows; r += here) {
    here = std::min<std::int64_t>(rows - r, 4);
    const T* row = x + r * stride;
    const std::int64_t c = fold_rows<fold>(hn::ScalableTag<T>(), row, stride, here, 0, n, chain);
    fold_rows<fold>(hn::CappedTag<T, 1>(), row, stride, here, c, n, chain);
  }
}

template <Fold fold, class T> void fold_block(const ReduceRowsSpec& s, const T* x, std::int64_t n, T* y) {
  HWY_ALIGN T chain[kColumns];
  HWY_ALIGN double total[kColumns], next[kColumns];
  if (s.rows == 0) return std::fill(y, y + n, static_cast<T>(fold == Fold::prod ? 1 : 0));
  for (std::int64_t r = 0; r < s.rows; r += kChain) {
    const std::int64_t rows = std::min(kChain, s.rows - r);
    fold_chain<fold>(x + r * s.columns, s.columns, rows, n, chain);
    if (rows == s.rows) return void(std::copy(chain, chain + n, y));
    std::copy(chain, chain + n, r == 0 ? total : next);
    if (r > 0) fold_rows<fold>(hn::CappedTag<double, 1>(), next, 0, 1, 0, n, total);
  }
  for (std::int64_t c = 0; c < n; ++c) y[c] = static_cast<T>(total[c]);
}

template <Fold fold, class T> void reduce_as(const ReduceRowsSpec& s, const void* x_, void* y_, int threads) {
  const T* x = static_cast<const T*>(x_);
  T* y = static_cast<T*>(y_);
  const std::int64_t blocks = (s.columns + kColumns - 1) / kColumns;
  share(s.outer * blocks, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t outer = i / blocks, c = i % blocks * kColumns;
      fold_block<fold>(s, x + outer * s.rows * s.columns + c, std::min(kColumns, s.columns - c),
                       y + outer * s.columns + c);
    }
  });
}

using ReduceRowsFn = void (*)(const ReduceRowsSpec&, const void*, void*, int);
template <class T> ReduceRowsFn reduce_rows_of(Fold fold) {
  switch (fold) {
    case Fold::sum: return reduce_as<Fold::sum, T>;
    case Fold::max: return reduce_as<Fold::max, T>;
    case Fold::min: return reduce_as<Fold::min, T>;
    default: return reduce_as<Fold::prod, T>;
  }
}
ReduceRowsFn find_reduce_rows(DType t, Fold fold) {
  return t == f64 ? reduce_rows_of<double>(fold) : reduce_rows_of<float>(fold);
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(find_reduce_rows);

int ReduceRowsSpec::preferred_threads(int most) const {
  const double bytes = static_cast<double>(outer) * static_cast<double>(rows) * static_cast<double>(columns) *
                       static_cast<double>(size_of(dtype));
  return threads_for_bytes(bytes, most);
}

void reduce_rows(const ReduceRowsSpec& spec, const void* x, void* y, int threads) {
  BP_SIMD_DISPATCH(find_reduce_rows)(spec.dtype, spec.fold)(spec, x, y, threads);
}
}  // namespace bp::cpu
#endif

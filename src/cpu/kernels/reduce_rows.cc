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

// chain = the fold of `rows` rows of n columns, four rows a turn.
template <Fold fold, class T>
void fold_chain(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n, T* chain) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::copy(x, x + n, chain);
  for (std::int64_t r = 1; r < rows;) {
    const std::int64_t here = std::min<std::int64_t>(rows - r, 4);
    const T* row = x + r * stride;
    std::int64_t c = 0;
    if (here == 4)
      for (; c + lanes <= n; c += lanes) {
        const auto a = folded<fold>(hn::LoadU(d, row + c), hn::LoadU(d, row + stride + c));
        const auto b = folded<fold>(hn::LoadU(d, row + 2 * stride + c), hn::LoadU(d, row + 3 * stride + c));
        hn::StoreU(folded<fold>(hn::LoadU(d, chain + c), folded<fold>(a, b)), d, chain + c);
      }
    else
      for (; c + lanes <= n; c += lanes) {
        auto a = hn::LoadU(d, chain + c);
        for (std::int64_t k = 0; k < here; ++k) a = folded<fold>(a, hn::LoadU(d, row + k * stride + c));
        hn::StoreU(a, d, chain + c);
      }
    const hn::CappedTag<T, 1> one;
    for (; c < n; ++c) {  // in the order of the vectors, so that a column's place does not change its result
      auto a = hn::LoadU(one, row + c);
      if (here == 4) {
        const auto b = folded<fold>(hn::LoadU(one, row + 2 * stride + c), hn::LoadU(one, row + 3 * stride + c));
        a = folded<fold>(hn::LoadU(one, chain + c), folded<fold>(folded<fold>(a, hn::LoadU(one, row + stride + c)), b));
      } else {
        a = folded<fold>(hn::LoadU(one, chain + c), a);
        for (std::int64_t k = 1; k < here; ++k) a = folded<fold>(a, hn::LoadU(one, row + k * stride + c));
      }
      hn::StoreU(a, one, chain + c);
    }
    r += here;
  }
}

template <Fold fold, class T> void fold_block(const ReduceRowsSpec& s, const T* x, std::int64_t n, T* y) {
  HWY_ALIGN T chain[kColumns];
  HWY_ALIGN double total[kColumns];
  if (s.rows == 0) return std::fill(y, y + n, static_cast<T>(fold == Fold::prod ? 1 : 0));
  for (std::int64_t r = 0; r < s.rows; r += kChain) {
    const std::int64_t rows = std::min(kChain, s.rows - r);
    fold_chain<fold>(x + r * s.columns, s.columns, rows, n, chain);
    if (rows == s.rows) return void(std::copy(chain, chain + n, y));
    for (std::int64_t c = 0; c < n; ++c) {
      const double v = static_cast<double>(chain[c]);
      if (r == 0)
        total[c] = v;
      else if constexpr (fold == Fold::sum)
        total[c] += v;
      else if constexpr (fold == Fold::prod)
        total[c] *= v;
      else if constexpr (fold == Fold::max)
        total[c] = v != v || v > total[c] ? v : total[c];
      else
        total[c] = v != v || v < total[c] ? v : total[c];
    }
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

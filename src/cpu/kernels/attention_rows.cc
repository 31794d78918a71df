// Operations of attention on tiles of scores [keys, queries]: a vector is a few queries, and goes through the keys.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/attention_rows.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_math-inl.h"
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <algorithm>
#include <bit>
#include <limits>

#include "cpu/kernels/attention_pairs.h"
#include "cpu/kernels/attention_rows.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

template <class T> constexpr T kLowest = -std::numeric_limits<T>::infinity();

// exp where no overflow can be.
template <class D, class V> HWY_INLINE V weight_exp(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 4)
    return small_exp(d, x);
  else
    return exp_v(d, x);
}

// The keys of a tile that one vector of queries sees: all of it those below `whole`, some of it those below `part`.
template <class D> struct Column {
  using V = hn::Vec<D>;
  std::int64_t at, whole, part, shift;
  Column(const TileView& t, std::int64_t first) : at(first), shift(t.shift) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
    whole = std::clamp<std::int64_t>(first + shift + 1, 0, t.keys);
    part = std::clamp<std::int64_t>(first + lanes + shift, 0, t.keys);
  }
  // Which lanes see key j of [whole, part).
  hn::Mask<D> seen(std::int64_t j) const {
    const auto hidden = static_cast<std::size_t>(std::max<std::int64_t>(j - shift - at, 0));
    return hn::Not(hn::FirstN(D(), hidden));
  }
};

template <class D, class F> HWY_INLINE void each_column(D d, const TileView& t, F f) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < t.queries; i += lanes) f(Column<D>(t, i));
}

template <class T> void scale_add(const TileView& t, T* x, const T* added, T factor) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor);
  each_column(d, t, [&](const auto& c) {
    for (std::int64_t at = c.at, end = c.at + c.part * kTileLd; at < end; at += kTileLd)
      hn::StoreU(hn::MulAdd(f, hn::LoadU(d, x + at), hn::LoadU(d, added + at)), d, x + at);
  });
}

// The largest of what a vector of queries sees, and `top`.
template <class D, class T> HWY_INLINE hn::Vec<D> highest(D d, const Column<D>& c, const T* x, hn::Vec<D> top) {
  const auto low = hn::Set(d, kLowest<T>);
  auto a = low, b = low;
  std::int64_t j = 0;
  for (; j + 2 <= c.whole; j += 2) {
    a = max_or_second(a, hn::LoadU(d, x + j * kTileLd));
    b = max_or_second(b, hn::LoadU(d, x + (j + 1) * kTileLd));
  }
  if (j < c.whole) a = max_or_second(a, hn::LoadU(d, x + j * kTileLd));
  for (j = c.whole; j < c.part; ++j)
    b = max_or_second(b, hn::IfThenElse(c.seen(j), hn::LoadU(d, x + j * kTileLd), low));
  return max_or_second(max_or_second(a, b), top);
}

// x = exp(x f - minus); returns the sum.
template <class D, class T>
HWY_INLINE hn::Vec<D> exp_column(D d, const Column<D>& c, T* x, hn::Vec<D> f, hn::Vec<D> minus) {
  const auto weight = [&](std::int64_t j) {
    return weight_exp(d, hn::MulSub(hn::LoadU(d, x + j * kTileLd), f, minus));
  };
  auto sum = hn::Zero(d);
  for (std::int64_t j = 0; j < c.whole; ++j) {
    const auto e = weight(j);
    hn::StoreU(e, d, x + j * kTileLd);
    sum = hn::Add(sum, e);
  }
  for (std::int64_t j = c.whole; j < c.part; ++j) {
    const auto e = hn::IfThenElseZero(c.seen(j), weight(j));
    hn::StoreU(e, d, x + j * kTileLd);
    sum = hn::Add(sum, e);
  }
  return sum;
}

template <class T> void soften(const TileView& t, T* x, T factor, const SoftmaxState<T>& s) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor), low = hn::Set(d, kLowest<T>);
  each_column(d, t, [&](const auto& c) {
    if (c.part == 0) return;
    const auto before = hn::LoadU(d, s.top + c.at), total = hn::LoadU(d, s.total + c.at);
    const auto largest = highest(d, c, x + c.at, low);
    // No key seen by a lane: 0 times -inf would be NaN.
    const auto top = max_or_second(before, hn::IfThenElse(hn::Eq(largest, low), low, hn::Mul(largest, f)));
    // Nothing seen so far: any finite number will do, and a NaN among the scores still shows in the sum.
    const auto minus = hn::IfThenElse(hn::Eq(top, low), hn::Zero(d), top);
    const auto sum = exp_column(d, c, x + c.at, f, minus);
    hn::StoreU(top, d, s.top + c.at);
    if (hn::AllTrue(d, hn::Eq(total, hn::Zero(d)))) {
      hn::StoreU(sum, d, s.total + c.at);
      return;
    }
    const auto down = weight_exp(d, hn::Sub(before, minus));
    hn::StoreU(hn::MulAdd(total, down, sum), d, s.total + c.at);
    if (hn::AllTrue(d, hn::Eq(before, top))) return;
    T* sums = s.sums + c.at;
    for (std::int64_t v = 0; v < s.values; ++v, sums += kTileLd) hn::StoreU(hn::Mul(down, hn::LoadU(d, sums)), d, sums);
  });
}

template <class T> void finish(std::int64_t queries, const SoftmaxState<T>& s, T nothing, T* lse) {
  const hn::ScalableTag<T> d;
  const auto zero = hn::Zero(d);
  for (std::int64_t i = 0; i < queries; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    const auto total = hn::LoadU(d, s.total + i);
    const auto none = hn::Eq(total, zero);
    hn::StoreU(hn::IfThenElse(none, hn::Set(d, nothing), hn::Add(hn::LoadU(d, s.top + i), log_v(d, total))), d,
               lse + i);
    const auto factor = hn::IfThenElse(none, zero, hn::Div(hn::Set(d, T{1}), total));
    T* sums = s.sums + i;
    for (std::int64_t v = 0; v < s.values; ++v, sums += kTileLd)
      hn::StoreU(hn::Mul(factor, hn::LoadU(d, sums)), d, sums);
  }
}

template <class T> void thin(const TileView& t, T* x, const T* bits, T below, T factor) {
  const hn::ScalableTag<T> d;
  const auto b = hn::Set(d, below), f = hn::Set(d, factor);
  each_column(d, t, [&](const auto& c) {
    for (std::int64_t at = c.at, end = c.at + c.part * kTileLd; at < end; at += kTileLd) {
      const auto kept = hn::Lt(hn::LoadU(d, bits + at), b);
      hn::StoreU(hn::IfThenElseZero(kept, hn::Mul(f, hn::LoadU(d, x + at))), d, x + at);
    }
  });
}

template <class T> void weights_grad(const TileView& t, T* p, T* dw, T factor, const T* lse, const T* delta, T scale) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor), s = hn::Set(d, scale), zero = hn::Zero(d);
  each_column(d, t, [&](const auto& c) {
    const auto minus = hn::LoadU(d, lse + c.at), centre = hn::LoadU(d, delta + c.at);
    const auto weight = [&](std::int64_t at) { return weight_exp(d, hn::MulSub(hn::LoadU(d, p + at), f, minus)); };
    const auto store = [&](std::int64_t at, auto w, auto ds) {
      hn::StoreU(w, d, p + at);
      hn::StoreU(ds, d, dw + at);
    };
    std::int64_t j = 0, at = c.at;
    for (; j < c.whole; ++j, at += kTileLd) {
      const auto w = weight(at);
      store(at, w, hn::Mul(hn::Mul(w, s), hn::Sub(hn::LoadU(d, dw + at), centre)));
    }
    for (; j < c.part; ++j, at += kTileLd) {
      const auto seen = c.seen(j);
      const auto w = hn::IfThenElseZero(seen, weight(at));
      store(at, w, hn::IfThenElseZero(seen, hn::Mul(hn::Mul(w, s), hn::Sub(hn::LoadU(d, dw + at), centre))));
    }
    for (; j < t.keys; ++j, at += kTileLd) store(at, zero, zero);
  });
}

template <class T> HWY_INLINE T dot(const T* a, const T* b, std::int64_t n) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  if (i < n) {
    const auto m = hn::FirstN(d, static_cast<std::size_t>(n - i));
    sum = hn::MulAdd(load_first(d, m, a + i), load_first(d, m, b + i), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T> void dots(const T* a, const T* b, std::int64_t ld, std::int64_t count, std::int64_t n, T* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = dot(a + i * ld, b + i * ld, n);
}

// ---- bf16 ----

using U32 = hn::ScalableTag<std::uint32_t>;

// f32 rounded to bf16, in the lower halves.
template <class D> HWY_INLINE hn::Vec<U32> rounded(D d, hn::Vec<D> x) {
  return hn::ShiftRight<16>(hn::BitCast(U32(), round_to_bf16(d, x)));
}

void pair_keys(const TileView& t, const float* x, std::uint32_t* out) {
  const hn::ScalableTag<float> d;
  each_column(d, t, [&](const auto& c) {
    std::uint32_t* to = out + c.at;
    for (std::int64_t j = 0; j < t.keys; j += 2, to += kTileLd) {
      const auto row = [&](std::int64_t k) {
        return k < c.part ? rounded(d, hn::LoadU(d, x + k * kTileLd + c.at)) : hn::Zero(U32());
      };
      hn::StoreU(hn::Or(row(j), hn::ShiftLeft<16>(row(j + 1))), U32(), to);
    }
  });
}

// The lower halves of vectors of 32 bits, in order.
HWY_INLINE void store_halves(hn::Vec<U32> v, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, U32> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<U32>(), v)), d16, to);
}

void pair_queries(const TileView& t, const float* x, std::uint32_t* out) {
  const hn::ScalableTag<float> d;
  for (std::int64_t j = 0; j < t.keys; ++j, x += kTileLd, out += kTileLd / 2)
    for (std::int64_t i = 0; i < t.queries; i += static_cast<std::int64_t>(hn::Lanes(d)))
      store_halves(rounded(d, hn::LoadU(d, x + i)), reinterpret_cast<std::uint16_t*>(out) + i);
}

void pair_rows(const bfloat16* from, std::int64_t ld, std::int64_t count, std::int64_t n, std::uint32_t* to) {
  const hn::Rebind<std::uint16_t, U32> d16;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(U32()));
  for (std::int64_t r = 0; r < count; r += 2, from += 2 * ld, to += n) {
    const auto* low = reinterpret_cast<const std::uint16_t*>(from);
    const std::uint16_t* high = r + 1 < count ? low + ld : nullptr;
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const auto a = hn::PromoteTo(U32(), hn::LoadU(d16, low + i));
      const auto b = high == nullptr ? hn::Zero(U32()) : hn::PromoteTo(U32(), hn::LoadU(d16, high + i));
      hn::StoreU(hn::Or(a, hn::ShiftLeft<16>(b)), U32(), to + i);
    }
    for (; i < n; ++i) to[i] = low[i] | (high == nullptr ? 0u : static_cast<std::uint32_t>(high[i]) << 16);
  }
}

float to_float(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

void dots_bf16(const bfloat16* a, const bfloat16* b, std::int64_t ld, std::int64_t count, std::int64_t n, float* out) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<std::uint16_t, U32> d16;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto load = [&](const std::uint16_t* p) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(d16, p))));
  };
  for (std::int64_t r = 0; r < count; ++r) {
    const auto *x = reinterpret_cast<const std::uint16_t*>(a + r * ld),
               *y = reinterpret_cast<const std::uint16_t*>(b + r * ld);
    auto sum = hn::Zero(d);
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) sum = hn::MulAdd(load(x + i), load(y + i), sum);
    float rest = 0;
    for (; i < n; ++i) rest += to_float(x[i]) * to_float(y[i]);
    out[r] = hn::GetLane(hn::SumOfLanes(d, sum)) + rest;
  }
}

void narrow(const float* from, std::int64_t n, bfloat16* to) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto* bits = reinterpret_cast<std::uint16_t*>(to);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_halves(rounded(d, hn::LoadU(d, from + i)), bits + i);
  for (; i < n; ++i) to[i] = bfloat16(from[i]);
}

template <class T> AttentionRows<T> table() {
  return {scale_add<T>, soften<T>, finish<T>, thin<T>, weights_grad<T>, dots<T>};
}

void fill_attention_rows(AttentionRows<float>& f32_table, AttentionRows<double>& f64_table, AttentionBf16& bf16_table) {
  bf16_table = {pair_keys, pair_queries, pair_rows, dots_bf16, narrow};
  f32_table = table<float>();
  f64_table = table<double>();
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_attention_rows);
namespace {
struct Tables {
  AttentionRows<float> f32_table;
  AttentionRows<double> f64_table;
  AttentionBf16 bf16_table;
  Tables() {
    BP_SIMD_DISPATCH(fill_attention_rows)(f32_table, f64_table, bf16_table), take_native_conversions(bf16_table);
  }
};
const Tables& tables() {
  static const Tables both;
  return both;
}
}  // namespace
const AttentionBf16& attention_bf16() { return tables().bf16_table; }
const AttentionRows<float>& attention_rows(float) { return tables().f32_table; }
const AttentionRows<double>& attention_rows(double) { return tables().f64_table; }
}  // namespace bp::cpu
#endif

// Conversions between storage dtypes and the compute dtype, and the random tile.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/loop_tiles_convert.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <algorithm>
#include <bit>
#include <limits>

#include "bp/rng.h"
#include "cpu/kernels/loop_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

template <class T, class S> void load_as(void* dst_, const void* src_, std::size_t n) {
  T* dst = static_cast<T*>(dst_);
  const S* src = static_cast<const S*>(src_);
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (sizeof(S) == 2) {
      dst[i] = static_cast<T>(std::bit_cast<float>(static_cast<std::uint32_t>(src[i].bits) << 16));
    } else {
      dst[i] = static_cast<T>(src[i]);
    }
  }
}

// Float to integer truncates and saturates; the comparisons are exact in double for all but i64, whose upper bound
// 2^63 rounds to itself.
template <class S, class T> HWY_INLINE S to_integer(T v) {
  constexpr double lo = static_cast<double>(std::numeric_limits<S>::min());
  constexpr double hi = static_cast<double>(std::numeric_limits<S>::max());
  const double x = static_cast<double>(v);
  if (!(x > lo)) return x <= lo ? std::numeric_limits<S>::min() : S{0};
  return x >= hi ? std::numeric_limits<S>::max() : static_cast<S>(x);
}

template <class T> HWY_INLINE std::uint16_t to_bf16_bits(T v) {
  const auto u = std::bit_cast<std::uint32_t>(static_cast<float>(v));
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
  return static_cast<std::uint16_t>((nan ? u | 0x400000u : rounded) >> 16);
}

template <class T, class S> void store_as(void* dst_, const void* src_, std::size_t n) {
  S* dst = static_cast<S*>(dst_);
  const T* src = static_cast<const T*>(src_);
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (sizeof(S) == 2) {
      dst[i].bits = to_bf16_bits(src[i]);
    } else if constexpr (std::is_same_v<S, bool>) {
      dst[i] = src[i] != 0;
    } else if constexpr (std::is_integral_v<S>) {
      dst[i] = to_integer<S>(src[i]);
    } else {
      dst[i] = static_cast<S>(src[i]);
    }
  }
}

// bf16 and f32, whole vectors: what mixed precision converts most of the time.
void load_bf16(void* dst_, const void* src_, std::size_t n) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const hn::Rebind<std::uint16_t, decltype(d)> d16;
  auto* dst = static_cast<float*>(dst_);
  const auto* src = static_cast<const std::uint16_t*>(src_);
  std::size_t i = 0;
  for (const std::size_t lanes = hn::Lanes(d); i + lanes <= n; i += lanes)
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, src + i)))), d, dst + i);
  load_as<float, bfloat16>(dst + i, src + i, n - i);
}
void store_bf16(void* dst_, const void* src_, std::size_t n) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<std::uint16_t, decltype(d)> d16;
  auto* dst = static_cast<std::uint16_t*>(dst_);
  const auto* src = static_cast<const float*>(src_);
  std::size_t i = 0;
  for (const std::size_t lanes = hn::Lanes(d); i + lanes <= n; i += lanes) {
    const auto bits = hn::ShiftRight<16>(hn::BitCast(du, round_to_bf16(d, hn::LoadU(d, src + i))));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, bits)), d16, dst + i);
  }
  store_as<float, bfloat16>(dst + i, src + i, n - i);
}

template <class T> ConvertFn loader(DType storage) {
  return dispatch(storage, [](auto zero) -> ConvertFn { return load_as<T, decltype(zero)>; });
}
template <class T> ConvertFn storer(DType storage) {
  return dispatch(storage, [](auto zero) -> ConvertFn { return store_as<T, decltype(zero)>; });
}
ConvertFn find_loader(DType storage, DType compute) {
  if (compute == f32 && storage == bf16) return load_bf16;
  return compute == f64 ? loader<double>(storage) : loader<float>(storage);
}
ConvertFn find_storer(DType compute, DType storage) {
  if (compute == f32 && storage == bf16) return store_bf16;
  return compute == f64 ? storer<double>(storage) : storer<float>(storage);
}

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
constexpr std::size_t kWords = 4;
void random_words(std::uint64_t first, std::uint64_t key, std::uint64_t counter, std::uint32_t* out) {
  const auto words = philox({static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(first >> 32),
                             static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32)},
                            key);
  std::copy(words.begin(), words.end(), out);
}
#else
// Philox4x32-10 with one block per 64-bit lane: words live in the low halves, whatever the upper halves hold.
template <class V> struct Blocks {
  V c0, c1, c2, c3;

  template <class D> HWY_INLINE Blocks(D d, std::uint64_t first, std::uint64_t counter) {
    c0 = hn::Add(hn::Set(d, first), hn::Iota(d, 0)), c1 = hn::ShiftRight<32>(c0);
    c2 = hn::Set(d, counter & 0xffffffffull), c3 = hn::Set(d, counter >> 32);
  }
  template <class D> HWY_INLINE void round(D d, V k0, V k1) {
    const hn::Repartition<std::uint32_t, D> d32;
    const V p0 = hn::MulEven(hn::BitCast(d32, c0), hn::BitCast(d32, hn::Set(d, 0xD2511F53ull)));
    const V p1 = hn::MulEven(hn::BitCast(d32, c2), hn::BitCast(d32, hn::Set(d, 0xCD9E8D57ull)));
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), k0);
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), k1);
    c1 = p1;
    c3 = p0;
  }
  // Four words a block in order.
  template <class D> HWY_INLINE void store(D d, std::uint32_t* out) const {
    const auto low = hn::Set(d, 0xffffffffull);
    hn::StoreInterleaved2(hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1)),
                          hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3)), d, reinterpret_cast<std::uint64_t*>(out));
  }
};

// The words of blocks first, first + 1, ...: two vectors of blocks side by side, as a round is a chain of products.
constexpr std::size_t kLanes = hn::MaxLanes(hn::ScalableTag<std::uint64_t>()), kWords = 8 * kLanes;
HWY_INLINE void random_words(std::uint64_t first, std::uint64_t key, std::uint64_t counter, std::uint32_t* out) {
  const hn::CappedTag<std::uint64_t, kLanes> d;
  Blocks<hn::Vec<decltype(d)> > a(d, first, counter), b(d, first + kLanes, counter);
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const auto v0 = hn::Set(d, std::uint64_t{k0}), v1 = hn::Set(d, std::uint64_t{k1});
    a.round(d, v0, v1);
    b.round(d, v0, v1);
  }
  a.store(d, out);
  b.store(d, out + 4 * kLanes);
}
#endif

// Numbers of up to 24 bits, which both compute dtypes hold exactly.
template <class T> HWY_INLINE void shifted(T* dst, const std::uint32_t* words, std::size_t n, int shift) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  if constexpr (sizeof(T) == 4) {
    const hn::ScalableTag<std::uint32_t> du;
    const hn::RebindToSigned<decltype(du)> di;
    const hn::RebindToFloat<decltype(du)> df;
    for (; i + hn::Lanes(du) <= n; i += hn::Lanes(du))
      hn::StoreU(hn::ConvertTo(df, hn::BitCast(di, hn::ShiftRightSame(hn::LoadU(du, words + i), shift))), df, dst + i);
  }
#endif
  for (; i < n; ++i) dst[i] = static_cast<T>(static_cast<std::int32_t>(words[i] >> shift));
}

template <class T>
void random(void* dst_, std::size_t n, std::uint64_t first, std::uint64_t key, std::uint64_t counter, int width) {
  HWY_ALIGN std::uint32_t buffer[kWords];
  T* dst = static_cast<T*>(dst_);
  for (std::size_t done = 0; done < n;) {
    const std::uint64_t at = first + done, skip = at % 4;
    random_words(at / 4, key, counter, buffer);
    const std::size_t take = std::min<std::size_t>(kWords - skip, n - done);
    shifted(dst + done, buffer + skip, take, 32 - width);
    done += take;
  }
}
RandomFn find_random(DType compute) { return compute == f64 ? random<double> : random<float>; }

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(find_loader);
HWY_EXPORT(find_storer);
HWY_EXPORT(find_random);
ConvertFn load_converter(DType storage, DType compute) { return BP_SIMD_DISPATCH(find_loader)(storage, compute); }
ConvertFn store_converter(DType compute, DType storage) { return BP_SIMD_DISPATCH(find_storer)(compute, storage); }
RandomFn random_tile(DType compute) { return BP_SIMD_DISPATCH(find_random)(compute); }
}  // namespace bp::cpu
#endif

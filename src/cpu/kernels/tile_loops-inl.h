// The loops around tile instructions: whole vectors, then a masked tail, so that nothing beyond a tile is touched.
// Included once per instruction set by the loop_tiles_*.cc files.
#if defined(BP_TILE_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BP_TILE_LOOPS_INL_H_
#undef BP_TILE_LOOPS_INL_H_
#else
#define BP_TILE_LOOPS_INL_H_
#endif

#include <hwy/highway.h>

#include "cpu/kernels/simd_pair-inl.h"
#include "cpu/kernels/simd_portable-inl.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// An operand of a tile instruction: a tile (advances) or a scalar per row (broadcast).
template <class D, bool kScalar> struct Operand {
  static constexpr bool kBroadcast = kScalar;
  using T = hn::TFromD<D>;
  const T* at;
  hn::Vec<D> broadcast;

  HWY_INLINE Operand(D d, const void* p) : at(static_cast<const T*>(p)), broadcast(hn::Zero(d)) {}
  HWY_INLINE void begin_row(D d) {
    if constexpr (kScalar) broadcast = hn::Set(d, *at);
  }
  HWY_INLINE void end_row(std::size_t n) { at += kScalar ? 1 : n; }
  HWY_INLINE hn::Vec<D> get(D d, std::size_t i) const {
    if constexpr (kScalar) return broadcast;
    return hn::LoadU(d, at + i);
  }
  HWY_INLINE hn::Vec<D> get_tail(D d, hn::Mask<D> m, std::size_t i) const {
    if constexpr (kScalar) return broadcast;
    return load_first(d, m, at + i);
  }
};

// How an instruction takes the vectors of a row. Cheap ones four at a time, with one test for the end: a loop of five
// instructions would otherwise take one or two cycles by where the compiler happened to place it. Functions with long
// chains side by side (simd_pair-inl.h). Rare or bulky ones one at a time.
enum class Unroll { by_one, by_four, side_by_side };

// Reads 1, 2 or 4 vectors of an operand side by side; a scalar is one vector that serves all.
template <int kVectors, class D, class O> HWY_INLINE auto side_by_side(D d, const O& o, std::size_t i) {
  if constexpr (O::kBroadcast) {
    return o.broadcast;
  } else if constexpr (kVectors == 1) {
    return o.get(d, i);
  } else {
    constexpr int kHalf = kVectors / 2;
    return pair_of(side_by_side<kHalf>(d, o, i), side_by_side<kHalf>(d, o, i + kHalf * hn::Lanes(d)));
  }
}
// Stores them; returns where the next one would go.
template <class D, class V> HWY_INLINE hn::TFromD<D>* store_all(D d, V v, hn::TFromD<D>* at) {
  if constexpr (is_pair<V>) {
    return store_all(d, v.second, store_all(d, v.first, at));
  } else {
    hn::StoreU(v, d, at);
    return at + hn::Lanes(d);
  }
}
// The rows of a tile; o are its operands.
template <class Op, class D, class... O>
HWY_INLINE void tile_rows(D d, hn::TFromD<D>* dst, std::size_t rows, std::size_t n, O... o) {
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, dst += n, (o.end_row(n), ...)) {
    (o.begin_row(d), ...);
    std::size_t i = 0;
    if constexpr (Op::kUnroll == Unroll::side_by_side && sizeof(hn::TFromD<D>) == 4) {
      for (; i + 4 * lanes <= n; i += 4 * lanes) store_all(d, Op::apply(d, side_by_side<4>(d, o, i)...), dst + i);
    } else if constexpr (Op::kUnroll == Unroll::by_four) {
      for (; i + 4 * lanes <= n; i += 4 * lanes) {
        const auto y0 = Op::apply(d, o.get(d, i)...), y1 = Op::apply(d, o.get(d, i + lanes)...);
        const auto y2 = Op::apply(d, o.get(d, i + 2 * lanes)...), y3 = Op::apply(d, o.get(d, i + 3 * lanes)...);
        store_all(d, pair_of(pair_of(y0, y1), pair_of(y2, y3)), dst + i);
      }
    }
    for (; i + lanes <= n; i += lanes) hn::StoreU(Op::apply(d, o.get(d, i)...), d, dst + i);
    if (i == n) continue;
    const auto m = hn::FirstN(d, n - i);
    hn::BlendedStore(Op::apply(d, o.get_tail(d, m, i)...), m, d, dst + i);
  }
}

template <class T, class Op, bool SA>
void tile1(void* dst, const void* a, const void*, const void*, std::size_t rows, std::size_t n) {
  using D = hn::ScalableTag<T>;
  const D d;
  tile_rows<Op>(d, static_cast<T*>(dst), rows, n, Operand<D, SA>(d, a));
}
template <class T, class Op, bool SA, bool SB>
void tile2(void* dst, const void* a, const void* b, const void*, std::size_t rows, std::size_t n) {
  using D = hn::ScalableTag<T>;
  const D d;
  tile_rows<Op>(d, static_cast<T*>(dst), rows, n, Operand<D, SA>(d, a), Operand<D, SB>(d, b));
}
template <class T, class Op, bool SA, bool SB, bool SC>
void tile3(void* dst, const void* a, const void* b, const void* c, std::size_t rows, std::size_t n) {
  using D = hn::ScalableTag<T>;
  const D d;
  tile_rows<Op>(d, static_cast<T*>(dst), rows, n, Operand<D, SA>(d, a), Operand<D, SB>(d, b), Operand<D, SC>(d, c));
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

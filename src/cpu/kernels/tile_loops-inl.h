// The loops around tile instructions: whole vectors, then a masked tail, so that nothing beyond a tile is touched.
// Included once per instruction set by the loop_tiles_*.cc files.
#if defined(BP_TILE_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BP_TILE_LOOPS_INL_H_
#undef BP_TILE_LOOPS_INL_H_
#else
#define BP_TILE_LOOPS_INL_H_
#endif

#include <hwy/highway.h>

#include "cpu/kernels/simd_portable-inl.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// An operand of a tile instruction: a tile (advances) or a scalar per row (broadcast).
template <class D, bool kScalar> struct Operand {
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

template <class T, class Op, bool SA>
void tile1(void* dst_, const void* a_, const void*, const void*, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* dst = static_cast<T*>(dst_);
  Operand<hn::ScalableTag<T>, SA> a(d, a_);
  for (std::size_t r = 0; r < rows; ++r, dst += n, a.end_row(n)) {
    a.begin_row(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(Op::apply(d, a.get(d, i)), d, dst + i);
    if (i == n) continue;
    const auto m = hn::FirstN(d, n - i);
    hn::BlendedStore(Op::apply(d, a.get_tail(d, m, i)), m, d, dst + i);
  }
}

template <class T, class Op, bool SA, bool SB>
void tile2(void* dst_, const void* a_, const void* b_, const void*, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* dst = static_cast<T*>(dst_);
  Operand<hn::ScalableTag<T>, SA> a(d, a_);
  Operand<hn::ScalableTag<T>, SB> b(d, b_);
  for (std::size_t r = 0; r < rows; ++r, dst += n, a.end_row(n), b.end_row(n)) {
    a.begin_row(d);
    b.begin_row(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(Op::apply(d, a.get(d, i), b.get(d, i)), d, dst + i);
    if (i == n) continue;
    const auto m = hn::FirstN(d, n - i);
    hn::BlendedStore(Op::apply(d, a.get_tail(d, m, i), b.get_tail(d, m, i)), m, d, dst + i);
  }
}

template <class T, class Op, bool SA, bool SB, bool SC>
void tile3(void* dst_, const void* a_, const void* b_, const void* c_, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* dst = static_cast<T*>(dst_);
  Operand<hn::ScalableTag<T>, SA> a(d, a_);
  Operand<hn::ScalableTag<T>, SB> b(d, b_);
  Operand<hn::ScalableTag<T>, SC> c(d, c_);
  for (std::size_t r = 0; r < rows; ++r, dst += n, a.end_row(n), b.end_row(n), c.end_row(n)) {
    a.begin_row(d);
    b.begin_row(d);
    c.begin_row(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(Op::apply(d, a.get(d, i), b.get(d, i), c.get(d, i)), d, dst + i);
    if (i == n) continue;
    const auto m = hn::FirstN(d, n - i);
    hn::BlendedStore(Op::apply(d, a.get_tail(d, m, i), b.get_tail(d, m, i), c.get_tail(d, m, i)), m, d, dst + i);
  }
}

}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

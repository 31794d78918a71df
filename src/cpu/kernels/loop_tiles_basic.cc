// Tile instructions without transcendental functions: arithmetic, comparisons, selection, rounding, macros.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/loop_tiles_basic.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
#include "cpu/kernels/tile_loops-inl.h"
// clang-format on
#include <cmath>

#include "cpu/kernels/loop_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

template <class D, class M> HWY_INLINE hn::Vec<D> one_where(D d, M m) {
  return hn::IfThenElseZero(m, hn::Set(d, hn::TFromD<D>{1}));
}

#define BP_UNARY(Name, expression)                                                                          \
  struct Name {                                                                                             \
    static constexpr Unroll kUnroll = Unroll::by_four;                                                      \
    template <class D, class V> static HWY_INLINE V apply([[maybe_unused]] D d, V a) { return expression; } \
  };
#define BP_BINARY(Name, expression)                                                                              \
  struct Name {                                                                                                  \
    static constexpr Unroll kUnroll = Unroll::by_four;                                                           \
    template <class D, class V> static HWY_INLINE V apply([[maybe_unused]] D d, V a, V b) { return expression; } \
  };
#define BP_TERNARY(Name, expression)                                                                                  \
  struct Name {                                                                                                       \
    static constexpr Unroll kUnroll = Unroll::by_four;                                                                \
    template <class D, class V> static HWY_INLINE V apply([[maybe_unused]] D d, V a, V b, V c) { return expression; } \
  };

BP_UNARY(Copy, a)
BP_UNARY(Neg, hn::Neg(a))
BP_UNARY(Abs, hn::Abs(a))
BP_UNARY(Sqrt, hn::Sqrt(a))
BP_UNARY(Rsqrt, hn::Div(hn::Set(d, hn::TFromD<D>{1}), hn::Sqrt(a)))
BP_UNARY(Reciprocal, hn::Div(hn::Set(d, hn::TFromD<D>{1}), a))
BP_UNARY(Floor, hn::Floor(a))
BP_UNARY(Ceil, hn::Ceil(a))
BP_UNARY(Round, hn::Round(a))
BP_UNARY(Trunc, hn::Trunc(a))
BP_UNARY(IsFinite, one_where(d, hn::Eq(hn::Sub(a, a), hn::Zero(d))))
BP_UNARY(Not, one_where(d, hn::Eq(a, hn::Zero(d))))

struct Sign {
  static constexpr Unroll kUnroll = Unroll::by_one;
  template <class D, class V> static HWY_INLINE V apply(D d, V a) {
    const V zero = hn::Zero(d);
    const V signed_one = hn::CopySign(hn::Set(d, hn::TFromD<D>{1}), a);
    // NaN falls through both tests and stays itself.
    const V zero_or_nan = hn::IfThenElse(hn::Eq(a, zero), zero, a);
    return hn::IfThenElse(hn::Or(hn::Lt(a, zero), hn::Gt(a, zero)), signed_one, zero_or_nan);
  }
};

BP_BINARY(Add, hn::Add(a, b))
BP_BINARY(Sub, hn::Sub(a, b))
BP_BINARY(Mul, hn::Mul(a, b))
BP_BINARY(Div, hn::Div(a, b))
BP_BINARY(Max, nan_max(a, b))
BP_BINARY(Min, nan_min(a, b))
BP_BINARY(Eq, one_where(d, hn::Eq(a, b)))
BP_BINARY(Ne, hn::IfThenElse(hn::Eq(a, b), hn::Zero(d), hn::Set(d, hn::TFromD<D>{1})))
BP_BINARY(Lt, one_where(d, hn::Lt(a, b)))
BP_BINARY(Le, one_where(d, hn::Le(a, b)))
BP_BINARY(Gt, one_where(d, hn::Gt(a, b)))
BP_BINARY(Ge, one_where(d, hn::Ge(a, b)))
BP_BINARY(And, hn::IfThenElse(hn::Or(hn::Eq(a, hn::Zero(d)), hn::Eq(b, hn::Zero(d))), hn::Zero(d),
                              hn::Set(d, hn::TFromD<D>{1})))
BP_BINARY(Or, hn::IfThenElse(hn::And(hn::Eq(a, hn::Zero(d)), hn::Eq(b, hn::Zero(d))), hn::Zero(d),
                             hn::Set(d, hn::TFromD<D>{1})))
BP_BINARY(AddRelu, max_or_second(hn::Zero(d), hn::Add(a, b)))
BP_BINARY(ReluMask, hn::IfThenElseZero(hn::Gt(a, hn::Zero(d)), b))

BP_TERNARY(Select, hn::IfThenElse(hn::Eq(a, hn::Zero(d)), c, b))
BP_TERNARY(Fma, hn::MulAdd(a, b, c))
BP_TERNARY(Fms, hn::MulSub(a, b, c))
BP_TERNARY(Nfma, hn::NegMulAdd(a, b, c))
BP_TERNARY(SubMul, hn::Mul(hn::Sub(a, b), c))

// Rounds to f32. Highway's emulation would saturate: infinity became the largest float.
template <class D> HWY_INLINE hn::Vec<hn::Rebind<float, D>> rounded_to_f32(D d, hn::Vec<D> x) {
  const hn::Rebind<float, D> df;
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
  HWY_ALIGN double wide[hn::MaxLanes(d)];
  HWY_ALIGN float narrow[hn::MaxLanes(d)];
  hn::Store(x, d, wide);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) narrow[i] = static_cast<float>(wide[i]);
  return hn::Load(df, narrow);
#else
  return hn::DemoteTo(df, x);
#endif
}

struct ToF32 {
  static constexpr Unroll kUnroll = Unroll::by_one;
  template <class D, class V> static HWY_INLINE V apply(D d, V a) {
    if constexpr (sizeof(hn::TFromD<D>) == 4)
      return a;
    else
      return hn::PromoteTo(d, rounded_to_f32(d, a));
  }
};
struct ToBf16 {
  static constexpr Unroll kUnroll = Unroll::by_one;
  template <class D, class V> static HWY_INLINE V apply(D d, V a) {
    if constexpr (sizeof(hn::TFromD<D>) == 4) {
      return round_to_bf16(d, a);
    } else {
      const hn::Rebind<float, D> df;
      return hn::PromoteTo(d, round_to_bf16(df, rounded_to_f32(d, a)));
    }
  }
};

template <class T> void ramp(void* dst_, const void* a_, const void*, const void*, std::size_t rows, std::size_t n) {
  T* dst = static_cast<T*>(dst_);
  const T* first = static_cast<const T*>(a_);
  for (std::size_t r = 0; r < rows; ++r, dst += n)
    for (std::size_t i = 0; i < n; ++i) dst[i] = first[r] + static_cast<T>(i);
}

// c[0] * a + c[1] * b (kSquare: b * b), the forms of moment updates.
template <class T, bool kSquare>
void axpby(void* dst_, const void* a_, const void* b_, const void* c_, std::size_t rows, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), total = rows * n;
  T* dst = static_cast<T*>(dst_);
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  const auto ca = hn::Set(d, static_cast<const T*>(c_)[0]), cb = hn::Set(d, static_cast<const T*>(c_)[1]);
  std::size_t i = 0;
  const auto at = [&](std::size_t k) HWY_ATTR {
    const auto vb = hn::LoadU(d, b + k);
    const auto term = hn::Mul(cb, kSquare ? hn::Mul(vb, vb) : vb);
    return hn::MulAdd(ca, hn::LoadU(d, a + k), term);
  };
  for (; i + 2 * lanes <= total; i += 2 * lanes) {
    const auto y0 = at(i), y1 = at(i + lanes);
    hn::StoreU(y0, d, dst + i);
    hn::StoreU(y1, d, dst + i + lanes);
  }
  if (i + lanes <= total) hn::StoreU(at(i), d, dst + i), i += lanes;
  if (i == total) return;
  const auto m = hn::FirstN(d, total - i);
  const auto vb = load_first(d, m, b + i);
  const auto term = hn::Mul(cb, kSquare ? hn::Mul(vb, vb) : vb);
  hn::BlendedStore(hn::MulAdd(ca, load_first(d, m, a + i), term), m, d, dst + i);
}

template <class T, class Op> void set1(TileTable& t, LoopOp op) { t.at(tile_op(op), 0) = tile1<T, Op, false>; }
template <class T, class Op> void set2(TileTable& t, TileOp op) {
  t.at(op, 0) = tile2<T, Op, false, false>;
  t.at(op, 1) = tile2<T, Op, true, false>;
  t.at(op, 2) = tile2<T, Op, false, true>;
}
template <class T, class Op> void set2(TileTable& t, LoopOp op) { set2<T, Op>(t, tile_op(op)); }
template <class T, class Op> void set3(TileTable& t, TileOp op) {
  t.at(op, 0) = tile3<T, Op, false, false, false>;
  t.at(op, 2) = tile3<T, Op, false, true, false>;
  t.at(op, 4) = tile3<T, Op, false, false, true>;
  t.at(op, 6) = tile3<T, Op, false, true, true>;
}

template <class T> void fill(TileTable& t) {
  t.at(TileOp::copy, 0) = tile1<T, Copy, false>;
  t.at(TileOp::copy, 1) = tile1<T, Copy, true>;
  t.at(TileOp::ramp, 1) = ramp<T>;
  set1<T, Neg>(t, LoopOp::neg);
  set1<T, Abs>(t, LoopOp::abs);
  set1<T, Sign>(t, LoopOp::sign);
  set1<T, Sqrt>(t, LoopOp::sqrt);
  set1<T, Rsqrt>(t, LoopOp::rsqrt);
  set1<T, Reciprocal>(t, LoopOp::reciprocal);
  set1<T, Floor>(t, LoopOp::floor);
  set1<T, Ceil>(t, LoopOp::ceil);
  set1<T, Round>(t, LoopOp::round);
  set1<T, Trunc>(t, LoopOp::trunc);
  set1<T, IsFinite>(t, LoopOp::is_finite);
  set1<T, Not>(t, LoopOp::logical_not);
  set1<T, ToBf16>(t, LoopOp::to_bf16);
  set1<T, ToF32>(t, LoopOp::to_f32);
  set2<T, Add>(t, LoopOp::add);
  set2<T, Sub>(t, LoopOp::sub);
  set2<T, Mul>(t, LoopOp::mul);
  set2<T, Div>(t, LoopOp::div);
  set2<T, Max>(t, LoopOp::max);
  set2<T, Min>(t, LoopOp::min);
  set2<T, Eq>(t, LoopOp::eq);
  set2<T, Ne>(t, LoopOp::ne);
  set2<T, Lt>(t, LoopOp::lt);
  set2<T, Le>(t, LoopOp::le);
  set2<T, Gt>(t, LoopOp::gt);
  set2<T, Ge>(t, LoopOp::ge);
  set2<T, And>(t, LoopOp::logical_and);
  set2<T, Or>(t, LoopOp::logical_or);
  set2<T, AddRelu>(t, TileOp::add_relu);
  set2<T, ReluMask>(t, TileOp::relu_mask);
  set3<T, Select>(t, tile_op(LoopOp::select));
  set3<T, Fma>(t, TileOp::fma);
  set3<T, Fms>(t, TileOp::fms);
  set3<T, Nfma>(t, TileOp::nfma);
  set3<T, SubMul>(t, TileOp::sub_mul);
  t.at(TileOp::axpby, 0) = axpby<T, false>;
  t.at(TileOp::axpbyy, 0) = axpby<T, true>;
}

void fill_basic(TileTable& f32_table, TileTable& f64_table) {
  fill<float>(f32_table);
  fill<double>(f64_table);
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_basic);
void add_basic_tiles(TileTable& f32_table, TileTable& f64_table) { BP_SIMD_DISPATCH(fill_basic)(f32_table, f64_table); }
}  // namespace bp::cpu
#endif

// Tile instructions of the transcendental functions.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/loop_tiles_math.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_math-inl.h"
#include "cpu/kernels/tile_loops-inl.h"
// clang-format on
#include "cpu/kernels/loop_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

#define BP_MATH(Name, function, unroll)                                                        \
  struct Name {                                                                                \
    static constexpr Unroll kUnroll = Unroll::unroll;                                          \
    template <class D, class V> static HWY_INLINE V apply(D d, V a) { return function(d, a); } \
  };
BP_MATH(Exp, exp_v, side_by_side)
BP_MATH(Expm1, expm1_v, by_one)
BP_MATH(Log, log_v, by_one)
BP_MATH(Log1p, log1p_v, by_one)
BP_MATH(Sin, sin_v, by_one)
BP_MATH(Cos, cos_v, by_one)
BP_MATH(Tanh, tanh_v, side_by_side)
BP_MATH(Sigmoid, sigmoid_v, side_by_side)
BP_MATH(Erf, erf_v, side_by_side)

struct ExpSub {
  static constexpr Unroll kUnroll = Unroll::side_by_side;
  template <class D, class A, class B> static HWY_INLINE auto apply(D d, A a, B b) { return exp_v(d, sub(a, b)); }
};
struct Pow {
  static constexpr Unroll kUnroll = Unroll::by_one;
  template <class D, class V> static HWY_INLINE V apply(D d, V a, V b) {
    return each_lane(d, a, b, [](auto x, auto y) { return std::pow(x, y); });
  }
};
struct Remainder {
  static constexpr Unroll kUnroll = Unroll::by_one;
  template <class D, class V> static HWY_INLINE V apply(D d, V a, V b) {
    return each_lane(d, a, b, [](auto x, auto y) {
      const auto m = std::fmod(x, y);
      if (m == 0) return std::copysign(m, y);
      return (y < 0) != (m < 0) ? m + y : m;
    });
  }
};

template <class T> void fill(TileTable& t) {
  t.at(tile_op(LoopOp::exp), 0) = tile1<T, Exp, false>;
  t.at(tile_op(LoopOp::expm1), 0) = tile1<T, Expm1, false>;
  t.at(tile_op(LoopOp::log), 0) = tile1<T, Log, false>;
  t.at(tile_op(LoopOp::log1p), 0) = tile1<T, Log1p, false>;
  t.at(tile_op(LoopOp::sin), 0) = tile1<T, Sin, false>;
  t.at(tile_op(LoopOp::cos), 0) = tile1<T, Cos, false>;
  t.at(tile_op(LoopOp::tanh), 0) = tile1<T, Tanh, false>;
  t.at(tile_op(LoopOp::sigmoid), 0) = tile1<T, Sigmoid, false>;
  t.at(tile_op(LoopOp::erf), 0) = tile1<T, Erf, false>;
  t.at(TileOp::exp_sub, 0) = tile2<T, ExpSub, false, false>;
  t.at(TileOp::exp_sub, 2) = tile2<T, ExpSub, false, true>;
  t.at(tile_op(LoopOp::pow), 0) = tile2<T, Pow, false, false>;
  t.at(tile_op(LoopOp::pow), 1) = tile2<T, Pow, true, false>;
  t.at(tile_op(LoopOp::pow), 2) = tile2<T, Pow, false, true>;
  t.at(tile_op(LoopOp::remainder), 0) = tile2<T, Remainder, false, false>;
  t.at(tile_op(LoopOp::remainder), 1) = tile2<T, Remainder, true, false>;
  t.at(tile_op(LoopOp::remainder), 2) = tile2<T, Remainder, false, true>;
}

void fill_math(TileTable& f32_table, TileTable& f64_table) {
  fill<float>(f32_table);
  fill<double>(f64_table);
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_math);
void add_math_tiles(TileTable& f32_table, TileTable& f64_table) { BP_SIMD_DISPATCH(fill_math)(f32_table, f64_table); }
}  // namespace bp::cpu
#endif

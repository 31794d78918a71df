// Row operations of attention, a vector at a time with a masked tail.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/attention_rows.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_math-inl.h"
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <limits>

#include "cpu/kernels/attention_rows.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

// whole(i) for every whole vector of n elements, then part(i, mask) for the rest.
template <class D, class Whole, class Part> HWY_INLINE void vectors(D d, std::int64_t n, Whole whole, Part part) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) whole(i);
  if (i < n) part(i, hn::FirstN(d, static_cast<std::size_t>(n - i)));
}

template <class T> T max_of(const T* x, std::int64_t n) {
  const hn::ScalableTag<T> d;
  const auto low = hn::Set(d, -std::numeric_limits<T>::infinity());
  auto top = low;
  vectors(
      d, n, [&](std::int64_t i) { top = max_or_second(top, hn::LoadU(d, x + i)); },
      [&](std::int64_t i, auto m) { top = max_or_second(top, hn::IfThenElse(m, load_first(d, m, x + i), low)); });
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

template <class T> T exp_sum(T* x, std::int64_t n, T scale, T minus) {
  const hn::ScalableTag<T> d;
  const auto s = hn::Set(d, scale), m = hn::Set(d, minus);
  auto sum = hn::Zero(d);
  vectors(
      d, n,
      [&](std::int64_t i) {
        const auto e = exp_v(d, hn::MulSub(hn::LoadU(d, x + i), s, m));
        hn::StoreU(e, d, x + i);
        sum = hn::Add(sum, e);
      },
      [&](std::int64_t i, auto part) {
        const auto e = hn::IfThenElseZero(part, exp_v(d, hn::MulSub(load_first(d, part, x + i), s, m)));
        hn::BlendedStore(e, part, d, x + i);
        sum = hn::Add(sum, e);
      });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T> void scale_row(T* x, std::int64_t n, T factor) {
  const hn::ScalableTag<T> d;
  const auto f = hn::Set(d, factor);
  vectors(
      d, n, [&](std::int64_t i) { hn::StoreU(hn::Mul(f, hn::LoadU(d, x + i)), d, x + i); },
      [&](std::int64_t i, auto m) { hn::BlendedStore(hn::Mul(f, load_first(d, m, x + i)), m, d, x + i); });
}

template <class T> void thin(T* x, const T* bits, std::int64_t n, T below, T factor) {
  const hn::ScalableTag<T> d;
  const auto b = hn::Set(d, below), f = hn::Set(d, factor);
  vectors(
      d, n,
      [&](std::int64_t i) {
        const auto kept = hn::Lt(hn::LoadU(d, bits + i), b);
        hn::StoreU(hn::IfThenElseZero(kept, hn::Mul(f, hn::LoadU(d, x + i))), d, x + i);
      },
      [&](std::int64_t i, auto m) {
        const auto kept = hn::Lt(load_first(d, m, bits + i), b);
        hn::BlendedStore(hn::IfThenElseZero(kept, hn::Mul(f, load_first(d, m, x + i))), m, d, x + i);
      });
}

template <class T> T dot(const T* a, const T* b, std::int64_t n) {
  const hn::ScalableTag<T> d;
  auto sum = hn::Zero(d);
  vectors(
      d, n, [&](std::int64_t i) { sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum); },
      [&](std::int64_t i, auto m) { sum = hn::MulAdd(load_first(d, m, a + i), load_first(d, m, b + i), sum); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
void pack(const T* from, std::int64_t ld, std::int64_t count, std::int64_t n, std::int64_t width, T* to) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t c = 0; c < n; c += width)
    for (std::int64_t r = 0; r < count; ++r, to += width) {
      const T* row = from + r * ld + c;
      for (std::int64_t i = 0; i < width; i += lanes) {
        const std::int64_t left = n - c - i;
        if (left >= lanes)
          hn::StoreU(hn::LoadU(d, row + i), d, to + i);
        else if (left > 0)
          hn::StoreU(load_first(d, hn::FirstN(d, static_cast<std::size_t>(left)), row + i), d, to + i);
        else
          hn::StoreU(hn::Zero(d), d, to + i);
      }
    }
}

template <class T> void scores_grad(const T* weights, T* dw, std::int64_t n, T delta, T scale) {
  const hn::ScalableTag<T> d;
  const auto centre = hn::Set(d, delta), s = hn::Set(d, scale);
  const auto f = [&](auto w, auto x) { return hn::Mul(hn::Mul(w, s), hn::Sub(x, centre)); };
  vectors(
      d, n, [&](std::int64_t i) { hn::StoreU(f(hn::LoadU(d, weights + i), hn::LoadU(d, dw + i)), d, dw + i); },
      [&](std::int64_t i, auto m) {
        hn::BlendedStore(f(load_first(d, m, weights + i), load_first(d, m, dw + i)), m, d, dw + i);
      });
}

template <class T> AttentionRows<T> table() {
  return {max_of<T>, exp_sum<T>, scale_row<T>, dot<T>, pack<T>, thin<T>, scores_grad<T>};
}

void fill_attention_rows(AttentionRows<float>& f32_table, AttentionRows<double>& f64_table) {
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
  Tables() { BP_SIMD_DISPATCH(fill_attention_rows)(f32_table, f64_table); }
};
const Tables& tables() {
  static const Tables both;
  return both;
}
}  // namespace
const AttentionRows<float>& attention_rows(float) { return tables().f32_table; }
const AttentionRows<double>& attention_rows(double) { return tables().f64_table; }
}  // namespace bp::cpu
#endif

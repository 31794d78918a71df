// Pooling kernels: Highway vectors over channels, one call a row of the last spatial axis, rows shared out to threads.
// See pool.h for the contracts.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/pool.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
// clang-format on

#include "cpu/kernels/pool.h"

#ifndef BP_CPU_KERNELS_POOL_ONCE
#define BP_CPU_KERNELS_POOL_ONCE

#include <algorithm>
#include <limits>
#include <numeric>

namespace bp::cpu::pool {

struct Axis {
  std::int64_t in = 1, out = 1, window = 1, stride = 1, dilation = 1, pad = 0;
};

// The spec with exactly three axes: missing ones have size 1 and stand in front.
struct Plan {
  Axis axis[3];
  std::int64_t channels = 0;
  bool include_pad = false;
  bool byte_index = true;
};

// The window positions [lo, hi) of output o that lie inside x; position t reads x at start + t · dilation.
struct Taps {
  std::int64_t start, lo, hi;
};

inline Taps taps_of(const Axis& a, std::int64_t o) {
  const std::int64_t start = o * a.stride - a.pad, last = a.in - 1 - start;
  if (a.dilation == 1) {  // a division costs as much as the work on a position
    const std::int64_t lo = std::max<std::int64_t>(-start, 0);
    return {start, lo, std::max(lo, std::min(a.window, last + 1))};
  }
  const std::int64_t lo = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
  const std::int64_t hi = last < 0 ? 0 : std::min(a.window, last / a.dilation + 1);
  return {start, lo, std::max(lo, hi)};
}

// The windows that contain x at p: outputs o, o + step_o, ... (count of them), at positions t, t − step_t, ...
struct Owners {
  std::int64_t o = 0, t = 0, count = 0, step_o = 1, step_t = 1;
};

inline Owners owners_of(const Axis& a, std::int64_t p) {
  const std::int64_t g = std::gcd(a.stride, a.dilation), at = p + a.pad;
  Owners w{0, 0, 0, a.dilation / g, a.stride / g};
  std::int64_t t = 0;
  while (t < w.step_t && (at - t * a.dilation) % a.stride != 0) ++t;
  if (t == w.step_t) return w;
  // From the smallest position, hence the largest output, down to the first output.
  const std::int64_t highest = std::min(a.window - 1, at / a.dilation);
  if (t > highest) return w;
  const std::int64_t largest = (at - t * a.dilation) / a.stride;
  const std::int64_t skip = largest < a.out ? 0 : (largest - a.out + w.step_o) / w.step_o;
  const std::int64_t last = (highest - t) / w.step_t;
  if (skip > last) return w;
  w.count = last - skip + 1;
  w.t = t + last * w.step_t;
  w.o = largest - last * w.step_o;
  return w;
}

// What Rule says of the places of an axis: computed once for a thread's rows; beyond kKnown, each time.
template <class Result, Result (*Rule)(const Axis&, std::int64_t)> class AxisTable {
 public:
  AxisTable(const Axis& axis, std::int64_t places) : axis_(axis), known_(std::min<std::int64_t>(places, kKnown)) {
    for (std::int64_t i = 0; i < known_; ++i) table_[i] = Rule(axis, i);
  }
  Result operator()(std::int64_t place) const { return place < known_ ? table_[place] : Rule(axis_, place); }

 private:
  static constexpr std::int64_t kKnown = 128;
  const Axis& axis_;
  std::int64_t known_;
  Result table_[kKnown];
};

// The places that one position reads, in chunks of kSize: `value` is a window position, or a divisor.
template <class T> struct List {
  static constexpr int kSize = 32;
  std::int64_t at[kSize];
  T value[kSize];
  int count = 0;
  bool first = true, last = false;  // of the position's chunks
  T start = 0;                      // max: the first window position inside; average: the divisor
};

inline double window_size(const Plan& p) {
  return static_cast<double>(p.axis[0].window * p.axis[1].window * p.axis[2].window);
}

template <class T> struct Pointers {
  const T* x;   // input: x of a forward pass, dy of a backward one
  T* y;         // output: y, or dx
  void* index;  // max_pool: written; max_pool_grad and max_pool_take: read; may be null
};

}  // namespace bp::cpu::pool

#endif  // BP_CPU_KERNELS_POOL_ONCE

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::pool::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D> using Ints = hn::Vec<hn::Rebind<std::int32_t, D>>;

HWY_INLINE Ints<hn::ScalableTag<float>> to_int(hn::ScalableTag<float>, hn::Vec<hn::ScalableTag<float>> v) {
  return hn::ConvertTo(hn::ScalableTag<std::int32_t>(), v);
}
HWY_INLINE hn::Vec<hn::ScalableTag<float>> to_float(hn::ScalableTag<float> d, Ints<hn::ScalableTag<float>> v) {
  return hn::ConvertTo(d, v);
}
#if HWY_HAVE_FLOAT64
HWY_INLINE Ints<hn::ScalableTag<double>> to_int(hn::ScalableTag<double>, hn::Vec<hn::ScalableTag<double>> v) {
  return hn::DemoteTo(hn::Rebind<std::int32_t, hn::ScalableTag<double>>(), v);
}
HWY_INLINE hn::Vec<hn::ScalableTag<double>> to_float(hn::ScalableTag<double> d, Ints<hn::ScalableTag<double>> v) {
  return hn::PromoteTo(d, v);
}
#endif

template <class D> HWY_INLINE void store_index(D d, const Plan& p, hn::Vec<D> v, void* index, std::int64_t at) {
  const auto ints = to_int(d, v);
  if (p.byte_index) {
    const hn::Rebind<std::uint8_t, D> bytes;
    hn::StoreU(hn::DemoteTo(bytes, ints), bytes, static_cast<std::uint8_t*>(index) + at);
  } else {
    hn::StoreU(ints, hn::Rebind<std::int32_t, D>(), static_cast<std::int32_t*>(index) + at);
  }
}

template <class D> HWY_INLINE hn::Vec<D> load_index(D d, const Plan& p, const void* index, std::int64_t at) {
  const hn::Rebind<std::int32_t, D> ints;
  if (!p.byte_index) return to_float(d, hn::LoadU(ints, static_cast<const std::int32_t*>(index) + at));
  const hn::Rebind<std::uint8_t, D> bytes;
  return to_float(d, hn::PromoteTo(ints, hn::LoadU(bytes, static_cast<const std::uint8_t*>(index) + at)));
}

template <class T> HWY_INLINE void store_index_at(const Plan& p, T v, void* index, std::int64_t at) {
  if (p.byte_index)
    static_cast<std::uint8_t*>(index)[at] = static_cast<std::uint8_t>(v);
  else
    static_cast<std::int32_t*>(index)[at] = static_cast<std::int32_t>(v);
}

template <class T> HWY_INLINE T load_index_at(const Plan& p, const void* index, std::int64_t at) {
  return p.byte_index ? static_cast<T>(static_cast<const std::uint8_t*>(index)[at])
                      : static_cast<T>(static_cast<const std::int32_t*>(index)[at]);
}

// y = the largest of x at the list's places, index = its window position.
template <class T> struct MaxPool {
  static HWY_INLINE void apply(const Plan& p, const Pointers<T>& m, const List<T>& l, std::int64_t to) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    constexpr T kLowest = -std::numeric_limits<T>::infinity();
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      auto best = l.first ? hn::Set(d, kLowest) : hn::LoadU(d, m.y + to + c);
      auto chosen = l.first || !m.index ? hn::Set(d, l.start) : load_index(d, p, m.index, to + c);
      for (int i = 0; i < l.count; ++i) {
        const auto v = hn::LoadU(d, m.x + l.at[i] + c);
        const auto better = hn::Or(hn::Gt(v, best), hn::AndNot(hn::IsNaN(best), hn::IsNaN(v)));
        best = hn::IfThenElse(better, v, best);
        chosen = hn::IfThenElse(better, hn::Set(d, l.value[i]), chosen);
      }
      hn::StoreU(best, d, m.y + to + c);
      if (m.index) store_index(d, p, chosen, m.index, to + c);
    }
    for (; c < p.channels; ++c) {
      T best = l.first ? kLowest : m.y[to + c];
      T chosen = l.first || !m.index ? l.start : load_index_at<T>(p, m.index, to + c);
      for (int i = 0; i < l.count; ++i) {
        const T v = m.x[l.at[i] + c];
        if (v > best || (v != v && best == best)) best = v, chosen = l.value[i];
      }
      m.y[to + c] = best;
      if (m.index) store_index_at(p, chosen, m.index, to + c);
    }
  }
};

// dx = sum of dy over the list's windows whose index is this position.
template <class T> struct MaxPoolGrad {
  static HWY_INLINE void apply(const Plan& p, const Pointers<T>& m, const List<T>& l, std::int64_t to) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      auto sum = l.first ? hn::Zero(d) : hn::LoadU(d, m.y + to + c);
      for (int i = 0; i < l.count; ++i) {
        const auto mine = hn::Eq(load_index(d, p, m.index, l.at[i] + c), hn::Set(d, l.value[i]));
        sum = hn::Add(sum, hn::IfThenElseZero(mine, hn::LoadU(d, m.x + l.at[i] + c)));
      }
      hn::StoreU(sum, d, m.y + to + c);
    }
    for (; c < p.channels; ++c) {
      T sum = l.first ? T(0) : m.y[to + c];
      for (int i = 0; i < l.count; ++i)
        if (load_index_at<T>(p, m.index, l.at[i] + c) == l.value[i]) sum += m.x[l.at[i] + c];
      m.y[to + c] = sum;
    }
  }

  // The window at `from` to its places along the last axis, numbered from `first`.
  static HWY_INLINE void spread(const Plan& p, const Pointers<T>& m, std::int64_t from, T* to, T first) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), window = p.axis[2].window;
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      const auto dy = hn::LoadU(d, m.x + from + c);
      const auto tap = hn::Sub(load_index(d, p, m.index, from + c), hn::Set(d, first));
      for (std::int64_t t = 0; t < window; ++t)
        hn::StoreU(hn::IfThenElseZero(hn::Eq(tap, hn::Set(d, static_cast<T>(t))), dy), d, to + t * p.channels + c);
    }
    for (; c < p.channels; ++c)
      for (std::int64_t t = 0; t < window; ++t)
        to[t * p.channels + c] =
            load_index_at<T>(p, m.index, from + c) == first + static_cast<T>(t) ? m.x[from + c] : T(0);
  }
};

// y = x at the list's place whose window position is the index.
template <class T> struct MaxPoolTake {
  static HWY_INLINE void apply(const Plan& p, const Pointers<T>& m, const List<T>& l, std::int64_t to) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      const auto index = load_index(d, p, m.index, to + c);
      auto taken = l.first ? hn::Zero(d) : hn::LoadU(d, m.y + to + c);
      for (int i = 0; i < l.count; ++i)
        taken = hn::IfThenElse(hn::Eq(index, hn::Set(d, l.value[i])), hn::LoadU(d, m.x + l.at[i] + c), taken);
      hn::StoreU(taken, d, m.y + to + c);
    }
    for (; c < p.channels; ++c) {
      const T index = load_index_at<T>(p, m.index, to + c);
      T taken = l.first ? T(0) : m.y[to + c];
      for (int i = 0; i < l.count; ++i) taken = index == l.value[i] ? m.x[l.at[i] + c] : taken;
      m.y[to + c] = taken;
    }
  }
};

// y = (sum of x at the list's places) / start.
template <class T> struct AvgPool {
  static HWY_INLINE void apply(const Plan& p, const Pointers<T>& m, const List<T>& l, std::int64_t to) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    const auto by = hn::Set(d, l.start);
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      auto sum = l.first ? hn::Zero(d) : hn::LoadU(d, m.y + to + c);
      for (int i = 0; i < l.count; ++i) sum = hn::Add(sum, hn::LoadU(d, m.x + l.at[i] + c));
      hn::StoreU(l.last ? hn::Div(sum, by) : sum, d, m.y + to + c);
    }
    for (; c < p.channels; ++c) {
      T sum = l.first ? T(0) : m.y[to + c];
      for (int i = 0; i < l.count; ++i) sum += m.x[l.at[i] + c];
      m.y[to + c] = l.last ? sum / l.start : sum;
    }
  }
};

// dx = sum of dy / divisor over the list's windows.
template <class T> struct AvgPoolGrad {
  static HWY_INLINE void apply(const Plan& p, const Pointers<T>& m, const List<T>& l, std::int64_t to) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      auto sum = l.first ? hn::Zero(d) : hn::LoadU(d, m.y + to + c);
      for (int i = 0; i < l.count; ++i)
        sum = hn::Add(sum, hn::Div(hn::LoadU(d, m.x + l.at[i] + c), hn::Set(d, l.value[i])));
      hn::StoreU(sum, d, m.y + to + c);
    }
    for (; c < p.channels; ++c) {
      T sum = l.first ? T(0) : m.y[to + c];
      for (int i = 0; i < l.count; ++i) sum += m.x[l.at[i] + c] / l.value[i];
      m.y[to + c] = sum;
    }
  }

  static HWY_INLINE void spread(const Plan& p, const Pointers<T>& m, std::int64_t from, T* to, T by) {
    const hn::ScalableTag<T> d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), window = p.axis[2].window;
    std::int64_t c = 0;
    for (; c + lanes <= p.channels; c += lanes) {
      const auto each = hn::Div(hn::LoadU(d, m.x + from + c), hn::Set(d, by));
      for (std::int64_t t = 0; t < window; ++t) hn::StoreU(each, d, to + t * p.channels + c);
    }
    for (; c < p.channels; ++c)
      for (std::int64_t t = 0; t < window; ++t) to[t * p.channels + c] = m.x[from + c] / by;
  }
};

// Appends a place; a full list is applied first.
template <class T, class Op>
HWY_INLINE void push(const Plan& p, const Pointers<T>& m, List<T>& l, std::int64_t to, std::int64_t at, T value) {
  if (l.count == List<T>::kSize) {
    Op::apply(p, m, l, to);
    l.first = false;
    l.count = 0;
  }
  l.at[l.count] = at;
  l.value[l.count++] = value;
}

template <class T> HWY_INLINE T divisor(const Plan& p, std::int64_t inside) {
  return p.include_pad ? static_cast<T>(window_size(p)) : static_cast<T>(std::max<std::int64_t>(inside, 1));
}

// Rows [begin, end) of y: each output reads the places of its window.
template <class T, class Op, bool kAverage>
void over_outputs(const Plan& p, const Pointers<T>& m, std::int64_t begin, std::int64_t end) {
  const Axis(&a)[3] = p.axis;
  const AxisTable<Taps, taps_of> taps2(a[2], a[2].out);
  const std::int64_t step = a[2].dilation * p.channels;
  for (std::int64_t r = begin; r < end; ++r) {
    const Taps w0 = taps_of(a[0], r / a[1].out % a[0].out), w1 = taps_of(a[1], r % a[1].out);
    const std::int64_t image = r / (a[0].out * a[1].out) * a[0].in;
    const auto position = [&](std::int64_t k, const Taps& w2) {
      List<T> l;
      const std::int64_t inside = (w0.hi - w0.lo) * (w1.hi - w1.lo) * (w2.hi - w2.lo);
      const std::int64_t first_tap = (w0.lo * a[1].window + w1.lo) * a[2].window + w2.lo;
      l.start = kAverage ? divisor<T>(p, inside) : static_cast<T>(inside > 0 ? first_tap : 0);
      for (std::int64_t t0 = w0.lo; t0 < w0.hi; ++t0)
        for (std::int64_t t1 = w1.lo; t1 < w1.hi; ++t1) {
          const std::int64_t line = (image + w0.start + t0 * a[0].dilation) * a[1].in + w1.start + t1 * a[1].dilation;
          const std::int64_t at = (line * a[2].in + w2.start) * p.channels;
          const std::int64_t tap = (t0 * a[1].window + t1) * a[2].window;
          for (std::int64_t t2 = w2.lo; t2 < w2.hi; ++t2)
            push<T, Op>(p, m, l, (r * a[2].out + k) * p.channels, at + t2 * step, static_cast<T>(tap + t2));
        }
      l.last = true;
      return l;
    };
    // Windows that lie inside read the same places, each shifted by the stride.
    const bool repeats = window_size(p) <= List<T>::kSize;
    for (std::int64_t k = 0; k < a[2].out;) {
      const Taps w2 = taps2(k);
      const List<T> l = position(k, w2);
      Pointers<T> shifted = m;
      do {
        Op::apply(p, shifted, l, (r * a[2].out + k) * p.channels);
        shifted.x += a[2].stride * p.channels;
        ++k;
      } while (repeats && w2.hi - w2.lo == a[2].window && k < a[2].out && taps2(k).hi - taps2(k).lo == a[2].window);
    }
  }
}

// Rows [begin, end) of dx: each input reads the windows that contain it, in the order of the windows.
template <class T, class Op, bool kAverage>
void over_inputs(const Plan& p, const Pointers<T>& m, std::int64_t begin, std::int64_t end) {
  const Axis(&a)[3] = p.axis;
  const AxisTable<Owners, owners_of> owners1(a[1], a[1].in), owners2(a[2], a[2].in);
  const auto inside = [](const Axis& axis, std::int64_t o) {
    const Taps w = taps_of(axis, o);
    return w.hi - w.lo;
  };
  for (std::int64_t r = begin; r < end; ++r) {
    const Owners w0 = owners_of(a[0], r / a[1].in % a[0].in), w1 = owners1(r % a[1].in);
    const std::int64_t image = r / (a[0].in * a[1].in) * a[0].out;
    for (std::int64_t k = 0; k < a[2].in; ++k) {
      const Owners w2 = owners2(k);
      const std::int64_t to = (r * a[2].in + k) * p.channels;
      List<T> l;
      for (std::int64_t i = 0; i < w0.count; ++i)
        for (std::int64_t j = 0; j < w1.count; ++j) {
          const std::int64_t o0 = w0.o + i * w0.step_o, o1 = w1.o + j * w1.step_o;
          const std::int64_t line = ((image + o0) * a[1].out + o1) * a[2].out;
          const std::int64_t tap = ((w0.t - i * w0.step_t) * a[1].window + w1.t - j * w1.step_t) * a[2].window + w2.t;
          const std::int64_t outer = kAverage ? inside(a[0], o0) * inside(a[1], o1) : 0;
          for (std::int64_t n = 0; n < w2.count; ++n) {
            const std::int64_t o2 = w2.o + n * w2.step_o;
            const T value = kAverage ? divisor<T>(p, outer * inside(a[2], o2)) : static_cast<T>(tap - n * w2.step_t);
            push<T, Op>(p, m, l, to, (line + o2) * p.channels, value);
          }
        }
      Op::apply(p, m, l, to);
    }
  }
}

// The same where windows do not overlap and tile the last axis: each window's values are read once a row of dx.
template <class T, class Op, bool kAverage>
void over_tiles(const Plan& p, const Pointers<T>& m, std::int64_t begin, std::int64_t end) {
  const Axis(&a)[3] = p.axis;
  const std::int64_t tile = a[2].window * p.channels, covered = std::min(a[2].out * a[2].window, a[2].in);
  for (std::int64_t r = begin; r < end; ++r) {
    const Owners w0 = owners_of(a[0], r / a[1].in % a[0].in), w1 = owners_of(a[1], r % a[1].in);
    T* const row = m.y + r * a[2].in * p.channels;
    if (w0.count == 0 || w1.count == 0) {
      std::fill_n(row, a[2].in * p.channels, T(0));
      continue;
    }
    const std::int64_t image = r / (a[0].in * a[1].in) * a[0].out;
    const std::int64_t from = ((image + w0.o) * a[1].out + w1.o) * a[2].out * p.channels;
    const Taps in0 = taps_of(a[0], w0.o), in1 = taps_of(a[1], w1.o);
    const T value = kAverage ? divisor<T>(p, (in0.hi - in0.lo) * (in1.hi - in1.lo) * a[2].window)
                             : static_cast<T>((w0.t * a[1].window + w1.t) * a[2].window);
    for (std::int64_t k = 0; k < a[2].out; ++k) Op::spread(p, m, from + k * p.channels, row + k * tile, value);
    std::fill_n(row + covered * p.channels, (a[2].in - covered) * p.channels, T(0));
  }
}

#define BP_POOL_ROWS(name, driver, op, average)                                                     \
  void name##_f32(const Plan& p, const Pointers<float>& m, std::int64_t begin, std::int64_t end) {  \
    driver<float, op<float>, average>(p, m, begin, end);                                            \
  }                                                                                                 \
  void name##_f64(const Plan& p, const Pointers<double>& m, std::int64_t begin, std::int64_t end) { \
    driver<double, op<double>, average>(p, m, begin, end);                                          \
  }
BP_POOL_ROWS(max_row, over_outputs, MaxPool, false)
BP_POOL_ROWS(max_grad_row, over_inputs, MaxPoolGrad, false)
BP_POOL_ROWS(max_take_row, over_outputs, MaxPoolTake, false)
BP_POOL_ROWS(avg_row, over_outputs, AvgPool, true)
BP_POOL_ROWS(avg_grad_row, over_inputs, AvgPoolGrad, true)
BP_POOL_ROWS(max_grad_tiles, over_tiles, MaxPoolGrad, false)
BP_POOL_ROWS(avg_grad_tiles, over_tiles, AvgPoolGrad, true)
#undef BP_POOL_ROWS

}  // namespace bp::cpu::pool::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "base/error.h"
#include "cpu/kernels/share.h"

namespace bp::cpu {
namespace pool {

#define BP_POOL_EXPORT(name) \
  HWY_EXPORT(name##_f32);    \
  HWY_EXPORT(name##_f64);
BP_POOL_EXPORT(max_row)
BP_POOL_EXPORT(max_grad_row)
BP_POOL_EXPORT(max_take_row)
BP_POOL_EXPORT(avg_row)
BP_POOL_EXPORT(avg_grad_row)
BP_POOL_EXPORT(max_grad_tiles)
BP_POOL_EXPORT(avg_grad_tiles)
#undef BP_POOL_EXPORT

namespace {

Plan plan_of(const PoolSpec& s) {
  Plan p;
  for (int i = 0; i < s.spatial; ++i) {
    const auto from = static_cast<std::size_t>(i);
    p.axis[3 - s.spatial + i] = {s.in[from],     s.out[from],      s.window[from],
                                 s.stride[from], s.dilation[from], s.pad_low[from]};
  }
  p.channels = s.channels;
  p.include_pad = s.count_include_pad;
  p.byte_index = s.index == u8;
  return p;
}

// Whether no two windows share a place of x, and those of the last axis lie side by side, all inside.
bool tiles(const PoolSpec& s) {
  const Plan p = plan_of(s);
  for (const Axis& a : p.axis)
    if (a.dilation != 1 || a.stride < a.window) return false;
  const Axis& last = p.axis[2];
  return last.stride == last.window && last.pad == 0 && last.out * last.window <= last.in;
}

template <class T> using RowKernel = void (*)(const Plan&, const Pointers<T>&, std::int64_t begin, std::int64_t end);

// Shares the rows (all but the last axis) of the output out to the threads.
template <class T>
void each_row(const Plan& p, std::int64_t batch, bool over_input, const Pointers<T>& m, RowKernel<T> kernel,
              int threads) {
  const Axis &a = p.axis[0], &b = p.axis[1];
  const std::int64_t rows = batch * (over_input ? a.in * b.in : a.out * b.out);
  share(rows, threads, [&](std::int64_t begin, std::int64_t end) { kernel(p, m, begin, end); });
}

void run(const PoolSpec& s, bool over_input, const void* x, void* y, void* index, RowKernel<float> f32_kernel,
         RowKernel<double> f64_kernel, int threads) {
  const Plan p = plan_of(s);
  if (s.dtype == f32)
    return each_row<float>(p, s.batch, over_input, {static_cast<const float*>(x), static_cast<float*>(y), index},
                           f32_kernel, threads);
  if (s.dtype != f64) fail(ErrorKind::dtype, "[pool] expected f32 or f64, got {}", name_of(s.dtype));
  each_row<double>(p, s.batch, over_input, {static_cast<const double*>(x), static_cast<double*>(y), index}, f64_kernel,
                   threads);
}

}  // namespace
}  // namespace pool

using namespace pool;

double PoolSpec::bytes() const noexcept {
  double positions_in = 1, positions_out = 1;
  for (int i = 0; i < spatial; ++i) {
    positions_in *= static_cast<double>(in[static_cast<std::size_t>(i)]);
    positions_out *= static_cast<double>(out[static_cast<std::size_t>(i)]);
  }
  return static_cast<double>(batch * channels) * (positions_in + positions_out) * static_cast<double>(size_of(dtype));
}

int PoolSpec::preferred_threads(int most) const { return threads_for_bytes(bytes(), most); }

void max_pool(const PoolSpec& spec, const void* x, void* y, void* index, int threads) {
  run(spec, false, x, y, index, BP_SIMD_DISPATCH(max_row_f32), BP_SIMD_DISPATCH(max_row_f64), threads);
}

void max_pool_grad(const PoolSpec& spec, const void* dy, const void* index, void* dx, int threads) {
  void* const places = const_cast<void*>(index);
  if (tiles(spec))
    return run(spec, true, dy, dx, places, BP_SIMD_DISPATCH(max_grad_tiles_f32), BP_SIMD_DISPATCH(max_grad_tiles_f64),
               threads);
  run(spec, true, dy, dx, places, BP_SIMD_DISPATCH(max_grad_row_f32), BP_SIMD_DISPATCH(max_grad_row_f64), threads);
}

void max_pool_take(const PoolSpec& spec, const void* x, const void* index, void* y, int threads) {
  run(spec, false, x, y, const_cast<void*>(index), BP_SIMD_DISPATCH(max_take_row_f32),
      BP_SIMD_DISPATCH(max_take_row_f64), threads);
}

void avg_pool(const PoolSpec& spec, const void* x, void* y, int threads) {
  run(spec, false, x, y, nullptr, BP_SIMD_DISPATCH(avg_row_f32), BP_SIMD_DISPATCH(avg_row_f64), threads);
}

void avg_pool_grad(const PoolSpec& spec, const void* dy, void* dx, int threads) {
  if (tiles(spec))
    return run(spec, true, dy, dx, nullptr, BP_SIMD_DISPATCH(avg_grad_tiles_f32), BP_SIMD_DISPATCH(avg_grad_tiles_f64),
               threads);
  run(spec, true, dy, dx, nullptr, BP_SIMD_DISPATCH(avg_grad_row_f32), BP_SIMD_DISPATCH(avg_grad_row_f64), threads);
}

}  // namespace bp::cpu

#endif  // HWY_ONCE

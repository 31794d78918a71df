// Register tiles of the direct convolution.
#include "cpu/kernels/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/kernels/conv_tiles.cc"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "cpu/kernels/simd_portable-inl.h"
// clang-format on
#include <algorithm>
#include <utility>

#include "cpu/kernels/conv_tiles.h"

HWY_BEFORE_NAMESPACE();
namespace bp::cpu::HWY_NAMESPACE {
namespace {

constexpr int kRows = 6, kVectors = 2;  // 12 accumulators, two vectors and a broadcast: 15 of 16 registers
using Shape = DirectConv::Shape;

struct Place {  // of a row
  std::int64_t n, d0, d1;
};
Place place_of(const Shape& s, std::int64_t row) {
  return {row / (s.out[0] * s.out[1]), row / s.out[1] % s.out[0], row % s.out[1]};
}

// The part of `count` that is number k of `parts` nearly equal ones.
std::pair<std::int64_t, std::int64_t> part(std::int64_t count, std::int64_t parts, std::int64_t k) {
  return {count * k / parts, count * (k + 1) / parts};
}

// ---- forward ----
template <class T> struct ForwardTile {
  const Shape& s;
  const T* image;  // x of this sample
  const T* w;      // packed, of this tile of channels
  const T* zeros;
  const T* bias;               // of this tile, or null
  const T* residual;           // at the first position and channel, or null
  T* y;                        // likewise
  std::int64_t in0, in1, in2;  // where the first tap of the first position lies, padding included
  std::int64_t channels;       // of this tile
};

template <class T, int kPositions, int kCols> void forward_tile(const ForwardTile<T>& t) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Shape& s = t.s;
  V acc[kPositions][kCols];
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[p][j] = hn::Zero(d);
  const std::int64_t channels = s.in_channels, tile = kVectors * lanes;
  const T* HWY_RESTRICT w = t.w;
  for (std::int64_t k0 = 0, i0 = t.in0; k0 < s.kernel[0]; ++k0, i0 += s.dilation[0])
    for (std::int64_t k1 = 0, i1 = t.in1; k1 < s.kernel[1]; ++k1, i1 += s.dilation[1]) {
      if (i0 < 0 || i0 >= s.in[0] || i1 < 0 || i1 >= s.in[1]) {  // a row of padding
        w += s.kernel[2] * channels * tile;
        continue;
      }
      const T* row = t.image + (i0 * s.in[1] + i1) * s.in[2] * channels;
      for (std::int64_t k2 = 0, i2 = t.in2; k2 < s.kernel[2]; ++k2, i2 += s.dilation[2]) {
        const T* x[kPositions];
#pragma GCC unroll 8
        for (int p = 0; p < kPositions; ++p) {
          const std::int64_t at = i2 + p * s.stride[2];
          x[p] = at >= 0 && at < s.in[2] ? row + at * channels : t.zeros;
        }
        for (std::int64_t c = 0; c < channels; ++c, w += tile) {
          V b[kCols];
#pragma GCC unroll 8
          for (int j = 0; j < kCols; ++j) b[j] = hn::LoadU(d, w + j * lanes);
#pragma GCC unroll 8
          for (int p = 0; p < kPositions; ++p) {
            const V a = hn::Set(d, x[p][c]);
#pragma GCC unroll 8
            for (int j = 0; j < kCols; ++j) acc[p][j] = hn::MulAdd(a, b[j], acc[p][j]);
          }
        }
      }
    }
#pragma GCC unroll 8
  for (int j = 0; j < kCols; ++j) {
    const std::int64_t left = t.channels - j * lanes;
    const auto m = hn::FirstN(d, static_cast<std::size_t>(std::clamp<std::int64_t>(left, 0, lanes)));
    const bool whole = left >= lanes;
    const auto load = [&](const T* from) { return whole ? hn::LoadU(d, from) : load_first(d, m, from); };
    const V shift = t.bias != nullptr ? load(t.bias + j * lanes) : hn::Zero(d);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) {
      const std::int64_t at = p * s.out_channels + j * lanes;
      V v = hn::Add(acc[p][j], shift);
      if (t.residual != nullptr) v = hn::Add(v, load(t.residual + at));
      if (s.accumulate) v = hn::Add(v, load(t.y + at));
      if (s.relu) v = max_or_second(hn::Zero(d), v);
      if (whole)
        hn::StoreU(v, d, t.y + at);
      else
        hn::BlendedStore(v, m, d, t.y + at);
    }
  }
}

template <class T> using ForwardFn = void (*)(const ForwardTile<T>&);
template <class T> struct ForwardTable { ForwardFn<T> at[kRows][kVectors]; };
template <class T, int... kP> constexpr ForwardTable<T> forward_table(std::integer_sequence<int, kP...>) {
  return {{{forward_tile<T, kP + 1, 1>, forward_tile<T, kP + 1, 2>}...}};
}

// All channels for rows of one plane, tile by tile: the weights of a tile stay in the first cache meanwhile.
template <class T>
void forward(const Shape& s, const void* x, const void* w, const void* bias, const void* residual, void* y,
             const void* zeros, std::int64_t begin, std::int64_t end) {
  static constexpr ForwardTable<T> kTable = forward_table<T>(std::make_integer_sequence<int, kRows>());
  constexpr std::int64_t kRowsAtOnce = 16;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::int64_t tile = kVectors * lanes, width = s.out[2], parts = (width + kRows - 1) / kRows;
  const std::int64_t tile_weights = s.taps() * s.in_channels * tile;
  for (std::int64_t first = begin; first < end; first += kRowsAtOnce)
    for (std::int64_t c = 0; c < s.out_channels; c += tile)
      for (std::int64_t row = first; row < std::min(end, first + kRowsAtOnce); ++row) {
        const Place at = place_of(s, row);
        ForwardTile<T> t{s,
                         static_cast<const T*>(x) + at.n * s.in[0] * s.in[1] * s.in[2] * s.in_channels,
                         static_cast<const T*>(w) + c / tile * tile_weights,
                         static_cast<const T*>(zeros),
                         bias != nullptr ? static_cast<const T*>(bias) + c : nullptr,
                         nullptr,
                         nullptr,
                         at.d0 * s.stride[0] - s.pad[0],
                         at.d1 * s.stride[1] - s.pad[1],
                         0,
                         std::min(tile, s.out_channels - c)};
        for (std::int64_t k = 0; k < parts; ++k) {
          const auto [from, to] = part(width, parts, k);
          const std::int64_t place = (row * width + from) * s.out_channels + c;
          t.residual = residual != nullptr ? static_cast<const T*>(residual) + place : nullptr;
          t.y = static_cast<T*>(y) + place;
          t.in2 = from * s.stride[2] - s.pad[2];
          kTable.at[to - from - 1][t.channels > lanes ? 1 : 0](t);
        }
      }
}

// ---- weight gradient ----
constexpr std::int64_t kMostRows = 64;

// A block of rows as one tap sees it. The sum over its positions stays in registers.
template <class T> struct GradTile {
  const T* const* x;  // by row: the position that meets the first one of dy, at the first channel; null: padding
  const T* const* dy;
  std::int64_t rows, positions;
  std::int64_t x_step, dy_step;
  T* sum;
  std::int64_t sum_step;
  std::int64_t tail;  // channels of the last vector
};

template <class T, int kChannels, int kCols, bool kMasked> void grad_tile(const GradTile<T>& t) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto m = hn::FirstN(d, static_cast<std::size_t>(t.tail));
  const auto load = [&](const T* from) {
    if constexpr (kMasked)
      return load_first(d, m, from);
    else
      return hn::LoadU(d, from);
  };
  V acc[kChannels][kCols];
#pragma GCC unroll 8
  for (int i = 0; i < kChannels; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) acc[i][j] = hn::Zero(d);
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const T* HWY_RESTRICT x = t.x[r];
    const T* HWY_RESTRICT dy = t.dy[r];
    if (x == nullptr) continue;
    for (std::int64_t p = 0; p < t.positions; ++p, x += t.x_step, dy += t.dy_step) {
      V b[kCols];
#pragma GCC unroll 8
      for (int j = 0; j < kCols; ++j) b[j] = load(dy + j * lanes);
#pragma GCC unroll 8
      for (int i = 0; i < kChannels; ++i) {
        const V a = hn::Set(d, x[i]);
#pragma GCC unroll 8
        for (int j = 0; j < kCols; ++j) acc[i][j] = hn::MulAdd(a, b[j], acc[i][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kChannels; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) {
      T* at = t.sum + i * t.sum_step + j * lanes;
      const V v = hn::Add(acc[i][j], load(at));
      if constexpr (kMasked)
        hn::BlendedStore(v, m, d, at);
      else
        hn::StoreU(v, d, at);
    }
}

template <class T> using GradFn = void (*)(const GradTile<T>&);
template <class T> struct GradTable {
  GradFn<T> at[kRows][3];  // one vector, two, part of one
};
template <class T, int... kC> constexpr GradTable<T> grad_table(std::integer_sequence<int, kC...>) {
  return {{{grad_tile<T, kC + 1, 1, false>, grad_tile<T, kC + 1, 2, false>, grad_tile<T, kC + 1, 1, true>}...}};
}

// Every tile of [in channels, out channels] for one tap. x and dy: by row, at channel 0.
template <class T>
void grad_tap(const Shape& s, const T* const* x, const T* const* dy, std::int64_t rows, std::int64_t positions,
              T* sum) {
  static constexpr GradTable<T> kTable = grad_table<T>(std::make_integer_sequence<int, kRows>());
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  const T *x_at[kMostRows], *dy_at[kMostRows];
  GradTile<T> t{x_at, dy_at, rows, positions, s.stride[2] * s.in_channels, s.out_channels, nullptr, s.out_channels, 0};
  const std::int64_t parts = (s.in_channels + kRows - 1) / kRows;
  for (std::int64_t c = 0; c < s.out_channels;) {
    const std::int64_t left = s.out_channels - c;
    const int form = left >= 2 * lanes ? 1 : left >= lanes ? 0 : 2;
    t.tail = form == 2 ? left : lanes;
    for (std::int64_t r = 0; r < rows; ++r) dy_at[r] = dy[r] + c;
    for (std::int64_t k = 0; k < parts; ++k) {
      const auto [from, to] = part(s.in_channels, parts, k);
      for (std::int64_t r = 0; r < rows; ++r) x_at[r] = x[r] == nullptr ? nullptr : x[r] + from;
      t.sum = sum + from * s.out_channels + c;
      kTable.at[to - from - 1][form](t);
    }
    c += form == 1 ? 2 * lanes : t.tail;
  }
}

// The positions of a row of dy that tap k2 carries into x.
std::pair<std::int64_t, std::int64_t> inside(const Shape& s, std::int64_t k2) {
  const std::int64_t shift = k2 * s.dilation[2] - s.pad[2], stride = s.stride[2];
  const std::int64_t from = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
  const std::int64_t room = s.in[2] - 1 - shift;
  const std::int64_t to = room < 0 ? 0 : std::min(s.out[2], room / stride + 1);
  return {std::min(from, to), to};
}

template <class T>
void weight_grad(const Shape& s, const void* x_, const void* dy_, void* sum_, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kPositions = 256;  // long enough to hide what a tile costs at its ends
  const T* x = static_cast<const T*>(x_);
  const T* dy = static_cast<const T*>(dy_);
  const std::int64_t block = std::clamp<std::int64_t>(kPositions / std::max<std::int64_t>(s.out[2], 1), 1, kMostRows);
  const T *x_rows[kMostRows], *dy_rows[kMostRows], *x_at[kMostRows], *dy_at[kMostRows];
  for (std::int64_t first = begin; first < end; first += block) {
    const std::int64_t rows = std::min(block, end - first);
    for (std::int64_t r = 0; r < rows; ++r) dy_rows[r] = dy + (first + r) * s.out[2] * s.out_channels;
    T* sum = static_cast<T*>(sum_);
    for (std::int64_t k0 = 0; k0 < s.kernel[0]; ++k0)
      for (std::int64_t k1 = 0; k1 < s.kernel[1]; ++k1) {
        for (std::int64_t r = 0; r < rows; ++r) {
          const Place at = place_of(s, first + r);
          const std::int64_t i0 = at.d0 * s.stride[0] + k0 * s.dilation[0] - s.pad[0];
          const std::int64_t i1 = at.d1 * s.stride[1] + k1 * s.dilation[1] - s.pad[1];
          const bool there = i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1];
          x_rows[r] = there ? x + ((at.n * s.in[0] + i0) * s.in[1] + i1) * s.in[2] * s.in_channels : nullptr;
        }
        for (std::int64_t k2 = 0; k2 < s.kernel[2]; ++k2, sum += s.in_channels * s.out_channels) {
          const auto [from, to] = inside(s, k2);
          if (from == to) continue;
          const std::int64_t shift = from * s.stride[2] + k2 * s.dilation[2] - s.pad[2];
          for (std::int64_t r = 0; r < rows; ++r) {
            x_at[r] = x_rows[r] == nullptr ? nullptr : x_rows[r] + shift * s.in_channels;
            dy_at[r] = dy_rows[r] + from * s.out_channels;
          }
          grad_tap(s, x_at, dy_at, rows, to - from, sum);
        }
      }
  }
}

template <class T> void fill(ConvTiles& t) {
  t.tile = kVectors * static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<T>()));
  t.forward = forward<T>;
  t.weight_grad = weight_grad<T>;
}
void fill_conv(ConvTiles& f32_table, ConvTiles& f64_table) {
  fill<float>(f32_table);
  fill<double>(f64_table);
}

}  // namespace
}  // namespace bp::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bp::cpu {
HWY_EXPORT(fill_conv);
const ConvTiles& conv_tiles(DType dtype) {
  struct Tables {
    ConvTiles f32_table, f64_table;
    Tables() { BP_SIMD_DISPATCH(fill_conv)(f32_table, f64_table); }
  };
  static const Tables tables;
  return dtype == f64 ? tables.f64_table : tables.f32_table;
}
}  // namespace bp::cpu
#endif

// Strided copies: dimensions are merged and ordered once; then rows, fills, tiled transposes or single elements.
#include "cpu/kernels/strided_copy.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <cstring>

#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

constexpr std::int64_t kChunkBytes = 64 * 1024;
constexpr std::int64_t kBlockTiles = 8;  // a block of 4 x 4 tiles touches few enough pages for the translation cache

// One line of the cache a side: a tile reads and writes whole lines, whatever the strides.
template <class T> constexpr std::int64_t kTile = 64 / static_cast<std::int64_t>(sizeof(T));

// Vectors of 16 bytes, which every processor has: transposing is bound by shuffles and lines, not by width.
using Octets [[gnu::vector_size(16)]] = std::uint16_t;
using Quads [[gnu::vector_size(16)]] = std::uint32_t;
using Pairs [[gnu::vector_size(16)]] = std::uint64_t;

template <class V, class T> V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <class V, class T> void store(V v, T* p) { std::memcpy(p, &v, sizeof(V)); }

// to[j * to_stride + i] = from[i * from_stride + j] for a square of as many elements as fill 16 bytes.
inline void transpose_square(const std::uint64_t* from, std::int64_t from_stride, std::uint64_t* to,
                             std::int64_t to_stride) {
  const auto a = load<Pairs>(from), b = load<Pairs>(from + from_stride);
  store(__builtin_shufflevector(a, b, 0, 2), to);
  store(__builtin_shufflevector(a, b, 1, 3), to + to_stride);
}

inline void transpose_square(const std::uint32_t* from, std::int64_t from_stride, std::uint32_t* to,
                             std::int64_t to_stride) {
  const auto a = load<Quads>(from), b = load<Quads>(from + from_stride);
  const auto c = load<Quads>(from + 2 * from_stride), d = load<Quads>(from + 3 * from_stride);
  const auto ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const auto cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(__builtin_shufflevector(ab0, cd0, 0, 1, 4, 5), to);
  store(__builtin_shufflevector(ab0, cd0, 2, 3, 6, 7), to + to_stride);
  store(__builtin_shufflevector(ab1, cd1, 0, 1, 4, 5), to + 2 * to_stride);
  store(__builtin_shufflevector(ab1, cd1, 2, 3, 6, 7), to + 3 * to_stride);
}

inline void transpose_square(const std::uint16_t* from, std::int64_t from_stride, std::uint16_t* to,
                             std::int64_t to_stride) {
  Octets r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = load<Octets>(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {  // pairs of rows, then of pairs, then of quadruples
    s[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 2, 10, 3, 11);
    s[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 4, 12, 5, 13, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; ++h) {
      r[i + 2 * h] = __builtin_shufflevector(s[i + h], s[i + 2 + h], 0, 1, 8, 9, 2, 3, 10, 11);
      r[i + 2 * h + 1] = __builtin_shufflevector(s[i + h], s[i + 2 + h], 4, 5, 12, 13, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; ++i) {
    store(__builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11), to + 2 * i * to_stride);
    store(__builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15), to + (2 * i + 1) * to_stride);
  }
}

template <class T>
inline void transpose_square(const T* from, std::int64_t from_stride, T* to, std::int64_t to_stride) {
  constexpr std::int64_t kSide = 16 / sizeof(T);
  for (std::int64_t j = 0; j < kSide; ++j)
    for (std::int64_t i = 0; i < kSide; ++i) to[j * to_stride + i] = from[i * from_stride + j];
}

// A whole tile, by way of a buffer: source and destination lines whose addresses collide in the cache are each touched
// once (with strides of 4 KiB, working in place takes four times as long).
template <class T> void transpose_tile(const T* src, std::int64_t from, T* dst, std::int64_t to) {
  constexpr std::int64_t kSide = 16 / sizeof(T);
  alignas(64) T buffer[kTile<T> * kTile<T>];
  for (std::int64_t i = 0; i < kTile<T>; i += kSide)
    for (std::int64_t j = 0; j < kTile<T>; j += kSide)
      transpose_square(src + i * from + j, from, buffer + j * kTile<T> + i, kTile<T>);
  for (std::int64_t j = 0; j < kTile<T>; ++j) std::memcpy(dst + j * to, buffer + j * kTile<T>, 64);
}

// dst[j * to + i] = src[i * from + j] for i < rows, j in [begin, end).
template <class T>
void transpose(const T* src, std::int64_t from, T* dst, std::int64_t to, std::int64_t rows, std::int64_t begin,
               std::int64_t end) {
  constexpr std::int64_t kBlock = kBlockTiles * kTile<T>;
  for (std::int64_t jb = begin; jb < end; jb += kBlock)
    for (std::int64_t ib = 0; ib < rows; ib += kBlock)
      for (std::int64_t i = ib; i < std::min(ib + kBlock, rows); i += kTile<T>)
        for (std::int64_t j = jb; j < std::min(jb + kBlock, end); j += kTile<T>) {
          const std::int64_t i_end = std::min(i + kTile<T>, rows), j_end = std::min(j + kTile<T>, end);
          if (i_end - i == kTile<T> && j_end - j == kTile<T>) {
            transpose_tile(src + i * from + j, from, dst + j * to + i, to);
            continue;
          }
          for (std::int64_t v = j; v < j_end; ++v)
            for (std::int64_t u = i; u < i_end; ++u) dst[v * to + u] = src[u * from + v];
        }
}

}  // namespace

StridedCopy::StridedCopy(std::span<const std::int64_t> sizes, std::span<const std::int64_t> from,
                         std::span<const std::int64_t> to, std::size_t element)
    : element_(element) {
  assert(sizes.size() <= kMaxRank && from.size() == sizes.size() && to.size() == sizes.size());
  assert(element == 1 || element == 2 || element == 4 || element == 8);
  count_ = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    count_ *= sizes[i];
    if (sizes[i] == 1) continue;
    dims_[rank_++] = {sizes[i], from[i], to[i]};
  }
  if (count_ == 0) return;
  order_and_merge();
  choose();
}

// Ascending addresses of dst, largest stride outermost; neighbours that continue each other become one.
void StridedCopy::order_and_merge() {
  for (int i = 0; i < rank_; ++i) {
    Dim& d = dims_[i];
    if (d.to > 0) continue;
    from_offset_ += (d.size - 1) * d.from;
    to_offset_ += (d.size - 1) * d.to;
    d.from = -d.from;
    d.to = -d.to;
  }
  std::sort(dims_, dims_ + rank_, [](const Dim& a, const Dim& b) { return a.to > b.to; });
  int kept = 0;
  for (int i = 1; i < rank_; ++i) {
    Dim& outer = dims_[kept];
    const Dim& inner = dims_[i];
    const bool continues = outer.to == inner.to * inner.size && outer.from == inner.from * inner.size;
    if (continues)
      outer = {outer.size * inner.size, inner.from, inner.to};
    else
      dims_[++kept] = inner;
  }
  rank_ = rank_ == 0 ? 0 : kept + 1;
  if (rank_ == 0) dims_[rank_++] = {1, 1, 1};
}

void StridedCopy::choose() {
  const Dim inner = dims_[rank_ - 1];
  outer_ = rank_ - 1;
  kind_ = Kind::general;
  if (inner.to == 1 && inner.from == 1) kind_ = Kind::rows;
  if (inner.to == 1 && inner.from == 0) kind_ = Kind::fill_rows;
  chunk_ = std::max<std::int64_t>(1, kChunkBytes / static_cast<std::int64_t>(element_));
  if (kind_ == Kind::general && inner.to == 1) {
    const auto across = std::find_if(dims_, dims_ + rank_, [](const Dim& d) { return d.from == 1; });
    if (across != dims_ + rank_) {
      kind_ = Kind::transpose;
      std::rotate(across, across + 1, dims_ + rank_ - 1);
      outer_ = rank_ - 2;
      chunk_ = kBlockTiles * 64 / static_cast<std::int64_t>(element_);
    }
  }
  chunks_ = (dims_[outer_].size + chunk_ - 1) / chunk_;
}

int StridedCopy::preferred_threads(int most) const noexcept { return threads_for_bytes(bytes(), most); }

StridedCopy::Place StridedCopy::place_of(std::int64_t outer) const {
  Place p;
  for (int d = outer_ - 1; d >= 0; --d) {
    p.index[d] = outer % dims_[d].size;
    outer /= dims_[d].size;
    p.from += p.index[d] * dims_[d].from;
    p.to += p.index[d] * dims_[d].to;
  }
  return p;
}

// By `steps` along the last outer dimension, at most to its end.
void StridedCopy::advance(Place& p, std::int64_t steps) const {
  for (int d = outer_ - 1; d >= 0; --d, steps = 1) {
    p.from += steps * dims_[d].from;
    p.to += steps * dims_[d].to;
    p.index[d] += steps;
    if (p.index[d] < dims_[d].size) return;
    p.index[d] = 0;
    p.from -= dims_[d].size * dims_[d].from;
    p.to -= dims_[d].size * dims_[d].to;
  }
}

// The part [begin, end) of the first dimension inside the outer ones.
template <class T, StridedCopy::Kind kKind>
void StridedCopy::run_unit(const T* src, T* dst, std::int64_t begin, std::int64_t end) const {
  const Dim& d = dims_[outer_];
  if constexpr (kKind == Kind::rows) {
    constexpr std::int64_t kShort =
        32 / static_cast<std::int64_t>(sizeof(T));  // below, a call costs more than the copy
    if (end - begin >= kShort)
      std::memcpy(dst + begin, src + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
    else
      for (std::int64_t i = begin; i < end; ++i) dst[i] = src[i];
  } else if constexpr (kKind == Kind::fill_rows) {
    std::fill(dst + begin, dst + end, *src);
  } else if constexpr (kKind == Kind::transpose) {
    transpose(src, dims_[rank_ - 1].from, dst, d.to, dims_[rank_ - 1].size, begin, end);
  } else {
    for (std::int64_t i = begin; i < end; ++i) dst[i * d.to] = src[i * d.from];
  }
}

template <class T, StridedCopy::Kind kKind>
void StridedCopy::run_units(const T* src, T* dst, std::int64_t begin, std::int64_t end) const {
  Place p = place_of(begin / chunks_);
  const std::int64_t size = dims_[outer_].size;
  if (chunks_ > 1) {
    std::int64_t chunk = begin % chunks_;
    for (std::int64_t u = begin; u < end; ++u) {
      run_unit<T, kKind>(src + p.from, dst + p.to, chunk * chunk_, std::min(size, (chunk + 1) * chunk_));
      if (++chunk < chunks_) continue;
      chunk = 0;
      advance(p, 1);
    }
    return;
  }
  // Short units: those along the last outer dimension in one loop.
  const Dim last = outer_ > 0 ? dims_[outer_ - 1] : Dim{};
  for (std::int64_t u = begin; u < end;) {
    const std::int64_t run = outer_ > 0 ? std::min(end - u, last.size - p.index[outer_ - 1]) : 1;
    for (std::int64_t i = 0; i < run; ++i)
      run_unit<T, kKind>(src + p.from + i * last.from, dst + p.to + i * last.to, 0, size);
    advance(p, run);
    u += run;
  }
}

template <class T> void StridedCopy::run_as(const T* src, T* dst, int threads) const {
  std::int64_t units = chunks_;
  for (int d = 0; d < outer_; ++d) units *= dims_[d].size;
  share(units, threads, [&](std::int64_t begin, std::int64_t end) {
    if (begin == end) return;
    const T* from = src + from_offset_;
    T* to = dst + to_offset_;
    switch (kind_) {
      case Kind::rows: return run_units<T, Kind::rows>(from, to, begin, end);
      case Kind::fill_rows: return run_units<T, Kind::fill_rows>(from, to, begin, end);
      case Kind::transpose: return run_units<T, Kind::transpose>(from, to, begin, end);
      case Kind::general: return run_units<T, Kind::general>(from, to, begin, end);
      case Kind::nothing: return;
    }
  });
}

void StridedCopy::run(const void* src, void* dst, int threads) const {
  if (kind_ == Kind::nothing) return;
  switch (element_) {
    case 1: return run_as(static_cast<const std::uint8_t*>(src), static_cast<std::uint8_t*>(dst), threads);
    case 2: return run_as(static_cast<const std::uint16_t*>(src), static_cast<std::uint16_t*>(dst), threads);
    case 4: return run_as(static_cast<const std::uint32_t*>(src), static_cast<std::uint32_t*>(dst), threads);
    default: return run_as(static_cast<const std::uint64_t*>(src), static_cast<std::uint64_t*>(dst), threads);
  }
}

namespace {
template <class T> void fill_as(void* dst, const void* value, std::int64_t count, int threads) {
  T v;
  std::memcpy(&v, value, sizeof(T));
  T* to = static_cast<T*>(dst);
  share(count, threads, [&](std::int64_t begin, std::int64_t end) { std::fill(to + begin, to + end, v); });
}
}  // namespace

void fill_elements(void* dst, const void* value, std::int64_t count, std::size_t element, int threads) {
  switch (element) {
    case 1: return fill_as<std::uint8_t>(dst, value, count, threads);
    case 2: return fill_as<std::uint16_t>(dst, value, count, threads);
    case 4: return fill_as<std::uint32_t>(dst, value, count, threads);
    default: return fill_as<std::uint64_t>(dst, value, count, threads);
  }
}

}  // namespace bp::cpu

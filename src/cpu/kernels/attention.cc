// The loops over blocks of queries and keys; register tiles come from matmul_micro.cc, row operations from
// attention_rows.cc.
#include "cpu/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/random_word.h"
#include "cpu/kernels/attention_pairs.h"
#include "cpu/kernels/attention_rows.h"
#include "cpu/kernels/loop_tiles.h"
#include "cpu/kernels/matmul_micro.h"
#include "cpu/kernels/share.h"
#include "ops/attention.h"

namespace bp::cpu {

namespace {

// A tile of scores meets 64 queries (kTileLd) and as many keys: two of f32, as the backward pass has them, are 32 KB.
constexpr std::int64_t kQueries = kTileLd, kKeys = 64;
constexpr std::int64_t kUnitKeys = 128;  // of a part of the backward pass

std::int64_t blocks(std::int64_t n, std::int64_t step) { return (n + step - 1) / step; }

// f(first row, rows) for tiles as equal as can be.
template <class F> void each_tile(std::int64_t rows, F f) {
  std::int64_t tiles = blocks(rows, kMicroRows);
  for (std::int64_t row = 0, n = 0; row < rows; row += n, --tiles) f(row, n = (rows - row + tiles - 1) / tiles);
}

// Where a tile stands: queries [first, first + count) and keys [key, key + keys) of a head.
struct Place {
  std::int64_t b, h, first, count, key, keys;
};

// Rows that are read soon, asked for a few at a time while tiles are computed with. The rows of a head lie apart, which
// the processor's own fetching ahead does not see.
class Ahead {
 public:
  void clear() { count_ = 0; }
  void add(const void* first, std::int64_t stride, std::int64_t bytes, std::int64_t rows) {
    if (rows > 0 && count_ < kRanges) ranges_[count_++] = {static_cast<const char*>(first), stride, bytes, rows};
  }
  void step() {
    constexpr std::int64_t kRows = 8, kLine = 64;
    for (std::int64_t n = 0; n < kRows && count_ > 0; ++n) {
      Rows& r = ranges_[count_ - 1];
      for (std::int64_t at = 0; at < r.bytes; at += kLine) __builtin_prefetch(r.first + at, 0, 2);
      r.first += r.stride;
      if (--r.rows == 0) --count_;
    }
  }

 private:
  static constexpr int kRanges = 6;
  struct Rows {
    const char* first;
    std::int64_t stride, bytes, rows;
  };
  Rows ranges_[kRanges];
  int count_ = 0;
};

// What one thread works with: a spec, its operands and typed helpers. T: of scores and sums; S: of operands and
// results. Products of bf16 read pairs of numbers as elements E of 32 bits: of a row where they add up along it, of two
// rows where they add up over rows.
template <class T, class S> struct Work {
  static constexpr bool kPairs = !std::is_same_v<T, S>;
  using E = std::conditional_t<kPairs, std::uint32_t, T>;
  const AttentionSpec& s;
  const AttentionArgs& args;
  const MicroTable& micro = micro_table(dtype_of<T>);
  const MicroTable& tiles = kPairs ? pair_products() : micro;
  const AttentionRows<T>& simd = attention_rows(T{});
  const AttentionBf16& halves = attention_bf16();
  std::int64_t group = s.heads / s.key_heads;
  // Room for operands as pairs: rows [kKeys, depth | values], pairs of rows of them, pairs of keys of a tile.
  E *row_room = nullptr, *pair_room = nullptr, *tile_room = nullptr;
  T* turn_room = nullptr;
  TokenStrides out{0, s.queries* s.heads* s.values, s.heads* s.values, s.values};
  Ahead ahead = {};

  static std::int64_t pairs(std::int64_t n) { return kPairs ? (n + 1) / 2 : n; }
  template <class Pieces> void take_rooms(Pieces& p) {
    if constexpr (kPairs) {
      const std::int64_t n = std::max(s.depth, s.values);
      row_room = p.template take<E>(kKeys * pairs(n));
      pair_room = p.template take<E>(pairs(kKeys) * n);
      tile_room = p.template take<E>(pairs(kKeys) * kTileLd);
      turn_room = p.template take<T>(kQueries * n);
    }
  }

  static const S* at(const void* p, const TokenStrides& by, std::int64_t b, std::int64_t i, std::int64_t h) {
    return static_cast<const S*>(p) + by.first + b * by.batch + i * by.token + h * by.head;
  }
  const S* q(std::int64_t b, std::int64_t i, std::int64_t h) const { return at(args.q, s.q, b, i, h); }
  const S* k(std::int64_t b, std::int64_t j, std::int64_t h) const { return at(args.k, s.k, b, j, h); }
  const S* v(std::int64_t b, std::int64_t j, std::int64_t h) const { return at(args.v, s.v, b, j, h); }
  std::int64_t out_at(std::int64_t b, std::int64_t i, std::int64_t h) const {
    return b * out.batch + i * out.token + h * out.head;
  }
  std::int64_t lse_at(std::int64_t b, std::int64_t i, std::int64_t h) const {
    return (b * s.heads + h) * s.queries + i;
  }

  // Keys that queries up to i see at most, and how far query `first` sees beyond its own number from key j on.
  std::int64_t offset(std::int64_t b) const {
    return args.offset == nullptr ? 0 : std::clamp<std::int64_t>(args.offset[b], -s.queries - 1, s.keys);
  }
  std::int64_t seen(std::int64_t b, std::int64_t i) const {
    const std::int64_t length = args.lengths == nullptr ? s.keys : std::clamp<std::int64_t>(args.lengths[b], 0, s.keys);
    return s.causal ? std::clamp<std::int64_t>(i + offset(b) + 1, 0, length) : length;
  }
  TileView view(const Place& p) const {
    const std::int64_t shift = s.causal ? std::clamp(p.first + offset(p.b) - p.key, -kTileLd, kKeys) : kKeys;
    return {p.keys, up_to(p.count, micro.lanes), shift};
  }
  // f(first key, end, first query) for runs of keys of a tile, without the vectors of queries of which none sees them.
  template <class F> void each_run(const TileView& t, F f) const {
    for (std::int64_t j = 0, end = 0; j < t.keys; j = end) {
      const std::int64_t hidden = std::max<std::int64_t>(j - t.shift, 0) / micro.lanes * micro.lanes;
      if (hidden >= t.queries) return;
      end = std::min(t.keys, hidden + micro.lanes + t.shift);
      f(j, end, hidden);
    }
  }

  // c [m, n] (+)= a [m, k] b, with a(i, p) = a[i a_row + p a_k].
  struct Product {
    std::int64_t m, n, k;
    const E* a;
    std::int64_t a_row, a_k;
    const E* b;
    std::int64_t ldb;
    T* c;
    std::int64_t ldc;
    bool accumulate;
  };
  void product(const Product& p) {
    TileProduct t;
    t.k = p.k, t.a_row = p.a_row, t.a_k = p.a_k, t.ldb = p.ldb;
    t.out.ldc = p.ldc, t.out.accumulate = p.accumulate;
    const std::int64_t width = tiles.lanes * tiles.vectors;
    for (std::int64_t c = 0; c < p.n; c += width) {
      const std::int64_t columns = std::min(width, p.n - c), vectors = blocks(columns, micro.lanes);
      t.tail = columns - (vectors - 1) * micro.lanes;
      t.b = p.b + c;
      each_tile(p.m, [&](std::int64_t row, std::int64_t rows) {
        ahead.step();
        t.a = p.a + row * p.a_row;
        t.out.c = p.c + row * p.ldc + c;
        tiles.direct[rows - 1][vectors - 1][t.tail != micro.lanes](t);
      });
    }
  }
  // Rows [count, n] as what products read along them, where they lie or in row_room.
  struct Rows {
    const E* at;
    std::int64_t ld;
  };
  Rows rows_of(const S* from, std::int64_t ld, [[maybe_unused]] std::int64_t count, [[maybe_unused]] std::int64_t n) {
    if constexpr (!kPairs) {
      return {from, ld};
    } else {
      if (n % 2 == 0 && ld % 2 == 0 && reinterpret_cast<std::uintptr_t>(from) % alignof(E) == 0)
        return {reinterpret_cast<const E*>(from), ld / 2};
      E* to = row_room;
      for (std::int64_t r = 0; r < count; ++r, to += pairs(n)) {
        to[pairs(n) - 1] = 0;
        std::memcpy(to, from + r * ld, static_cast<std::size_t>(n) * sizeof(S));
      }
      return {row_room, pairs(n)};
    }
  }
  // to [keys, queries] = from [keys, n] times x [n, queries], where seen.
  void tile_product(const TileView& t, const S* from, std::int64_t ld, std::int64_t n, const E* x, T* to) {
    const Rows f = rows_of(from, ld, t.keys, n);
    each_run(t, [&](std::int64_t j, std::int64_t end, std::int64_t i) {
      product({end - j, t.queries - i, pairs(n), f.at + j * f.ld, f.ld, 1, x + i, kTileLd, to + j * kTileLd + i,
               kTileLd, false});
    });
  }
  // to [n, queries] += the transpose of from [keys, n] times the tile, a sum for queries that see the same keys.
  void add_product(const TileView& t, const S* from, std::int64_t ld, std::int64_t n, const T* tile, T* to) {
    if constexpr (kPairs) {
      halves.pair_rows(from, ld, t.keys, n, pair_room);
      halves.pair_keys(t, tile, tile_room);
      add_columns(t, pair_room, n, n, tile_room, to);
    } else {
      add_columns(t, from, ld, n, tile, to);
    }
  }
  void add_columns(const TileView& t, const E* from, std::int64_t ld, std::int64_t n, const E* tile, T* to) {
    const auto seen = [&](std::int64_t i) { return std::clamp<std::int64_t>(i + micro.lanes + t.shift, 0, t.keys); };
    for (std::int64_t i = 0, end = 0; i < t.queries; i = end) {
      for (end = i + micro.lanes; end < t.queries && seen(end) == seen(i);) end += micro.lanes;
      if (seen(i) > 0) product({n, end - i, pairs(seen(i)), from, 1, ld, tile + i, kTileLd, to + i, kTileLd, true});
    }
  }

  // The block of queries behind one, in the order in which heads are gone through; of no queries behind the last.
  Place next(Place p) const {
    p.first += kQueries;
    if (p.first >= s.queries) p.first = 0, ++p.h;
    if (p.h == s.heads) p.h = 0, ++p.b;
    p.count = p.b == s.batch ? 0 : std::min(kQueries, s.queries - p.first);
    return p;
  }
  void fetch(const S* first, const TokenStrides& by, std::int64_t n, std::int64_t tokens) {
    constexpr auto size = static_cast<std::int64_t>(sizeof(S));
    ahead.add(first, by.token * size, n * size, tokens);
  }
  // The queries of a block, and the keys and values that the block before it did not see.
  void fetch_operands(const Place& p) {
    constexpr std::int64_t kMost = 128;
    if (p.count == 0) return;
    const std::int64_t from = p.first == 0 ? 0 : seen(p.b, p.first - 1);
    const std::int64_t n = std::min(seen(p.b, p.first + p.count - 1) - from, kMost), head = p.h / group;
    fetch(v(p.b, from, head), s.v, s.values, n);
    fetch(k(p.b, from, head), s.k, s.depth, n);
    fetch(q(p.b, p.first, p.h), s.q, s.depth, p.count);
  }

  // Rows [count, n] to [n][kTileLd], up to whole vectors.
  void turn(const S* from, std::int64_t ld, std::int64_t count, std::int64_t n, E* to) {
    const Rows f = rows_of(from, ld, count, n);
    micro.transpose(f.at, f.ld, count, pairs(n), to, kTileLd);
    const std::int64_t whole = up_to(count, micro.lanes);
    for (std::int64_t d = 0; d < pairs(n) && count < whole; ++d)
      std::fill(to + d * kTileLd + count, to + d * kTileLd + whole, E{0});
  }
  // [n][kTileLd] to rows [count, n].
  void turn_back(const T* from, std::int64_t count, std::int64_t n, S* to, std::int64_t ld) {
    if constexpr (kPairs) {
      micro.transpose(from, kTileLd, n, count, turn_room, n);
      for (std::int64_t i = 0; i < count; ++i) halves.narrow(turn_room + i * n, n, to + i * ld);
    } else {
      micro.transpose(from, kTileLd, n, count, to, ld);
    }
  }
  // The bits by which dropout thins a tile, as floats below 2^24. rows: room for a tile.
  void draw(const Place& p, const TileView& t, T* rows_of, T* bits) const {
    for (std::int64_t i = 0; i < p.count; ++i) {
      const auto first = static_cast<std::uint64_t>(((p.b * s.heads + p.h) * s.queries + p.first + i) * s.keys + p.key);
      random_tile(dtype_of<T>)(rows_of + i * kKeys,
                               static_cast<std::size_t>(std::clamp<std::int64_t>(i + t.shift + 1, 0, p.keys)), first,
                               random_key(args.random[0], s.place), static_cast<std::uint64_t>(args.random[1]), 24);
    }
    micro.transpose(rows_of, kKeys, p.count, p.keys, bits, kTileLd);
  }
  void thin(const TileView& t, T* x, const T* bits) const {
    const double keep = 1 - s.dropout;
    simd.thin(t, x, bits, static_cast<T>(std::nearbyint(std::ldexp(keep, 24))), static_cast<T>(1 / keep));
  }
  // x = scale x + mask of a tile. Returns the factor that is left to apply to the scores.
  T mask(const Place& p, const TileView& t, T* x, T* added) const {
    const T scale = static_cast<T>(s.scale);
    if (s.mask == AttentionSpec::Mask::none && scale >= 0) return scale;
    const std::int64_t at =
        p.b * s.mask_strides[0] + p.h * s.mask_strides[1] + p.first * s.mask_strides[2] + p.key * s.mask_strides[3];
    for (std::int64_t j = 0; j < p.keys; ++j)
      for (std::int64_t i = 0; i < t.queries; ++i)
        added[j * kTileLd + i] = i < p.count ? mask_at(at + i * s.mask_strides[2] + j * s.mask_strides[3]) : T{0};
    simd.scale_add(t, x, added, scale);
    return T{1};
  }
  T mask_at(std::int64_t at) const {
    switch (s.mask) {
      case AttentionSpec::Mask::none: return T{0};
      case AttentionSpec::Mask::boolean:
        return static_cast<const bool*>(args.mask)[at] ? T{0} : -std::numeric_limits<T>::infinity();
      case AttentionSpec::Mask::added: return static_cast<const T*>(args.mask)[at];
    }
    return T{0};
  }
  std::int64_t mask_room() const { return s.mask == AttentionSpec::Mask::none && s.scale >= 0 ? 0 : kKeys * kTileLd; }
  std::int64_t bits_room() const { return s.dropout == 0 ? 0 : kKeys * kTileLd; }
};

// Memory of a thread, cut into pieces of whole cache lines.
class Pieces {
 public:
  explicit Pieces(void* memory) : at_(static_cast<char*>(memory)) {}
  template <class T> T* take(std::int64_t elements) {
    T* p = reinterpret_cast<T*>(at_);
    at_ += up_to(elements * static_cast<std::int64_t>(sizeof(T)), 64);
    return p;
  }
  std::size_t bytes(void* memory) const { return static_cast<std::size_t>(at_ - static_cast<char*>(memory)); }

 private:
  char* at_;
};

// ---- forward ----

template <class T, class S> class Forward {
 public:
  Forward(const AttentionSpec& spec, const AttentionArgs& args, void* out, void* lse, void* memory)
      : w_{spec, args}, out_(static_cast<S*>(out)), lse_(static_cast<T*>(lse)) {
    Pieces p(memory);
    queries_ = p.take<typename Work<T, S>::E>(w_.pairs(spec.depth) * kTileLd);
    scores_ = p.take<T>(kKeys * kTileLd);
    state_ = {p.take<T>(kTileLd), p.take<T>(kTileLd), p.take<T>(spec.values * kTileLd), spec.values};
    lse_tile_ = p.take<T>(kTileLd);
    added_ = p.take<T>(w_.mask_room());
    bits_ = p.take<T>(w_.bits_room());
    bit_rows_ = p.take<T>(w_.bits_room());
    w_.take_rooms(p);
    bytes_ = p.bytes(memory);
  }
  std::size_t bytes() const { return bytes_; }

  // A block of queries of one head.
  void run(std::int64_t b, std::int64_t h, std::int64_t block) {
    Place p{b, h, block * kQueries, 0, 0, 0};
    p.count = std::min(kQueries, w_.s.queries - p.first);
    std::fill_n(state_.top, kTileLd, -std::numeric_limits<T>::infinity());
    std::fill_n(state_.total, kTileLd, T{0});
    std::fill_n(state_.sums, w_.s.values * kTileLd, T{0});
    w_.turn(w_.q(b, p.first, h), w_.s.q.token, p.count, w_.s.depth, queries_);
    w_.ahead.clear();
    w_.fetch_operands(w_.next(p));
    w_.fetch(out_ + w_.out_at(b, p.first, h), w_.out, w_.s.values, p.count);
    const std::int64_t seen = w_.seen(b, p.first + p.count - 1);
    for (; p.key < seen; p.key += kKeys) {
      p.keys = std::min(kKeys, seen - p.key);
      tile(p);
    }
    finish(p);
  }

 private:
  void tile(const Place& p) {
    const TileView t = w_.view(p);
    const std::int64_t head = p.h / w_.group;
    w_.tile_product(t, w_.k(p.b, p.key, head), w_.s.k.token, w_.s.depth, queries_, scores_);
    w_.simd.soften(t, scores_, w_.mask(p, t, scores_, added_), state_);
    if (w_.s.dropout != 0) {
      w_.draw(p, t, bit_rows_, bits_);
      w_.thin(t, scores_, bits_);
    }
    w_.add_product(t, w_.v(p.b, p.key, head), w_.s.v.token, w_.s.values, scores_, state_.sums);
  }

  void finish(const Place& p) {
    w_.simd.finish(p.count, state_, static_cast<T>(ops::kNothingSeen), lse_tile_);
    std::copy_n(lse_tile_, p.count, lse_ + w_.lse_at(p.b, p.first, p.h));
    w_.turn_back(state_.sums, p.count, w_.s.values, out_ + w_.out_at(p.b, p.first, p.h), w_.out.token);
  }

  Work<T, S> w_;
  S* out_;
  T* lse_;
  typename Work<T, S>::E* queries_;
  T *scores_, *lse_tile_, *added_, *bits_, *bit_rows_;
  SoftmaxState<T> state_;
  std::size_t bytes_ = 0;
};

// ---- backward ----

// How the backward pass is cut into independent parts: heads, or blocks of keys and blocks of queries where there are
// too few heads for the threads. Scores are made twice by blocks, seven products instead of five; sums are the same
// bits.
struct GradUnits {
  std::int64_t heads, key_blocks = 0, query_blocks = 0;  // blocks: 0 where a head is one part
  GradUnits(const AttentionSpec& s, int threads) : heads(s.batch * s.key_heads) {
    if (5 * blocks(heads, threads) * threads <= 7 * heads) return;
    if (s.keys <= kUnitKeys && s.queries <= kQueries) return;
    key_blocks = blocks(s.keys, kUnitKeys);
    query_blocks = blocks(s.queries, kQueries);
  }
  std::int64_t per_head() const { return std::max<std::int64_t>(key_blocks + query_blocks, 1); }
  std::int64_t count() const { return heads * per_head(); }
  std::int64_t keys(const AttentionSpec& s) const { return key_blocks > 0 ? std::min(kUnitKeys, s.keys) : s.keys; }
};

template <class T, class S> class Backward {
 public:
  // unit_keys: the most keys of a part
  Backward(const AttentionSpec& spec, const AttentionGradArgs& args, std::int64_t unit_keys, void* dq, void* dk,
           void* dv, void* memory)
      : w_{spec, args.forward},
        out_(static_cast<const S*>(args.out)),
        lse_(static_cast<const T*>(args.lse)),
        dout_(static_cast<const S*>(args.dout)),
        dq_(static_cast<S*>(dq)),
        dk_(static_cast<S*>(dk)),
        dv_(static_cast<S*>(dv)) {
    Pieces p(memory);
    queries_t_ = p.take<E>(w_.pairs(spec.depth) * kTileLd);
    dout_t_ = p.take<E>(w_.pairs(spec.values) * kTileLd);
    dq_t_ = p.take<T>(spec.depth * kTileLd);
    weights_ = p.take<T>(kKeys * kTileLd);
    ds_ = p.take<T>(kKeys * kTileLd);
    lse_tile_ = p.take<T>(kTileLd);
    delta_ = p.take<T>(kTileLd);
    added_ = p.take<T>(w_.mask_room());
    bits_ = p.take<T>(w_.bits_room());
    bit_rows_ = p.take<T>(w_.bits_room());
    w_.take_rooms(p);
    take_pairs(p, unit_keys);
    bytes_ = p.bytes(memory);
  }
  std::size_t bytes() const { return bytes_; }

  struct Range {
    std::int64_t begin, end;
  };
  // Everything that keys `j` and queries `i` give one another in one key head: the gradients of the keys and values, of
  // the queries, or both.
  void run(std::int64_t b, std::int64_t key_head, Range j, Range i, bool keys, bool queries) {
    begin_ = written_ = j.begin;
    for (std::int64_t h = key_head * w_.group; h < (key_head + 1) * w_.group; ++h)
      for (std::int64_t q = i.begin; q < i.end; q += kQueries) {
        Place p{b, h, q, std::min(kQueries, i.end - q), j.begin, 0};
        const std::int64_t seen = std::min(j.end, w_.seen(b, q + p.count - 1));
        if (seen <= j.begin && !queries) continue;
        prepare(p);
        fetch(p, queries);
        for (; p.key < seen; p.key += kKeys) {
          p.keys = std::min(kKeys, seen - p.key);
          tile(p, key_head, keys, queries);
          written_ = std::max(written_, p.key + p.keys);
        }
        if (queries) w_.turn_back(dq_t_, p.count, w_.s.depth, to(dq_, w_.s.dq, b, q, h), w_.s.dq.token);
      }
    if (keys) finish_keys(b, key_head, j.end);
  }

 private:
  using E = typename Work<T, S>::E;
  static constexpr bool kPairs = Work<T, S>::kPairs;
  static S* to(S* p, const TokenStrides& by, std::int64_t b, std::int64_t i, std::int64_t h) {
    return p + by.first + b * by.batch + i * by.token + h * by.head;
  }
  // Sums of dk and dv, which bf16 cannot hold; and the operands of products over the queries of a block.
  void take_pairs(Pieces& p, [[maybe_unused]] std::int64_t keys) {
    if constexpr (kPairs) {
      dk_sums_ = p.take<T>(keys * w_.s.depth);
      dv_sums_ = p.take<T>(keys * w_.s.values);
      query_pairs_ = p.take<E>(w_.pairs(kQueries) * w_.s.depth);
      dout_pairs_ = p.take<E>(w_.pairs(kQueries) * w_.s.values);
      weight_pairs_ = p.take<E>(kKeys * kTileLd / 2);
      ds_pairs_ = p.take<E>(kKeys * kTileLd / 2);
    }
  }
  // Gradients of keys that no query sees are zero.
  void finish_keys(std::int64_t b, std::int64_t head, std::int64_t end) {
    for (std::int64_t t = begin_; t < end; ++t) {
      S *dk = to(dk_, w_.s.dk, b, t, head), *dv = to(dv_, w_.s.dv, b, t, head);
      if (t >= written_) {
        std::fill_n(dk, w_.s.depth, S{});
        std::fill_n(dv, w_.s.values, S{});
      } else if constexpr (kPairs) {
        w_.halves.narrow(dk_sums_ + (t - begin_) * w_.s.depth, w_.s.depth, dk);
        w_.halves.narrow(dv_sums_ + (t - begin_) * w_.s.values, w_.s.values, dv);
      }
    }
  }

  // What all tiles of a block of queries read.
  void prepare(const Place& p) {
    w_.turn(w_.q(p.b, p.first, p.h), w_.s.q.token, p.count, w_.s.depth, queries_t_);
    const std::int64_t at = w_.out_at(p.b, p.first, p.h), row = w_.out.token;
    w_.turn(dout_ + at, row, p.count, w_.s.values, dout_t_);
    std::fill_n(lse_tile_, kTileLd, T{0});
    std::fill_n(delta_, kTileLd, T{0});
    std::copy_n(lse_ + w_.lse_at(p.b, p.first, p.h), p.count, lse_tile_);
    if constexpr (kPairs) {
      w_.halves.dots(out_ + at, dout_ + at, row, p.count, w_.s.values, delta_);
      w_.halves.pair_rows(w_.q(p.b, p.first, p.h), w_.s.q.token, p.count, w_.s.depth, query_pairs_);
      w_.halves.pair_rows(dout_ + at, row, p.count, w_.s.values, dout_pairs_);
    } else {
      w_.simd.dots(out_ + at, dout_ + at, row, p.count, w_.s.values, delta_);
    }
    std::fill_n(dq_t_, w_.s.depth * kTileLd, T{0});
  }

  // What is written at the end of a block, and what the next one begins with.
  void fetch(const Place& p, bool queries) {
    w_.ahead.clear();
    if (const Place n = w_.next(p); n.count > 0) {
      const std::int64_t at = w_.out_at(n.b, n.first, n.h);
      w_.fetch_operands(n);
      w_.fetch(out_ + at, w_.out, w_.s.values, n.count);
      w_.fetch(dout_ + at, w_.out, w_.s.values, n.count);
    }
    if (queries) w_.fetch(to(dq_, w_.s.dq, p.b, p.first, p.h), w_.s.dq, w_.s.depth, p.count);
  }

  void tile(const Place& p, std::int64_t key_head, bool keys, bool queries) {
    const TileView t = w_.view(p);
    const S *k = w_.k(p.b, p.key, key_head), *v = w_.v(p.b, p.key, key_head);
    w_.tile_product(t, k, w_.s.k.token, w_.s.depth, queries_t_, weights_);
    w_.tile_product(t, v, w_.s.v.token, w_.s.values, dout_t_, ds_);
    const bool thin = w_.s.dropout != 0;
    if (thin) {
      w_.draw(p, t, bit_rows_, bits_);
      w_.thin(t, ds_, bits_);
    }
    w_.simd.weights_grad(t, weights_, ds_, w_.mask(p, t, weights_, added_), lse_tile_, delta_,
                         static_cast<T>(w_.s.scale));
    if (thin) w_.thin(t, weights_, bits_);
    if (queries) w_.add_product(t, k, w_.s.k.token, w_.s.depth, ds_, dq_t_);
    if (keys) keys_grad(p, t, key_head);
  }

  // Gradients of keys and values: the first tile that a key meets sets them, others are added.
  void keys_grad(const Place& p, const TileView& t, std::int64_t key_head) {
    if constexpr (kPairs) {
      w_.halves.pair_queries(t, weights_, weight_pairs_);
      w_.halves.pair_queries(t, ds_, ds_pairs_);
    }
    const std::int64_t old = std::clamp<std::int64_t>(written_ - p.key, 0, p.keys);
    keys_grad(p, t, key_head, {0, old}, true);
    keys_grad(p, t, key_head, {old, p.keys}, false);
  }
  void keys_grad(const Place& p, const TileView& t, std::int64_t key_head, Range of, bool accumulate) {
    each_tile(of.end - of.begin, [&](std::int64_t row, std::int64_t rows) {
      const std::int64_t j = of.begin + row, first = std::max<std::int64_t>(j - t.shift, 0);
      if constexpr (kPairs) {
        const std::int64_t pair = first / 2, count = w_.pairs(p.count) - pair, at = j * kTileLd / 2 + pair;
        const std::int64_t depth = w_.s.depth, values = w_.s.values, key = p.key + j - begin_;
        w_.product({rows, values, count, weight_pairs_ + at, kTileLd / 2, 1, dout_pairs_ + pair * values, values,
                    dv_sums_ + key * values, values, accumulate});
        w_.product({rows, depth, count, ds_pairs_ + at, kTileLd / 2, 1, query_pairs_ + pair * depth, depth,
                    dk_sums_ + key * depth, depth, accumulate});
      } else {
        const std::int64_t count = p.count - first, i = p.first + first, at = j * kTileLd + first;
        w_.product({rows, w_.s.values, count, weights_ + at, kTileLd, 1, dout_ + w_.out_at(p.b, i, p.h), w_.out.token,
                    to(dv_, w_.s.dv, p.b, p.key + j, key_head), w_.s.dv.token, accumulate});
        w_.product({rows, w_.s.depth, count, ds_ + at, kTileLd, 1, w_.q(p.b, i, p.h), w_.s.q.token,
                    to(dk_, w_.s.dk, p.b, p.key + j, key_head), w_.s.dk.token, accumulate});
      }
    });
  }

  Work<T, S> w_;
  const S* out_;
  const T* lse_;
  const S* dout_;
  S *dq_, *dk_, *dv_;
  E *queries_t_, *dout_t_;
  T *dq_t_, *weights_, *ds_, *lse_tile_, *delta_, *added_, *bits_, *bit_rows_;
  T *dk_sums_ = nullptr, *dv_sums_ = nullptr;  // from key begin_ on
  E *query_pairs_ = nullptr, *dout_pairs_ = nullptr, *weight_pairs_ = nullptr, *ds_pairs_ = nullptr;
  std::int64_t begin_ = 0;
  std::int64_t written_ = 0;  // keys before this one have their gradients of what was added up so far
  std::size_t bytes_ = 0;
};

// f(a number of the dtype of scores, one of the dtype of operands)
template <class F> decltype(auto) by_dtype(DType t, F f) {
  return t == f64 ? f(double{}, double{}) : t == bf16 ? f(float{}, bfloat16{}) : f(float{}, float{});
}

int threads_for(double flops, std::int64_t units, int most) {
  constexpr double kFlopsPerThread = 2e5;
  return static_cast<int>(std::clamp(std::min(flops / kFlopsPerThread, static_cast<double>(units)), 1.0,
                                     static_cast<double>(std::max(most, 1))));
}

std::int64_t forward_units(const AttentionSpec& s) { return s.batch * s.heads * blocks(s.queries, kQueries); }

std::size_t forward_bytes(const AttentionSpec& s) {
  if (s.key_heads == 0) return 0;
  return by_dtype(s.dtype, [&](auto number, auto stored) {
    return Forward<decltype(number), decltype(stored)>(s, {}, nullptr, nullptr, nullptr).bytes();
  });
}
std::size_t backward_bytes(const AttentionSpec& s, const GradUnits& units) {
  if (s.key_heads == 0) return 0;
  return by_dtype(s.dtype, [&](auto number, auto stored) {
    return Backward<decltype(number), decltype(stored)>(s, {}, units.keys(s), nullptr, nullptr, nullptr, nullptr)
        .bytes();
  });
}

void* of_thread(void* workspace, std::size_t bytes) {
  return static_cast<char*>(workspace) + bytes * static_cast<std::size_t>(omp_get_thread_num());
}

}  // namespace

double AttentionSpec::flops() const noexcept {
  return 2.0 * static_cast<double>(batch * heads * queries) * static_cast<double>(keys) *
         static_cast<double>(depth + values);
}

std::size_t attention_workspace(const AttentionSpec& spec, int threads) noexcept {
  return forward_bytes(spec) * static_cast<std::size_t>(threads);
}
int attention_threads(const AttentionSpec& spec, int most) noexcept {
  return threads_for(spec.flops(), forward_units(spec), most);
}

void attention(const AttentionSpec& spec, const AttentionArgs& args, void* out, void* lse, void* workspace,
               int threads) {
  const std::int64_t units = forward_units(spec), per_head = blocks(spec.queries, kQueries);
  if (units == 0) return;
  const std::size_t bytes = forward_bytes(spec);
  share(units, threads, [&](std::int64_t begin, std::int64_t end) {
    by_dtype(spec.dtype, [&](auto number, auto stored) {
      Forward<decltype(number), decltype(stored)> f(spec, args, out, lse, of_thread(workspace, bytes));
      for (std::int64_t u = begin; u < end; ++u)
        f.run(u / per_head / spec.heads, u / per_head % spec.heads, u % per_head);
    });
  });
}

// A step may run on fewer threads than it has room for.
std::size_t attention_grad_workspace(const AttentionSpec& spec, int threads) noexcept {
  std::size_t most = 0;
  for (int t = 1; t <= threads; ++t)
    most = std::max(most, backward_bytes(spec, GradUnits(spec, t)) * static_cast<std::size_t>(t));
  return most;
}
int attention_grad_threads(const AttentionSpec& spec, int most) noexcept {
  return threads_for(2.5 * spec.flops(), GradUnits(spec, most).count(), most);
}

void attention_grad(const AttentionSpec& spec, const AttentionGradArgs& args, void* dq, void* dk, void* dv,
                    void* workspace, int threads) {
  const GradUnits units(spec, threads);
  if (units.count() == 0) return;
  const std::size_t bytes = backward_bytes(spec, units);
  share(units.count(), threads, [&](std::int64_t begin, std::int64_t end) {
    by_dtype(spec.dtype, [&](auto number, auto stored) {
      Backward<decltype(number), decltype(stored)> f(spec, args, units.keys(spec), dq, dk, dv,
                                                     of_thread(workspace, bytes));
      for (std::int64_t u = begin; u < end; ++u) {
        const std::int64_t head = u / units.per_head(), part = u % units.per_head();
        const std::int64_t b = head / spec.key_heads, h = head % spec.key_heads;
        const auto range = [](std::int64_t block, std::int64_t step, std::int64_t all) {
          return typename Backward<decltype(number), decltype(stored)>::Range{block * step,
                                                                              std::min((block + 1) * step, all)};
        };
        if (units.key_blocks + units.query_blocks == 0)
          f.run(b, h, {0, spec.keys}, {0, spec.queries}, true, true);
        else if (part < units.key_blocks)
          f.run(b, h, range(part, kUnitKeys, spec.keys), {0, spec.queries}, true, false);
        else
          f.run(b, h, {0, spec.keys}, range(part - units.key_blocks, kQueries, spec.queries), false, true);
      }
    });
  });
}

}  // namespace bp::cpu

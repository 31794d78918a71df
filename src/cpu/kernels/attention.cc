// The loops over blocks of queries and keys; register tiles come from matmul_micro.cc, row operations from
// attention_rows.cc.
#include "cpu/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/random_word.h"
#include "cpu/kernels/attention_rows.h"
#include "cpu/kernels/loop_tiles.h"
#include "cpu/kernels/matmul_micro.h"
#include "cpu/kernels/share.h"
#include "ops/attention.h"

namespace bp::cpu {

namespace {

// Forward: blocks of queries meet blocks of keys. Backward: both blocks of scores and of their gradients are kept.
// Sizes that keep what a block reads in half of a 512 KB second-level cache, at 64 elements a head.
constexpr std::int64_t kQueries = 96, kKeys = 256;
constexpr std::int64_t kGradQueries = 64, kGradKeys = 128;
// Fewer heads than this, and the backward pass is shared out by blocks, each score made twice.
constexpr std::int64_t kEnoughHeads = 16;

std::int64_t blocks(std::int64_t n, std::int64_t step) { return (n + step - 1) / step; }

// f(first row, rows) for tiles as equal as can be.
template <class F> void each_tile(std::int64_t rows, F f) {
  std::int64_t tiles = blocks(rows, kMicroRows);
  for (std::int64_t row = 0, n = 0; row < rows; row += n, --tiles) f(row, n = (rows - row + tiles - 1) / tiles);
}

// What one thread works with: a spec, its operands and typed helpers.
template <class T> struct Work {
  const AttentionSpec& s;
  const AttentionArgs& args;
  const MicroTable& micro = micro_table(dtype_of<T>);
  const AttentionRows<T>& rows = attention_rows(T{});
  std::int64_t width = micro.lanes * micro.vectors;
  std::int64_t q_row = s.heads * s.depth, out_row = s.heads * s.values;
  std::int64_t k_row = s.key_heads * s.depth, v_row = s.key_heads * s.values;
  std::int64_t group = s.heads / s.key_heads;

  const T* q(std::int64_t b, std::int64_t i, std::int64_t h) const {
    return static_cast<const T*>(args.q) + (b * s.queries + i) * q_row + h * s.depth;
  }
  const T* k(std::int64_t b, std::int64_t j, std::int64_t h) const {
    return static_cast<const T*>(args.k) + (b * s.keys + j) * k_row + h * s.depth;
  }
  const T* v(std::int64_t b, std::int64_t j, std::int64_t h) const {
    return static_cast<const T*>(args.v) + (b * s.keys + j) * v_row + h * s.values;
  }
  std::int64_t out_at(std::int64_t b, std::int64_t i, std::int64_t h) const {
    return (b * s.queries + i) * out_row + h * s.values;
  }

  std::int64_t length(std::int64_t b) const {
    return args.lengths == nullptr ? s.keys : std::clamp<std::int64_t>(args.lengths[b], 0, s.keys);
  }
  // Query i sees at most the first this many keys.
  std::int64_t visible(std::int64_t b, std::int64_t i, std::int64_t length) const {
    if (!s.causal) return length;
    const std::int64_t offset = args.offset == nullptr ? 0 : args.offset[b];
    return offset >= s.keys ? length : offset < -s.queries ? 0 : std::clamp<std::int64_t>(i + offset + 1, 0, length);
  }

  std::int64_t panels(std::int64_t columns) const { return up_to(columns, width); }
  // The transpose of rows [count, n] to panels of `width` of the rows: [count / width][n][width].
  void pack_transposed(const T* from, std::int64_t ld, std::int64_t count, std::int64_t n, T* to) const {
    for (std::int64_t r = 0; r < count; r += width, to += n * width) {
      const std::int64_t here = std::min(width, count - r);
      if (here < width) std::fill(to, to + n * width, T{0});
      micro.transpose(from + r * ld, ld, here, n, to, width);
    }
  }
  // c [m, n] (+)= a [m, k] b, with a(i, p) = a[i a_row + p a_k] and b in panels of `depth` rows, from row `first` on.
  struct Product {
    std::int64_t m, n, k;
    const T* a;
    std::int64_t a_row, a_k;
    const T* b;
    std::int64_t depth, first;
    T* c;
    std::int64_t ldc;
    bool accumulate;
  };
  void product(const Product& p) const {
    TileProduct t;
    t.k = p.k, t.a = p.a, t.a_row = p.a_row, t.a_k = p.a_k, t.ldb = width;
    t.out.ldc = p.ldc, t.out.accumulate = p.accumulate;
    for (std::int64_t c = 0; c < p.n; c += width) {
      const std::int64_t columns = std::min(width, p.n - c), vectors = blocks(columns, micro.lanes);
      t.tail = columns - (vectors - 1) * micro.lanes;
      t.b = p.b + c * p.depth + p.first * width;
      t.out.c = p.c + c;
      micro.direct[p.m - 1][vectors - 1][t.tail != micro.lanes](t);
    }
  }
  // What dropout leaves of weights of keys [j, j + n) of a query (or of their gradients). bits: room for n.
  void thin(T* x, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j, std::int64_t n, T* bits) const {
    if (s.dropout == 0 || n == 0) return;
    const auto first = static_cast<std::uint64_t>(((b * s.heads + h) * s.queries + i) * s.keys + j);
    random_tile(dtype_of<T>)(bits, static_cast<std::size_t>(n), first, random_key(args.random[0], s.place),
                             static_cast<std::uint64_t>(args.random[1]), 24);
    const double keep = 1 - s.dropout;
    rows.thin(x, bits, n, static_cast<T>(std::nearbyint(std::ldexp(keep, 24))), static_cast<T>(1 / keep));
  }
  // x = scale x + mask over keys [j, j + n) of a query, -inf where hidden. Returns whether x was scaled.
  bool mask(T* x, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j, std::int64_t n) const {
    if (s.mask == AttentionSpec::Mask::none) return false;
    rows.scale(x, n, static_cast<T>(s.scale));
    const std::int64_t step = s.mask_strides[3];
    const std::int64_t at = b * s.mask_strides[0] + h * s.mask_strides[1] + i * s.mask_strides[2] + j * step;
    if (s.mask == AttentionSpec::Mask::boolean) {
      const bool* m = static_cast<const bool*>(args.mask) + at;
      for (std::int64_t c = 0; c < n; ++c)
        if (!m[c * step]) x[c] = -std::numeric_limits<T>::infinity();
    } else {
      const T* m = static_cast<const T*>(args.mask) + at;
      for (std::int64_t c = 0; c < n; ++c) x[c] += m[c * step];
    }
    return true;
  }
};

// Memory of a thread, cut into pieces of whole cache lines.
template <class T> class Pieces {
 public:
  explicit Pieces(void* memory) : at_(static_cast<char*>(memory)) {}
  T* take(std::int64_t elements) {
    T* p = reinterpret_cast<T*>(at_);
    at_ += up_to(elements * static_cast<std::int64_t>(sizeof(T)), 64);
    return p;
  }
  std::size_t bytes(void* memory) const { return static_cast<std::size_t>(at_ - static_cast<char*>(memory)); }

 private:
  char* at_;
};

// ---- forward ----

template <class T> class Forward {
 public:
  Forward(const AttentionSpec& spec, const AttentionArgs& args, void* out, void* lse, void* memory)
      : w_{spec, args}, out_(static_cast<T*>(out)), lse_(static_cast<T*>(lse)) {
    Pieces<T> p(memory);
    keys_ = p.take(w_.panels(kKeys) * spec.depth);
    values_ = p.take(w_.panels(spec.values) * kKeys);
    scores_ = p.take(kMicroRows * kKeys);
    sums_ = p.take(kQueries * spec.values);
    top_ = p.take(kQueries);
    total_ = p.take(kQueries);
    bits_ = p.take(spec.dropout == 0 ? 0 : kKeys);
    bytes_ = p.bytes(memory);
  }
  std::size_t bytes() const { return bytes_; }

  // A block of queries of one head.
  void run(std::int64_t b, std::int64_t h, std::int64_t block) {
    const std::int64_t first = block * kQueries, count = std::min(kQueries, w_.s.queries - first);
    const std::int64_t length = w_.length(b), seen = w_.visible(b, first + count - 1, length);
    std::fill_n(sums_, count * w_.s.values, T{0});
    std::fill_n(top_, count, -std::numeric_limits<T>::infinity());
    std::fill_n(total_, count, T{0});
    for (std::int64_t j = 0; j < seen; j += kKeys) {
      const std::int64_t n = std::min(kKeys, seen - j);
      pack(b, h / w_.group, j, length <= kKeys ? length : n);
      each_tile(count, [&](std::int64_t row, std::int64_t rows) {
        const std::int64_t columns = std::min(n, w_.visible(b, first + row + rows - 1, length) - j);
        if (columns > 0) tile(b, h, first, row, rows, j, columns, length);
      });
    }
    finish(b, h, first, count);
  }

 private:
  // Keys and values [j, j + n) of a head, unless they are what was packed last.
  void pack(std::int64_t b, std::int64_t h, std::int64_t j, std::int64_t n) {
    if (packed_[0] == b && packed_[1] == h && packed_[2] == j && packed_[3] >= n) return;
    w_.pack_transposed(w_.k(b, j, h), w_.k_row, n, w_.s.depth, keys_);
    w_.rows.pack(w_.v(b, j, h), w_.v_row, n, w_.s.values, w_.width, values_);
    packed_[0] = b, packed_[1] = h, packed_[2] = j, packed_[3] = n;
  }

  void tile(std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t row, std::int64_t rows, std::int64_t j,
            std::int64_t columns, std::int64_t length) {
    w_.product({rows, w_.panels(columns), w_.s.depth, w_.q(b, first + row, h), w_.q_row, 1, keys_, w_.s.depth, 0,
                scores_, kKeys, false});
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = first + row + r;
      const std::int64_t n = std::clamp<std::int64_t>(w_.visible(b, i, length) - j, 0, columns);
      T* x = scores_ + r * kKeys;
      soften(x, n, b, h, i, j, row + r);
      w_.thin(x, b, h, i, j, n, bits_);
      std::fill(x + n, x + columns, T{0});
    }
    w_.product({rows, w_.s.values, columns, scores_, kKeys, 1, values_, packed_[3], 0, sums_ + row * w_.s.values,
                w_.s.values, true});
  }

  // x = exp(score - the largest so far); what was added up for larger exponents is brought down.
  void soften(T* x, std::int64_t n, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j, std::int64_t row) {
    if (n == 0) return;
    T scale = static_cast<T>(w_.s.scale);
    if (w_.mask(x, b, h, i, j, n)) {
      scale = 1;
    } else if (scale < 0) {
      w_.rows.scale(x, n, scale);
      scale = 1;
    }
    const T before = top_[row], highest = std::max(before, w_.rows.max(x, n) * scale);
    // Nothing seen so far: any finite number will do, and a NaN among the scores still shows in the sum.
    const T minus = highest == -std::numeric_limits<T>::infinity() ? T{0} : highest;
    const T sum = w_.rows.exp_sum(x, n, scale, minus);
    if (before != highest && total_[row] != 0) {
      const T factor = std::exp(before - minus);
      total_[row] *= factor;
      w_.rows.scale(sums_ + row * w_.s.values, w_.s.values, factor);
    }
    top_[row] = highest;
    total_[row] += sum;
  }

  void finish(std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t count) {
    for (std::int64_t r = 0; r < count; ++r) {
      const T total = total_[r], factor = total == 0 ? T{0} : 1 / total;
      const T* from = sums_ + r * w_.s.values;
      T* to = out_ + w_.out_at(b, first + r, h);
      for (std::int64_t d = 0; d < w_.s.values; ++d) to[d] = from[d] * factor;
      lse_[(b * w_.s.heads + h) * w_.s.queries + first + r] =
          total == 0 ? static_cast<T>(ops::kNothingSeen) : top_[r] + std::log(total);
    }
  }

  Work<T> w_;
  T *out_, *lse_;
  T *keys_, *values_, *scores_, *sums_, *top_, *total_, *bits_;
  std::int64_t packed_[4] = {-1, -1, -1, -1};  // batch entry, head, first key, number
  std::size_t bytes_ = 0;
};

// ---- backward ----

template <class T> class Backward {
 public:
  Backward(const AttentionSpec& spec, const AttentionGradArgs& args, void* dq, void* dk, void* dv, void* memory)
      : w_{spec, args.forward},
        out_(static_cast<const T*>(args.out)),
        lse_(static_cast<const T*>(args.lse)),
        dout_(static_cast<const T*>(args.dout)),
        dq_(static_cast<T*>(dq)),
        dk_(static_cast<T*>(dk)),
        dv_(static_cast<T*>(dv)) {
    Pieces<T> p(memory);
    keys_t_ = p.take(w_.panels(kGradKeys) * spec.depth);
    values_t_ = p.take(w_.panels(kGradKeys) * spec.values);
    keys_ = p.take(w_.panels(spec.depth) * kGradKeys);
    queries_ = p.take(w_.panels(spec.depth) * kGradQueries);
    d_ = p.take(w_.panels(spec.values) * kGradQueries);
    weights_ = p.take(kGradQueries * kLd);
    ds_ = p.take(kGradQueries * kLd);
    bits_ = p.take(spec.dropout == 0 ? 0 : kLd);
    bytes_ = p.bytes(memory);
  }
  std::size_t bytes() const { return bytes_; }

  struct Range {
    std::int64_t begin, end;
  };
  // Everything that keys `j` and queries `i` give one another in one key head: the gradients of the keys and values, of
  // the queries, or both.
  void run(std::int64_t b, std::int64_t key_head, Range j, Range i, bool keys, bool queries) {
    if (keys) clear(b, key_head, j);
    if (queries) clear_queries(b, key_head, i);
    if (i.begin == i.end) return;
    const std::int64_t length = w_.length(b), seen = std::min(j.end, w_.visible(b, i.end - 1, length));
    for (std::int64_t k = j.begin; k < seen; k += kGradKeys) {
      const std::int64_t n = std::min(kGradKeys, seen - k);
      w_.pack_transposed(w_.k(b, k, key_head), w_.k_row, n, w_.s.depth, keys_t_);
      w_.pack_transposed(w_.v(b, k, key_head), w_.v_row, n, w_.s.values, values_t_);
      if (queries) w_.rows.pack(w_.k(b, k, key_head), w_.k_row, n, w_.s.depth, w_.width, keys_);
      for (std::int64_t h = key_head * w_.group; h < (key_head + 1) * w_.group; ++h)
        for (std::int64_t q = i.begin; q < i.end; q += kGradQueries) {
          const std::int64_t count = std::min(kGradQueries, i.end - q);
          if (w_.visible(b, q + count - 1, length) > k) block({b, h, key_head, q, count, k, n, length}, keys, queries);
        }
    }
  }

 private:
  static constexpr std::int64_t kLd = kGradKeys;
  struct Block {
    std::int64_t b, h, key_head, first, count, key, keys, length;
  };

  void clear(std::int64_t b, std::int64_t head, Range j) {
    for (std::int64_t t = j.begin; t < j.end; ++t) {
      std::fill_n(dk_ + (b * w_.s.keys + t) * w_.k_row + head * w_.s.depth, w_.s.depth, T{0});
      std::fill_n(dv_ + (b * w_.s.keys + t) * w_.v_row + head * w_.s.values, w_.s.values, T{0});
    }
  }
  void clear_queries(std::int64_t b, std::int64_t head, Range i) {
    for (std::int64_t t = i.begin; t < i.end; ++t)
      std::fill_n(dq_ + (b * w_.s.queries + t) * w_.q_row + head * w_.group * w_.s.depth, w_.group * w_.s.depth, T{0});
  }

  void block(const Block& k, bool keys, bool queries) {
    if (keys) {
      w_.rows.pack(w_.q(k.b, k.first, k.h), w_.q_row, k.count, w_.s.depth, w_.width, queries_);
      w_.rows.pack(dout_ + w_.out_at(k.b, k.first, k.h), w_.out_row, k.count, w_.s.values, w_.width, d_);
    }
    each_tile(k.count, [&](std::int64_t row, std::int64_t rows) { tile(k, row, rows, queries); });
    if (!keys) return;
    each_tile(k.keys, [&](std::int64_t column, std::int64_t columns) {
      // The first query of the block that sees a key of the tile.
      std::int64_t first = 0;
      while (first < k.count && w_.visible(k.b, k.first + first, k.length) <= k.key + column) ++first;
      if (first == k.count) return;
      T* dk = dk_ + (k.b * w_.s.keys + k.key + column) * w_.k_row + k.key_head * w_.s.depth;
      T* dv = dv_ + (k.b * w_.s.keys + k.key + column) * w_.v_row + k.key_head * w_.s.values;
      const std::int64_t at = first * kLd + column, rows = k.count - first;
      w_.product({columns, w_.s.values, rows, weights_ + at, 1, kLd, d_, k.count, first, dv, w_.v_row, true});
      w_.product({columns, w_.s.depth, rows, ds_ + at, 1, kLd, queries_, k.count, first, dk, w_.k_row, true});
    });
  }

  // Weights and gradients of the scores of a few queries with all keys of the block.
  void tile(const Block& k, std::int64_t row, std::int64_t rows, bool queries) {
    T *p = weights_ + row * kLd, *ds = ds_ + row * kLd;
    const std::int64_t i = k.first + row;
    const std::int64_t columns = std::clamp<std::int64_t>(w_.visible(k.b, i + rows - 1, k.length) - k.key, 0, k.keys);
    if (columns > 0) {
      const std::int64_t whole = w_.panels(columns);
      w_.product({rows, whole, w_.s.depth, w_.q(k.b, i, k.h), w_.q_row, 1, keys_t_, w_.s.depth, 0, p, kLd, false});
      w_.product({rows, whole, w_.s.values, dout_ + w_.out_at(k.b, i, k.h), w_.out_row, 1, values_t_, w_.s.values, 0,
                  ds, kLd, false});
    }
    for (std::int64_t r = 0; r < rows; ++r, p += kLd, ds += kLd) {
      const std::int64_t n = std::clamp<std::int64_t>(w_.visible(k.b, i + r, k.length) - k.key, 0, columns);
      const T scale = static_cast<T>(w_.s.scale), at_once = w_.mask(p, k.b, k.h, i + r, k.key, n) ? T{1} : scale;
      w_.rows.exp_sum(p, n, at_once, lse_[(k.b * w_.s.heads + k.h) * w_.s.queries + i + r]);
      const std::int64_t o = w_.out_at(k.b, i + r, k.h);
      w_.thin(ds, k.b, k.h, i + r, k.key, n, bits_);
      w_.rows.scores_grad(p, ds, n, w_.rows.dot(out_ + o, dout_ + o, w_.s.values), scale);
      w_.thin(p, k.b, k.h, i + r, k.key, n, bits_);
      std::fill(p + n, p + k.keys, T{0});
      std::fill(ds + n, ds + k.keys, T{0});
    }
    if (!queries || columns == 0) return;
    T* dq = dq_ + (k.b * w_.s.queries + i) * w_.q_row + k.h * w_.s.depth;
    w_.product({rows, w_.s.depth, columns, ds_ + row * kLd, kLd, 1, keys_, k.keys, 0, dq, w_.q_row, true});
  }

  Work<T> w_;
  const T *out_, *lse_, *dout_;
  T *dq_, *dk_, *dv_;
  T *keys_t_, *values_t_, *keys_, *queries_, *d_, *weights_, *ds_, *bits_;
  std::size_t bytes_ = 0;
};

// How the backward pass is cut into independent parts.
struct GradUnits {
  std::int64_t heads, key_blocks = 0, query_blocks = 0;  // blocks: 0 where a head is one part
  explicit GradUnits(const AttentionSpec& s) : heads(s.batch * s.key_heads) {
    if (heads >= kEnoughHeads || (s.keys <= kGradKeys && s.queries <= kGradQueries)) return;
    key_blocks = blocks(s.keys, kGradKeys);
    query_blocks = blocks(s.queries, kGradQueries);
  }
  std::int64_t per_head() const { return std::max<std::int64_t>(key_blocks + query_blocks, 1); }
  std::int64_t count() const { return heads * per_head(); }
};

template <class F> decltype(auto) by_dtype(DType t, F f) { return t == f64 ? f(double{}) : f(float{}); }

int threads_for(double flops, std::int64_t units, int most) {
  constexpr double kFlopsPerThread = 2e5;
  return static_cast<int>(std::clamp(std::min(flops / kFlopsPerThread, static_cast<double>(units)), 1.0,
                                     static_cast<double>(std::max(most, 1))));
}

std::int64_t forward_units(const AttentionSpec& s) { return s.batch * s.heads * blocks(s.queries, kQueries); }

std::size_t forward_bytes(const AttentionSpec& s) {
  if (s.key_heads == 0) return 0;
  return by_dtype(s.dtype,
                  [&](auto zero) { return Forward<decltype(zero)>(s, {}, nullptr, nullptr, nullptr).bytes(); });
}
std::size_t backward_bytes(const AttentionSpec& s) {
  if (s.key_heads == 0) return 0;
  return by_dtype(
      s.dtype, [&](auto zero) { return Backward<decltype(zero)>(s, {}, nullptr, nullptr, nullptr, nullptr).bytes(); });
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
    by_dtype(spec.dtype, [&](auto zero) {
      Forward<decltype(zero)> f(spec, args, out, lse, of_thread(workspace, bytes));
      for (std::int64_t u = begin; u < end; ++u)
        f.run(u / per_head / spec.heads, u / per_head % spec.heads, u % per_head);
    });
  });
}

std::size_t attention_grad_workspace(const AttentionSpec& spec, int threads) noexcept {
  return backward_bytes(spec) * static_cast<std::size_t>(threads);
}
int attention_grad_threads(const AttentionSpec& spec, int most) noexcept {
  return threads_for(2.5 * spec.flops(), GradUnits(spec).count(), most);
}

void attention_grad(const AttentionSpec& spec, const AttentionGradArgs& args, void* dq, void* dk, void* dv,
                    void* workspace, int threads) {
  const GradUnits units(spec);
  if (units.count() == 0) return;
  const std::size_t bytes = backward_bytes(spec);
  share(units.count(), threads, [&](std::int64_t begin, std::int64_t end) {
    by_dtype(spec.dtype, [&](auto zero) {
      Backward<decltype(zero)> f(spec, args, dq, dk, dv, of_thread(workspace, bytes));
      for (std::int64_t u = begin; u < end; ++u) {
        const std::int64_t head = u / units.per_head(), part = u % units.per_head();
        const std::int64_t b = head / spec.key_heads, h = head % spec.key_heads;
        const auto range = [](std::int64_t block, std::int64_t step, std::int64_t all) {
          return typename Backward<decltype(zero)>::Range{block * step, std::min((block + 1) * step, all)};
        };
        if (units.key_blocks + units.query_blocks == 0)
          f.run(b, h, {0, spec.keys}, {0, spec.queries}, true, true);
        else if (part < units.key_blocks)
          f.run(b, h, range(part, kGradKeys, spec.keys), {0, spec.queries}, true, false);
        else
          f.run(b, h, {0, spec.keys}, range(part - units.key_blocks, kGradQueries, spec.queries), false, true);
      }
    });
  });
}

}  // namespace bp::cpu

// The SIMD parts of attention on transposed tiles of scores, one table a dtype, chosen for the machine's instruction
// set at run time. Used by attention.cc only.
//
// A tile is [keys, queries], rows kTileLd apart: a lane is a query, so that maxima and sums over the keys are those of
// vectors, no row ends within a vector, and keys and values are read where they lie.
#pragma once

#include <cstdint>

#include "bp/dtype.h"

namespace bp::cpu {

inline constexpr std::int64_t kTileLd = 64;  // a whole number of vectors of every instruction set

// Query i of a tile sees key j where j <= i + shift. shift >= keys: all.
struct TileView {
  std::int64_t keys = 0, queries = 0;  // queries: rounded up to whole vectors
  std::int64_t shift = 0;
};

// Of all queries of a tile so far; [kTileLd] each.
template <class T> struct SoftmaxState {
  T *top, *total;
  T* sums;  // [values][kTileLd]: values times weights
  std::int64_t values;
};

// T: float or double.
template <class T> struct AttentionRows {
  // x = factor x + added, with added of the layout of x.
  void (*scale_add)(const TileView& t, T* x, const T* added, T factor);
  // x = exp(factor x - the largest so far), for factor >= 0; what was added up for smaller ones is brought down.
  // Vectors of which every query is hidden are left alone, as nothing reads them.
  void (*soften)(const TileView& t, T* x, T factor, const SoftmaxState<T>& state);
  // out = sums / total by query: sums [values][kTileLd] in place; lse[i] = top + log(total), or `nothing` for total 0.
  void (*finish)(std::int64_t queries, const SoftmaxState<T>& state, T nothing, T* lse);
  // x = bits < below ? factor x : 0
  void (*thin)(const TileView& t, T* x, const T* bits, T below, T factor);
  // p = exp(factor p - lse), d = p (d - delta) scale; zeros where hidden.
  void (*weights_grad)(const TileView& t, T* p, T* d, T factor, const T* lse, const T* delta, T scale);
  // out[i] = dot of rows i of a and b, [count, n], ld apart
  void (*dots)(const T* a, const T* b, std::int64_t ld, std::int64_t count, std::int64_t n, T* out);
};

// bf16 for products of pairs (attention_pairs.h): two numbers that are multiplied with two others and added up.
struct AttentionBf16 {
  // out[p][query] = keys 2p and 2p + 1 of x, [keys / 2, kTileLd]; zeros where hidden or behind the last key.
  void (*pair_keys)(const TileView& t, const float* x, std::uint32_t* out);
  // out[key][p] = queries 2p and 2p + 1 of x, [keys, kTileLd / 2]
  void (*pair_queries)(const TileView& t, const float* x, std::uint32_t* out);
  // to[p][i] = rows 2p and 2p + 1 of from, [count, n], ld apart; zero behind the last row
  void (*pair_rows)(const bfloat16* from, std::int64_t ld, std::int64_t count, std::int64_t n, std::uint32_t* to);
  void (*dots)(const bfloat16* a, const bfloat16* b, std::int64_t ld, std::int64_t count, std::int64_t n, float* out);
  void (*narrow)(const float* from, std::int64_t n, bfloat16* to);
};
const AttentionBf16& attention_bf16();

const AttentionRows<float>& attention_rows(float);
const AttentionRows<double>& attention_rows(double);

}  // namespace bp::cpu

// Machine code for the register tiles of large f32 products on AVX-512: up to 14 rows of C by up to 32 columns stay in
// registers while the code walks k. Used by product_tiles.cc only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/kernels/machine_code.h"

namespace bp::cpu {

inline constexpr std::int64_t kTileRows = 14, kTileColumns = 32;

// Packed rows of A begin this many floats apart, no two at the same place of a page; packed columns of A so many.
inline constexpr std::int64_t kPackedRow = 336, kPackedColumn = 16;

// The tile C = relu(A B + source + bias), without the parts that are null or false. Steps are bytes between rows.
struct ProductTile {
  const float* a;       // a(r, p) at r * a_row + p * a_k of the code
  const float* b;       // b(p, j) at p * kTileColumns + j; on the first pass: at j of row p of B, which is copied to...
  float* panel;         // ...this one, rows of whole tiles with zeros beyond B
  float* c;             //
  const float* bias;    // of the columns
  const float* source;  // may be C
  std::int64_t b_step, c_step, source_step;
  std::int64_t k;
  std::int64_t mask;  // the columns of the last vector
  std::int64_t relu;
};

struct ProductCodeKey {
  int rows = 0, vectors = 0;
  bool masked = false;  // the last vector is partial
  std::int64_t a_row = 1, a_k = 1;
  bool first_pass = false;  // packs B while it multiplies
  friend auto operator<=>(const ProductCodeKey&, const ProductCodeKey&) = default;
};

using ProductCode = void (*)(const ProductTile*);

// Shared by all who ask for the same; null where there is no machine code or no memory for it.
std::shared_ptr<const MachineCode> product_code(const ProductCodeKey& key);

}  // namespace bp::cpu

// C of an f32 product cut into the register tiles of jit_product.h: rows as equal as can be, panels of 32 columns, and
// the machine code of each. Used by BlockProduct and PackedProduct.
#pragma once

#include <cstdint>
#include <memory>

#include "cpu/kernels/jit_product.h"
#include "cpu/kernels/matmul.h"

namespace bp::cpu {

inline constexpr std::int64_t kMostDepth = 320;  // of k, summed up in registers: longer chains in f32 lose digits
// Rows so many floats apart, or multiples of it, meet in a few sets of the first cache.
inline constexpr std::int64_t kPoorStride = 512;
inline constexpr std::int64_t kFarRows = 1 << 20;  // rows further apart do not fit into an address of the code

struct ProductOperands {
  const float *a, *b, *bias, *residual;
  float* c;
};

class ProductTiles {
 public:
  // Whether the code has this spec's epilogue, here.
  static bool takes(const MatmulSpec& spec);
  // a_row, a_k: steps of A as the code reads it. packs: code of the first pass over B too. Throws std::bad_alloc where
  // there is no memory for code.
  ProductTiles(const MatmulSpec& spec, std::int64_t a_row, std::int64_t a_k, bool packs);

  std::int64_t tiles() const noexcept { return tiles_; }
  std::int64_t panels() const noexcept { return panels_; }
  std::int64_t row_of(std::int64_t tile) const noexcept { return tile * rows_ + (tile < longer_ ? tile : longer_); }
  std::int64_t rows_of(std::int64_t tile) const noexcept { return rows_ + (tile < longer_ ? 1 : 0); }

  // What a part of the sum over k writes and adds: the first part adds bias and residual, the last one ends in relu.
  // A and B are the caller's.
  ProductTile part(const ProductOperands& o, std::int64_t tile, std::int64_t panel, bool first, bool last) const;
  void run(const ProductTile& t, std::int64_t tile, std::int64_t panel, bool packs) const {
    codes_[tile < longer_][panel + 1 == panels_][packs]->entry<ProductCode>()(&t);
  }

 private:
  MatmulSpec spec_;
  std::int64_t tiles_ = 0, rows_ = 0, longer_ = 0;     // of C's rows: the first `longer_` tiles have a row more
  std::int64_t panels_ = 0;                            // of C's columns
  std::shared_ptr<const MachineCode> codes_[2][2][2];  // [a row more][last panel][packs]
};

}  // namespace bp::cpu

// The SIMD parts of MatmulKernel: register-tile products, dot products and transposition, one table a dtype, chosen for
// the machine's instruction set at run time. Used by matmul.cc and attention.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bp/dtype.h"
#include "cpu/kernels/matmul.h"

namespace bp::cpu {

// How a finished tile of the product becomes C: see MatmulSpec. Pointers stand at the tile's first element.
struct TileEpilogue {
  void* c = nullptr;
  std::int64_t ldc = 0;
  const void* bias = nullptr;
  bool bias_is_one = false;  // one element for all columns
  const void* residual = nullptr;
  std::int64_t ldr = 0;
  Activation activation = Activation::none;
  bool accumulate = false;
};

// A tile of rows x (vectors * lanes) of C: a(r, p) = a[r * a_row + p * a_k], b(p, j) = b[p * ldb + j].
struct TileProduct {
  std::int64_t k = 0;
  const void* a = nullptr;
  std::int64_t a_row = 0, a_k = 0;
  const void* b = nullptr;
  std::int64_t ldb = 0;
  std::int64_t tail = 0;  // columns in the last vector
  TileEpilogue out;
};

inline constexpr std::int64_t kMicroRows = 6;
inline constexpr std::int64_t kMaxVectors = 4;

struct MicroTable {
  std::int64_t lanes = 1;
  std::int64_t vectors = 2;  // of a full register tile
  using Product = void (*)(const TileProduct&);
  // [rows - 1][vectors - 1][last vector is partial]
  Product direct[kMicroRows][kMaxVectors][2] = {};
  // The same over packed panels: a_row = 1, a_k = kMicroRows, ldb = vectors * lanes, b padded to whole vectors.
  Product packed[kMicroRows][kMaxVectors][2] = {};
  // out[i] = epilogue(dot(p + i * ldp, q)) for i < count; out steps by `step`.
  void (*dots)(std::int64_t count, std::int64_t k, const void* p, std::int64_t ldp, const void* q, std::int64_t step,
               const TileEpilogue& out) = nullptr;
  // Copies `count` rows of `cols` elements from src[i * from_step] to dst[i * to_step]; cols <= to_step.
  void (*copy_rows)(const void* src, std::int64_t from_step, std::int64_t count, std::int64_t cols, void* dst,
                    std::int64_t to_step) = nullptr;
  // dst[c * ldd + r] = src[r * lds + c] for r < rows, c < cols.
  void (*transpose)(const void* src, std::int64_t lds, std::int64_t rows, std::int64_t cols, void* dst,
                    std::int64_t ldd) = nullptr;
};
const MicroTable& micro_table(DType dtype);

}  // namespace bp::cpu

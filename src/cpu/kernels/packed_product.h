// PackedProduct: an f32 product in machine code on AVX-512 of an A of few rows and a B that is packed before and used
// many times: the step of a recurrent layer. B streams through the caches once a run, a panel of it meets all rows of A
// in turn, and what a tile adds to is asked for while it is summed up: a residual in memory costs little.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/matmul_micro.h"
#include "cpu/kernels/product_tiles.h"

namespace bp::cpu {

class PackedProduct {
 public:
  static bool takes(const MatmulSpec& spec);
  // pack_threads: what run_pack() uses.
  PackedProduct(const MatmulSpec& spec, int pack_threads);

  std::size_t pack_bytes() const noexcept;
  void run_pack(const void* b, void* packed) const;  // packed: aligned to 64

  std::size_t thread_bytes() const noexcept;
  int useful_threads() const noexcept;
  int pack_threads() const noexcept { return pack_threads_; }
  // b: packed. The sum over k runs in an order fixed by the spec. workspace: thread_bytes() for each, aligned to 64.
  void run(const ProductOperands& operands, void* workspace, int threads) const;

 private:
  void run_panel(const ProductOperands& o, const float* a, std::int64_t panel) const;

  MatmulSpec spec_;
  const MicroTable* micro_;
  std::int64_t packed_row_ = 0;  // of A in the workspace; 0: it is read where it is
  std::int64_t depth_ = 0;       // of k, summed up in registers
  ProductTiles tiles_;
  int pack_threads_;
};

}  // namespace bp::cpu

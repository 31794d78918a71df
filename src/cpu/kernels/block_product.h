// BlockProduct: a large f32 product in machine code on AVX-512. B is packed, a block for the second cache at a time, by
// the first tiles that read it, A tile by tile; what a tile adds to and writes is asked for while it is summed up, so
// that operands in memory cost little more than those in a cache. Each thread computes a part of C by itself.
// Used by MatmulKernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/kernels/jit_product.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/matmul_micro.h"

namespace bp::cpu {

class BlockProduct {
 public:
  // Whether it computes this spec here: large enough, and machine code can do it.
  static bool takes(const MatmulSpec& spec);
  explicit BlockProduct(const MatmulSpec& spec);  // with its leading dimensions

  std::size_t thread_bytes() const noexcept;
  struct Operands {
    const float *a, *b, *bias, *residual;
    float* c;
  };
  // The sum over k runs in an order fixed by the spec. workspace: thread_bytes() for each thread, aligned to 64.
  void run(const Operands& operands, void* workspace, int threads) const;

 private:
  struct Block;
  struct Part {
    std::int64_t tile, end_tile, panel, end_panel;
  };
  std::int64_t row_of(std::int64_t tile) const noexcept { return tile * rows_ + (tile < longer_ ? tile : longer_); }
  void run_part(const Operands& o, char* workspace, int thread, int threads) const;
  Part part_of(int thread, int threads) const noexcept;
  void run_block(const Operands& o, const Block& block) const;
  void pack_panel(const Operands& o, const Block& block, std::int64_t panel) const;
  const float* tile_of_a(const Operands& o, const Block& block, std::int64_t tile) const;
  void ask_for_a(const Operands& o, const Block& block, std::int64_t tile, std::int64_t part) const;

  MatmulSpec spec_;
  const MicroTable* micro_;
  bool packs_a_ = false;                               // else it is read where it is
  std::int64_t tiles_ = 0, rows_ = 0, longer_ = 0;     // of C's rows: the first `longer_` tiles have a row more
  std::int64_t panels_ = 0;                            // of C's columns
  std::int64_t depth_ = 0, width_ = 0;                 // of a block of B: rows, panels
  std::shared_ptr<const MachineCode> codes_[2][2][2];  // [a row more][last panel][first pass]
};

}  // namespace bp::cpu

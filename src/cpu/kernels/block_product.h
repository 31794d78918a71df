// BlockProduct: a large f32 product in machine code on AVX-512. B is packed, a block for the second cache at a time, by
// the first tiles that read it, A tile by tile; what a tile adds to and writes is asked for while it is summed up, so
// that operands in memory cost little more than those in a cache. Each thread computes a part of C by itself.
// Used by MatmulKernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/matmul_micro.h"
#include "cpu/kernels/product_tiles.h"

namespace bp::cpu {

class BlockProduct {
 public:
  // Whether it computes this spec here: large enough, and machine code can do it.
  static bool takes(const MatmulSpec& spec);
  explicit BlockProduct(const MatmulSpec& spec);  // with its leading dimensions

  std::size_t workspace_bytes(int threads) const noexcept;
  // The sum over k runs in an order fixed by the spec. workspace: workspace_bytes(threads), aligned to 64.
  void run(const ProductOperands& operands, void* workspace, int threads) const;

 private:
  struct Block;
  struct Part {
    std::int64_t tile, end_tile, panel, end_panel;
  };
  int team_of(int threads) const noexcept;
  int parts_across(int threads) const noexcept;
  Part part_of(int thread, int threads) const noexcept;
  std::int64_t width_for(int team) const noexcept;
  std::size_t thread_bytes(std::int64_t width) const noexcept;
  void run_part(const ProductOperands& o, char* memory, std::int64_t width, const Part& part) const;
  void run_block(const ProductOperands& o, const Block& block) const;
  void pack_panel(const ProductOperands& o, const Block& block, std::int64_t panel) const;
  const float* tile_of_a(const ProductOperands& o, const Block& block, std::int64_t tile) const;
  void ask_for_a(const ProductOperands& o, const Block& block, std::int64_t tile, std::int64_t part) const;

  MatmulSpec spec_;
  const MicroTable* micro_;
  bool packs_a_ = false;  // else it is read where it is
  ProductTiles tiles_;
  std::int64_t depth_ = 0, width_ = 0;  // of a block of B: rows, panels at most
};

}  // namespace bp::cpu

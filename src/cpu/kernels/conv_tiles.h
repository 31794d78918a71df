// The SIMD part of DirectConv, one table for each dtype: compiled for every instruction set, chosen when the program
// runs.
#pragma once

#include <cstdint>

#include "cpu/kernels/conv_direct.h"

namespace bp::cpu {

struct ConvTiles {
  std::int64_t tile = 0;  // output channels of a register tile

  // Rows [begin, end) of y; a row is all positions along the last axis. w: packed, [tile][tap][in channel][channel of
  // the tile], zeros beyond the last channel. zeros: in_channels of them.
  void (*forward)(const DirectConv::Shape& s, const void* x, const void* w, const void* bias, const void* residual,
                  void* y, const void* zeros, std::int64_t begin, std::int64_t end) = nullptr;
  // Adds what rows [begin, end) of dy give to sum, [tap][in channel][out channel].
  void (*weight_grad)(const DirectConv::Shape& s, const void* x, const void* dy, void* sum, std::int64_t begin,
                      std::int64_t end) = nullptr;
};

const ConvTiles& conv_tiles(DType dtype);  // f32 or f64

}  // namespace bp::cpu

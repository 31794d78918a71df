// The instructions of fused loops: functions over tiles, one table for each compute dtype, chosen for the machine's
// instruction set at run time. CompiledLoop looks them up once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bp/dtype.h"
#include "cpu/kernels/loop_program.h"

namespace bp::cpu {

// A tile is `rows` x `n` contiguous elements. An operand is either such a tile or a scalar per row (element r serves
// row r). dst may be the same memory as a tile operand. Reductions write one element per row to dst; accumulators
// combine a (and b) into dst.
// Accumulators of more than 64 columns take the rows one after another, others the rows' own result.
constexpr bool accumulate_by_row(std::size_t n) { return n > 64; }
using TileFn = void (*)(void* dst, const void* a, const void* b, const void* c, std::size_t rows, std::size_t n);

// Tile instructions: the element-wise, selecting and reducing LoopOps under their own number, then macro-instructions.
enum class TileOp : std::uint8_t {
  copy = static_cast<int>(LoopOp::column_min) + 1,  // a; of a scalar: expands it
  ramp,                                             // a (scalar) + index within the row
  fma,                                              // a * b + c
  fms,                                              // a * b - c
  nfma,                                             // c - a * b
  axpby,                                            // c[0] * a + c[1] * b
  axpbyy,                                           // c[0] * a + c[1] * b * b
  exp_sub,                                          // exp(a - b)
  sub_mul,                                          // (a - b) * c
  add_relu,                                         // max(a + b, 0)
  relu_mask,                                        // a > 0 ? b : 0
  row_dot,                                          // sum over the row of a * b
  row_pick,                                         // a at column b (one a row) - c[0], or 0 where there is none
  column_sum,                                       // accumulators: dst += a, and so on
  column_max,
  column_min,
  column_dot,  // dst += a * b
  count
};
constexpr TileOp tile_op(LoopOp op) noexcept { return static_cast<TileOp>(op); }
// The accumulator of a column_sum, column_max or column_min.
constexpr TileOp accumulator_op(LoopOp op) noexcept {
  return op == LoopOp::column_sum   ? TileOp::column_sum
         : op == LoopOp::column_max ? TileOp::column_max
                                    : TileOp::column_min;
}

// fn[op][mask]: bit k of mask says that operand k is a scalar per row. Null where no such form exists.
struct TileTable {
  TileFn fn[static_cast<std::size_t>(TileOp::count)][8] = {};
  TileFn& at(TileOp op, unsigned scalar_mask) { return fn[static_cast<std::size_t>(op)][scalar_mask]; }
  TileFn at(TileOp op, unsigned scalar_mask) const { return fn[static_cast<std::size_t>(op)][scalar_mask]; }
};
const TileTable& tile_table(DType compute);
// Floats in a vector of the instruction set that was chosen: rows are summed in so many lanes.
std::size_t tile_lanes();

// Conversion of n contiguous elements between storage and the compute dtype.
using ConvertFn = void (*)(void* dst, const void* src, std::size_t n);
ConvertFn load_converter(DType storage, DType compute);
ConvertFn store_converter(DType compute, DType storage);

// dst[i] = random word of element first + i, top `width` bits, as the compute dtype.
using RandomFn = void (*)(void* dst, std::size_t n, std::uint64_t first, std::uint64_t key, std::uint64_t counter,
                          int width);
RandomFn random_tile(DType compute);

// Each kernel file adds its instructions.
void add_basic_tiles(TileTable& f32_table, TileTable& f64_table);
void add_math_tiles(TileTable& f32_table, TileTable& f64_table);
void add_reduce_tiles(TileTable& f32_table, TileTable& f64_table);

}  // namespace bp::cpu

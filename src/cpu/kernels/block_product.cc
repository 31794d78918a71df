#include "cpu/kernels/block_product.h"

#include <algorithm>

#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

constexpr std::int64_t kLine = 16;  // floats of a cache line and of a vector
static_assert(kMostDepth <= kPackedRow);
constexpr std::int64_t kBlockFloats = 128 * 1024;  // half of a second cache of 1 MiB
constexpr std::int64_t kTileFloats = std::max(kTileRows * kPackedRow, kMostDepth* kPackedColumn);

}  // namespace

// B's rows [p, p + depth) and panels [panel, end_panel), and the tiles of rows that meet them.
struct BlockProduct::Block {
  Part part;
  std::int64_t panel, end_panel, p, depth;
  float *packed_a, *packed_b;
  bool first() const noexcept { return p == 0; }
};

bool BlockProduct::takes(const MatmulSpec& s) {
  return ProductTiles::takes(s) && s.m * s.n * s.k >= 112 * 112 * 112 && s.m >= kTileRows;
}

BlockProduct::BlockProduct(const MatmulSpec& spec)
    : spec_(spec),
      micro_(&micro_table(f32)),
      packs_a_(spec.transpose_a || spec.lda % kPoorStride == 0 || spec.lda > kFarRows),
      tiles_(spec,
             spec.transpose_a ? 1
             : packs_a_       ? kPackedRow
                              : spec.lda,
             spec.transpose_a ? kPackedColumn : 1, !spec.transpose_b) {
  const std::int64_t blocks = (spec.k + kMostDepth - 1) / kMostDepth;
  depth_ = up_to((spec.k + blocks - 1) / blocks, 4);
  width_ = std::min(tiles_.panels(), kBlockFloats / (depth_ * kTileColumns));
}

int BlockProduct::team_of(int threads) const noexcept {
  return static_cast<int>(std::clamp<std::int64_t>(threads, 1, tiles_.tiles() * tiles_.panels()));
}

// The grid of parts that takes the least time: of the longest part's products, and of packing for it.
int BlockProduct::parts_across(int threads) const noexcept {
  constexpr std::int64_t kPackingRow = 2;  // a row or column packed takes as long as so many products by it
  std::int64_t least = 0;
  int across = 1;
  for (int t = 1; t <= threads; ++t) {
    if (threads % t != 0) continue;
    const std::int64_t rows = (tiles_.tiles() + threads / t - 1) / (threads / t) * kTileRows;
    const std::int64_t cols = (tiles_.panels() + t - 1) / t * kTileColumns;
    const std::int64_t time = rows * cols + kPackingRow * (rows + cols);
    if (t == 1 || time < least) least = time, across = t;
  }
  return across;
}

BlockProduct::Part BlockProduct::part_of(int thread, int threads) const noexcept {
  const int across = parts_across(threads), down = threads / across, i = thread / across, j = thread % across;
  const std::int64_t rows = tiles_.tiles(), cols = tiles_.panels();
  return {rows * i / down, rows * (i + 1) / down, cols * j / across, cols * (j + 1) / across};
}

// Panels of a block where so many threads have memory. The sums do not depend on it.
std::int64_t BlockProduct::width_for(int team) const noexcept {
  const int across = parts_across(team);
  return std::min(width_, (tiles_.panels() + across - 1) / across);
}

std::size_t BlockProduct::thread_bytes(std::int64_t width) const noexcept {
  return whole_lines(static_cast<std::size_t>(kTileFloats + width * depth_ * kTileColumns) * sizeof(float));
}

std::size_t BlockProduct::workspace_bytes(int threads) const noexcept {
  const int team = team_of(threads);
  return static_cast<std::size_t>(team) * thread_bytes(width_for(team));
}

void BlockProduct::run(const ProductOperands& o, void* workspace, int threads) const {
  const int team = team_of(threads);
  const std::int64_t width = width_for(team);
  // Fewer threads may come, whose parts are larger then: the memory is that of the team asked for.
  run_team(team, [&](int thread, int all) {
    char* const memory = static_cast<char*>(workspace) + static_cast<std::size_t>(thread) * thread_bytes(width);
    run_part(o, memory, width, part_of(thread, all));
  });
}

void BlockProduct::run_part(const ProductOperands& o, char* memory, std::int64_t width, const Part& part) const {
  Block block{};
  block.part = part;
  block.packed_a = reinterpret_cast<float*>(memory);
  block.packed_b = block.packed_a + kTileFloats;
  for (block.panel = part.panel; block.panel < part.end_panel; block.panel = block.end_panel) {
    block.end_panel = std::min(block.panel + width, part.end_panel);
    for (block.p = 0; block.p < spec_.k; block.p += depth_) {
      block.depth = std::min(depth_, spec_.k - block.p);
      run_block(o, block);
    }
  }
}

void BlockProduct::run_block(const ProductOperands& o, const Block& block) const {
  const bool last = block.p + block.depth == spec_.k;
  for (std::int64_t tile = block.part.tile; tile < block.part.end_tile; ++tile) {
    const float* const a = tile_of_a(o, block, tile);
    const bool packs = tile == block.part.tile && !spec_.transpose_b;
    for (std::int64_t panel = block.panel; panel < block.end_panel; ++panel) {
      if (tile == block.part.tile && spec_.transpose_b) pack_panel(o, block, panel);
      if (tile + 1 < block.part.end_tile) ask_for_a(o, block, tile + 1, panel - block.panel);
      ProductTile t = tiles_.part(o, tile, panel, block.first(), last);
      t.k = block.depth;
      t.a = a;
      t.panel = block.packed_b + (panel - block.panel) * depth_ * kTileColumns;
      t.b = packs ? o.b + block.p * spec_.ldb + panel * kTileColumns : t.panel;
      t.b_step = spec_.ldb * 4;
      tiles_.run(t, tile, panel, packs);
    }
  }
}

void BlockProduct::pack_panel(const ProductOperands& o, const Block& block, std::int64_t panel) const {
  const std::int64_t col = panel * kTileColumns, cols = std::min(kTileColumns, spec_.n - col);
  float* to = block.packed_b + (panel - block.panel) * depth_ * kTileColumns;
  if (cols < kTileColumns) std::fill_n(to, block.depth * kTileColumns, 0.0f);
  micro_->transpose(o.b + col * spec_.ldb + block.p, spec_.ldb, cols, block.depth, to, kTileColumns);
}

const float* BlockProduct::tile_of_a(const ProductOperands& o, const Block& block, std::int64_t tile) const {
  const std::int64_t row = tiles_.row_of(tile), rows = tiles_.rows_of(tile);
  const float* from = o.a + (spec_.transpose_a ? block.p * spec_.lda + row : row * spec_.lda + block.p);
  if (!packs_a_) return from;
  if (spec_.transpose_a)
    micro_->copy_rows(from, spec_.lda, block.depth, rows, block.packed_a, kPackedColumn);
  else
    micro_->copy_rows(from, spec_.lda, rows, block.depth, block.packed_a, kPackedRow);
  return block.packed_a;
}

// A share of the lines that pack_a will read.
void BlockProduct::ask_for_a(const ProductOperands& o, const Block& block, std::int64_t tile, std::int64_t part) const {
  const std::int64_t row = tiles_.row_of(tile), rows = tiles_.rows_of(tile);
  const std::int64_t parts = block.end_panel - block.panel;
  if (spec_.transpose_a) {
    for (std::int64_t p = block.depth * part / parts; p < block.depth * (part + 1) / parts; ++p)
      __builtin_prefetch(o.a + (block.p + p) * spec_.lda + row + rows - 1, 0, 2);
    return;
  }
  const std::int64_t lines = (block.depth + kLine - 1) / kLine, all = rows * lines;
  for (std::int64_t i = all * part / parts; i < all * (part + 1) / parts; ++i)
    __builtin_prefetch(o.a + (row + i / lines) * spec_.lda + block.p + i % lines * kLine, 0, 2);
}

}  // namespace bp::cpu

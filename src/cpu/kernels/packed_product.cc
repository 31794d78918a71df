#include "cpu/kernels/packed_product.h"

#include <algorithm>

#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

constexpr std::int64_t kMostRows = 64;  // beyond, BlockProduct's order of tiles reads less

MatmulSpec with_steps(MatmulSpec s) {
  if (s.lda == 0) s.lda = s.k;
  if (s.ldb == 0) s.ldb = s.transpose_b ? s.k : s.n;
  if (s.ldc == 0) s.ldc = s.n;
  if (s.ldr == 0) s.ldr = s.n;
  return s;
}

}  // namespace

bool PackedProduct::takes(const MatmulSpec& s) {
  return ProductTiles::takes(s) && !s.transpose_a && s.m <= kMostRows && s.k <= kFarRows / 2;
}

PackedProduct::PackedProduct(const MatmulSpec& spec, int pack_threads)
    : spec_(with_steps(spec)),
      micro_(&micro_table(f32)),
      packed_row_(spec_.lda % kPoorStride == 0 || spec_.lda > kFarRows ? up_to(spec_.k, 16) + 16 : 0),
      tiles_(spec_, packed_row_ != 0 ? packed_row_ : spec_.lda, 1, false),
      pack_threads_(threads_for_bytes(8.0 * static_cast<double>(spec_.k * spec_.n), pack_threads)) {
  const std::int64_t blocks = (spec_.k + kMostDepth - 1) / kMostDepth;
  depth_ = (spec_.k + blocks - 1) / blocks;
}

std::size_t PackedProduct::pack_bytes() const noexcept {
  return static_cast<std::size_t>(tiles_.panels() * kTileColumns * spec_.k) * sizeof(float);
}

void PackedProduct::run_pack(const void* b, void* packed) const {
  const auto* const from = static_cast<const float*>(b);
  auto* const to = static_cast<float*>(packed);
  const std::int64_t floats = kTileColumns * spec_.k;
  share(tiles_.panels(), pack_threads_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t col = panel * kTileColumns, cols = std::min(kTileColumns, spec_.n - col);
      float* const at = to + panel * floats;
      if (cols < kTileColumns) std::fill_n(at, floats, 0.0f);
      if (spec_.transpose_b)
        micro_->transpose(from + col * spec_.ldb, spec_.ldb, cols, spec_.k, at, kTileColumns);
      else
        micro_->copy_rows(from + col, spec_.ldb, spec_.k, cols, at, kTileColumns);
    }
  });
}

std::size_t PackedProduct::thread_bytes() const noexcept {
  return whole_lines(static_cast<std::size_t>(spec_.m * packed_row_) * sizeof(float));
}

int PackedProduct::useful_threads() const noexcept {
  constexpr std::int64_t kWorthOneThread = 100000;  // multiply-adds
  return static_cast<int>(std::clamp<std::int64_t>(spec_.m * spec_.n * spec_.k / kWorthOneThread, 1, tiles_.panels()));
}

void PackedProduct::run(const ProductOperands& operands, void* workspace, int threads) const {
  const int team = static_cast<int>(std::clamp<std::int64_t>(threads, 1, tiles_.panels()));
  run_team(team, [&](int thread, int all) {
    const float* a = operands.a;
    if (packed_row_ != 0) {
      auto* const rows =
          reinterpret_cast<float*>(static_cast<char*>(workspace) + static_cast<std::size_t>(thread) * thread_bytes());
      micro_->copy_rows(a, spec_.lda, spec_.m, spec_.k, rows, packed_row_);
      a = rows;
    }
    for (std::int64_t panel = tiles_.panels() * thread / all; panel < tiles_.panels() * (thread + 1) / all; ++panel)
      run_panel(operands, a, panel);
  });
}

void PackedProduct::run_panel(const ProductOperands& o, const float* a, std::int64_t panel) const {
  const std::int64_t a_row = packed_row_ != 0 ? packed_row_ : spec_.lda;
  for (std::int64_t p = 0; p < spec_.k; p += depth_)
    for (std::int64_t tile = 0; tile < tiles_.tiles(); ++tile) {
      ProductTile t = tiles_.part(o, tile, panel, p == 0, p + depth_ >= spec_.k);
      t.k = std::min(depth_, spec_.k - p);
      t.a = a + tiles_.row_of(tile) * a_row + p;
      t.b = o.b + (panel * spec_.k + p) * kTileColumns;
      tiles_.run(t, tile, panel, false);
    }
}

}  // namespace bp::cpu

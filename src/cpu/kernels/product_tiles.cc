#include "cpu/kernels/product_tiles.h"

#include <new>

namespace bp::cpu {

namespace {
constexpr std::int64_t kVector = 16;
}  // namespace

bool ProductTiles::takes(const MatmulSpec& s) {
  return machine_code_wanted() && s.dtype == f32 && s.m > 0 && s.n > 0 && s.k > 0 && !(s.accumulate && s.residual) &&
         (s.activation == Activation::none || (s.activation == Activation::relu && !s.residual));
}

ProductTiles::ProductTiles(const MatmulSpec& spec, std::int64_t a_row, std::int64_t a_k, bool packs)
    : spec_(spec),
      tiles_((spec.m + kTileRows - 1) / kTileRows),
      rows_(spec.m / tiles_),
      longer_(spec.m % tiles_),
      panels_((spec.n + kTileColumns - 1) / kTileColumns) {
  const std::int64_t last = spec.n - (panels_ - 1) * kTileColumns;
  for (const bool longer : {false, true})
    for (const bool end : {false, true})
      for (const bool packing : {false, true}) {
        if ((longer && longer_ == 0) || (packing && !packs)) continue;
        ProductCodeKey key;
        key.rows = static_cast<int>(rows_) + (longer ? 1 : 0);
        key.vectors = static_cast<int>(end ? (last + kVector - 1) / kVector : kTileColumns / kVector);
        key.masked = end && last % kVector != 0;
        key.a_row = a_row, key.a_k = a_k;
        key.first_pass = packing;
        codes_[longer][end][packing] = product_code(key);
        if (codes_[longer][end][packing] == nullptr) throw std::bad_alloc();
      }
}

ProductTile ProductTiles::part(const ProductOperands& o, std::int64_t tile, std::int64_t panel, bool first,
                               bool last) const {
  const std::int64_t row = row_of(tile), col = panel * kTileColumns;
  ProductTile t{};
  t.c = o.c + row * spec_.ldc + col;
  t.c_step = t.source_step = spec_.ldc * 4;
  if (!first || spec_.accumulate) t.source = t.c;
  if (first && spec_.bias) t.bias = o.bias + col;
  if (first && spec_.residual) {
    t.source = o.residual + row * spec_.ldr + col;
    t.source_step = spec_.ldr * 4;
  }
  t.mask = (std::int64_t{1} << ((spec_.n - col - 1) % kVector + 1)) - 1;
  t.relu = last && spec_.activation == Activation::relu;
  return t;
}

}  // namespace bp::cpu

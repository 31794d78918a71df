// Names, promotion and bf16 conversion of element types.
#include "bp/dtype.h"

#include <bit>
#include <cmath>

#include "base/error.h"

namespace bp {

namespace {
constexpr DType kAll[] = {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8, DType::boolean};

// Position in the promotion lattice, lowest first.
constexpr int level(DType t) noexcept {
  switch (t) {
    case DType::boolean: return 0;
    case DType::u8: return 1;
    case DType::i32: return 2;
    case DType::i64: return 3;
    case DType::bf16: return 4;
    case DType::f32: return 5;
    case DType::f64: return 6;
  }
  return 0;
}
}  // namespace

std::string_view name_of(DType t) noexcept {
  switch (t) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i64: return "i64";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
    case DType::boolean: return "bool";
  }
  return "?";
}

DType dtype_from_name(std::string_view name) {
  for (DType t : kAll)
    if (name_of(t) == name) return t;
  fail(ErrorKind::dtype, "unknown dtype \"{}\": expected one of f64, f32, bf16, i64, i32, u8, bool", name);
}

DType promote(DType a, DType b) noexcept { return level(a) >= level(b) ? a : b; }

bfloat16::bfloat16(float v) noexcept {
  auto u = std::bit_cast<std::uint32_t>(v);
  if (std::isnan(v)) {
    bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);
    return;
  }
  u += 0x7fffu + ((u >> 16) & 1u);
  bits = static_cast<std::uint16_t>(u >> 16);
}

bfloat16::operator float() const noexcept { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

}  // namespace bp

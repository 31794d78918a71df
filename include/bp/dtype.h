// Element types and NumPy-style promotion. Used by every other header.
//
//   assert(size_of(bf16) == 2 && promote(i64, f32) == f32 && dtype_from_name("f64") == f64);
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bp {

// The element types a Tensor may have. boolean is stored as one byte, 0 or 1.
enum class DType : std::uint8_t { f64, f32, bf16, i64, i32, u8, boolean };

inline constexpr DType f64 = DType::f64;          // IEEE double
inline constexpr DType f32 = DType::f32;          // IEEE single, the default
inline constexpr DType bf16 = DType::bf16;        // bfloat16
inline constexpr DType i64 = DType::i64;          // 64-bit integer
inline constexpr DType i32 = DType::i32;          // 32-bit integer
inline constexpr DType u8 = DType::u8;            // unsigned byte
inline constexpr DType boolean = DType::boolean;  // true or false

// Bytes of one element.
constexpr std::size_t size_of(DType t) noexcept {
  switch (t) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8:
    case DType::boolean: return 1;
  }
  return 0;
}

// f64, f32, bf16.
constexpr bool is_float(DType t) noexcept { return t == DType::f64 || t == DType::f32 || t == DType::bf16; }
// i64, i32, u8.
constexpr bool is_integer(DType t) noexcept { return t == DType::i64 || t == DType::i32 || t == DType::u8; }

// "f32", "bool", ...: the spelling used in messages, in TOML and in `bp inspect`.
std::string_view name_of(DType t) noexcept;

// The inverse of name_of; throws Error(dtype) naming the accepted spellings.
DType dtype_from_name(std::string_view name);

// The dtype in which two operands meet. The lattice is boolean < u8 < i32 < i64 < bf16 < f32 < f64; an integer
// meeting a float takes the float's dtype (as in PyTorch and JAX; NumPy would widen i64 + f32 to f64).
DType promote(DType a, DType b) noexcept;

// bf16 is the upper half of an IEEE f32. Storage type only: arithmetic happens in f32.
struct bfloat16 {
  std::uint16_t bits = 0;  // sign, 8 bits of exponent, 7 of fraction
  bfloat16() = default;
  explicit bfloat16(float v) noexcept;  // rounds to nearest, ties to even; NaN stays NaN
  operator float() const noexcept;      // exact
};

namespace detail {
template <class T> struct dtype_of;
template <> struct dtype_of<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of<bfloat16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of<std::int64_t> { static constexpr DType value = DType::i64; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of<std::uint8_t> { static constexpr DType value = DType::u8; };
template <> struct dtype_of<bool> { static constexpr DType value = DType::boolean; };
}  // namespace detail

// The DType of a C++ element type: dtype_of<float> == f32.
template <class T> inline constexpr DType dtype_of = detail::dtype_of<T>::value;

// Calls f with a value-initialised element of the C++ type that stores `t`: dispatch(t, [&](auto zero) { using T =
// decltype(zero); ... }).
template <class F> decltype(auto) dispatch(DType t, F&& f) {
  switch (t) {
    case DType::f64: return f(double{});
    case DType::f32: return f(float{});
    case DType::bf16: return f(bfloat16{});
    case DType::i64: return f(std::int64_t{});
    case DType::i32: return f(std::int32_t{});
    case DType::u8: return f(std::uint8_t{});
    case DType::boolean: break;
  }
  return f(bool{});
}

}  // namespace bp

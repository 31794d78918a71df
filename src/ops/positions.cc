// Positions of sequences: rotation of queries and keys, and the table of sines.
#include <cmath>

#include "bp/attention.h"
#include "ops/common.h"

namespace bp {

using namespace ops;

// Angles in f64: in f32 position 10000 would be off by 1e-3 radians.
Tensor rotary(const Tensor& x, const Tensor& offset, double base) {
  Scope scope("rotary");
  if (x.rank() != 4 || x.size(3) % 2 != 0 || !is_float(x.dtype()))
    fail(ErrorKind::shape, "[rotary] expected floats [B, T, H, D] with D even, got {}", x.type().str());
  if (!(base > 0 && std::isfinite(base))) fail(ErrorKind::value, "[rotary] expected a base above 0, got {}", base);
  if (offset.defined() && (!is_integer(offset.dtype()) || offset.numel() != 1))
    fail(ErrorKind::shape, "[rotary] offset: expected an integer, got {}", offset.type().str());
  const std::int64_t half = x.size(3) / 2;
  std::vector<double> rates;
  for (std::int64_t i = 0; i < half; ++i)
    rates.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(half)));
  Tensor place = iota({x.size(1), 1, 1}, 0, DType::f64);
  if (offset.defined()) place = place + cast(reshape(offset, Shape{}), DType::f64);
  const DType t = x.dtype() == DType::bf16 ? DType::f32 : x.dtype();
  const Tensor angle = place * Tensor::from(rates, {half});  // [T, 1, half]
  const Tensor c = cast(cos(angle), t), s = cast(sin(angle), t), wide = cast(x, t);
  const Tensor first = slice(wide, 3, 0, half), second = slice(wide, 3, half, 2 * half);
  return cast(concatenate({first * c - second * s, second * c + first * s}, 3), x.dtype());
}

Tensor sinusoidal_positions(std::int64_t length, std::int64_t width, DType dtype) {
  if (length < 0 || width < 2 || width % 2 != 0)
    fail(ErrorKind::value, "[sinusoidal_positions] expected a length of 0 or more and an even width, got {} and {}",
         length, width);
  std::vector<double> table;
  for (std::int64_t t = 0; t < length; ++t)
    for (std::int64_t i = 0; i < width; ++i) {
      const double angle =
          static_cast<double>(t) * std::pow(1e4, -static_cast<double>(i / 2 * 2) / static_cast<double>(width));
      table.push_back(i % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
  return cast(Tensor::from(table, {length, width}), dtype);
}

}  // namespace bp

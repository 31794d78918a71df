// Host arrays: allocation with checked sizes, and conversion of values between dtypes.
#include "bp/array.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"

namespace bp {

namespace {
constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 46;

// Whether truncating v fits To. The bounds are powers of two, so they are exact in double.
template <class To, class From> bool fits(From v) {
  if constexpr (std::is_same_v<From, float> || std::is_same_v<From, double> || std::is_same_v<From, bfloat16>) {
    const double d = std::trunc(static_cast<double>(v));
    return d >= static_cast<double>(std::numeric_limits<To>::min()) &&
           d < std::ldexp(1.0, std::numeric_limits<To>::digits);
  } else {
    return std::in_range<To>(static_cast<std::int64_t>(v));
  }
}

template <class To, class From> void convert_values(const Array& a, Array& out) {
  const From* in = a.buffer.as<From>();
  To* to = out.buffer.as_mutable<To>();
  const std::int64_t n = a.numel();
  if constexpr (std::is_same_v<To, bool>) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = in[i] != From{};
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = bfloat16(static_cast<float>(in[i]));
  } else if constexpr (std::is_floating_point_v<To>) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(in[i]);
  } else {
    const std::int64_t row = a.rows() == 0 ? 1 : n / a.rows();
    for (std::int64_t i = 0; i < n; ++i) {
      if (!fits<To>(in[i]))
        fail(ErrorKind::value, "cannot convert {} to {}: row {} holds {}", name_of(a.dtype), name_of(out.dtype),
             i / row, static_cast<double>(in[i]));
      to[i] = static_cast<To>(in[i]);
    }
  }
}
}  // namespace

std::size_t checked_bytes(DType dtype, const Shape& shape, const char* where) {
  std::uint64_t bytes = size_of(dtype);
  bool none = false, overflow = false;
  for (std::int64_t n : shape) {
    none = none || n == 0;
    if (n == 0) continue;  // the other sizes must still multiply without overflow
    overflow = overflow || static_cast<std::uint64_t>(n) > kMaxBytes / bytes;
    if (!overflow) bytes *= static_cast<std::uint64_t>(n);
  }
  if (overflow) fail(ErrorKind::shape, "[{}] an array of {} {} is too large to address", where, shape, name_of(dtype));
  return none ? 0 : static_cast<std::size_t>(bytes);
}

Array Array::empty(DType dtype, const Shape& shape) {
  return {dtype, shape, Buffer::allocate(checked_bytes(dtype, shape, "array"))};
}

Array Array::zeros(DType dtype, const Shape& shape) {
  Array a = empty(dtype, shape);
  std::memset(a.buffer.mutable_data(), 0, a.bytes());
  return a;
}

Array Array::copy_of(DType dtype, const Shape& shape, const void* values, std::size_t count) {
  const std::size_t bytes = checked_bytes(dtype, shape, "array");
  if (bytes != count * size_of(dtype))
    fail(ErrorKind::shape, "[array] {} values do not fill the shape {}, which holds {}", count, shape, shape.numel());
  Array a = empty(dtype, shape);
  if (bytes != 0) std::memcpy(a.buffer.mutable_data(), values, bytes);
  return a;
}

std::size_t Array::row_bytes() const noexcept {
  std::size_t bytes = size_of(dtype);
  for (int i = 1; i < shape.rank(); ++i) bytes *= static_cast<std::size_t>(shape[i]);
  return bytes;
}

Array Array::reshaped(const Shape& to) const {
  if (checked_bytes(dtype, to, "reshape") != bytes() || to.numel() != numel())
    fail(ErrorKind::shape, "[reshape] {} holds {} values and cannot become {}, which holds {}", shape, numel(), to,
         to.numel());
  return {dtype, to, buffer};
}

void Array::require(DType wanted) const {
  if (dtype != wanted)
    fail(ErrorKind::dtype, "the array holds {}, it was read as {}: convert() it first", name_of(dtype),
         name_of(wanted));
}

Array convert(const Array& a, DType to) {
  if (a.dtype == to) return a;
  Array out = Array::empty(to, a.shape);
  dispatch(a.dtype, [&](auto from) {
    dispatch(to, [&](auto target) { convert_values<decltype(target), decltype(from)>(a, out); });
  });
  return out;
}

}  // namespace bp

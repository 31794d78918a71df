// Window geometry shared by conv.cc and pool.cc.
#include "ops/window.h"

#include <algorithm>

namespace bp::ops {

std::int64_t Windows::product(const Ints& sizes) {
  std::int64_t n = 1;
  for (auto s : sizes) n *= s;
  return n;
}

std::int64_t Windows::source(std::int64_t y_row, std::int64_t tap) const {
  std::int64_t at = 0, scale = 1;
  for (std::size_t i = in.size(); i-- > 0;) {
    const std::int64_t x = y_row % out[i] * stride[i] + tap % window[i] * dilation[i] - low[i];
    if (x < 0 || x >= in[i]) return -1;
    at += x * scale;
    scale *= in[i];
    y_row /= out[i];
    tap /= window[i];
  }
  return at + y_row * scale;
}

Windows windows_of(const Attrs& attrs, const Ints& window, const Shape& x, const Shape& y) {
  return {spatial_of(x), spatial_of(y), window, attrs.ints("stride"), attrs.ints("dilation"), attrs.ints("padding_low"),
          x[0]};
}

Ints output_sizes(const Attrs& attrs, const Ints& in, const Ints& window, const char* op) {
  const Ints &stride = attrs.ints("stride"), &dilation = attrs.ints("dilation"), &low = attrs.ints("padding_low"),
             &high = attrs.ints("padding_high");
  Ints out;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const std::int64_t reach = dilation[i] * (window[i] - 1) + 1, room = in[i] + low[i] + high[i];
    if (reach > room)
      fail(ErrorKind::shape,
           "[{}] expected an input of at least {} in spatial dimension {}, got {} with padding ({}, {}): "
           "the window has {} positions{}",
           op, reach, i, in[i], low[i], high[i], window[i],
           dilation[i] == 1 ? "" : fmt::format(" {} apart", dilation[i]));
    out.push_back((room - reach) / stride[i] + 1);
  }
  return out;
}

void check_channels_last(const Shape& x, const char* op, const char* operand) {
  if (x.rank() < 3 || x.rank() > 5)
    fail(ErrorKind::shape, "[{}] expected {} [N, s.., C] with one to three spatial dimensions, got {}", op, operand, x);
}

void check_windows(const Attrs& attrs, const Ints& window, const Shape& x, const char* op, const char* operand) {
  check_channels_last(x, op, operand);
  const auto spatial = static_cast<std::size_t>(x.rank() - 2);
  const auto check = [&](const char* name, const Ints& v, std::int64_t least) {
    if (v.size() != spatial)
      fail(ErrorKind::shape, "[{}] expected {} entries of {} for {} {}, got {}", op, spatial, name, operand, x,
           v.size());
    for (auto n : v)
      if (n < least) fail(ErrorKind::value, "[{}] expected {} >= {}, got {}", op, name, least, n);
  };
  check("window sizes", window, 1);
  check("stride", attrs.ints("stride"), 1);
  check("dilation", attrs.ints("dilation"), 1);
  check("padding", attrs.ints("padding_low"), 0);
  check("padding", attrs.ints("padding_high"), 0);
}

Ints spatial_of(const Shape& x) { return Ints(x.begin() + 1, x.end() - 1); }

Shape channels_last(std::int64_t batch, const Ints& spatial, std::int64_t channels) {
  Shape s{batch};
  for (auto n : spatial) s.push_back(n);
  s.push_back(channels);
  return s;
}

std::string layout(int spatial, const std::string& channels) {
  static constexpr const char* kNames[] = {"", "L, ", "H, W, ", "D, H, W, "};
  return fmt::format("[N, {}{}]", kNames[spatial], channels);
}

Ints one_each(const std::vector<std::int64_t>& v, int spatial, const char* op, const char* what) {
  if (v.size() == 1) return Ints(static_cast<std::size_t>(spatial), v[0]);
  if (v.size() != static_cast<std::size_t>(spatial))
    fail(ErrorKind::shape, "[{}] expected 1 or {} entries of {}, got {}", op, spatial, what, v.size());
  return v;
}

Attrs with(Attrs attrs, const char* name, ir::AttrValue value) {
  attrs.set(name, std::move(value));
  return attrs;
}

Attrs without(const Attrs& attrs, std::string_view name) {
  Attrs out;
  for (const Attrs::Entry& e : attrs.entries())
    if (name != e.name) out.set(e.name, e.value);
  return out;
}

std::vector<double> to_doubles(const ir::View& v) {
  std::vector<double> out(static_cast<std::size_t>(v.type.shape.numel()));
  dispatch(v.type.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<double>(static_cast<arithmetic_t<T>>(v.as<T>()[i]));
  });
  return out;
}

void store(const std::vector<double>& values, const ir::View& v) {
  dispatch(v.type.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < values.size(); ++i)
      v.as<T>()[i] = static_cast<T>(static_cast<arithmetic_t<T>>(values[i]));
  });
}

}  // namespace bp::ops

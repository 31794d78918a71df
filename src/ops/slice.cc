// Selecting a box of elements and its transpose: slice (strided) and pad (edges that add or crop, gaps between
// neighbours).
#include <algorithm>
#include <cmath>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
std::int64_t slice_size(std::int64_t start, std::int64_t stop, std::int64_t step) {
  return stop > start ? (stop - start + step - 1) / step : 0;
}

std::vector<Type> infer_slice(const InferArgs& a) {
  const Shape& in = a.in[0].shape;
  const Ints &start = a.attrs.ints("start"), &stop = a.attrs.ints("stop"), &step = a.attrs.ints("step");
  const auto rank = static_cast<std::size_t>(in.rank());
  if (start.size() != rank || stop.size() != rank || step.size() != rank)
    fail(ErrorKind::shape, "[slice] expected one start, stop and step for each axis of {}, got {}, {} and {}", in,
         start.size(), stop.size(), step.size());
  Shape out = in;
  for (std::size_t d = 0; d < rank; ++d) {
    const std::int64_t n = in[static_cast<int>(d)];
    if (start[d] < 0 || start[d] > stop[d] || stop[d] > n || step[d] < 1)
      fail(ErrorKind::shape,
           "[slice] expected 0 <= start <= stop <= {} and step >= 1 along axis {} of {}, got {}:{}:{}", n, d, in,
           start[d], stop[d], step[d]);
    out[static_cast<int>(d)] = slice_size(start[d], stop[d], step[d]);
  }
  return {{a.in[0].dtype, out}};
}

void reference_slice(const KernelArgs& k) {
  const Ints &start = k.attrs.ints("start"), &step = k.attrs.ints("step");
  const Shape& out = k.out[0].type.shape;
  Place from{0, strides_of(k.in[0].type.shape)};
  for (std::size_t d = 0; d < start.size(); ++d) {
    from.base += from.strides[d] * start[d];
    from.strides[d] *= step[d];
  }
  copy_box(out, k.in[0], from, k.out[0], {0, strides_of(out)});
}

std::vector<Tensor> vjp_slice(const VjpArgs& v) {
  const Shape &in = v.in[0].shape(), &out = v.out[0].shape();
  const Ints &start = v.attrs.ints("start"), &step = v.attrs.ints("step");
  Ints low(start.size()), high(start.size()), interior(start.size());
  for (std::size_t d = 0; d < start.size(); ++d) {
    const int i = static_cast<int>(d);
    const std::int64_t covered = out[i] == 0 ? 0 : (out[i] - 1) * step[d] + 1;
    low[d] = start[d];
    high[d] = in[i] - start[d] - covered;
    interior[d] = step[d] - 1;
  }
  return {pad(v.d(), low, high, 0, interior)};
}

std::vector<Type> infer_pad(const InferArgs& a) {
  const Shape& in = a.in[0].shape;
  const Ints &low = a.attrs.ints("low"), &high = a.attrs.ints("high"), &interior = a.attrs.ints("interior");
  const auto rank = static_cast<std::size_t>(in.rank());
  if (low.size() != rank || high.size() != rank || interior.size() != rank)
    fail(ErrorKind::shape, "[pad] expected one low, high and interior entry for each axis of {}, got {}, {} and {}", in,
         low.size(), high.size(), interior.size());
  Shape out = in;
  for (std::size_t d = 0; d < rank; ++d) {
    const std::int64_t n = in[static_cast<int>(d)];
    const std::int64_t size = low[d] + high[d] + n + std::max<std::int64_t>(n - 1, 0) * interior[d];
    if (interior[d] < 0 || size < 0)
      fail(ErrorKind::shape,
           "[pad] expected interior >= 0 and a size >= 0 along axis {} of {}, got low {}, high {}, "
           "interior {}",
           d, in, low[d], high[d], interior[d]);
    out[static_cast<int>(d)] = size;
  }
  if (!is_float(a.in[0].dtype) && !std::isfinite(a.attrs.real("value")))
    fail(ErrorKind::value, "[pad] expected a finite value to pad {} with, got {}", a.in[0].str(),
         a.attrs.real("value"));
  return {{a.in[0].dtype, out}};
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

void reference_pad(const KernelArgs& k) {
  const Ints &low = k.attrs.ints("low"), &interior = k.attrs.ints("interior");
  const Shape &in = k.in[0].type.shape, &out = k.out[0].type.shape;
  dispatch(k.out[0].type.dtype, [&](auto zero) {
    using T = decltype(zero);
    std::fill_n(k.out[0].as<T>(), out.numel(), static_cast<T>(k.attrs.real("value")));
  });
  Place from{0, strides_of(in)}, to{0, strides_of(out)};
  Shape box = in;  // the input elements that cropping leaves
  for (std::size_t d = 0; d < low.size(); ++d) {
    const int i = static_cast<int>(d);
    const std::int64_t step = interior[d] + 1;
    const std::int64_t first = std::max<std::int64_t>(ceil_div(-low[d], step), 0);
    const std::int64_t last = std::min(ceil_div(out[i] - low[d], step), in[i]);
    if (last <= first) return;
    box[i] = last - first;
    from.base += first * from.strides[d];
    to.base += (low[d] + first * step) * to.strides[d];
    to.strides[d] *= step;
  }
  copy_box(box, k.in[0], from, k.out[0], to);
}

// Zeros where cropping took elements away, then a strided slice.
std::vector<Tensor> vjp_pad(const VjpArgs& v) {
  const Shape& in = v.in[0].shape();
  if (in.numel() == 0) return {zeros_like(v.in[0])};
  const Ints &low = v.attrs.ints("low"), &high = v.attrs.ints("high"), &interior = v.attrs.ints("interior");
  const std::size_t rank = low.size();
  Axes axes(rank);
  Ints grow_low(rank), grow_high(rank), start(rank), stop(rank), step(rank);
  for (std::size_t d = 0; d < rank; ++d) {
    axes[d] = static_cast<int>(d);
    grow_low[d] = std::max<std::int64_t>(-low[d], 0);
    grow_high[d] = std::max<std::int64_t>(-high[d], 0);
    step[d] = interior[d] + 1;
    start[d] = std::max<std::int64_t>(low[d], 0);
    stop[d] = start[d] + (in[static_cast<int>(d)] - 1) * step[d] + 1;
  }
  return {slice(pad(v.d(), grow_low, grow_high), axes, start, stop, step)};
}
}  // namespace

const OpDef op_slice{.name = "slice",
                     .cls = OpClass::movement,
                     .flags = kNone,
                     .infer = infer_slice,
                     .vjp = vjp_slice,
                     .reference = reference_slice,
                     .flops = no_flops,
                     .doc = "x[start:stop:step] along every axis: 0 <= start <= stop <= n, step >= 1."};

const OpDef op_pad{.name = "pad",
                   .cls = OpClass::movement,
                   .flags = kNone,
                   .infer = infer_pad,
                   .vjp = vjp_pad,
                   .reference = reference_pad,
                   .flops = no_flops,
                   .doc =
                       "Element i moves to low + i * (interior + 1) along every axis of size low + n + (n - 1) * "
                       "interior + high; `value` elsewhere. Negative low and high crop."};

}  // namespace ir

using namespace ops;

namespace {
std::int64_t clamp_index(std::int64_t i, std::int64_t n) { return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n); }
}  // namespace

Tensor slice(const Tensor& x, const Axes& axes, const std::vector<std::int64_t>& start,
             const std::vector<std::int64_t>& stop, const std::vector<std::int64_t>& step) {
  if (start.size() != axes.size() || stop.size() != axes.size() || (!step.empty() && step.size() != axes.size()))
    fail(ErrorKind::shape, "[slice] expected one start, stop and step for each of {} axes, got {}, {} and {}",
         axes.size(), start.size(), stop.size(), step.size());
  const Shape& shape = x.shape();
  Ints from(static_cast<std::size_t>(shape.rank()), 0), to = ir::to_ints(shape), by(from.size(), 1);
  std::vector<bool> named(from.size(), false);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto a = static_cast<std::size_t>(normalize_axis(axes[i], shape.rank(), "slice"));
    if (named[a]) fail(ErrorKind::shape, "[slice] axis {} is named twice", a);
    named[a] = true;
    from[a] = clamp_index(start[i], shape[static_cast<int>(a)]);
    to[a] = std::max(from[a], clamp_index(stop[i], shape[static_cast<int>(a)]));
    if (!step.empty()) by[a] = step[i];
  }
  if (to == ir::to_ints(shape) && from == Ints(from.size(), 0) && by == Ints(by.size(), 1)) return x;
  return record1(OpId::slice, {x}, {{"start", from}, {"stop", to}, {"step", by}});
}

Tensor slice(const Tensor& x, int axis, std::int64_t start, std::int64_t stop, std::int64_t step) {
  return slice(x, Axes{axis}, {start}, {stop}, {step});
}

Tensor pad(const Tensor& x, const std::vector<std::int64_t>& low, const std::vector<std::int64_t>& high, double value,
           const std::vector<std::int64_t>& interior) {
  const Ints none(static_cast<std::size_t>(x.rank()), 0);
  const Ints& gaps = interior.empty() ? none : interior;
  if (low == none && high == none && gaps == none) return x;
  return record1(OpId::pad, {x}, {{"low", low}, {"high", high}, {"interior", gaps}, {"value", value}});
}

}  // namespace bp

// Max and average pooling in 1-3 dimensions over channels-last tensors [N, s.., C], each with its gradient and that
// gradient's gradient. All share the attributes window, stride, padding_low, padding_high, dilation.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/window.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

// ---- type rules ----

// The place of a maximum is its row-major position within the window: one byte for every usual window.
DType index_dtype(const Ints& window) { return Windows::product(window) <= 255 ? DType::u8 : DType::i32; }

// The type of what pooling x gives.
Type pooled(const Attrs& attrs, const Type& x, const char* op) {
  if (!is_float(x.dtype)) fail(ErrorKind::dtype, "[{}] expected a floating tensor, got {}", op, x.str());
  const Ints& window = attrs.ints("window");
  check_windows(attrs, window, x.shape, op, "input");
  for (std::size_t i = 0; i < window.size(); ++i)
    for (const auto padding : {attrs.ints("padding_low")[i], attrs.ints("padding_high")[i]})
      if (padding > attrs.ints("dilation")[i] * (window[i] - 1))
        fail(ErrorKind::value,
             "[{}] expected a padding below the window's {} positions, got {}: a window of nothing but "
             "padding has no value",
             op, window[i], padding);
  return {x.dtype, channels_last(x.shape[0], output_sizes(attrs, spatial_of(x.shape), window, op), x.shape.back())};
}

// The type of the x whose pooling gives something like y.
Type unpooled(const Attrs& attrs, const Type& y, const char* op) {
  check_channels_last(y.shape, op, "y");
  const Type x{y.dtype, channels_last(y.shape[0], attrs.ints("spatial"), y.shape.back())};
  const Type expected = pooled(attrs, x, op);
  if (y.shape != expected.shape)
    fail(ErrorKind::shape, "[{}] expected y {} beside an x of {}, got {}", op, expected.shape, x.shape, y.shape);
  return x;
}

void check_indices(const Attrs& attrs, const Type& y, const Type& indices, const char* op) {
  const Type expected{index_dtype(attrs.ints("window")), y.shape};
  if (indices != expected)
    fail(ErrorKind::shape, "[{}] expected indices {}, got {}", op, expected.str(), indices.str());
}

std::vector<Type> infer_max_pool(const InferArgs& a) {
  const Type y = pooled(a.attrs, a.in[0], "max_pool");
  return {y, {index_dtype(a.attrs.ints("window")), y.shape}};
}

std::vector<Type> infer_max_pool_grad(const InferArgs& a) {
  const Type x = unpooled(a.attrs, a.in[0], "max_pool_grad");
  check_indices(a.attrs, a.in[0], a.in[1], "max_pool_grad");
  return {x};
}

std::vector<Type> infer_max_pool_take(const InferArgs& a) {
  const Type y = pooled(a.attrs, a.in[0], "max_pool_take");
  check_indices(a.attrs, y, a.in[1], "max_pool_take");
  return {y};
}

// ---- gradients ----

Tensor max_pool_grad(const Tensor& dy, const Tensor& indices, const Attrs& shared, const Shape& x) {
  return record1(OpId::max_pool_grad, {dy, indices}, with(shared, "spatial", spatial_of(x)));
}

std::vector<Tensor> vjp_max_pool(const VjpArgs& v) {
  if (!v.d().defined()) return {Tensor()};  // only the indices were used
  return {max_pool_grad(v.d(), v.out[1], v.attrs, v.in[0].shape())};
}

std::vector<Tensor> vjp_max_pool_grad(const VjpArgs& v) {
  return {record1(OpId::max_pool_take, {v.d(), v.in[1]}, without(v.attrs, "spatial")), Tensor()};
}

std::vector<Tensor> vjp_max_pool_take(const VjpArgs& v) {
  return {max_pool_grad(v.d(), v.in[1], v.attrs, v.in[0].shape()), Tensor()};
}

std::vector<Tensor> vjp_avg_pool(const VjpArgs& v) {
  return {record1(OpId::avg_pool_grad, {v.d()}, with(v.attrs, "spatial", spatial_of(v.in[0].shape())))};
}

std::vector<Tensor> vjp_avg_pool_grad(const VjpArgs& v) {
  return {record1(OpId::avg_pool, {v.d()}, without(v.attrs, "spatial"))};
}

// ---- reference ----

Windows windows_between(const Attrs& attrs, const ir::View& x, const ir::View& y) {
  return windows_of(attrs, attrs.ints("window"), x.type.shape, y.type.shape);
}

void reference_max_pool(const KernelArgs& k) {
  const Windows w = windows_between(k.attrs, k.in[0], k.out[0]);
  const std::vector<double> x = to_doubles(k.in[0]);
  const std::int64_t channels = k.in[0].type.shape.back();
  std::vector<double> y(static_cast<std::size_t>(k.out[0].type.shape.numel())), index(y.size());
  std::size_t at = 0;
  for (std::int64_t row = 0; row < w.out_rows(); ++row)
    for (std::int64_t c = 0; c < channels; ++c, ++at) {
      double best = -std::numeric_limits<double>::infinity();
      std::int64_t chosen = -1;
      for (std::int64_t tap = 0; tap < w.taps(); ++tap) {
        const std::int64_t source = w.source(row, tap);
        if (source < 0) continue;
        const double v = x[static_cast<std::size_t>(source * channels + c)];
        if (chosen >= 0 && !(v > best) && !(std::isnan(v) && !std::isnan(best))) continue;
        best = v;
        chosen = tap;
      }
      y[at] = best;
      index[at] = static_cast<double>(std::max<std::int64_t>(chosen, 0));
    }
  store(y, k.out[0]);
  store(index, k.out[1]);
}

// Calls f(i, j) for every element i of x that the element j of y chose.
template <class F> void for_each_choice(const KernelArgs& k, const ir::View& x, const ir::View& y, F f) {
  const Windows w = windows_between(k.attrs, x, y);
  const std::vector<double> index = to_doubles(k.in[1]);
  const auto channels = static_cast<std::size_t>(x.type.shape.back());
  for (std::size_t j = 0; j < index.size(); ++j) {
    const std::int64_t source = w.source(static_cast<std::int64_t>(j / channels), static_cast<std::int64_t>(index[j]));
    if (source >= 0) f(static_cast<std::size_t>(source) * channels + j % channels, j);
  }
}

void reference_max_pool_grad(const KernelArgs& k) {
  const std::vector<double> dy = to_doubles(k.in[0]);
  std::vector<double> dx(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_choice(k, k.out[0], k.in[0], [&](std::size_t i, std::size_t j) { dx[i] += dy[j]; });
  store(dx, k.out[0]);
}

void reference_max_pool_take(const KernelArgs& k) {
  const std::vector<double> x = to_doubles(k.in[0]);
  std::vector<double> y(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_choice(k, k.in[0], k.out[0], [&](std::size_t i, std::size_t j) { y[j] = x[i]; });
  store(y, k.out[0]);
}

// Calls f(i, j, share) for every element i of x inside the window of element j of y, of which it makes up `share`.
template <class F> void for_each_share(const Attrs& attrs, const ir::View& x, const ir::View& y, F f) {
  const Windows w = windows_between(attrs, x, y);
  const bool whole = attrs.flag("count_include_pad");
  const std::int64_t channels = x.type.shape.back();
  for (std::int64_t row = 0; row < w.out_rows(); ++row) {
    std::vector<std::int64_t> sources;
    for (std::int64_t tap = 0; tap < w.taps(); ++tap)
      if (const std::int64_t source = w.source(row, tap); source >= 0) sources.push_back(source);
    const double share = 1.0 / static_cast<double>(whole ? w.taps() : static_cast<std::int64_t>(sources.size()));
    for (const std::int64_t source : sources)
      for (std::int64_t c = 0; c < channels; ++c)
        f(static_cast<std::size_t>(source * channels + c), static_cast<std::size_t>(row * channels + c), share);
  }
}

void reference_avg_pool(const KernelArgs& k) {
  const std::vector<double> x = to_doubles(k.in[0]);
  std::vector<double> y(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_share(k.attrs, k.in[0], k.out[0], [&](std::size_t i, std::size_t j, double share) { y[j] += x[i] * share; });
  store(y, k.out[0]);
}

void reference_avg_pool_grad(const KernelArgs& k) {
  const std::vector<double> dy = to_doubles(k.in[0]);
  std::vector<double> dx(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_share(k.attrs, k.out[0], k.in[0],
                 [&](std::size_t i, std::size_t j, double share) { dx[i] += dy[j] * share; });
  store(dx, k.out[0]);
}

// One operation for every element of the smaller side and window position.
double window_flops(const Type& pooled_side, const Attrs& attrs) {
  return static_cast<double>(pooled_side.shape.numel()) * static_cast<double>(Windows::product(attrs.ints("window")));
}
double forward_flops(std::span<const Type>, std::span<const Type> out, const Attrs& attrs) {
  return window_flops(out[0], attrs);
}
double avg_grad_flops(std::span<const Type> in, std::span<const Type>, const Attrs& attrs) {
  return window_flops(in[0], attrs);
}

}  // namespace

const OpDef op_max_pool{.name = "max_pool",
                        .cls = OpClass::other,
                        .flags = kNone,
                        .infer = infer_max_pool,
                        .vjp = vjp_max_pool,
                        .reference = reference_max_pool,
                        .flops = forward_flops,
                        .doc =
                            "x [N, s.., C] -> the maximum of each window [N, o.., C] and its row-major position in "
                            "the window; the first of equals, NaN before numbers."};

const OpDef op_max_pool_grad{.name = "max_pool_grad",
                             .cls = OpClass::other,
                             .flags = kNone,
                             .infer = infer_max_pool_grad,
                             .vjp = vjp_max_pool_grad,
                             .reference = reference_max_pool_grad,
                             .doc =
                                 "dy [N, o.., C], indices -> dx [N, s.., C] with s.. = `spatial`: each dy added to "
                                 "the element its window chose."};

const OpDef op_max_pool_take{.name = "max_pool_take",
                             .cls = OpClass::other,
                             .flags = kNone,
                             .infer = infer_max_pool_take,
                             .vjp = vjp_max_pool_take,
                             .reference = reference_max_pool_take,
                             .doc =
                                 "x [N, s.., C], indices -> y [N, o.., C]: the elements that max_pool chose; the "
                                 "transpose of max_pool_grad."};

const OpDef op_avg_pool{
    .name = "avg_pool",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = [](const InferArgs& a) -> std::vector<Type> { return {pooled(a.attrs, a.in[0], "avg_pool")}; },
    .vjp = vjp_avg_pool,
    .reference = reference_avg_pool,
    .flops = forward_flops,
    .doc =
        "x [N, s.., C] -> the mean of each window [N, o.., C]; padding counts as zeros when "
        "`count_include_pad`, else not at all."};

const OpDef op_avg_pool_grad{
    .name = "avg_pool_grad",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = [](const InferArgs& a) -> std::vector<Type> { return {unpooled(a.attrs, a.in[0], "avg_pool_grad")}; },
    .vjp = vjp_avg_pool_grad,
    .reference = reference_avg_pool_grad,
    .flops = avg_grad_flops,
    .doc = "dy [N, o.., C] -> dx [N, s.., C] with s.. = `spatial`: the transpose of avg_pool."};

}  // namespace ir

using namespace ops;

namespace {

Attrs pool_attrs(const Tensor& x, const PoolOptions& o, const char* op) {
  check_channels_last(x.shape(), op, "input");
  const int spatial = x.rank() - 2;
  const Ints window = one_each(o.window, spatial, op, "window"), padding = one_each(o.padding, spatial, op, "padding");
  return {{"window", window},
          {"stride", o.stride.empty() ? window : one_each(o.stride, spatial, op, "stride")},
          {"padding_low", padding},
          {"padding_high", padding},
          {"dilation", one_each(o.dilation, spatial, op, "dilation")}};
}

}  // namespace

Tensor max_pool(const Tensor& x, const PoolOptions& options) {
  return record1(OpId::max_pool, {to_float(x)}, pool_attrs(x, options, "max_pool"));
}

Tensor avg_pool(const Tensor& x, const PoolOptions& options) {
  for (const auto d : options.dilation)
    if (d != 1) fail(ErrorKind::value, "[avg_pool] expected dilation 1 (it is for max_pool only), got {}", d);
  return record1(OpId::avg_pool, {to_float(x)},
                 with(pool_attrs(x, options, "avg_pool"), "count_include_pad", options.count_include_pad));
}

}  // namespace bp

// Convolutions in 1-3 dimensions over channels-last tensors: conv and its two gradients, each differentiated by the
// other two. The three ops share one set of attributes: stride, padding_low, padding_high, dilation, groups.
//
// x [N, s.., C], w [k.., C / groups, O], y [N, o.., O]; s, k and o have one to three sizes.
#include "ops/window.h"

#include <algorithm>

namespace bp {
namespace ir {
using namespace ops;

namespace {

// ---- type rules ----

// The dtype of the result.
DType conv_dtype(const InferArgs& a, const char* op) {
  if (a.in[0].dtype != a.in[1].dtype || !is_float(a.in[0].dtype))
    fail(ErrorKind::dtype, "[{}] expected two operands of one floating dtype, got {} and {}", op, a.in[0].str(),
         a.in[1].str());
  return product_result(a.attrs, a.in[0].dtype);
}

std::int64_t groups_of(const Attrs& attrs, std::int64_t channels, const char* what, const char* op) {
  const std::int64_t groups = attrs.integer("groups");
  if (groups < 1) fail(ErrorKind::value, "[{}] expected groups >= 1, got {}", op, groups);
  if (channels % groups != 0)
    fail(ErrorKind::shape, "[{}] expected {} channels to be a multiple of groups = {}, got {}", op, what, groups,
         channels);
  return groups;
}

// w must be [k.., C / groups, O] beside a tensor of this rank.
Ints kernel_of(const Shape& w, const Shape& beside, const char* op) {
  if (w.rank() != beside.rank())
    fail(ErrorKind::shape, "[{}] expected weights [k.., C / groups, O] of rank {} beside {}, got {}", op, beside.rank(),
         beside, w);
  return Ints(w.begin(), w.end() - 2);
}

std::vector<Type> infer_conv(const InferArgs& a) {
  const DType t = conv_dtype(a, "conv");
  const Shape &x = a.in[0].shape, &w = a.in[1].shape;
  check_channels_last(x, "conv", "input");
  const Ints kernel = kernel_of(w, x, "conv");
  check_windows(a.attrs, kernel, x, "conv", "input");
  const std::int64_t groups = groups_of(a.attrs, w.back(), "output", "conv"), channels = w[w.rank() - 2] * groups;
  if (x.back() != channels)
    fail(ErrorKind::shape, "[conv] expected input {}, got {}", layout(x.rank() - 2, fmt::format("{}", channels)), x);
  return {{t, channels_last(x[0], output_sizes(a.attrs, spatial_of(x), kernel, "conv"), w.back())}};
}

// dy must be what conv gives for x and this kernel.
void check_cotangent(const Attrs& attrs, const Shape& x, const Ints& kernel, const Shape& dy, std::int64_t out_channels,
                     const char* op) {
  const Shape expected = channels_last(x[0], output_sizes(attrs, spatial_of(x), kernel, op), out_channels);
  if (dy != expected)
    fail(ErrorKind::shape, "[{}] expected y {} beside an x of {} and a kernel of {}, got {}", op, expected, x,
         Shape(std::span<const std::int64_t>(kernel)), dy);
}

std::vector<Type> infer_input_grad(const InferArgs& a) {
  const char* op = "conv_input_grad";
  const DType t = conv_dtype(a, op);
  const Shape &dy = a.in[0].shape, &w = a.in[1].shape;
  check_channels_last(dy, op, "y");
  const Ints kernel = kernel_of(w, dy, op);
  check_windows(a.attrs, kernel, dy, op, "y");
  const Ints& spatial = a.attrs.ints("spatial");
  if (spatial.size() != kernel.size())
    fail(ErrorKind::shape, "[{}] expected {} spatial sizes beside {}, got {}", op, kernel.size(), dy, spatial.size());
  const std::int64_t groups = groups_of(a.attrs, w.back(), "output", op);
  const Shape x = channels_last(dy[0], spatial, w[w.rank() - 2] * groups);
  check_cotangent(a.attrs, x, kernel, dy, w.back(), op);
  return {{t, x}};
}

std::vector<Type> infer_weight_grad(const InferArgs& a) {
  const char* op = "conv_weight_grad";
  const DType t = conv_dtype(a, op);
  const Shape &x = a.in[0].shape, &dy = a.in[1].shape;
  const Ints& kernel = a.attrs.ints("kernel");
  check_windows(a.attrs, kernel, x, op, "input");
  const std::int64_t groups = groups_of(a.attrs, x.back(), "input", op);
  groups_of(a.attrs, dy.back(), "output", op);
  check_cotangent(a.attrs, x, kernel, dy, dy.back(), op);
  Shape w{std::span<const std::int64_t>(kernel)};
  w.push_back(x.back() / groups);
  w.push_back(dy.back());
  return {{t, w}};
}

// ---- gradients ----

Tensor input_grad(const Tensor& dy, const Tensor& w, const Attrs& shared, const Shape& x) {
  return record1(OpId::conv_input_grad, {dy, w}, with(shared, "spatial", spatial_of(x)));
}

Tensor weight_grad(const Tensor& x, const Tensor& dy, const Attrs& shared, const Shape& w) {
  return record1(OpId::conv_weight_grad, {x, dy}, with(shared, "kernel", Ints(w.begin(), w.end() - 2)));
}

std::vector<Tensor> vjp_conv(const VjpArgs& v) {
  const Tensor &x = v.in[0], &w = v.in[1];
  return {v.needed[0] ? input_grad(v.d(), w, v.attrs, x.shape()) : Tensor(),
          v.needed[1] ? weight_grad(x, v.d(), v.attrs, w.shape()) : Tensor()};
}

// dx = input_grad(dy, w), linear in both; g is the cotangent of dx.
std::vector<Tensor> vjp_input_grad(const VjpArgs& v) {
  const Tensor &dy = v.in[0], &w = v.in[1], &g = v.d();
  const Attrs shared = without(v.attrs, "spatial");
  return {v.needed[0] ? record1(OpId::conv, {g, w}, shared) : Tensor(),
          v.needed[1] ? weight_grad(g, dy, shared, w.shape()) : Tensor()};
}

// dw = weight_grad(x, dy), linear in both; g is the cotangent of dw.
std::vector<Tensor> vjp_weight_grad(const VjpArgs& v) {
  const Tensor &x = v.in[0], &dy = v.in[1], &g = v.d();
  const Attrs shared = without(v.attrs, "kernel");
  return {v.needed[0] ? input_grad(dy, g, shared, x.shape()) : Tensor(),
          v.needed[1] ? record1(OpId::conv, {x, g}, shared) : Tensor()};
}

// ---- reference ----

// Calls f(i, j, k, n) for every product x[i] * w[j + c] that belongs to y[k + c], c = 0 .. n - 1.
template <class F> void for_each_product(const Attrs& attrs, const Shape& x, const Shape& w, const Shape& y, F f) {
  const Windows windows = windows_of(attrs, Ints(w.begin(), w.end() - 2), x, y);
  const std::int64_t groups = attrs.integer("groups"), out = y.back(), in = x.back();
  const std::int64_t in_group = in / groups, out_group = out / groups;
  for (std::int64_t row = 0, rows = windows.out_rows(), taps = windows.taps(); row < rows; ++row)
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int64_t source = windows.source(row, tap);
      if (source < 0) continue;
      for (std::int64_t c = 0; c < in; ++c) {
        const std::int64_t first = c / in_group * out_group;
        f(source * in + c, (tap * in_group + c % in_group) * out + first, row * out + first, out_group);
      }
    }
}

void reference_conv(const KernelArgs& k) {
  const std::vector<double> x = to_doubles(k.in[0]), w = to_doubles(k.in[1]);
  std::vector<double> y(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_product(k.attrs, k.in[0].type.shape, k.in[1].type.shape, k.out[0].type.shape,
                   [&](std::int64_t i, std::int64_t j, std::int64_t at, std::int64_t n) {
                     const double s = x[static_cast<std::size_t>(i)];
                     for (std::int64_t c = 0; c < n; ++c) y.data()[at + c] += s * w.data()[j + c];
                   });
  store(y, k.out[0]);
}

void reference_input_grad(const KernelArgs& k) {
  const std::vector<double> dy = to_doubles(k.in[0]), w = to_doubles(k.in[1]);
  std::vector<double> dx(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_product(k.attrs, k.out[0].type.shape, k.in[1].type.shape, k.in[0].type.shape,
                   [&](std::int64_t i, std::int64_t j, std::int64_t at, std::int64_t n) {
                     double s = 0;
                     for (std::int64_t c = 0; c < n; ++c) s += dy.data()[at + c] * w.data()[j + c];
                     dx[static_cast<std::size_t>(i)] += s;
                   });
  store(dx, k.out[0]);
}

void reference_weight_grad(const KernelArgs& k) {
  const std::vector<double> x = to_doubles(k.in[0]), dy = to_doubles(k.in[1]);
  std::vector<double> dw(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  for_each_product(k.attrs, k.in[0].type.shape, k.out[0].type.shape, k.in[1].type.shape,
                   [&](std::int64_t i, std::int64_t j, std::int64_t at, std::int64_t n) {
                     const double s = x[static_cast<std::size_t>(i)];
                     for (std::int64_t c = 0; c < n; ++c) dw.data()[j + c] += s * dy.data()[at + c];
                   });
  store(dw, k.out[0]);
}

// A multiply and an add for every element of y, window position and input channel of its group; padding included.
double product_flops(const Shape& y, const Shape& w) {
  double n = 2.0 * static_cast<double>(y.numel());
  for (int i = 0; i + 1 < w.rank(); ++i) n *= static_cast<double>(w[i]);
  return n;
}

}  // namespace

const OpDef op_conv{.name = "conv",
                    .cls = OpClass::product,
                    .flags = kNone,
                    .infer = infer_conv,
                    .vjp = vjp_conv,
                    .reference = reference_conv,
                    .flops = [](std::span<const Type> in, std::span<const Type> out,
                                const Attrs&) { return product_flops(out[0].shape, in[1].shape); },
                    .doc = "x [N, s.., C] * w [k.., C / groups, O] -> y [N, o.., O], cross-correlation."};

const OpDef op_conv_input_grad{.name = "conv_input_grad",
                               .cls = OpClass::product,
                               .flags = kNone,
                               .infer = infer_input_grad,
                               .vjp = vjp_input_grad,
                               .reference = reference_input_grad,
                               .flops = [](std::span<const Type> in, std::span<const Type>,
                                           const Attrs&) { return product_flops(in[0].shape, in[1].shape); },
                               .doc =
                                   "dy [N, o.., O], w -> dx [N, s.., C] with s.. = `spatial`: the transpose of conv "
                                   "in x."};

const OpDef op_conv_weight_grad{.name = "conv_weight_grad",
                                .cls = OpClass::product,
                                .flags = kNone,
                                .infer = infer_weight_grad,
                                .vjp = vjp_weight_grad,
                                .reference = reference_weight_grad,
                                .flops = [](std::span<const Type> in, std::span<const Type> out,
                                            const Attrs&) { return product_flops(in[1].shape, out[0].shape); },
                                .doc =
                                    "x [N, s.., C], dy [N, o.., O] -> dw [k.., C / groups, O] with k.. = `kernel`: "
                                    "the transpose of conv in w."};

}  // namespace ir

using namespace ops;

namespace {

// The attributes of a convolution between these spatial sizes; "same" becomes explicit padding.
Attrs conv_attrs(const ConvOptions& o, const Ints& in, const Ints& kernel, const char* op) {
  const int spatial = static_cast<int>(kernel.size());
  const Ints stride = one_each(o.stride, spatial, op, "stride"),
             dilation = one_each(o.dilation, spatial, op, "dilation");
  Ints low = one_each(o.padding, spatial, op, "padding");
  Ints high = o.padding_high.empty() ? low : one_each(o.padding_high, spatial, op, "padding_high");
  if (o.same)
    for (std::size_t i = 0; i < kernel.size(); ++i) {
      if (low[i] != 0 || high[i] != 0)
        fail(ErrorKind::value, "[{}] expected either \"same\" or a padding, got \"same\" with ({}, {})", op, low[i],
             high[i]);
      if (stride[i] < 1) fail(ErrorKind::value, "[{}] expected stride >= 1, got {}", op, stride[i]);
      const std::int64_t out = (in[i] + stride[i] - 1) / stride[i];
      const std::int64_t total =
          std::max<std::int64_t>((out - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - in[i], 0);
      low[i] = total / 2;
      high[i] = total - total / 2;
    }
  return {
      {"stride", stride}, {"padding_low", low}, {"padding_high", high}, {"dilation", dilation}, {"groups", o.groups}};
}

// Both in one floating dtype, and ranks that let the sizes be read; the type rules check the rest.
std::pair<Tensor, Tensor> conv_operands(const Tensor& x, const Tensor& w, const char* op) {
  check_channels_last(x.shape(), op, "input");
  ir::kernel_of(w.shape(), x.shape(), op);
  const DType t = promote(x.dtype(), w.dtype());
  return {cast(x, is_float(t) ? t : DType::f32), cast(w, is_float(t) ? t : DType::f32)};
}

}  // namespace

Tensor conv(const Tensor& x, const Tensor& w, const ConvOptions& options) {
  const auto [a, b] = conv_operands(x, w, "conv");
  return record1(OpId::conv, {a, b},
                 conv_attrs(options, spatial_of(x.shape()), ir::kernel_of(w.shape(), x.shape(), "conv"), "conv"));
}

Tensor conv_transpose(const Tensor& y, const Tensor& w, const std::vector<std::int64_t>& spatial,
                      const ConvOptions& options) {
  const auto [a, b] = conv_operands(y, w, "conv_transpose");
  const Ints sizes = one_each(spatial, y.rank() - 2, "conv_transpose", "spatial sizes");
  const Ints kernel = ir::kernel_of(w.shape(), y.shape(), "conv_transpose");
  return record1(OpId::conv_input_grad, {a, b},
                 with(conv_attrs(options, sizes, kernel, "conv_transpose"), "spatial", sizes));
}

}  // namespace bp

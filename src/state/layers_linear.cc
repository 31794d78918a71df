// Layers with products: Linear, Conv, ConvTranspose.
#include "bp/layers.h"
#include "state/layer_support.h"

namespace bp::nn {

Linear::Linear(std::int64_t in, std::int64_t out, LinearOptions options)
    : in_(in), out_(out), options_(std::move(options)) {
  require_size("linear", "input size", in);
  require_size("linear", "output size", out);
  weight = parameter({in, out});
  if (options_.bias) bias = parameter({out});
}

Shape Linear::output_shape(const Shape& in) const {
  if (in.rank() < 1 || in.back() != in_) shape_error(*this, fmt::format("input [.., {}]", in_), in);
  Shape out = in;
  out[out.rank() - 1] = out_;
  return out;
}

Tensor Linear::with_weight(const Tensor& x, const Tensor& w) const {
  output_shape(x.shape());  // checks
  require_values(*this, weight);
  const Scope scope(scope_name());
  const Tensor y = matmul(x, w);
  return bias.defined() ? y + bias.get() : y;
}

std::string Linear::describe() const {
  return fmt::format("linear({} -> {}{})", in_, out_, bias.defined() ? "" : ", no bias");
}

void Linear::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, true);
  if (bias.defined()) visitor.on_variable(join_path(path, "bias"), bias, false);
}

void Linear::init(Key key) {
  const Fans fans = fans_of(weight.shape());
  initialise(weight, options_.weight_init, fans, key.fold("weight"));
  if (bias.defined()) initialise(bias, options_.bias_init, fans, key.fold("bias"));
}

namespace {

constexpr const char* kSpatial[] = {"L", "H, W", "D, H, W"};

void require_groups(const char* kind, std::int64_t groups, std::int64_t in, std::int64_t out) {
  require_size(kind, "groups", groups);
  if (in % groups != 0 || out % groups != 0)
    fail(ErrorKind::value, "[{}] groups: expected a divisor of {} input and {} output channels, got {}", kind, in, out,
         groups);
}

// A weight of zeros [k.., rows, columns], without values yet.
Variable kernel_weight(const std::vector<std::int64_t>& sizes, std::int64_t rows, std::int64_t columns) {
  Shape shape{std::span<const std::int64_t>(sizes)};
  shape.push_back(rows);
  shape.push_back(columns);
  return Variable(Tensor::from(std::vector<float>(static_cast<std::size_t>(shape.numel())), shape));
}

// ", stride [2, 2]" unless all are the usual value.
std::string unusual(const char* what, const std::vector<std::int64_t>& v, std::int64_t usual) {
  const bool differs = std::any_of(v.begin(), v.end(), [usual](std::int64_t n) { return n != usual; });
  return differs ? fmt::format(", {} {}", what, list(v)) : "";
}

}  // namespace

template <int Dims>
Conv<Dims>::Conv(std::int64_t in, std::int64_t out, Sizes kernel, ConvLayerOptions options)
    : in_(in), out_(out), weight_init_(std::move(options.weight_init)), bias_init_(std::move(options.bias_init)) {
  const char* name = Conv::kind();
  require_size(name, "input channels", in);
  require_size(name, "output channels", out);
  require_groups(name, options.groups, in, out);
  kernel_ = per_dim(name, "kernel", kernel, Dims, 1);
  conv_.stride = per_dim(name, "stride", options.stride, Dims, 1);
  conv_.padding = per_dim(name, "padding", options.padding, Dims, 0);
  conv_.dilation = per_dim(name, "dilation", options.dilation, Dims, 1);
  conv_.same = options.same;
  conv_.groups = options.groups;
  weight = kernel_weight(kernel_, in / options.groups, out);
  if (options.bias) bias = parameter({out});
}

template <int Dims> Shape Conv<Dims>::output_shape(const Shape& in) const {
  if (in.rank() != Dims + 2 || in.back() != in_)
    shape_error(*this, fmt::format("input [N, {}, {}]", kSpatial[Dims - 1], in_), in);
  Shape out{in[0]};
  for (int d = 0; d < Dims; ++d) {
    const auto k = static_cast<std::size_t>(d);
    const std::int64_t size = in[d + 1], extent = conv_.dilation[k] * (kernel_[k] - 1) + 1;
    if (conv_.same) {
      out.push_back((size + conv_.stride[k] - 1) / conv_.stride[k]);
      continue;
    }
    const std::int64_t padded = size + 2 * conv_.padding[k];
    if (padded < extent)
      shape_error(*this,
                  fmt::format("at least {} along axis {} (kernel {}, dilation {}, padding {})",
                              extent - 2 * conv_.padding[k], d + 1, kernel_[k], conv_.dilation[k], conv_.padding[k]),
                  in);
    out.push_back((padded - extent) / conv_.stride[k] + 1);
  }
  out.push_back(out_);
  return out;
}

template <int Dims> Tensor Conv<Dims>::with_weight(const Tensor& x, const Tensor& w) const {
  output_shape(x.shape());  // checks
  require_values(*this, weight);
  const Scope scope(this->scope_name());
  const Tensor y = conv(x, w, conv_);
  return bias.defined() ? y + bias.get() : y;
}

template <int Dims> std::string Conv<Dims>::describe() const {
  std::string text = fmt::format("{}({} -> {}, kernel {}", Conv::kind(), in_, out_, list(kernel_));
  text += unusual("stride", conv_.stride, 1);
  if (conv_.same) text += ", same";
  text += unusual("padding", conv_.padding, 0) + unusual("dilation", conv_.dilation, 1);
  if (conv_.groups != 1) text += fmt::format(", groups {}", conv_.groups);
  if (!bias.defined()) text += ", no bias";
  return text + ")";
}

template <int Dims> void Conv<Dims>::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, true);
  if (bias.defined()) visitor.on_variable(join_path(path, "bias"), bias, false);
}

template <int Dims> void Conv<Dims>::init(Key key) {
  const Fans fans = fans_of(weight.shape());
  initialise(weight, weight_init_, fans, key.fold("weight"));
  if (bias.defined()) initialise(bias, bias_init_, fans, key.fold("bias"));
}

template <int Dims>
ConvTranspose<Dims>::ConvTranspose(std::int64_t in, std::int64_t out, Sizes kernel, ConvTransposeOptions options)
    : in_(in), out_(out), weight_init_(std::move(options.weight_init)), bias_init_(std::move(options.bias_init)) {
  const char* name = ConvTranspose::kind();
  require_size(name, "input channels", in);
  require_size(name, "output channels", out);
  require_groups(name, options.groups, in, out);
  kernel_ = per_dim(name, "kernel", kernel, Dims, 1);
  conv_.stride = per_dim(name, "stride", options.stride, Dims, 1);
  conv_.padding = per_dim(name, "padding", options.padding, Dims, 0);
  conv_.dilation = per_dim(name, "dilation", options.dilation, Dims, 1);
  conv_.groups = options.groups;
  output_padding_ = per_dim(name, "output padding", options.output_padding, Dims, 0);
  for (std::size_t d = 0; d < output_padding_.size(); ++d)
    if (output_padding_[d] >= conv_.stride[d])
      fail(ErrorKind::value, "[{}] output padding: expected less than the stride {}, got {}", name, list(conv_.stride),
           list(output_padding_));
  weight = kernel_weight(kernel_, out / options.groups, in);
  if (options.bias) bias = parameter({out});
}

template <int Dims> Shape ConvTranspose<Dims>::output_shape(const Shape& in) const {
  if (in.rank() != Dims + 2 || in.back() != in_)
    shape_error(*this, fmt::format("input [N, {}, {}]", kSpatial[Dims - 1], in_), in);
  Shape out{in[0]};
  for (int d = 0; d < Dims; ++d) {
    const auto k = static_cast<std::size_t>(d);
    const std::int64_t size = (in[d + 1] - 1) * conv_.stride[k] - 2 * conv_.padding[k] +
                              conv_.dilation[k] * (kernel_[k] - 1) + output_padding_[k] + 1;
    if (in[d + 1] < 1 || size < 1)
      shape_error(*this,
                  fmt::format("an input whose output has elements along axis {} (kernel {}, stride {}, padding {})",
                              d + 1, kernel_[k], conv_.stride[k], conv_.padding[k]),
                  in);
    out.push_back(size);
  }
  out.push_back(out_);
  return out;
}

template <int Dims> Tensor ConvTranspose<Dims>::with_weight(const Tensor& x, const Tensor& w) const {
  const Shape out = output_shape(x.shape());
  require_values(*this, weight);
  const Scope scope(this->scope_name());
  const Tensor y = conv_transpose(x, w, std::vector<std::int64_t>(out.begin() + 1, out.end() - 1), conv_);
  return bias.defined() ? y + bias.get() : y;
}

template <int Dims> std::string ConvTranspose<Dims>::describe() const {
  std::string text = fmt::format("{}({} -> {}, kernel {}", ConvTranspose::kind(), in_, out_, list(kernel_));
  text += unusual("stride", conv_.stride, 1) + unusual("padding", conv_.padding, 0) +
          unusual("output padding", output_padding_, 0) + unusual("dilation", conv_.dilation, 1);
  if (conv_.groups != 1) text += fmt::format(", groups {}", conv_.groups);
  if (!bias.defined()) text += ", no bias";
  return text + ")";
}

template <int Dims> void ConvTranspose<Dims>::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, true);
  if (bias.defined()) visitor.on_variable(join_path(path, "bias"), bias, false);
}

template <int Dims> void ConvTranspose<Dims>::init(Key key) {
  double taps = 1, apart = 1;
  for (std::size_t d = 0; d < kernel_.size(); ++d) {
    taps *= static_cast<double>(kernel_[d]);
    apart *= static_cast<double>(conv_.stride[d]);
  }
  const double groups = static_cast<double>(conv_.groups);
  const Fans fans{std::max(taps * static_cast<double>(in_) / groups / apart, 1.0),
                  taps * static_cast<double>(out_) / groups};
  initialise(weight, weight_init_, fans, key.fold("weight"));
  if (bias.defined()) initialise(bias, bias_init_, fans, key.fold("bias"));
}

template class ConvTranspose<1>;
template class ConvTranspose<2>;
template class ConvTranspose<3>;
template class Conv<1>;
template class Conv<2>;
template class Conv<3>;

}  // namespace bp::nn

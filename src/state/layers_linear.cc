// Layers with products: Linear and Conv.
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

Tensor Linear::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  require_values(*this, weight);
  const Scope scope(scope_name());
  const Tensor y = matmul(x, weight);
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

template <int Dims>
Conv<Dims>::Conv(std::int64_t in, std::int64_t out, Sizes kernel, ConvLayerOptions options)
    : in_(in), out_(out), weight_init_(std::move(options.weight_init)), bias_init_(std::move(options.bias_init)) {
  const char* name = Conv::kind();
  require_size(name, "input channels", in);
  require_size(name, "output channels", out);
  require_size(name, "groups", options.groups);
  if (in % options.groups != 0 || out % options.groups != 0)
    fail(ErrorKind::value, "[{}] groups: expected a divisor of {} input and {} output channels, got {}", name, in, out,
         options.groups);
  kernel_ = per_dim(name, "kernel", kernel, Dims, 1);
  conv_.stride = per_dim(name, "stride", options.stride, Dims, 1);
  conv_.padding = per_dim(name, "padding", options.padding, Dims, 0);
  conv_.dilation = per_dim(name, "dilation", options.dilation, Dims, 1);
  conv_.same = options.same;
  conv_.groups = options.groups;
  Shape shape{std::span<const std::int64_t>(kernel_)};
  shape.push_back(in / options.groups);
  shape.push_back(out);
  weight = Variable(Tensor::from(std::vector<float>(static_cast<std::size_t>(shape.numel())), shape));
  if (options.bias) bias = parameter({out});
}

template <int Dims> Shape Conv<Dims>::output_shape(const Shape& in) const {
  static constexpr const char* kSpatial[] = {"L", "H, W", "D, H, W"};
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

template <int Dims> Tensor Conv<Dims>::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  require_values(*this, weight);
  const Scope scope(this->scope_name());
  const Tensor y = conv(x, weight, conv_);
  return bias.defined() ? y + bias.get() : y;
}

template <int Dims> std::string Conv<Dims>::describe() const {
  std::string text = fmt::format("{}({} -> {}, kernel {}", Conv::kind(), in_, out_, list(kernel_));
  const auto differs = [](const std::vector<std::int64_t>& v, std::int64_t usual) {
    return std::any_of(v.begin(), v.end(), [usual](std::int64_t n) { return n != usual; });
  };
  if (differs(conv_.stride, 1)) text += ", stride " + list(conv_.stride);
  if (conv_.same) text += ", same";
  if (differs(conv_.padding, 0)) text += ", padding " + list(conv_.padding);
  if (differs(conv_.dilation, 1)) text += ", dilation " + list(conv_.dilation);
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

template class Conv<1>;
template class Conv<2>;
template class Conv<3>;

}  // namespace bp::nn

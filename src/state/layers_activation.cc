// The activations that are more than a function of each element: PReLU and the gated units.
#include "bp/activations.h"
#include "state/layer_support.h"

namespace bp::nn {

PReLU::PReLU(std::int64_t channels, double slope) : channels_(channels), slope_(slope) {
  require_size("prelu", "channels", channels);
  weight = parameter({channels}, slope);
}

Shape PReLU::output_shape(const Shape& in) const {
  if (channels_ > 1 && (in.rank() < 1 || in.back() != channels_))
    shape_error(*this, fmt::format("input [.., {}]", channels_), in);
  return in;
}

Tensor PReLU::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  if (x.rank() == 0) return prelu(x, reshape(weight, Shape{}));
  return prelu(x, weight);
}

std::string PReLU::describe() const { return channels_ == 1 ? "prelu" : fmt::format("prelu({})", channels_); }

void PReLU::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "weight"), weight, false);
}

void PReLU::init(Key) { weight.set(slope_); }

const char* GLU::kind() const noexcept {
  static constexpr const char* kNames[] = {"glu", "geglu", "swiglu", "reglu"};
  return kNames[static_cast<int>(gate_)];
}

Shape GLU::output_shape(const Shape& in) const {
  if (in.rank() < 1 || in.back() % 2 != 0) shape_error(*this, "an even last dimension", in);
  Shape out = in;
  out[out.rank() - 1] /= 2;
  return out;
}

Tensor GLU::operator()(const Tensor& x) const {
  output_shape(x.shape());  // checks
  const Scope scope(scope_name());
  switch (gate_) {
    case Gate::sigmoid: return glu(x);
    case Gate::gelu: return geglu(x);
    case Gate::silu: return swiglu(x);
    case Gate::relu: return reglu(x);
  }
  return x;
}

}  // namespace bp::nn

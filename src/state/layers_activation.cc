// The activations that check their options, learn (PReLU) or halve the channels (the gated units).
#include "bp/activations.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {
double not_negative(const char* kind, double lambda) {
  if (!(lambda >= 0)) fail(ErrorKind::value, "[{}] lambda: expected 0 or more, got {}", kind, lambda);
  return lambda;
}
}  // namespace

CELU::CELU(double alpha) : alpha_(alpha) {
  if (!(alpha > 0)) fail(ErrorKind::value, "[celu] alpha: expected more than 0, got {}", alpha);
}

HardShrink::HardShrink(double lambda) : lambda_(not_negative("hard_shrink", lambda)) {}

SoftShrink::SoftShrink(double lambda) : lambda_(not_negative("soft_shrink", lambda)) {}

HardTanh::HardTanh(double low, double high) : low_(low), high_(high) {
  if (!(low < high)) fail(ErrorKind::value, "[hard_tanh] expected low < high, got {} and {}", low, high);
}

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

// Layers that drop elements, channels or samples at random.
#include <cmath>

#include "bp/regularisers.h"
#include "state/layer_support.h"

namespace bp::nn {

RandomLayer::RandomLayer(const char* kind, double p) : p_(p) {
  if (!(p >= 0 && p < 1)) fail(ErrorKind::value, "[{}] p: expected 0 <= p < 1, got {}", kind, p);
  rng_state = Variable(Tensor::from<std::int64_t>({0, 0}), false);
}

bool RandomLayer::idle() const noexcept { return current_mode() != Mode::train || p_ == 0; }

RandomLayer::Draw RandomLayer::draw() const {
  require_values(*this, rng_state);
  const Tensor state = rng_state;
  Variable handle = rng_state.alias();
  handle.set(state + Tensor::from<std::int64_t>({0, 1}));
  return {state, Key{}.fold(path()).value};
}

Tensor RandomLayer::draw_kept(const Shape& shape) const {
  const Draw d = draw();
  return random_bernoulli(d.state, shape, 1 - p_, d.place);
}

Tensor RandomLayer::dropped(const Tensor& x, const Shape& shape) const {
  const Scope scope(scope_name());
  return select(draw_kept(shape), x * (1 / (1 - p_)), zeros({}, x.dtype()));
}

std::string RandomLayer::describe() const { return fmt::format("{}({})", kind(), p_); }

void RandomLayer::visit(const std::string& path, Visitor& visitor) {
  visitor.on_variable(join_path(path, "rng_state"), rng_state, false);
}

void RandomLayer::init(Key key) {
  rng_state.set(Tensor::from<std::int64_t>({static_cast<std::int64_t>(key.value), 0}));
}

Tensor Dropout::operator()(const Tensor& x) const { return idle() ? x : dropped(x, x.shape()); }

Shape SpatialDropout::output_shape(const Shape& in) const {
  if (in.rank() < 3) shape_error(*this, "input [N, spatial.., C]", in);
  return in;
}

Tensor SpatialDropout::operator()(const Tensor& x) const {
  Shape mask = output_shape(x.shape());
  if (idle()) return x;
  for (int i = 1; i + 1 < mask.rank(); ++i) mask[i] = 1;
  return dropped(x, mask);
}

// The limit of selu at -infinity is -scale * alpha; a and b from the paper, equation 15 and the text below it.
Tensor AlphaDropout::operator()(const Tensor& x) const {
  if (idle()) return x;
  const Scope scope(scope_name());
  constexpr double kLimit = -1.7580993408473768599402175208123;
  const double a = 1 / std::sqrt((1 - p()) * (1 + p() * kLimit * kLimit)), b = -a * p() * kLimit;
  return a * select(draw_kept(x.shape()), x, full({}, kLimit, x.dtype())) + b;
}

Shape DropPath::output_shape(const Shape& in) const {
  if (in.rank() < 1) shape_error(*this, "input [N, ..]", in);
  return in;
}

Tensor DropPath::operator()(const Tensor& x) const {
  Shape mask = output_shape(x.shape());
  if (idle()) return x;
  for (int i = 1; i < mask.rank(); ++i) mask[i] = 1;
  return dropped(x, mask);
}

}  // namespace bp::nn

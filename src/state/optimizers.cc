// The update rules. A step's scalars come first, in f64; then one elementwise expression a parameter.
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"
#include "bp/optim.h"

namespace bp::optim {

namespace {
void require_finite(const char* kind, const char* what, double value) {
  if (!(value >= 0 && std::isfinite(value)))
    fail(ErrorKind::value, "[{}] {}: expected a finite number of 0 or more, got {}", kind, what, value);
}
}  // namespace

SGD::SGD(std::span<const Variable> parameters, SGDOptions o)
    : Optimizer(parameters, {"sgd", o.lr, o.weight_decay, o.clip_norm, o.clip_value, std::move(o.groups)}),
      dampening_(o.dampening),
      nesterov_(o.nesterov) {
  if (o.nesterov && (o.momentum == 0 || o.dampening != 0))
    fail(ErrorKind::value, "[sgd] nesterov: expected a momentum and no dampening, got momentum {}, dampening {}",
         o.momentum, o.dampening);
  require_finite("sgd", "dampening", o.dampening);
  momentum = hyperparameter("momentum", o.momentum, 0, INFINITY, true);
  if (o.momentum != 0) add_moment("b");
}

std::vector<Tensor> SGD::scalars(const Tensor& rate, const Tensor& t) const {
  if (!momentum.defined()) return {rate};
  if (dampening_ == 0) return {rate, momentum};
  // The first gradient enters undamped, as PyTorch's buffer starts from it.
  return {rate, momentum, select(equal(t, 1.0), ones({}, f64), full({}, 1 - dampening_, f64))};
}

std::vector<Tensor> SGD::update_one(const Slot& x) const {
  Tensor g = decayed(x);
  if (!momentum.defined()) return {x.p - x.s[0] * g};
  const Tensor b = x.s[1] * x.m[0] + (dampening_ == 0 ? g : x.s[2] * g);
  g = nesterov_ ? g + x.s[1] * b : b;
  return {x.p - x.s[0] * g, b};
}

RMSProp::RMSProp(std::span<const Variable> parameters, RMSPropOptions o)
    : Optimizer(parameters, {"rmsprop", o.lr, o.weight_decay, o.clip_norm, o.clip_value, std::move(o.groups)}),
      eps_(o.eps),
      centered_(o.centered) {
  require_finite("rmsprop", "eps", o.eps);
  alpha = hyperparameter("alpha", o.alpha, 0, 1);
  momentum = hyperparameter("momentum", o.momentum, 0, INFINITY, true);
  add_moment("v");
  if (centered_) add_moment("a");
  if (momentum.defined()) add_moment("b");
}

std::vector<Tensor> RMSProp::scalars(const Tensor& rate, const Tensor&) const {
  std::vector<Tensor> s{rate, alpha, 1.0 - alpha.get()};
  if (momentum.defined()) s.push_back(momentum);
  return s;
}

std::vector<Tensor> RMSProp::update_one(const Slot& x) const {
  const Tensor g = decayed(x), v = x.s[1] * x.m[0] + x.s[2] * square(g);
  std::vector<Tensor> next{Tensor(), v};
  Tensor spread = v;
  if (centered_) {
    const Tensor a = x.m[1] + x.s[2] * (g - x.m[1]);
    next.push_back(a);
    spread = v - square(a);
  }
  Tensor d = g / (sqrt(spread) + eps_);
  if (momentum.defined()) {
    d = x.s[3] * x.m.back() + d;
    next.push_back(d);
  }
  next[0] = x.p - x.s[0] * d;
  return next;
}

Adagrad::Adagrad(std::span<const Variable> parameters, AdagradOptions o)
    : Optimizer(parameters, {"adagrad", o.lr, o.weight_decay, o.clip_norm, o.clip_value, std::move(o.groups)}),
      lr_decay_(o.lr_decay),
      eps_(o.eps) {
  require_finite("adagrad", "eps", o.eps);
  require_finite("adagrad", "lr_decay", o.lr_decay);
  require_finite("adagrad", "initial_accumulator", o.initial_accumulator);
  add_moment("v", o.initial_accumulator);
}

std::vector<Tensor> Adagrad::scalars(const Tensor& rate, const Tensor& t) const {
  return {lr_decay_ == 0 ? rate : rate / (1.0 + (t - 1) * lr_decay_)};
}

std::vector<Tensor> Adagrad::update_one(const Slot& x) const {
  const Tensor g = decayed(x), v = x.m[0] + square(g);
  return {x.p - x.s[0] * g / (sqrt(v) + eps_), v};
}

Adam::Adam(std::span<const Variable> parameters, AdamOptions o) : Adam(parameters, std::move(o), "adam", false) {}

Adam::Adam(std::span<const Variable> parameters, AdamOptions o, const char* kind, bool decoupled)
    : Optimizer(parameters, {kind, o.lr, o.weight_decay, o.clip_norm, o.clip_value, std::move(o.groups)}),
      eps_(o.eps),
      amsgrad_(o.amsgrad),
      decoupled_(decoupled) {
  require_finite(kind, "eps", o.eps);
  // Below 1: at 1 the bias corrections would divide by zero.
  const double most = std::nextafter(1.0, 0.0);
  beta1 = hyperparameter("beta1", o.beta1, 0, most);
  beta2 = hyperparameter("beta2", o.beta2, 0, most);
  add_moment("m");
  add_moment("v");
  if (amsgrad_) add_moment("x");
}

std::vector<Tensor> Adam::scalars(const Tensor& rate, const Tensor& t) const {
  const Tensor b1 = beta1, b2 = beta2;
  return {rate / (1.0 - pow(b1, t)), rsqrt(1.0 - pow(b2, t)), 1.0 - b1, b2, 1.0 - b2, rate};
}

std::vector<Tensor> Adam::update_one(const Slot& x) const {
  const Tensor g = decoupled_ ? x.g : decayed(x);
  Tensor p = x.p;
  if (decoupled_ && x.decay.defined()) p = p * (1.0 - x.s[5] * x.decay);
  const Tensor m = x.m[0] + x.s[2] * (g - x.m[0]), v = x.s[3] * x.m[1] + x.s[4] * square(g);
  std::vector<Tensor> next{Tensor(), m, v};
  Tensor w = v;
  if (amsgrad_) next.push_back(w = maximum(x.m[2], v));
  next[0] = p - x.s[0] * m / (sqrt(w) * x.s[1] + eps_);
  return next;
}

AdamW::AdamW(std::span<const Variable> parameters, AdamWOptions o)
    : Adam(parameters,
           {o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.amsgrad, o.clip_norm, o.clip_value, std::move(o.groups)},
           "adamw", true) {}

}  // namespace bp::optim

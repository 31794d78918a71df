// Optimizers: PyTorch's semantics, one fused elementwise expression a parameter.
//
//   nn::Linear model(4, 3);
//   nn::init(model, Key{42});
//   optim::Adam opt(model, {.lr = 1e-3});
//   auto step = compile(
//       [&](Tensor x, Tensor y) {
//         Tensor loss = cross_entropy(model(x), y);
//         opt.update(grad(loss, model));
//         return loss;
//       },
//       {.mode = Mode::train});
//   step(ones({8, 4}), zeros({8}, i64));
//   opt.set_lr(3e-4);  // no retrace
//
// Hyperparameters (lr, weight_decay, momentum, betas) and counters are scalar Variables in f64, so that bias correction
// does not round; moments are Variables of the parameter's shape, in f32 for bf16 parameters. In the formulas p is the
// parameter, g its gradient, t the number of the step from 1 on, wd the weight decay; all have the shape of p.
// Every optimizer clips first (clip_value, then clip_norm), where asked to.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/module.h"
#include "bp/tensor.h"
#include "bp/variable.h"

namespace bp::optim {

// ---- gradients -----------------------------------------------------------------------------------------------------

// sqrt(sum over all tensors of g^2), a scalar of the first one's dtype (f32 for bf16). Zero for no tensors.
Tensor global_norm(std::span<const Tensor> grads);

// What clip_by_norm() returns.
struct Clipped {
  std::vector<Tensor> grads;  // scaled
  Tensor norm;                // before clipping
};
// g * min(1, max_norm / (norm + 1e-6)), norm over all tensors together (torch.nn.utils.clip_grad_norm_). A norm that is
// NaN or infinite makes every gradient NaN: an overflow is never hidden as a step of zero. Throws Error(value) unless
// max_norm > 0.
Clipped clip_by_norm(std::span<const Tensor> grads, double max_norm);
// min(max(g, -limit), limit); NaN stays NaN. Throws Error(value) unless limit > 0.
std::vector<Tensor> clip_by_value(std::span<const Tensor> grads, double limit);

// ---- what all have in common ------------------------------------------------------------------------------------

// Parameters treated apart. The first group whose `where` holds counts; the others get the optimizer's own values.
struct Group {
  std::function<bool(const Variable&)> where;         // which ones
  double lr_scale = 1;                                // times lr
  std::optional<double> weight_decay = std::nullopt;  // instead of the optimizer's
};
// Predicates for Group::where.
std::function<bool(const Variable&)> name_ends_with(std::string suffix);          // "bias"
std::function<bool(const Variable&)> name_starts_with(std::string prefix);        // "backbone."
std::function<bool(const Variable&)> rank_below(int rank);                        // 2: biases and norms
std::function<bool(const Variable&)> among(std::span<const Variable> variables);  // these, by their cells
// weight_decay 0 for biases and norms, that is for everything of less than two dimensions.
Group no_decay_on_vectors();

// What all optimizers have in common. Move-only; it shares the Variables of the model, which must stay alive.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(Optimizer&&) noexcept = default;
  Optimizer& operator=(Optimizer&&) noexcept = default;

  // One step. `grads` are aligned with parameters(): what grad(loss, model) returns. Inside compile these are
  // assignments of the step; outside, everything is computed and then assigned at once, or nothing on an exception.
  // Returns the norm of the gradients before clipping when clip_norm is on, otherwise an undefined Tensor.
  // Throws Error(state) for another number of gradients, Error(shape) for one that does not fit, naming the parameter.
  Tensor update(std::span<const Tensor> grads);
  Tensor update(const std::vector<Tensor>& grads) { return update(std::span<const Tensor>(grads)); }

  // Throws Error(value) for a negative, infinite or NaN rate.
  void set_lr(double rate);
  // "optim.lr", "optim.step", "optim.<parameter>.m", ...: all that a checkpoint must keep.
  std::vector<nn::NamedVariable> state() const;
  // In the order in which update() takes gradients.
  std::span<const Variable> parameters() const noexcept { return parameters_; }

  Variable lr;            // f64 scalar
  Variable weight_decay;  // f64 scalar; undefined when it was 0 at construction: then the term is left out
  Variable step;          // i64 scalar: updates so far

 protected:
  // What every optimizer takes.
  struct Common {
    std::string kind;                                // "adam"
    double lr, weight_decay, clip_norm, clip_value;  // as in the options of each
    std::vector<Group> groups;                       // as in the options
  };
  // Throws Error(value) for a value out of its range.
  Optimizer(std::span<const Variable> parameters, Common common);

  // The scalars of a step (f64) from the rate and t; update_one gets them in the dtype it computes in.
  virtual std::vector<Tensor> scalars(const Tensor& rate, const Tensor& t) const = 0;
  // What update_one() computes with.
  struct Slot {
    Tensor p, g;                // same dtype; g is clipped
    Tensor decay;               // scalar, undefined for none
    std::span<const Tensor> m;  // moments
    std::span<const Tensor> s;  // scalars() of this parameter's rate
  };
  // The new parameter, followed by the new moments.
  virtual std::vector<Tensor> update_one(const Slot& slot) const = 0;
  // g + wd * p: decay as L2 in the gradient.
  static Tensor decayed(const Slot& slot);

  // A scalar hyperparameter, checked to lie in [low, high]; undefined when `value` is 0 and `optional`.
  Variable hyperparameter(const char* name, double value, double low, double high, bool optional = false);
  // A moment of every parameter, of its shape, filled with a number.
  void add_moment(const char* name, double fill = 0);

 private:
  Tensor decay_of(std::size_t i, DType dtype) const;
  std::vector<Tensor> checked(std::span<const Tensor> grads) const;
  std::string name_of_parameter(std::size_t i) const;

  Common common_;
  std::vector<Variable> parameters_;
  std::vector<int> group_of_;  // -1: none
  std::vector<std::string> moment_names_;
  std::vector<std::vector<Variable>> moments_;  // [parameter][moment]
  std::vector<nn::NamedVariable> hyperparameters_;
};

namespace detail {
// parameters(model), after every layer and Variable was told its path: messages and state() use the names.
template <nn::Module M> std::vector<Variable> named_parameters(M& model) {
  nn::set_names(model);
  return nn::parameters(model);
}
}  // namespace detail

// ---- the optimizers ---------------------------------------------------------------------------------------------

// How an SGD is made.
struct SGDOptions {
  double lr = 1e-2;                // the rate
  double momentum = 0;             // 0: none
  double dampening = 0;            // of the gradient within the momentum
  bool nesterov = false;           // looks ahead
  double weight_decay = 0;         // L2 in the gradient
  double clip_norm = 0;            // 0: off
  double clip_value = 0;           // 0: off
  std::vector<Group> groups = {};  // parameters treated apart
};
// Robbins and Monro 1951; momentum: Polyak 1964; Nesterov as in Sutskever et al., "On the importance of initialization
// and momentum in deep learning", ICML 2013. torch.optim.SGD:
//   g += wd p;  b = momentum b + (1 - dampening) g  (b = g at t = 1);  g = nesterov ? g + momentum b : b;  p -= lr g
// Moment: "b". Throws Error(value) for Nesterov without momentum or with dampening, as PyTorch.
class SGD final : public Optimizer {
 public:
  // Over these parameters, or those of a model, which get their names. Throws Error(value) for options out of their
  // range.
  SGD(std::span<const Variable> parameters, SGDOptions options = {});
  template <nn::Module M>
  explicit SGD(M& model, SGDOptions options = {}) : SGD(detail::named_parameters(model), std::move(options)) {}

  Variable momentum;  // f64 scalar; undefined when it was 0

 private:
  std::vector<Tensor> scalars(const Tensor& rate, const Tensor& t) const override;
  std::vector<Tensor> update_one(const Slot& slot) const override;
  double dampening_;
  bool nesterov_;
};

// How an RMSProp is made.
struct RMSPropOptions {
  double lr = 1e-2;                // the rate
  double alpha = 0.99;             // of the running mean of squares
  double eps = 1e-8;               // added to the root
  bool centered = false;           // divides by the deviation instead of the root of the mean square
  double momentum = 0;             // 0: none
  double weight_decay = 0;         // L2 in the gradient
  double clip_norm = 0;            // 0: off
  double clip_value = 0;           // 0: off
  std::vector<Group> groups = {};  // parameters treated apart
};
// Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning", 2012; centered: Graves, "Generating
// sequences with recurrent neural networks", 2013. torch.optim.RMSprop:
//   g += wd p;  v = alpha v + (1 - alpha) g^2;  a = alpha a + (1 - alpha) g;  d = sqrt(centered ? v - a^2 : v) + eps;
//   momentum > 0:  b = momentum b + g / d,  p -= lr b;   otherwise  p -= lr g / d
// Moments: "v", "a", "b".
class RMSProp final : public Optimizer {
 public:
  // Over these parameters, or those of a model, which get their names. Throws Error(value) for options out of their
  // range.
  RMSProp(std::span<const Variable> parameters, RMSPropOptions options = {});
  template <nn::Module M>
  explicit RMSProp(M& model, RMSPropOptions options = {})
      : RMSProp(detail::named_parameters(model), std::move(options)) {}

  Variable alpha;     // f64 scalar
  Variable momentum;  // undefined when it was 0

 private:
  std::vector<Tensor> scalars(const Tensor& rate, const Tensor& t) const override;
  std::vector<Tensor> update_one(const Slot& slot) const override;
  double eps_;
  bool centered_;
};

// How an Adagrad is made.
struct AdagradOptions {
  double lr = 1e-2;                // the rate
  double lr_decay = 0;             // of the rate, by the step
  double initial_accumulator = 0;  // where the sums of squares start
  double eps = 1e-10;              // added to the root
  double weight_decay = 0;         // L2 in the gradient
  double clip_norm = 0;            // 0: off
  double clip_value = 0;           // 0: off
  std::vector<Group> groups = {};  // parameters treated apart
};
// Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 2011. torch.optim.Adagrad:
//   g += wd p;  v += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(v) + eps)
// Moment: "v".
class Adagrad final : public Optimizer {
 public:
  // Over these parameters, or those of a model, which get their names. Throws Error(value) for options out of their
  // range.
  Adagrad(std::span<const Variable> parameters, AdagradOptions options = {});
  template <nn::Module M>
  explicit Adagrad(M& model, AdagradOptions options = {})
      : Adagrad(detail::named_parameters(model), std::move(options)) {}

 private:
  std::vector<Tensor> scalars(const Tensor& rate, const Tensor& t) const override;
  std::vector<Tensor> update_one(const Slot& slot) const override;
  double lr_decay_, eps_;
};

// How an Adam is made.
struct AdamOptions {
  double lr = 1e-3;                // the rate
  double beta1 = 0.9;              // of the running mean of gradients
  double beta2 = 0.999;            // of the running mean of squares
  double eps = 1e-8;               // added to the root
  double weight_decay = 0;         // L2 in the gradient; AdamW decouples it
  bool amsgrad = false;            // divides by the largest mean of squares so far
  double clip_norm = 0;            // 0: off
  double clip_value = 0;           // 0: off
  std::vector<Group> groups = {};  // parameters treated apart
};
// Kingma and Ba, "Adam", ICLR 2015; amsgrad: Reddi et al., "On the convergence of Adam and beyond", ICLR 2018.
// torch.optim.Adam:
//   g += wd p;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;  w = amsgrad ? (x = max(x, v)) : v
//   p -= lr / (1 - beta1^t) * m / (sqrt(w) / sqrt(1 - beta2^t) + eps)
// Moments: "m", "v", "x".
class Adam : public Optimizer {
 public:
  // Over these parameters, or those of a model, which get their names. Throws Error(value) for options out of their
  // range.
  Adam(std::span<const Variable> parameters, AdamOptions options = {});
  template <nn::Module M>
  explicit Adam(M& model, AdamOptions options = {}) : Adam(detail::named_parameters(model), std::move(options)) {}

  Variable beta1, beta2;  // f64 scalars

 protected:
  // For what derives from it: another name, and decay of the parameter instead of in the gradient.
  Adam(std::span<const Variable> parameters, AdamOptions options, const char* kind, bool decoupled);

 private:
  std::vector<Tensor> scalars(const Tensor& rate, const Tensor& t) const override;
  std::vector<Tensor> update_one(const Slot& slot) const override;
  double eps_;
  bool amsgrad_, decoupled_;
};

// How an AdamW is made.
struct AdamWOptions {
  double lr = 1e-3;                // the rate
  double beta1 = 0.9;              // of the running mean of gradients
  double beta2 = 0.999;            // of the running mean of squares
  double eps = 1e-8;               // added to the root
  double weight_decay = 1e-2;      // of the parameter itself
  bool amsgrad = false;            // divides by the largest mean of squares so far
  double clip_norm = 0;            // 0: off
  double clip_value = 0;           // 0: off
  std::vector<Group> groups = {};  // parameters treated apart
};
// Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019. torch.optim.AdamW: first p *= 1 - lr wd,
// then Adam's update without decay in the gradient.
class AdamW final : public Adam {
 public:
  // Over these parameters, or those of a model, which get their names. Throws Error(value) for options out of their
  // range.
  AdamW(std::span<const Variable> parameters, AdamWOptions options = {});
  template <nn::Module M>
  explicit AdamW(M& model, AdamWOptions options = {}) : AdamW(detail::named_parameters(model), std::move(options)) {}
};

}  // namespace bp::optim

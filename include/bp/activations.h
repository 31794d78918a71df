// Layers that are functions of each element, or of two halves (the GLU family): those of the same name in bp/ops.h, and
// PReLU, which learns its slope. Part of bp/layers.h.
//
//   assert(nn::LeakyReLU(0.1)(scalar(-10)).item() == -1);
#pragma once

#include <string>

#include "bp/module.h"
#include "bp/ops.h"

namespace bp::nn {

// A function of each element as a layer. Derived has `Tensor apply(const Tensor& x) const`, the function itself.
template <class Derived> class Activation : public LayerOf<Derived> {
 public:
  // Derived::apply under the layer's name.
  Tensor operator()(const Tensor& x) const override {
    const Scope scope(this->scope_name());
    return static_cast<const Derived*>(this)->apply(x);
  }
  Shape output_shape(const Shape& in) const override { return in; }  // the shape of x
};

// x itself.
class Identity final : public Activation<Identity> {
 public:
  Tensor apply(const Tensor& x) const { return x; }
  const char* kind() const noexcept override { return "identity"; }
};
// max(x, 0).
class ReLU final : public Activation<ReLU> {
 public:
  Tensor apply(const Tensor& x) const { return relu(x); }
  const char* kind() const noexcept override { return "relu"; }
};
// The hyperbolic tangent.
class Tanh final : public Activation<Tanh> {
 public:
  Tensor apply(const Tensor& x) const { return tanh(x); }
  const char* kind() const noexcept override { return "tanh"; }
};
// 1 / (1 + exp(-x)).
class Sigmoid final : public Activation<Sigmoid> {
 public:
  Tensor apply(const Tensor& x) const { return sigmoid(x); }
  const char* kind() const noexcept override { return "sigmoid"; }
};
// x sigmoid(x) (bp::silu).
class SiLU final : public Activation<SiLU> {
 public:
  Tensor apply(const Tensor& x) const { return silu(x); }
  const char* kind() const noexcept override { return "silu"; }
};
// log(1 + exp(x)) (bp::softplus).
class Softplus final : public Activation<Softplus> {
 public:
  Tensor apply(const Tensor& x) const { return softplus(x); }
  const char* kind() const noexcept override { return "softplus"; }
};
// x Phi(x), or its approximation by tanh (bp::gelu, bp::gelu_tanh).
class GELU final : public Activation<GELU> {
 public:
  // The approximation of Hendrycks and Gimpel 2016 instead of erf.
  explicit GELU(bool tanh_approximation = false) : approximate_(tanh_approximation) {}
  Tensor apply(const Tensor& x) const { return approximate_ ? gelu_tanh(x) : gelu(x); }
  const char* kind() const noexcept override { return approximate_ ? "gelu_tanh" : "gelu"; }

 private:
  bool approximate_;
};
// x > 0 ? x : slope x (bp::leaky_relu).
class LeakyReLU final : public Activation<LeakyReLU> {
 public:
  explicit LeakyReLU(double slope = 0.01) : slope_(slope) {}  // slope: of x < 0
  Tensor apply(const Tensor& x) const { return leaky_relu(x, slope_); }
  const char* kind() const noexcept override { return "leaky_relu"; }

 private:
  double slope_;
};
// x > 0 ? x : alpha (exp(x) - 1) (bp::elu).
class ELU final : public Activation<ELU> {
 public:
  explicit ELU(double alpha = 1) : alpha_(alpha) {}  // -alpha is the limit for x to minus infinity
  Tensor apply(const Tensor& x) const { return elu(x, alpha_); }
  const char* kind() const noexcept override { return "elu"; }

 private:
  double alpha_;
};
// exp(x) / sum of exp(x) along an axis (bp::softmax).
class Softmax final : public Activation<Softmax> {
 public:
  explicit Softmax(int axis = -1) : axis_(axis) {}  // negative axes count from the end
  Tensor apply(const Tensor& x) const { return softmax(x, axis_); }
  const char* kind() const noexcept override { return "softmax"; }

 private:
  int axis_;
};
// log(sigmoid(x)) (bp::log_sigmoid).
class LogSigmoid final : public Activation<LogSigmoid> {
 public:
  Tensor apply(const Tensor& x) const { return log_sigmoid(x); }
  const char* kind() const noexcept override { return "log_sigmoid"; }
};
// x tanh(softplus(x)) (bp::mish).
class Mish final : public Activation<Mish> {
 public:
  Tensor apply(const Tensor& x) const { return mish(x); }
  const char* kind() const noexcept override { return "mish"; }
};
// x / (1 + |x|) (bp::softsign).
class Softsign final : public Activation<Softsign> {
 public:
  Tensor apply(const Tensor& x) const { return softsign(x); }
  const char* kind() const noexcept override { return "softsign"; }
};
// The self-normalising ELU of Klambauer et al. 2017 (bp::selu).
class SELU final : public Activation<SELU> {
 public:
  Tensor apply(const Tensor& x) const { return selu(x); }
  const char* kind() const noexcept override { return "selu"; }
};
// min(max(x, 0), 6).
class ReLU6 final : public Activation<ReLU6> {
 public:
  Tensor apply(const Tensor& x) const { return relu6(x); }
  const char* kind() const noexcept override { return "relu6"; }
};
// relu6(x + 3) / 6.
class HardSigmoid final : public Activation<HardSigmoid> {
 public:
  Tensor apply(const Tensor& x) const { return hard_sigmoid(x); }
  const char* kind() const noexcept override { return "hard_sigmoid"; }
};
// x hard_sigmoid(x).
class HardSwish final : public Activation<HardSwish> {
 public:
  Tensor apply(const Tensor& x) const { return hard_swish(x); }
  const char* kind() const noexcept override { return "hard_swish"; }
};
// x - tanh(x).
class TanhShrink final : public Activation<TanhShrink> {
 public:
  Tensor apply(const Tensor& x) const { return tanh_shrink(x); }
  const char* kind() const noexcept override { return "tanh_shrink"; }
};
// x > 0 ? x : alpha (exp(x / alpha) - 1) (bp::celu).
class CELU final : public Activation<CELU> {
 public:
  explicit CELU(double alpha = 1);  // Throws Error(value) unless alpha > 0.
  Tensor apply(const Tensor& x) const { return celu(x, alpha_); }
  const char* kind() const noexcept override { return "celu"; }

 private:
  double alpha_;
};
// |x| > lambda ? x : 0 (bp::hard_shrink).
class HardShrink final : public Activation<HardShrink> {
 public:
  explicit HardShrink(double lambda = 0.5);  // Throws Error(value) unless lambda >= 0.
  Tensor apply(const Tensor& x) const { return hard_shrink(x, lambda_); }
  const char* kind() const noexcept override { return "hard_shrink"; }

 private:
  double lambda_;
};
// sign(x) max(|x| - lambda, 0) (bp::soft_shrink).
class SoftShrink final : public Activation<SoftShrink> {
 public:
  explicit SoftShrink(double lambda = 0.5);  // Throws Error(value) unless lambda >= 0.
  Tensor apply(const Tensor& x) const { return soft_shrink(x, lambda_); }
  const char* kind() const noexcept override { return "soft_shrink"; }

 private:
  double lambda_;
};
// min(max(x, low), high) (bp::hard_tanh).
class HardTanh final : public Activation<HardTanh> {
 public:
  explicit HardTanh(double low = -1, double high = 1);  // Throws Error(value) unless low < high.
  Tensor apply(const Tensor& x) const { return hard_tanh(x, low_, high_); }
  const char* kind() const noexcept override { return "hard_tanh"; }

 private:
  double low_, high_;
};
// log(softmax(x)) along an axis, without overflow (bp::log_softmax).
class LogSoftmax final : public Activation<LogSoftmax> {
 public:
  explicit LogSoftmax(int axis = -1) : axis_(axis) {}  // negative axes count from the end
  Tensor apply(const Tensor& x) const { return log_softmax(x, axis_); }
  const char* kind() const noexcept override { return "log_softmax"; }

 private:
  int axis_;
};

// He et al., "Delving deep into rectifiers", ICCV 2015: a learnt slope for x < 0, one for all channels or one each.
// x [.., C] with one a channel.
class PReLU final : public LayerOf<PReLU> {
 public:
  // channels = 1: one slope for all. Throws Error(value) for fewer.
  explicit PReLU(std::int64_t channels = 1, double slope = 0.25);
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "prelu"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight;  // [channels]

 private:
  std::int64_t channels_;
  double slope_;
};

// What a GLU multiplies by.
enum class Gate { sigmoid, gelu, silu, relu };

// x [.., 2 C] = [a, b] -> a * gate(b) [.., C]: glu, geglu, swiglu, reglu of bp/ops.h.
class GLU final : public LayerOf<GLU> {
 public:
  explicit GLU(Gate gate = Gate::sigmoid) : gate_(gate) {}  // the function of the second half
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override;

 private:
  Gate gate_;
};

}  // namespace bp::nn

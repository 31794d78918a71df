// The layers. Activations are [N, .., C], channels last; shapes are checked and errors name the layer's path. Weights
// are He-normal (fan_in, gain of a ReLU) and biases zero unless the options say otherwise; nn::init draws them. A layer
// may be called any number of times. Names of Variables are PyTorch's ("weight", "bias", "running_mean", ...).
#pragma once

#include <concepts>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bp/init.h"
#include "bp/module.h"
#include "bp/ops.h"

namespace bp::nn {

// One number for every spatial dimension, or one number each: 3, {3, 5}.
class Sizes {
 public:
  Sizes(std::int64_t n) : values_{n} {}
  Sizes(std::initializer_list<std::int64_t> n) : values_(n) {}
  Sizes(std::vector<std::int64_t> n) : values_(std::move(n)) {}
  const std::vector<std::int64_t>& values() const noexcept { return values_; }

 private:
  std::vector<std::int64_t> values_;
};

// ---- products ----------------------------------------------------------------------------------------------------

struct LinearOptions {
  bool bias = true;
  Initializer weight_init = init::he_normal();
  Initializer bias_init = init::zeros();
};

// y = x W + b: x [.., in], W [in, out] (PyTorch keeps its transpose), b [out] -> [.., out].
class Linear final : public LayerOf<Linear> {
 public:
  // Throws Error(value) for sizes below 1.
  Linear(std::int64_t in, std::int64_t out, LinearOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "linear"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  std::int64_t in() const noexcept { return in_; }
  std::int64_t out() const noexcept { return out_; }

  Variable weight;  // [in, out]
  Variable bias;    // [out], undefined without one

 private:
  std::int64_t in_, out_;
  LinearOptions options_;
};

struct ConvLayerOptions {
  Sizes stride = 1;
  Sizes padding = 0;  // both sides
  bool same = false;  // output size = ceil(input / stride), as in bp::ConvOptions
  Sizes dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  Initializer weight_init = init::he_normal();
  Initializer bias_init = init::zeros();
};

// Cross-correlation (bp::conv) with a bias: x [N, s1.., in] -> [N, o1.., out]. 1 to 3 spatial dimensions.
template <int Dims> class Conv final : public LayerOf<Conv<Dims>> {
  static_assert(Dims >= 1 && Dims <= 3);

 public:
  // Throws Error(value) for sizes below 1 and groups that do not divide the channels.
  Conv(std::int64_t in, std::int64_t out, Sizes kernel, ConvLayerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return Dims == 1 ? "conv1d" : Dims == 2 ? "conv2d" : "conv3d"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  const ConvOptions& conv_options() const noexcept { return conv_; }

  Variable weight;  // [k1.., in / groups, out]
  Variable bias;    // [out], undefined without one

 private:
  std::int64_t in_, out_;
  std::vector<std::int64_t> kernel_;
  ConvOptions conv_;
  Initializer weight_init_, bias_init_;
};
using Conv1d = Conv<1>;
using Conv2d = Conv<2>;
using Conv3d = Conv<3>;
extern template class Conv<1>;
extern template class Conv<2>;
extern template class Conv<3>;

// ---- pooling and shape -------------------------------------------------------------------------------------------

struct PoolLayerOptions {
  std::optional<Sizes> stride = std::nullopt;  // the window
  Sizes padding = 0;
  Sizes dilation = 1;             // MaxPool only
  bool count_include_pad = true;  // AvgPool only
};

// x [N, s1.., C] -> [N, o1.., C] (bp::max_pool).
class MaxPool final : public LayerOf<MaxPool> {
 public:
  explicit MaxPool(Sizes window, PoolLayerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "max_pool"; }
  std::string describe() const override;

 private:
  PoolOptions pool_;
};

class AvgPool final : public LayerOf<AvgPool> {
 public:
  explicit AvgPool(Sizes window, PoolLayerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "avg_pool"; }
  std::string describe() const override;

 private:
  PoolOptions pool_;
};

// The mean over all spatial dimensions: [N, s1.., C] -> [N, C].
class GlobalAvgPool final : public LayerOf<GlobalAvgPool> {
 public:
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "global_avg_pool"; }
};

struct FlattenOptions {
  // [N, H, W, C] is brought into the order C, H, W first, so that a PyTorch model's next Linear fits.
  bool channels_first = false;
};

// [N, a, b, c] -> [N, a * b * c].
class Flatten final : public LayerOf<Flatten> {
 public:
  explicit Flatten(FlattenOptions options = {}) : options_(options) {}
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "flatten"; }
  std::string describe() const override;

 private:
  FlattenOptions options_;
};

// ---- regularisation and normalisation ----------------------------------------------------------------------------

// Srivastava et al., "Dropout", JMLR 2014, inverted: in train mode y = x * Bernoulli(1 - p) / (1 - p), in eval mode
// y = x. The mask is a function of (rng_state, path): the backward pass draws it again instead of keeping it, and every
// application advances the counter of rng_state. Throws Error(value) unless 0 <= p < 1.
class Dropout final : public LayerOf<Dropout> {
 public:
  explicit Dropout(double p = 0.5);
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override { return in; }
  const char* kind() const noexcept override { return "dropout"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  double p() const noexcept { return p_; }

  Variable rng_state;  // i64[2]: key and counter; not trainable

 private:
  double p_;
};

struct BatchNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;  // running = (1 - momentum) * running + momentum * batch
  bool affine = true;     // weight and bias
};

// Ioffe and Szegedy, "Batch normalization", ICML 2015, over all axes but the last: x [.., C] -> [.., C],
// y = (x - mean) / sqrt(var + eps) * weight + bias. Train mode: mean and (biased) variance of the batch, and the
// running statistics are assigned (with the unbiased variance, as PyTorch's). Eval mode: the running statistics. bf16
// input is normalised in f32. Throws Error(shape) in train mode for a single value per channel.
class BatchNorm final : public LayerOf<BatchNorm> {
 public:
  explicit BatchNorm(std::int64_t channels, BatchNormOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "batch_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight, bias;               // [C], undefined unless affine
  Variable running_mean, running_var;  // [C], not trainable

 private:
  void update_statistics(const Tensor& mean, const Tensor& var, std::int64_t count) const;
  std::int64_t channels_;
  BatchNormOptions options_;
};

struct LayerNormOptions {
  double eps = 1e-5;
  bool affine = true;  // weight and bias
};

// Ba, Kiros and Hinton, "Layer normalization", 2016, over the last axis: x [.., C] -> [.., C],
// y = (x - mean) / sqrt(var + eps) * weight + bias, var biased.
class LayerNorm final : public LayerOf<LayerNorm> {
 public:
  explicit LayerNorm(std::int64_t channels, LayerNormOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "layer_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight, bias;  // [C], undefined unless affine

 private:
  std::int64_t channels_;
  LayerNormOptions options_;
};

// ---- activations: the function of the same name in bp/ops.h --------------------------------------------------------

template <class Derived> class Activation : public LayerOf<Derived> {
 public:
  Tensor operator()(const Tensor& x) const override {
    const Scope scope(this->scope_name());
    return static_cast<const Derived*>(this)->apply(x);
  }
  Shape output_shape(const Shape& in) const override { return in; }
};

class Identity final : public Activation<Identity> {
 public:
  Tensor apply(const Tensor& x) const { return x; }
  const char* kind() const noexcept override { return "identity"; }
};
class ReLU final : public Activation<ReLU> {
 public:
  Tensor apply(const Tensor& x) const { return relu(x); }
  const char* kind() const noexcept override { return "relu"; }
};
class Tanh final : public Activation<Tanh> {
 public:
  Tensor apply(const Tensor& x) const { return tanh(x); }
  const char* kind() const noexcept override { return "tanh"; }
};
class Sigmoid final : public Activation<Sigmoid> {
 public:
  Tensor apply(const Tensor& x) const { return sigmoid(x); }
  const char* kind() const noexcept override { return "sigmoid"; }
};
class SiLU final : public Activation<SiLU> {
 public:
  Tensor apply(const Tensor& x) const { return silu(x); }
  const char* kind() const noexcept override { return "silu"; }
};
class Softplus final : public Activation<Softplus> {
 public:
  Tensor apply(const Tensor& x) const { return softplus(x); }
  const char* kind() const noexcept override { return "softplus"; }
};
class GELU final : public Activation<GELU> {
 public:
  explicit GELU(bool tanh_approximation = false) : approximate_(tanh_approximation) {}
  Tensor apply(const Tensor& x) const { return approximate_ ? gelu_tanh(x) : gelu(x); }
  const char* kind() const noexcept override { return approximate_ ? "gelu_tanh" : "gelu"; }

 private:
  bool approximate_;
};
class LeakyReLU final : public Activation<LeakyReLU> {
 public:
  explicit LeakyReLU(double slope = 0.01) : slope_(slope) {}
  Tensor apply(const Tensor& x) const { return leaky_relu(x, slope_); }
  const char* kind() const noexcept override { return "leaky_relu"; }

 private:
  double slope_;
};
class ELU final : public Activation<ELU> {
 public:
  explicit ELU(double alpha = 1) : alpha_(alpha) {}
  Tensor apply(const Tensor& x) const { return elu(x, alpha_); }
  const char* kind() const noexcept override { return "elu"; }

 private:
  double alpha_;
};
class Softmax final : public Activation<Softmax> {
 public:
  explicit Softmax(int axis = -1) : axis_(axis) {}
  Tensor apply(const Tensor& x) const { return softmax(x, axis_); }
  const char* kind() const noexcept override { return "softmax"; }

 private:
  int axis_;
};

// ---- containers --------------------------------------------------------------------------------------------------

// A struct with BP_FIELDS and operator()(Tensor) as a Layer, for Sequential. Its paths are the struct's own.
template <Module M> class Wrapped final : public LayerOf<Wrapped<M>> {
 public:
  explicit Wrapped(M module) : module_(std::move(module)) {}
  Tensor operator()(const Tensor& x) const override { return module_(x); }
  // Records the module on zeros without computing anything; needs initialised parameters.
  Shape output_shape(const Shape& in) const override {
    const ModeScope eval(Mode::eval);
    return module_(zeros(in)).shape();
  }
  const char* kind() const noexcept override { return "module"; }
  void visit(const std::string& path, Visitor& visitor) override { detail::walk(path, module_, visitor); }
  M& module() noexcept { return module_; }

 private:
  M module_;
};

// Layers one after another, also built at run time. Paths are "0.weight", or "name.weight" where a name was given.
// Copying copies the layers deep.
class Sequential final : public LayerOf<Sequential> {
 public:
  Sequential() = default;
  // Sequential{Linear{2, 16}, Tanh{}, Linear{16, 1}}
  template <class First, class... Rest>
  requires(Module<First> && !std::same_as<First, Sequential>) explicit Sequential(First first, Rest... rest) {
    add(std::move(first));
    (add(std::move(rest)), ...);
  }
  Sequential(const Sequential& other);
  Sequential(Sequential&&) noexcept = default;
  Sequential& operator=(const Sequential& other);
  Sequential& operator=(Sequential&&) noexcept = default;

  template <Module M> Sequential& add(M layer) { return add(std::string(), std::move(layer)); }
  template <Module M> Sequential& add(std::string name, M layer) {
    if constexpr (std::is_base_of_v<Layer, M>)
      return push(std::move(name), std::make_unique<M>(std::move(layer)));
    else
      return push(std::move(name), std::make_unique<Wrapped<M>>(std::move(layer)));
  }
  // An empty name stands for the position. Throws Error(value) for a name that is taken or contains a dot.
  Sequential& push(std::string name, std::unique_ptr<Layer> layer);

  std::size_t size() const noexcept { return layers_.size(); }
  // Throws Error(value) past the end.
  Layer& operator[](std::size_t i) { return at(i); }
  const Layer& operator[](std::size_t i) const { return at(i); }
  const std::string& name(std::size_t i) const;

  Tensor operator()(const Tensor& x) const override;
  // Layer after layer: an impossible shape is found while the model is built, and the error names the layer.
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "sequential"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;

 private:
  Layer& at(std::size_t i) const;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

// y = inner(x) + shortcut(x), the shortcut being the identity when absent. He et al., "Deep residual learning for image
// recognition", CVPR 2016. Paths: "inner.0.weight", "shortcut.0.weight". Throws Error(shape) when the two differ.
class Residual final : public LayerOf<Residual> {
 public:
  explicit Residual(Sequential inner, std::optional<Sequential> shortcut = std::nullopt)
      : inner_(std::move(inner)), shortcut_(std::move(shortcut)) {}
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "residual"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  Sequential& inner() noexcept { return inner_; }

 private:
  void require_same(const Shape& inner, const Shape& shortcut, const Shape& in) const;
  Sequential inner_;
  std::optional<Sequential> shortcut_;
};

}  // namespace bp::nn

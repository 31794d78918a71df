// The layers: products, pooling and containers here, the other families in the headers included. Activations are
// [N, .., C], channels last; shapes are checked and errors name the layer's path. Weights are He-normal (fan_in, gain
// of a ReLU) and biases zero unless the options say otherwise; nn::init draws them. A layer may be called any number of
// times. Names of Variables are PyTorch's ("weight", "bias", "running_mean", ...).
//
//   nn::Sequential net{nn::Conv2d(3, 8, 3), nn::ReLU(), nn::MaxPool(2), nn::Flatten(), nn::Linear(1800, 10)};
//   nn::init(net, Key{42});
//   assert(net(zeros({4, 32, 32, 3})).shape() == Shape({4, 10}));
#pragma once

#include <concepts>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bp/activations.h"
#include "bp/embedding.h"
#include "bp/init.h"
#include "bp/module.h"
#include "bp/norms.h"
#include "bp/ops.h"
#include "bp/regularisers.h"

namespace bp::nn {

// One number for every spatial dimension, or one number each: 3, {3, 5}.
class Sizes {
 public:
  Sizes(std::int64_t n) : values_{n} {}                                         // for every dimension
  Sizes(std::initializer_list<std::int64_t> n) : values_(n) {}                  // one each
  Sizes(std::vector<std::int64_t> n) : values_(std::move(n)) {}                 // one each
  const std::vector<std::int64_t>& values() const noexcept { return values_; }  // as given: one, or one a dimension

 private:
  std::vector<std::int64_t> values_;
};

// ---- products ----------------------------------------------------------------------------------------------------

// How a Linear is made.
struct LinearOptions {
  bool bias = true;                             // with a bias
  Initializer weight_init = init::he_normal();  // of the weight
  Initializer bias_init = init::zeros();        // of the bias
};

// y = x W + b: x [.., in], W [in, out] (PyTorch keeps its transpose), b [out] -> [.., out].
class Linear final : public LayerOf<Linear> {
 public:
  // Throws Error(value) for sizes below 1.
  Linear(std::int64_t in, std::int64_t out, LinearOptions options = {});
  Tensor operator()(const Tensor& x) const override { return with_weight(x, weight); }
  // The same with another weight in the place of its own.
  Tensor with_weight(const Tensor& x, const Tensor& w) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "linear"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  std::int64_t in() const noexcept { return in_; }    // width of the input
  std::int64_t out() const noexcept { return out_; }  // width of the output

  Variable weight;  // [in, out]
  Variable bias;    // [out], undefined without one

 private:
  std::int64_t in_, out_;
  LinearOptions options_;
};

// How a Conv is made: bp::ConvOptions, and what a layer adds.
struct ConvLayerOptions {
  Sizes stride = 1;                             // of the window, in each dimension
  Sizes padding = 0;                            // both sides
  bool same = false;                            // output size = ceil(input / stride), as in bp::ConvOptions
  Sizes dilation = 1;                           // distance of the kernel's taps
  std::int64_t groups = 1;                      // of channels that do not see each other
  bool bias = true;                             // with a bias
  Initializer weight_init = init::he_normal();  // of the weight
  Initializer bias_init = init::zeros();        // of the bias
};

// Cross-correlation (bp::conv) with a bias: x [N, s1.., in] -> [N, o1.., out]. 1 to 3 spatial dimensions.
template <int Dims> class Conv final : public LayerOf<Conv<Dims>> {
  static_assert(Dims >= 1 && Dims <= 3);

 public:
  // Throws Error(value) for sizes below 1 and groups that do not divide the channels.
  Conv(std::int64_t in, std::int64_t out, Sizes kernel, ConvLayerOptions options = {});
  Tensor operator()(const Tensor& x) const override { return with_weight(x, weight); }
  // The same with another weight in the place of its own.
  Tensor with_weight(const Tensor& x, const Tensor& w) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return Dims == 1 ? "conv1d" : Dims == 2 ? "conv2d" : "conv3d"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  const ConvOptions& conv_options() const noexcept { return conv_; }  // what bp::conv is called with

  Variable weight;  // [k1.., in / groups, out]
  Variable bias;    // [out], undefined without one

 private:
  std::int64_t in_, out_;
  std::vector<std::int64_t> kernel_;
  ConvOptions conv_;
  Initializer weight_init_, bias_init_;
};
using Conv1d = Conv<1>;  // x [N, L, C]
using Conv2d = Conv<2>;  // x [N, H, W, C]
using Conv3d = Conv<3>;  // x [N, D, H, W, C]
extern template class Conv<1>;
extern template class Conv<2>;
extern template class Conv<3>;

// Every channel by itself: `multiplier` filters each. options.groups is ignored.
template <int Dims>
Conv<Dims> depthwise(std::int64_t channels, Sizes kernel, ConvLayerOptions options = {}, std::int64_t multiplier = 1) {
  options.groups = channels;
  return Conv<Dims>(channels, channels * multiplier, std::move(kernel), std::move(options));
}

// How a ConvTranspose is made.
struct ConvTransposeOptions {
  Sizes stride = 1;                             // of the output
  Sizes padding = 0;                            // cut from both sides of the output
  Sizes output_padding = 0;                     // more at the end of the output; below the stride
  Sizes dilation = 1;                           // distance of the kernel's taps
  std::int64_t groups = 1;                      // of channels that do not see each other
  bool bias = true;                             // with a bias
  Initializer weight_init = init::he_normal();  // of the weight
  Initializer bias_init = init::zeros();        // of the bias
};

// The transpose of a convolution (bp::conv_transpose) with a bias: x [N, s1.., in] -> [N, o1.., out],
// o = (s - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1. Dumoulin and Visin, "A guide to
// convolution arithmetic for deep learning", 2016, chapter 4. The fan_in of its initialiser is the number of inputs
// that meet in an output, k1 * .. * in / groups / (stride1 * ..).
template <int Dims> class ConvTranspose final : public LayerOf<ConvTranspose<Dims>> {
  static_assert(Dims >= 1 && Dims <= 3);

 public:
  // Throws Error(value) for sizes below 1, groups that do not divide the channels, an output padding of the stride or
  // more.
  ConvTranspose(std::int64_t in, std::int64_t out, Sizes kernel, ConvTransposeOptions options = {});
  Tensor operator()(const Tensor& x) const override { return with_weight(x, weight); }
  // The same with another weight in the place of its own.
  Tensor with_weight(const Tensor& x, const Tensor& w) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override {
    return Dims == 1 ? "conv_transpose1d" : Dims == 2 ? "conv_transpose2d" : "conv_transpose3d";
  }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight;  // [k1.., out / groups, in]
  Variable bias;    // [out], undefined without one

 private:
  std::int64_t in_, out_;
  std::vector<std::int64_t> kernel_, output_padding_;
  ConvOptions conv_;
  Initializer weight_init_, bias_init_;
};
using ConvTranspose1d = ConvTranspose<1>;  // x [N, L, C]
using ConvTranspose2d = ConvTranspose<2>;  // x [N, H, W, C]
using ConvTranspose3d = ConvTranspose<3>;  // x [N, D, H, W, C]
extern template class ConvTranspose<1>;
extern template class ConvTranspose<2>;
extern template class ConvTranspose<3>;
namespace detail {
template <int Dims> constexpr bool is_transposed<ConvTranspose<Dims>> = true;
}

// ---- pooling and shape -------------------------------------------------------------------------------------------

// How a MaxPool or an AvgPool is made; the window is given to the layer itself.
struct PoolLayerOptions {
  std::optional<Sizes> stride = std::nullopt;  // the window
  Sizes padding = 0;                           // both sides
  Sizes dilation = 1;                          // MaxPool only
  bool count_include_pad = true;               // AvgPool only
};

// x [N, s1.., C] -> [N, o1.., C] (bp::max_pool).
class MaxPool final : public LayerOf<MaxPool> {
 public:
  // window: positions that a maximum is taken of.
  explicit MaxPool(Sizes window, PoolLayerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "max_pool"; }
  std::string describe() const override;

 private:
  PoolOptions pool_;
};

// x [N, s1.., C] -> [N, o1.., C] (bp::avg_pool).
class AvgPool final : public LayerOf<AvgPool> {
 public:
  // window: positions that a mean is taken of.
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

// The maximum over all spatial dimensions: [N, s1.., C] -> [N, C]. The first of equals takes the gradient.
class GlobalMaxPool final : public LayerOf<GlobalMaxPool> {
 public:
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "global_max_pool"; }
};

// To given spatial sizes: x [N, s1.., C] -> [N, sizes.., C] (bp::adaptive_max_pool).
class AdaptiveMaxPool final : public LayerOf<AdaptiveMaxPool> {
 public:
  // Throws Error(value) for sizes below 1.
  explicit AdaptiveMaxPool(Sizes sizes);
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "adaptive_max_pool"; }
  std::string describe() const override;

 private:
  std::vector<std::int64_t> sizes_;
};

// To given spatial sizes: x [N, s1.., C] -> [N, sizes.., C] (bp::adaptive_avg_pool).
class AdaptiveAvgPool final : public LayerOf<AdaptiveAvgPool> {
 public:
  // Throws Error(value) for sizes below 1.
  explicit AdaptiveAvgPool(Sizes sizes);
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "adaptive_avg_pool"; }
  std::string describe() const override;

 private:
  std::vector<std::int64_t> sizes_;
};

// How a Flatten is made.
struct FlattenOptions {
  // [N, H, W, C] is brought into the order C, H, W first, so that a PyTorch model's next Linear fits.
  bool channels_first = false;
};

// [N, a, b, c] -> [N, a * b * c].
class Flatten final : public LayerOf<Flatten> {
 public:
  explicit Flatten(FlattenOptions options = {}) : options_(options) {}  // the order of the values
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "flatten"; }
  std::string describe() const override;

 private:
  FlattenOptions options_;
};

// ---- containers --------------------------------------------------------------------------------------------------

// A struct with BP_FIELDS and operator()(Tensor) as a Layer, for Sequential. Its paths are the struct's own.
template <Module M> class Wrapped final : public LayerOf<Wrapped<M>> {
 public:
  explicit Wrapped(M module) : module_(std::move(module)) {}  // owns the struct
  Tensor operator()(const Tensor& x) const override { return module_(x); }
  // Records the module on zeros without computing anything; needs initialised parameters.
  Shape output_shape(const Shape& in) const override {
    const ModeScope eval(Mode::eval);
    return module_(zeros(in)).shape();
  }
  const char* kind() const noexcept override { return "module"; }
  void visit(const std::string& path, Visitor& visitor) override { detail::walk(path, module_, visitor); }
  M& module() noexcept { return module_; }  // the struct

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
  Sequential(const Sequential& other);  // copies the layers deep
  Sequential(Sequential&&) noexcept = default;
  Sequential& operator=(const Sequential& other);  // copies the layers deep
  Sequential& operator=(Sequential&&) noexcept = default;

  // Puts a layer, or a struct with BP_FIELDS, behind the others; throws as push(). Returns *this.
  template <Module M> Sequential& add(M layer) { return add(std::string(), std::move(layer)); }
  // The same under a name.
  template <Module M> Sequential& add(std::string name, M layer) {
    if constexpr (std::is_base_of_v<Layer, M>)
      return push(std::move(name), std::make_unique<M>(std::move(layer)));
    else
      return push(std::move(name), std::make_unique<Wrapped<M>>(std::move(layer)));
  }
  // An empty name stands for the position. Throws Error(value) for a name that is taken or contains a dot.
  Sequential& push(std::string name, std::unique_ptr<Layer> layer);

  std::size_t size() const noexcept { return layers_.size(); }  // layers
  // Throws Error(value) past the end.
  Layer& operator[](std::size_t i) { return at(i); }
  const Layer& operator[](std::size_t i) const { return at(i); }
  const std::string& name(std::size_t i) const;  // "0" where none was given; throws Error(value) past the end

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
  // shortcut: unset, x itself.
  explicit Residual(Sequential inner, std::optional<Sequential> shortcut = std::nullopt)
      : inner_(std::move(inner)), shortcut_(std::move(shortcut)) {}
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "residual"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  Sequential& inner() noexcept { return inner_; }  // the part beside the shortcut

 private:
  void require_same(const Shape& inner, const Shape& shortcut, const Shape& in) const;
  Sequential inner_;
  std::optional<Sequential> shortcut_;
};

}  // namespace bp::nn

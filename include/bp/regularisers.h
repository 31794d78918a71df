// Layers that regularise: dropout of elements, channels and samples, and weights normalised by a gain or by their
// largest singular value. Part of bp/layers.h.
//
//   nn::Dropout dropout(0.5);
//   nn::init(dropout, Key{42});
//   assert(sum(dropout(ones({100}))).item() == 100);  // outside of training x itself
#pragma once

#include <concepts>
#include <string>
#include <utility>

#include "bp/module.h"
#include "bp/ops.h"

namespace bp::nn {

// What the dropouts share: a probability and a random state. A mask is a function of (rng_state, path): the backward
// pass draws it again instead of keeping it, and every application in train mode advances the counter of rng_state. In
// eval mode y = x.
class RandomLayer : public Layer {
 public:
  Shape output_shape(const Shape& in) const override { return in; }
  std::string describe() const override;  // "dropout(0.5)"
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  double p() const noexcept { return p_; }  // the probability that an element goes

  Variable rng_state;  // i64[2]: key and counter; not trainable

  // What the next mask is drawn from, random_bernoulli(state, shape, 1 - p, place); advances the counter.
  struct Draw {
    Tensor state;             // i64[2]
    std::uint64_t place = 0;  // of this layer
  };
  // Inside or outside of compile; two draws differ.
  Draw draw() const;

 protected:
  // Throws Error(value) unless 0 <= p < 1.
  RandomLayer(const char* kind, double p);
  bool idle() const noexcept;                  // eval mode, or p = 0
  Tensor draw_kept(const Shape& shape) const;  // bool, true with probability 1 - p; advances the counter
  // x where a mask of `shape`, broadcast to x, keeps it, divided by 1 - p; zero elsewhere.
  Tensor dropped(const Tensor& x, const Shape& shape) const;

 private:
  double p_;
};

// Srivastava et al., "Dropout", JMLR 2014, inverted: y = x * Bernoulli(1 - p) / (1 - p).
class Dropout final : public RandomLayer {
 public:
  explicit Dropout(double p = 0.5) : RandomLayer("dropout", p) {}  // p: of an element
  Tensor operator()(const Tensor& x) const override;
  const char* kind() const noexcept override { return "dropout"; }
  std::unique_ptr<Layer> clone() const override { return std::make_unique<Dropout>(*this); }
};

// Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015: whole channels of a sample,
// x [N, s.., C] with any number of spatial dimensions (PyTorch's Dropout1d, 2d, 3d).
class SpatialDropout final : public RandomLayer {
 public:
  explicit SpatialDropout(double p = 0.5) : RandomLayer("spatial_dropout", p) {}  // p: of a channel
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "spatial_dropout"; }
  std::unique_ptr<Layer> clone() const override { return std::make_unique<SpatialDropout>(*this); }
};

// Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017: for selu. Dropped elements become the function's
// lower limit, and an affine map restores mean 0 and variance 1.
class AlphaDropout final : public RandomLayer {
 public:
  explicit AlphaDropout(double p = 0.5) : RandomLayer("alpha_dropout", p) {}  // p: of an element
  Tensor operator()(const Tensor& x) const override;
  const char* kind() const noexcept override { return "alpha_dropout"; }
  std::unique_ptr<Layer> clone() const override { return std::make_unique<AlphaDropout>(*this); }
};

// Huang et al., "Deep networks with stochastic depth", ECCV 2016: whole samples, x [N, ..], for the end of a residual
// branch. Kept ones are divided by 1 - p.
class DropPath final : public RandomLayer {
 public:
  explicit DropPath(double p = 0.1) : RandomLayer("drop_path", p) {}  // p: of a sample
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "drop_path"; }
  std::unique_ptr<Layer> clone() const override { return std::make_unique<DropPath>(*this); }
};

// ---- weights under a constraint: WeightNorm{Linear{8, 4}}, SpectralNorm{Conv2d{3, 8, 3}} ------------------------

// Linear, Conv and ConvTranspose.
template <class L>
concept Weighted = std::is_base_of_v<Layer, L> && requires(const L& layer, L& own, const Tensor& x) {
  { layer.with_weight(x, x) } -> std::same_as<Tensor>;
  { own.weight } -> std::same_as<Variable&>;
};

namespace detail {
// gain * w / |w|, the norm of each column w[.., o].
Tensor weight_normalised(const Tensor& w, const Tensor& gain);
Tensor column_norms(const Tensor& w);  // [o]
// w / (v^T W u) after `iterations` steps of the power method on the weight as a matrix W [the rest, out], which are
// assigned to u and v.
Tensor spectrally_normalised(const Tensor& w, Variable& u, Variable& v, int iterations, double eps, bool transposed);
// First values: normalised random vectors, and 15 steps.
void init_spectral(const Tensor& w, Variable& u, Variable& v, double eps, bool transposed, Key key);
std::int64_t matrix_columns(const Shape& weight, bool transposed);
template <class L> constexpr bool is_transposed = false;
}  // namespace detail

// Salimans and Kingma, "Weight normalization", NeurIPS 2016: the layer with weight = weight_g * weight_v / |weight_v|,
// a norm for each slice of the last axis (PyTorch's dim = 0). nn::init makes weight_g the norm, so that the weight
// starts as the layer's own initialiser gave it.
template <Weighted L> class WeightNorm final : public LayerOf<WeightNorm<L>> {
 public:
  // Owns the layer.
  explicit WeightNorm(L layer) : layer_(std::move(layer)) {
    weight_g = Variable(ones(Shape{layer_.weight.shape().back()}));
  }
  Tensor operator()(const Tensor& x) const override { return layer_.with_weight(x, normalised()); }
  Shape output_shape(const Shape& in) const override { return layer_.output_shape(in); }
  const char* kind() const noexcept override { return "weight_norm"; }
  std::string describe() const override { return "weight_norm(" + layer_.describe() + ")"; }
  void visit(const std::string& path, Visitor& visitor) override {
    visitor.on_variable(join_path(path, "weight_g"), weight_g, false);
    visitor.on_variable(join_path(path, "weight_v"), layer_.weight, true);
    if (layer_.bias.defined()) visitor.on_variable(join_path(path, "bias"), layer_.bias, false);
  }
  void init(Key key) override {
    layer_.set_path(this->path());
    layer_.init(key);
    weight_g.set(detail::column_norms(layer_.weight));
  }
  L& layer() noexcept { return layer_; }  // the layer inside

  Variable weight_g;  // [the last size of the weight]

 private:
  Tensor normalised() const {
    const Scope scope(this->scope_name());
    return detail::weight_normalised(layer_.weight, weight_g);
  }
  L layer_;
};

// How a SpectralNorm is made.
struct SpectralNormOptions {
  int iterations = 1;  // of the power method, each time the layer is called in train mode
  double eps = 1e-12;  // least norm that is divided by
};

// Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018: the layer with its weight
// divided by an estimate of its largest singular value, the weight seen as a matrix [the rest, out]. weight_u and
// weight_v hold the estimate's vectors; they move in train mode only.
template <Weighted L> class SpectralNorm final : public LayerOf<SpectralNorm<L>> {
 public:
  // Owns the layer.
  explicit SpectralNorm(L layer, SpectralNormOptions options = {}) : layer_(std::move(layer)), options_(options) {
    const Shape& w = layer_.weight.shape();
    const std::int64_t out = detail::matrix_columns(w, kTransposed);
    weight_u = Variable(zeros(Shape{out}), false);
    weight_v = Variable(zeros(Shape{w.numel() / out}), false);
  }
  Tensor operator()(const Tensor& x) const override { return layer_.with_weight(x, normalised()); }
  Shape output_shape(const Shape& in) const override { return layer_.output_shape(in); }
  const char* kind() const noexcept override { return "spectral_norm"; }
  std::string describe() const override { return "spectral_norm(" + layer_.describe() + ")"; }
  void visit(const std::string& path, Visitor& visitor) override {
    layer_.visit(path, visitor);
    visitor.on_variable(join_path(path, "weight_u"), weight_u, false);
    visitor.on_variable(join_path(path, "weight_v"), weight_v, false);
  }
  void init(Key key) override {
    layer_.set_path(this->path());
    layer_.init(key);
    detail::init_spectral(layer_.weight, weight_u, weight_v, options_.eps, kTransposed, key);
  }
  L& layer() noexcept { return layer_; }  // the layer inside

  Variable weight_u, weight_v;  // [out], [the rest]

 private:
  Tensor normalised() const {
    const Scope scope(this->scope_name());
    Variable u = weight_u.alias(), v = weight_v.alias();
    const int iterations = current_mode() == Mode::train ? options_.iterations : 0;
    return detail::spectrally_normalised(layer_.weight, u, v, iterations, options_.eps, kTransposed);
  }
  static constexpr bool kTransposed = detail::is_transposed<L>;
  L layer_;
  SpectralNormOptions options_;
};

}  // namespace bp::nn

// Layers that normalise: BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RMSNorm. Channels last; bf16 input is
// normalised in f32. Part of bp/layers.h.
//
//   nn::LayerNorm norm(8);
//   nn::init(norm, Key{42});
//   assert(norm(zeros({2, 8})).shape() == Shape({2, 8}));
#pragma once

#include <optional>
#include <string>

#include "bp/module.h"

namespace bp::nn {

// How a BatchNorm is made.
struct BatchNormOptions {
  double eps = 1e-5;  // added to the variance
  // running = (1 - momentum) * running + momentum * batch; nullopt: the mean over all batches so far, each counting
  // once
  std::optional<double> momentum = 0.1;
  bool affine = true;  // weight and bias
};

// Ioffe and Szegedy, "Batch normalization", ICML 2015, over all axes but the last: x [.., C] -> [.., C],
// y = (x - mean) / sqrt(var + eps) * weight + bias. Train mode: mean and (biased) variance of the batch, and the
// running statistics are assigned (with the unbiased variance, as PyTorch's). Eval mode: the running statistics. bf16
// input is normalised in f32. Throws Error(shape) in train mode for a single value per channel.
class BatchNorm final : public LayerOf<BatchNorm> {
 public:
  explicit BatchNorm(std::int64_t channels, BatchNormOptions options = {});  // channels: C
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "batch_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight, bias;               // [C], undefined unless affine
  Variable running_mean, running_var;  // [C], not trainable
  Variable batches;                    // i64 scalar, the batches so far; undefined with a momentum

 private:
  void update_statistics(const Tensor& mean, const Tensor& var, std::int64_t count) const;
  std::int64_t channels_;
  BatchNormOptions options_;
};

// How a LayerNorm is made.
struct LayerNormOptions {
  double eps = 1e-5;   // added to the variance
  bool affine = true;  // weight and bias
};

// Ba, Kiros and Hinton, "Layer normalization", 2016, over the last axis: x [.., C] -> [.., C],
// y = (x - mean) / sqrt(var + eps) * weight + bias, var biased.
class LayerNorm final : public LayerOf<LayerNorm> {
 public:
  explicit LayerNorm(std::int64_t channels, LayerNormOptions options = {});  // channels: C
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

// How a GroupNorm is made.
struct GroupNormOptions {
  double eps = 1e-5;   // added to the variance
  bool affine = true;  // weight and bias
};

// Wu and He, "Group normalization", ECCV 2018: x [N, .., C] -> [N, .., C], mean and (biased) variance of each sample
// over all positions and the C / groups channels of a group.
class GroupNorm final : public LayerOf<GroupNorm> {
 public:
  // Throws Error(value) unless groups divides channels.
  GroupNorm(std::int64_t groups, std::int64_t channels, GroupNormOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "group_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight, bias;  // [C], undefined unless affine

 private:
  std::int64_t groups_, channels_;
  GroupNormOptions options_;
};

// How an InstanceNorm is made.
struct InstanceNormOptions {
  double eps = 1e-5;      // added to the variance
  double momentum = 0.1;  // of the running statistics
  bool affine = false;    // weight and bias
  bool track = false;     // keep running statistics, and normalise by them in eval mode
};

// Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016: x [N, s.., C] -> the same, mean and (biased) variance
// of each sample and channel over the positions. With `track` train mode also moves the running statistics towards the
// mean over the batch (of the unbiased variance), as PyTorch does. Throws Error(shape) where one position has to be
// normalised by its own statistics.
class InstanceNorm final : public LayerOf<InstanceNorm> {
 public:
  explicit InstanceNorm(std::int64_t channels, InstanceNormOptions options = {});  // channels: C
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "instance_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight, bias;               // [C], undefined unless affine
  Variable running_mean, running_var;  // [C], not trainable; undefined unless tracked

 private:
  void update_statistics(const Tensor& mean, const Tensor& var, std::int64_t count) const;
  std::int64_t channels_;
  InstanceNormOptions options_;
};

// How an RMSNorm is made.
struct RMSNormOptions {
  double eps = 1e-6;   // added to the mean square
  bool affine = true;  // weight
};

// Zhang and Sennrich, "Root mean square layer normalization", NeurIPS 2019, over the last axis: x [.., C] -> [.., C],
// y = x / sqrt(mean(x^2) + eps) * weight.
class RMSNorm final : public LayerOf<RMSNorm> {
 public:
  explicit RMSNorm(std::int64_t channels, RMSNormOptions options = {});  // channels: C
  Tensor operator()(const Tensor& x) const override;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "rms_norm"; }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;

  Variable weight;  // [C], undefined unless affine

 private:
  std::int64_t channels_;
  RMSNormOptions options_;
};

}  // namespace bp::nn

// What the Trainer counts over batches: sums of training batches, made by the compiled step, and all metrics of
// evaluation, made of its outputs.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bp/train.h"

namespace bp::train {

// All that the metrics of training need; kept in checkpoints, so that an epoch can be continued.
struct Sums {
  double samples = 0;
  double predictions = 0;  // class ids or elements: what accuracy and mae are a share of
  double loss = 0;         // of the batches' means, each times its samples
  double correct = 0;
  double absolute = 0, squared = 0;  // of e = output - target
  double target = 0, target_squared = 0;

  static constexpr std::size_t kCount = 8;
  std::array<double, kCount> values() const noexcept {
    return {samples, predictions, loss, correct, absolute, squared, target, target_squared};
  }
  static Sums of(const std::array<double, kCount>& v) noexcept {
    return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
  }
};

// Throws Error(shape), opened by "[where]".
void require_same_shape(std::string_view where, const Shape& outputs, const Shape& targets);

// The results of a compiled training step: the loss, then the sums of one batch, exact (i64) or in f64.
std::vector<Tensor> batch_results(Task task, const Tensor& loss, const Tensor& output, const Tensor& target);
// Adds results of batch_results. `target` is the batch's, with `samples` rows.
void accumulate(Sums& sums, Task task, std::span<const Tensor> results, const Array& target);
Metrics metrics_of(const Sums& sums, Task task);

// Everything in Metrics that the task has, of batches one after another.
class Evaluation {
 public:
  // top_k: 0 for none; `confusion`, null for none, counts along.
  Evaluation(Task task, std::int64_t top_k, metrics::ConfusionMatrix* confusion = nullptr)
      : task_(task), top_k_(top_k), confusion_(confusion) {}
  void add(const Tensor& loss, const Tensor& output, const Array& target);
  Metrics value() const;

 private:
  void add_classes(const Array& output, const Array& target);

  Task task_;
  std::int64_t top_k_;
  metrics::ConfusionMatrix* confusion_;
  double samples_ = 0, loss_ = 0;
  std::int64_t top_k_hits_ = 0;
  std::optional<metrics::ClassCounts> classes_;
  metrics::BinaryCounts binary_;
  metrics::Auc auc_;
  metrics::RegressionErrors errors_;
};

// The names of the metrics that evaluation, or training alone, makes of a task.
std::vector<std::string> metric_names(Task task, bool evaluated);

}  // namespace bp::train

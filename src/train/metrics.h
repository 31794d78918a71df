// Sums over the samples of an epoch, and the metrics made of them. Used by the Trainer.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "bp/train.h"

namespace bp::train {

// All that Metrics need; kept in checkpoints, so that an epoch can be continued.
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

// The results of a compiled step: the loss, then the sums of one batch, exact (i64) or in f64.
std::vector<Tensor> batch_results(Task task, const Tensor& loss, const Tensor& output, const Tensor& target);
// Adds results of batch_results. `target` is the batch's, with `samples` rows.
void accumulate(Sums& sums, Task task, std::span<const Tensor> results, const Array& target);
Metrics metrics_of(const Sums& sums, Task task);

}  // namespace bp::train

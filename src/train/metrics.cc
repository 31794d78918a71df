// Metrics of classification, binary labels and regression.
#include "train/metrics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::train {

namespace {

void require_same_shape(const Tensor& output, const Tensor& target) {
  if (output.shape() != target.shape())
    fail(ErrorKind::shape, "[train] targets: expected the shape of the model's output {}, got {}", output.shape(),
         target.shape());
}

Tensor correct_classes(const Tensor& output, const Tensor& target) {
  if (is_float(target.dtype())) require_same_shape(output, target);
  const Tensor ids = is_float(target.dtype()) ? argmax(target, -1) : cast(target, DType::i64);
  return sum(equal(argmax(output, -1), ids));
}

}  // namespace

std::vector<Tensor> batch_results(Task task, const Tensor& loss, const Tensor& output, const Tensor& target) {
  const Scope scope("metrics");
  if (task == Task::classification) return {loss, correct_classes(output, target)};
  require_same_shape(output, target);
  if (task == Task::binary) return {loss, sum(equal(output > 0.0, target > 0.5))};
  const Tensor t = cast(target, DType::f64), e = cast(output, DType::f64) - t;
  return {loss, sum(abs(e)), sum(e * e), sum(t), sum(t * t)};
}

void accumulate(Sums& sums, Task task, std::span<const Tensor> results, const Array& target) {
  const auto samples = static_cast<double>(target.rows());
  const bool probabilities = task == Task::classification && is_float(target.dtype);
  const std::int64_t predictions =
      probabilities ? target.numel() / std::max<std::int64_t>(1, target.shape.back()) : target.numel();
  sums.samples += samples;
  sums.predictions += static_cast<double>(predictions);
  sums.loss += results[0].item() * samples;
  if (task != Task::regression) {
    sums.correct += results[1].item();
    return;
  }
  sums.absolute += results[1].item();
  sums.squared += results[2].item();
  sums.target += results[3].item();
  sums.target_squared += results[4].item();
}

Metrics metrics_of(const Sums& s, Task task) {
  Metrics m;
  m.samples = static_cast<std::int64_t>(s.samples);
  if (m.samples == 0) return m;
  m.loss = s.loss / s.samples;
  if (task != Task::regression) {
    m.accuracy = s.correct / s.predictions;
    return m;
  }
  m.mae = s.absolute / s.predictions;
  m.rmse = std::sqrt(s.squared / s.predictions);
  const double spread = s.target_squared - s.target * s.target / s.predictions;
  if (spread > 0) m.r2 = 1 - s.squared / spread;
  return m;
}

}  // namespace bp::train

// Metrics of classification, binary labels and regression.
#include "train/metrics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::train {

namespace {

Tensor correct_classes(const Tensor& output, const Tensor& target) {
  if (is_float(target.dtype())) require_same_shape("train", output.shape(), target.shape());
  const Tensor ids = is_float(target.dtype()) ? argmax(target, -1) : cast(target, DType::i64);
  return sum(equal(argmax(output, -1), ids));
}

}  // namespace

void require_same_shape(std::string_view where, const Shape& outputs, const Shape& targets) {
  if (outputs != targets)
    fail(ErrorKind::shape, "[{}] targets: expected the shape of the outputs {}, got {}", where, outputs, targets);
}

std::vector<Tensor> batch_results(Task task, const Tensor& loss, const Tensor& output, const Tensor& target) {
  const Scope scope("metrics");
  if (task == Task::classification) return {loss, correct_classes(output, target)};
  require_same_shape("train", output.shape(), target.shape());
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

void Evaluation::add_classes(const Array& output, const Array& target) {
  if (output.shape.rank() < 1 || output.shape.back() < 1)
    fail(ErrorKind::shape, "[evaluate] classification needs an output [.., classes], got {}", output.shape);
  const std::int64_t width = output.shape.back();
  if (!classes_) classes_.emplace(width);
  const std::vector<std::int64_t> p = metrics::predicted_classes(output), t = metrics::target_classes(target, width);
  if (p.size() != t.size())
    fail(ErrorKind::shape, "[evaluate] an output {} for targets {}", output.shape, target.shape);
  for (std::size_t i = 0; i < p.size(); ++i) classes_->add(t[i], p[i]);
  if (top_k_ > 0) top_k_hits_ += metrics::top_k_hits(output, t, std::min(top_k_, width));
  if (confusion_ != nullptr) confusion_->add(output, target);
}

void Evaluation::add(const Tensor& loss, const Tensor& output, const Array& target) {
  const auto samples = static_cast<double>(target.rows());
  samples_ += samples;
  loss_ += loss.item() * samples;
  const Array y = to_array(output);
  if (task_ == Task::classification) {
    add_classes(y, target);
  } else if (task_ == Task::binary) {
    binary_.add(y, target);
    auc_.add(y, target);
  } else {
    errors_.add(y, target);
  }
}

Metrics Evaluation::value() const {
  Metrics m;
  m.samples = static_cast<std::int64_t>(samples_);
  if (m.samples == 0) return m;
  m.loss = loss_ / samples_;
  if (task_ == Task::regression) {
    m.mae = errors_.mae();
    m.rmse = errors_.rmse();
    m.r2 = errors_.r2();
    return m;
  }
  const metrics::ClassScores scores = classes_ ? classes_->macro() : binary_.positive();
  m.precision = scores.precision;
  m.recall = scores.recall;
  m.f1 = scores.f1;
  m.accuracy = classes_ ? classes_->accuracy() : binary_.accuracy();
  if (!classes_) {
    m.auc = auc_.value();
    return m;
  }
  m.perplexity = std::exp(m.loss);
  if (top_k_ > 0) m.top_k = static_cast<double>(top_k_hits_) / static_cast<double>(classes_->total());
  return m;
}

namespace {

struct NamedMetric {
  std::string_view name;
  double Metrics::*value;
  bool larger;          // is better
  std::string_view of;  // tasks: c(lassification), b(inary), r(egression)
  bool in_training;
};
constexpr NamedMetric kMetrics[] = {{"loss", &Metrics::loss, false, "cbr", true},
                                    {"accuracy", &Metrics::accuracy, true, "cb", true},
                                    {"mae", &Metrics::mae, false, "r", true},
                                    {"rmse", &Metrics::rmse, false, "r", true},
                                    {"r2", &Metrics::r2, true, "r", true},
                                    {"top_k", &Metrics::top_k, true, "c", false},
                                    {"precision", &Metrics::precision, true, "cb", false},
                                    {"recall", &Metrics::recall, true, "cb", false},
                                    {"f1", &Metrics::f1, true, "cb", false},
                                    {"auc", &Metrics::auc, true, "b", false},
                                    {"perplexity", &Metrics::perplexity, false, "c", false}};

const NamedMetric& metric_named(std::string_view name) {
  std::string known;
  for (const NamedMetric& m : kMetrics) {
    if (m.name == name) return m;
    known += (known.empty() ? "" : ", ") + std::string(m.name);
  }
  fail(ErrorKind::value, "[train] there is no metric \"{}\": expected one of {}", name, known);
}

}  // namespace

double metric(const Metrics& metrics, std::string_view name) { return metrics.*metric_named(name).value; }
bool larger_is_better(std::string_view name) { return metric_named(name).larger; }

std::vector<std::string> metric_names(Task task, bool evaluated) {
  const char letter = task == Task::classification ? 'c' : task == Task::binary ? 'b' : 'r';
  std::vector<std::string> names;
  for (const NamedMetric& m : kMetrics)
    if (m.of.find(letter) != std::string_view::npos && (evaluated || m.in_training)) names.emplace_back(m.name);
  return names;
}

}  // namespace bp::train

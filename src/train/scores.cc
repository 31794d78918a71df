// The accumulators of bp/metrics.h.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/metrics.h"
#include "train/metrics.h"

namespace bp::metrics {

namespace {

std::int64_t width_of(const Array& scores) {
  if (scores.shape.rank() < 1 || scores.shape.back() < 1)
    fail(ErrorKind::shape, "[metrics] scores: expected [.., classes], got {}", scores.shape);
  return scores.shape.back();
}

// f(scores as double, row after row).
template <class F> void for_rows(const Array& scores, F&& f) {
  const std::int64_t width = width_of(scores), rows = scores.numel() / width;
  const Array wide = convert(scores, is_float(scores.dtype) && scores.dtype != DType::f32 ? DType::f64 : DType::f32);
  const auto walk = [&](const auto* p) {
    for (std::int64_t i = 0; i < rows; ++i) f(i, std::span(p + i * width, static_cast<std::size_t>(width)));
  };
  if (wide.dtype == DType::f64) {
    walk(wide.data<double>());
  } else {
    walk(wide.data<float>());
  }
}

template <class T> std::int64_t place_of_largest(std::span<const T> row) {
  std::size_t best = 0;
  for (std::size_t k = 1; k < row.size(); ++k)
    if (row[k] > row[best] || (std::isnan(row[best]) && !std::isnan(row[k]))) best = k;
  return static_cast<std::int64_t>(best);
}

double ratio(std::int64_t a, std::int64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

ClassScores scores_of(std::int64_t hits, std::int64_t predicted, std::int64_t targets) {
  return {ratio(hits, predicted), ratio(hits, targets), ratio(2 * hits, predicted + targets), targets};
}

}  // namespace

std::vector<std::int64_t> predicted_classes(const Array& scores) {
  std::vector<std::int64_t> ids;
  for_rows(scores, [&](std::int64_t, auto row) { ids.push_back(place_of_largest(row)); });
  return ids;
}

std::vector<std::int64_t> target_classes(const Array& targets, std::int64_t classes) {
  if (is_float(targets.dtype)) {
    if (const std::int64_t width = width_of(targets); width != classes)
      fail(ErrorKind::shape, "[metrics] targets: expected probabilities [.., {}], got {}", classes, targets.shape);
    return predicted_classes(targets);
  }
  const Array ids = convert(targets, DType::i64);
  const std::span<const std::int64_t> all = ids.values<std::int64_t>();
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i] < 0 || all[i] >= classes)
      fail(ErrorKind::value, "[metrics] target {} is class {}: expected 0 to {}", i, all[i], classes - 1);
  return {all.begin(), all.end()};
}

std::int64_t top_k_hits(const Array& scores, std::span<const std::int64_t> targets, std::int64_t k) {
  const std::int64_t width = width_of(scores);
  if (k < 1 || k > width) fail(ErrorKind::value, "[metrics] top k: expected 1 to {} classes, got {}", width, k);
  if (static_cast<std::int64_t>(targets.size()) * width != scores.numel())
    fail(ErrorKind::shape, "[metrics] expected a target for each row of scores {}, got {}", scores.shape,
         targets.size());
  std::int64_t hits = 0;
  for_rows(scores, [&](std::int64_t i, auto row) {
    const auto t = static_cast<std::size_t>(targets[static_cast<std::size_t>(i)]);
    std::int64_t before = 0;  // that come first
    for (std::size_t c = 0; c < row.size(); ++c) before += row[c] > row[t] || (row[c] == row[t] && c < t);
    hits += !std::isnan(row[t]) && before < k;
  });
  return hits;
}

// ---- classes -------------------------------------------------------------------------------------------------------

ClassCounts::ClassCounts(std::int64_t classes) {
  if (classes < 1) fail(ErrorKind::value, "[metrics] classes: expected 1 or more, got {}", classes);
  for (auto* counts : {&hits_, &predicted_, &targets_}) counts->resize(static_cast<std::size_t>(classes));
}

void ClassCounts::add(std::int64_t target, std::int64_t predicted, std::int64_t times) {
  if (std::min(target, predicted) < 0 || std::max(target, predicted) >= classes())
    fail(ErrorKind::value, "[metrics] class {} taken for {}: expected 0 to {}", target, predicted, classes() - 1);
  targets_[static_cast<std::size_t>(target)] += times;
  predicted_[static_cast<std::size_t>(predicted)] += times;
  if (target == predicted) hits_[static_cast<std::size_t>(target)] += times;
}

std::int64_t ClassCounts::total() const noexcept {
  std::int64_t n = 0;
  for (const std::int64_t t : targets_) n += t;
  return n;
}

double ClassCounts::accuracy() const noexcept {
  std::int64_t hits = 0;
  for (const std::int64_t h : hits_) hits += h;
  const std::int64_t n = total();
  return n == 0 ? kNone : ratio(hits, n);
}

ClassScores ClassCounts::of(std::int64_t c) const {
  if (c < 0 || c >= classes()) fail(ErrorKind::value, "[metrics] class {}: expected 0 to {}", c, classes() - 1);
  const auto i = static_cast<std::size_t>(c);
  return scores_of(hits_[i], predicted_[i], targets_[i]);
}

ClassScores ClassCounts::macro() const {
  ClassScores mean{0, 0, 0, total()};
  std::int64_t present = 0;
  for (std::int64_t c = 0; c < classes(); ++c) {
    const ClassScores s = of(c);
    if (s.support == 0 && predicted_[static_cast<std::size_t>(c)] == 0) continue;
    ++present;
    mean.precision += s.precision;
    mean.recall += s.recall;
    mean.f1 += s.f1;
  }
  if (present == 0) return {};
  for (double* x : {&mean.precision, &mean.recall, &mean.f1}) *x /= static_cast<double>(present);
  return mean;
}

ConfusionMatrix::ConfusionMatrix(std::int64_t classes) : classes_(classes) {
  if (classes < 1 || classes > 16384)
    fail(ErrorKind::value, "[metrics] confusion matrix: expected 1 to 16384 classes, got {}", classes);
  counts_.resize(static_cast<std::size_t>(classes * classes));
}

void ConfusionMatrix::add(const Array& scores, const Array& targets) {
  if (width_of(scores) != classes_)
    fail(ErrorKind::shape, "[metrics] scores: expected [.., {}], got {}", classes_, scores.shape);
  const std::vector<std::int64_t> p = predicted_classes(scores), t = target_classes(targets, classes_);
  if (p.size() != t.size()) fail(ErrorKind::shape, "[metrics] {} rows of scores and {} targets", p.size(), t.size());
  for (std::size_t i = 0; i < p.size(); ++i) ++counts_[static_cast<std::size_t>(t[i] * classes_ + p[i])];
}

std::int64_t ConfusionMatrix::at(std::int64_t target, std::int64_t predicted) const {
  if (std::min(target, predicted) < 0 || std::max(target, predicted) >= classes_)
    fail(ErrorKind::value, "[metrics] classes {}, {}: expected 0 to {}", target, predicted, classes_ - 1);
  return counts_[static_cast<std::size_t>(target * classes_ + predicted)];
}

ClassCounts ConfusionMatrix::counts() const {
  ClassCounts all(classes_);
  for (std::int64_t t = 0; t < classes_; ++t)
    for (std::int64_t p = 0; p < classes_; ++p) all.add(t, p, at(t, p));
  return all;
}

// ---- two labels ----------------------------------------------------------------------------------------------------

void BinaryCounts::add(const Array& logits, const Array& targets) {
  train::require_same_shape("metrics", logits.shape, targets.shape);
  const Array x = convert(logits, DType::f64), y = convert(targets, DType::f64);
  const double *p = x.data<double>(), *t = y.data<double>();
  for (std::int64_t i = 0, n = x.numel(); i < n; ++i) ++count_[t[i] > 0.5][p[i] > 0];
}

ClassScores BinaryCounts::positive() const {
  return scores_of(count_[1][1], count_[0][1] + count_[1][1], count_[1][0] + count_[1][1]);
}

double BinaryCounts::accuracy() const noexcept {
  const std::int64_t right = count_[0][0] + count_[1][1], n = right + count_[0][1] + count_[1][0];
  return n == 0 ? kNone : ratio(right, n);
}

void Auc::add(const Array& scores, const Array& targets) {
  train::require_same_shape("metrics", scores.shape, targets.shape);
  const Array x = convert(scores, DType::f64), y = convert(targets, DType::f64);
  const double *p = x.data<double>(), *t = y.data<double>();
  for (std::int64_t i = 0, n = x.numel(); i < n; ++i) scored_.emplace_back(p[i], t[i] > 0.5);
}

double Auc::value() const {
  std::vector<std::pair<double, bool>> sorted = scored_;
  for (const auto& [score, label] : sorted)
    if (std::isnan(score)) return kNone;
  std::sort(sorted.begin(), sorted.end());
  double wins = 0, negatives = 0, positives = 0;  // pairs in which the positive is larger, ties by half
  for (std::size_t i = 0; i < sorted.size();) {
    double n = 0, p = 0;  // of this score
    const double score = sorted[i].first;
    for (; i < sorted.size() && sorted[i].first == score; ++i) (sorted[i].second ? p : n) += 1;
    wins += p * (negatives + n / 2);
    negatives += n;
    positives += p;
  }
  return negatives * positives == 0 ? kNone : wins / (negatives * positives);
}

// ---- values --------------------------------------------------------------------------------------------------------

void RegressionErrors::add(const Array& outputs, const Array& targets) {
  train::require_same_shape("metrics", outputs.shape, targets.shape);
  const Array x = convert(outputs, DType::f64), y = convert(targets, DType::f64);
  const double *p = x.data<double>(), *t = y.data<double>();
  for (std::int64_t i = 0, n = x.numel(); i < n; ++i) {
    const double e = p[i] - t[i], before = t[i] - mean_;
    absolute_ += std::abs(e);
    squared_ += e * e;
    mean_ += before / static_cast<double>(++n_);
    spread_ += before * (t[i] - mean_);
  }
}

double RegressionErrors::mae() const noexcept { return n_ == 0 ? kNone : absolute_ / static_cast<double>(n_); }
double RegressionErrors::rmse() const noexcept {
  return n_ == 0 ? kNone : std::sqrt(squared_ / static_cast<double>(n_));
}
double RegressionErrors::r2() const noexcept { return spread_ > 0 ? 1 - squared_ / spread_ : kNone; }

}  // namespace bp::metrics

// Metrics: exact over all samples added, whatever the sizes of the batches. Host memory, f64 and i64 sums. The Trainer
// evaluates with them; they serve any other loop alike.
//
//   const Tensor scores = Tensor::from<float>({0.9f, 0.1f, 0.2f, 0.8f}, {2, 2});
//   metrics::ConfusionMatrix m(2);
//   m.add(to_array(scores), Array::zeros(i64, {2}));
//   assert(m.at(0, 1) == 1 && m.counts().accuracy() == 0.5);
//
// `scores` are logits or probabilities [.., C] in f32 or f64; `targets` class ids [..] of any integer dtype, or
// probabilities [.., C], of which the largest counts. Every add throws Error(shape / dtype / value) for arrays that do
// not fit, naming what was expected, and adds nothing then.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "bp/array.h"

namespace bp::metrics {

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();  // no such metric: NaN

// The class of the largest score of each row, the first one among equals; NaN counts as the smallest.
std::vector<std::int64_t> predicted_classes(const Array& scores);
// The class of each row. Throws Error(value) for an id outside [0, classes).
std::vector<std::int64_t> target_classes(const Array& targets, std::int64_t classes);
// How many rows have their target among the k largest scores; of equal scores those of smaller ids come first. Throws
// Error(value) unless 1 <= k <= C.
std::int64_t top_k_hits(const Array& scores, std::span<const std::int64_t> targets, std::int64_t k);

// Of one class, or means over classes. NaN where nothing defines it.
struct ClassScores {
  double precision = kNone;  // share of what was predicted as this class that is
  double recall = kNone;     // share of this class that was predicted so
  double f1 = kNone;         // harmonic mean of both
  std::int64_t support = 0;  // samples of this class
};

// Hits, predictions and samples of each class: memory of 24 bytes a class.
class ClassCounts {
 public:
  explicit ClassCounts(std::int64_t classes);  // 1 or more
  // Throws Error(value) for ids outside [0, classes).
  void add(std::int64_t target, std::int64_t predicted, std::int64_t times = 1);

  // As given to the constructor.
  std::int64_t classes() const noexcept { return static_cast<std::int64_t>(hits_.size()); }
  std::int64_t total() const noexcept;  // samples added
  double accuracy() const noexcept;     // hits / total; NaN without samples
  // Precision and recall are 0 where their denominator is (scikit-learn's zero_division=0).
  ClassScores of(std::int64_t c) const;
  // Means over the classes that occur among targets or predictions (sklearn's average="macro").
  ClassScores macro() const;

 private:
  std::vector<std::int64_t> hits_, predicted_, targets_;
};

// How often class `target` was taken for class `predicted`: 8 bytes a pair of classes.
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(std::int64_t classes);  // 1 to 16384
  // Rows of scores [.., C] with their targets.
  void add(const Array& scores, const Array& targets);
  std::int64_t classes() const noexcept { return classes_; }  // as given to the constructor
  // Samples of class `target` taken for class `predicted`.
  std::int64_t at(std::int64_t target, std::int64_t predicted) const;
  ClassCounts counts() const;  // the same, summed for each class

 private:
  std::int64_t classes_;
  std::vector<std::int64_t> counts_;  // [target][predicted]
};

// Labels of 0 and 1 (above 0.5), each with a logit (positive above 0): the scores of the positive class.
class BinaryCounts {
 public:
  void add(const Array& logits, const Array& targets);  // equal shapes; targets of any dtype
  ClassScores positive() const;                         // NaN where nothing defines it
  double accuracy() const noexcept;                     // share of labels hit; NaN without any

 private:
  std::int64_t count_[2][2] = {};  // [target][predicted]
};

// Area under the ROC curve: the probability that a positive has a larger score than a negative, ties by half (Mann and
// Whitney 1947). Exact, so it keeps every score: 16 bytes a sample. NaN unless both labels occur, or with a NaN score.
class Auc {
 public:
  void add(const Array& scores, const Array& targets);  // equal shapes
  double value() const;                                 // the area

 private:
  std::vector<std::pair<double, bool>> scored_;
};

// Errors of values, e = output - target, and R^2 by running moments (Welford 1962): large means lose no digits.
class RegressionErrors {
 public:
  void add(const Array& outputs, const Array& targets);  // equal shapes
  std::int64_t elements() const noexcept { return n_; }  // values compared
  double mae() const noexcept;                           // mean |e|; NaN without elements
  double rmse() const noexcept;                          // sqrt(mean e^2); NaN without elements
  double r2() const noexcept;  // 1 - sum e^2 / sum (t - mean t)^2; NaN where all targets are equal

 private:
  std::int64_t n_ = 0;
  double absolute_ = 0, squared_ = 0, mean_ = 0, spread_ = 0;
};

}  // namespace bp::metrics

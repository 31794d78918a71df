// The folder of a run's checkpoints: names, what is kept, what is deleted. Used by the Trainer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bp/train.h"

namespace bp::train {

// An epoch whose checkpoint may be kept for its metric: (step, what was watched; smaller is better).
using Ranked = std::vector<std::pair<std::int64_t, double>>;

// Whether there are any, whole or not; false where there is no such folder.
bool has_checkpoints(const std::string& folder);

class Checkpoints {
 public:
  explicit Checkpoints(const CheckpointOptions& options) : options_(options) {}

  bool on() const noexcept { return !options_.folder.empty(); }
  std::string path_of(std::int64_t step) const;
  // Makes the folder, deletes what a killed writer left, and sees that files can be made there. A run that goes on does
  // so after `step` updates; one that begins anew (none) wants a folder without checkpoints: Error(state).
  void open(std::optional<std::int64_t> step);
  // The epoch that ends at `step` among the best ones.
  void rank(Ranked& best, std::int64_t step, double watched) const;
  // After the one of `step` was written: deletes those that are neither among the last nor in `best`, and what other
  // runs left of steps that this one has not come to or passed over: torn ones, and those of before it went back.
  void prune(std::int64_t step, const Ranked& best);

 private:
  CheckpointOptions options_;
  std::int64_t last_ = 0;  // the step written last, or resumed from: between it and the next nothing is this run's
};

}  // namespace bp::train

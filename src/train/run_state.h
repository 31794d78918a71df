// Where a run of training stands: all that a checkpoint keeps beside the Variables. Used by the Trainer.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bp/train.h"
#include "train/metrics.h"

namespace bp::train {

struct Run {
  std::int64_t epoch = 0;  // finished
  std::int64_t batch = 0;  // done in the running epoch
  std::int64_t step = 0;
  std::int64_t bad_epochs = 0;
  std::int64_t rollbacks = 0;
  std::int64_t averaged = 0;                              // weights in the stochastic average
  double best = std::numeric_limits<double>::infinity();  // of what is watched, negated where larger is better
  double seconds = 0;                                     // of the running epoch's training
  double waited = 0;                                      // of these seconds, for data
  double elapsed = 0;                                     // of all training and validation
  double lr = 0;                                          // of the last step
  double rate_scale = 1;                                  // of schedules, after rollbacks
  Sums sums;                                              // of the running epoch
  data::LoaderState loader;
  std::int64_t rows = 0, batch_size = 0;                    // of the loader
  std::vector<double> plateau;                              // ReduceOnPlateau::state(); empty without one
  std::vector<std::pair<std::int64_t, double>> best_steps;  // checkpoints kept for their metric
  std::vector<Epoch> history;
};

// As metadata of a checkpoint: "train.run". Numbers are written in the shortest form that reads back the same.
std::string encode(const Run& run);
// Throws Error(format), opened by `where`.
Run decode(const std::string& text, const std::string& where);

}  // namespace bp::train

// The event files of a run, for TensorBoard: RUN/events/train and RUN/events/validation, two runs there, so that curves
// of one name share a chart. Steps are epochs. Written by RunLog.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bp/tensorboard.h"
#include "train/config.h"

namespace bp::train {

class EventLog {
 public:
  // `done` epochs of the run lie behind. Both are kept: alive and in place.
  EventLog(const std::string& folder, const Config& config, const nn::Sequential& model, bool validation,
           std::int64_t done);
  // At the beginning of a run: its configuration, and how its training images look, altered as in the first epoch.
  void begin(const data::Source& training);
  // A row of history.csv, and at most a hundred times in a run the parameters' histograms.
  void epoch(const std::vector<std::string>& columns, const std::vector<double>& row);

 private:
  const Config& config_;
  const nn::Sequential& model_;
  io::EventWriter train_;
  std::optional<io::EventWriter> validation_;
};

}  // namespace bp::train

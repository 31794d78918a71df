// Keeps a run on record while it goes: RUN/run.json at its beginning and end, its row in runs.sqlite as epochs pass,
// its event files. Made by the runner of experiment.cc. None of it may stop a training: a record that cannot be written
// is told once and then left.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/event_log.h"
#include "train/runs.h"

namespace bp::train {

using Note = std::function<void(const std::string&)>;

// What is on record of a run that goes on; none of a new one, or where it cannot be read. Ask before anything is
// written.
std::optional<RunRecord> record_so_far(const std::string& folder);

class RunLog {
 public:
  // `folder` holds config.toml and history.csv already; a run that goes on keeps the date of its beginning. `config`
  // and `model` are kept: alive and in place. `batches` make an epoch.
  RunLog(std::string folder, const std::optional<RunRecord>& so_far, const Config& config, const Datasets& sets,
         const nn::Sequential& model, std::int64_t batches, Note note);
  void epoch(const std::vector<std::string>& columns, const std::vector<double>& row);
  void end(const Result& result, const std::optional<Metrics>& test);
  void failed(const std::exception& error);
  const RunRecord& record() const noexcept { return record_; }

 private:
  using clock = std::chrono::steady_clock;
  void save(bool file);
  // Does one part of the record; tells of what goes wrong.
  template <class F> bool attempt(const char* what, F&& f);
  std::string folder_;
  std::int64_t batches_;
  Note note_;
  RunRecord record_;
  std::unique_ptr<RunIndex> index_;
  std::unique_ptr<EventLog> events_;
  clock::time_point written_;
};

}  // namespace bp::train

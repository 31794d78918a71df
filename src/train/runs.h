// What is on record of runs. A run writes RUN/run.json as it goes; runs.sqlite, beside the folders of runs, is an index
// of all of them, which can be made again from the folders at any time. Written by train/run_log.h, read by bp runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bp/io.h"
#include "io/sqlite.h"
#include "train/toml.h"

namespace bp::train {

struct MetricRecord {
  double last = 0, best = 0;
  std::int64_t best_epoch = 0;  // from 1 on; 0 for what is measured once, at the end
};

struct RunRecord {
  std::string folder;  // its name, beside runs.sqlite
  std::string name;    // of the configuration
  // "running", "finished", "interrupted", "diverged" or "failed"; "killed" when it claims to run and its process is
  // gone.
  std::string status;
  std::string reason;               // what ended it: "epochs", "early stopping", an error's message
  double started = 0, updated = 0;  // seconds since 1970, UTC
  double seconds = 0;               // of training, without validation
  std::int64_t epochs = 0, planned_epochs = 0;
  std::int64_t steps = 0, parameters = 0;
  std::map<std::string, MetricRecord> metrics = {};  // by column of history.csv, and test_loss, ...
  // The configuration by key, "model.layers.0.units", in its order; values as TOML.
  std::vector<std::pair<std::string, std::string>> settings = {};
  std::string config_hash = {};                         // of the settings, the name left out
  std::map<std::string, std::string> environment = {};  // version, host, process, threads, isa
  // How often it was gone on with, and the seconds from where it was left to there. In run.json only.
  std::int64_t resumed = 0;
  double paused = 0;
};

// The folder that a run's lies in, and its name there.
std::pair<std::string, std::string> split_run(const std::string& run);

// Whether a smaller value of this metric is the better one: losses and errors.
bool lower_is_better(std::string_view metric);
// Takes in the values of an epoch; those that are no metric (epoch, lr, seconds, ...) and NaN are passed over.
void add_epoch(RunRecord& record, const std::vector<std::string>& columns, const std::vector<double>& row);
// RUN/history.csv, f64; nothing where no epoch has ended. Throws as its reader does.
std::optional<io::Table> read_history(const std::string& run);
// Takes in all rows of RUN/history.csv, if there is one, in the place of what was known of epochs.
void add_history(RunRecord& record, const std::string& run);
void set_settings(RunRecord& record, const Node& config);

// As JSON, on several lines.
std::string to_json(const RunRecord& record);
// Throws Error(format), opened by `where`.
RunRecord parse_run_record(const std::string& json, const std::string& where);
// RUN/run.json; without a readable one what RUN/config.toml and RUN/history.csv tell. Throws as their readers do.
RunRecord read_run_record(const std::string& run);
void write_run_record(const std::string& run, const RunRecord& record);

// The database. Throws as io::Database does.
class RunIndex {
 public:
  // FOLDER/runs.sqlite. Made, with all runs of the folder, when it is missing or of an older version; a damaged one is
  // renamed to runs.sqlite.damaged first. Throws Error(io) when there is no such folder, Error(state) for a database of
  // a newer version.
  explicit RunIndex(const std::string& folder);

  void put(const RunRecord& record);  // in the place of the one of its folder
  std::vector<RunRecord> all();       // by start
  // Forgets a run; its folder stays. False when it is not on record.
  bool remove(const std::string& run);
  // Takes up the runs of the folder anew. What cannot be read is named in skipped().
  void scan();
  const std::vector<std::string>& skipped() const noexcept { return skipped_; }

 private:
  void begin();
  void fill();
  void put_rows(const RunRecord& record);
  std::string folder_;
  std::unique_ptr<io::Database> database_;
  std::vector<std::string> skipped_;
};

// A property of a run by name: "status", "epochs", "started", a metric ("validation_loss": the last value,
// "best.validation_loss"), or a key of the configuration. Empty when the run has none of this name.
struct Property {
  std::string text;
  double number = 0;  // NaN when the text is no number
};
std::optional<Property> property(const RunRecord& record, const std::string& name);
std::string utc(double seconds);  // "2025-03-01T12:00:00Z"

// Those for which all conditions hold: "status=finished", "optimizer.lr<0.01", "name~mnist" (contains); operators = !=
// <
// <= > >= ~. Throws Error(config) for a condition that is none, or a name that no run has.
std::vector<RunRecord> select_runs(std::vector<RunRecord> runs, const std::vector<std::string>& conditions);
// By a property, "-NAME" the other way round; runs without it come last. Throws Error(config) as above.
void sort_runs(std::vector<RunRecord>& runs, const std::string& by);

// The names whose values differ between runs, in the order of the first run: rows of one text a run, "" where a run has
// none.
struct ComparedRow {
  std::string name;
  std::vector<std::string> values;
};
std::vector<ComparedRow> differing_settings(const std::vector<RunRecord>& runs);

}  // namespace bp::train

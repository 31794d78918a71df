// A search over configurations: what a worker does, and what is made of the trials. bp tune calls it.
//   DIR/study.sqlite    the trials (train/study.h)
//   DIR/trial-007/      the run of each
//   DIR/best.toml       the configuration of the best one
//   DIR/importance.svg  which keys mattered
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/study.h"

namespace bp::train {

struct TunePlan {
  std::string file, folder;
  std::vector<std::string> overrides;
  Config base;  // with its search
  std::string definition;
};

// Reads FILE.toml and checks the configurations of the first trials, so that a mistake in the space shows before
// anything runs. `folder` is runs/NAME-tune when empty. Throws Error(config): no [tune], no validation data, ...
TunePlan plan_search(const std::string& file, const std::vector<std::string>& overrides, const std::string& folder);
// The file's configuration with the values of a trial.
Config trial_config(const TunePlan& plan, std::int64_t number, const std::vector<std::string>& further = {});
Study open_study(const TunePlan& plan);  // makes the folder

struct TuneHooks {
  std::function<void(const Trial&)> on_begin = {}, on_end = {};
  std::function<void(const std::string&)> on_warning = {};
  std::function<bool()> interrupted = {};
};
// Does trials until none is left for this worker. False when it was interrupted; the trial it was at is then saved and
// gone on with by the next that works on this study. A trial that diverges or whose settings do not work is a result;
// an Error of kind io, format or state leaves its trial for later and is thrown.
bool work_on(const TunePlan& plan, const TuneHooks& hooks);

// From best to worst: finished ones by their metric, pruned ones by how far they came, those that go on, then diverged
// and failed ones.
std::vector<Trial> ranked(const TunePlan& plan, std::vector<Trial> trials);
// Writes best.toml (when a trial is finished) and importance.svg from ranked trials; returns the shares.
std::vector<double> conclude_search(const TunePlan& plan, const std::vector<Trial>& ranked);

}  // namespace bp::train

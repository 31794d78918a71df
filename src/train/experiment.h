// A run from a configuration to the files it leaves: training, evaluation, prediction. The program bp calls it.
//   RUN/config.toml             the effective configuration
//   RUN/model.safetensors       the model
//   RUN/checkpoints/            the whole state of training, to resume
//   RUN/history.csv, loss.svg   a row an epoch, and the curves
//   RUN/events/                 the same, the parameters' histograms and some images for TensorBoard
//   (train/event_log.h) RUN/run.json                what is on record of it; RUN/../runs.sqlite is the index of all
//   (train/runs.h)
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "train/config.h"

namespace bp::train {

// `wanted`, or `wanted`-2, -3, ... when that exists; made, with the folders above it. Throws Error(io).
std::string make_run_folder(const std::string& wanted);
// RUN/config.toml with overrides; Error(io) when RUN is not the folder of a run.
Config read_run(const std::string& run, const std::vector<std::string>& overrides = {});

struct Hooks {
  // Before the first step: the folder, samples, and what a step costs.
  std::function<void(const std::string& folder, const Config&, const Datasets&, const ExecutableInfo&)> on_begin = {};
  std::function<void(const Progress&)> on_step = {};
  std::function<void(const Epoch&)> on_epoch = {};
  // What went wrong without stopping the training: a record that cannot be written, a rollback.
  std::function<void(const std::string&)> on_warning = {};
  std::function<bool()> interrupted = {};
};
struct Report {
  std::string folder;
  Result result;
  std::optional<Metrics> test;  // of the model that was kept
};
// Trains a new run in a folder made from `wanted`; nothing is left behind when configuration or data are wrong.
Report train_run(Config config, const std::string& wanted, const Hooks& hooks);
// Goes on with the run in `folder`.
Report resume_run(Config config, const std::string& folder, const Hooks& hooks);

// The model of a run: model.safetensors, or that of its checkpoint while there is none.
nn::Sequential load_model(const Config& config, const std::string& run);
// Where a training step of this configuration spends its time: `runs` steps from the first values on the first batch.
// Nothing is written. Throws Error(value) for fewer than one run.
Profile profile_training(Config config, int runs);
// Trainer::find_rate on the configuration's training data, from the first values. Nothing is written.
RateSearch search_rate(Config config, const RateSearchOptions& options);
Metrics evaluate_run(Config& config, const std::string& run, Split split);
// What the model says of every row, as CSV: the class and a probability a class, a probability a binary label, or a
// value a column; the names of the rows, where they have some, come first. Batch by batch, so that neither inputs nor
// results need to fit into memory, but whole or not at all. Returns the number of rows.
std::int64_t write_predictions(const Config& config, const nn::Sequential& model, const Inputs& inputs,
                               const std::string& path);

}  // namespace bp::train

// What a Trainer is made of: compiled steps, the state of the run, averages, checkpoints. The loop is in trainer.cc,
// what is kept and gone back to in trainer_keep.cc, the steps in trainer_step.cc.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "bp/train.h"
#include "train/averages.h"
#include "train/checkpoints.h"
#include "train/metrics.h"
#include "train/run_state.h"

namespace bp::train {

// Every value that training changes, to go back to. Tensors are immutable: this shares memory until the next update.
struct Snapshot {
  std::vector<Tensor> values;
  Run run;
};

// A run that diverged, on its way to a rollback or to the user.
struct Divergence {
  std::string what, cause;
};

struct Trainer::Impl {
  using Step = detail::CompiledStep;
  using Clock = std::chrono::steady_clock;

  Forward forward;
  nn::detail::Walk walk;
  Loss loss;
  optim::Optimizer& optimizer;
  Options options;
  // (x, y, weight of the batch's gradient): an update; the same without one, which adds up gradients; evaluation (x,
  // y).
  Step train_step, gather_step, eval_step;
  std::vector<Variable> gathered;  // gradients added up so far; empty unless options.accumulate > 1
  std::optional<Averages> averages;
  bool averaged = false;  // the model holds the averages, the averages its weights
  std::optional<ReduceOnPlateau> plateau;
  Checkpoints checkpoints;
  double base_lr;
  Run run;
  bool going_on = false;  // the next fit() continues `run`
  std::optional<Snapshot> snapshot;
  Clock::time_point last_saved{};
  Clock::time_point began{};  // when `run.elapsed` was last brought up to date

  Impl(Forward f, nn::detail::Walk w, Loss l, optim::Optimizer& opt, Options o);

  // trainer_step.cc
  std::vector<Tensor> update_step(std::span<const Tensor> in);
  std::vector<Tensor> add_gradients(std::span<const Tensor> in);
  void set_rate();
  std::int64_t group_size(std::int64_t batch, std::int64_t batches) const;
  bool ends_group(std::int64_t batch, std::int64_t batches) const;
  std::optional<Divergence> train_batch(const data::Batch& batch, std::int64_t batches);
  std::string cause_of(Step& step, std::span<const Tensor> in);
  void refresh_statistics(data::DataLoader& loader);

  // trainer_keep.cc
  std::vector<nn::NamedVariable> everything() const;
  void save_model(const std::string& path) const;
  void save_checkpoint();
  void keep_if_due();
  void take_snapshot();
  // Goes back and lowers the rate; throws Error(diverged) when no rollback is left.
  void roll_back(const Divergence& why, data::DataLoader& loader);
  [[noreturn]] void diverged(const Divergence& why) const;
  std::string resume(const std::string& path);

  // trainer.cc
  void begin(data::DataLoader& loader, data::DataLoader* validation);
  void check_targets(const data::DataLoader& loader, const char* what);
  void check_watch(bool validated) const;
  std::optional<Stop> finished() const;
  std::optional<Stop> train_epoch(data::DataLoader& loader);
  std::optional<Stop> limit_reached();
  void count_time();
  void report(double seconds, double samples, std::int64_t batches) const;
  std::optional<Metrics> validate(data::DataLoader& loader);
  std::optional<Metrics> evaluate(data::DataLoader& loader, metrics::ConfusionMatrix* confusion, bool interruptible);
  std::optional<Divergence> not_finite_state() const;
  void close_epoch(const std::optional<Metrics>& validation);
  Result conclude(Stop stop, data::DataLoader& loader);
  bool asked_to_stop() const;
  void warn(const std::string& message) const;
  double signed_watch(const Metrics& m) const;
  void show_averages(bool on);
};

}  // namespace bp::train

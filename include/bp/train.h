// Training: epochs over a loader, metrics, validation, schedules, early stopping, checkpoints. The library draws and
// prints nothing: what happens is told through callbacks.
//
//   const data::ArrayDataset set(Array::zeros(f32, {64, 4}), Array::zeros(i64, {64}));
//   data::DataLoader loader(set, {.batch_size = 16});
//   nn::Linear model(4, 3);
//   nn::init(model, Key{42});
//   optim::Adam opt(model);
//   const train::Loss loss = [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); };
//   train::Trainer trainer(model, loss, opt, {.epochs = 3});
//   const train::Result r = trainer.fit(loader);
//   assert(r.history.size() == 3 && r.steps == 12);
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bp/array.h"
#include "bp/checkpoint.h"
#include "bp/compile.h"
#include "bp/data.h"
#include "bp/error.h"
#include "bp/metrics.h"
#include "bp/nn.h"
#include "bp/optim.h"
#include "bp/schedule.h"

namespace bp {

// The same memory, without a copy.
Tensor to_tensor(const Array& array);
// The same memory; computes the tensor first.
Array to_array(const Tensor& tensor);

namespace train {

// What the model's output is, which decides the metrics.
enum class Task {
  classification,  // logits or probabilities [.., C]; targets: class ids [..] or probabilities [.., C]
  binary,          // logits, one a label; targets 0 or 1 of the same shape
  regression       // values; targets of the same shape
};

// Exact over all samples seen, whatever the sizes of the batches. NaN where the task has no such metric. Those of
// training batches are loss, accuracy, mae, rmse and r2; evaluation makes them all (bp/metrics.h).
struct Metrics {
  std::int64_t samples = 0;      // over which the rest is computed
  double loss = metrics::kNone;  // mean over samples of their batch's loss
  // classification: share of argmax(output) == target; binary: of (output > 0) == (target > 0.5).
  double accuracy = metrics::kNone;
  double mae = metrics::kNone;    // regression: mean |y - t| over elements
  double rmse = metrics::kNone;   // sqrt of the mean of (y - t)^2
  double r2 = metrics::kNone;     // 1 - sum (y - t)^2 / sum (t - mean t)^2
  double top_k = metrics::kNone;  // classification, where Options::top_k asks: targets among the k best
  // classification: means over classes; binary: of the positive label.
  double precision = metrics::kNone, recall = metrics::kNone, f1 = metrics::kNone;
  double auc = metrics::kNone;         // binary: area under the ROC curve
  double perplexity = metrics::kNone;  // classification: exp(loss), meant for cross-entropy
};
// By name: "loss", "accuracy", ..., "perplexity". Throws Error(value) naming those there are.
double metric(const Metrics& metrics, std::string_view name);
// Whether larger values of it are better.
bool larger_is_better(std::string_view name);

// After a batch of training.
struct Progress {
  std::int64_t epoch = 0, epochs = 0;   // the one that runs, from 0 on, of how many
  std::int64_t batch = 0, batches = 0;  // done in this epoch, of how many
  std::int64_t step = 0;                // updates since the beginning of the run
  double lr = 0;                        // of the step just taken
  Metrics running;                      // of this epoch so far
  double samples_per_second = 0;        // of the last batches
  double seconds_left = 0;              // of the whole run, validation not counted
};

// After an epoch: a row of the history.
struct Epoch {
  std::int64_t epoch = 0;             // from 1 on
  double lr = 0;                      // at its last step
  Metrics train;                      // over the epoch's batches
  std::optional<Metrics> validation;  // unset without validation data
  double seconds = 0;                 // of training, without validation
  // Seconds of them that training waited for data; the rest it computed.
  double waited = 0;
};

// Why a run ended.
enum class Stop { epochs, early_stopping, converged, interrupted, max_steps, max_seconds, target };
const char* name_of(Stop stop) noexcept;  // "epochs", "early stopping", ...

// What fit() returns.
struct Result {
  Stop stop = Stop::epochs;    // why it ended
  std::vector<Epoch> history;  // with the epochs of the run that was resumed
  std::int64_t steps = 0;      // updates
  int rollbacks = 0;           // how often a run that diverged went back
};

// Something that follows a run, as a logger does. All members may stay as they are; they are called by the thread that
// trains. What a callback throws ends fit(); the last checkpoint stays.
class Callback {
 public:
  virtual ~Callback() = default;
  virtual void on_begin(const std::vector<Epoch>& /*history*/) {}  // of a resumed run: its epochs so far
  virtual void on_step(const Progress&) {}                         // after each update
  virtual void on_epoch(const Epoch&) {}                           // before the epoch's checkpoint
  virtual void on_checkpoint(const std::string& /*path*/) {}       // a checkpoint is on the disk
  virtual void on_warning(const std::string& /*message*/) {}       // what `bp train` prints as a warning
  virtual void on_end(const Result&) {}                            // the run is over, also on an interruption
  // Asked after each step: true stops as an interruption does, saving first.
  virtual bool wants_to_stop() { return false; }
  // What a resumed run must find again, kept in checkpoints under name(); empty: nothing.
  virtual std::string name() const { return {}; }
  virtual std::string state() const { return {}; }       // text of any kind
  virtual void restore(const std::string& /*state*/) {}  // what state() gave
};

// Where and when the whole state of training is kept: files FOLDER/step-NNNNNNNNN.safetensors, each written whole or
// not at all, with a checksum. The newest is only deleted once newer ones are safely on the disk. One that cannot be
// written is a warning, and the run goes on: the older ones stay.
struct CheckpointOptions {
  std::string folder = {};       // empty: nowhere
  std::int64_t every_steps = 0;  // besides after each epoch and on an interruption; 0: no
  double every_seconds = 300;    // the same, by the clock; 0: no
  int keep_last = 2;             // so many newest ones, 1 or more
  int keep_best = 0;             // and those of so many best epochs
};

// The newest checkpoint of a folder that is whole (its checksum is right); what is passed over on the way is told
// through `skipped`. Empty when there is none.
std::string newest_checkpoint(const std::string& folder,
                              const std::function<void(const std::string& reason)>& skipped = {});

// How a Trainer trains. Fields that are left alone do nothing.
struct Options {
  std::int64_t epochs = 10;          // the whole run, those before a resume included
  Task task = Task::classification;  // decides the metrics
  int threads = 0;                   // as CompileOptions
  DType precision = f32;             // of training steps, as CompileOptions; evaluation is in f32
  std::size_t memory_budget = 0;     // of training steps, as CompileOptions
  std::int64_t top_k = 0;            // of Metrics::top_k; 0: none

  // Batches whose gradients are averaged before an update: an update of `accumulate` batches of b rows is one of a
  // batch of accumulate * b rows (but for batch norm, which sees b), in the memory of b. The last update of an epoch
  // takes what is left.
  std::int64_t accumulate = 1;

  // The rate of an update (or of an epoch), counted from 0; empty: the optimizer's own. The optimizer's lr is set
  // before each update.
  Schedule schedule = {};
  bool schedule_by_epoch = false;  // count epochs instead of updates
  // Watches as `watch` says. Not together with a schedule.
  std::optional<ReduceOnPlateauOptions> reduce_on_plateau = {};

  // The metric that decides what is best, when to stop early and when to reduce the rate: of validation, or of training
  // without validation.
  std::string watch = "loss";
  // Stops when the watched metric has not become better by more than min_delta for `patience` epochs; 0: never.
  std::int64_t patience = 0;
  double min_delta = 0;  // what counts as better
  // Stops when the training loss changed by less than tolerance * |loss| from one epoch to the next; 0: never.
  double tolerance = 0;
  std::optional<double> target = {};  // stops at the end of an epoch whose watched metric is as good as this
  std::int64_t max_steps = 0;         // stops after so many updates, also within an epoch; 0: never
  double max_seconds = 0;             // stops after so many seconds of training and validation, all resumes together

  // The model after fit() is an average of the weights that training goes through; it continues from its own.
  // Exponential, which validation and best_model see too: a += (1 - d) (w - a) after each update t = 1, 2, ..., where
  // d = min(ema, (1 + t) / (10 + t)); 0: none. Polyak and Juditsky 1992.
  double ema = 0;
  // Stochastic weight averaging: the mean over the weights after each epoch from this one on (counted from 1), with
  // running statistics taken anew at the end, in two or more passes over training data; 0: none. Validation and
  // best_model see the weights themselves. Izmailov et al., UAI 2018. Not together with ema.
  std::int64_t swa_from = 0;

  // Also stops at a gradient that is NaN or infinite under a finite loss (as sqrt(0) gives), before it reaches the
  // parameters, and names the operation. Costs a pass over the gradients.
  bool check_gradients = false;
  // Diverged is a loss (of a batch) above this, too, beside one that is NaN or infinite (of the validation as well).
  double max_loss = std::numeric_limits<double>::infinity();
  // How often a run that diverged goes back to where it was last kept (in memory: at the begin, after each epoch and
  // each checkpoint.every_steps), and on with rollback_factor times the rate, instead of stopping. Checkpoints then are
  // not written by the clock, so that a resumed run goes back to the same places.
  int rollbacks = 0;
  double rollback_factor = 0.5;  // in (0, 1)

  CheckpointOptions checkpoint = {};  // none unless a folder is given
  // The parameters of the epoch with the best watched metric; empty: nowhere.
  std::string best_model = {};
  Metadata metadata = {};  // goes into all these files

  std::function<void(const Progress&)> on_step = {};        // after each update
  std::function<void(const Epoch&)> on_epoch = {};          // before the epoch's checkpoint
  std::function<void(const std::string&)> on_warning = {};  // something is odd, but the run goes on
  std::function<bool()> interrupted = {};                   // asked after each update: true stops, saving first
  std::vector<std::shared_ptr<Callback>> callbacks = {};    // told of everything, in order
};

// A range test: the rate grows from step to step by the same factor, and the loss tells which ones work. Smith,
// "Cyclical learning rates for training neural networks", WACV 2017.
struct RateSearchOptions {
  double low = 1e-7, high = 10;  // rates at the ends
  std::int64_t steps = 100;      // at most
  double smoothing = 0.9;        // of the losses: an exponential mean, without bias towards its start
  double stop_factor = 4;        // stops where the smoothed loss exceeds so many times its least
};
// What find_rate() saw.
struct RateSearch {
  std::vector<double> rates, losses;  // of the steps taken; losses smoothed
  double suggestion = 0;              // where the loss falls fastest; 0 when it never fell
};

using Forward = std::function<Tensor(const Tensor&)>;                            // a model: x to outputs
using Loss = std::function<Tensor(const Tensor& output, const Tensor& target)>;  // the mean over the batch

// Trains a model with a loss and an optimizer.
class Trainer {
 public:
  // Keep model and optimizer alive and in place. Throws Error(value) for options out of their range.
  template <nn::Module M>
  Trainer(M& model, Loss loss, optim::Optimizer& optimizer, Options options = {})
      : Trainer([&model](const Tensor& x) { return model(x); }, nn::detail::walk_of(model), std::move(loss), optimizer,
                std::move(options)) {}
  Trainer(Trainer&&) noexcept;
  ~Trainer();

  // Trains from the parameters as they are; after resume() or an interruption it goes on with that run instead.
  // A loss (or, at the end of an epoch, a parameter) that is NaN or infinite stops with Error(diverged), unless
  // Options::rollbacks are left: the message
  // names the first operation and layer that made it; after such a loss model and optimizer are as they were before
  // the step, and the checkpoint is that of the last good epoch. Labels of an ArrayDataset are checked before the first
  // step: Error(value) names the row.
  Result fit(data::DataLoader& loader, data::DataLoader* validation = nullptr);

  // Metrics of the model in evaluation mode, over the loader's first epoch, whatever it handed out before. Give it a
  // loader that does not drop the last batch.
  Metrics evaluate(data::DataLoader& loader);
  // The same, also counting which class was taken for which; Error(value) unless the task is classification.
  Metrics evaluate(data::DataLoader& loader, metrics::ConfusionMatrix& confusion);

  // Goes on where the checkpoint was written, also in the middle of an epoch: model, optimizer, averages, schedule,
  // counters and, at the next fit(), the loader's place. `path` is a file, or a folder, whose newest_checkpoint() is
  // taken. The run ends bit for bit as one that was never stopped (same binary, thread count and instruction set).
  // Returns the file. Throws Error(state) when it does not fit, Error(format) when it is damaged or not the checkpoint
  // of a Trainer, Error(io) when the folder has none.
  std::string resume(const std::string& path);

  // The epochs of the run so far.
  const std::vector<Epoch>& history() const noexcept;

  // What a training step costs, for these shapes; compiles it.
  ExecutableInfo step_info(const Type& x, const Type& y);

  // Trains for some batches at growing rates and puts everything back as it was: model, optimizer, averages, the
  // loader's place. Throws Error(value) for options out of their range.
  RateSearch find_rate(data::DataLoader& loader, const RateSearchOptions& options = {});

  // The largest batch, at most `limit` rows, of which a training step takes at most `bytes` by its plan; nothing is
  // run. 0 when one row takes more. The first dimensions of the types do not count.
  std::int64_t largest_batch(const Type& x, const Type& y, std::size_t bytes, std::int64_t limit = 1 << 20);

  // Takes `runs` training steps on one batch, which move parameters and optimizer as training does, and tells where the
  // time went (bp/profile.h). Schedules, history and checkpoints are left alone.
  Profile profile(const Tensor& x, const Tensor& y, int runs);

 private:
  Trainer(Forward forward, nn::detail::Walk walk, Loss loss, optim::Optimizer& optimizer, Options options);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace train
}  // namespace bp

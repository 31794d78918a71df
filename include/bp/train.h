// Training: epochs over a loader, metrics, validation, schedules, early stopping, checkpoints. The library draws and
// prints nothing: what happens is told through callbacks.
//
//   train::Trainer trainer(model, cross_entropy_loss, opt, {.epochs = 8, .task = train::Task::classification});
//   train::Result r = trainer.fit(train_loader, &test_loader);
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bp/array.h"
#include "bp/checkpoint.h"
#include "bp/compile.h"
#include "bp/data.h"
#include "bp/error.h"
#include "bp/nn.h"
#include "bp/optim.h"
#include "bp/schedule.h"

namespace bp {

// The same memory, without a copy.
Tensor to_tensor(const Array& array);
Array to_array(const Tensor& tensor);

namespace train {

// What the model's output is, which decides the metrics.
enum class Task {
  classification,  // logits or probabilities [.., C]; targets: class ids [..] or probabilities [.., C]
  binary,          // logits, one a label; targets 0 or 1 of the same shape
  regression       // values; targets of the same shape
};

// Exact over all samples seen, whatever the sizes of the batches. NaN where the task has no such metric.
struct Metrics {
  std::int64_t samples = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();  // mean over samples of their batch's loss
  // classification: share of argmax(output) == target; binary: of (output > 0) == (target > 0.5).
  double accuracy = std::numeric_limits<double>::quiet_NaN();
  double mae = std::numeric_limits<double>::quiet_NaN();   // regression: mean |y - t| over elements
  double rmse = std::numeric_limits<double>::quiet_NaN();  // sqrt of the mean of (y - t)^2
  double r2 = std::numeric_limits<double>::quiet_NaN();    // 1 - sum (y - t)^2 / sum (t - mean t)^2
};

// After a batch of training.
struct Progress {
  std::int64_t epoch = 0, epochs = 0;   // the one that runs, from 0 on, of how many
  std::int64_t batch = 0, batches = 0;  // done in this epoch, of how many
  std::int64_t step = 0;                // updates since the beginning of the run
  double lr = 0;
  Metrics running;  // of this epoch so far
  double samples_per_second = 0;
  double seconds_left = 0;  // of the whole run, validation not counted
};

// After an epoch: a row of the history.
struct Epoch {
  std::int64_t epoch = 0;  // from 1 on
  double lr = 0;           // at its last step
  Metrics train;
  std::optional<Metrics> validation;
  double seconds = 0;  // of training, without validation
};

enum class Stop { epochs, early_stopping, converged, interrupted };
const char* name_of(Stop stop) noexcept;  // "epochs", "early stopping", ...

struct Options {
  std::int64_t epochs = 10;
  Task task = Task::classification;
  int threads = 0;                // as CompileOptions
  DType precision = f32;          // of training steps, as CompileOptions; evaluation is in f32
  std::size_t memory_budget = 0;  // of training steps, as CompileOptions
  // The rate of a step (or of an epoch), counted from 0; empty: the optimizer's own. The optimizer's lr is set before
  // each step.
  Schedule schedule = {};
  bool schedule_by_epoch = false;
  // Watches the validation loss (the training loss without validation). Not together with a schedule.
  std::optional<ReduceOnPlateauOptions> reduce_on_plateau = {};
  // Stops when the watched loss has not fallen by more than min_delta for `patience` epochs; 0: never.
  std::int64_t patience = 0;
  double min_delta = 0;
  // Stops when the training loss changed by less than tolerance * |loss| from one epoch to the next; 0: never.
  double tolerance = 0;
  // Also stops at a gradient that is NaN or infinite under a finite loss (as sqrt(0) gives), before it reaches the
  // parameters, and names the operation. Costs a pass over the gradients.
  bool check_gradients = false;
  // Where to keep the whole state of training after each epoch and on an interruption; empty: nowhere.
  std::string checkpoint = {};
  // The parameters of the epoch with the best validation (training) loss; empty: nowhere.
  std::string best_model = {};
  Metadata metadata = {};  // goes into both files
  std::function<void(const Progress&)> on_step = {};
  std::function<void(const Epoch&)> on_epoch = {};  // after the checkpoint was written
  std::function<bool()> interrupted = {};           // asked after each step: true stops, saving first
};

struct Result {
  Stop stop = Stop::epochs;
  std::vector<Epoch> history;  // with the epochs of the run that was resumed
  std::int64_t steps = 0;
};

using Forward = std::function<Tensor(const Tensor&)>;
using Loss = std::function<Tensor(const Tensor& output, const Tensor& target)>;  // the mean over the batch

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
  // A loss (or, at the end of an epoch, a parameter) that is NaN or infinite stops with Error(diverged): the message
  // names the first operation and layer that made it; after such a loss model and optimizer are as they were before
  // the step, and the checkpoint is that of the last good epoch. Labels of an ArrayDataset are checked before the first
  // step: Error(value) names the row.
  Result fit(data::DataLoader& loader, data::DataLoader* validation = nullptr);

  // Metrics of the model in evaluation mode, over the loader's first epoch, whatever it handed out before. Give it a
  // loader that does not drop the last batch.
  Metrics evaluate(data::DataLoader& loader);

  // Goes on where the checkpoint was written, also in the middle of an epoch: model, optimizer, schedule, counters and,
  // at the next fit(), the loader's place. The run ends bit for bit as one that was never stopped (same binary, thread
  // count and instruction set). Throws Error(state) when the file does not fit, Error(format) when it is not the
  // checkpoint of a Trainer.
  void resume(const std::string& checkpoint);

  // The epochs of the run so far.
  const std::vector<Epoch>& history() const noexcept;

  // What a training step costs, for these shapes; compiles it.
  ExecutableInfo step_info(const Type& x, const Type& y);

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

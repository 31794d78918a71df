// Trainer: the loop over epochs and batches around one compiled step.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "bp/io.h"
#include "bp/ops.h"
#include "bp/train.h"
#include "train/metrics.h"
#include "train/run_state.h"

namespace bp::train {

namespace {

using Step = detail::CompiledStep;
constexpr const char* kRunKey = "train.run";
constexpr const char* kThreadsKey = "train.threads";

void require(bool ok, const char* what, const char* expected, double got) {
  if (!ok) fail(ErrorKind::value, "[train] {}: expected {}, got {}", what, expected, got);
}

void check(const Options& o) {
  require(o.epochs >= 1, "epochs", "1 or more", static_cast<double>(o.epochs));
  require(o.threads >= 0, "threads", "0 (all) or more", o.threads);
  require(o.patience >= 0, "patience", "0 (off) or more", static_cast<double>(o.patience));
  require(o.min_delta >= 0 && std::isfinite(o.min_delta), "min_delta", "0 or more", o.min_delta);
  require(o.tolerance >= 0 && std::isfinite(o.tolerance), "tolerance", "0 (off) or more", o.tolerance);
  if (o.schedule && o.reduce_on_plateau)
    fail(ErrorKind::value, "[train] schedule and reduce_on_plateau both set the learning rate: give one of them");
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The first state Variable that holds a NaN or an infinity: "conv1.weight holds nan at element 17"; empty when none.
std::string not_finite(const std::vector<nn::NamedVariable>& state) {
  for (const nn::NamedVariable& v : state) {
    if (!is_float(v.variable.dtype())) continue;
    const Buffer buffer = v.variable.get().buffer();
    std::string found;
    dispatch(v.variable.dtype(), [&](auto zero) {
      const auto* p = buffer.as<decltype(zero)>();
      for (std::int64_t i = 0, n = v.variable.shape().numel(); i < n && found.empty(); ++i)
        if (const auto x = static_cast<double>(p[i]); !std::isfinite(x))
          found = fmt::format("{} holds {} at element {}", v.name, x, i);
    });
    if (!found.empty()) return found;
  }
  return {};
}

// `loss`, or NaN when a gradient is not finite: then the step's guard keeps every Variable as it is.
Tensor spoilt_by(const std::vector<Tensor>& gradients, const Tensor& loss) {
  const Scope scope("check_gradients");
  Tensor total = zeros(Shape{}, loss.dtype());
  for (const Tensor& g : gradients) total = total + cast(sum(g), loss.dtype());
  return select(isfinite(total), loss, full(Shape{}, std::numeric_limits<double>::quiet_NaN(), loss.dtype()));
}

}  // namespace

const char* name_of(Stop stop) noexcept {
  switch (stop) {
    case Stop::epochs: return "epochs";
    case Stop::early_stopping: return "early stopping";
    case Stop::converged: return "converged";
    case Stop::interrupted: return "interrupted";
  }
  return "";
}

struct Trainer::Impl {
  Forward forward;
  nn::detail::Walk walk;
  Loss loss;
  optim::Optimizer& optimizer;
  Options options;
  Step train_step, eval_step;
  std::optional<ReduceOnPlateau> plateau;
  double base_lr;
  Run run;
  bool going_on = false;  // the next fit() continues `run`

  Impl(Forward f, nn::detail::Walk w, Loss l, optim::Optimizer& opt, Options o)
      : forward(std::move(f)),
        walk(std::move(w)),
        loss(std::move(l)),
        optimizer(opt),
        options(std::move(o)),
        train_step([this](std::span<const Tensor> in) { return step(in[0], in[1], true); },
                   {.mode = Mode::train,
                    .threads = options.threads,
                    .name = "train step",
                    .guard = true,
                    .precision = options.precision,
                    .memory_budget = options.memory_budget}),
        eval_step([this](std::span<const Tensor> in) { return step(in[0], in[1], false); },
                  {.mode = Mode::eval, .threads = options.threads, .name = "evaluation step"}),
        base_lr(opt.lr.get().item()) {
    check(options);
    nn::detail::set_names(walk);
    if (options.reduce_on_plateau) plateau.emplace(base_lr, *options.reduce_on_plateau);
  }

  std::vector<Tensor> step(const Tensor& x, const Tensor& y, bool update) {
    const Tensor output = forward(x);
    Tensor value = loss(output, y);
    if (update) {
      const std::vector<Tensor> gradients = grad(value, optimizer.parameters());
      if (options.check_gradients) value = spoilt_by(gradients, value);
      optimizer.update(gradients);
    }
    return batch_results(options.task, value, output, y);
  }

  void begin(data::DataLoader& loader, data::DataLoader* validation);
  void check_targets(const data::DataLoader& loader, const char* what);
  std::optional<Stop> finished() const;
  bool train_epoch(data::DataLoader& loader);
  void train_batch(const data::Batch& batch, std::int64_t batches);
  void report(double seconds, double samples, std::int64_t batches) const;
  void set_rate();
  void close_epoch(const std::optional<Metrics>& validation);
  std::string cause_of(std::span<const Tensor> in);
  [[noreturn]] void diverged(const std::string& what, const std::string& cause);
  std::optional<Metrics> evaluate(data::DataLoader& loader, bool interruptible);
  bool asked_to_stop() const { return options.interrupted && options.interrupted(); }
  void save(const std::string& path, bool everything) const;
  Result result(Stop stop) const { return {stop, run.history, run.step}; }
};

// Class ids against the width of the model's output, as far as the source knows them before the first step.
void Trainer::Impl::check_targets(const data::DataLoader& loader, const char* what) {
  const data::Source& source = loader.source();
  const std::int64_t first = 0;
  const data::Batch one = source.fetch({&first, 1}, Key{});
  if (!one.y.buffer) fail(ErrorKind::value, "[train] {}: the data have no targets", what);
  if (options.task != Task::classification || is_float(one.y.dtype)) return;
  const ModeScope eval(Mode::eval);
  const Shape out = forward(zeros(one.x.shape, one.x.dtype)).shape();  // records only
  if (out.rank() < 2) fail(ErrorKind::shape, "[train] classification needs an output [N, classes], got {}", out);
  source.check_targets(out.back(), what);
}

void Trainer::Impl::begin(data::DataLoader& loader, data::DataLoader* validation) {
  check_targets(loader, "training labels");
  if (validation != nullptr) check_targets(*validation, "validation labels");
  const std::int64_t rows = loader.source().size(), batch_size = loader.options().batch_size;
  if (going_on) {
    if (run.batch != 0 && (run.rows != rows || run.batch_size != batch_size))
      fail(
          ErrorKind::state,
          "[train] the run stopped in the middle of an epoch of {} rows in batches of {}; it cannot go on with {} rows "
          "in batches of {}",
          run.rows, run.batch_size, rows, batch_size);
    loader.restore(run.loader);
  } else {
    run = Run{};
    if (options.reduce_on_plateau) plateau.emplace(base_lr, *options.reduce_on_plateau);
    if (const data::LoaderState at = loader.state(); at.batch != 0) loader.restore({at.epoch + 1, 0});
    run.loader = loader.state();
  }
  going_on = false;
  run.rows = rows;
  run.batch_size = batch_size;
}

std::optional<Stop> Trainer::Impl::finished() const {
  if (run.batch != 0) return std::nullopt;
  if (options.patience > 0 && run.bad_epochs >= options.patience) return Stop::early_stopping;
  if (const std::size_t n = run.history.size(); options.tolerance > 0 && n >= 2) {
    const double now = run.history[n - 1].train.loss, before = run.history[n - 2].train.loss;
    if (std::abs(now - before) < options.tolerance * std::abs(before)) return Stop::converged;
  }
  if (run.epoch >= options.epochs) return Stop::epochs;
  return std::nullopt;
}

void Trainer::Impl::set_rate() {
  double rate = run.lr;
  if (options.schedule) {
    rate = options.schedule(options.schedule_by_epoch ? run.epoch : run.step);
  } else if (plateau) {
    rate = plateau->rate();
  } else {
    run.lr = optimizer.lr.get().item();
    return;
  }
  if (rate != run.lr || run.step == 0) optimizer.set_lr(rate);
  run.lr = rate;
}

void Trainer::Impl::diverged(const std::string& what, const std::string& cause) {
  std::string kept = run.epoch > 0 && !options.checkpoint.empty()
                         ? fmt::format(" The last good checkpoint is {} (epoch {}).", options.checkpoint, run.epoch)
                         : std::string();
  fail(ErrorKind::diverged,
       "[train] {} at step {} (epoch {}, batch {}).\n  {}\n  Remedies: a smaller learning rate (now {}), clip_norm, "
       "warm-up, scaled inputs.{}",
       what, run.step, run.epoch + 1, run.batch, cause, run.lr, kept);
}

std::string Trainer::Impl::cause_of(std::span<const Tensor> in) {
  std::string found = train_step.diagnose(in);
  if (found.empty()) return "The reference kernels find finite values only: an overflow of the fast ones.";
  if (!not_finite(nn::detail::state(walk)).empty())
    found +=
        "\n  A gradient of an earlier step was not finite while its loss was. The same run with check_gradients stops "
        "there and names the operation.";
  return found;
}

void Trainer::Impl::train_batch(const data::Batch& batch, std::int64_t batches) {
  if (!batch.y.buffer) fail(ErrorKind::value, "[train] the data have no targets");
  const std::array<Tensor, 2> in{to_tensor(batch.x), to_tensor(batch.y)};
  set_rate();
  const std::vector<Tensor> results = train_step.call(in);
  if (const double value = results[0].item(); !std::isfinite(value)) {
    diverged(fmt::format("the loss{} became {}", options.check_gradients ? " or a gradient" : "", value), cause_of(in));
  }
  accumulate(run.sums, options.task, results, batch.y);
  run.batch = std::min(run.batch + 1, batches);
  ++run.step;
}

void Trainer::Impl::report(double seconds, double samples, std::int64_t batches) const {
  if (!options.on_step) return;
  Progress p{.epoch = run.epoch,
             .epochs = options.epochs,
             .batch = run.batch,
             .batches = batches,
             .step = run.step,
             .lr = run.lr,
             .running = metrics_of(run.sums, options.task)};
  p.samples_per_second = seconds > 0 ? samples / seconds : 0;
  const double per_batch = run.sums.samples / static_cast<double>(std::max<std::int64_t>(1, run.batch));
  const auto left = static_cast<double>((options.epochs - run.epoch) * batches - run.batch);
  p.seconds_left = samples > 0 ? left * per_batch * seconds / samples : 0;
  options.on_step(p);
}

// False when it was interrupted: then everything is saved.
bool Trainer::Impl::train_epoch(data::DataLoader& loader) {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  const double before = run.seconds, samples_before = run.sums.samples;
  while (const std::optional<data::Batch> batch = loader.next()) {
    train_batch(*batch, loader.batches());
    run.loader = loader.state();
    const double seconds = seconds_since(start);
    run.seconds = before + seconds;
    report(seconds, run.sums.samples - samples_before, loader.batches());
    if (asked_to_stop()) return false;
  }
  return true;
}

void Trainer::Impl::save(const std::string& path, bool everything) const {
  if (path.empty()) return;
  Metadata metadata = options.metadata;
  if (everything) {
    metadata[kRunKey] = encode(run);
    metadata[kThreadsKey] = std::to_string(options.threads);
  }
  detail::save_state(path, nn::detail::state(walk), everything ? &optimizer : nullptr, std::move(metadata),
                     WeightLayout::channels_last);
}

void Trainer::Impl::close_epoch(const std::optional<Metrics>& validation) {
  if (std::string found = not_finite(nn::detail::state(walk)); !found.empty())
    diverged("a parameter is no longer finite", found + "; check_gradients stops where it begins");
  if (std::string found = not_finite(optimizer.state()); !found.empty())
    diverged("a moment of the optimizer is no longer finite", found);
  Epoch epoch{.epoch = run.epoch + 1,
              .lr = run.lr,
              .train = metrics_of(run.sums, options.task),
              .validation = validation,
              .seconds = run.seconds};
  const double watched = validation ? validation->loss : epoch.train.loss;
  const bool better = watched < run.best - options.min_delta;
  if (better) run.best = watched;
  run.bad_epochs = better ? 0 : run.bad_epochs + 1;
  if (plateau) {
    (*plateau)(watched);
    run.plateau = plateau->state();
  }
  run.history.push_back(epoch);
  ++run.epoch;
  run.batch = 0;
  run.loader = {run.loader.epoch + 1, 0};
  run.sums = Sums{};
  run.seconds = 0;
  if (better) save(options.best_model, false);
  save(options.checkpoint, true);
  if (options.on_epoch) options.on_epoch(epoch);
}

std::optional<Metrics> Trainer::Impl::evaluate(data::DataLoader& loader, bool interruptible) {
  if (loader.state() != data::LoaderState{}) loader.restore({});
  Sums sums;
  while (const std::optional<data::Batch> batch = loader.next()) {
    if (!batch->y.buffer) fail(ErrorKind::value, "[evaluate] the data have no targets");
    const std::array<Tensor, 2> in{to_tensor(batch->x), to_tensor(batch->y)};
    accumulate(sums, options.task, eval_step.call(in), batch->y);
    if (interruptible && asked_to_stop()) return std::nullopt;
  }
  return metrics_of(sums, options.task);
}

Trainer::Trainer(Forward forward, nn::detail::Walk walk, Loss loss, optim::Optimizer& optimizer, Options options)
    : impl_(std::make_unique<Impl>(std::move(forward), std::move(walk), std::move(loss), optimizer,
                                   std::move(options))) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

Result Trainer::fit(data::DataLoader& loader, data::DataLoader* validation) {
  Impl& t = *impl_;
  t.begin(loader, validation);
  const auto interrupted = [&t] {
    t.going_on = true;
    t.save(t.options.checkpoint, true);
    return t.result(Stop::interrupted);
  };
  while (true) {
    if (const std::optional<Stop> stop = t.finished()) return t.result(*stop);
    if (!t.train_epoch(loader)) return interrupted();
    std::optional<Metrics> metrics;
    if (validation != nullptr) {
      metrics = t.evaluate(*validation, true);
      if (!metrics) return interrupted();
    }
    t.close_epoch(metrics);
  }
}

Metrics Trainer::evaluate(data::DataLoader& loader) {
  impl_->check_targets(loader, "labels");
  return *impl_->evaluate(loader, false);
}

void Trainer::resume(const std::string& checkpoint) {
  Impl& t = *impl_;
  const io::SafeTensors file = io::read_safetensors(checkpoint);
  const auto found = file.metadata.find(kRunKey);
  if (found == file.metadata.end())
    fail(ErrorKind::format, "{}: holds no state of a run: expected the checkpoint of a Trainer", checkpoint);
  Run run = decode(found->second, checkpoint);
  if (t.options.reduce_on_plateau) {
    ReduceOnPlateau restored(t.base_lr, *t.options.reduce_on_plateau);
    if (!run.plateau.empty()) restored.restore(run.plateau);
    t.plateau = restored;
  }
  detail::load_state(checkpoint, nn::detail::state(t.walk), &t.optimizer, {});
  t.run = std::move(run);
  t.going_on = true;
}

const std::vector<Epoch>& Trainer::history() const noexcept { return impl_->run.history; }

ExecutableInfo Trainer::step_info(const Type& x, const Type& y) {
  const std::array<Type, 2> types{x, y};
  return impl_->train_step.prepare(types);
}

Profile Trainer::profile(const Tensor& x, const Tensor& y, int runs) {
  const std::array<Tensor, 2> in{x, y};
  impl_->train_step.call(in);  // the first touch of its memory is no part of a step
  return impl_->train_step.profile(in, runs);
}

}  // namespace bp::train

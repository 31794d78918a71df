// Trainer: the loop over epochs and batches.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"
#include "train/trainer_impl.h"

namespace bp::train {

namespace {

void require(bool ok, const char* what, const char* expected, double got) {
  if (!ok) fail(ErrorKind::value, "[train] {}: expected {}, got {}", what, expected, got);
}

void check_limits(const Options& o) {
  require(o.max_steps >= 0, "max_steps", "0 (off) or more", static_cast<double>(o.max_steps));
  require(o.max_seconds >= 0, "max_seconds", "0 (off) or more", o.max_seconds);
  require(o.max_loss > 0, "max_loss", "a positive number", o.max_loss);
  require(o.rollbacks >= 0, "rollbacks", "0 (off) or more", o.rollbacks);
  require(o.rollback_factor > 0 && o.rollback_factor <= 1, "rollback_factor", "above 0, at most 1", o.rollback_factor);
  const CheckpointOptions& c = o.checkpoint;
  require(c.every_steps >= 0, "checkpoint.every_steps", "0 (off) or more", static_cast<double>(c.every_steps));
  require(c.every_seconds >= 0, "checkpoint.every_seconds", "0 (off) or more", c.every_seconds);
  require(c.keep_last >= 1, "checkpoint.keep_last", "1 or more", c.keep_last);
  require(c.keep_best >= 0, "checkpoint.keep_best", "0 or more", c.keep_best);
}

void check(const Options& o) {
  require(o.epochs >= 1, "epochs", "1 or more", static_cast<double>(o.epochs));
  require(o.threads >= 0, "threads", "0 (all) or more", o.threads);
  require(o.top_k >= 0, "top_k", "0 (none) or more", static_cast<double>(o.top_k));
  require(o.accumulate >= 1, "accumulate", "1 or more", static_cast<double>(o.accumulate));
  require(o.patience >= 0, "patience", "0 (off) or more", static_cast<double>(o.patience));
  require(o.min_delta >= 0 && std::isfinite(o.min_delta), "min_delta", "0 or more", o.min_delta);
  require(o.tolerance >= 0 && std::isfinite(o.tolerance), "tolerance", "0 (off) or more", o.tolerance);
  require(o.ema >= 0 && o.ema < 1, "ema", "0 (none) or more, below 1", o.ema);
  require(o.swa_from >= 0, "swa_from", "0 (none) or more", static_cast<double>(o.swa_from));
  check_limits(o);
  larger_is_better(o.watch);  // knows its name
  if (o.schedule && o.reduce_on_plateau)
    fail(ErrorKind::value, "[train] schedule and reduce_on_plateau both set the learning rate: give one of them");
  if (o.ema > 0 && o.swa_from > 0) fail(ErrorKind::value, "[train] ema and swa_from both average: give one of them");
  if (o.swa_from > 0 && !o.best_model.empty())
    fail(ErrorKind::value, "[train] best_model is of one epoch, swa_from averages over epochs: give one of them");
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

}  // namespace

const char* name_of(Stop stop) noexcept {
  switch (stop) {
    case Stop::epochs: return "epochs";
    case Stop::early_stopping: return "early stopping";
    case Stop::converged: return "converged";
    case Stop::interrupted: return "interrupted";
    case Stop::max_steps: return "limit of steps";
    case Stop::max_seconds: return "limit of time";
    case Stop::target: return "target reached";
  }
  return "";
}

Trainer::Impl::Impl(Forward f, nn::detail::Walk w, Loss l, optim::Optimizer& opt, Options o)
    : forward(std::move(f)),
      walk(std::move(w)),
      loss(std::move(l)),
      optimizer(opt),
      options(std::move(o)),
      train_step([this](std::span<const Tensor> in) { return update_step(in); },
                 {.mode = Mode::train,
                  .threads = options.threads,
                  .name = "train step",
                  .guard = true,
                  .precision = options.precision,
                  .memory_budget = options.memory_budget}),
      gather_step([this](std::span<const Tensor> in) { return add_gradients(in); },
                  {.mode = Mode::train,
                   .threads = options.threads,
                   .name = "gradient step",
                   .guard = true,
                   .precision = options.precision,
                   .memory_budget = options.memory_budget}),
      eval_step(
          [this](std::span<const Tensor> in) {
            const Tensor output = forward(in[0]);
            return std::vector<Tensor>{loss(output, in[1]), output};
          },
          {.mode = Mode::eval, .threads = options.threads, .name = "evaluation step"}),
      checkpoints(options.checkpoint),
      base_lr(opt.lr.get().item()) {
  check(options);
  nn::detail::set_names(walk);
  if (options.reduce_on_plateau) {
    options.reduce_on_plateau->maximize = larger_is_better(options.watch);
    plateau.emplace(base_lr, *options.reduce_on_plateau);
  }
  if (options.accumulate > 1)
    for (const Variable& p : optimizer.parameters()) {
      const DType dtype = p.dtype() == bf16 ? f32 : p.dtype();
      gathered.emplace_back(zeros(p.shape(), dtype), false);
    }
  if (options.ema > 0 || options.swa_from > 0)
    averages.emplace(floats_of(walk, options.ema > 0 ? Floats::all : Floats::parameters));
}

// ---- before the first step -----------------------------------------------------------------------------------------

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

void Trainer::Impl::check_watch(bool validated) const {
  const std::vector<std::string> names = metric_names(options.task, validated);
  const bool there = std::find(names.begin(), names.end(), options.watch) != names.end();
  if (there && (options.watch != "top_k" || options.top_k > 0)) return;
  std::string known;
  for (const std::string& n : names) known += (known.empty() ? "" : ", ") + n;
  fail(ErrorKind::value, "[train] watch: \"{}\" is not known {}: expected one of {}", options.watch,
       validated ? "of this task" : "without validation", known);
}

void Trainer::Impl::begin(data::DataLoader& loader, data::DataLoader* validation) {
  show_averages(false);
  check_watch(validation != nullptr);
  check_targets(loader, "training labels");
  if (validation != nullptr) check_targets(*validation, "validation labels");
  const std::int64_t rows = loader.source().size(), batch_size = loader.options().batch_size;
  if (checkpoints.on()) checkpoints.open(going_on ? std::optional(run.step) : std::nullopt);
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
    if (averages) averages->reset();
    if (options.reduce_on_plateau) plateau.emplace(base_lr, *options.reduce_on_plateau);
    if (const data::LoaderState at = loader.state(); at.batch != 0) loader.restore({at.epoch + 1, 0});
    run.loader = loader.state();
  }
  going_on = false;
  run.rows = rows;
  run.batch_size = batch_size;
  began = last_saved = Clock::now();
  take_snapshot();
  for (const auto& c : options.callbacks) c->on_begin(run.history);
}

// ---- when to stop --------------------------------------------------------------------------------------------------

std::optional<Stop> Trainer::Impl::finished() const {
  if (run.batch != 0) return std::nullopt;
  if (options.patience > 0 && run.bad_epochs >= options.patience) return Stop::early_stopping;
  if (const std::size_t n = run.history.size(); options.tolerance > 0 && n >= 2) {
    const double now = run.history[n - 1].train.loss, before = run.history[n - 2].train.loss;
    if (std::abs(now - before) < options.tolerance * std::abs(before)) return Stop::converged;
  }
  if (options.target && !run.history.empty()) {
    const Epoch& last = run.history.back();
    const double goal = larger_is_better(options.watch) ? -*options.target : *options.target;
    if (signed_watch(last.validation ? *last.validation : last.train) <= goal) return Stop::target;
  }
  if (run.epoch >= options.epochs) return Stop::epochs;
  return std::nullopt;
}

std::optional<Stop> Trainer::Impl::limit_reached() {
  if (asked_to_stop()) return Stop::interrupted;
  if (options.max_steps > 0 && run.step >= options.max_steps) return Stop::max_steps;
  if (options.max_seconds > 0 && run.elapsed >= options.max_seconds) return Stop::max_seconds;
  return std::nullopt;
}

bool Trainer::Impl::asked_to_stop() const {
  bool stop = options.interrupted && options.interrupted();
  for (const auto& c : options.callbacks) stop = c->wants_to_stop() || stop;
  return stop;
}

double Trainer::Impl::signed_watch(const Metrics& m) const {
  const double value = metric(m, options.watch);
  return larger_is_better(options.watch) ? -value : value;
}

void Trainer::Impl::count_time() {
  const Clock::time_point now = Clock::now();
  run.elapsed += std::chrono::duration<double>(now - began).count();
  began = now;
}

// ---- an epoch ------------------------------------------------------------------------------------------------------

void Trainer::Impl::warn(const std::string& message) const {
  if (options.on_warning) options.on_warning(message);
  for (const auto& c : options.callbacks) c->on_warning(message);
}

void Trainer::Impl::report(double seconds, double samples, std::int64_t batches) const {
  if (!options.on_step && options.callbacks.empty()) return;
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
  if (options.on_step) options.on_step(p);
  for (const auto& c : options.callbacks) c->on_step(p);
}

// None at the end of the epoch; otherwise why it stopped within.
std::optional<Stop> Trainer::Impl::train_epoch(data::DataLoader& loader) {
  Clock::time_point start = Clock::now();
  double before = run.seconds, samples_before = run.sums.samples;
  double waited = run.waited - loader.stats().waited;
  while (const std::optional<data::Batch> batch = loader.next()) {
    const std::int64_t place = run.batch;
    if (const std::optional<Divergence> why = train_batch(*batch, loader.batches())) {
      roll_back(*why, loader);
      start = Clock::now();
      before = run.seconds;
      samples_before = run.sums.samples;
      waited = run.waited - loader.stats().waited;
      continue;
    }
    run.loader = loader.state();
    const double seconds = seconds_since(start);
    run.seconds = before + seconds;
    run.waited = waited + loader.stats().waited;
    count_time();
    report(seconds, run.sums.samples - samples_before, loader.batches());
    if (!ends_group(place, loader.batches())) continue;
    if (const std::optional<Stop> stop = limit_reached()) return stop;
    if (run.batch != loader.batches()) keep_if_due();  // the end of the epoch is kept with its metrics
  }
  return std::nullopt;
}

std::optional<Divergence> Trainer::Impl::not_finite_state() const {
  if (std::string found = not_finite(nn::detail::state(walk)); !found.empty())
    return Divergence{"a parameter is no longer finite", found + "; check_gradients stops where it begins"};
  if (std::string found = not_finite(optimizer.state()); !found.empty())
    return Divergence{"a moment of the optimizer is no longer finite", found};
  return std::nullopt;
}

void Trainer::Impl::close_epoch(const std::optional<Metrics>& validation) {
  if (options.swa_from > 0 && run.epoch + 1 >= options.swa_from) averages->add(++run.averaged);
  const Epoch epoch{.epoch = run.epoch + 1,
                    .lr = run.lr,
                    .train = metrics_of(run.sums, options.task),
                    .validation = validation,
                    .seconds = run.seconds,
                    .waited = run.waited};
  const Metrics& watched_in = validation ? *validation : epoch.train;
  const double watched = signed_watch(watched_in);
  const bool better = watched < run.best - options.min_delta;
  if (better) run.best = watched;
  run.bad_epochs = better ? 0 : run.bad_epochs + 1;
  if (plateau) {
    (*plateau)(metric(watched_in, options.watch));
    run.plateau = plateau->state();
  }
  checkpoints.rank(run.best_steps, run.step, watched);
  run.history.push_back(epoch);
  ++run.epoch;
  run.batch = 0;
  run.loader = {run.loader.epoch + 1, 0};
  run.sums = Sums{};
  run.seconds = run.waited = 0;
  if (better) {
    show_averages(options.ema > 0);
    save_model(options.best_model);
    show_averages(false);
  }
  if (options.on_epoch) options.on_epoch(epoch);
  for (const auto& c : options.callbacks) c->on_epoch(epoch);
  take_snapshot();
  save_checkpoint();
}

// ---- evaluation ----------------------------------------------------------------------------------------------------

void Trainer::Impl::show_averages(bool on) {
  if (!averages || averaged == on) return;
  averages->swap();
  averaged = on;
}

std::optional<Metrics> Trainer::Impl::evaluate(data::DataLoader& loader, metrics::ConfusionMatrix* confusion,
                                               bool interruptible) {
  if (loader.state() != data::LoaderState{}) loader.restore({});
  Evaluation evaluation(options.task, options.top_k, confusion);
  while (const std::optional<data::Batch> batch = loader.next()) {
    if (!batch->y.buffer) fail(ErrorKind::value, "[evaluate] the data have no targets");
    const std::array<Tensor, 2> in{to_tensor(batch->x), to_tensor(batch->y)};
    const std::vector<Tensor> results = eval_step.call(in);
    evaluation.add(results[0], results[1], batch->y);
    if (interruptible && asked_to_stop()) return std::nullopt;
  }
  return evaluation.value();
}

// The model holds its own weights again afterwards, whatever happens.
std::optional<Metrics> Trainer::Impl::validate(data::DataLoader& loader) {
  show_averages(options.ema > 0);
  struct Back {
    Impl& t;
    ~Back() { t.show_averages(false); }
  } const back{*this};
  std::optional<Metrics> metrics = evaluate(loader, nullptr, true);
  count_time();
  return metrics;
}

Result Trainer::Impl::conclude(Stop stop, data::DataLoader& loader) {
  // At the end of an epoch, but for interruptions in its validation, everything is kept already.
  if (run.batch != 0) save_checkpoint();
  going_on = stop == Stop::interrupted || stop == Stop::max_steps || stop == Stop::max_seconds;
  if (stop != Stop::interrupted && averages && (options.ema > 0 || run.averaged > 0)) {
    show_averages(true);
    if (options.swa_from > 0) refresh_statistics(loader);
  }
  Result result{stop, run.history, run.step, static_cast<int>(run.rollbacks)};
  for (const auto& c : options.callbacks) c->on_end(result);
  return result;
}

// ---- Trainer -------------------------------------------------------------------------------------------------------

Trainer::Trainer(Forward forward, nn::detail::Walk walk, Loss loss, optim::Optimizer& optimizer, Options options)
    : impl_(std::make_unique<Impl>(std::move(forward), std::move(walk), std::move(loss), optimizer,
                                   std::move(options))) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

Result Trainer::fit(data::DataLoader& loader, data::DataLoader* validation) {
  Impl& t = *impl_;
  t.begin(loader, validation);
  while (true) {
    if (const std::optional<Stop> stop = t.finished()) return t.conclude(*stop, loader);
    if (const std::optional<Stop> stop = t.train_epoch(loader)) return t.conclude(*stop, loader);
    if (const std::optional<Divergence> why = t.not_finite_state()) {
      t.roll_back(*why, loader);
      continue;
    }
    std::optional<Metrics> metrics;
    if (validation != nullptr) {
      metrics = t.validate(*validation);
      if (!metrics) return t.conclude(Stop::interrupted, loader);
      if (!std::isfinite(metrics->loss)) {
        t.roll_back({fmt::format("the validation loss became {}", metrics->loss),
                     "The parameters are finite: outputs overflow, or the validation data hold what is no number."},
                    loader);
        continue;
      }
    }
    t.close_epoch(metrics);
  }
}

Metrics Trainer::evaluate(data::DataLoader& loader) {
  impl_->check_targets(loader, "labels");
  return *impl_->evaluate(loader, nullptr, false);
}

Metrics Trainer::evaluate(data::DataLoader& loader, metrics::ConfusionMatrix& confusion) {
  if (impl_->options.task != Task::classification)
    fail(ErrorKind::value, "[evaluate] a confusion matrix belongs to classification");
  impl_->check_targets(loader, "labels");
  return *impl_->evaluate(loader, &confusion, false);
}

std::string Trainer::resume(const std::string& path) { return impl_->resume(path); }

const std::vector<Epoch>& Trainer::history() const noexcept { return impl_->run.history; }

ExecutableInfo Trainer::step_info(const Type& x, const Type& y) {
  std::vector<Type> types{x, y};
  if (!impl_->gathered.empty()) types.push_back({f64, Shape{}});
  return impl_->train_step.prepare(types);
}

Profile Trainer::profile(const Tensor& x, const Tensor& y, int runs) {
  std::vector<Tensor> in{x, y};
  if (!impl_->gathered.empty()) in.push_back(scalar(1.0, f64));
  impl_->train_step.call(in);  // the first touch of its memory is no part of a step
  return impl_->train_step.profile(in, runs);
}

}  // namespace bp::train

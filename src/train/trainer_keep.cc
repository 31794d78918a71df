// What a Trainer keeps on disk and in memory, and how it goes back to it.
#include <filesystem>

#include "base/error.h"
#include "bp/io.h"
#include "train/trainer_impl.h"

namespace bp::train {

namespace {
constexpr const char* kRunKey = "train.run";
constexpr const char* kThreadsKey = "train.threads";
constexpr const char* kCallbackKey = "train.callback.";
}  // namespace

// What training changes beside `run`: the model's state, sums of gradients never (nothing is kept within a group).
std::vector<nn::NamedVariable> Trainer::Impl::everything() const {
  std::vector<nn::NamedVariable> all = nn::detail::state(walk);
  if (averages)
    for (nn::NamedVariable& a : averages->state()) all.push_back(std::move(a));
  return all;
}

void Trainer::Impl::save_model(const std::string& path) const {
  if (path.empty()) return;
  detail::save_state(path, nn::detail::state(walk), nullptr, options.metadata, WeightLayout::channels_last);
}

void Trainer::Impl::save_checkpoint() {
  last_saved = Clock::now();
  if (!checkpoints.on()) return;
  Metadata metadata = options.metadata;
  metadata[kRunKey] = encode(run);
  metadata[kThreadsKey] = std::to_string(options.threads);
  for (const auto& c : options.callbacks)
    if (!c->name().empty()) metadata[kCallbackKey + c->name()] = c->state();
  const std::string path = checkpoints.path_of(run.step);
  try {
    detail::save_state(path, everything(), &optimizer, std::move(metadata), WeightLayout::channels_last);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::io) throw;
    warn(fmt::format("the checkpoint of step {} could not be written; the run goes on, older ones stay: {}", run.step,
                     e.what()));
    return;
  }
  for (const auto& c : options.callbacks) c->on_checkpoint(path);
  checkpoints.prune(run.step, run.best_steps);
}

void Trainer::Impl::keep_if_due() {
  const CheckpointOptions& o = options.checkpoint;
  const bool by_steps = o.every_steps > 0 && run.step % o.every_steps == 0;
  const bool by_clock = options.rollbacks == 0 && o.every_seconds > 0 && checkpoints.on() &&
                        std::chrono::duration<double>(Clock::now() - last_saved).count() >= o.every_seconds;
  if (by_steps) take_snapshot();
  if (by_steps || by_clock) save_checkpoint();
}

void Trainer::Impl::take_snapshot() {
  if (options.rollbacks == 0) return;
  snapshot.emplace();
  for (const nn::NamedVariable& v : everything()) snapshot->values.push_back(v.variable.get());
  for (const nn::NamedVariable& v : optimizer.state()) snapshot->values.push_back(v.variable.get());
  snapshot->run = run;
}

void Trainer::Impl::roll_back(const Divergence& why, data::DataLoader& loader) {
  if (run.rollbacks >= options.rollbacks) diverged(why);
  const std::int64_t step = run.step, rollbacks = run.rollbacks + 1;
  const double elapsed = run.elapsed;
  std::vector<Variable> variables;
  for (const nn::NamedVariable& v : everything()) variables.push_back(v.variable.alias());
  for (const nn::NamedVariable& v : optimizer.state()) variables.push_back(v.variable.alias());
  for (Variable& g : gathered) g.set(0.0);
  assign(variables, snapshot->values);
  run = snapshot->run;
  run.rollbacks = rollbacks;
  run.elapsed = elapsed;
  run.rate_scale *= options.rollback_factor;
  if (!options.schedule && !plateau) optimizer.set_lr(optimizer.lr.get().item() * options.rollback_factor);
  if (plateau && !run.plateau.empty()) plateau->restore(run.plateau);
  loader.restore(run.loader);
  take_snapshot();  // so that a second rollback lowers the rate further
  warn(fmt::format("{} at step {}: back to step {}, with {} times the rate ({} of {} rollbacks)", why.what, step,
                   run.step, options.rollback_factor, rollbacks, options.rollbacks));
}

void Trainer::Impl::diverged(const Divergence& why) const {
  std::string kept, cause = why.cause.empty() ? std::string() : "\n  " + why.cause;
  if (checkpoints.on())
    if (const std::string path = newest_checkpoint(options.checkpoint.folder); !path.empty())
      kept = fmt::format(" The last good checkpoint is {}.", path);
  fail(ErrorKind::diverged,
       "[train] {} at step {} (epoch {}, batch {}).{}\n  Remedies: a smaller learning rate (now {}), clip_norm, "
       "warm-up, scaled inputs, rollbacks.{}",
       why.what, run.step, run.epoch + 1, run.batch, cause, run.lr, kept);
}

std::string Trainer::Impl::resume(const std::string& path) {
  std::string file = path;
  if (std::filesystem::is_directory(path)) {
    std::string reasons;
    file = newest_checkpoint(path, [&](const std::string& reason) {
      warn("a checkpoint is passed over: " + reason);
      reasons += "\n  " + reason;
    });
    if (file.empty() && reasons.empty()) fail(ErrorKind::io, "{}: holds no checkpoint", path);
    if (file.empty()) fail(ErrorKind::format, "{}: holds no checkpoint that is whole{}", path, reasons);
  }
  const io::SafeTensors content = io::read_safetensors(file);
  const auto found = content.metadata.find(kRunKey);
  if (found == content.metadata.end())
    fail(ErrorKind::format, "{}: holds no state of a run: expected the checkpoint of a Trainer", file);
  Run restored = decode(found->second, file);
  if (options.reduce_on_plateau) {
    ReduceOnPlateau fresh(base_lr, *options.reduce_on_plateau);
    if (!restored.plateau.empty()) fresh.restore(restored.plateau);
    plateau = fresh;
  }
  show_averages(false);
  detail::load_state(file, everything(), &optimizer, {});
  for (const auto& c : options.callbacks)
    if (const auto at = content.metadata.find(kCallbackKey + c->name()); at != content.metadata.end())
      c->restore(at->second);
  run = std::move(restored);
  going_on = true;
  return file;
}

}  // namespace bp::train

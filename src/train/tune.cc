// Workers and conclusions of a search.
#include "train/tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <new>
#include <tuple>

#include "base/error.h"
#include "bp/io.h"
#include "train/experiment.h"
#include "train/runs.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;

double watched(const Epoch& e, const Config& c) { return e.validation ? metric(*e.validation, c.train.watch) : NAN; }

// Smaller is better, NaN the worst.
double cost_of(double value, const Config& c) {
  if (std::isnan(value)) return std::numeric_limits<double>::infinity();
  return larger_is_better(c.train.watch) ? -value : value;
}

// What a trial is judged by: the model it leaves.
double result_of(const std::vector<Epoch>& history, const Config& c) {
  if (history.empty()) return NAN;
  if (!c.keep_best) return watched(history.back(), c);
  const auto best = std::min_element(history.begin(), history.end(), [&](const Epoch& a, const Epoch& b) {
    return cost_of(watched(a, c), c) < cost_of(watched(b, c), c);
  });
  return watched(*best, c);
}

std::string definition_of(const Config& base, const std::vector<std::string>& space) {
  Node root = base.root;
  if (Node* train = root.find("train")) std::erase_if(train->entries, [](auto& e) { return e.first == "threads"; });
  return fmt::format("{}\n{}", fmt::join(space, "\n"), to_toml(root));
}

// All of the search but the number of trials, a line each.
std::vector<std::string> lines_of(const Search& s) {
  static constexpr const char* kNames[] = {"grid", "random", "halton", "asha"};
  static constexpr const char* kScales[] = {"choices", "uniform", "log", "integer", "log_integer"};
  std::vector<std::string> lines{fmt::format("tune.method = {}", kNames[static_cast<int>(s.method)]),
                                 fmt::format("tune.seed = {}", s.seed)};
  if (s.method == Search::Method::asha)
    lines.push_back(fmt::format("tune.min_epochs = {}, tune.eta = {}", s.min_epochs, s.eta));
  for (const Dimension& d : s.dimensions) {
    Node list;
    list.kind = Node::Kind::array;
    list.items = d.choices;
    std::string text = fmt::format("tune.space.{} = {}", d.key, kScales[static_cast<int>(d.scale)]);
    text += d.scale == Dimension::Scale::choices ? " " + list.str() : fmt::format(" [{}, {}]", d.low, d.high);
    if (s.method == Search::Method::grid) text += fmt::format(" points {}", d.size());
    lines.push_back(text);
  }
  return lines;
}

void check_trials(const TunePlan& plan) {
  constexpr std::int64_t kChecked = 16;
  for (std::int64_t n = 0; n < std::min(plan.base.search->trials, kChecked); ++n) {
    try {
      trial_config(plan, n);
    } catch (const Error& e) {
      const auto set = assignments(*plan.base.search, proposal(*plan.base.search, n));
      fail(ErrorKind::config, "{}: trial {} of the search ({}): {}", plan.file, n, fmt::join(set, ", "), e.what());
    }
  }
}

// The list of runs tells a pruned run from one that somebody stopped.
void record_pruned(const std::string& run, const TuneHooks& hooks) {
  try {
    RunRecord record = read_run_record(run);
    record.status = "pruned";
    record.reason = "others were better at this epoch";
    write_run_record(run, record);
    RunIndex(split_run(run).first).put(record);
  } catch (const Error& e) {
    if (hooks.on_warning) hooks.on_warning(e.what());
  }
}

// One trial, in its folder, from where it was left.
class TrialRun {
 public:
  TrialRun(const TunePlan& plan, Study& study, Trial& trial, const TuneHooks& hooks)
      : plan_(plan), study_(study), trial_(trial), hooks_(hooks) {}

  void operator()() {
    pruned_ = study_.stopped(trial_.number);
    const std::string folder = study_.folder_of(trial_.number);
    if (!pruned_) train(folder);
    if (pruned_) {
      trial_.state = "pruned";
      record_pruned(folder, hooks_);
    }
    std::error_code ignored;  // only disk space is at stake
    if (trial_.state != "interrupted") fs::remove_all(fs::path(folder) / "checkpoints", ignored);
  }

 private:
  void train(const std::string& folder) {
    const Config c = trial_config(plan_, trial_.number, {"train.report=false", "train.tensorboard=false"});
    Hooks hooks;
    hooks.on_warning = hooks_.on_warning;
    hooks.on_epoch = [&](const Epoch& e) { epoch(e, c); };
    hooks.interrupted = [&] { return pruned_ || (hooks_.interrupted && hooks_.interrupted()); };
    const Result result = resume_run(c, folder, hooks).result;
    trial_.state = result.stop == Stop::interrupted ? "interrupted" : "finished";
    if (result.stop != Stop::interrupted) pruned_ = false;
    trial_.epochs = static_cast<std::int64_t>(result.history.size());
    trial_.seconds = 0;
    for (const Epoch& e : result.history) trial_.seconds += e.seconds;
    if (trial_.state == "finished") trial_.value = result_of(result.history, c);
  }

  void epoch(const Epoch& e, const Config& c) {
    trial_.epochs = e.epoch;
    trial_.value = watched(e, c);
    trial_.seconds += e.seconds;
    study_.progress(trial_);
    const Search& s = *plan_.base.search;
    if (e.epoch < c.train.epochs && is_rung(s, e.epoch))
      pruned_ = !study_.passes_rung(trial_.number, e.epoch, cost_of(trial_.value, c), s.eta);
  }

  const TunePlan& plan_;
  Study& study_;
  Trial& trial_;
  const TuneHooks& hooks_;
  bool pruned_ = false;
};

// Kinds that say something about the disk, not about the trial's settings.
bool is_about_files(ErrorKind kind) {
  return kind == ErrorKind::io || kind == ErrorKind::format || kind == ErrorKind::state ||
         kind == ErrorKind::interrupted;
}

void run_trial(const TunePlan& plan, Study& study, Trial& trial, const TuneHooks& hooks) {
  try {
    TrialRun(plan, study, trial, hooks)();
  } catch (const Error& e) {
    const bool later = is_about_files(e.kind());
    trial.state = later ? "interrupted" : e.kind() == ErrorKind::diverged ? "diverged" : "failed";
    trial.reason = e.what();
    study.end(trial);
    if (later) throw;
    return;
  } catch (const std::bad_alloc&) {
    trial.state = "failed";
    trial.reason = "out of memory";
  }
  study.end(trial);
}

// Of the trials that have ended by their settings.
std::vector<Course> courses_of(const TunePlan& plan, const std::vector<Trial>& trials) {
  Study study = open_study(plan);
  std::vector<Course> all;
  for (const Trial& t : trials) {
    if (t.state == "diverged") all.push_back({t.number});
    if (t.state == "finished" || t.state == "pruned") all.push_back({t.number, study.rungs(t.number)});
    if (t.state == "finished") all.back().costs[plan.base.train.epochs] = cost_of(t.value, plan.base);
  }
  return all;
}

int class_of(const Trial& t) {
  constexpr const char* kOrder[] = {"finished", "pruned", "running", "interrupted", "diverged", "failed"};
  return static_cast<int>(std::find(std::begin(kOrder), std::end(kOrder), t.state) - std::begin(kOrder));
}

}  // namespace

Config trial_config(const TunePlan& plan, std::int64_t number, const std::vector<std::string>& further) {
  const Search& s = *plan.base.search;
  std::vector<std::string> all = plan.overrides;
  for (std::string& assignment : assignments(s, proposal(s, number))) all.push_back(std::move(assignment));
  all.insert(all.end(), further.begin(), further.end());
  return read_config(plan.file, all);
}

TunePlan plan_search(const std::string& file, const std::vector<std::string>& overrides, const std::string& folder) {
  TunePlan plan{file, folder, overrides, read_config(file, overrides), {}};
  const Config& c = plan.base;
  if (!c.search)
    fail(ErrorKind::config,
         "{}: there is nothing to search over: expected [tune.space] with a line as \"optimizer.lr\" = {{ log = [1e-4, "
         "1e-1] }}",
         file);
  if (!c.data.validation && c.data.validation_fraction == 0)
    fail(ErrorKind::config,
         "{}: a search needs data to judge by that are neither trained on nor the test: data.validation or "
         "data.validation_fraction",
         file);
  if (plan.folder.empty()) plan.folder = "runs/" + c.name + "-tune";
  plan.definition = definition_of(c, lines_of(*c.search));
  check_trials(plan);
  return plan;
}

Study open_study(const TunePlan& plan) {
  std::error_code error;
  fs::create_directories(plan.folder, error);
  if (error) fail(ErrorKind::io, "{}: cannot make this folder: {}", plan.folder, error.message());
  return {plan.folder, plan.definition};
}

bool work_on(const TunePlan& plan, const TuneHooks& hooks) {
  Study study = open_study(plan);
  const auto interrupted = [&] { return hooks.interrupted && hooks.interrupted(); };
  while (!interrupted()) {
    std::optional<Claim> claim = study.claim(plan.base.search->trials);
    if (!claim) return true;
    if (hooks.on_begin) hooks.on_begin(claim->trial);
    run_trial(plan, study, claim->trial, hooks);
    if (hooks.on_end) hooks.on_end(claim->trial);
  }
  return false;
}

std::vector<Trial> ranked(const TunePlan& plan, std::vector<Trial> trials) {
  const auto place = [&](const Trial& t) {
    const std::int64_t reached = class_of(t) == 0 ? 0 : -t.epochs;
    return std::tuple(class_of(t), reached, cost_of(t.value, plan.base), t.number);
  };
  std::sort(trials.begin(), trials.end(), [&](const Trial& a, const Trial& b) { return place(a) < place(b); });
  return trials;
}

std::vector<double> conclude_search(const TunePlan& plan, const std::vector<Trial>& trials) {
  const Search& s = *plan.base.search;
  const auto in = [&](const char* file) { return (fs::path(plan.folder) / file).string(); };
  if (!trials.empty() && trials.front().state == "finished") {
    const Trial& best = trials.front();
    io::write_file(in("best.toml"),
                   fmt::format("# Trial {} of {}: validation {} {:.6g}\n{}", best.number, trials.size(),
                               plan.base.train.watch, best.value, to_toml(trial_config(plan, best.number).root)));
  }
  const std::vector<std::int64_t> numbers = by_wins(courses_of(plan, trials));
  std::vector<double> shares = importance(s, numbers);
  io::write_file(
      in("importance.svg"),
      importance_svg(s, shares, fmt::format("{}: importance over {} trials", plan.base.name, numbers.size())));
  return shares;
}

}  // namespace bp::train

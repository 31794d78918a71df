// Records of a run that goes.
#include "train/run_log.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/isa.h"
#include "bp/version.h"

namespace bp::train {

namespace {

constexpr auto kPause = std::chrono::milliseconds(500);  // between two writes of the row

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::map<std::string, std::string> environment_of(const Config& c) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const int threads = c.train.threads > 0 ? c.train.threads : omp_get_max_threads();
  return {{"version", version()},
          {"host", host},
          {"process", std::to_string(getpid())},
          {"threads", std::to_string(threads)},
          {"isa", name_of(running_isa())}};
}

void add_test(RunRecord& r, const Metrics& m) {
  for (auto [name, value] : {std::pair{"test_loss", m.loss},
                             {"test_accuracy", m.accuracy},
                             {"test_mae", m.mae},
                             {"test_rmse", m.rmse},
                             {"test_r2", m.r2}})
    if (!std::isnan(value)) r.metrics[name] = {value, value, 0};
}

}  // namespace

template <class F> bool RunLog::attempt(const char* what, F&& f) {
  try {
    f();
    return true;
  } catch (const Error& e) {
    note_(fmt::format("{}: {}", what, e.what()));
    return false;
  }
}

std::optional<RunRecord> record_so_far(const std::string& folder) {
  try {
    if (std::filesystem::exists(std::filesystem::path(folder) / "run.json")) return read_run_record(folder);
  } catch (const Error&) {}  // an unreadable older record is written anew
  return std::nullopt;
}

RunLog::RunLog(std::string folder, const std::optional<RunRecord>& so_far, const Config& config, const Datasets& sets,
               const nn::Sequential& model, std::int64_t batches, Note note)
    : folder_(std::move(folder)), batches_(batches), note_(std::move(note)) {
  const auto place = split_run(folder_);
  record_.folder = place.second;
  record_.name = config.name;
  record_.started = now();
  if (so_far) {
    record_.resumed = so_far->resumed + 1;
    record_.paused = so_far->paused + std::max(0.0, record_.started - so_far->updated);
    record_.started = so_far->started;
  }
  try {
    add_history(record_, folder_);
  } catch (const Error&) {}  // an unreadable one is written anew
  record_.status = "running";
  record_.planned_epochs = config.train.epochs;
  record_.parameters = nn::parameter_count(config.model);
  record_.environment = environment_of(config);
  set_settings(record_, config.root);
  attempt("this run is not in the list of runs", [&] { index_ = std::make_unique<RunIndex>(place.first); });
  if (config.tensorboard)
    attempt("this run has no event files", [&, done = record_.epochs] {
      events_ = std::make_unique<EventLog>(folder_, config, model, sets.validation != nullptr, done);
      if (done == 0) events_->begin(*sets.altered);
    });
  save(true);
}

void RunLog::save(bool file) {
  record_.updated = now();
  record_.steps = std::max(record_.steps, record_.epochs * batches_);
  written_ = clock::now();
  if (index_ && !attempt("the list of runs is no longer kept up to date", [&] { index_->put(record_); }))
    index_.reset();
  if (file) attempt("this run has no record", [&] { write_run_record(folder_, record_); });
}

void RunLog::epoch(const std::vector<std::string>& columns, const std::vector<double>& row) {
  add_epoch(record_, columns, row);
  if (events_ && !attempt("event files end here", [&] { events_->epoch(columns, row); })) events_.reset();
  if (clock::now() - written_ >= kPause) save(false);
}

void RunLog::end(const Result& result, const std::optional<Metrics>& test) {
  record_.status = result.stop == Stop::interrupted ? "interrupted" : "finished";
  record_.reason = name_of(result.stop);
  record_.steps = result.steps;
  if (test) add_test(record_, *test);
  save(true);
}

void RunLog::failed(const std::exception& error) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  record_.status = ours != nullptr && ours->kind() == ErrorKind::diverged ? "diverged" : "failed";
  record_.reason = error.what();
  save(true);
}

}  // namespace bp::train

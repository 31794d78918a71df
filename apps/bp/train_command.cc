// bp train: progress on stderr, the result on stdout, an orderly stop on SIGINT and SIGTERM.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>

#include "base/error.h"
#include "commands.h"
#include "progress.h"
#include "train/experiment.h"

namespace bp::app {

namespace {

volatile std::sig_atomic_t g_stop = 0;

// The second signal finds the default action again and stops at once.
extern "C" void on_signal(int signal) {
  g_stop = 1;
  std::signal(signal, SIG_DFL);
}

std::string bytes_text(double bytes) {
  if (bytes < 1 << 20) return fmt::format("{:.1f} KiB", bytes / 1024);
  if (bytes < 1 << 30) return fmt::format("{:.1f} MiB", bytes / (1 << 20));
  return fmt::format("{:.2f} GiB", bytes / (1 << 30));
}

void announce(const std::string& folder, const train::Config& c, const train::Datasets& sets,
              const ExecutableInfo& step) {
  std::string rows = fmt::format("{} training", sets.train->size());
  if (sets.validation) rows += fmt::format(", {} validation", sets.validation->size());
  if (sets.test) rows += fmt::format(", {} test", sets.test->size());
  fmt::print(stderr, "{}: {} rows; {} parameters; a step needs {} and {:.3g} GFLOP\n", folder, rows,
             nn::parameter_count(c.model), bytes_text(static_cast<double>(step.planned_peak_bytes)), step.flops / 1e9);
  if (!sets.streamed.empty()) fmt::print(stderr, "{}\n", sets.streamed);
}

// Where the data hold training up.
void warn_of_waiting(ProgressBar& bar, const train::Epoch& e, const std::string& source) {
  constexpr double kShare = 0.05, kSeconds = 1;
  if (e.waited < kSeconds || e.waited < kShare * e.seconds) return;
  bar.note(fmt::format("warning: training waited {:.0f}% of the epoch for {}: more data.workers may help",
                       100 * e.waited / e.seconds, source));
}

void conclude(const train::Report& report, const train::Config& c, const TrainOptions& o) {
  const train::Result& r = report.result;
  if (r.stop == train::Stop::interrupted) {
    fmt::print(stderr, "interrupted at step {}; everything is saved. To go on:\n  bp train --resume {}\n", r.steps,
               report.folder);
    return;
  }
  if (r.stop != train::Stop::epochs && !o.quiet)
    fmt::print(stderr, "stopped after {} epochs: {}\n", r.history.size(), train::name_of(r.stop));
  if (report.test) print_metrics("test", *report.test, c.task);
  fmt::print("{}: model.safetensors, history.csv, {}\n", report.folder, c.report ? "report.html" : "loss.svg");
}

}  // namespace

int train(const TrainOptions& o) {
  if (o.file.empty() == o.resume.empty())
    fail(ErrorKind::config, "train: expected FILE.toml, or --resume RUN without one");
  if (!o.resume.empty() && !o.out.empty()) fail(ErrorKind::config, "train: --out has no use beside --resume");
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::vector<std::string> set = o.set;
  if (o.threads >= 0) set.push_back(fmt::format("train.threads={}", o.threads));
  const train::Config c = o.resume.empty() ? train::read_config(o.file, set) : train::read_run(o.resume, set);
  train::Report report;
  {
    ProgressBar bar(c.task, o.quiet);
    train::Hooks hooks;
    std::string source;
    hooks.on_begin = [&](const std::string& folder, const train::Config& config, const train::Datasets& sets,
                         const ExecutableInfo& step) {
      source = sets.train->name();
      if (!o.quiet) announce(folder, config, sets, step);
    };
    hooks.on_step = [&](const train::Progress& p) { bar.step(p); };
    hooks.on_epoch = [&](const train::Epoch& e) {
      bar.epoch(e, c.train.epochs);
      if (!o.quiet) warn_of_waiting(bar, e, source);
    };
    hooks.on_warning = [&](const std::string& message) { bar.note("warning: " + message); };
    hooks.interrupted = [] { return g_stop != 0; };
    report = o.resume.empty() ? train_run(c, o.out.empty() ? "runs/" + c.name : o.out, hooks)
                              : resume_run(c, o.resume, hooks);
  }
  conclude(report, c, o);
  return report.result.stop == train::Stop::interrupted ? kInterrupted : kOk;
}

}  // namespace bp::app

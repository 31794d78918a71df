// bp tune: a line a trial on stderr, the table of trials on stdout. With several workers, each is this program again;
// this one only starts them, passes a wish to stop on, and replaces those that were killed.
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <thread>

#include "base/error.h"
#include "commands.h"
#include "progress.h"
#include "text_table.h"
#include "train/tune.h"

namespace bp::app {

namespace {

using train::Trial;
using train::TunePlan;

volatile std::sig_atomic_t g_stop_search = 0;

// The second signal finds the default action again and stops at once.
extern "C" void on_search_signal(int signal) {
  g_stop_search = 1;
  std::signal(signal, SIG_DFL);
}

std::string value_text(double value) { return std::isnan(value) ? "" : fmt::format("{:.5g}", value); }

// "optimizer.lr=0.01" without the key; long values shortened.
std::string setting_text(const std::string& assignment, bool with_key) {
  constexpr std::size_t kWidest = 40;
  std::string text = with_key ? assignment : assignment.substr(assignment.find('=') + 1);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.size() <= kWidest ? text : text.substr(0, kWidest - 3) + "...";
}

std::vector<std::string> settings_of(const TunePlan& plan, const Trial& t, bool with_keys) {
  std::vector<std::string> all;
  for (const std::string& a : train::assignments(*plan.base.search, train::proposal(*plan.base.search, t.number)))
    all.push_back(setting_text(a, with_keys));
  return all;
}

void tell(const TunePlan& plan, const Trial& t) {
  const std::vector<std::string> settings = settings_of(plan, t, true);
  std::string line = fmt::format("trial {}: {} after {} epochs", t.number, t.state, t.epochs);
  if (!std::isnan(t.value)) line += fmt::format(", validation {} {:.5g}", plan.base.train.watch, t.value);
  line += fmt::format("  {}", fmt::join(settings, " "));
  if (!t.reason.empty()) line += fmt::format("\n  {}", t.reason);
  std::fprintf(stderr, "%s\n", line.c_str());
}

bool work_here(const TunePlan& plan, bool quiet) {
  train::TuneHooks hooks;
  if (!quiet) hooks.on_end = [&](const Trial& t) { tell(plan, t); };
  hooks.on_warning = [](const std::string& message) { fmt::print(stderr, "warning: {}\n", message); };
  hooks.interrupted = [] { return g_stop_search != 0; };
  return train::work_on(plan, hooks);
}

// The workers of a search, as child processes.
class Workers {
 public:
  Workers(const TuneCommand& o, int threads) : arguments_{"bp", "tune", o.file, "--worker"} {
    arguments_.insert(arguments_.end(), {"--threads", std::to_string(threads)});
    if (!o.out.empty()) arguments_.insert(arguments_.end(), {"--out", o.out});
    if (o.trials > 0) arguments_.insert(arguments_.end(), {"--trials", std::to_string(o.trials)});
    if (o.quiet) arguments_.emplace_back("--quiet");
    for (const std::string& s : o.set) arguments_.insert(arguments_.end(), {"--set", s});
  }

  void start() {
    std::vector<char*> argv;
    for (std::string& a : arguments_) argv.push_back(a.data());
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child < 0) fail(ErrorKind::io, "cannot start a worker: too many processes, or out of memory");
    if (child == 0) {
      execv("/proc/self/exe", argv.data());
      _exit(1);
    }
    pids_.push_back(child);
  }

  // Until all have ended; the exit code of the search.
  int wait(std::size_t restarts) {
    bool told = false;
    int code = kOk;
    while (!pids_.empty()) {
      if (g_stop_search != 0 && !told) {
        told = true;
        for (const pid_t pid : pids_) kill(pid, SIGTERM);
      }
      int status = 0;
      const auto ended =
          std::find_if(pids_.begin(), pids_.end(), [&](pid_t p) { return waitpid(p, &status, WNOHANG) == p; });
      if (ended == pids_.end()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        continue;
      }
      pids_.erase(ended);
      if (WIFEXITED(status) && WEXITSTATUS(status) != kOk && code == kOk) code = WEXITSTATUS(status);
      if (WIFSIGNALED(status)) replace_killed(WTERMSIG(status), restarts, code);
    }
    return g_stop_search != 0 ? kInterrupted : code;
  }

 private:
  void replace_killed(int signal, std::size_t& restarts, int& code) {
    if (g_stop_search != 0) return;
    fmt::print(stderr, "warning: a worker was killed by signal {}{}\n", signal,
               restarts > 0 ? "; another one takes up its trial" : "");
    if (restarts == 0) {
      code = kUnexpected;
    } else {
      --restarts;
      start();
    }
  }
  std::vector<std::string> arguments_;
  std::vector<pid_t> pids_;
};

int threads_each(const TuneCommand& o) {
  if (o.threads >= 0) return o.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / o.workers);
}

void print_trials(const TunePlan& plan, const std::vector<Trial>& trials) {
  std::vector<std::string> header{"trial", "state", "epochs", "time", plan.base.train.watch};
  for (const train::Dimension& d : plan.base.search->dimensions) header.push_back(d.key);
  std::vector<bool> right(header.size(), true);
  right[1] = false;
  TextTable table(header, right);
  for (const Trial& t : trials) {
    std::vector<std::string> row{std::to_string(t.number), t.state, std::to_string(t.epochs), duration(t.seconds),
                                 value_text(t.value)};
    for (std::string& s : settings_of(plan, t, false)) row.push_back(std::move(s));
    table.add(std::move(row));
  }
  table.print();
}

void conclude_tune(const TunePlan& plan) {
  const std::vector<Trial> trials = train::ranked(plan, train::open_study(plan).trials());
  print_trials(plan, trials);
  const std::vector<double> shares = train::conclude_search(plan, trials);
  std::string line = "importance:";
  for (std::size_t i = 0; i < shares.size(); ++i)
    line += fmt::format(" {} {:.0f}%", plan.base.search->dimensions[i].key, 100 * shares[i]);
  fmt::print("{}\n", line);
  if (!trials.empty() && trials.front().state == "finished")
    fmt::print("best: trial {}, {}/best.toml\n", trials.front().number, plan.folder);
}

}  // namespace

int tune(const TuneCommand& o) {
  if (o.worker) {
    std::signal(SIGINT, SIG_IGN);  // Ctrl-C reaches all of a terminal's processes; the parent passes it on
    prctl(PR_SET_PDEATHSIG, SIGTERM);
  } else {
    std::signal(SIGINT, on_search_signal);
  }
  std::signal(SIGTERM, on_search_signal);
  std::vector<std::string> set = o.set;
  if (o.trials > 0) set.push_back(fmt::format("tune.trials={}", o.trials));
  if (o.threads >= 0) set.push_back(fmt::format("train.threads={}", o.threads));
  const TunePlan plan = train::plan_search(o.file, set, o.out);
  if (o.worker) return work_here(plan, o.quiet) ? kOk : kInterrupted;
  train::open_study(plan);  // a study of other settings is told once, not by each worker
  int code = kOk;
  if (o.workers == 1) {
    code = work_here(plan, o.quiet) ? kOk : kInterrupted;
  } else {
    Workers workers(o, threads_each(o));
    for (int i = 0; i < o.workers; ++i) workers.start();
    code = workers.wait(10 * static_cast<std::size_t>(o.workers));
  }
  if (code == kInterrupted) {
    fmt::print(stderr, "interrupted; everything is saved in {}. The same command goes on\n", plan.folder);
    return code;
  }
  conclude_tune(plan);
  return code;
}

}  // namespace bp::app

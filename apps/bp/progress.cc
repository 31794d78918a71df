// The progress bar.
#include "progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace bp::app {

namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);

// Asked for at each drawing: terminals are resized. COLUMNS serves those that do not know.
std::size_t columns() {
  constexpr std::size_t kLeast = 20;
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return std::max<std::size_t>(kLeast, size.ws_col);
  const char* told = std::getenv("COLUMNS");
  const long wide = told != nullptr ? std::strtol(told, nullptr, 10) : 0;
  return wide > 0 ? std::clamp<std::size_t>(static_cast<std::size_t>(wide), kLeast, 1000) : 80;
}

// A terminal that can clear a line.
bool draws_bars() {
  const char* name = std::getenv("TERM");
  return isatty(STDERR_FILENO) != 0 && (name == nullptr || std::string_view(name) != "dumb");
}

std::string bar(double share, std::size_t width) {
  const auto full = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  return "[" + std::string(full, '#') + std::string(width - full, '.') + "]";
}

}  // namespace

std::string text_of(const train::Metrics& m, train::Task task) {
  if (task != train::Task::regression) return fmt::format("loss {:.4f}  accuracy {:.2f}%", m.loss, 100 * m.accuracy);
  return fmt::format("loss {:.5g}  mae {:.5g}  rmse {:.5g}  R2 {:.4f}", m.loss, m.mae, m.rmse, m.r2);
}

std::string details_of(const train::Metrics& m) {
  std::string text;
  const auto add = [&text](const char* name, double value) {
    if (!std::isnan(value)) text += fmt::format("{}{} {:.4f}", text.empty() ? "" : "  ", name, value);
  };
  add("precision", m.precision);
  add("recall", m.recall);
  add("F1", m.f1);
  add("top k", m.top_k);
  add("AUC", m.auc);
  add("perplexity", m.perplexity);
  return text;
}

void print_metrics(const std::string& data, const train::Metrics& m, train::Task task) {
  const std::string details = details_of(m);
  fmt::print("{}: {}  ({} samples)\n", data, text_of(m, task) + (details.empty() ? "" : "  ") + details, m.samples);
}

std::string duration(double seconds) {
  const auto s = std::lround(std::clamp(seconds, 0.0, 1e9));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

ProgressBar::ProgressBar(train::Task task, bool quiet) : task_(task), quiet_(quiet), terminal_(draws_bars()) {}
ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() {
  if (drawn_) std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

void ProgressBar::step(const train::Progress& p) {
  const auto now = std::chrono::steady_clock::now();
  if (quiet_ || !terminal_ || (now - last_ < kRedraw && p.batch != p.batches)) return;
  last_ = now;
  const double share = static_cast<double>(p.batch) / static_cast<double>(p.batches);
  const std::string left = fmt::format("epoch {}/{} ", p.epoch + 1, p.epochs);
  const std::string measures = "  " + text_of(p.running, task_),
                    time = fmt::format("  {} left", duration(p.seconds_left));
  const std::string speed = fmt::format("  {:.0f} samples/s", p.samples_per_second);
  const std::size_t room = columns() - 1;  // the last column would make some terminals wrap
  constexpr std::size_t kShortestBar = 5;
  std::string line =
      fmt::format("{}{:.0f}%{}", left, 100 * share, measures);  // cut off at its end where all is too wide
  // The first that fits, by what is worth most.
  for (const std::string& right : {measures + speed + time, measures + time, measures, time})
    if (const std::size_t used = left.size() + right.size() + 2; used + kShortestBar <= room) {
      line = left + bar(share, std::min<std::size_t>(30, room - used)) + right;
      break;
    }
  std::fprintf(stderr, "\r\033[K%s", line.substr(0, room).c_str());
  drawn_ = true;
}

void ProgressBar::note(const std::string& line) {
  clear();
  std::fprintf(stderr, "%s\n", line.c_str());
}

void ProgressBar::epoch(const train::Epoch& e, std::int64_t epochs) {
  if (quiet_) return;
  clear();
  std::string line = fmt::format("epoch {}/{}  {}", e.epoch, epochs, text_of(e.train, task_));
  if (e.validation) line += "  validation " + text_of(*e.validation, task_);
  const double rate = e.seconds > 0 ? static_cast<double>(e.train.samples) / e.seconds : 0;
  std::fprintf(stderr, "%s  lr %.3g  %.0f samples/s  %s\n", line.c_str(), e.lr, rate, duration(e.seconds).c_str());
}

}  // namespace bp::app

// What training shows on stderr: a live bar on a terminal, otherwise a line an epoch. Used by `bp train`.
#pragma once

#include <chrono>
#include <string>

#include "bp/train.h"

namespace bp::app {

// "loss 0.2431  accuracy 91.23%"
std::string text_of(const train::Metrics& m, train::Task task);
// What evaluation adds to it: "precision 0.9120  recall 0.9123  F1 0.9118"; empty for regression.
std::string details_of(const train::Metrics& m);
// A line on stdout with both.
void print_metrics(const std::string& data, const train::Metrics& m, train::Task task);
std::string duration(double seconds);  // "0:42", "1:02:03"

class ProgressBar {
 public:
  ProgressBar(train::Task task, bool quiet);
  ~ProgressBar();  // leaves the terminal's line empty
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void step(const train::Progress& p);
  void epoch(const train::Epoch& e, std::int64_t epochs);
  void note(const std::string& line);  // a line of its own, also when quiet

 private:
  void clear();
  train::Task task_;
  bool quiet_, terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace bp::app

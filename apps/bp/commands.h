// What the subcommands of bp do; main.cc parses their options. Each returns an exit code; mistakes throw bp::Error.
#pragma once

#include <string>
#include <vector>

#include "bp/train.h"

namespace bp::app {

// Exit codes beside those of error_code().
inline constexpr int kOk = 0, kUnexpected = 1, kGradientWrong = 9, kInterrupted = 130;

struct TrainOptions {
  std::string file, resume, out;
  std::vector<std::string> set;
  int threads = -1;  // as configured
  bool quiet = false;
};
int train(const TrainOptions& options);

struct TuneCommand {
  std::string file, out;
  std::vector<std::string> set;
  long trials = 0;  // as the file says
  int workers = 1, threads = -1;
  bool quiet = false, worker = false;
};
int tune(const TuneCommand& options);

struct EvalOptions {
  std::string run, data;
  std::vector<std::string> set;
};
int eval(const EvalOptions& options);

struct PredictOptions {
  std::string run, input, output;
};
int predict(const PredictOptions& options);

struct SampleCommand {
  std::string run, prompt;
  long tokens = 500, top_k = 0;
  double temperature = 0.8;
  unsigned long long seed = 0;
};
int sample(const SampleCommand& options);

struct InspectOptions {
  std::string what;
  std::vector<std::string> set;
  std::size_t memory = 0;  // bytes; 0: not asked
};
int inspect(const InspectOptions& options);

struct FindRateOptions {
  std::string file, chart;
  std::vector<std::string> set;
  train::RateSearchOptions search;
};
int find_rate(const FindRateOptions& options);

struct ProfileCommand {
  std::string file, trace;
  std::vector<std::string> set;
  int steps = 20, threads = -1;  // as configured
  bool summary = false;
};
int profile(const ProfileCommand& options);

struct GradcheckCommand {
  std::string file;
  std::vector<std::string> set;
  long elements = 20, samples = 4;
};
int gradcheck(const GradcheckCommand& options);

struct CuresOptions {
  std::vector<std::string> only;
  std::string out, data = "/usr/share/datasets/fashion-mnist";
  int seeds = 3;
  bool quick = false;
};
int cures(const CuresOptions& options);

struct ExportCommand {
  std::string run, output;
  bool channels_last = false;
};
int export_model(const ExportCommand& options);

struct ImportCommand {
  std::string file, output;
};
int import_model(const ImportCommand& options);

struct RunsOptions {
  std::string folder = "runs";
  std::vector<std::string> where;
  std::string sort;
  long limit = 0;
  bool json = false, scan = false;
  std::vector<std::string> names;  // of compare and rm: folders, or names within `folder`
  std::string chart;
};
int list_runs(const RunsOptions& options);
int compare_runs(const RunsOptions& options);
int forget_runs(const RunsOptions& options);

int report(const std::string& run);

int keys();

}  // namespace bp::app

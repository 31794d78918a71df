// bp eval, predict, inspect, gradcheck and keys.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "bp/io.h"
#include "commands.h"
#include "progress.h"
#include "text_table.h"
#include "train/config_keys.h"
#include "train/experiment.h"
#include "train/inspect.h"

namespace bp::app {

namespace {

train::Config read_any(const std::string& what, const std::vector<std::string>& set) {
  return std::filesystem::is_directory(what) ? train::read_run(what, set) : train::read_config(what, set);
}

}  // namespace

int eval(const EvalOptions& o) {
  train::Config c = train::read_run(o.run, o.set);
  const bool held_out = c.data.validation || c.data.validation_fraction > 0;
  const std::string data = !o.data.empty() ? o.data : c.data.test || !held_out ? "test" : "validation";
  const train::Split split = data == "test"    ? train::Split::test
                             : data == "train" ? train::Split::train
                                               : train::Split::validation;
  const train::Metrics m = train::evaluate_run(c, o.run, split);
  print_metrics(data, m, c.task);
  return kOk;
}

int predict(const PredictOptions& o) {
  const train::Config c = train::read_run(o.run);
  const train::Inputs inputs = train::load_inputs(c, o.input);
  const std::int64_t rows = train::write_predictions(c, train::load_model(c, o.run), inputs, o.output);
  fmt::print("{}: {} rows\n", o.output, rows);
  return kOk;
}

int inspect(const InspectOptions& o) {
  const train::Config c = read_any(o.what, o.set);
  nn::Sequential model = c.make_model();
  TextTable table({"layer", "what", "output", "parameters", "MFLOP"}, {false, false, false, true, true});
  table.add({"", "input", c.input.str(), "", ""});
  double flops = 0;
  for (const train::LayerRow& r : train::layer_rows(model, c.input, c.input_dtype())) {
    const std::string indent(static_cast<std::size_t>(2 * r.depth), ' ');
    table.add(
        {indent + r.path, r.what, r.output.str(), std::to_string(r.parameters), fmt::format("{:.3f}", r.flops / 1e6)});
    if (r.depth == 0) flops += r.flops;
  }
  table.print();
  const train::Costs costs = train::costs_of(c);
  fmt::print("\nparameters       {}\nforward          {:.3f} MFLOP a sample\n", costs.parameters, flops / 1e6);
  fmt::print("training step    {} samples, {:.3f} GFLOP, planned peak {} bytes ({:.1f} MiB)\n", c.batch,
             costs.step.flops / 1e9, costs.step.planned_peak_bytes,
             static_cast<double>(costs.step.planned_peak_bytes) / (1 << 20));
  if (o.memory > 0) {
    const std::int64_t rows = train::largest_batch(c, o.memory);
    fmt::print("largest batch    {} within {} bytes\n", rows, o.memory);
  }
  return kOk;
}

int find_rate(const FindRateOptions& o) {
  train::Config c = train::read_config(o.file, o.set);
  const std::string name = c.name;
  const train::RateSearch found = train::search_rate(std::move(c), o.search);
  TextTable table({"rate", "loss"}, {true, true});
  const std::size_t every = std::max<std::size_t>(1, found.rates.size() / 20);
  for (std::size_t i = 0; i < found.rates.size(); i += every)
    table.add({fmt::format("{:.3g}", found.rates[i]), fmt::format("{:.4f}", found.losses[i])});
  table.print();
  if (found.suggestion > 0) {
    fmt::print("\nsuggestion: --set optimizer.lr={:.2g}, where the loss falls fastest\n", found.suggestion);
  } else {
    fmt::print("\nno suggestion: the loss never fell; try --high, more --steps or a larger batch\n");
  }
  if (o.chart.empty()) return kOk;
  io::Series series{"loss, smoothed", {}, found.losses};
  for (const double r : found.rates) series.x.push_back(std::log10(r));
  io::write_line_chart(o.chart, std::vector<io::Series>{series},
                       {.title = name, .x_label = "log10 of the learning rate", .y_label = "loss"});
  return kOk;
}

int profile(const ProfileCommand& o) {
  train::Config c = read_any(o.file, o.set);
  if (o.threads >= 0) c.train.threads = o.threads;
  const Profile p = train::profile_training(std::move(c), o.steps);
  fmt::print("{}", o.summary ? p.summary() : p.text());
  if (!o.trace.empty()) {
    io::write_file(o.trace, p.chrome_trace());
    fmt::print("{}: open it in chrome://tracing or ui.perfetto.dev\n", o.trace);
  }
  return kOk;
}

int gradcheck(const GradcheckCommand& o) {
  train::Config c = train::read_config(o.file, o.set);
  const train::SourcePtr set = train::load_split(c, train::Split::train);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min<std::int64_t>(o.samples, set->size())));
  std::iota(rows.begin(), rows.end(), 0);
  train::CheckOptions options;
  options.elements = o.elements;
  TextTable table({"parameter", "checked", "worst element", "analytic", "numeric", "error/allowed", ""},
                  {false, true, true, true, true, true, false});
  bool ok = true;
  for (const train::ParameterCheck& p : train::check_gradients(c, set->fetch(rows, Key{}), options)) {
    ok = ok && p.worst.ok;
    table.add({p.name, fmt::format("{} of {}", p.checked, p.elements), std::to_string(p.worst.element),
               fmt::format("{:.9g}", p.worst.analytic), fmt::format("{:.9g}", p.worst.numeric),
               fmt::format("{:.3g}", p.worst.worst), p.worst.ok ? "ok" : "WRONG"});
  }
  table.print();
  return ok ? kOk : kGradientWrong;
}

int keys() {
  fmt::print("{}", train::config_reference());
  return kOk;
}

}  // namespace bp::app

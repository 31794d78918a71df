// bp runs: the list of runs, what differs between some of them, and forgetting them. bp report.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/nearest.h"
#include "bp/io.h"
#include "commands.h"
#include "progress.h"
#include "text_table.h"
#include "train/report.h"
#include "train/runs.h"

namespace bp::app {

namespace {

namespace fs = std::filesystem;
using train::RunRecord;

constexpr std::size_t kLongest = 48;  // columns of a value in a table

std::string shortened(const std::string& text) {
  if (width_of(text) <= kLongest) return text;
  std::size_t end = 0;
  for (std::size_t columns = 0; columns + 3 < kLongest; ++columns) do
      ++end;
    while (end < text.size() && (text[end] & 0xc0) == 0x80);
  return text.substr(0, end) + "...";
}

std::string number(double x) { return std::isnan(x) ? "" : fmt::format("{:.5g}", x); }

// "2025-03-01 12:00", UTC.
std::string day_and_time(double seconds) {
  const std::string text = train::utc(seconds);
  return text.empty() ? text : text.substr(0, 10) + " " + text.substr(11, 5);
}

// The record of a run's measure: that of validation, of training where there is none.
const train::MetricRecord* measure(const RunRecord& r, const std::string& name) {
  for (const char* part : {"validation_", "train_"})
    if (const auto at = r.metrics.find(part + name); at != r.metrics.end()) return &at->second;
  return nullptr;
}

struct MeasureColumn {
  std::string title;
  std::vector<std::string> cells;
};

// Loss and what else the runs have, as columns of the list.
std::vector<MeasureColumn> measure_columns(const std::vector<RunRecord>& runs) {
  std::vector<MeasureColumn> columns;
  const auto add = [&](const std::string& title, auto&& value) {
    MeasureColumn column{title, {}};
    for (const RunRecord& r : runs) column.cells.push_back(number(value(r)));
    const bool any = std::any_of(column.cells.begin(), column.cells.end(), [](auto& cell) { return !cell.empty(); });
    if (any) columns.push_back(std::move(column));
  };
  for (const char* name : {"loss", "accuracy", "rmse"}) {
    const auto of = [name](const RunRecord& r) { return measure(r, name); };
    add(name, [&](const RunRecord& r) { return of(r) != nullptr ? of(r)->last : NAN; });
    add(fmt::format("best {}", name), [&](const RunRecord& r) { return of(r) != nullptr ? of(r)->best : NAN; });
    add(fmt::format("test {}", name), [&](const RunRecord& r) {
      const auto test = r.metrics.find(fmt::format("test_{}", name));
      return test != r.metrics.end() ? test->second.last : NAN;
    });
  }
  return columns;
}

void print_list(const std::vector<RunRecord>& runs, const std::string& folder) {
  std::vector<std::string> header{"run", "status", "started (UTC)", "epochs", "time", "parameters"};
  std::vector<bool> right{false, false, false, true, true, true};
  const std::vector<MeasureColumn> columns = measure_columns(runs);
  for (const MeasureColumn& c : columns) {
    header.push_back(c.title);
    right.push_back(true);
  }
  TextTable table(header, right);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& r = runs[i];
    const bool there = fs::exists(fs::path(folder) / r.folder);
    std::vector<std::string> row{r.folder,
                                 there ? r.status : r.status + ", folder gone",
                                 day_and_time(r.started),
                                 fmt::format("{}/{}", r.epochs, r.planned_epochs),
                                 duration(r.seconds),
                                 r.parameters > 0 ? std::to_string(r.parameters) : ""};
    for (const MeasureColumn& c : columns) row.push_back(c.cells[i]);
    table.add(std::move(row));
  }
  table.print();
}

void print_json(const std::vector<RunRecord>& runs) {
  std::string out = "[";
  for (const RunRecord& r : runs) out += (out.size() > 1 ? ",\n" : "\n") + train::to_json(r);
  fmt::print("{}\n]\n", out);
}

train::RunIndex open_index(const RunsOptions& o) {
  train::RunIndex index(o.folder);
  if (o.scan) index.scan();
  for (const std::string& skipped : index.skipped()) fmt::print(stderr, "bp: passed over {}\n", skipped);
  return index;
}

// The run that a user means by a name in the folder or by a path.
std::string run_named(const std::string& name, const std::vector<RunRecord>& runs, const std::string& folder) {
  const auto on_record = [&](const std::string& run) {
    return std::any_of(runs.begin(), runs.end(), [&](const RunRecord& r) { return r.folder == run; });
  };
  if (on_record(name)) return name;
  const auto [parent, run] = train::split_run(name);
  std::error_code absent;
  if (fs::equivalent(parent, folder, absent) && on_record(run)) return run;
  std::vector<std::string> known;
  for (const RunRecord& r : runs) known.push_back(r.folder);
  const std::string nearest = nearest_name(run, known);
  fail(ErrorKind::config, "{}: no run of this name is on record in {}{}; bp runs --scan takes up new folders", name,
       folder, nearest.empty() ? "" : ": did you mean \"" + nearest + "\"?");
}

void draw(const std::vector<RunRecord>& runs, const std::string& folder, const std::string& file) {
  std::vector<io::Series> series;
  io::CsvOptions options;
  options.dtype = DType::f64;
  options.missing = io::Missing::nan;
  options.allow_non_finite = true;
  for (const RunRecord& r : runs) {
    const io::Table table = io::read_csv((fs::path(folder) / r.folder / "history.csv").string(), options);
    const bool validated = r.metrics.contains("validation_loss");
    const auto x = table.column("epoch").values.values<double>();
    const auto y = table.column(validated ? "validation_loss" : "train_loss").values.values<double>();
    series.push_back(
        {r.folder + (validated ? ", validation" : ", training"), {x.begin(), x.end()}, {y.begin(), y.end()}});
  }
  io::write_line_chart(file, series, {.title = "Losses", .x_label = "epoch", .y_label = "loss"});
}

void print_comparison(const std::vector<RunRecord>& runs) {
  std::vector<std::string> header{""};
  for (const RunRecord& r : runs) header.push_back(r.folder);
  std::vector<bool> right(header.size(), true);
  right[0] = false;
  TextTable table(header, right);
  const auto add = [&](const std::string& name, auto&& value) {
    std::vector<std::string> row{name};
    for (const RunRecord& r : runs) row.push_back(shortened(value(r)));
    table.add(std::move(row));
  };
  add("status", [](const RunRecord& r) { return r.status; });
  add("epochs", [](const RunRecord& r) { return fmt::format("{}/{}", r.epochs, r.planned_epochs); });
  add("time", [](const RunRecord& r) { return duration(r.seconds); });
  add("parameters", [](const RunRecord& r) { return std::to_string(r.parameters); });
  std::map<std::string, int> metrics;
  for (const RunRecord& r : runs)
    for (const auto& [name, values] : r.metrics) ++metrics[name];
  for (const auto& [metric, count] : metrics)
    add(metric, [&name = metric](const RunRecord& r) {
      const auto at = r.metrics.find(name);
      if (at == r.metrics.end()) return std::string();
      const train::MetricRecord& m = at->second;
      return m.best_epoch == 0 ? number(m.last)
                               : fmt::format("{} (best {} at {})", number(m.last), number(m.best), m.best_epoch);
    });
  const std::vector<train::ComparedRow> settings = train::differing_settings(runs);
  for (const train::ComparedRow& row : settings) {
    std::vector<std::string> cells{row.name};
    for (const std::string& value : row.values) cells.push_back(shortened(value));
    table.add(std::move(cells));
  }
  table.print();
  if (settings.empty()) fmt::print("their configurations are equal\n");
}

}  // namespace

int report(const std::string& run) {
  fmt::print("{}\n", train::report_run(run));
  return kOk;
}

int list_runs(const RunsOptions& o) {
  train::RunIndex index = open_index(o);
  std::vector<RunRecord> runs = train::select_runs(index.all(), o.where);
  if (!o.sort.empty()) train::sort_runs(runs, o.sort);
  if (o.limit > 0 && runs.size() > static_cast<std::size_t>(o.limit)) runs.resize(static_cast<std::size_t>(o.limit));
  if (o.json) {
    print_json(runs);
  } else if (runs.empty()) {
    fmt::print("no such runs on record in {}\n", o.folder);
  } else {
    print_list(runs, o.folder);
  }
  return kOk;
}

int compare_runs(const RunsOptions& o) {
  const std::vector<RunRecord> all = open_index(o).all();
  std::vector<RunRecord> runs;
  for (const std::string& name : o.names) {
    const std::string run = run_named(name, all, o.folder);
    runs.push_back(*std::find_if(all.begin(), all.end(), [&](const RunRecord& r) { return r.folder == run; }));
  }
  if (!o.chart.empty()) draw(runs, o.folder, o.chart);
  if (o.json) {
    print_json(runs);
  } else {
    print_comparison(runs);
  }
  return kOk;
}

int forget_runs(const RunsOptions& o) {
  train::RunIndex index = open_index(o);
  const std::vector<RunRecord> all = index.all();
  std::vector<std::string> found;
  for (const std::string& name : o.names) found.push_back(run_named(name, all, o.folder));
  for (const std::string& run : found) index.remove(run);
  return kOk;
}

}  // namespace bp::app

// Runs: the folder and its files around Trainer.
#include "train/experiment.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <system_error>

#include "base/error.h"
#include "bp/io.h"
#include "bp/ops.h"
#include "io/csv_writer.h"
#include "train/checkpoints.h"
#include "train/metrics.h"
#include "train/report.h"
#include "train/run_log.h"

namespace bp::train {

namespace {

namespace fs = std::filesystem;

std::string in(const std::string& folder, const char* file) { return (fs::path(folder) / file).string(); }

// "train_loss", "validation_f1": the metrics that are made of training batches, and all that evaluation makes.
std::vector<std::string> history_metrics(const Config& c, bool evaluated) {
  std::vector<std::string> names = metric_names(c.task, evaluated);
  if (c.train.top_k == 0) std::erase(names, "top_k");
  return names;
}

std::vector<std::string> history_columns(const Config& c, bool validation) {
  std::vector<std::string> columns{"epoch", "lr"};
  for (const std::string& m : history_metrics(c, false)) columns.push_back("train_" + m);
  if (validation)
    for (const std::string& m : history_metrics(c, true)) columns.push_back("validation_" + m);
  columns.insert(columns.end(), {"seconds", "samples_per_second"});
  return columns;
}

// history.csv and loss.svg, written anew from the history that a resumed run brings along.
class Records {
 public:
  Records(const std::string& folder, const Config& c, bool validation, const std::vector<Epoch>& so_far)
      : chart_(in(folder, "loss.svg")),
        title_(c.name),
        train_metrics_(history_metrics(c, false)),
        validation_metrics_(history_metrics(c, true)),
        validation_(validation),
        columns_(history_columns(c, validation)),
        csv_(in(folder, "history.csv"), columns_) {
    for (const Epoch& e : so_far) append(e);
    if (!so_far.empty()) draw();
  }
  void add(const Epoch& e) {
    append(e);
    draw();
  }
  const std::vector<std::string>& columns() const noexcept { return columns_; }
  const std::vector<double>& last_row() const noexcept { return row_; }

 private:
  void append(const Epoch& e) {
    row_ = {static_cast<double>(e.epoch), e.lr};
    for (const std::string& m : train_metrics_) row_.push_back(metric(e.train, m));
    if (validation_)
      for (const std::string& m : validation_metrics_) row_.push_back(metric(e.validation.value_or(Metrics{}), m));
    row_.push_back(e.seconds);
    row_.push_back(e.seconds > 0 ? static_cast<double>(e.train.samples) / e.seconds : 0);
    csv_.append(row_);
    const auto x = static_cast<double>(e.epoch);
    train_.x.push_back(x);
    train_.y.push_back(e.train.loss);
    if (!validation_) return;
    held_out_.x.push_back(x);
    held_out_.y.push_back(e.validation ? e.validation->loss : NAN);
  }
  void draw() const {
    std::vector<io::Series> series{train_};
    if (validation_) series.push_back(held_out_);
    io::write_line_chart(chart_, series, {.title = title_, .x_label = "epoch", .y_label = "loss"});
  }
  std::string chart_, title_;
  std::vector<std::string> train_metrics_, validation_metrics_;
  bool validation_;
  std::vector<std::string> columns_;
  std::vector<double> row_;
  io::HistoryWriter csv_;
  io::Series train_{"training", {}, {}}, held_out_{"validation", {}, {}};
};

// Batches fetched ahead: two a worker, but never fewer than the loader's own choice.
int depth_of(const Config& c) { return std::max(data::LoaderOptions{}.depth, 2 * c.data.workers); }

data::DataLoader training_loader(const Config& c, const SourcePtr& set) {
  if (set->size() < c.batch)
    fail(ErrorKind::config, "train.batch is {}, but there are only {} training rows", c.batch, set->size());
  return {set,
          {.batch_size = c.batch,
           .shuffle = c.shuffle,
           .key = Key{c.seed}.fold("shuffle"),
           .drop_last = true,
           .threads = c.data.workers,
           .depth = depth_of(c),
           .timeout = c.data.timeout}};
}

data::DataLoader evaluation_loader(const Config& c, const SourcePtr& set) {
  return {set,
          {.batch_size = std::min(c.eval_batch, set->size()),
           .shuffle = false,
           .threads = c.data.workers,
           .depth = depth_of(c),
           .timeout = c.data.timeout}};
}

Options options_of(const Config& c, const std::string& folder, std::int64_t batches) {
  Options o = c.train;
  if (c.schedule) o.schedule = c.schedule((batches + o.accumulate - 1) / o.accumulate);
  o.schedule_by_epoch = c.schedule_by_epoch;
  o.reduce_on_plateau = c.plateau;
  o.checkpoint.folder = in(folder, "checkpoints");
  if (c.keep_best) o.best_model = in(folder, "model.safetensors");
  o.metadata = {{"config", to_toml(c.root)}};
  return o;
}

// Of a batch, by one of its rows.
Type batch_type(const Array& row, std::int64_t batch) {
  Shape shape = row.shape;
  shape[0] = batch;
  return {row.dtype, shape};
}

// After training: model.safetensors, and what that model makes of the test data.
std::optional<Metrics> keep_and_test(Trainer& trainer, nn::Sequential& model, const Config& c, const Datasets& sets,
                                     const Options& options) {
  if (c.keep_best && fs::exists(options.best_model)) {
    load_state(options.best_model, model);
  } else {
    save_state(in(fs::path(options.checkpoint.folder).parent_path().string(), "model.safetensors"), model, nullptr,
               options.metadata);
  }
  if (!sets.test) return std::nullopt;
  data::DataLoader test = evaluation_loader(c, sets.test);
  return trainer.evaluate(test);
}

// [N, classes] probabilities or [N, ..] values as columns, the class and the names of the rows before them.
io::Table prediction_table(const Config& config, const Array& predictions, std::span<const std::string> names) {
  const bool classes = config.task == Task::classification;
  const std::int64_t n = predictions.rows(), width = predictions.numel() / n;
  const Array values = convert(predictions, DType::f64);
  const double* p = values.data<double>();
  const auto name_of = [&](std::int64_t k) {
    const auto i = static_cast<std::size_t>(k);
    return i < config.data.classes.size() ? config.data.classes[i] : std::to_string(k);
  };
  io::Table table;
  if (!names.empty()) {
    std::vector<std::int64_t> ids(names.size());
    std::iota(ids.begin(), ids.end(), 0);
    table.columns.push_back({"file", Array::from(ids, {n}), {names.begin(), names.end()}});
  }
  if (classes) {
    std::vector<std::int64_t> best;
    for (std::int64_t i = 0; i < n; ++i)
      best.push_back(std::max_element(p + i * width, p + (i + 1) * width) - (p + i * width));
    io::Column column{"class", Array::from(best, {n}), {}};
    for (std::int64_t k = 0; k < width; ++k) column.categories.push_back(name_of(k));
    table.columns.push_back(std::move(column));
  }
  for (std::int64_t k = 0; k < width; ++k) {
    std::vector<double> column;
    for (std::int64_t i = 0; i < n; ++i) column.push_back(p[i * width + k]);
    const std::string regression = width == 1 ? "value" : fmt::format("value {}", k);
    const std::string name = config.task == Task::regression ? regression : "p " + name_of(k);
    const Array wide = Array::from(column, {n});
    table.columns.push_back({name, convert(wide, predictions.dtype), {}});
  }
  return table;
}

// RUN/report.html. An interrupted run's says nothing about data: whoever interrupts does not want to wait. Measuring a
// step takes a second, which a short run does not wait for either.
void write_report(const Config& c, const Datasets& sets, nn::Sequential& model, Trainer& trainer,
                  const RunRecord& record, const Report& report) {
  constexpr double kWorthASecond = 20;
  const data::Source* set = sets.test ? sets.test.get() : sets.validation ? sets.validation.get() : sets.train.get();
  const char* split = sets.test ? "test" : sets.validation ? "validation" : "training";
  std::optional<Findings> findings;
  if (report.result.stop != Stop::interrupted) findings = examine(c, model, *set, split);
  if (findings && record.seconds > kWorthASecond) findings->step = profile_on(trainer, c, *set);
  io::write_file(in(report.folder, "report.html"), report_html(c, report.folder, record, findings, set));
}

// Whatever happens meanwhile: it is the failure of the training that is to be told.
void report_failure(const Config& c, const std::string& folder, const nn::Sequential& model, const RunRecord& record) {
  try {
    io::write_file(in(folder, "report.html"), report_html(c, folder, record, examine_parameters(model), nullptr));
  } catch (const std::exception&) {}
}

Report run(const Config& c, const Datasets& sets, const std::string& folder, bool resume, const Hooks& hooks) {
  nn::Sequential model = c.make_model();
  const std::unique_ptr<optim::Optimizer> optimizer = c.optimizer(nn::parameters(model));
  data::DataLoader loader = training_loader(c, sets.altered);
  std::optional<data::DataLoader> validation;
  if (sets.validation) validation.emplace(evaluation_loader(c, sets.validation));

  Options options = options_of(c, folder, loader.batches());
  std::optional<Records> records;
  std::optional<RunLog> log;
  options.on_step = hooks.on_step;
  options.on_warning = hooks.on_warning;
  options.interrupted = hooks.interrupted;
  options.on_epoch = [&](const Epoch& e) {
    records->add(e);
    log->epoch(records->columns(), records->last_row());
    if (hooks.on_epoch) hooks.on_epoch(e);
  };
  Trainer trainer(model, c.loss, *optimizer, options);
  if (resume) trainer.resume(options.checkpoint.folder);
  const std::optional<RunRecord> so_far = record_so_far(folder);
  io::write_file(in(folder, "config.toml"), to_toml(c.root));
  records.emplace(folder, c, validation.has_value(), trainer.history());
  const Note warn = hooks.on_warning ? hooks.on_warning : [](const std::string&) {};
  log.emplace(folder, so_far, c, sets, model, loader.batches(), warn);
  if (hooks.on_begin) {
    const std::int64_t first = 0;
    const data::Batch one = loader.source().fetch({&first, 1}, Key{});
    hooks.on_begin(folder, c, sets, trainer.step_info(batch_type(one.x, c.batch), batch_type(one.y, c.batch)));
  }

  Report report{folder, {}, {}};
  try {
    report.result = trainer.fit(loader, validation ? &*validation : nullptr);
    if (report.result.stop != Stop::interrupted) report.test = keep_and_test(trainer, model, c, sets, options);
  } catch (const std::exception& e) {
    log->failed(e);
    if (c.report) report_failure(c, folder, model, log->record());
    throw;
  }
  log->end(report.result, report.test);
  if (c.report) {
    try {
      write_report(c, sets, model, trainer, log->record(), report);
    } catch (const Error& e) { warn(fmt::format("there is no report: {}", e.what())); }
  }
  return report;
}

}  // namespace

std::string make_run_folder(const std::string& wanted) {
  std::error_code error;
  fs::path path(wanted);
  if (!path.has_filename()) path = path.parent_path();
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), error);
  for (int n = 1; !error; ++n) {
    const std::string name = n == 1 ? path.string() : fmt::format("{}-{}", path.string(), n);
    if (fs::create_directory(name, error)) return name;
    if (error == std::errc::file_exists) error.clear();
  }
  fail(ErrorKind::io, "{}: cannot make this folder: {}", wanted, error.message());
}

Config read_run(const std::string& run, const std::vector<std::string>& overrides) {
  const std::string file = in(run, "config.toml");
  if (!fs::exists(file))
    fail(ErrorKind::io, "{}: not the folder of a run: it has no config.toml (bp train makes runs/NAME)", run);
  return read_config(file, overrides);
}

Report train_run(Config config, const std::string& wanted, const Hooks& hooks) {
  const Datasets sets = load_datasets(config);
  training_loader(config, sets.altered);                  // checks the batch before the folder is made
  config.optimizer(nn::parameters(config.make_model()));  // and the optimizer's values
  return run(config, sets, make_run_folder(wanted), false, hooks);
}

// A run that was killed before its first checkpoint begins anew: its first values depend on the seed alone.
Report resume_run(Config config, const std::string& folder, const Hooks& hooks) {
  const bool began = has_checkpoints(in(folder, "checkpoints"));
  const Datasets sets = load_datasets(config);
  return run(config, sets, folder, began, hooks);
}

nn::Sequential load_model(const Config& config, const std::string& run) {
  nn::Sequential model = config.make_model();
  std::string file = in(run, "model.safetensors");
  if (!fs::exists(file)) file = newest_checkpoint(in(run, "checkpoints"));
  if (file.empty()) fail(ErrorKind::io, "{}: has neither model.safetensors nor a checkpoint that is whole", run);
  load_state(file, model);
  return model;
}

Profile profile_training(Config config, int runs) {
  const Datasets sets = load_datasets(config);
  data::DataLoader loader = training_loader(config, sets.altered);
  nn::Sequential model = config.make_model();
  const std::unique_ptr<optim::Optimizer> optimizer = config.optimizer(nn::parameters(model));
  Options options = config.train;
  options.task = config.task;
  Trainer trainer(model, config.loss, *optimizer, options);
  const std::optional<data::Batch> batch = loader.next();
  if (!batch->y.buffer) fail(ErrorKind::value, "[profile] the data have no targets");
  return trainer.profile(to_tensor(batch->x), to_tensor(batch->y), runs);
}

RateSearch search_rate(Config config, const RateSearchOptions& options) {
  const Datasets sets = load_datasets(config);
  data::DataLoader loader = training_loader(config, sets.altered);
  nn::Sequential model = config.make_model();
  const std::unique_ptr<optim::Optimizer> optimizer = config.optimizer(nn::parameters(model));
  return Trainer(model, config.loss, *optimizer, config.train).find_rate(loader, options);
}

Metrics evaluate_run(Config& config, const std::string& run, Split split) {
  nn::Sequential model = load_model(config, run);
  const std::unique_ptr<optim::Optimizer> optimizer = config.optimizer(nn::parameters(model));
  data::DataLoader loader = evaluation_loader(config, load_split(config, split));
  return Trainer(model, config.loss, *optimizer, config.train).evaluate(loader);
}

std::int64_t write_predictions(const Config& config, const nn::Sequential& model, const Inputs& inputs,
                               const std::string& path) {
  const bool classes = config.task == Task::classification, binary = config.task == Task::binary;
  auto step = compile(
      [&](const Tensor& x) {
        const Tensor y = model(x);
        return classes ? softmax(y) : binary ? sigmoid(y) : y;
      },
      {.threads = config.train.threads, .name = "prediction"});
  io::CsvWriter out(path);
  data::DataLoader loader = evaluation_loader(config, inputs.rows);
  std::int64_t done = 0;
  while (const std::optional<data::Batch> batch = loader.next()) {
    const auto n = static_cast<std::size_t>(batch->x.rows());
    std::span<const std::string> names = inputs.names;
    if (!names.empty()) names = names.subspan(static_cast<std::size_t>(done), n);
    out.append(prediction_table(config, convert(to_array(step(to_tensor(batch->x))), config.dtype), names));
    done += batch->x.rows();
  }
  out.commit();
  return done;
}

}  // namespace bp::train

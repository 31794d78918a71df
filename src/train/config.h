// A run described by a TOML file: data, model, loss, optimizer, schedule, training. docs/config.md lists the keys. Read
// by the program bp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bp/datasets.h"
#include "bp/layers.h"
#include "bp/optim.h"
#include "bp/train.h"
#include "train/toml.h"

namespace bp::train {

// Where a split comes from. `targets` is empty for CSV, whose file holds both.
struct Files {
  std::string inputs, targets;
};

struct DataConfig {
  std::string format;
  Files train;
  std::optional<Files> validation, test;
  double validation_fraction = 0;
  std::int64_t limit = 0;
  std::vector<std::string> classes;
  std::optional<double> scale;
  std::vector<double> mean, std;
  bool normalize = false;
  std::string target;  // CSV
  io::CsvOptions csv;
};

struct Config {
  Node root;  // with defaults and overrides: what config.toml of the run holds
  std::string name;
  std::uint64_t seed = 0;
  DType dtype = DType::f32;
  DataConfig data;
  Shape input;           // of one sample
  Shape output;          // of one sample
  nn::Sequential model;  // without values
  Task task = Task::classification;
  Loss loss;
  double lr = 0;
  std::function<std::unique_ptr<optim::Optimizer>(std::span<const Variable>)> optimizer;
  // For an epoch of so many batches; empty when the rate stays.
  std::function<Schedule(std::int64_t batches)> schedule;
  std::optional<ReduceOnPlateauOptions> plateau;
  bool schedule_by_epoch = false;
  std::int64_t batch = 32, eval_batch = 32;
  bool shuffle = true;
  bool keep_best = false;
  Options train;  // epochs, patience, min_delta, tolerance, threads

  // The model with its first values, which depend on the seed alone.
  nn::Sequential make_model(DType as) const;
  nn::Sequential make_model() const { return make_model(dtype); }
};

// `overrides` are "key=value". Everything is checked, layer by layer, before any data are read. Throws Error(config)
// naming file, line and key; Error(io) when the file cannot be read.
Config read_config(const std::string& path, const std::vector<std::string>& overrides = {});
Config parse_config(Node root, const std::string& folder, const std::string& name);

struct Datasets {
  data::ArrayDataset train;
  std::optional<data::ArrayDataset> validation, test;
};
// Reads and checks the files (labels, NaN, shapes against the model). What is found out on the way (means and
// deviations, categories, input columns) goes into `config` and its tree, so that other data are treated alike.
Datasets load_datasets(Config& config);
enum class Split { train, validation, test };
// One split, treated as the configuration of a finished run says.
data::ArrayDataset load_split(Config& config, Split split);
// Inputs alone, for predictions: [N, input..]. The format is told by the name: .csv, .npy, otherwise IDX.
Array load_inputs(const Config& config, const std::string& path);

// Used by parse_config.
class Section;
nn::Sequential read_layers(Node& layers, const std::string& path, Shape& shape);
void read_data(Section data, const std::string& folder, Config& config);

}  // namespace bp::train

// A run described by a TOML file: data, model, loss, optimizer, schedule, training. docs/config.md lists the keys. Read
// by the program bp.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bp/augment.h"
#include "bp/datasets.h"
#include "bp/images.h"
#include "bp/layers.h"
#include "bp/optim.h"
#include "bp/stream.h"
#include "bp/text.h"
#include "bp/train.h"
#include "train/search.h"
#include "train/toml.h"

namespace bp::train {

// Where a split comes from. `targets` is empty for CSV, text, tokens and folders of images, which hold both.
struct Files {
  std::string inputs, targets;
};

struct DataConfig {
  std::string format;
  Files train;
  std::optional<Files> validation, test;
  double validation_fraction = 0;
  std::int64_t limit = 0, max_pixels = 0;
  int workers = 1;
  double timeout = 0;
  std::optional<bool> stream;  // unset: by the size of the file
  std::size_t shuffle_buffer = 0;
  std::vector<std::string> classes;
  std::optional<double> scale;
  std::vector<double> mean, std;
  bool normalize = false;
  std::string target;  // CSV
  io::CsvOptions csv;
  bool one_hot = false;
  std::optional<data::Vocabulary> vocabulary;  // text; known before the model is built
  std::int64_t context = 0, blocks = 0, stride = 0;
  std::string token_type;  // of ids in shards, after `header` bytes
  std::int64_t header = 0;
};

struct Config {
  Node root;  // with defaults and overrides: what config.toml of the run holds
  std::string name;
  std::uint64_t seed = 0;
  DType dtype = DType::f32;
  DataConfig data;
  augment::Pipeline augment;
  Shape input;  // of one sample
  DType input_dtype() const { return data.vocabulary || data.format == "tokens" ? DType::i64 : dtype; }
  Shape output;          // of one sample
  nn::Sequential model;  // without values
  Task task = Task::classification;
  Loss loss;
  double lr = 0;
  std::function<std::unique_ptr<optim::Optimizer>(std::span<const Variable>)> optimizer;
  // For an epoch of so many updates; empty when the rate stays.
  std::function<Schedule(std::int64_t updates)> schedule;
  std::optional<ReduceOnPlateauOptions> plateau;
  bool schedule_by_epoch = false;
  std::int64_t batch = 32, eval_batch = 32;
  bool shuffle = true;
  bool keep_best = false;
  bool tensorboard = true, report = true;
  std::optional<Search> search;  // [tune], which is no part of `root`: bp train passes it over
  Options train;                 // what [train] says, but for paths

  // The model with its first values, which depend on the seed alone.
  nn::Sequential make_model(DType as) const;
  nn::Sequential make_model() const { return make_model(dtype); }
};

// `overrides` are "key=value". Everything is checked, layer by layer, before any data are read. Throws Error(config)
// naming file, line and key; Error(io) when the file cannot be read.
Config read_config(const std::string& path, const std::vector<std::string>& overrides = {});
Config parse_config(Node root, const std::string& folder, const std::string& name);

using data::SourcePtr;
struct Datasets {
  SourcePtr train, validation, test;  // the last two null when there are none
  SourcePtr altered;                  // train through [[augment]]; train itself without
  std::string streamed;               // what is read from disk and how it is shuffled; empty: nothing
};
// Reads and checks the files (labels, NaN, shapes against the model). What is found out on the way (means and
// deviations, categories, input columns) goes into `config` and its tree, so that other data are treated alike.
Datasets load_datasets(Config& config);
enum class Split { train, validation, test };
// One split, treated as the configuration of a finished run says.
SourcePtr load_split(Config& config, Split split);
// Inputs alone, for predictions: x [N, input..], without targets. The format is told by the name: .csv, .npy, otherwise
// IDX; for a model of images from folders a folder or one image, whose paths then name the rows. Images are decoded
// when they are fetched; other files are streamed as those of training are.
struct Inputs {
  SourcePtr rows;
  std::vector<std::string> names;  // of the rows; empty where they have none
};
Inputs load_inputs(const Config& config, const std::string& path);

// Used by parse_config and by each other.
class Section;
// A path of the configuration: relative to its file, or to the working directory where --set gave it.
std::string resolved_path(const Node& path, const std::string& folder);
// Where a split comes from; throws Error(config) when the configuration names none.
const Files& files_of(const Config& config, Split split);
nn::Sequential read_layers(Node& layers, const std::string& path, Shape& shape);
void read_data(Section data, const std::string& folder, Config& config);
// Bytes become (x * scale - mean) / std: as what is divided by 255 and normalised, of so many channels.
augment::StepPtr normalization(const DataConfig& data, double scaled_by);

// Targets as the loss wants them: class ids in i64, values in the model's dtype, [N] as [N, 1]. Checked; `rows` are
// their numbers in messages.
Array adapted_targets(const Config& config, const Array& targets, const std::string& path,
                      std::span<const std::int64_t> rows = {});
// [N, input..]; throws Error(shape), opened by `path`, for rows of another size.
Array reshaped_inputs(const Config& config, const Array& inputs, const std::string& path);
// Mean and deviation that make x * scale, then (x - mean) / std, of what normalized() is given; none: x stays as it is.
std::optional<data::Moments> rescaling(const Config& config, DType inputs);
// Those of the training rows, which become mean and std of the configuration.
void record_moments(Config& config, const data::Moments& moments, DType inputs);
// The steps of [[augment]] on images that are scaled only, then mean and std.
augment::Pipeline altering(const Config& config);
Config without_moments(const Config& config);
io::CsvOptions csv_options(const Config& config);
// Of tables to predict: without the target, and no row may be left out.
io::CsvOptions input_options(const Config& config);
// Keeps the input columns and the texts of ids of a table, so that other files are read alike.
void record_columns(Config& config, const io::Table& table);

// Files that stay on disk (config_stream.cc).
bool is_streamed(const Config& config, const Files& files);
bool is_compressed(const std::string& path);
// Throws Error(value), with the remedy, for a text that is more than memory holds together with its ids.
void check_text_fits(const std::string& path);
Datasets load_streams(Config& config);
SourcePtr load_stream(Config& config, const Files& files);
// Rows to predict: of a table, or of an NPY or IDX file.
SourcePtr load_input_stream(const Config& config, const std::string& path, bool table);
// One split that is no part of the training file, from memory or disk.
SourcePtr load_whole(Config& config, const Files& files);

// format = "images" (config_images.cc).
Datasets load_image_folders(Config& config);
SourcePtr load_image_folder(Config& config, Split split);
Inputs load_image_inputs(const Config& config, const std::string& path);

// [[augment]] (config_augment.cc), for images of the model's input.
augment::Pipeline read_augment(Node& steps, const Config& config);

// format = "text" (config_text.cc). Finds the vocabulary out, and puts its size in the place of "vocabulary" in
// [model].
void read_vocabulary(Config& config, const std::string& folder);
void read_text_options(Section& data, Config& config);
// What text and tokens share: the context, which is model.input, and a loss by classes. `what` names the data.
void read_context(Section& data, Config& config, const char* what);
Datasets load_text(Config& config);
SourcePtr load_text(Config& config, Split split);

// format = "tokens" (config_tokens.cc).
void read_token_options(Section& data, Config& config);
Datasets load_tokens(Config& config);
SourcePtr load_tokens(Config& config, Split split);

}  // namespace bp::train

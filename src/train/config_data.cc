// [data]: files become datasets, checked against the model and treated alike in training, evaluation and prediction.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

Files read_files(Section& s, std::string_view key, const std::string& folder) {
  Node& n = *s.value(key);
  const bool single = s.type() == "csv" || s.type() == "text" || s.type() == "tokens" || s.type() == "images";
  if (single != (n.kind == Node::Kind::text))
    s.wrong(key, fmt::format("with format = \"{}\" expected {}, got {}", s.type(),
                             single ? "a path" : "{ inputs = path, targets = path }", n.str()));
  const auto path = [&](Node& at) {
    std::string text = resolved_path(at, folder);
    at = Node{Node::of(text)};
    return text;
  };
  if (single) return {path(n), {}};
  for (const auto& [name, value] : n.entries)
    if (name != "inputs" && name != "targets")
      s.wrong(key, fmt::format("unknown key \"{}\": expected inputs and targets", name));
  Files files;
  for (const char* part : {"inputs", "targets"}) {
    Node* at = n.find(part);
    if (at == nullptr || at->kind != Node::Kind::text)
      s.wrong(key, fmt::format("expected a path for {}, got {}", part, at == nullptr ? "nothing" : at->str()));
    (part[0] == 'i' ? files.inputs : files.targets) = path(*at);
  }
  return files;
}

void read_csv_options(Section& s, Config& c) {
  DataConfig& d = c.data;
  d.target = s.text("target");
  d.one_hot = s.boolean("one_hot");
  d.csv.columns = s.texts("columns");
  d.csv.categorical = s.texts("categorical");
  if (c.task == Task::classification &&
      std::find(d.csv.categorical.begin(), d.csv.categorical.end(), d.target) == d.csv.categorical.end())
    d.csv.categorical.push_back(d.target);
  const std::string delimiter = s.text("delimiter");
  if (delimiter.size() != 1) s.wrong("delimiter", fmt::format("expected one character, got \"{}\"", delimiter));
  d.csv.delimiter = delimiter[0];
  d.csv.missing = s.text("missing") == "error" ? io::Missing::error : io::Missing::drop_row;
  d.csv.dtype = c.dtype;
  if (const Node* table = s.value("categories"))
    for (const auto& [column, values] : table->entries) {
      if (values.kind != Node::Kind::array) s.wrong("categories", fmt::format("{}: expected a list of texts", column));
      for (const Node& v : values.items) d.csv.categories[column].push_back(v.text);
    }
}

data::ArrayDataset with_checks(const Config& c, const Files& files, const Array& x, const Array& y,
                               const std::vector<std::string>& classes) {
  data::check_finite(x, files.inputs.c_str());
  const std::string& targets = files.targets.empty() ? files.inputs : files.targets;
  return data::ArrayDataset(reshaped_inputs(c, x, files.inputs), adapted_targets(c, y, targets), classes);
}

data::ArrayDataset read_idx(const Config& c, const Files& files) {
  const Array x = io::read_idx(files.inputs), y = io::read_idx(files.targets);
  if (x.rows() != y.rows())
    fail(ErrorKind::format, "{} holds {} rows, {} holds {}: they do not belong together", files.inputs, x.rows(),
         files.targets, y.rows());
  return with_checks(c, files, x, y, c.data.classes);
}

data::ArrayDataset read_npy(const Config& c, const Files& files) {
  Array x = io::read_npy(files.inputs);
  if (is_float(x.dtype)) x = convert(x, c.dtype);
  const Array y = io::read_npy(files.targets);
  if (x.rows() != y.rows())
    fail(ErrorKind::format, "{} holds {} rows, {} holds {}: they do not belong together", files.inputs, x.rows(),
         files.targets, y.rows());
  return with_checks(c, files, x, y, c.data.classes);
}

Array input_columns(const Config& c, const io::Table& table) {
  return c.data.one_hot ? table.one_hot(c.data.csv.columns, c.dtype) : table.matrix(c.data.csv.columns, c.dtype);
}

data::ArrayDataset read_csv(Config& c, const Files& files, bool training) {
  const io::Table table = io::read_csv(files.inputs, csv_options(c));
  table.column(c.data.target);  // throws, naming the nearest, when it is missing
  if (training) record_columns(c, table);
  return with_checks(c, files, input_columns(c, table), table.column(c.data.target).values, c.data.classes);
}

data::ArrayDataset read_files(Config& c, const Files& files, bool training) {
  if (c.data.format == "csv") return read_csv(c, files, training);
  return c.data.format == "idx" ? read_idx(c, files) : read_npy(c, files);
}

// x * scale, then (x - mean) / std.
data::ArrayDataset transformed(const Config& c, const data::ArrayDataset& set) {
  const std::optional<data::Moments> m = rescaling(c, set.inputs().dtype);
  return m ? set.normalized(m->mean, m->stddev) : set;
}

void read_image_options(Section& s, Config& c) {
  c.data.max_pixels = s.integer("max_pixels");
  if (c.task != Task::classification) s.wrong("format", "the folders of images are classes: expected cross_entropy");
  if (c.input.rank() != 3 || (c.input[2] != 1 && c.input[2] != 3))
    s.wrong("format", fmt::format("expected model.input = [height, width, 1 or 3], got {}", c.input));
}

}  // namespace

Array reshaped_inputs(const Config& c, const Array& x, const std::string& path) {
  Shape shape{x.rows()};
  for (int i = 0; i < c.input.rank(); ++i) shape.push_back(c.input[i]);
  if (x.rows() == 0) fail(ErrorKind::format, "{}: holds no rows", path);
  if (x.numel() / x.rows() != c.input.numel())
    fail(ErrorKind::shape, "{}: rows of {} do not fit model.input {}", path, x.shape, c.input);
  return x.reshaped(shape);
}

Array adapted_targets(const Config& c, const Array& y, const std::string& path, std::span<const std::int64_t> rows) {
  if (c.task == Task::classification && is_integer(y.dtype)) {
    const Array ids = convert(y, DType::i64);
    data::check_labels(ids, c.output.back(), path.c_str(), rows);
    return ids;
  }
  Array values = convert(y, c.dtype);
  if (values.shape.rank() == 1 && c.output.rank() == 1) values = values.reshaped({values.rows(), 1});
  data::check_finite(values, path.c_str(), rows);
  Shape expected{values.rows()};
  for (int i = 0; i < c.output.rank(); ++i) expected.push_back(c.output[i]);
  if (values.shape != expected)
    fail(ErrorKind::shape, "{}: targets {} do not fit the model's output {}", path, y.shape, expected);
  return values;
}

io::CsvOptions csv_options(const Config& c) {
  io::CsvOptions options = c.data.csv;
  if (!options.columns.empty()) options.columns.push_back(c.data.target);
  return options;
}

io::CsvOptions input_options(const Config& c) {
  io::CsvOptions options = c.data.csv;   // the target need not be there
  options.missing = io::Missing::error;  // every row gets its prediction
  std::erase(options.categorical, c.data.target);
  options.categories.erase(c.data.target);
  return options;
}

void record_columns(Config& c, const io::Table& table) {
  DataConfig& d = c.data;
  Node& tree = subtable(c.root, "data");
  if (d.csv.columns.empty())
    for (const io::Column& column : table.columns)
      if (column.name != d.target) d.csv.columns.push_back(column.name);
  tree.set("columns", Node::list(d.csv.columns));
  Node texts;
  for (const io::Column& column : table.columns) {
    if (column.categories.empty()) continue;
    d.csv.categories[column.name] = column.categories;
    texts.set(column.name, Node::list(column.categories));
    if (column.name == d.target) d.classes = column.categories;
  }
  if (!texts.entries.empty()) tree.set("categories", std::move(texts));
  if (!d.classes.empty()) tree.set("classes", Node::list(d.classes));
}

// normalized() divides bytes by 255 itself, so that is taken back.
std::optional<data::Moments> rescaling(const Config& c, DType inputs) {
  const DataConfig& d = c.data;
  const bool bytes = inputs == DType::u8;
  if (!bytes && !d.scale && d.mean.empty() && d.std.empty() && is_float(inputs)) return std::nullopt;
  const double base = bytes ? 1.0 / 255 : 1.0, scale = d.scale.value_or(base);
  const std::size_t n = std::max<std::size_t>(1, std::max(d.mean.size(), d.std.size()));
  const auto spread = [&](const std::vector<double>& values, double otherwise) {
    std::vector<float> all;
    for (std::size_t i = 0; i < n; ++i)
      all.push_back(
          static_cast<float>((values.empty() ? otherwise : values[values.size() == 1 ? 0 : i]) * (base / scale)));
    return all;
  };
  return data::Moments{spread(d.mean, 0), spread(d.std, 1)};
}

Config without_moments(const Config& c) {
  Config scaled = c;
  scaled.data.mean.clear();
  scaled.data.std.clear();
  return scaled;
}

augment::Pipeline altering(const Config& c) {
  std::vector<augment::StepPtr> steps = c.augment.steps();
  steps.push_back(normalization(c.data, 1));
  return augment::Pipeline(std::move(steps));
}

void record_moments(Config& c, const data::Moments& m, DType inputs) {
  DataConfig& d = c.data;
  const double base = inputs == DType::u8 ? 1.0 / 255 : 1.0, ratio = d.scale.value_or(base) / base;
  d.mean.assign(m.mean.begin(), m.mean.end());
  d.std.assign(m.stddev.begin(), m.stddev.end());
  for (double& x : d.mean) x *= ratio;
  for (double& x : d.std) x *= ratio;
  Node& tree = subtable(c.root, "data");
  tree.set("mean", Node::list(d.mean));
  tree.set("std", Node::list(d.std));
  tree.set("normalize", Node::of(false));
  d.normalize = false;
}

augment::StepPtr normalization(const DataConfig& d, double scaled_by) {
  const std::size_t channels = std::max<std::size_t>(1, std::max(d.mean.size(), d.std.size()));
  const auto spread = [&](const std::vector<double>& v, double otherwise) {
    std::vector<float> all;
    for (std::size_t c = 0; c < channels; ++c)
      all.push_back(static_cast<float>((v.empty() ? otherwise : v[v.size() == 1 ? 0 : c]) / scaled_by));
    return all;
  };
  return augment::normalize(spread(d.mean, 0), spread(d.std, 1));
}

std::string resolved_path(const Node& n, const std::string& folder) {
  const std::filesystem::path path(n.text);
  return std::filesystem::absolute(n.command_line ? path : std::filesystem::path(folder) / path)
      .lexically_normal()
      .string();
}

const Files& files_of(const Config& c, Split split) {
  const DataConfig& d = c.data;
  if (split == Split::train) return d.train;
  const std::optional<Files>& files = split == Split::test ? d.test : d.validation;
  if (!files)
    fail(ErrorKind::config, "the configuration names no {} data: give data.{}",
         split == Split::test ? "test" : "validation", split == Split::test ? "test" : "validation");
  return *files;
}

void read_data(Section s, const std::string& folder, Config& c) {
  DataConfig& d = c.data;
  d.format = s.type();
  d.train = read_files(s, "train", folder);
  if (s.has("validation")) d.validation = read_files(s, "validation", folder);
  if (s.has("test")) d.test = read_files(s, "test", folder);
  if (!d.validation || s.has("validation_fraction")) d.validation_fraction = s.number("validation_fraction");
  if (d.validation && d.validation_fraction > 0)
    s.wrong("validation_fraction", "data.validation is given too: give one of them");
  d.limit = s.integer("limit");
  d.workers = static_cast<int>(s.integer("workers"));
  d.timeout = s.number("timeout");
  if (d.format == "text") return read_text_options(s, c);
  if (d.format == "tokens") return read_token_options(s, c);
  d.classes = s.texts("classes");
  if (c.task == Task::classification && !d.classes.empty() &&
      static_cast<std::int64_t>(d.classes.size()) != c.output.back())
    s.wrong("classes", fmt::format("{} names for a model of {} outputs", d.classes.size(), c.output.back()));
  if (s.has("scale")) d.scale = s.number("scale");
  d.mean = s.numbers("mean");
  d.std = s.numbers("std");
  for (const auto& [key, values] : {std::pair("mean", &d.mean), std::pair("std", &d.std)})
    if (values->size() > 1 && static_cast<std::int64_t>(values->size()) != c.input.back())
      s.wrong(key, fmt::format("expected 1 or {} numbers, one a channel, got {}", c.input.back(), values->size()));
  d.normalize = s.boolean("normalize");
  if (d.normalize && !(d.mean.empty() && d.std.empty()))
    s.wrong("normalize", "mean or std is given too: give one of them");
  if (d.format == "csv") read_csv_options(s, c);
  if (d.format != "images") {
    if (s.has("stream")) d.stream = s.boolean("stream");
    d.shuffle_buffer = s.bytes("shuffle_buffer");
  }
  if (d.format == "images") read_image_options(s, c);
}

Datasets load_datasets(Config& c) {
  if (c.data.format == "text") return load_text(c);
  if (c.data.format == "tokens") return load_tokens(c);
  if (c.data.format == "images") return load_image_folders(c);
  if (is_streamed(c, c.data.train)) return load_streams(c);
  data::ArrayDataset train = read_files(c, c.data.train, true);
  if (c.data.limit > 0) train = train.take(c.data.limit);
  std::optional<data::ArrayDataset> validation;
  if (c.data.validation_fraction > 0) {
    auto [larger, smaller] = train.split(c.data.validation_fraction, Key{c.seed});
    train = larger;
    validation = smaller;
  }
  if (c.data.normalize) record_moments(c, train.moments(), train.inputs().dtype);
  const auto ready = [&](const data::ArrayDataset& set) {
    return std::make_shared<const data::ArrayDataset>(transformed(c, set));
  };
  Datasets sets;
  sets.train = ready(train);
  sets.altered =
      c.augment.empty() ? sets.train : augment::augmented(transformed(without_moments(c), train), altering(c));
  if (validation) sets.validation = ready(*validation);
  if (c.data.validation) sets.validation = load_whole(c, *c.data.validation);
  if (c.data.test) sets.test = load_whole(c, *c.data.test);
  return sets;
}

SourcePtr load_whole(Config& c, const Files& files) {
  if (is_streamed(c, files)) return load_stream(c, files);
  return std::make_shared<const data::ArrayDataset>(transformed(c, read_files(c, files, false)));
}

SourcePtr load_split(Config& c, Split split) {
  if (c.data.format == "text") return load_text(c, split);
  if (c.data.format == "tokens") return load_tokens(c, split);
  if (c.data.format == "images") return load_image_folder(c, split);
  if (split == Split::test || (split == Split::validation && c.data.validation))
    return load_whole(c, files_of(c, split));
  Datasets sets = load_datasets(c);
  if (split == Split::train) return sets.train;
  if (!sets.validation) files_of(c, split);  // throws
  return sets.validation;
}

Inputs load_inputs(const Config& c, const std::string& path) {
  if (c.data.format == "text")
    fail(ErrorKind::config, "{}: the model was trained on text: expected bp sample, which continues one", path);
  if (c.data.format == "tokens")
    fail(ErrorKind::config, "{}: the model was trained on tokens: expected bp eval, or nn::generate() in C++", path);
  if (c.data.format == "images") return load_image_inputs(c, path);
  const bool table = path.ends_with(".csv") || path.ends_with(".csv.gz");
  if (table && c.data.format != "csv")
    fail(ErrorKind::config, "{}: the model was trained on {} files: expected those", path, c.data.format);
  if (is_streamed(c, {path, {}})) return {load_input_stream(c, path, table), {}};
  Array x;
  if (table) {
    x = input_columns(c, io::read_csv(path, input_options(c)));
  } else if (path.ends_with(".npy")) {
    x = io::read_npy(path);
    if (is_float(x.dtype)) x = convert(x, c.dtype);
  } else {
    x = io::read_idx(path);
  }
  data::check_finite(x, path.c_str());
  return {std::make_shared<const data::ArrayDataset>(transformed(c, data::ArrayDataset(reshaped_inputs(c, x, path)))),
          {}};
}

}  // namespace bp::train

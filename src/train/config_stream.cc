// [data] stream: rows that stay on disk until a batch wants them, fitted to the model one batch at a time.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "base/error.h"
#include "data/shards.h"
#include "train/config.h"

namespace bp::train {

namespace {

// Of the machine, or what its control group is allowed.
std::uint64_t memory_bytes() {
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  std::uint64_t bytes = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)), allowed = 0;
  for (const char* limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (std::ifstream file(limit); file >> allowed && allowed > 0) bytes = std::min(bytes, allowed);
  return bytes;
}

// What a path stands for, or itself: whoever opens it says what is wrong.
std::vector<std::string> files_at(const std::string& path) {
  return data::is_pattern(path) ? data::shard_paths(path) : std::vector<std::string>{path};
}

std::uint64_t size_at(const std::string& path) {
  std::uint64_t bytes = 0;
  for (const std::string& file : files_at(path)) {
    std::error_code error;
    if (const std::uintmax_t n = std::filesystem::file_size(file, error); !error) bytes += n;
  }
  return bytes;
}

std::uint64_t size_of_files(const Files& f) { return size_at(f.inputs) + (f.targets.empty() ? 0 : size_at(f.targets)); }

// Compressed, or several files.
bool reads_forward(const Files& f) {
  const auto forward = [](const std::string& path) {
    return !path.empty() && (data::is_pattern(path) || is_compressed(path));
  };
  return forward(f.inputs) || forward(f.targets);
}

// Batches as the model and the loss want them, checked when they are read.
class Fitted final : public data::Source {
 public:
  Fitted(SourcePtr source, const Config& c, const Files& files)
      : source_(std::move(source)),
        config_(c),
        inputs_(files.inputs),
        targets_(files.targets.empty() ? files.inputs : files.targets) {}
  std::int64_t size() const override { return source_->size(); }
  std::string name() const override { return source_->name(); }
  bool reads_forward() const override { return source_->reads_forward(); }
  data::Batch fetch(std::span<const std::int64_t> rows, Key key) const override {
    data::Batch batch = source_->fetch(rows, key);
    if (is_float(batch.x.dtype) && config_.data.format != "idx") batch.x = convert(batch.x, config_.dtype);
    data::check_finite(batch.x, inputs_.c_str(), rows);
    Array x = reshaped_inputs(config_, batch.x, inputs_);
    return {std::move(x), batch.y.buffer ? adapted_targets(config_, batch.y, targets_, rows) : Array{}};
  }

 private:
  SourcePtr source_;
  Config config_;
  std::string inputs_, targets_;
};

SourcePtr open_table(Config& c, const Files& files, bool training, const data::ForwardOptions& forward) {
  const auto learn = [&](const io::Table& columns) {
    columns.column(c.data.target);  // throws, naming the nearest, when it is missing
    if (training) record_columns(c, columns);
  };
  if (reads_forward(files)) {
    auto rows =
        std::make_shared<const data::ForwardCsv>(files.inputs, c.data.target, csv_options(c), forward, c.data.one_hot);
    learn(rows->columns());
    return rows;
  }
  io::CsvFile file(files.inputs, csv_options(c));
  learn(file.read(std::span<const std::int64_t>{}));
  return std::make_shared<const data::CsvRows>(std::move(file), c.data.target, c.data.one_hot);
}

// Rows of the files, fitted but not yet scaled.
SourcePtr open_files(Config& c, const Files& files, bool training) {
  const data::ForwardOptions forward{training && c.shuffle ? c.data.shuffle_buffer : 0};
  SourcePtr rows;
  if (c.data.format == "csv")
    rows = open_table(c, files, training, forward);
  else if (reads_forward(files))
    rows = std::make_shared<const data::ForwardArrays>(files.inputs, files.targets, forward);
  else
    rows = std::make_shared<const data::FileRows>(files.inputs, files.targets);
  return std::make_shared<const Fitted>(std::move(rows), c, files);
}

DType dtype_of_inputs(const SourcePtr& source) {
  const std::int64_t first = 0;
  return source->fetch({&first, 1}, Key{}).x.dtype;  // the first look at the data: what does not fit is said here
}

SourcePtr scaled(const Config& c, const SourcePtr& source, DType inputs) {
  std::optional<data::Moments> m = rescaling(c, inputs);
  return m ? data::normalized(source, std::move(m->mean), std::move(m->stddev)) : source;
}

std::string order_of(const Config& c, const data::Source& source) {
  if (!c.shuffle) return "in their order";
  if (source.reads_forward())
    return fmt::format("shuffled by files and a buffer of {} MiB", c.data.shuffle_buffer >> 20);
  return source.size() <= data::kTabledRows ? "shuffled exactly" : "shuffled exactly, by a formula instead of a table";
}

std::string told(const Config& c, const data::Source& source) {
  const Files& f = c.data.train;
  return fmt::format("streams {:.2f} GB from {}{}, {}", static_cast<double>(size_of_files(f)) / 1e9, f.inputs,
                     f.targets.empty() ? std::string() : " and " + f.targets, order_of(c, source));
}

// What needs rows that can be chosen.
void refuse_choices(const Config& c, const data::Source& source) {
  if (!source.reads_forward()) return;
  for (const auto& [asked, key] :
       {std::pair(c.data.limit > 0, "limit"), {c.data.validation_fraction > 0, "validation_fraction"}})
    if (asked)
      fail(ErrorKind::config,
           "data.{}: {} can only be read forward: give data.validation, or decompress it into one file", key,
           source.name());
}

}  // namespace

bool is_compressed(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return file.get() == 0x1f && file.get() == 0x8b;
}

void check_text_fits(const std::string& path) {
  const std::uint64_t bytes = size_at(path), memory = memory_bytes();
  if (2 * bytes <= memory) return;  // the text, and an id of a byte or more for each of its characters
  fail(ErrorKind::value,
       "{}: {:.1f} GB of text and their ids do not fit into {:.1f} GB of memory: expected data.unit = \"byte\", of "
       "which "
       "the file stays on disk, or data.format = \"tokens\", ids that a tokenizer made of it",
       path, static_cast<double>(bytes) / 1e9, static_cast<double>(memory) / 1e9);
}

bool is_streamed(const Config& c, const Files& files) {
  constexpr std::uint64_t kShare = 4;
  constexpr std::uint64_t kExpansion = 4;  // of what is compressed, about
  const std::uint64_t factor = is_compressed(files.inputs) ? kExpansion : 1;
  return c.data.stream.value_or(data::is_pattern(files.inputs) ||
                                size_of_files(files) * factor > memory_bytes() / kShare);
}

SourcePtr load_stream(Config& c, const Files& files) {
  const SourcePtr rows = open_files(c, files, false);
  return scaled(c, rows, dtype_of_inputs(rows));
}

SourcePtr load_input_stream(const Config& c, const std::string& path, bool table) {
  const bool forward = reads_forward({path, {}});
  SourcePtr rows;
  if (table && forward)
    rows = std::make_shared<const data::ForwardCsv>(path, "", input_options(c), data::ForwardOptions{}, c.data.one_hot);
  else if (table)
    rows = std::make_shared<const data::CsvRows>(io::CsvFile(path, input_options(c)), "", c.data.one_hot);
  else if (forward)
    rows = std::make_shared<const data::ForwardArrays>(path);
  else
    rows = std::make_shared<const data::FileRows>(path);
  rows = std::make_shared<const Fitted>(std::move(rows), c, Files{path, {}});
  return scaled(c, rows, dtype_of_inputs(rows));
}

Datasets load_streams(Config& c) {
  SourcePtr train = open_files(c, c.data.train, true), validation;
  const DType inputs = dtype_of_inputs(train);
  refuse_choices(c, *train);
  if (c.data.limit > 0) train = data::take(train, c.data.limit);
  if (c.data.validation_fraction > 0)
    std::tie(train, validation) = data::split(train, c.data.validation_fraction, Key{c.seed});
  if (c.data.normalize) record_moments(c, data::moments(*train, Key{c.seed}), inputs);
  Datasets sets;
  sets.train = scaled(c, train, inputs);
  sets.altered =
      c.augment.empty() ? sets.train : augment::augmented(scaled(without_moments(c), train, inputs), altering(c));
  if (validation) sets.validation = scaled(c, validation, inputs);
  if (c.data.validation) sets.validation = load_whole(c, *c.data.validation);
  if (c.data.test) sets.test = load_whole(c, *c.data.test);
  sets.streamed = told(c, *train);
  return sets;
}

}  // namespace bp::train

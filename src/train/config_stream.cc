// [data] stream: rows that stay on disk until a batch wants them, fitted to the model one batch at a time.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "base/error.h"
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

std::uint64_t size_of_file(const std::string& path) {
  std::error_code error;
  const std::uintmax_t bytes =
      std::filesystem::is_regular_file(path, error) ? std::filesystem::file_size(path, error) : 0;
  return error ? 0 : bytes;  // whoever opens it says what is wrong
}

std::uint64_t size_of_files(const Files& f) {
  return size_of_file(f.inputs) + (f.targets.empty() ? 0 : size_of_file(f.targets));
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
    return {reshaped_inputs(config_, batch.x, inputs_), adapted_targets(config_, batch.y, targets_, rows)};
  }

 private:
  SourcePtr source_;
  Config config_;
  std::string inputs_, targets_;
};

// Rows of the files, fitted but not yet scaled.
SourcePtr open_files(Config& c, const Files& files, bool training) {
  SourcePtr rows;
  if (c.data.format == "csv") {
    io::CsvFile file(files.inputs, csv_options(c));
    const std::int64_t first = 0;
    if (training) {
      const io::Table one = file.read({&first, 1});
      one.column(c.data.target);  // throws, naming the nearest, when it is missing
      record_columns(c, one);
    }
    rows = std::make_shared<const data::CsvRows>(std::move(file), c.data.target, c.data.one_hot);
  } else {
    rows = std::make_shared<const data::FileRows>(files.inputs, files.targets);
  }
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

std::string told(const Config& c, const data::Source& source) {
  const std::string paths =
      c.data.train.targets.empty() ? c.data.train.inputs : c.data.train.inputs + " and " + c.data.train.targets;
  const char* order = !c.shuffle                           ? "in their order"
                      : source.size() <= data::kTabledRows ? "shuffled exactly"
                                                           : "shuffled exactly, by a formula instead of a table";
  return fmt::format("streams {:.2f} GB from {}, {}", static_cast<double>(size_of_files(c.data.train)) / 1e9, paths,
                     order);
}

}  // namespace

bool is_streamed(const Config& c, const Files& files) {
  constexpr std::uint64_t kShare = 4;
  return c.data.stream.value_or(size_of_files(files) > memory_bytes() / kShare);
}

SourcePtr load_stream(Config& c, const Files& files) {
  const SourcePtr rows = open_files(c, files, false);
  return scaled(c, rows, dtype_of_inputs(rows));
}

Datasets load_streams(Config& c) {
  SourcePtr train = open_files(c, c.data.train, true), validation;
  const DType inputs = dtype_of_inputs(train);
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

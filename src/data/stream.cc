// Sources that read their rows from disk, and sources around sources.
#include "bp/stream.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "data/moments.h"
#include "data/split.h"
#include "data/table_batch.h"

namespace bp::data {

namespace {
constexpr std::uint64_t kSmallTargets = std::uint64_t{32} << 20;

void check_row(std::int64_t row, std::int64_t size, const std::string& name) {
  if (row < 0 || row >= size) fail(ErrorKind::value, "{}: row {} of {}", name, row, size);
}

// Rows of another source, chosen by a function of their place.
class Selected final : public Source {
 public:
  using Choice = std::function<std::int64_t(std::int64_t)>;
  Selected(SourcePtr source, std::int64_t size, Choice choice)
      : source_(std::move(source)), size_(size), choice_(std::move(choice)) {}
  std::int64_t size() const override { return size_; }
  Batch fetch(std::span<const std::int64_t> rows, Key key) const override {
    std::vector<std::int64_t> chosen;
    chosen.reserve(rows.size());
    for (const std::int64_t r : rows) {
      check_row(r, size_, name());
      chosen.push_back(choice_(r));
    }
    return source_->fetch(chosen, key);
  }
  std::string name() const override { return source_->name(); }
  bool reads_forward() const override { return source_->reads_forward(); }

 private:
  SourcePtr source_;
  std::int64_t size_;
  Choice choice_;
};

class Normalized final : public Source {
 public:
  Normalized(SourcePtr source, std::vector<float> mean, std::vector<float> stddev)
      : source_(std::move(source)), mean_(std::move(mean)), stddev_(std::move(stddev)) {}
  std::int64_t size() const override { return source_->size(); }
  Batch fetch(std::span<const std::int64_t> rows, Key key) const override {
    Batch batch = source_->fetch(rows, key);
    if (!rows.empty()) batch.x = ArrayDataset(batch.x).normalized(mean_, stddev_).all().x;
    return batch;
  }
  void check_targets(std::int64_t classes, const char* what) const override { source_->check_targets(classes, what); }
  std::string name() const override { return source_->name(); }
  bool reads_forward() const override { return source_->reads_forward(); }

 private:
  SourcePtr source_;
  std::vector<float> mean_, stddev_;
};

// Adds up f(channel, value) over rows, in their order.
template <class F>
void each_value(const Source& source, std::span<const std::int64_t> rows, std::size_t channels, F&& f) {
  constexpr std::size_t kChunk = 256;
  for (std::size_t at = 0; at < rows.size(); at += kChunk) {
    const Array x = source.fetch(rows.subspan(at, std::min(kChunk, rows.size() - at)), Key{}).x;
    dispatch(x.dtype, [&](auto zero) {
      std::size_t c = 0;
      for (const auto v : x.values<decltype(zero)>()) {
        f(c, static_cast<double>(v));
        if (++c == channels) c = 0;
      }
    });
  }
}

// All rows, or `count` of them at random, ascending.
std::vector<std::int64_t> sample_of(std::int64_t size, std::int64_t count, Key key) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  if (count == size) return rows;
  std::transform(rows.begin(), rows.end(), rows.begin(), Permutation(size, key.fold("moments")));
  std::sort(rows.begin(), rows.end());
  return rows;
}

}  // namespace

// ---- Files --------------------------------------------------------------------------------------------------------

FileRows::FileRows(const std::string& inputs, const std::string& targets) : inputs_(inputs) {
  if (inputs_.rows() == 0) fail(ErrorKind::format, "{}: holds no rows (shape {})", inputs, inputs_.shape());
  if (targets.empty()) return;
  targets_.emplace(targets);
  if (targets_->rows() != inputs_.rows())
    fail(ErrorKind::format, "{} holds {} rows, {} holds {}: they do not belong together", inputs, inputs_.rows(),
         targets, targets_->rows());
  if (targets_->file_bytes() <= kSmallTargets) small_targets_ = targets_->read(0, targets_->rows());
}

std::uint64_t FileRows::file_bytes() const { return inputs_.file_bytes() + (targets_ ? targets_->file_bytes() : 0); }

Batch FileRows::fetch(std::span<const std::int64_t> rows, Key) const {
  Batch batch{inputs_.read(rows), {}};
  if (small_targets_.buffer)
    batch.y = ArrayDataset(small_targets_).fetch(rows).x;
  else if (targets_)
    batch.y = targets_->read(rows);
  return batch;
}

std::vector<std::string> input_columns(const io::Table& table, const std::string& target, const std::string& path) {
  if (!target.empty()) table.column(target);  // throws, naming the nearest, when it is missing
  std::vector<std::string> inputs;
  for (const io::Column& c : table.columns)
    if (c.name != target) inputs.push_back(c.name);
  if (inputs.empty()) fail(ErrorKind::format, "{}: no column is left as an input beside \"{}\"", path, target);
  return inputs;
}

Batch batch_of(const io::Table& table, const std::vector<std::string>& inputs, const std::string& target, bool one_hot,
               DType dtype) {
  Batch batch{one_hot ? table.one_hot(inputs, dtype) : table.matrix(inputs, dtype), {}};
  if (!target.empty()) batch.y = table.column(target).values;
  return batch;
}

CsvRows::CsvRows(io::CsvFile file, std::string target, bool one_hot)
    : file_(std::move(file)),
      target_(std::move(target)),
      inputs_(input_columns(file_.read(std::span<const std::int64_t>{}), target_, file_.path())),
      one_hot_(one_hot) {}

Batch CsvRows::fetch(std::span<const std::int64_t> rows, Key) const {
  return batch_of(file_.read(rows), inputs_, target_, one_hot_, file_.options().dtype);
}

// ---- Sources around sources ---------------------------------------------------------------------------------------

SourcePtr subset(SourcePtr source, std::vector<std::int64_t> rows) {
  if (rows.empty()) fail(ErrorKind::value, "[subset] no rows given");
  for (const std::int64_t r : rows) check_row(r, source->size(), source->name());
  const auto size = static_cast<std::int64_t>(rows.size());
  auto table = std::make_shared<const std::vector<std::int64_t>>(std::move(rows));
  return std::make_shared<const Selected>(std::move(source), size,
                                          [table](std::int64_t i) { return (*table)[static_cast<std::size_t>(i)]; });
}

SourcePtr take(SourcePtr source, std::int64_t n) {
  if (n < 1) fail(ErrorKind::value, "[take] {} rows: expected 1 or more", n);
  const std::int64_t size = std::min(n, source->size());
  return std::make_shared<const Selected>(std::move(source), size, [](std::int64_t i) { return i; });
}

std::pair<SourcePtr, SourcePtr> split(const SourcePtr& source, double fraction, Key key) {
  const std::int64_t n = source->size(), held_out = held_out_of(n, fraction);
  if (source->reads_forward())
    fail(ErrorKind::value, "[split] {}: can only be read forward: give validation data of their own", source->name());
  if (n <= kTabledRows) {
    SplitRows rows = split_rows(n, fraction, key);
    return {subset(source, std::move(rows.larger)), subset(source, std::move(rows.smaller))};
  }
  const Permutation order(n, key.fold("split"));
  return {std::make_shared<const Selected>(source, n - held_out, [=](std::int64_t i) { return order(held_out + i); }),
          std::make_shared<const Selected>(source, held_out, [=](std::int64_t i) { return order(i); })};
}

SourcePtr normalized(SourcePtr source, std::vector<float> mean, std::vector<float> stddev) {
  auto made = std::make_shared<const Normalized>(std::move(source), std::move(mean), std::move(stddev));
  const std::int64_t first = 0;
  made->fetch({&first, 1}, Key{});  // throws when means and deviations do not fit
  return made;
}

Moments moments(const Source& source, Key key, std::uint64_t bytes) {
  const std::int64_t first = 0;
  const Array one = source.fetch({&first, 1}, Key{}).x;
  const auto channels = static_cast<std::size_t>(one.shape.rank() < 2 ? 1 : one.shape.back());
  const auto fitting = static_cast<std::int64_t>(bytes / std::max<std::uint64_t>(1, one.bytes()));
  const auto rows = sample_of(source.size(), std::clamp<std::int64_t>(fitting, 1, source.size()), key);
  const double count =
      static_cast<double>(rows.size()) * static_cast<double>(one.numel()) / static_cast<double>(channels);
  return moments_of(channels, count, one.dtype,
                    [&](auto&& f) { each_value(source, rows, channels, std::forward<decltype(f)>(f)); });
}

}  // namespace bp::data

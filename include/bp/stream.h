// Data larger than memory: sources whose rows stay on disk until a batch wants them. docs/data.md tells how each format
// is read and shuffled.
//
//   auto rows = std::make_shared<data::FileRows>("train_x.npy", "train_y.npy");   // 8 GB of them
//   auto [train, validation] = data::split(rows, 0.01, Key{1});
//   data::DataLoader loader(data::normalized(train, {0.5f}, {0.25f}), {.batch_size = 64, .threads = 2});
//
// What they keep in memory is said at each; a batch takes its own bytes, once more as they are stored where the dtype
// differs, for each thread of the loader and each batch that it holds ready.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/data.h"
#include "bp/io.h"

namespace bp::data {

using SourcePtr = std::shared_ptr<const Source>;

// Rows of NPY or IDX files (io::ArrayFile). x: [n, ..] and y: [n, ..] as read_npy() and read_idx() make them. Any order
// costs the same, so a loader shuffles exactly. Kept in memory: targets of up to 32 MiB.
class FileRows final : public Source {
 public:
  // Throws Error(format) when the files have different numbers of rows, or none.
  explicit FileRows(const std::string& inputs, const std::string& targets = {});

  std::int64_t size() const override { return inputs_.rows(); }
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  std::string name() const override { return inputs_.path(); }
  std::uint64_t file_bytes() const;  // of both files

 private:
  io::ArrayFile inputs_;
  std::optional<io::ArrayFile> targets_;
  Array small_targets_;  // those, when they are few
};

// Rows of a CSV file (io::CsvFile). x: [n, columns other than the target], categorical ones as ids or, with `one_hot`,
// as columns of 0 and 1; y: i64 ids [n] of a categorical target, otherwise values [n]; none when `target` is empty.
class CsvRows final : public Source {
 public:
  // Throws Error(value) naming the nearest column when there is no such target, Error(format) when no column is left.
  explicit CsvRows(io::CsvFile file, std::string target = {}, bool one_hot = false);

  std::int64_t size() const override { return file_.rows(); }
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  std::string name() const override { return file_.path(); }
  const io::CsvFile& file() const noexcept { return file_; }
  const std::vector<std::string>& inputs() const noexcept { return inputs_; }  // names of the columns

 private:
  io::CsvFile file_;
  std::string target_;
  std::vector<std::string> inputs_;
  bool one_hot_;
};

// ---- Sources around sources ---------------------------------------------------------------------------------------

// These rows, in this order. Throws Error(value) for none, or one outside [0, size()).
SourcePtr subset(SourcePtr source, std::vector<std::int64_t> rows);
SourcePtr take(SourcePtr source, std::int64_t n);  // the first n rows, all when there are fewer; no table
// {training, validation}: as ArrayDataset::split(), the same rows. Of more than kTabledRows rows the parts are the
// places of a Permutation, in its order, so that neither needs a table.
std::pair<SourcePtr, SourcePtr> split(const SourcePtr& source, double fraction, Key key);
// x as ArrayDataset::normalized() makes it.
SourcePtr normalized(SourcePtr source, std::vector<float> mean, std::vector<float> stddev);
// As ArrayDataset::moments(): of all rows while they take up to `bytes` as they are fetched, otherwise of as many drawn
// at random by `key`. Reads them twice.
Moments moments(const Source& source, Key key = Key{}, std::uint64_t bytes = std::uint64_t{1} << 30);

}  // namespace bp::data

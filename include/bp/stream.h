// Data larger than memory: sources whose rows stay on disk until a batch wants them. docs/data.md tells how each format
// is read and shuffled.
//
//   io::write_npy("x.npy", Array::zeros(f32, {1000, 8}));
//   io::write_npy("y.npy", Array::zeros(i64, {1000}));
//   auto rows = std::make_shared<data::FileRows>("x.npy", "y.npy");
//   auto [train, validation] = data::split(rows, 0.1, Key{1});
//   data::DataLoader loader(data::normalized(train, {0.5f}, {0.25f}), {.batch_size = 64, .threads = 2});
//   assert(loader.batches() == 14);
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
#include "bp/text.h"

namespace bp::data {

using SourcePtr = std::shared_ptr<const Source>;  // how sources are handed around

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
  const io::CsvFile& file() const noexcept { return file_; }                   // where the rows come from
  const std::vector<std::string>& inputs() const noexcept { return inputs_; }  // names of the columns

 private:
  io::CsvFile file_;
  std::string target_;
  std::vector<std::string> inputs_;
  bool one_hot_;
};

// ---- Files that can only be read forward --------------------------------------------------------------------------

// Compressed files, and tables of several files. An epoch takes every row once: the files in random order, each row
// drawn at random from a buffer of those read ahead, which mixes rows of the same file and of neighbouring ones; the
// order depends only on (the key of the epoch, the buffer). Places are handed out forward, under a lock, to any thread;
// decoding is done outside of it. An interrupted epoch is read again up to where it was. Memory: two buffers (at the
// seam of epochs), and 64 MiB at most of rows that one thread has passed on the way to another's. Messages name file
// and line.
struct ForwardOptions {
  std::uint64_t buffer = 0;  // bytes of rows that are mixed; 0: the files, and their rows, in order
};

// NPY or IDX files, plain or gzip; x and y as FileRows. `inputs` and `targets`: a path each, or a pattern each (as
// TokenFiles) of equally many files, which belong together in the order of their names.
class ForwardArrays final : public Source {
 public:
  // Looks at the headers. Throws Error(format) when files do not belong together or hold no rows.
  explicit ForwardArrays(const std::string& inputs, const std::string& targets = {},
                         const ForwardOptions& options = {});
  std::int64_t size() const override;
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  std::string name() const override { return name_; }
  bool reads_forward() const override { return true; }

 private:
  struct Impl;
  std::string name_;
  std::shared_ptr<const Impl> impl_;
};

// CSV files, plain or gzip, with the same header; x and y as CsvRows. One pass over all of them counts the rows and
// finds categories that are not given.
class ForwardCsv final : public Source {
 public:
  // Throws as CsvRows and CsvFile do; Error(format) when the headers differ.
  explicit ForwardCsv(const std::string& path, std::string target = {}, const io::CsvOptions& options = {},
                      const ForwardOptions& forward = {}, bool one_hot = false);
  std::int64_t size() const override;
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  std::string name() const override { return name_; }
  bool reads_forward() const override { return true; }
  const io::CsvOptions& options() const noexcept;  // with the columns and categories that were found
  io::Table columns() const;                       // without rows: names and categories

 private:
  struct Impl;
  std::string name_;
  std::shared_ptr<const Impl> impl_;
  std::string target_;
  std::vector<std::string> inputs_;
  bool one_hot_;
};

// ---- Tokens ---------------------------------------------------------------------------------------------------------

// What files of ids look like.
struct TokenFileOptions {
  std::string type = "u16";  // of files that are not NPY: u8, u16, u32 or i32, little-endian
  std::int64_t header = 0;   // bytes to skip at the beginning of each of them
};

// Ids that stay on disk. Shards, in the order of their names, are one sequence; blocks may reach from one into the
// next.
class TokenFiles {
 public:
  // `path`: a file, a folder, of which the .bin and .npy files are taken, or a pattern of the last part of a path, "*"
  // for any text and "?" for any character: "data/train_*.bin". Throws Error(io) when nothing is there, Error(format)
  // for a shard that does not hold integers [n].
  explicit TokenFiles(const std::string& path, const TokenFileOptions& options = {});

  std::int64_t size() const noexcept { return end_ - begin_; }     // ids
  std::size_t shards() const noexcept { return shards_->size(); }  // files
  std::uint64_t file_bytes() const noexcept;                       // of all shards
  const std::string& name() const noexcept { return name_; }       // the path or pattern
  // Ids [first, first + n). Throws Error(value) outside [0, size()).
  void read(std::int64_t first, std::span<std::int64_t> to) const;
  void expect(std::int64_t first, std::int64_t n) const noexcept;  // as ArrayFile::expect()
  // The path of the shard that holds an id, and its place there: "x_01.bin, id 17".
  std::string where(std::int64_t id) const;

  // Ids [begin, end) as a sequence of its own, of the same files. Throws Error(value) outside [0, size()).
  TokenFiles part(std::int64_t begin, std::int64_t end) const;
  // {training, validation}: as split_text().
  std::pair<TokenFiles, TokenFiles> split(double fraction) const;

 private:
  struct Shard {
    io::ArrayFile file;
    std::int64_t begin;  // of its ids in the sequence
  };
  std::size_t shard_of(std::int64_t id) const;
  template <class F> void each_piece(std::int64_t first, std::int64_t n, F&& f) const;
  std::string name_;
  std::shared_ptr<const std::vector<Shard>> shards_;
  std::int64_t begin_ = 0, end_ = 0;
};

// Blocks of them, as TextBlocks of the same ids: x and y i64 [n, context], y one further. Random blocks are drawn from
// all places alike.
class TokenBlocks final : public Source {
 public:
  // With `vocabulary`, fetch() throws Error(value) for an id outside [0, vocabulary), naming shard and place.
  TokenBlocks(TokenFiles files, std::int64_t context, BlockPlan plan, std::int64_t vocabulary = 0);

  std::int64_t size() const override { return count_; }
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  std::string name() const override { return files_.name(); }

 private:
  void check_ids(std::span<const std::int64_t> ids, std::int64_t first) const;
  TokenFiles files_;
  std::int64_t context_, stride_, vocabulary_, count_;
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

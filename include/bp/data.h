// Data for training: sources of samples, datasets in memory, and the loader that hands out shuffled mini-batches.
//
//   const Array x = Array::zeros(f32, {100, 4}), y = Array::zeros(i64, {100});
//   auto [train, validation] = data::ArrayDataset(x, y).split(0.1, Key{1});
//   data::DataLoader loader(train, {.batch_size = 32, .key = Key{42}});
//   for (const data::Batch& batch : loader)  // one epoch; the next loop runs the next epoch
//     assert(batch.x.shape == Shape({32, 4}));
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/array.h"
#include "bp/rng.h"

namespace bp::data {

// x: [n, ...]; y: [n, ...], or without a buffer when the source has no targets.
struct Batch {
  Array x;  // inputs
  Array y;  // targets
};

// Where batches come from. fetch() is called from several threads at once and must not change the source.
class Source {
 public:
  virtual ~Source() = default;
  // Rows of one epoch.
  virtual std::int64_t size() const = 0;
  // The rows in the order given, each in [0, size()). Random augmentation draws from key.fold(row): `key` belongs to
  // the epoch, so a sample looks the same whatever batch or thread it falls into.
  virtual Batch fetch(std::span<const std::int64_t> rows, Key key) const = 0;
  // Class ids that are all known beforehand, against [0, classes): throws Error(value) naming the row. Sources that do
  // not know them leave it to the compiled step, which looks at each batch.
  virtual void check_targets(std::int64_t /*classes*/, const char* /*what*/) const {}
  // What messages call it: the path where it has one.
  virtual std::string name() const { return "the data"; }
  // True of a source that can only read forward and shuffles by itself (bp/stream.h): a loader then asks for places
  // 0, 1, ... of the epoch instead of shuffling.
  virtual bool reads_forward() const { return false; }
};

// Mean and standard deviation (with 1/N) of every channel: of the last dimension, or of everything when `x` is [N].
struct Moments {
  std::vector<float> mean, stddev;  // one a channel
};

// Inputs and targets in memory. Copies, subsets and splits share the arrays; the transform runs while a batch is
// gathered.
class ArrayDataset final : public Source {
 public:
  // inputs: [N, ...]; targets: [N, ...] or none. Throws Error(shape) when their rows differ or there are no inputs.
  explicit ArrayDataset(Array inputs, Array targets = {}, std::vector<std::string> classes = {});

  std::int64_t size() const override;
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;
  Batch all() const;  // every row, in order
  void check_targets(std::int64_t classes, const char* what) const override;

  const Array& inputs() const noexcept { return inputs_; }  // untransformed, all rows, whatever the subset
  // All rows, whatever the subset; without a buffer when there are none.
  const Array& targets() const noexcept { return targets_; }
  // Names of the ids 0, 1, ...; empty when unknown.
  const std::vector<std::string>& classes() const noexcept { return classes_; }
  Shape sample_shape() const;    // of one input: [H, W, C]
  DType dtype() const noexcept;  // of the inputs as fetch() gives them

  // x becomes f32 (f64 stays f64); u8 is divided by 255.
  ArrayDataset scaled() const;
  // As scaled(), then (x - mean) / stddev. One value, or one a channel (the last dimension). Throws Error(value) for a
  // stddev that is not positive.
  ArrayDataset normalized(std::vector<float> mean, std::vector<float> stddev) const;
  // Of the rows of this subset, after scaling: what normalized() wants. A constant channel reports 1.
  Moments moments() const;

  // These rows, in this order. Throws Error(value) for one outside [0, size()).
  ArrayDataset subset(std::span<const std::int64_t> rows) const;
  ArrayDataset take(std::int64_t n) const;  // the first n rows, all when there are fewer
  // {training, validation}: a random partition that depends only on (size, key). `fraction` in (0, 1); each part gets
  // at least one row.
  std::pair<ArrayDataset, ArrayDataset> split(double fraction, Key key) const;

 private:
  std::int64_t row(std::int64_t i) const;
  Array gather_inputs(std::span<const std::int64_t> rows) const;

  Array inputs_, targets_;
  std::vector<std::string> classes_;
  std::shared_ptr<const std::vector<std::int64_t>> rows_;  // null: every row
  bool transform_ = false;
  std::vector<float> scale_, shift_;  // x * scale + shift, by channel or for all
};

// A permutation of [0, n) that depends only on (n, key).
std::vector<std::int64_t> permutation(std::int64_t n, Key key);

// Another one, computed place by place: no memory, whatever n. A Feistel network over the bits of the place whose
// results outside [0, n) are put through it again (Black and Rogaway 2002), so that every row comes exactly once.
class Permutation {
 public:
  Permutation(std::int64_t n, Key key);                        // throws Error(value) for n outside [0, 2^62]
  std::int64_t size() const noexcept { return n_; }            // n
  std::int64_t operator()(std::int64_t place) const noexcept;  // in [0, n)

 private:
  std::int64_t n_;
  Key key_;
  int low_ = 1, high_ = 1;  // bits of the two halves
};

// Rows that are ordered by a table of 8 bytes a row (permutation()); more are ordered by Permutation.
inline constexpr std::int64_t kTabledRows = std::int64_t{1} << 22;

// Throws Error(value) naming the first row that holds NaN or an infinity, and the value. Integers always pass. `rows`
// are the numbers of the rows in messages, of a batch for instance; empty: 0, 1, ...
void check_finite(const Array& a, const char* what, std::span<const std::int64_t> rows = {});
// Throws Error(value) naming the first row whose class id is outside [0, classes), Error(dtype) when `labels` are not
// integers.
void check_labels(const Array& labels, std::int64_t classes, const char* what = "labels",
                  std::span<const std::int64_t> rows = {});

// How a DataLoader makes batches.
struct LoaderOptions {
  std::int64_t batch_size = 32;     // rows of a batch, 1 or more
  bool shuffle = true;              // another order each epoch; otherwise as the rows lie
  Key key{};                        // of the shuffle and of augmentation
  std::optional<bool> drop_last{};  // leave out a last, smaller batch; unset: as `shuffle` (training drops, evaluation
                                    // keeps)
  int threads = 1;                  // that fetch ahead; 0: fetch in next(). The batches are the same for any number
  // Batches fetched ahead at most, those that are being fetched included: what the loader holds beside the one handed
  // out.
  int depth = 4;
  // Seconds that next() waits for a batch before it throws Error(io) naming the source and the batch; 0: for ever. A
  // thread that hangs in the source is then left behind: it ends when its call returns, and holds the source until
  // then.
  double timeout = 0;
};

// Of all batches since the loader was made.
struct LoaderStats {
  std::int64_t batches = 0;                           // handed out
  std::uint64_t bytes = 0;                            // of their x and y
  double waited = 0;                                  // seconds that the consumer spent in next()
  double longest_wait = 0;                            // seconds of one call of next()
  double fetching = 0;                                // seconds of all threads together in Source::fetch()
  double slowest = 0;                                 // seconds of the slowest fetch, and which one it was:
  std::int64_t slowest_epoch = 0, slowest_batch = 0;  // which fetch that was
};

// The next batch to come: batch `batch` of epoch `epoch`. All that has to be saved to resume exactly.
struct LoaderState {
  std::int64_t epoch = 0;  // from 0 on
  std::int64_t batch = 0;  // within the epoch, from 0 on
  friend bool operator==(const LoaderState&, const LoaderState&) = default;
};

// Hands out mini-batches epoch after epoch. The order of an epoch is a permutation that depends only on (key, epoch):
// a table up to kTabledRows rows, otherwise Permutation.
// Used by one consumer at a time. What a fetching thread throws is rethrown by next() in the place of its batch; the
// call after that tries the batch again.
class DataLoader {
 public:
  // Throws Error(value) when an option is out of range or an epoch would have no batch.
  DataLoader(std::shared_ptr<const Source> source, LoaderOptions options = {});
  DataLoader(ArrayDataset dataset, LoaderOptions options = {});
  ~DataLoader();  // stops the threads, also in the middle of an epoch
  DataLoader(DataLoader&&) noexcept;
  DataLoader& operator=(DataLoader&&) noexcept;

  std::int64_t batches() const noexcept;          // in an epoch
  const Source& source() const noexcept;          // where the rows come from
  const LoaderOptions& options() const noexcept;  // as they were given, drop_last decided
  LoaderStats stats() const;                      // since the loader was made

  // The next batch, or none at the end of the epoch; then the next call begins the next epoch.
  std::optional<Batch> next();

  // After batch k was handed out this is (epoch, k + 1); after the end of the epoch (epoch + 1, 0).
  LoaderState state() const noexcept;
  // The next batch is exactly the one that followed state(). Throws Error(value) when it cannot exist.
  void restore(LoaderState state);

  struct End {};
  // What a range-based for takes; an input iterator.
  class Iterator {
   public:
    using value_type = Batch;                // what an iterator of the standard library says of itself
    using difference_type = std::ptrdiff_t;  // the same
    explicit Iterator(DataLoader* loader) : loader_(loader), batch_(loader->next()) {}  // fetches the first batch
    Batch& operator*() { return *batch_; }                                              // may be moved from
    // Fetches the next batch.
    Iterator& operator++() {
      batch_.reset();
      batch_ = loader_->next();
      return *this;
    }
    void operator++(int) { ++*this; }  // for the standard library
    friend bool operator==(const Iterator& i, End) { return !i.batch_.has_value(); }

   private:
    DataLoader* loader_;
    std::optional<Batch> batch_;
  };
  // One epoch, or after restore() the rest of it. A loop that was left early is not continued: the next one begins the
  // next epoch.
  Iterator begin();
  End end() const noexcept { return {}; }  // where an epoch stops

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bp::data

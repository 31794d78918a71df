// Epochs of rows that can only be read forward: places are handed out in order, to whichever thread asks. Used by the
// sources of bp/stream.h that read forward.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "bp/rng.h"

namespace bp::data {

// A row as its file holds it.
struct RawRow {
  std::string bytes;
  std::size_t shard = 0;
  std::int64_t line = 0;  // of CSV
};

class RowReader {
 public:
  virtual ~RowReader() = default;
  virtual bool next(RawRow& row) = 0;  // false at the end
};

class Epochs {
 public:
  using Open = std::function<std::unique_ptr<RowReader>(std::size_t shard)>;
  // `rows` a shard; `mixed` bytes of rows are mixed, 0: rows in the order of the shards.
  Epochs(std::vector<std::int64_t> rows, std::uint64_t mixed, Open open);
  ~Epochs();

  std::int64_t size() const noexcept { return size_; }
  // The rows at these places of the epoch of `key`. Going forward is cheap; a place before those handed out is read
  // again from the beginning. Two epochs are open at most.
  std::vector<RawRow> take(std::span<const std::int64_t> places, Key key) const;

 private:
  class Epoch;
  Epoch& epoch_of(Key key) const;
  std::vector<std::int64_t> rows_;
  std::int64_t size_ = 0;
  std::uint64_t mixed_;
  Open open_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::vector<std::unique_ptr<Epoch>> epochs_;
};

}  // namespace bp::data

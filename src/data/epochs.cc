// Shards in random order, rows drawn from a buffer of those read ahead.
#include "data/epochs.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "bp/data.h"

namespace bp::data {

namespace {
// What threads that are ahead leave for those behind; more than that was skipped for good.
constexpr std::uint64_t kLeft = std::uint64_t{64} << 20;
// What a row takes beside its bytes.
std::uint64_t cost_of(const RawRow& row) { return row.bytes.size() + sizeof(RawRow); }
}  // namespace

class Epochs::Epoch {
 public:
  Epoch(const Epochs& all, Key of) : key(of), all_(all), rng_(of.fold("buffer")) {
    const auto n = static_cast<std::int64_t>(all.rows_.size());
    shards_.resize(static_cast<std::size_t>(n));
    std::iota(shards_.begin(), shards_.end(), 0);
    if (all.mixed_ > 0) shards_ = permutation(n, of.fold("shards"));
  }

  // None of a place that is behind and was not left.
  std::optional<RawRow> at(std::int64_t place) {
    if (place < next_) {
      const auto found = left_.find(place);
      if (found == left_.end()) return std::nullopt;
      RawRow row = std::move(found->second);
      left_bytes_ -= cost_of(row);
      left_.erase(found);
      return row;
    }
    while (next_ < place) leave(produce());
    return produce();
  }

  const Key key;

 private:
  void leave(RawRow row) {
    left_bytes_ += cost_of(row);
    left_.emplace(next_ - 1, std::move(row));
    while (left_bytes_ > kLeft) {
      left_bytes_ -= cost_of(left_.begin()->second);
      left_.erase(left_.begin());
    }
  }

  RawRow produce() {
    RawRow row;
    while (buffered_ < all_.mixed_ && read(row)) {
      buffered_ += cost_of(row);
      buffer_.push_back(std::exchange(row, {}));
    }
    ++next_;
    if (all_.mixed_ == 0) {
      if (!read(row)) ended();
      return row;
    }
    if (buffer_.empty()) ended();
    std::swap(buffer_[rng_.below(buffer_.size())], buffer_.back());
    row = std::move(buffer_.back());
    buffer_.pop_back();
    buffered_ -= cost_of(row);
    return row;
  }

  // The next row of the shards in their order.
  bool read(RawRow& row) {
    for (;;) {
      if (!reader_) {
        if (at_ == shards_.size()) return false;
        shard_ = static_cast<std::size_t>(shards_[at_++]);
        reader_ = all_.open_(shard_);
        count_ = 0;
      }
      if (reader_->next(row)) {
        row.shard = shard_;
        ++count_;
        return true;
      }
      if (count_ != all_.rows_[shard_]) ended();
      reader_.reset();
    }
  }
  [[noreturn]] void ended() const {
    fail(ErrorKind::format, "shard {} held {} rows, now it holds {}: the file was changed while it was in use", shard_,
         all_.rows_[shard_], count_);
  }

  const Epochs& all_;
  Rng rng_;
  std::vector<std::int64_t> shards_;  // in the order of this epoch
  std::size_t at_ = 0, shard_ = 0;    // shards begun, the one that is read
  std::unique_ptr<RowReader> reader_;
  std::int64_t count_ = 0, next_ = 0;  // rows read of the shard, place to come
  std::vector<RawRow> buffer_;
  std::map<std::int64_t, RawRow> left_;
  std::uint64_t buffered_ = 0, left_bytes_ = 0;
};

Epochs::Epochs(std::vector<std::int64_t> rows, std::uint64_t mixed, Open open)
    : rows_(std::move(rows)), mixed_(mixed), open_(std::move(open)) {
  size_ = std::accumulate(rows_.begin(), rows_.end(), std::int64_t{0});
}

Epochs::~Epochs() = default;

// The one used last stands first.
Epochs::Epoch& Epochs::epoch_of(Key key) const {
  constexpr std::size_t kOpen = 2;
  const auto found = std::find_if(epochs_.begin(), epochs_.end(), [&](const auto& e) { return e->key == key; });
  if (found != epochs_.end()) {
    std::rotate(epochs_.begin(), found, found + 1);
  } else {
    if (epochs_.size() == kOpen) epochs_.pop_back();
    epochs_.insert(epochs_.begin(), std::make_unique<Epoch>(*this, key));
  }
  return *epochs_.front();
}

std::vector<RawRow> Epochs::take(std::span<const std::int64_t> places, Key key) const {
  const std::lock_guard lock(mutex_);
  std::vector<RawRow> rows;
  rows.reserve(places.size());
  for (const std::int64_t place : places) {
    if (place < 0 || place >= size_) fail(ErrorKind::value, "row {} of {}", place, size_);
    std::optional<RawRow> row;
    try {
      row = epoch_of(key).at(place);
      if (!row) {
        epochs_.erase(epochs_.begin());
        row = epoch_of(key).at(place);
      }
    } catch (...) {
      epochs_.erase(epochs_.begin());  // it is lost in the middle of a row: the next call begins it anew
      throw;
    }
    rows.push_back(std::move(*row));
  }
  return rows;
}

}  // namespace bp::data

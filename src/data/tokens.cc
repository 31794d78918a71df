// Shards of ids on disk, and blocks of them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/stream.h"
#include "data/blocks.h"
#include "data/shards.h"

namespace bp::data {

namespace {

io::ArrayFile open_shard(const std::string& path, const TokenFileOptions& o) {
  if (!path.ends_with(".npy")) return io::ArrayFile::raw(path, o.type, static_cast<std::uint64_t>(o.header));
  io::ArrayFile file(path);
  if (!is_integer(file.dtype()) || file.shape().rank() != 1)
    fail(ErrorKind::format, "{}: holds {} {}, expected ids: integers [n]", path, name_of(file.dtype()), file.shape());
  return file;
}

}  // namespace

TokenFiles::TokenFiles(const std::string& path, const TokenFileOptions& options) : name_(path) {
  if (options.header < 0) fail(ErrorKind::value, "[tokens] a header of {} bytes: expected 0 or more", options.header);
  auto shards = std::make_shared<std::vector<Shard>>();
  for (const std::string& p : shard_paths(path, {".bin", ".npy"})) {
    shards->push_back({open_shard(p, options), end_});
    end_ += shards->back().file.rows();
  }
  shards_ = std::move(shards);
}

std::uint64_t TokenFiles::file_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const Shard& s : *shards_) bytes += s.file.file_bytes();
  return bytes;
}

// Of a place in the whole sequence: the last shard that does not begin behind it.
std::size_t TokenFiles::shard_of(std::int64_t id) const {
  const auto behind = std::upper_bound(shards_->begin(), shards_->end(), id,
                                       [](std::int64_t i, const Shard& s) { return i < s.begin; });
  return static_cast<std::size_t>(behind - shards_->begin()) - 1;
}

// f(file, first, n) for each piece of ids [first, first + n) that lies in one shard.
template <class F> void TokenFiles::each_piece(std::int64_t first, std::int64_t n, F&& f) const {
  std::int64_t at = begin_ + first;
  const std::int64_t end = at + n;
  for (std::size_t k = shard_of(at); at < end; ++k) {
    const Shard& s = (*shards_)[k];
    const std::int64_t count = std::min(end, s.begin + s.file.rows()) - at;
    if (count > 0) f(s.file, at - s.begin, count);
    at += std::max<std::int64_t>(count, 0);
  }
}

void TokenFiles::read(std::int64_t first, std::span<std::int64_t> to) const {
  const auto n = static_cast<std::int64_t>(to.size());
  if (first < 0 || first + n > size())
    fail(ErrorKind::value, "{}: ids {} to {} of {}", name_, first, first + n, size());
  std::int64_t* out = to.data();
  each_piece(first, n, [&](const io::ArrayFile& file, std::int64_t at, std::int64_t count) {
    const Array ids = file.read(at, count);
    dispatch(ids.dtype, [&](auto zero) {
      for (const auto id : ids.values<decltype(zero)>()) *out++ = static_cast<std::int64_t>(id);
    });
  });
}

void TokenFiles::expect(std::int64_t first, std::int64_t n) const noexcept {
  each_piece(first, n, [](const io::ArrayFile& file, std::int64_t at, std::int64_t count) { file.expect(at, count); });
}

std::string TokenFiles::where(std::int64_t id) const {
  const Shard& s = (*shards_)[shard_of(begin_ + id)];
  return fmt::format("{}, id {}", s.file.path(), begin_ + id - s.begin);
}

TokenFiles TokenFiles::part(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || end < begin || end > size())
    fail(ErrorKind::value, "{}: ids {} to {} of {}", name_, begin, end, size());
  TokenFiles p = *this;
  p.begin_ = begin_ + begin;
  p.end_ = begin_ + end;
  return p;
}

std::pair<TokenFiles, TokenFiles> TokenFiles::split(double fraction) const {
  if (!(fraction > 0 && fraction < 1))
    fail(ErrorKind::value, "[tokens] split of {}: expected a share between 0 and 1", fraction);
  const auto first = static_cast<std::int64_t>(std::floor(static_cast<double>(size()) * (1 - fraction)));
  return {part(0, first), part(first, size())};
}

TokenBlocks::TokenBlocks(TokenFiles files, std::int64_t context, BlockPlan plan, std::int64_t vocabulary)
    : files_(std::move(files)),
      context_(context),
      stride_(plan.stride),
      vocabulary_(vocabulary),
      count_(count_blocks(files_.size(), context, plan, files_.name())) {}

void TokenBlocks::check_ids(std::span<const std::int64_t> ids, std::int64_t first) const {
  if (vocabulary_ == 0) return;
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= vocabulary_)
      fail(ErrorKind::value, "{} is {}: expected 0 to {}; are the ids of another type, or is there a header?",
           files_.where(first), id, vocabulary_ - 1);
    ++first;
  }
}

Batch TokenBlocks::fetch(std::span<const std::int64_t> rows, Key key) const {
  const Shape shape{static_cast<std::int64_t>(rows.size()), context_};
  Batch batch{Array::empty(DType::i64, shape), Array::empty(DType::i64, shape)};
  std::vector<std::int64_t> starts, block(static_cast<std::size_t>(context_ + 1));
  for (const std::int64_t row : rows)
    starts.push_back(start_of_block(row, count_, files_.size(), context_, stride_, key, files_.name()));
  for (const std::int64_t start : starts) files_.expect(start, context_ + 1);
  auto* x = batch.x.mutable_data<std::int64_t>();
  auto* y = batch.y.mutable_data<std::int64_t>();
  for (const std::int64_t start : starts) {
    files_.read(start, block);
    check_ids(block, start);
    x = std::copy(block.begin(), block.end() - 1, x);
    y = std::copy(block.begin() + 1, block.end(), y);
  }
  return batch;
}

}  // namespace bp::data

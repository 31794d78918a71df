// Vocabularies of characters and bytes, text files, and blocks of ids.
#include "bp/text.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "bp/io.h"
#include "data/blocks.h"

namespace bp::data {

namespace {

// Reads the code point at text[at] and steps over it; `at` stays when there is none (Unicode 15, table 3-7: no
// overlong forms, no surrogates, nothing past U+10FFFF).
bool next_point(std::string_view text, std::size_t& at, char32_t& point) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const unsigned first = byte(0);
  if (first < 0x80) {
    point = first;
    ++at;
    return true;
  }
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + length > text.size()) return false;
  const unsigned low = first == 0xE0 ? 0xA0u : first == 0xF0 ? 0x90u : 0x80u;
  const unsigned high = first == 0xED ? 0x9Fu : first == 0xF4 ? 0x8Fu : 0xBFu;
  if (byte(1) < low || byte(1) > high) return false;
  char32_t value = first & (length == 2 ? 0x1Fu : length == 3 ? 0x0Fu : 0x07u);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return false;
    value = (value << 6) | (byte(i) & 0x3Fu);
  }
  point = value;
  at += length;
  return true;
}

void append_point(std::string& out, char32_t p) {
  const auto put = [&](unsigned bits) { out += static_cast<char>(bits); };
  if (p < 0x80) return put(p);
  if (p < 0x800) {
    put(0xC0 | p >> 6);
  } else if (p < 0x10000) {
    put(0xE0 | p >> 12);
    put(0x80 | (p >> 6 & 0x3F));
  } else {
    put(0xF0 | p >> 18);
    put(0x80 | (p >> 12 & 0x3F));
    put(0x80 | (p >> 6 & 0x3F));
  }
  put(0x80 | (p & 0x3F));
}

template <class Put> void each_point(std::string_view text, std::string_view name, Put&& put) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t before = at;
    char32_t point = 0;
    if (!next_point(text, at, point))
      fail(ErrorKind::format, "[text] {}: byte {} (0x{:02X}) is not UTF-8: expected that, or unit \"byte\"", name,
           before, static_cast<unsigned char>(text[before]));
    put(point, before);
  }
}

std::string_view view_of(const Buffer& b) { return {b.as<char>(), b.bytes()}; }

Buffer read_text(const std::string& path) {
  Buffer content = io::read_file(path);
  if (content.bytes() == 0) fail(ErrorKind::format, "{}: the file is empty: expected text", path);
  return content;
}

// Elements [begin, end) of a vector, over the same memory.
Array part_of(const Array& a, std::int64_t begin, std::int64_t end) {
  const std::size_t width = size_of(a.dtype);
  Array part{a.dtype, {end - begin}, {}};
  part.buffer = Buffer::wrap(a.buffer.as_mutable<std::byte>() + static_cast<std::size_t>(begin) * width, part.bytes(),
                             std::make_shared<Buffer>(a.buffer));
  return part;
}

}  // namespace

Vocabulary Vocabulary::bytes() { return {}; }

Vocabulary Vocabulary::of(std::string_view text, std::string_view name) {
  std::vector<bool> common(0x10000, false);  // most text: a look-up, not a search
  std::set<char32_t> rare;
  each_point(text, name, [&](char32_t p, std::size_t) {
    if (p < common.size()) {
      common[p] = true;
    } else {
      rare.insert(p);
    }
  });
  Vocabulary v;
  v.unit_ = TextUnit::character;
  for (std::size_t p = 0; p < common.size(); ++p)
    if (common[p]) v.points_.push_back(static_cast<char32_t>(p));
  v.points_.insert(v.points_.end(), rare.begin(), rare.end());
  if (v.points_.empty()) fail(ErrorKind::value, "[text] {}: is empty: a vocabulary needs at least one character", name);
  return v;
}

std::int64_t Vocabulary::size() const noexcept {
  return unit_ == TextUnit::byte ? 256 : static_cast<std::int64_t>(points_.size());
}

std::string Vocabulary::characters() const {
  std::string out;
  for (const char32_t p : points_) append_point(out, p);
  return out;
}

template <class Put> void Vocabulary::each_id(std::string_view text, std::string_view name, Put&& put) const {
  if (unit_ == TextUnit::byte) {
    for (const char c : text) put(static_cast<std::int64_t>(static_cast<unsigned char>(c)));
    return;
  }
  std::vector<std::int64_t> small(0x800, -1);  // Latin, Greek, Cyrillic, Hebrew, Arabic
  for (std::size_t id = 0; id < points_.size() && points_[id] < small.size(); ++id)
    small[points_[id]] = static_cast<std::int64_t>(id);
  each_point(text, name, [&](char32_t p, std::size_t at) {
    std::int64_t id = -1;
    if (p < small.size()) {
      id = small[p];
    } else if (const auto found = std::lower_bound(points_.begin(), points_.end(), p);
               found != points_.end() && *found == p) {
      id = found - points_.begin();
    }
    if (id < 0) {
      std::string shown;
      if (p >= 0x20 && p != 0x7F) append_point(shown, p);
      fail(ErrorKind::value,
           "[text] {}: the character \"{}\" (U+{:04X}) at byte {} is not in the vocabulary of {} "
           "characters",
           name, shown, static_cast<std::uint32_t>(p), at, points_.size());
    }
    put(id);
  });
}

std::vector<std::int64_t> Vocabulary::encode(std::string_view text, std::string_view name) const {
  std::vector<std::int64_t> ids;
  ids.reserve(text.size());
  each_id(text, name, [&](std::int64_t id) { ids.push_back(id); });
  return ids;
}

Array Vocabulary::encode_compactly(std::string_view text, std::string_view name) const {
  std::int64_t n = static_cast<std::int64_t>(text.size());
  if (unit_ == TextUnit::character)  // continuation bytes begin with 10
    n -= std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; });
  const auto fill = [&](auto zero) {
    using T = decltype(zero);
    Array ids = Array::empty(dtype_of<T>, {n});
    T* to = ids.mutable_data<T>();
    each_id(text, name, [&](std::int64_t id) { *to++ = static_cast<T>(id); });
    return ids;
  };
  return size() <= 256 ? fill(std::uint8_t{}) : fill(std::int32_t{});
}

std::string Vocabulary::decode(std::span<const std::int64_t> ids) const {
  std::string out;
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= size())
      fail(ErrorKind::value, "[text] id {} is outside the vocabulary: expected 0 to {}", id, size() - 1);
    if (unit_ == TextUnit::byte) {
      out += static_cast<char>(static_cast<unsigned char>(id));
    } else {
      append_point(out, points_[static_cast<std::size_t>(id)]);
    }
  }
  return out;
}

Text load_text(const std::string& path, TextUnit unit) {
  const Buffer content = read_text(path);
  Vocabulary v = unit == TextUnit::byte ? Vocabulary::bytes() : Vocabulary::of(view_of(content), path);
  Array ids = v.encode_compactly(view_of(content), path);
  return {std::move(v), std::move(ids)};
}

Text load_text(const std::string& path, const Vocabulary& vocabulary) {
  return {vocabulary, vocabulary.encode_compactly(view_of(read_text(path)), path)};
}

std::pair<Array, Array> split_text(const Array& ids, double fraction) {
  if (!(fraction > 0 && fraction < 1))
    fail(ErrorKind::value, "[text] split of {}: expected a share between 0 and 1", fraction);
  const std::int64_t n = ids.numel();
  const auto first = static_cast<std::int64_t>(std::floor(static_cast<double>(n) * (1 - fraction)));
  return {part_of(ids, 0, first), part_of(ids, first, n)};
}

std::int64_t count_blocks(std::int64_t symbols, std::int64_t context, BlockPlan plan, const std::string& name) {
  if (context < 1) fail(ErrorKind::value, "[text] {}: a context of {}: expected 1 or more", name, context);
  if (plan.stride < 0 || plan.count < 0)
    fail(ErrorKind::value, "[text] {}: stride {} and count {}: expected 0 or more", name, plan.stride, plan.count);
  const std::int64_t places = symbols - context;  // where a block can begin
  if (places < 1)
    fail(ErrorKind::value, "[text] {}: holds {} symbols: a context of {} needs at least {}", name, symbols, context,
         context + 1);
  const std::int64_t step = plan.stride > 0 ? plan.stride : context, fitting = (places - 1) / step + 1;
  if (plan.stride > 0 && plan.count > fitting)
    fail(ErrorKind::value, "[text] {}: {} blocks at a stride of {} were asked for, {} fit", name, plan.count,
         plan.stride, fitting);
  return plan.count == 0 ? fitting : plan.count;
}

std::int64_t start_of_block(std::int64_t row, std::int64_t count, std::int64_t symbols, std::int64_t context,
                            std::int64_t stride, Key key, const std::string& name) {
  if (row < 0 || row >= count) fail(ErrorKind::value, "[text] {}: block {} of {}", name, row, count);
  if (stride > 0) return row * stride;
  const auto places = static_cast<std::uint64_t>(symbols - context);
  return static_cast<std::int64_t>(Rng(key.fold("block").fold(static_cast<std::uint64_t>(row))).below(places));
}

TextBlocks::TextBlocks(Array ids, std::int64_t context, BlockPlan plan, const std::string& name)
    : ids_(std::move(ids)), context_(context), stride_(plan.stride), name_(name) {
  if (ids_.shape.rank() != 1 || !is_integer(ids_.dtype))
    fail(ErrorKind::shape, "[text] {}: expected ids [n] of integers, got {} {}", name, name_of(ids_.dtype), ids_.shape);
  count_ = count_blocks(ids_.numel(), context, plan, name);
}

std::int64_t TextBlocks::start_of(std::int64_t row, Key key) const {
  return start_of_block(row, count_, ids_.numel(), context_, stride_, key, name_);
}

Batch TextBlocks::fetch(std::span<const std::int64_t> rows, Key key) const {
  const Shape shape{static_cast<std::int64_t>(rows.size()), context_};
  Batch batch{Array::empty(DType::i64, shape), Array::empty(DType::i64, shape)};
  auto* x = batch.x.mutable_data<std::int64_t>();
  auto* y = batch.y.mutable_data<std::int64_t>();
  dispatch(ids_.dtype, [&](auto zero) {
    const auto* ids = ids_.data<decltype(zero)>();
    for (const std::int64_t row : rows) {
      const auto* from = ids + start_of(row, key);
      for (std::int64_t t = 0; t < context_; ++t) {
        *x++ = static_cast<std::int64_t>(from[t]);
        *y++ = static_cast<std::int64_t>(from[t + 1]);
      }
    }
  });
  return batch;
}

}  // namespace bp::data

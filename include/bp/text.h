// Text as data: a file becomes ids of its characters or bytes, and blocks of ids with what follows each.
//
//   io::write_file("poem.txt", "so much depends upon a red wheel barrow");
//   const data::Text text = data::load_text("poem.txt", data::TextUnit::character);
//   auto blocks = std::make_shared<data::TextBlocks>(text.ids, 16, data::random_blocks(100));
//   data::DataLoader loader(blocks, {.batch_size = 10});
//   assert(loader.next()->y.shape == Shape({10, 16}));  // what follows each character of x
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bp/data.h"

namespace bp::data {

// What an id stands for.
enum class TextUnit {
  character,  // Unicode code points of UTF-8; the vocabulary is those that occur
  byte        // ids 0 to 255, whatever the encoding
};

// What ids stand for. Copies are cheap to make and equal when they mean the same.
class Vocabulary {
 public:
  // The 256 bytes.
  static Vocabulary bytes();
  // The distinct code points of `text`, ascending. Throws Error(format), opened by `name`, with the offset of a byte
  // that is not UTF-8; Error(value) for an empty text.
  static Vocabulary of(std::string_view text, std::string_view name = "text");

  std::int64_t size() const noexcept;               // ids
  TextUnit unit() const noexcept { return unit_; }  // what an id stands for
  // All characters, by id, in UTF-8: what of() makes the same vocabulary from. Empty for bytes.
  std::string characters() const;

  // Throws Error(format) as of(); Error(value) naming a character that is not in the vocabulary, and its offset.
  std::vector<std::int64_t> encode(std::string_view text, std::string_view name = "text") const;
  // The inverse of encode(). Throws Error(value) for an id outside [0, size()).
  std::string decode(std::span<const std::int64_t> ids) const;
  // Into u8 where size() <= 256, else i32: a quarter or an eighth of encode()'s memory. [n]
  Array encode_compactly(std::string_view text, std::string_view name = "text") const;

  friend bool operator==(const Vocabulary& a, const Vocabulary& b) {
    return a.unit_ == b.unit_ && a.points_ == b.points_;
  }

 private:
  template <class Put> void each_id(std::string_view text, std::string_view name, Put&& put) const;
  TextUnit unit_ = TextUnit::byte;
  std::vector<char32_t> points_;  // by id, ascending; empty for bytes
};

// A text that was read.
struct Text {
  Vocabulary vocabulary;  // of what occurs in it, or the one that was given
  Array ids;              // [n], u8 or i32
};

// Plain or gzip. Throws Error(io) when the file cannot be read, Error(format) when it is empty or not UTF-8.
Text load_text(const std::string& path, TextUnit unit);
// By a vocabulary that is given: Error(value) for a character it lacks.
Text load_text(const std::string& path, const Vocabulary& vocabulary);

// {training, validation}: the first n - k ids and the last k, where n - k is n * (1 - fraction), rounded down. Shares
// the memory. `fraction` in (0, 1).
std::pair<Array, Array> split_text(const Array& ids, double fraction);

// Where blocks begin.
struct BlockPlan {
  std::int64_t stride = 0;  // block k begins at k * stride; 0: at random
  std::int64_t count = 0;   // blocks an epoch; 0: as many as fit without overlap (at this stride)
};
// Training: `count` blocks an epoch, each at a place drawn from (key of the epoch, number of the block).
inline BlockPlan random_blocks(std::int64_t count = 0) { return {0, count}; }
// Evaluation: every `stride` ids, those that fit.
inline BlockPlan strided_blocks(std::int64_t stride) { return {stride, 0}; }

// x = ids[i .. i + context), y = ids[i + 1 .. i + context + 1): both i64 [n, context]. Resumes and repeats as every
// Source does; random places depend only on the loader's key, the epoch and the block's number.
class TextBlocks final : public Source {
 public:
  // ids: [n] of u8, i32 or i64. Throws Error(value) when they are fewer than context + 1, or the plan is out of range;
  // `name` opens the message.
  TextBlocks(Array ids, std::int64_t context, BlockPlan plan, const std::string& name = "text");

  std::int64_t size() const override { return count_; }
  Batch fetch(std::span<const std::int64_t> rows, Key key = Key{}) const override;

  std::string name() const override { return name_; }

  std::int64_t context() const noexcept { return context_; }  // ids of a block
  const Array& ids() const noexcept { return ids_; }          // of the whole text

 private:
  std::int64_t start_of(std::int64_t row, Key key) const;
  Array ids_;
  std::int64_t context_, stride_, count_ = 0;
  std::string name_;
};

}  // namespace bp::data

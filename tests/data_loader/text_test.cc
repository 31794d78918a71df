// Text: UTF-8 against its table, vocabularies there and back, and blocks whatever the threads.
#include "bp/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>

#include "bp/error.h"
#include "message_of.h"

namespace bp::data {
namespace {

using Ids = std::vector<std::int64_t>;
using ::testing::HasSubstr;

Ids row(const Array& a, std::int64_t i) {
  const auto v = a.values<std::int64_t>();
  const auto width = a.shape[1];
  return {v.begin() + i * width, v.begin() + (i + 1) * width};
}

Array ids_below(std::int64_t n) {
  Ids ids(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) ids[static_cast<std::size_t>(i)] = i;
  return Array::from(ids, {n});
}

TEST(Vocabulary, CharactersAreSortedCodePoints) {
  const std::string text = "b\na€😀é a\0b";
  const Vocabulary v = Vocabulary::of(text);
  EXPECT_EQ(v.characters(), "\n abé€😀");
  EXPECT_EQ(v.size(), 7);
  const Ids ids = v.encode("a€😀\n");
  EXPECT_EQ(ids, (Ids{2, 5, 6, 0}));
  EXPECT_EQ(v.decode(ids), "a€😀\n");
  EXPECT_EQ(Vocabulary::of(v.characters()), v);
  EXPECT_EQ(v.decode(v.encode(text)), text);
  EXPECT_EQ(v.encode(""), Ids{});
}

TEST(Vocabulary, BytesTakeEverything) {
  const Vocabulary v = Vocabulary::bytes();
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const Ids ids = v.encode(all);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(v.decode(ids), all);
  EXPECT_EQ(v.size(), 256);
  EXPECT_NE(v, Vocabulary::of("a"));
}

// Every code point of the planes there and back, and the boundaries of what is not one.
TEST(Vocabulary, Utf8IsReadStrictly) {
  const std::vector<std::string> good{
      std::string("\0", 1), "\x7f",         "\xc2\x80",     "\xdf\xbf",         "\xe0\xa0\x80",
      "\xed\x9f\xbf",       "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
  for (const std::string& c : good) {
    const Vocabulary v = Vocabulary::of(c);
    EXPECT_EQ(v.size(), 1);
    EXPECT_EQ(v.characters(), c);
  }
  const std::vector<std::string> bad{
      "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xc2",
      "\xc2\x7f",     "\xc2\xc0",     "\xe0\x9f\xbf",     "\xe0\xa0",         "\xe0\xa0\x7f",
      "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
      "\xff",         "\xf0\x90\x80", "\xf0\x90\x80\x00"};
  for (const std::string& c : bad) {
    EXPECT_THAT(message_of(ErrorKind::format, [&] { Vocabulary::of("ok" + c, "t.txt"); }),
                HasSubstr("t.txt: byte 2 (0x"))
        << ::testing::PrintToString(c);
    EXPECT_THAT(message_of(ErrorKind::format, [&] { Vocabulary::of("ok").encode("k" + c + "k"); }),
                HasSubstr("byte 1 (0x"));
  }
}

TEST(Vocabulary, StrangersAreNamed) {
  const Vocabulary v = Vocabulary::of("abc");
  EXPECT_THAT(message_of(ErrorKind::value, [&] { v.encode("abé", "prompt"); }),
              HasSubstr("prompt: the character \"é\" (U+00E9) at byte 2 is not in the vocabulary of 3 characters"));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { v.encode("\n", "prompt"); }), HasSubstr("\"\" (U+000A)"));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { v.encode("€"); }), HasSubstr("U+20AC"));
  for (const std::int64_t id : {-1, 3})
    EXPECT_THAT(message_of(ErrorKind::value, [&] { v.decode(Ids{0, id}); }), HasSubstr("expected 0 to 2"));
  message_of(ErrorKind::value, [] { Vocabulary::bytes().decode(Ids{256}); });
  message_of(ErrorKind::value, [] { Vocabulary::of(""); });
}

TEST(Text, FilesBecomeIds) {
  const std::string path = ::testing::TempDir() + "bp_text_test.txt";
  std::ofstream(path) << "naïve";
  const Text text = load_text(path, TextUnit::character);
  EXPECT_EQ(text.vocabulary.characters(), "aenvï");
  EXPECT_EQ(text.ids.dtype, DType::u8);
  EXPECT_EQ(text.ids.numel(), 5);
  EXPECT_EQ(text.ids.values<std::uint8_t>()[2], 4);
  EXPECT_EQ(load_text(path, TextUnit::byte).ids.numel(), 6);
  std::string many;  // more than 256 characters need 32 bits
  for (int i = 0; i < 300; ++i)
    many += {static_cast<char>(0xE4 + i / 4096), static_cast<char>(0x80 + i / 64), static_cast<char>(0x80 + i % 64)};
  std::ofstream(path) << many;
  const Text large = load_text(path, TextUnit::character);
  EXPECT_EQ(large.ids.dtype, DType::i32);
  EXPECT_EQ(large.ids.values<std::int32_t>()[299], 299);
  std::ofstream(path) << "";
  EXPECT_THAT(message_of(ErrorKind::format, [&] { load_text(path, TextUnit::byte); }), HasSubstr("empty"));
  std::remove(path.c_str());
  EXPECT_THAT(message_of(ErrorKind::io, [&] { load_text(path, TextUnit::byte); }), HasSubstr(path));
}

TEST(Text, TheSplitIsAsNanoGpts) {
  const auto [train, validation] = split_text(ids_below(15), 0.1);
  EXPECT_EQ(train.numel(), 13);  // int(15 * 0.9)
  EXPECT_EQ(validation.numel(), 2);
  EXPECT_EQ(validation.values<std::int64_t>()[0], 13);
  EXPECT_EQ(split_text(ids_below(1115394), 0.1).first.numel(), 1003854);
  for (const double f : {0.0, 1.0, -1.0, std::nan("")})
    message_of(ErrorKind::value, [&] { split_text(ids_below(9), f); });
}

TEST(TextBlocks, StridedBlocksCoverWhatFits) {
  const TextBlocks blocks(ids_below(10), 3, strided_blocks(3));  // begin at 0, 3, 6
  ASSERT_EQ(blocks.size(), 3);
  const Batch b = blocks.fetch(Ids{2, 0});
  EXPECT_EQ(row(b.x, 0), (Ids{6, 7, 8}));
  EXPECT_EQ(row(b.y, 0), (Ids{7, 8, 9}));
  EXPECT_EQ(row(b.x, 1), (Ids{0, 1, 2}));
  EXPECT_EQ(TextBlocks(ids_below(9), 3, strided_blocks(3)).size(), 2);
  EXPECT_EQ(TextBlocks(ids_below(4), 3, strided_blocks(3)).size(), 1);
  EXPECT_EQ(TextBlocks(ids_below(10), 3, strided_blocks(1)).size(), 7);
  EXPECT_EQ(TextBlocks(ids_below(10), 3, strided_blocks(100)).size(), 1);
  EXPECT_EQ(blocks.fetch({}).x.shape, (Shape{0, 3}));
}

TEST(TextBlocks, RandomBlocksReachEveryPlaceAndRepeat) {
  const auto source = std::make_shared<TextBlocks>(ids_below(12), 4, random_blocks(1000));
  std::map<std::int64_t, int> seen;
  std::vector<std::vector<Ids>> first;
  for (const int threads : {0, 1, 4}) {
    DataLoader loader(source, {.batch_size = 7, .key = Key{5}, .threads = threads});
    std::vector<std::vector<Ids>> epochs(2);
    for (auto& rows : epochs)
      for (const auto& [x, y] : loader)
        for (std::int64_t i = 0; i < x.rows(); ++i) {
          rows.push_back(row(x, i));
          EXPECT_EQ(row(y, i)[3], rows.back()[3] + 1);
          ++seen[rows.back()[0]];
        }
    EXPECT_NE(epochs[0], epochs[1]);
    if (first.empty()) first = epochs;
    EXPECT_EQ(epochs, first) << threads;
  }
  ASSERT_EQ(seen.size(), 8u);  // 0 to 7
  for (const auto& [start, n] : seen) EXPECT_NEAR(n, 6 * 994 / 8.0, 200) << start;
}

TEST(TextBlocks, ResumesInTheMiddleOfAnEpoch) {
  const auto source = std::make_shared<TextBlocks>(ids_below(500), 8, random_blocks(40));
  DataLoader whole(source, {.batch_size = 6, .key = Key{1}});
  for (int i = 0; i < 10; ++i) (void)whole.next();  // 6 batches an epoch and its end
  DataLoader resumed(source, {.batch_size = 6, .key = Key{1}, .threads = 3});
  resumed.restore(whole.state());
  for (int i = 0; i < 3; ++i) {
    const auto a = whole.next(), b = resumed.next();
    ASSERT_TRUE(a && b);
    for (std::int64_t r = 0; r < 6; ++r) EXPECT_EQ(row(a->x, r), row(b->x, r));
  }
}

TEST(TextBlocks, RefusesWhatCannotBe) {
  EXPECT_THAT(message_of(ErrorKind::value, [] { TextBlocks(ids_below(4), 4, random_blocks(), "t.txt"); }),
              HasSubstr("t.txt: holds 4 symbols: a context of 4 needs at least 5"));
  message_of(ErrorKind::value, [] { TextBlocks(ids_below(4), 0, random_blocks()); });
  message_of(ErrorKind::value, [] { TextBlocks(ids_below(4), 2, {-1, 0}); });
  message_of(ErrorKind::value, [] { TextBlocks(ids_below(10), 3, {3, 4}); });
  message_of(ErrorKind::shape, [] { TextBlocks(Array::zeros(DType::f32, {9}), 3, random_blocks()); });
  const TextBlocks blocks(ids_below(10), 3, random_blocks(5));
  for (const std::int64_t r : {-1, 5}) message_of(ErrorKind::value, [&] { blocks.fetch(Ids{r}); });
}

}  // namespace
}  // namespace bp::data

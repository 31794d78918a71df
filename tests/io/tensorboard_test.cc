// Event files, read back by a parser that shares nothing with the writer: framing and checksums, every kind of value,
// torn tails. (TensorBoard's own reader looks at them in tests/oracles.)
#include "bp/tensorboard.h"

#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "bp/images.h"
#include "helpers.h"

namespace bp::io {
namespace {

// CRC-32C bit by bit, by the long division of its definition (RFC 3720, B.4).
std::uint32_t crc32c(const std::string& data) {
  std::uint32_t c = 0xffffffffu;
  for (const char byte : data)
    for (int bit = 0; bit < 8; ++bit) {
      const bool one = ((c ^ static_cast<unsigned>(byte >> bit)) & 1) != 0;
      c >>= 1;
      if (one) c ^= 0x82f63b78u;
    }
  return ~c;
}

template <class T> T read(const std::string& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The records of a file, up to the first that is torn or damaged.
std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> all;
  const auto right = [&](std::size_t at, std::size_t n) {
    const std::uint32_t c = crc32c(file.substr(at, n));
    return read<std::uint32_t>(file, at + n) == ((c >> 15) | (c << 17)) + 0xa282ead8u;
  };
  for (std::size_t at = 0; file.size() - at >= 12 && right(at, 8);) {
    const auto n = static_cast<std::size_t>(read<std::uint64_t>(file, at));
    if (file.size() - at < 16 + n || !right(at + 12, n)) break;
    all.push_back(file.substr(at + 12, n));
    at += 16 + n;
  }
  return all;
}

// The fields of a protobuf message by number: varints and fixed ones as their bytes.
std::multimap<int, std::string> fields(const std::string& m) {
  std::multimap<int, std::string> all;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(m.at(at++));
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < m.size()) {
    const std::uint64_t key = varint();
    const std::uint64_t type = key & 7;
    std::string value;
    if (type == 0) {
      const std::uint64_t v = varint();
      value.assign(reinterpret_cast<const char*>(&v), 8);
    } else {
      const std::size_t n = type == 1 ? 8 : type == 5 ? 4 : varint();
      value = m.substr(at, n);
      at += n;
    }
    all.emplace(static_cast<int>(key >> 3), value);
  }
  return all;
}

std::string field(const std::string& message, int number) {
  const auto all = fields(message);
  const auto at = all.find(number);
  EXPECT_EQ(all.count(number), 1u) << "field " << number;
  return at == all.end() ? std::string(8, '\0') : at->second;
}

struct Value {
  std::int64_t step;
  std::string tag, message;
};
// Of the record of one value.
Value value_of(const std::string& event) {
  const std::string value = field(field(event, 5), 1);
  return {read<std::int64_t>(field(event, 2), 0), field(value, 1), value};
}

std::vector<double> doubles(const std::string& packed) {
  std::vector<double> all;
  for (std::size_t at = 0; at < packed.size(); at += 8) all.push_back(read<double>(packed, at));
  return all;
}

TEST(EventWriter, ChecksumsAreThoseOfTheStandard) { EXPECT_EQ(crc32c("123456789"), 0xe3069283u); }

TEST(EventWriter, EveryKindOfValueReadsBack) {
  const TempDir folder;
  std::string path;
  const Array image = Array::from(std::vector<float>{0, 1, 0.5f, 0.2f, 0.4f, 0.6f}, {1, 2, 3});
  {
    EventWriter w(folder / "a/b");
    path = w.path();
    w.scalar("loss/train", 0.1, 7);
    w.scalar("huge", 1e300, -1);
    w.histogram("weight", Array::from(std::vector<float>{-1, 0, 0, 3, NAN, INFINITY}, {2, 3}), 8);
    w.image("picture", image, 9);
    w.text("note", "a *b*", 1LL << 40);
  }
  const std::vector<std::string> all = records(slurp(path));
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(field(all[0], 3), "brain.Event:2");
  EXPECT_NEAR(read<double>(field(all[0], 1), 0), static_cast<double>(time(nullptr)), 60);
  const Value loss = value_of(all[1]);
  EXPECT_EQ(loss.step, 7);
  EXPECT_EQ(loss.tag, "loss/train");
  EXPECT_EQ(read<float>(field(loss.message, 2), 0), 0.1f);
  EXPECT_EQ(value_of(all[2]).step, -1);
  EXPECT_TRUE(std::isinf(read<float>(field(value_of(all[2]).message, 2), 0)));
  const std::string h = field(value_of(all[3]).message, 5);
  const std::vector<double> expected{-1, 3, 4, 2, 10};  // of the four that are finite
  for (int i = 0; i < 5; ++i) EXPECT_EQ(read<double>(field(h, i + 1), 0), expected[static_cast<std::size_t>(i)]) << i;
  const std::vector<double> limits = doubles(field(h, 6)), buckets = doubles(field(h, 7));
  ASSERT_EQ(limits.size(), 64u);
  EXPECT_EQ(buckets.front(), 1);
  EXPECT_EQ(buckets[15], 2) << "0 is the limit of the 16th of 64 bins over [-1, 3]";
  EXPECT_EQ(limits[15], 0);
  EXPECT_EQ(buckets.back(), 1);
  const std::string picture = field(value_of(all[4]).message, 4), png = field(picture, 4);
  EXPECT_EQ(read<std::int64_t>(field(picture, 2), 0), 2);
  const Array back = parse_image(bytes_of(png), "picture");
  const std::vector<std::uint8_t> pixels(back.data<std::uint8_t>(), back.data<std::uint8_t>() + 6);
  EXPECT_THAT(pixels, testing::ElementsAre(0, 255, 128, 51, 102, 153));
  const Value note = value_of(all[5]);
  EXPECT_EQ(note.step, 1LL << 40);
  EXPECT_EQ(field(field(note.message, 8), 8), "a *b*");
  EXPECT_EQ(field(field(field(note.message, 9), 1), 1), "text");
}

TEST(EventWriter, HistogramsOfOddValues) {
  const TempDir folder;
  std::string path;
  constexpr double kMost = std::numeric_limits<double>::max();
  const std::vector<std::pair<Array, double>> cases{{Array::from(std::vector<float>{NAN, NAN}, {2}), 0},
                                                    {Array::empty(DType::f32, {0}), 0},
                                                    {Array::from(std::vector<std::int64_t>{5, 5, 5}, {3}), 3},
                                                    {Array::from(std::vector<double>{-kMost, 0, kMost}, {3}), 3},
                                                    {Array::from(std::vector<double>{0, 5e-324}, {2}), 2}};
  {
    EventWriter w(folder / "a");
    path = w.path();
    for (const auto& [values, count] : cases) w.histogram("h", values, 1);
  }
  const std::vector<std::string> all = records(slurp(path));
  ASSERT_EQ(all.size(), 1 + cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string h = field(value_of(all[i + 1]).message, 5);
    double sum = 0;
    for (const double b : doubles(field(h, 7))) sum += b;
    EXPECT_EQ(sum, cases[i].second) << i;
    EXPECT_EQ(doubles(field(h, 6)).size(), doubles(field(h, 7)).size()) << i;
    EXPECT_TRUE(std::isfinite(doubles(field(h, 6)).back())) << i;
  }
}

TEST(EventWriter, ATornTailCostsOnlyItsRecord) {
  const TempDir folder;
  EventWriter w(folder / "a");
  for (int i = 0; i < 3; ++i) w.scalar("s", i, i);
  w.flush();
  const std::string whole = slurp(w.path());
  ASSERT_EQ(records(whole).size(), 4u);
  const std::size_t last = whole.size() - 16 - records(whole).back().size();
  for (std::size_t n = last; n < whole.size(); ++n) EXPECT_EQ(records(whole.substr(0, n)).size(), 3u) << n;
}

TEST(EventWriter, AnotherWriterBeginsAnotherFileAndSaysWhere) {
  const TempDir folder;
  const EventWriter first(folder / "a"), second(folder / "a", 5);
  EXPECT_NE(first.path(), second.path());
  const std::vector<std::string> all = records(slurp(second.path()));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(read<std::int64_t>(field(all[1], 2), 0), 5);
  EXPECT_EQ(read<std::int64_t>(field(field(all[1], 7), 1), 0), 1) << "the start of a session";
}

TEST(EventWriter, MistakesAreErrors) {
  const TempDir folder;
  spill(folder / "file", "");
  expect_error(ErrorKind::io, "file", [&] { EventWriter w(folder / "file"); });
  EventWriter w(folder / "a");
  expect_error(ErrorKind::shape, "[2, 2]", [&] { w.image("t", Array::zeros(DType::u8, {2, 2}), 0); });
  expect_error(ErrorKind::value, "1.5", [&] { w.image("t", Array::from(std::vector<float>{1.5f}, {1, 1, 1}), 0); });
  w.scalar("after", 1, 1);
  w.flush();
  EXPECT_EQ(records(slurp(w.path())).size(), 2u);
}

}  // namespace
}  // namespace bp::io

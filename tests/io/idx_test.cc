// IDX: round trips, every element type, damage, and the real files.
#include "helpers.h"

namespace bp::io {
namespace {

std::string idx(std::uint8_t type, std::vector<std::uint32_t> sizes, const std::string& values) {
  std::string s{'\0', '\0', static_cast<char>(type), static_cast<char>(sizes.size())};
  for (std::uint32_t n : sizes)
    for (int shift : {24, 16, 8, 0}) s += static_cast<char>(n >> shift);
  return s + values;
}

TEST(Idx, ReadsEveryType) {
  EXPECT_EQ(parse_idx(bytes_of(idx(8, {2}, "\x01\xff")), "t").data<std::uint8_t>()[1], 255);
  EXPECT_EQ(parse_idx(bytes_of(idx(9, {2}, "\x01\xff")), "t").data<std::int32_t>()[1], -1);
  EXPECT_EQ(parse_idx(bytes_of(idx(0x0b, {1}, "\xff\xfe")), "t").data<std::int32_t>()[0], -2);
  EXPECT_EQ(parse_idx(bytes_of(idx(0x0c, {1}, std::string("\x00\x00\x01\x02", 4))), "t").data<std::int32_t>()[0], 258);
  EXPECT_EQ(parse_idx(bytes_of(idx(0x0d, {1}, std::string("\x3f\xc0\x00\x00", 4))), "t").data<float>()[0], 1.5f);
  const std::string half("\xbf\xe0\x00\x00\x00\x00\x00\x00", 8);
  EXPECT_EQ(parse_idx(bytes_of(idx(0x0e, {1, 1}, half)), "t").data<double>()[0], -0.5);
}

TEST(Idx, RoundTrips) {
  TempDir dir;
  Rng rng(Key(3));
  for (DType t : {u8, i32, f32, f64})
    for (int i = 0; i < 20; ++i) {
      const Array a = random_array(t, random_shape(rng), rng);
      write_idx(dir / "a", a);
      EXPECT_TRUE(same_bits(read_idx(dir / "a"), a)) << a.shape.str();
    }
  expect_error(ErrorKind::dtype, "cannot hold i64", [&] { write_idx(dir / "b", Array::zeros(i64, {1})); });
}

TEST(Idx, SaysWhatIsWrong) {
  const auto parse = [](const std::string& s) { return [s] { parse_idx(bytes_of(s), "file.idx"); }; };
  expect_error(ErrorKind::format, "file.idx: 0 bytes", parse(""));
  expect_error(ErrorKind::format, "two zeros", parse("PNG data"));
  expect_error(ErrorKind::format, "unknown IDX type 0x0a", parse(idx(0x0a, {1}, "x")));
  expect_error(ErrorKind::format, "header is truncated", parse(idx(8, {1, 1}, "").substr(0, 9)));
  expect_error(ErrorKind::format, "shape [3], but 2 bytes", parse(idx(8, {3}, "ab")));
  expect_error(ErrorKind::format, "shape [1], but 2 bytes", parse(idx(8, {1}, "ab")));
  expect_error(ErrorKind::format, "but 3 bytes", parse(idx(0x0b, {1}, "abc")));
  expect_error(ErrorKind::format, "at most 8", parse(idx(8, std::vector<std::uint32_t>(9, 1), "a")));
  // 2^60 and 2^124 values are refused by the bytes that are there, before any memory is asked for.
  expect_error(ErrorKind::format, "but 1 bytes follow", parse(idx(8, {1u << 30, 1u << 30}, "a")));
  expect_error(ErrorKind::format, "but 1 bytes follow", parse(idx(8, {1u << 31, 1u << 31, 1u << 31, 1u << 31}, "a")));
  expect_error(ErrorKind::format, "but 0 bytes follow", parse(idx(8, {0, 1u << 31, 1u << 31}, "")));
}

TEST(Idx, SurvivesDamage) {
  const int refused = damage(idx(0x0b, {2, 3}, "abcdefghijkl"), [](Bytes b) { parse_idx(b, "damaged"); });
  EXPECT_GT(refused, 24 + 20);  // every truncation at least
}

}  // namespace
}  // namespace bp::io

// safetensors: round trips, the fixed layout, mapped reading, hostile headers, damage.
#include <fmt/format.h>

#include "helpers.h"

namespace bp::io {
namespace {

std::string file_of(const std::string& header, const std::string& data) {
  std::string s;
  for (int i = 0; i < 8; ++i) s += static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
  return s + header + data;
}

SafeTensors parse_tensors(const std::string& s) { return parse_safetensors(bytes_of(s), "file.safetensors"); }

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& range) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, range);
}

std::string object(const std::vector<std::string>& entries) { return fmt::format("{{{}}}", fmt::join(entries, ",")); }

using Named = std::vector<std::pair<std::string, Array>>;

TEST(SafeTensors, RoundTripsEveryTypeCopiedAndMapped) {
  TempDir dir;
  Rng rng(Key(13));
  const DType types[] = {f64, f32, bf16, i64, i32, u8, boolean};
  for (int round = 0; round < 60; ++round) {
    Named tensors;
    const auto count = rng.below(8);
    for (std::uint64_t i = 0; i < count; ++i)
      tensors.emplace_back(fmt::format("layer{}.w\"\\\n\xc3\xa9", rng.below(1000) * 10 + i),
                           random_array(types[rng.below(7)], random_shape(rng), rng));
    const std::map<std::string, std::string> metadata = {{"epoch", "3"}, {"note", "a \"quote\""}};
    write_safetensors(dir / "f", tensors, metadata);
    for (bool map : {false, true}) {
      const SafeTensors back = read_safetensors(dir / "f", {.map = map});
      EXPECT_EQ(back.metadata, metadata);
      ASSERT_EQ(back.tensors.size(), tensors.size());
      for (const auto& [name, array] : tensors) {
        ASSERT_NE(back.find(name), nullptr);
        EXPECT_TRUE(same_bits(*back.find(name), array)) << name;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(back.find(name)->buffer.data()) % size_of(array.dtype), 0u);
      }
      EXPECT_EQ(back.find("nothing"), nullptr);
    }
  }
}

TEST(SafeTensors, TheFileDependsOnlyOnItsContent) {
  TempDir dir;
  const Array a = Array::from(std::vector<float>{1, 2}, {2}), b = Array::from(std::vector<std::uint8_t>{7}, {1});
  const Array c = Array::from(std::vector<double>{0.5}, Shape{});
  write_safetensors(dir / "1", Named{{"a", a}, {"b", b}, {"c", c}});
  write_safetensors(dir / "2", Named{{"c", c}, {"b", b}, {"a", a}});
  const std::string s = slurp(dir / "1");
  EXPECT_EQ(s, slurp(dir / "2"));
  const auto header = static_cast<unsigned char>(s[0]) + 256u * static_cast<unsigned char>(s[1]);
  EXPECT_EQ((8 + header) % 8, 0u);
  EXPECT_EQ(s.substr(8 + header, 8), std::string("\0\0\0\0\0\0\xe0\x3f", 8));  // widest first
  EXPECT_THAT(s, testing::HasSubstr(entry("a", "F32", "[2]", "[8,16]")));
  EXPECT_THAT(s, testing::HasSubstr(entry("c", "F64", "[]", "[0,8]")));
}

TEST(SafeTensors, ReadsForeignFiles) {
  // Odd header length (unaligned data), halves, no metadata, offsets not in the order of the names.
  const std::string h = object({entry("z", "U8", "[1]", "[0,1]"), entry("a", "F16", "[2,1]", "[1,5]"),
                                entry("e", "F32", "[0,3]", "[5,5]"), entry("i", "I32", "[1]", "[5,9]")});
  TempDir dir;
  for (const std::string& padded : {h, h + " ", h + "  ", h + "   "}) {
    const std::string s = file_of(padded, std::string("\x07\x00\x3c\x00\xc0\x01\x00\x00\x00", 9));
    spill(dir / "f", s);
    for (const SafeTensors& t : {parse_tensors(s), read_safetensors(dir / "f", {.map = true})}) {
      EXPECT_THAT(t.find("a")->values<float>(), testing::ElementsAre(1.0f, -2.0f));
      EXPECT_EQ(t.find("i")->data<std::int32_t>()[0], 1);
      EXPECT_EQ(t.find("e")->shape, Shape({0, 3}));
      EXPECT_EQ(t.tensors[0].first, "z");
    }
  }
}

TEST(SafeTensors, MappedTensorsOutliveTheResultAndTheFile) {
  TempDir dir;
  // The data end exactly at a page, behind which slack must still be readable.
  Array a = Array::zeros(u8, {3 * 4096});
  write_safetensors(dir / "f", Named{{"a", a}});
  const std::size_t header = slurp(dir / "f").size() - a.bytes();
  a = Array::zeros(u8, {static_cast<std::int64_t>(3 * 4096 - header)});
  a.mutable_data<std::uint8_t>()[a.numel() - 1] = 9;
  write_safetensors(dir / "f", Named{{"a", a}});
  Array kept = *read_safetensors(dir / "f", {.map = true}).find("a");
  std::filesystem::remove(dir / "f");
  EXPECT_EQ(kept.data<std::uint8_t>()[kept.numel() - 1], 9);
  int sum = 0;
  for (int i = 0; i < 64; ++i) sum += kept.data<std::uint8_t>()[kept.numel() + i];
  EXPECT_EQ(sum, 0);
  kept.mutable_data<std::uint8_t>()[0] = 1;  // private: no fault, no change of the file
}

TEST(SafeTensors, SaysWhatIsWrong) {
  const auto bad = [](const std::string& part, const std::string& s) {
    expect_error(ErrorKind::format, part, [&] { parse_tensors(s); });
    TempDir dir;
    spill(dir / "f", s);
    for (bool map : {false, true})
      expect_error(ErrorKind::format, part, [&] { read_safetensors(dir / "f", {.map = map}); });
  };
  const std::string eight(8, 'x');
  bad("too few", "");
  bad("claims", std::string(8, '\xff'));
  bad("claims 1000 bytes", file_of(std::string(1000, ' '), "").substr(0, 500));
  bad("valid JSON", file_of("", ""));
  bad("valid JSON", file_of("{\"a\":", ""));
  bad("not a JSON object", file_of("[1]", ""));
  bad("nested too deeply", file_of(std::string(100000, '['), ""));
  bad("occurs twice", file_of(object({entry("a", "U8", "[4]", "[0,4]"), entry("a", "U8", "[4]", "[4,8]")}), eight));
  bad("needs exactly", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", "x"));
  bad("needs exactly", file_of("{\"a\":7}", ""));
  bad("dtype \"F8_E4M3\"", file_of(object({entry("a", "F8_E4M3", "[8]", "[0,8]")}), eight));
  bad("no size", file_of(object({entry("a", "U8", "[-8]", "[0,8]")}), eight));
  bad("no size", file_of(object({entry("a", "U8", "[8.0]", "[0,8]")}), eight));
  bad("no size", file_of(object({entry("a", "U8", "[8]", "[0,18446744073709551615]")}), eight));
  bad("at most 8", file_of(object({entry("a", "U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]")}), eight));
  bad("claims bytes 0 to 9", file_of(object({entry("a", "U8", "[9]", "[0,9]")}), eight));
  bad("claims bytes 8 to 0", file_of(object({entry("a", "U8", "[8]", "[8,0]")}), eight));
  bad("does not fill", file_of(object({entry("a", "F32", "[3]", "[0,8]")}), eight));
  bad("does not fill", file_of(object({entry("a", "F32", "[1152921504606846976]", "[0,8]")}), eight));
  bad("does not fill", file_of(object({entry("a", "F64", "[2305843009213693953]", "[0,8]")}), eight));
  bad("does not fill", file_of(object({entry("a", "U8", "[4294967296,4294967296,8]", "[0,8]")}), eight));
  bad("overlaps", file_of(object({entry("a", "U8", "[6]", "[0,6]"), entry("b", "U8", "[4]", "[4,8]")}), eight));
  bad("hole", file_of(object({entry("a", "U8", "[2]", "[0,2]"), entry("b", "U8", "[4]", "[4,8]")}), eight));
  bad("belong to none", file_of(object({entry("a", "U8", "[2]", "[0,2]")}), eight));
  bad("no bool", file_of(object({entry("a", "BOOL", "[2]", "[0,2]")}), "\1\2"));
  bad("not a string", file_of("{\"__metadata__\":{\"a\":1}}", ""));
  bad("not an object", file_of("{\"__metadata__\":1}", ""));
}

TEST(SafeTensors, RefusesNamesItCannotKeep) {
  TempDir dir;
  const Array a = Array::zeros(u8, {1});
  expect_error(ErrorKind::value, "given twice", [&] { write_safetensors(dir / "f", Named{{"a", a}, {"a", a}}); });
  expect_error(ErrorKind::value, "reserved", [&] { write_safetensors(dir / "f", Named{{"__metadata__", a}}); });
  expect_error(ErrorKind::value, "UTF-8", [&] { write_safetensors(dir / "f", Named{{"\xff", a}}); });
  expect_error(ErrorKind::value, "UTF-8", [&] { write_safetensors(dir / "f", Named{{"a", a}}, {{"k", "\xff"}}); });
  EXPECT_TRUE(dir.names().empty());
}

// With the checksum, damage is not only survived but noticed, unless it changes nothing that is read.
TEST(SafeTensors, NoticesDamage) {
  TempDir dir;
  Rng rng(Key(17));
  const Named tensors = {
      {"w", random_array(f32, {3}, rng)}, {"ok", random_array(boolean, {2}, rng)}, {"e", random_array(f64, {0}, rng)}};
  write_safetensors(dir / "f", tensors, {{"epoch", "12"}});
  const std::string valid = slurp(dir / "f");
  int passed = 0;
  damage(valid, [&](Bytes b) {
    const SafeTensors t = parse_safetensors(b, "damaged");
    ++passed;
    if (std::string(reinterpret_cast<const char*>(b.data()), b.size()).find("bp.crc32") == std::string::npos) return;
    for (const auto& [name, array] : tensors) {
      ASSERT_NE(t.find(name), nullptr);
      EXPECT_TRUE(same_bits(*t.find(name), array)) << name;
    }
    EXPECT_EQ(t.metadata.at("epoch"), "12");
  });
  EXPECT_LT(passed, 200);
}

}  // namespace
}  // namespace bp::io

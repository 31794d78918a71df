// NPY: round trips, what NumPy writes in its variants, and damage.
#include <bit>
#include <cmath>

#include "helpers.h"

namespace bp::io {
namespace {

std::string npy(const std::string& header, const std::string& values, int version = 1) {
  std::string s = "\x93NUMPY";
  s += static_cast<char>(version);
  s += '\0';
  s += static_cast<char>(header.size() & 0xff);
  s += static_cast<char>(header.size() >> 8);
  if (version > 1) s += std::string(2, '\0');
  return s + header + values;
}

std::string dict(const std::string& descr, const std::string& shape, const char* fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }   \n";
}

Array parse_array(const std::string& s) { return parse_npy(bytes_of(s), "file.npy"); }

TEST(Npy, RoundTrips) {
  TempDir dir;
  Rng rng(Key(5));
  for (DType t : {f64, f32, i64, i32, u8, boolean})
    for (int i = 0; i < 20; ++i) {
      const Array a = random_array(t, random_shape(rng, 8), rng);
      write_npy(dir / "a", a);
      EXPECT_TRUE(same_bits(read_npy(dir / "a"), a)) << a.shape.str();
      EXPECT_EQ(slurp(dir / "a").find('\n') % 64, 63u);
    }
  const Array b = Array::from(std::vector<bfloat16>{bfloat16(1.5f), bfloat16(-2.0f)}, {2});
  write_npy(dir / "b", b);
  EXPECT_EQ(read_npy(dir / "b").data<float>()[0], 1.5f);
}

TEST(Npy, WritesWhatNumPyWrites) {
  TempDir dir;
  write_npy(dir / "a", Array::from(std::vector<std::uint8_t>{1, 2, 3}, {3}));
  // np.save of np.array([1, 2, 3], np.uint8), but for the width of the padding.
  const std::string want = "\x93NUMPY\x01" + std::string("\0v\0", 3) +
                           "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }" + std::string(60, ' ') +
                           "\n\1\2\3";
  EXPECT_EQ(slurp(dir / "a"), want);
}

TEST(Npy, ReadsFortranOrderAndByteOrders) {
  // [[1, 2, 3], [4, 5, 6]] stored by columns.
  const std::string columns("\x01\x04\x02\x05\x03\x06", 6);
  const Array a = parse_array(npy(dict("|u1", "(2, 3)", "True"), columns));
  EXPECT_THAT(a.values<std::uint8_t>(), testing::ElementsAre(1, 2, 3, 4, 5, 6));
  std::string cube;
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 3; ++j)
      for (int i = 0; i < 2; ++i) cube += static_cast<char>(i * 12 + j * 4 + k);
  const Array c = parse_array(npy(dict("|u1", "(2, 3, 4)", "True"), cube));
  for (int i = 0; i < 24; ++i) EXPECT_EQ(c.data<std::uint8_t>()[i], i);
  EXPECT_EQ(parse_array(npy(dict(">i4", "(1,)"), std::string("\0\0\1\2", 4))).data<std::int32_t>()[0], 258);
  EXPECT_EQ(parse_array(npy(dict(">f8", "()"), std::string("\xbf\xe0\0\0\0\0\0\0", 8))).data<double>()[0], -0.5);
  EXPECT_EQ(parse_array(npy(dict("<i2", "(1,)"), "\xfe\xff", 2)).data<std::int32_t>()[0], -2);
  EXPECT_EQ(parse_array(npy(dict("|i1", "(1,)"), "\xff", 3)).data<std::int32_t>()[0], -1);
  EXPECT_EQ(parse_array(npy(dict("<u4", "(1,)"), "\xff\xff\xff\xff")).data<std::int64_t>()[0], 0xffffffffll);
  EXPECT_EQ(parse_array(npy(dict("|b1", "(2,)"), std::string("\0\2", 2))).data<bool>()[1], true);
}

TEST(Npy, HalvesBecomeFloats) {
  const std::pair<std::uint16_t, float> cases[] = {{0x3c00, 1.0f},       {0xc000, -2.0f},    {0x0001, 0x1p-24f},
                                                   {0x03ff, 0x3ffp-24f}, {0x0400, 0x1p-14f}, {0x7bff, 65504.0f},
                                                   {0x8000, -0.0f},      {0x7c00, INFINITY}};
  for (const auto& [bits, value] : cases) {
    const std::string two{static_cast<char>(bits & 0xff), static_cast<char>(bits >> 8)};
    const float got = parse_array(npy(dict("<f2", "(1,)"), two)).data<float>()[0];
    EXPECT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(value)) << bits;
  }
  EXPECT_TRUE(std::isnan(parse_array(npy(dict("<f2", "(1,)"), "\x01\x7e")).data<float>()[0]));
}

TEST(Npy, SaysWhatIsWrong) {
  const auto bad = [](const std::string& part, const std::string& s) {
    expect_error(ErrorKind::format, part, [&] { parse_array(s); });
  };
  bad("magic", "");
  bad("magic", "PK\x03\x04 and so on");
  bad("version 9", npy(dict("<f4", "()"), "abcd", 9));
  bad("claims 119 bytes", std::string("\x93NUMPY\x01\0\x77\0", 10));
  bad("element type \"<c8\"", npy(dict("<c8", "(1,)"), "12345678"));
  bad("element type \"|O\"", npy(dict("|O", "(1,)"), "12345678"));
  bad("element type \"<U3\"", npy(dict("<U3", "(1,)"), "123456789012"));
  bad("records", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "1234"));
  bad("missing", npy("{'descr': '<f4'}", "1234"));
  bad("repeated key", npy("{'descr': '<f4', 'descr': '<f4'}", "1234"));
  bad("expected a size", npy(dict("<f4", "(-1,)"), "1234"));
  bad("expected a size", npy(dict("<f4", "(99999999999999999999,)"), "1234"));
  bad("more than 8", npy(dict("<f4", "(1,1,1,1,1,1,1,1,1)"), "1234"));
  bad("shape [2], but 4 bytes", npy(dict("<f4", "(2,)"), "1234"));
  bad("shape [1], but 5 bytes", npy(dict("<f4", "(1,)"), "12345"));
  bad("but 4 bytes", npy(dict("<f4", "(1152921504606846976,)"), "1234"));
  bad("but 4 bytes", npy(dict("<f4", "(4294967296, 4294967296, 4294967296)"), "1234"));
  bad("but 0 bytes", npy(dict("<f4", "(0, 4611686018427387904, 4611686018427387904)"), ""));
  bad("does not fit i64", npy(dict("<u8", "(1,)"), std::string(8, '\xff')));
}

TEST(Npy, SurvivesDamage) {
  const std::string valid = npy(dict("<f4", "(2, 1)", "True"), "abcdefgh");
  EXPECT_GT(damage(valid, [](Bytes b) { parse_npy(b, "damaged"); }), static_cast<int>(valid.size()));
}

}  // namespace
}  // namespace bp::io

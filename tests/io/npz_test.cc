// NPZ: round trips, names, and archives that lie. What NumPy writes and reads is asked in tests/oracles/npz.py.
#include "helpers.h"
#include "message_of.h"

namespace bp::io {
namespace {

using Named = std::vector<std::pair<std::string, Array>>;

Named some_arrays() {
  Rng rng(Key(3));
  Named out;
  for (DType t : {f64, f32, i64, i32, u8, boolean})
    out.emplace_back(fmt::format("layer.{}", name_of(t)), random_array(t, random_shape(rng, 9), rng));
  out.emplace_back("empty", Array::zeros(f32, {0, 3}));
  out.emplace_back("flat", Array::zeros(f64, {100, 100}));  // deflates well
  return out;
}

Named parse_archive(const std::string& s) { return parse_npz(bytes_of(s), "file.npz"); }

TEST(Npz, RoundTrips) {
  TempDir dir;
  const Named arrays = some_arrays();
  for (const bool compress : {false, true}) {
    write_npz(dir / "a.npz", arrays, compress);
    const Named back = read_npz(dir / "a.npz");
    ASSERT_EQ(back.size(), arrays.size());
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      EXPECT_EQ(back[i].first, arrays[i].first);
      EXPECT_TRUE(same_bits(back[i].second, arrays[i].second)) << arrays[i].first;
    }
    if (compress) { EXPECT_LT(slurp(dir / "a.npz").size(), 80000u); }
  }
  write_npz(dir / "none.npz", {});
  EXPECT_TRUE(read_npz(dir / "none.npz").empty());
}

TEST(Npz, EveryDamagedByteIsNoticedOrHarmless) {
  TempDir dir;
  const Named arrays{{"x", Array::from(std::vector<std::int32_t>{1, 2, 3}, {3})}};
  for (const bool compress : {false, true}) {
    write_npz(dir / "a.npz", arrays, compress);
    const std::string good = slurp(dir / "a.npz");
    for (std::size_t i = 0; i < good.size(); ++i)
      for (const char flip : {'\x01', '\x80', '\xff'}) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ flip);
        try {
          for (const auto& [name, array] : parse_archive(bad)) EXPECT_TRUE(same_bits(array, arrays[0].second)) << i;
        } catch (const Error& e) { EXPECT_EQ(e.kind(), ErrorKind::format) << i << ": " << e.what(); }
      }
    for (std::size_t n = 0; n < good.size(); ++n) EXPECT_THROW(parse_archive(good.substr(0, n)), Error) << n;
  }
}

TEST(Npz, RefusesWithAReason) {
  EXPECT_THAT(message_of([] { parse_archive("PK, or so it says, but nothing follows"); }),
              testing::HasSubstr("file.npz: not an NPZ file, or damaged: the record at its end is missing"));
  TempDir dir;
  write_npz(dir / "a.npz", Named{{"x", Array::zeros(f32, {4})}});
  std::string claims = slurp(dir / "a.npz");
  const std::size_t central = claims.find("PK\x01\x02");
  claims[central + 24 + 3] = '\x7f';  // 2 GiB
  EXPECT_THAT(message_of([&] { parse_archive(claims); }),
              testing::HasSubstr("entry \"x.npy\" claims 2130706576 bytes in 144"));
  std::string method = slurp(dir / "a.npz");
  method[central + 10] = 12;
  EXPECT_THAT(message_of([&] { parse_archive(method); }),
              testing::HasSubstr("compressed by method 12: expected stored"));
  EXPECT_THAT(message_of([&] { parse_npz(bytes_of(slurp(dir / "a.npz")), "f", {.max_bytes = 100}); }),
              testing::HasSubstr("exceed the limit of 100 bytes"));
  const Named twice{{"x", Array::zeros(f32, {1})}, {"x", Array::zeros(f32, {1})}};
  EXPECT_THAT(message_of([&] { write_npz(dir / "b.npz", twice); }), testing::HasSubstr("\"x\" is given twice"));
}

}  // namespace
}  // namespace bp::io

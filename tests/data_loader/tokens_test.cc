// Shards of ids on disk: one sequence, whatever its parts; blocks as those of the same ids in memory.
#include <algorithm>
#include <filesystem>

#include "bp/stream.h"
#include "io/helpers.h"

namespace bp::data {
namespace {

using Rows = std::vector<std::int64_t>;

template <class T> std::string stored(const Rows& ids) {
  std::string out;
  for (const std::int64_t id : ids)
    for (std::size_t k = 0; k < sizeof(T); ++k) out += static_cast<char>(static_cast<std::uint64_t>(id) >> (8 * k));
  return out;
}

Rows part(const Rows& v, std::size_t begin, std::size_t end) {
  return {v.begin() + static_cast<std::ptrdiff_t>(begin), v.begin() + static_cast<std::ptrdiff_t>(end)};
}

struct Tokens : ::testing::Test {
  TempDir dir;
  Rows ids;
  Tokens() {
    for (std::int64_t i = 0; i < 101; ++i) ids.push_back((i * 7919 + 3) % 65000);
  }
  // Four shards, one of them empty, one NPY.
  std::string shards() {
    std::filesystem::create_directory(dir / "s");
    spill(dir / "s/a_00.bin", stored<std::uint16_t>(part(ids, 0, 40)));
    spill(dir / "s/a_01.bin", "");
    spill(dir / "s/a_02.bin", stored<std::uint16_t>(part(ids, 40, 43)));
    io::write_npy(dir / "s/b.npy", Array::from(part(ids, 43, 101), {58}));
    spill(dir / "s/readme.txt", "no ids");
    return dir / "s";
  }
};

void expect_same(const Source& a, const Source& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::int64_t row = 0; row < a.size(); ++row)
    for (const Key key : {Key(1), Key(2)}) {
      const Batch x = a.fetch({&row, 1}, key), y = b.fetch({&row, 1}, key);
      EXPECT_TRUE(std::ranges::equal(x.x.values<std::int64_t>(), y.x.values<std::int64_t>()));
      EXPECT_TRUE(std::ranges::equal(x.y.values<std::int64_t>(), y.y.values<std::int64_t>()));
    }
}

TEST_F(Tokens, ShardsAreOneSequence) {
  const TokenFiles all(shards());
  EXPECT_EQ(all.size(), 101);
  EXPECT_EQ(all.shards(), 4u);
  Rows got(101);
  all.read(0, got);
  EXPECT_EQ(got, ids);
  for (std::size_t begin = 0; begin < 101; begin += 3)
    for (std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{5}, 101 - begin}) {
      if (begin + n > 101) continue;
      Rows some(n);
      all.read(static_cast<std::int64_t>(begin), some);
      EXPECT_EQ(some, part(ids, begin, begin + n));
    }
  EXPECT_EQ(TokenFiles(dir / "s/a_*.bin").size(), 43);
  EXPECT_EQ(TokenFiles(dir / "s/?.npy").size(), 58);
  EXPECT_EQ(TokenFiles(dir / "s/a_02.bin").size(), 3);
  EXPECT_EQ(all.where(42), dir / "s/a_02.bin" + ", id 2");
  const auto [train, held_out] = all.split(0.1);
  const auto [first, last] = split_text(Array::from(ids, {101}), 0.1);
  EXPECT_EQ(train.size(), first.numel());
  Rows tail(static_cast<std::size_t>(held_out.size()));
  held_out.read(0, tail);
  EXPECT_TRUE(std::ranges::equal(tail, last.values<std::int64_t>()));
  EXPECT_EQ(held_out.where(0), dir / "s/b.npy, id " + std::to_string(train.size() - 43));
}

TEST_F(Tokens, BlocksAreThoseOfTheIdsInMemory) {
  const TokenFiles all(shards());
  const Array memory = Array::from(ids, {101});
  for (const BlockPlan plan : {random_blocks(), random_blocks(40), strided_blocks(8), strided_blocks(3)})
    expect_same(TextBlocks(memory, 8, plan), TokenBlocks(all, 8, plan, 65000));
  const auto [train, held_out] = all.split(0.3);
  const auto [first, last] = split_text(memory, 0.3);
  expect_same(TextBlocks(last, 5, strided_blocks(2)), TokenBlocks(held_out, 5, strided_blocks(2)));
}

TEST_F(Tokens, TypesAndHeadersAreGiven) {
  const std::string path = dir / "x.bin";
  const auto read = [&](const std::string& bytes, const TokenFileOptions& o) {
    spill(path, bytes);
    const TokenFiles f(path, o);
    Rows got(static_cast<std::size_t>(f.size()));
    f.read(0, got);
    return got;
  };
  const Rows few{0, 1, 200, 255}, many{70000, 4000000000, 3};
  EXPECT_EQ(read(stored<std::uint8_t>(few), {.type = "u8"}), few);
  EXPECT_EQ(read("HEADER..." + stored<std::uint8_t>(few), {.type = "u8", .header = 9}), few);
  EXPECT_EQ(read("HEAD" + stored<std::uint32_t>(many), {.type = "u32", .header = 4}), many);
  EXPECT_EQ(read(stored<std::int32_t>({5, -1}), {.type = "i32"}), (Rows{5, -1}));
}

TEST_F(Tokens, MistakesAreNamed) {
  const std::string folder = shards(), path = dir / "x.bin";
  expect_error(ErrorKind::io, "no file has such a name", [&] { TokenFiles f(dir / "s/c_*.bin"); });
  std::filesystem::create_directory(dir / "empty");
  expect_error(ErrorKind::io, "holds no .bin or .npy file", [&] { TokenFiles f(dir / "empty"); });
  expect_error(ErrorKind::io, "none.bin", [&] { TokenFiles f(dir / "none.bin"); });
  spill(path, "abc");
  expect_error(ErrorKind::format, "x.bin: 3 bytes, a header of 0 among them, are no whole numbers of 2 bytes",
               [&] { TokenFiles f(path); });
  expect_error(ErrorKind::format, "a header of 9", [&] { TokenFiles f(path, {.header = 9}); });
  expect_error(ErrorKind::value, "\"f32\": expected u8", [&] { TokenFiles f(path, {.type = "f32"}); });
  io::write_npy(dir / "y.npy", Array::from(std::vector<float>{1, 2}, {2}));
  expect_error(ErrorKind::format, "holds f32 [2], expected ids", [&] { TokenFiles f(dir / "y.npy"); });
  const TokenFiles all(folder);
  Rows some(5);
  expect_error(ErrorKind::value, "ids 97 to 102 of 101", [&] { all.read(97, some); });
  expect_error(ErrorKind::value, "needs at least 102", [&] { TokenBlocks(all, 101, random_blocks()); });
  const TokenBlocks narrow(all, 10, strided_blocks(10), 50000);
  const auto at =
      static_cast<std::int64_t>(std::find_if(ids.begin(), ids.end(), [](auto i) { return i >= 50000; }) - ids.begin());
  const std::int64_t row = at / 10;
  expect_error(ErrorKind::value, dir / "s/a_00.bin, id " + std::to_string(at) + " is ", [&] {
    narrow.fetch({&row, 1});
  });
}

}  // namespace
}  // namespace bp::data

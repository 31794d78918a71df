// Sources that read forward: every row once an epoch, the same order for any number of threads, resumed anywhere;
// damage is named.
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "bp/augment.h"
#include "bp/stream.h"
#include "data/epochs.h"
#include "io/helpers.h"

namespace bp::data {
namespace {

using Rows = std::vector<std::int64_t>;

void spill_gzip(const std::string& path, const std::string& content) {
  gzFile file = gzopen(path.c_str(), "wb1");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
}

// Three shards of 40, 0 and 30 images whose pixels are their number; the first compressed, the last plain.
struct Shards : ::testing::Test {
  TempDir dir;
  std::string x = dir / "x_*.idx.gz", y = dir / "y_*.idx.gz";
  Shards() {
    std::int64_t first = 0;
    for (const auto& [name, n] : {std::pair{"0", 40}, {"1", 0}, {"2", 30}}) {
      std::vector<std::int32_t> pixels;
      std::vector<std::uint8_t> labels;
      for (std::int64_t i = first; i < first + n; ++i) {
        pixels.insert(pixels.end(), 6, static_cast<std::int32_t>(i));
        labels.push_back(static_cast<std::uint8_t>(i));
      }
      first += n;
      io::write_idx(dir / "plain", Array::from(pixels, {n, 2, 3}));
      spill_gzip(dir / (std::string("x_") + name + ".idx.gz"), slurp(dir / "plain"));
      io::write_idx(dir / "plain", Array::from(labels, {n}));
      if (n == 30)
        spill(dir / "y_2.idx.gz", slurp(dir / "plain"));  // not compressed after all
      else
        spill_gzip(dir / (std::string("y_") + name + ".idx.gz"), slurp(dir / "plain"));
    }
  }
};

Rows labels_of(const Batch& b) {
  const auto v = b.y.values<std::uint8_t>();
  return {v.begin(), v.end()};
}

std::vector<Rows> batches_of(DataLoader& loader, std::int64_t n) {
  std::vector<Rows> all;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto b = loader.next();
    all.push_back(b ? labels_of(*b) : Rows{});
    if (!b) continue;
    for (std::size_t k = 0; k < all.back().size(); ++k)  // inputs and targets belong together
      EXPECT_EQ(b->x.values<std::int32_t>()[6 * k + 5], all.back()[k]);
  }
  return all;
}

TEST_F(Shards, InOrderWithoutABuffer) {
  const ForwardArrays rows(x, y);
  EXPECT_EQ(rows.size(), 70);
  DataLoader loader(std::make_shared<const ForwardArrays>(rows), {.batch_size = 70, .shuffle = false, .threads = 0});
  Rows expected(70);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(batches_of(loader, 1)[0], expected);
  EXPECT_EQ(rows.fetch(Rows{5}).x.shape, (Shape{1, 2, 3}));
  EXPECT_EQ(labels_of(rows.fetch(Rows{69, 3, 3, 41})), (Rows{69, 3, 3, 41}));  // backward too, if dearly
}

TEST_F(Shards, AnEpochTakesEveryRowOnceWhateverTheThreads) {
  std::vector<Rows> expected;
  for (const int threads : {0, 1, 4}) {
    const auto source = std::make_shared<const ForwardArrays>(x, y, ForwardOptions{1000});  // some 15 rows
    DataLoader loader(source, {.batch_size = 8, .key = Key(3), .drop_last = false, .threads = threads, .depth = 5});
    const std::vector<Rows> got = batches_of(loader, 3 * 10);
    if (expected.empty()) expected = got;
    EXPECT_EQ(got, expected) << threads;
  }
  std::set<Rows> orders;
  for (int e = 0; e < 3; ++e) {
    Rows epoch;
    for (int b = 0; b < 9; ++b) epoch.insert(epoch.end(), expected[10 * e + b].begin(), expected[10 * e + b].end());
    EXPECT_TRUE(expected[10 * e + 9].empty());
    EXPECT_EQ(std::set<std::int64_t>(epoch.begin(), epoch.end()).size(), 70u);
    EXPECT_EQ(epoch.size(), 70u);
    EXPECT_FALSE(std::is_sorted(epoch.begin(), epoch.end()));
    orders.insert(epoch);
  }
  EXPECT_EQ(orders.size(), 3u);
}

TEST_F(Shards, GoesOnAnywhere) {
  const auto source = std::make_shared<const ForwardArrays>(x, y, ForwardOptions{2000});
  const LoaderOptions options{.batch_size = 8, .key = Key(3), .threads = 2};
  DataLoader whole(source, options);
  const std::vector<Rows> all = batches_of(whole, 2 * 9);  // 8 batches and an end
  for (std::int64_t at = 0; at < 18; ++at) {
    DataLoader resumed(source, options);
    resumed.restore({at / 9, at % 9});
    const std::vector<Rows> rest = batches_of(resumed, 18 - at);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + at)) << at;
  }
}

// As an exact shuffle when everything fits: each row stands in each place as often as in others.
TEST(Epochs, ABufferMixesWhatItHolds) {
  struct Count final : RowReader {
    int at = 0;
    bool next(RawRow& row) override {
      row.bytes = std::string(1, static_cast<char>(at));
      return at++ < 4;
    }
  };
  const Epochs epochs({4}, 1 << 20, [](std::size_t) { return std::make_unique<Count>(); });
  std::map<std::string, int> orders;
  for (std::uint64_t k = 0; k < 2400; ++k) {
    std::string order;
    for (const RawRow& row : epochs.take(Rows{0, 1, 2, 3}, Key(k))) order += row.bytes;
    ++orders[order];
  }
  EXPECT_EQ(orders.size(), 24u);
  for (const auto& [order, n] : orders) EXPECT_NEAR(n, 100, 45);
}

TEST_F(Shards, MistakesAreNamed) {
  const std::string good = slurp(dir / "x_0.idx.gz");
  expect_error(ErrorKind::format, "are 3 files", [&] { ForwardArrays(x, dir / "y_0*"); });
  expect_error(ErrorKind::format, "y_2.idx.gz holds 30",
               [&] { ForwardArrays(dir / "x_0.idx.gz", dir / "y_2.idx.gz"); });
  expect_error(ErrorKind::io, "no file has such a name", [&] { ForwardArrays(dir / "z*"); });
  expect_error(ErrorKind::io, "none.gz", [&] { ForwardArrays(dir / "none.gz"); });
  expect_error(ErrorKind::format, "holds no rows", [&] { ForwardArrays(dir / "x_1.idx.gz"); });
  spill(dir / "x_0.idx.gz", good.substr(0, good.size() - 30));
  expect_error(ErrorKind::format, "x_0.idx.gz", [&] { ForwardArrays(x, y).fetch(Rows{39}); });
  spill_gzip(dir / "x_0.idx.gz", std::string("\0\0\x0c\x03\0\0\0\x28\0\0\0\2\0\0\0\3", 16) + std::string(40, 'x'));
  expect_error(ErrorKind::format, "x_0.idx.gz: ends in row 1 of the 40 that its header claims",
               [&] { ForwardArrays(x, y).fetch(Rows{1}); });
  spill_gzip(dir / "x_0.idx.gz", std::string("\0\0\x0c\x03\0\0\0\x28\0\0\0\2\x10\0\0\0", 16));
  expect_error(ErrorKind::format, "more than 256 MiB each", [&] { ForwardArrays(x, y); });
  io::write_npy(dir / "x_0.idx.gz", Array::from(std::vector<float>(240), {40, 6}));
  expect_error(ErrorKind::format, "the shard before", [&] { ForwardArrays(x, y); });
  spill(dir / "x_0.idx.gz", good);
  const auto rows = std::make_shared<const ForwardArrays>(x, y);
  expect_error(ErrorKind::value, "can only be read forward", [&] { split(rows, 0.5, Key{}); });
  expect_error(ErrorKind::value, "row 70 of 70", [&] { rows->fetch(Rows{70}); });
  const auto images = std::make_shared<const ForwardArrays>(dir / "x_0.idx.gz", dir / "y_0.idx.gz");
  EXPECT_EQ(images->size(), 40);
}

TEST(ForwardCsv, FilesAreOneTable) {
  const TempDir dir;
  const std::string head = "a,kind,b\n";
  spill_gzip(dir / "t_0.csv.gz", head + "1,cat,10\n2,\"d\nog\",20\n3,cat,NA\n");
  spill(dir / "t_1.csv.gz", head + "4,emu,40\n");
  const io::CsvOptions o{.categorical = {"kind"}, .missing = io::Missing::drop_row};
  const ForwardCsv rows(dir / "t_*.csv.gz", "kind", o);
  EXPECT_EQ(rows.size(), 3);
  EXPECT_EQ(rows.options().categories.at("kind"), (std::vector<std::string>{"cat", "d\nog", "emu"}));
  const Batch b = rows.fetch(Rows{0, 1, 2});
  EXPECT_EQ(b.x.shape, (Shape{3, 2}));
  EXPECT_TRUE(std::ranges::equal(b.x.values<float>(), std::vector<float>{1, 10, 2, 20, 4, 40}));
  EXPECT_TRUE(std::ranges::equal(b.y.values<std::int64_t>(), Rows{0, 1, 2}));
  spill(dir / "t_1.csv.gz", head + "\n4,emu,x\n");
  expect_error(ErrorKind::format, "t_1.csv.gz: line 3, column \"b\"", [&] {
    ForwardCsv(dir / "t_*.csv.gz", "kind", o).fetch(Rows{0, 2});
  });
  spill(dir / "t_1.csv.gz", "a,b\n4,5\n");
  expect_error(ErrorKind::format, "t_1.csv.gz: the header differs", [&] { ForwardCsv(dir / "t_*.csv.gz", "kind", o); });
  expect_error(ErrorKind::value, "\"kin\"; did you mean", [&] { ForwardCsv(dir / "t_0.csv.gz", "kin", o); });
}

TEST_F(Shards, PairsAreRefused) {
  io::write_idx(dir / "plain", Array::from(std::vector<std::uint8_t>(16), {2, 2, 2, 2}));
  spill_gzip(dir / "i.gz", slurp(dir / "plain"));
  io::write_idx(dir / "plain", Array::from(std::vector<std::uint8_t>(2), {2}));
  spill_gzip(dir / "l.gz", slurp(dir / "plain"));
  const auto rows = std::make_shared<const ForwardArrays>(dir / "i.gz", dir / "l.gz");
  expect_error(ErrorKind::value, "i.gz can only be read forward",
               [&] { augment::augmented(rows, {augment::mixup(0.2, 2)}); });
  EXPECT_TRUE(augment::augmented(rows, {augment::flip()})->reads_forward());
}

}  // namespace
}  // namespace bp::data

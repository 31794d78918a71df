// Sources on disk: the same batches as the file read whole, around them subsets, splits and moments.
#include "bp/stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "bp/datasets.h"
#include "io/helpers.h"

namespace bp::data {
namespace {

using Rows = std::vector<std::int64_t>;

Array bytes(const Shape& shape, std::uint64_t seed) {
  std::vector<std::uint8_t> v(static_cast<std::size_t>(shape.numel()));
  Rng rng{Key(seed)};
  for (std::uint8_t& x : v) x = static_cast<std::uint8_t>(rng.below(256));
  return Array::from(v, shape);
}

void expect_equal(const Array& a, const Array& b) {
  EXPECT_EQ(a.dtype, b.dtype);
  ASSERT_EQ(a.shape, b.shape);
  EXPECT_EQ(std::memcmp(a.buffer.data(), b.buffer.data(), a.bytes()), 0);
}

// Two epochs of both, from threads.
void expect_same_batches(const std::shared_ptr<const Source>& a, const std::shared_ptr<const Source>& b) {
  const LoaderOptions options{.batch_size = 7, .key = Key(5), .drop_last = false, .threads = 2};
  DataLoader one(a, options), other(b, options);
  for (std::int64_t i = 0; i < 2 * (one.batches() + 1); ++i) {
    const auto x = one.next(), y = other.next();
    ASSERT_EQ(x.has_value(), y.has_value());
    if (!x) continue;
    expect_equal(x->x, y->x);
    expect_equal(x->y, y->y);
  }
}

struct Files {
  TempDir dir;
  std::string x = dir / "x.idx", y = dir / "y.idx";
  Array images = bytes({53, 4, 3, 2}, 1), labels = bytes({53}, 2);
  Files() {
    io::write_idx(x, images);
    io::write_idx(y, labels);
  }
  ArrayDataset whole() const { return ArrayDataset(images, labels); }
};

TEST(Stream, TheBatchesAreThoseFromMemory) {
  const Files f;
  const auto rows = std::make_shared<const FileRows>(f.x, f.y);
  EXPECT_EQ(rows->name(), f.x);
  expect_same_batches(std::make_shared<const ArrayDataset>(f.whole()), rows);
  const auto [larger, smaller] = f.whole().split(0.3, Key(8));
  const auto [train, held_out] = split(rows, 0.3, Key(8));
  const Moments m = larger.moments(), n = moments(*train);
  EXPECT_EQ(m.mean, n.mean);
  EXPECT_EQ(m.stddev, n.stddev);
  expect_same_batches(std::make_shared<const ArrayDataset>(larger.normalized(m.mean, m.stddev)),
                      normalized(train, n.mean, n.stddev));
  expect_same_batches(std::make_shared<const ArrayDataset>(smaller), held_out);
  expect_same_batches(std::make_shared<const ArrayDataset>(f.whole().take(20)), take(rows, 20));
  const Rows some{4, 1, 1, 50};
  expect_same_batches(std::make_shared<const ArrayDataset>(f.whole().subset(some)), subset(rows, some));
}

TEST(Stream, TargetsBeyondMemoryComeFromDiskToo) {
  const TempDir dir;
  constexpr std::int64_t kRows = (std::int64_t{33} << 20) / 8;
  Rows v(kRows);
  std::iota(v.begin(), v.end(), 0);
  const Array y = Array::from(v, {kRows});
  io::write_npy(dir / "y.npy", y);
  io::write_npy(dir / "x.npy", convert(y, DType::i32));
  const FileRows rows(dir / "x.npy", dir / "y.npy");
  const Batch b = rows.fetch(Rows{7, kRows - 1, 8});
  EXPECT_EQ(b.y.values<std::int64_t>()[1], kRows - 1);
  EXPECT_EQ(b.x.values<std::int32_t>()[1], static_cast<std::int32_t>(kRows - 1));
}

// More rows than a table is made for: the parts are a partition, and an epoch takes each row once.
TEST(Stream, ManyRowsAreSplitAndShuffledWithoutATable) {
  constexpr std::int64_t kRows = kTabledRows + 12345;
  std::vector<std::int32_t> v(kRows);
  std::iota(v.begin(), v.end(), 0);
  const auto source = std::make_shared<const ArrayDataset>(Array::from(v, {kRows}));
  const auto [train, held_out] = split(source, 0.001, Key(2));
  EXPECT_EQ(train->size() + held_out->size(), kRows);
  ASSERT_GT(train->size(), kTabledRows);
  std::vector<int> seen(kRows, 0);
  std::int64_t moved = 0;
  for (const SourcePtr& part : {train, held_out}) {
    DataLoader loader(part, {.batch_size = 1 << 18, .key = Key(3), .drop_last = false, .threads = 2});
    std::int64_t place = 0;
    while (const auto batch = loader.next())
      for (const std::int32_t row : batch->x.values<std::int32_t>()) {
        ++seen[static_cast<std::size_t>(row)];
        moved += row != place++;
      }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), kRows);
  EXPECT_GT(moved, kRows - 100);
}

TEST(Stream, MomentsOfASampleAreClose) {
  const TempDir dir;
  io::write_idx(dir / "x.idx", bytes({20000, 3}, 4));
  const FileRows rows(dir / "x.idx");
  const Moments all = moments(rows), some = moments(rows, Key(1), 6000), same = moments(rows, Key(1), 6000);
  EXPECT_EQ(some.mean, same.mean);
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NE(all.mean[c], some.mean[c]);
    EXPECT_NEAR(all.mean[c], some.mean[c], 4 * 0.289 / std::sqrt(2000.0));
    EXPECT_NEAR(all.stddev[c], 0.289, 0.01);
    EXPECT_NEAR(some.stddev[c], 0.289, 0.02);
  }
}

TEST(Stream, CsvRowsAreThoseFromMemory) {
  const TempDir dir;
  std::string text = "a,kind,b\n";
  for (int i = 0; i < 40; ++i) text += std::to_string(i) + "," + (i % 3 == 0 ? "cat" : "dog") + ",0.5\n";
  spill(dir / "t.csv", text);
  const io::CsvOptions o{.categorical = {"kind"}};
  const auto rows = std::make_shared<const CsvRows>(io::CsvFile(dir / "t.csv", o), "kind");
  EXPECT_EQ(rows->inputs(), (std::vector<std::string>{"a", "b"}));
  expect_same_batches(std::make_shared<const ArrayDataset>(load_csv(dir / "t.csv", "kind", o)), rows);
  const CsvRows wide(io::CsvFile(dir / "t.csv", o), "a", true);
  EXPECT_EQ(wide.fetch(Rows{0, 1}).x.shape, (Shape{2, 3}));
  expect_error(ErrorKind::value, "\"kin\"; did you mean \"kind\"",
               [&] { CsvRows(io::CsvFile(dir / "t.csv", o), "kin"); });
}

TEST(Stream, WhatDoesNotFitIsSaid) {
  const Files f;
  io::write_idx(f.dir / "few.idx", bytes({52}, 1));
  expect_error(ErrorKind::format, "x.idx holds 53 rows, " + (f.dir / "few.idx") + " holds 52",
               [&] { FileRows(f.x, f.dir / "few.idx"); });
  const auto rows = std::make_shared<const FileRows>(f.x, f.y);
  expect_error(ErrorKind::value, "x.idx: row 53 of 53", [&] { rows->fetch(Rows{0, 53}); });
  expect_error(ErrorKind::value, "row 20 of 20", [&] { take(rows, 20)->fetch(Rows{20}, Key{}); });
  expect_error(ErrorKind::value, "row 53 of 53", [&] { subset(rows, {53}); });
  expect_error(ErrorKind::value, "no rows", [&] { subset(rows, {}); });
  expect_error(ErrorKind::value, "fraction of 1", [&] { split(rows, 1, Key{}); });
  expect_error(ErrorKind::value, "3 means and 3 deviations", [&] { normalized(rows, {0, 0, 0}, {1, 1, 1}); });
}

}  // namespace
}  // namespace bp::data

// Datasets: transforms against a scalar reference, subsets, splits, checks, and the real images.
#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>

#include "bp/datasets.h"
#include "io/helpers.h"

namespace bp::data {
namespace {

Array counting(const Shape& shape) {
  std::vector<std::uint8_t> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<std::uint8_t>(i * 37 + i / 256);
  return Array::from(v, shape);
}

Array ids(std::int64_t n) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return Array::from(v, {n});
}

TEST(Permutation, TakesEveryPlaceOnceInManyOrders) {
  for (std::int64_t n : {1, 2, 3, 4, 5, 16, 17, 100, 1023, 1024, 1025, 4099}) {
    const Permutation p(n, Key(7));
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(p(i), Permutation(n, Key(7))(i));
      seen.insert(p(i));
    }
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), n);
    EXPECT_EQ(*seen.rbegin(), n - 1);
  }
  // Each of the 120 orders of five rows comes as often as the others.
  std::map<std::vector<std::int64_t>, int> orders;
  constexpr int kDraws = 12000;
  for (std::uint64_t k = 0; k < kDraws; ++k) {
    const Permutation p(5, Key(1).fold(k));
    ++orders[{p(0), p(1), p(2), p(3), p(4)}];
  }
  double chi = 0;
  for (const auto& [order, count] : orders) chi += std::pow(count - kDraws / 120.0, 2) / (kDraws / 120.0);
  EXPECT_EQ(orders.size(), 120u);
  EXPECT_LT(chi, 190);  // 119 degrees of freedom: above it once in 25,000
  // Far beyond a table.
  const std::int64_t many = std::int64_t{1} << 40;
  const Permutation p(many - 1, Key(3));
  double sum = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    EXPECT_GE(p(i), 0);
    EXPECT_LT(p(i), many - 1);
    sum += static_cast<double>(p(i)) / static_cast<double>(many);
  }
  EXPECT_NEAR(sum / 1000, 0.5, 0.05);
  expect_error(ErrorKind::value, "expected 0 to 2^62", [] { Permutation(-1, Key{}); });
}

TEST(Dataset, GathersRowsAsTheyAre) {
  Rng rng(Key(2));
  for (DType t : {f64, f32, bf16, i64, i32, u8, boolean})
    for (const Shape& shape : {Shape{5}, Shape{5, 3}, Shape{5, 2, 0}, Shape{5, 3, 1, 7}}) {
      const Array a = random_array(t, shape, rng);
      const std::vector<std::int64_t> rows = {4, 0, 4, 2};
      const Batch b = ArrayDataset(a, ids(5)).fetch(rows);
      EXPECT_EQ(b.x.rows(), 4);
      for (std::size_t i = 0; i < rows.size() && a.row_bytes() != 0; ++i)
        EXPECT_EQ(std::memcmp(b.x.buffer.as<char>() + i * a.row_bytes(),
                              a.buffer.as<char>() + static_cast<std::size_t>(rows[i]) * a.row_bytes(), a.row_bytes()),
                  0);
      EXPECT_THAT(b.y.values<std::int64_t>(), testing::ElementsAreArray(rows));
    }
  const ArrayDataset d(counting({5, 3}));
  EXPECT_FALSE(d.fetch(std::vector<std::int64_t>{0}).y.buffer);
  EXPECT_EQ(d.fetch({}).x.shape, Shape({0, 3}));
  expect_error(ErrorKind::value, "row 5 of a dataset of 5", [&] { d.fetch(std::vector<std::int64_t>{5}); });
  expect_error(ErrorKind::shape, "need as many targets", [] { ArrayDataset(counting({5, 3}), ids(4)); });
  expect_error(ErrorKind::shape, "at least one row", [] { ArrayDataset(counting({0, 3})); });
}

// Odd widths around the block of 256, several channel counts.
TEST(Dataset, NormalizesLikeTheFormula) {
  for (std::int64_t channels : {1, 2, 3, 5, 300})
    for (std::int64_t pixels : {1, 7, 85, 86, 300}) {
      const Array x = counting({3, pixels, channels});
      std::vector<float> mean, stddev;
      for (std::int64_t c = 0; c < channels; ++c) {
        mean.push_back(0.1f * static_cast<float>(c % 7));
        stddev.push_back(0.5f + 0.01f * static_cast<float>(c));
      }
      const Batch b = ArrayDataset(x).normalized(mean, stddev).fetch(std::vector<std::int64_t>{2, 1});
      ASSERT_EQ(b.x.dtype, f32);
      for (std::int64_t i = 0; i < b.x.numel(); ++i) {
        const std::int64_t row = 2 - i / (pixels * channels), at = i % (pixels * channels);
        const auto c = static_cast<std::size_t>(at % channels);
        const double v = x.data<std::uint8_t>()[row * pixels * channels + at];
        ASSERT_NEAR(b.x.data<float>()[i], (v / 255.0 - mean[c]) / stddev[c], 2e-6) << channels << " " << pixels;
      }
    }
  const ArrayDataset d(counting({3, 4}));
  EXPECT_EQ(d.scaled().all().x.data<float>()[0], 0.0f);
  const Array white = Array::from(std::vector<std::uint8_t>{255}, {1, 1});
  EXPECT_EQ(ArrayDataset(white).scaled().all().x.data<float>()[0], 1.0f);
  EXPECT_EQ(ArrayDataset(Array::zeros(f64, {2, 2})).scaled().all().x.dtype, f64);
  EXPECT_EQ(ArrayDataset(Array::zeros(i32, {2, 2})).scaled().dtype(), f32);
  expect_error(ErrorKind::value, "expected 1 or 4", [&] { d.normalized({0, 0}, {1, 1}); });
  expect_error(ErrorKind::value, "positive deviation", [&] { d.normalized({0}, {0}); });
  expect_error(ErrorKind::value, "positive deviation", [&] { d.normalized({0}, {NAN}); });
}

TEST(Dataset, MomentsNormalizeToZeroAndOne) {
  const ArrayDataset d(counting({40, 9, 3}));
  const Moments m = d.moments();
  const Moments after = ArrayDataset(d.normalized(m.mean, m.stddev).all().x).moments();
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(after.mean[c], 0, 1e-5);
    EXPECT_NEAR(after.stddev[c], 1, 1e-5);
  }
  EXPECT_EQ(ArrayDataset(Array::zeros(f32, {4, 2})).moments().stddev[1], 1.0f);
  const ArrayDataset large(Array::from(std::vector<double>{1e9, 1e9 + 2}, {2, 1}));
  EXPECT_EQ(large.moments().stddev[0], 1.0f);
}

TEST(Dataset, SplitsWithoutOverlapAndReproducibly) {
  const ArrayDataset d(counting({101, 2}), ids(101));
  const auto [train, validation] = d.split(0.2, Key(7));
  EXPECT_EQ(train.size(), 81);
  EXPECT_EQ(validation.size(), 20);
  std::set<std::int64_t> seen;
  for (const ArrayDataset& part : {train, validation}) {
    const Batch all = part.all();
    for (std::int64_t id : all.y.values<std::int64_t>()) EXPECT_TRUE(seen.insert(id).second);
  }
  EXPECT_EQ(seen.size(), 101u);
  EXPECT_TRUE(same_bits(d.split(0.2, Key(7)).second.all().y, validation.all().y));
  EXPECT_FALSE(same_bits(d.split(0.2, Key(8)).second.all().y, validation.all().y));
  EXPECT_EQ(d.take(2).split(0.001, Key(1)).second.size(), 1);
  const ArrayDataset nested = validation.subset(std::vector<std::int64_t>{3, 1});
  EXPECT_EQ(nested.all().y.data<std::int64_t>()[0], validation.all().y.data<std::int64_t>()[3]);
  for (double f : {0.0, 1.0, -1.0, double(NAN)})
    expect_error(ErrorKind::value, "fraction", [&] { d.split(f, Key(1)); });
  expect_error(ErrorKind::value, "one row", [&] { d.take(1).split(0.5, Key(1)); });
  expect_error(ErrorKind::value, "no rows", [&] { d.take(0); });
}

TEST(Permutation, IsOneAndSpreadsEvenly) {
  std::vector<int> first(8);
  for (std::uint64_t k = 0; k < 8000; ++k) {
    const auto p = permutation(8, Key(k));
    EXPECT_EQ(std::set<std::int64_t>(p.begin(), p.end()).size(), 8u);
    ++first[static_cast<std::size_t>(p[0])];
  }
  for (int n : first) EXPECT_NEAR(n, 1000, 150);  // five standard deviations
}

TEST(Check, NamesRowValueAndRange) {
  Array x = Array::zeros(f32, {4, 3});
  check_finite(x, "inputs");
  x.mutable_data<float>()[7] = NAN;
  expect_error(ErrorKind::value, "inputs: row 2, element 1 is nan", [&] { check_finite(x, "inputs"); });
  Array h = convert(Array::zeros(f32, {2}), bf16);
  h.mutable_data<bfloat16>()[1] = bfloat16(INFINITY);
  expect_error(ErrorKind::value, "row 1, element 0 is inf", [&] { check_finite(h, "inputs"); });
  check_finite(ids(3), "ids");
  check_labels(ids(3), 3);
  expect_error(ErrorKind::value, "labels: row 2 has class 2: expected 0 to 1", [] { check_labels(ids(3), 2); });
  expect_error(ErrorKind::value, "row 0 has class -1",
               [] { check_labels(Array::from(std::vector<std::int32_t>{-1}, {1}), 2); });
  expect_error(ErrorKind::dtype, "must be integers", [&] { check_labels(x, 2); });
}

TEST(LoadIdxPair, RefusesFilesThatDoNotBelongTogether) {
  TempDir dir;
  io::write_idx(dir / "images", counting({3, 2, 2}));
  io::write_idx(dir / "labels", Array::from(std::vector<std::uint8_t>{0, 9, 1}, {3}));
  io::write_idx(dir / "two", Array::from(std::vector<std::uint8_t>{0, 9}, {2}));
  const ArrayDataset d = load_idx_pair(dir / "images", dir / "labels", 10);
  EXPECT_EQ(d.inputs().shape, Shape({3, 2, 2, 1}));
  EXPECT_THAT(d.targets().values<std::int64_t>(), testing::ElementsAre(0, 9, 1));
  expect_error(ErrorKind::format, "do not belong together", [&] { load_idx_pair(dir / "images", dir / "two"); });
  expect_error(ErrorKind::format, "expected images", [&] { load_idx_pair(dir / "labels", dir / "labels"); });
  expect_error(ErrorKind::format, "expected labels", [&] { load_idx_pair(dir / "images", dir / "images"); });
  expect_error(ErrorKind::value, "row 1 has class 9", [&] { load_idx_pair(dir / "images", dir / "labels", 9); });
}

TEST(LoadIdxPair, ReadsFashionMnist) {
  const std::string folder = "/usr/share/datasets/fashion-mnist/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "dataset-fashion-mnist is not installed";
  const ArrayDataset d = load_idx_pair(folder + "t10k-images-idx3-ubyte.gz", folder + "t10k-labels-idx1-ubyte.gz", 10);
  EXPECT_EQ(d.inputs().shape, Shape({10000, 28, 28, 1}));
  std::vector<int> count(10);
  for (std::int64_t c : d.targets().values<std::int64_t>()) ++count[static_cast<std::size_t>(c)];
  EXPECT_THAT(count, testing::Each(1000));
  const Moments m = d.moments();
  EXPECT_NEAR(m.mean[0], 0.2868, 5e-4);
  EXPECT_NEAR(m.stddev[0], 0.3524, 5e-4);
}

}  // namespace
}  // namespace bp::data

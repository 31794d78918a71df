// Rows folded into one against scalar sums, over sizes around vectors, blocks and chains.
#include "cpu/kernels/reduce_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "values.h"

namespace bp::cpu {
namespace {

using Fold = ReduceRowsSpec::Fold;

double fold_of_column(Fold fold, const std::vector<double>& column) {
  double out = column[0];
  for (std::size_t i = 1; i < column.size(); ++i) {
    const double v = column[i];
    if (fold == Fold::sum) out += v;
    if (fold == Fold::prod) out *= v;
    if (fold == Fold::max && !std::isnan(out)) out = std::isnan(v) || v > out ? v : out;
    if (fold == Fold::min && !std::isnan(out)) out = std::isnan(v) || v < out ? v : out;
  }
  return out;
}

template <class T> void check_fold(const ReduceRowsSpec& s, bool with_nan) {
  Rng rng{Key(static_cast<std::uint64_t>(s.rows * 1000 + s.columns))};
  std::vector<T> x = random_values<T>(rng, s.outer * s.rows * s.columns);
  if (s.fold == Fold::prod)
    for (T& v : x) v = static_cast<T>(1 + 0.1 * static_cast<double>(v));
  if (with_nan) x[x.size() / 2] = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> first;
  for (int threads : {1, 2, 3}) {
    std::vector<T> y(static_cast<std::size_t>(s.outer * s.columns) + 1, static_cast<T>(77));
    reduce_rows(s, x.data(), y.data(), threads);
    EXPECT_EQ(y.back(), static_cast<T>(77));  // nothing behind the result
    for (std::int64_t o = 0; o < s.outer; ++o)
      for (std::int64_t c = 0; c < s.columns; ++c) {
        std::vector<double> column;
        double size = 1;
        for (std::int64_t r = 0; r < s.rows; ++r) {
          column.push_back(static_cast<double>(x[static_cast<std::size_t>((o * s.rows + r) * s.columns + c)]));
          size += std::fabs(column.back());
        }
        const double want = fold_of_column(s.fold, column), got = y[static_cast<std::size_t>(o * s.columns + c)];
        const bool exact = s.fold == Fold::max || s.fold == Fold::min;
        const double tolerance = exact ? 0 : 40 * static_cast<double>(std::numeric_limits<T>::epsilon());
        if (std::isnan(want))
          EXPECT_TRUE(std::isnan(got)) << s.rows << " rows, column " << c;
        else
          EXPECT_NEAR(got, want, tolerance * (s.fold == Fold::prod ? std::fabs(want) : size))
              << s.rows << " rows of " << s.columns << ", column " << c;
      }
    if (threads == 1) first = y;
    for (std::size_t i = 0; i < y.size(); ++i)
      EXPECT_TRUE(y[i] == first[i] || (std::isnan(y[i]) && std::isnan(first[i])));  // whatever the threads
  }
}

TEST(ReduceRows, AgreesWithScalarFolds) {
  for (const auto& [outer, rows, columns] : {std::tuple{3, 1, 5},
                                             {2, 2, 8},
                                             {1, 3, 9},
                                             {2, 5, 31},
                                             {3, 63, 16},
                                             {2, 64, 17},
                                             {2, 65, 3},
                                             {1, 130, 255},
                                             {2, 200, 256},
                                             {1, 7, 257},
                                             {1, 9, 600},
                                             {5, 67, 2}})
    for (Fold fold : {Fold::sum, Fold::max, Fold::min, Fold::prod})
      for (bool nan : {false, true}) {
        ReduceRowsSpec s{outer, rows, columns, fold, f32};
        check_fold<float>(s, nan);
        s.dtype = f64;
        check_fold<double>(s, nan);
      }
}

TEST(ReduceRows, LongSumsKeepTheirDigits) {
  // 2^20 times 0.1f in one chain of f32 would be 0.4% off.
  const std::int64_t rows = 1 << 20;
  const std::vector<float> x(static_cast<std::size_t>(2 * rows), 0.1F);
  std::vector<float> y(2);
  reduce_rows({1, rows, 2, Fold::sum, f32}, x.data(), y.data(), 1);
  EXPECT_NEAR(y[0], 0.1F * static_cast<double>(rows), 1e-6 * 0.1 * static_cast<double>(rows));
}

TEST(ReduceRows, NoRowsAreTheNeutralElement) {
  std::vector<float> y(3, 5);
  reduce_rows({1, 0, 3, Fold::sum, f32}, nullptr, y.data(), 1);
  EXPECT_EQ(y, (std::vector<float>{0, 0, 0}));
  reduce_rows({1, 0, 3, Fold::prod, f32}, nullptr, y.data(), 1);
  EXPECT_EQ(y, (std::vector<float>{1, 1, 1}));
}

}  // namespace
}  // namespace bp::cpu

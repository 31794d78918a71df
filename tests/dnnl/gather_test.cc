// Gathers and scatters against scalar loops, with indices out of range, every dtype, and any number of threads.
#include "cpu/kernels/gather.h"

#include "dnnl/fixture.h"

namespace bp::cpu {
namespace {

using test::values;

template <class T> bool same(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  }
  return a == b;
}

template <class I> std::vector<I> indices(std::int64_t count, std::int64_t rows, unsigned seed) {
  std::vector<I> v(static_cast<std::size_t>(count));
  const auto r = values<double>(count, seed);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<I>(r[i] * 0.6 * static_cast<double>(rows) + 0.5 * static_cast<double>(rows));
  return v;  // some below 0, some beyond rows
}

template <class T> T missing() { return std::is_floating_point_v<T> ? std::numeric_limits<T>::quiet_NaN() : T{}; }

template <class T, class I>
void check_gather(std::int64_t outer, std::int64_t rows, std::int64_t count, std::int64_t inner, int threads) {
  GatherSpec s{outer, rows, count, inner, dtype_of<T>, dtype_of<I>};
  std::vector<T> table(static_cast<std::size_t>(outer * rows * inner));
  const auto raw = values<double>(static_cast<std::int64_t>(table.size()), 1);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<T>(100 * raw[i]);
  const auto rows_index = indices<I>(count, rows, 2), each_index = indices<I>(outer * count * inner, rows, 3);
  std::vector<T> got(static_cast<std::size_t>(outer * count * inner)), taken = got, added = table, added_along = table;
  auto want_added = table, want_along = table;
  gather_rows(s, table.data(), rows_index.data(), got.data(), threads);
  take_along(s, table.data(), each_index.data(), taken.data(), threads);
  std::vector<T> addends(got.size());
  for (std::size_t i = 0; i < addends.size(); ++i) addends[i] = static_cast<T>(i % 17) / T(3);
  scatter_add_rows(s, addends.data(), rows_index.data(), added.data(), threads);
  scatter_add_along(s, addends.data(), each_index.data(), added_along.data(), threads);
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t c = 0; c < count; ++c)
      for (std::int64_t i = 0; i < inner; ++i) {
        const auto at = static_cast<std::size_t>((o * count + c) * inner + i);
        const std::int64_t r = rows_index[static_cast<std::size_t>(c)], e = each_index[at];
        const bool r_ok = r >= 0 && r < rows, e_ok = e >= 0 && e < rows;
        const auto r_at = static_cast<std::size_t>((o * rows + r) * inner + i);
        const auto e_at = static_cast<std::size_t>((o * rows + e) * inner + i);
        ASSERT_TRUE(same(got[at], r_ok ? table[r_at] : missing<T>()));
        ASSERT_TRUE(same(taken[at], e_ok ? table[e_at] : missing<T>()));
        if (r_ok) want_added[r_at] += addends[at];
        if (e_ok) want_along[e_at] += addends[at];
      }
  EXPECT_EQ(added, want_added) << "threads " << threads;  // the same order of additions, bit for bit
  EXPECT_EQ(added_along, want_along);
}

TEST(Gather, EveryShapeAndDtype) {
  for (int threads : {1, 2, 3})
    for (std::int64_t outer : {1, 5})
      for (std::int64_t inner : {1, 7, 200}) {
        check_gather<float, std::int64_t>(outer, 11, 40, inner, threads);
        check_gather<double, std::int32_t>(outer, 3, 9, inner, threads);
        check_gather<std::int64_t, std::int64_t>(outer, 11, 40, inner, threads);
        check_gather<std::int32_t, std::int32_t>(outer, 1, 5, inner, threads);
      }
  check_gather<float, std::int32_t>(2, 0, 4, 3, 2);  // an empty table: everything is out of range
  check_gather<float, std::int32_t>(2, 5, 0, 3, 2);
  check_gather<float, std::int64_t>(1, 96, 2048, 64, 2);
}

TEST(Gather, BFloat16AndBytes) {
  const std::vector<bfloat16> table{bfloat16(1.5f), bfloat16(2.0f)};
  const std::vector<std::int32_t> index{1, 0, 7};
  std::vector<bfloat16> out(3), sums(2);
  const GatherSpec s{1, 2, 3, 1, bf16, i32};
  gather_rows(s, table.data(), index.data(), out.data(), 1);
  EXPECT_EQ(static_cast<float>(out[0]), 2.0f);
  EXPECT_EQ(static_cast<float>(out[1]), 1.5f);
  EXPECT_TRUE(std::isnan(static_cast<float>(out[2])));
  out[2] = bfloat16(5.0f);
  scatter_add_rows(s, out.data(), index.data(), sums.data(), 1);
  EXPECT_EQ(static_cast<float>(sums[0]), 1.5f);
  EXPECT_EQ(static_cast<float>(sums[1]), 2.0f);
  const std::vector<std::uint8_t> bytes{7, 9};
  std::vector<std::uint8_t> got(3, 1);
  gather_rows({1, 2, 3, 1, u8, i32}, bytes.data(), index.data(), got.data(), 2);
  EXPECT_EQ(got, (std::vector<std::uint8_t>{9, 7, 0}));
}

}  // namespace
}  // namespace bp::cpu

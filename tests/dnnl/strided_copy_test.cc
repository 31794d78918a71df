// StridedCopy against an index walk: every way of permuting, broadcasting, slicing, reversing, with each element size.
#include "cpu/kernels/strided_copy.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "dnnl/fixture.h"

namespace bp::cpu {
namespace {

using Ints = std::vector<std::int64_t>;

template <class T> void check_copy(const Ints& sizes, const Ints& from, const Ints& to, int threads) {
  std::int64_t low_from = 0, high_from = 0, low_to = 0, high_to = 0, count = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const std::int64_t reach = std::max<std::int64_t>(sizes[i] - 1, 0);
    (from[i] < 0 ? low_from : high_from) += reach * from[i];
    (to[i] < 0 ? low_to : high_to) += reach * to[i];
    count *= sizes[i];
  }
  std::vector<T> src(static_cast<std::size_t>(high_from - low_from + 1));
  for (std::size_t i = 0; i < src.size(); ++i) src[i] = static_cast<T>(i * 2654435761u >> 5);
  std::vector<T> dst(static_cast<std::size_t>(high_to - low_to + 1), T(99)), want = dst;
  for (std::int64_t n = 0; n < count; ++n) {
    std::int64_t rest = n, s = -low_from, d = -low_to;
    for (std::size_t i = sizes.size(); i-- > 0; rest /= sizes[i]) {
      s += rest % sizes[i] * from[i];
      d += rest % sizes[i] * to[i];
    }
    want[static_cast<std::size_t>(d)] = src[static_cast<std::size_t>(s)];
  }
  const StridedCopy copy(sizes, from, to, sizeof(T));
  copy.run(src.data() - low_from, dst.data() - low_to, threads);
  ASSERT_EQ(dst, want) << "kind " << static_cast<int>(copy.kind()) << " rank " << sizes.size();
}

void check_all(const Ints& sizes, const Ints& from, const Ints& to, int threads = 1) {
  check_copy<std::uint8_t>(sizes, from, to, threads);
  check_copy<std::uint16_t>(sizes, from, to, threads);
  check_copy<std::uint32_t>(sizes, from, to, threads);
  check_copy<std::uint64_t>(sizes, from, to, threads);
}

Ints row_major(const Ints& sizes) {
  Ints strides(sizes.size(), 1);
  for (std::size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return strides;
}

TEST(StridedCopy, EveryPermutationOfFourDimensions) {
  for (const Ints& sizes : {Ints{3, 5, 2, 7}, Ints{2, 33, 1, 70}, Ints{1, 4, 17, 16}}) {
    Ints order{0, 1, 2, 3};
    do {
      Ints out(4), from(4);
      const Ints strides = row_major(sizes);
      for (std::size_t i = 0; i < 4; ++i) {
        out[i] = sizes[static_cast<std::size_t>(order[i])];
        from[i] = strides[static_cast<std::size_t>(order[i])];
      }
      check_all(out, from, row_major(out), order[0] == 2 ? 2 : 1);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(StridedCopy, TransposesOfOddAndLargeMatrices) {
  for (std::int64_t m : {1, 2, 15, 16, 17, 64, 130})
    for (std::int64_t n : {1, 3, 16, 31, 129}) check_all({n, m}, {1, n}, {m, 1});
  check_all({513, 300}, {1, 513}, {300, 1}, 2);
  check_all({512, 1024}, {1, 512}, {1024, 1}, 2);
}

TEST(StridedCopy, BroadcastSliceReversePadAndScalars) {
  check_all({4, 6}, {0, 1}, {6, 1});
  check_all({4, 6}, {1, 0}, {6, 1});
  check_all({3, 4, 6}, {4, 1, 0}, {24, 6, 1});
  check_all({5, 4}, {20, 3}, {4, 1});
  check_all({5, 4}, {-4, 1}, {4, 1});
  check_all({5, 4}, {4, -1}, {4, 1});
  check_all({5, 4}, {4, 1}, {-4, 1});
  check_all({5, 4}, {4, 1}, {9, -2});
  check_all({3, 100}, {100, 1}, {140, 1});
  check_all({}, {}, {});
  check_all({1, 1}, {5, 7}, {2, 2});
  check_all({40000}, {2}, {3}, 2);
  check_all({200000}, {1}, {1}, 2);
  check_all({2, 3, 2, 3, 2, 3, 2, 3}, {1, 2, 6, 12, 36, 72, 216, 432}, row_major({2, 3, 2, 3, 2, 3, 2, 3}));
}

TEST(StridedCopy, Empty) {
  const StridedCopy none(Ints{3, 0}, Ints{1, 1}, Ints{1, 1}, 4);
  EXPECT_EQ(none.kind(), StridedCopy::Kind::nothing);
  none.run(nullptr, nullptr, 2);
  StridedCopy().run(nullptr, nullptr, 1);
}

TEST(StridedCopy, MergesToTheSimplestKernel) {
  using Kind = StridedCopy::Kind;
  EXPECT_EQ(StridedCopy(Ints{2, 3, 4}, Ints{12, 4, 1}, Ints{12, 4, 1}, 4).kind(), Kind::rows);
  EXPECT_EQ(StridedCopy(Ints{2, 3, 4}, Ints{4, 8, 1}, Ints{12, 4, 1}, 4).kind(), Kind::rows);
  EXPECT_EQ(StridedCopy(Ints{2, 12}, Ints{1, 0}, Ints{12, 1}, 4).kind(), Kind::fill_rows);
  EXPECT_EQ(StridedCopy(Ints{2, 3, 4}, Ints{12, 1, 3}, Ints{12, 4, 1}, 4).kind(), Kind::transpose);
  EXPECT_EQ(StridedCopy(Ints{10}, Ints{2}, Ints{1}, 4).kind(), Kind::general);
}

TEST(StridedCopy, Fill) {
  for (std::size_t element : {1, 2, 4, 8})
    for (std::int64_t count : {0, 1, 7, 100000}) {
      std::vector<std::uint8_t> v(static_cast<std::size_t>(count) * element + 1, 1);
      const std::uint64_t value = 0x0706050403020100;
      fill_elements(v.data(), &value, count, element, 2);
      for (std::size_t i = 0; i + 1 < v.size(); ++i) ASSERT_EQ(v[i], i % element);
      EXPECT_EQ(v.back(), 1);
    }
}

}  // namespace
}  // namespace bp::cpu

// Pooling against scalar loops: dimensions, strides, dilation, padding, overlap, NaN, threads.
#include "cpu/kernels/pool.h"

#include <cstring>

#include "dnnl/fixture.h"

namespace bp::cpu {
namespace {

using test::values;

PoolSpec pool(int spatial, std::int64_t batch, std::int64_t size, std::int64_t channels, std::int64_t window,
              std::int64_t stride, std::int64_t pad = 0, std::int64_t dilation = 1) {
  PoolSpec s;
  s.spatial = spatial, s.batch = batch, s.channels = channels;
  for (std::size_t i = 0; i < static_cast<std::size_t>(spatial); ++i) {
    s.in[i] = size + static_cast<std::int64_t>(i);
    s.window[i] = window, s.stride[i] = stride, s.dilation[i] = dilation, s.pad_low[i] = pad;
    s.out[i] = std::max<std::int64_t>(0, (s.in[i] + 2 * pad - ((window - 1) * dilation + 1)) / stride + 1);
  }
  return s;
}

std::int64_t product(const PoolSpec& s, const PoolSpec::Dims& d) {
  std::int64_t n = 1;
  for (int i = 0; i < s.spatial; ++i) n *= d[static_cast<std::size_t>(i)];
  return n;
}

// Calls f(tap, x index) for the inside taps of y's element.
template <class F> std::int64_t each_tap(const PoolSpec& s, std::size_t y, F f) {
  const auto c = static_cast<std::int64_t>(y) % s.channels, place = static_cast<std::int64_t>(y) / s.channels;
  const std::int64_t n = place / product(s, s.out);
  std::int64_t taps = 0;
  for (std::int64_t t = 0; t < product(s, s.window); ++t) {
    std::int64_t o = place % product(s, s.out), rest = t, position = 0, scale = 1;
    bool inside = true;
    for (int d = s.spatial - 1; d >= 0; --d) {
      const auto i = static_cast<std::size_t>(d);
      const std::int64_t p = o % s.out[i] * s.stride[i] + rest % s.window[i] * s.dilation[i] - s.pad_low[i];
      inside = inside && p >= 0 && p < s.in[i];
      position += p * scale;
      scale *= s.in[i], o /= s.out[i], rest /= s.window[i];
    }
    if (!inside) continue;
    ++taps;
    f(t, static_cast<std::size_t>((n * product(s, s.in) + position) * s.channels + c));
  }
  return taps;
}

template <class T> void check_pool(PoolSpec s, int threads) {
  s.dtype = dtype_of<T>;
  const std::int64_t in = s.batch * product(s, s.in) * s.channels, out = s.batch * product(s, s.out) * s.channels;
  const auto x = values<T>(in, 1), dy = values<T>(out, 2);
  std::vector<T> y(dy.size()), taken(dy.size()), mean(dy.size()), dx(x.size(), T(7)), dmean(x.size(), T(7));
  std::vector<std::int32_t> index(dy.size());
  std::vector<std::uint8_t> bytes(dy.size());
  s.index = u8;
  max_pool(s, x.data(), y.data(), bytes.data(), threads);
  max_pool_take(s, x.data(), bytes.data(), taken.data(), threads);
  max_pool_grad(s, dy.data(), bytes.data(), dx.data(), threads);
  std::vector<T> dx2(x.size(), T(7));
  s.index = i32;
  max_pool(s, x.data(), y.data(), index.data(), threads);
  max_pool_grad(s, dy.data(), index.data(), dx2.data(), threads);
  EXPECT_EQ(dx, dx2);
  avg_pool(s, x.data(), mean.data(), threads);
  avg_pool_grad(s, dy.data(), dmean.data(), threads);
  std::vector<T> want_dx(x.size()), want_dmean(x.size());
  const auto window = static_cast<T>(product(s, s.window));
  for (std::size_t o = 0; o < y.size(); ++o) {
    T best = -std::numeric_limits<T>::infinity(), sum = 0;
    std::int64_t chosen = 0;
    std::size_t from = 0;
    const std::int64_t taps = each_tap(s, o, [&](std::int64_t t, std::size_t i) {
      if (x[i] > best) best = x[i], chosen = t, from = i;
      sum += x[i];
    });
    const T by = s.count_include_pad ? window : static_cast<T>(std::max<std::int64_t>(taps, 1));
    ASSERT_EQ(y[o], best);
    ASSERT_EQ(index[o], chosen);
    ASSERT_EQ(bytes[o], chosen);
    ASSERT_EQ(taken[o], taps > 0 ? best : T(0));
    ASSERT_NEAR(mean[o], sum / by, 1e-6);
    if (taps > 0) want_dx[from] += dy[o];
    each_tap(s, o, [&](std::int64_t, std::size_t i) { want_dmean[i] += dy[o] / by; });
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(dx[i], want_dx[i]) << i;  // the same order of additions, bit for bit
    ASSERT_EQ(dmean[i], want_dmean[i]) << i;
  }
}

TEST(Pool, OddSizesOverlapDilationAndPadding) {
  for (int spatial : {1, 2, 3})
    for (std::int64_t window : {1, 2, 3})
      for (std::int64_t stride : {1, 2, 3})
        for (std::int64_t dilation : {1, 2})
          for (std::int64_t pad : {0, 1})
            for (std::int64_t channels : {1, 7, 20}) {
              PoolSpec s = pool(spatial, 2, 6, channels, window, stride, pad, dilation);
              s.count_include_pad = pad == 1 && stride == 2;
              check_pool<float>(s, spatial == 3 && stride == 2 && channels == 7 ? 2 : 1);
              check_pool<double>(s, 1);
            }
}

TEST(Pool, WindowsOutsideAndEmptyBatch) {
  check_pool<float>(pool(2, 2, 3, 9, 2, 3, 2), 1);  // the first window lies in the padding
  check_pool<float>(pool(2, 0, 8, 16, 2, 2), 2);
  check_pool<float>(pool(2, 1, 2, 16, 5, 1), 2);  // no output at all
  check_pool<double>(pool(2, 1, 7, 64, 7, 7), 2);
  check_pool<float>(pool(1, 1, 400, 3, 250, 9), 2);
}

TEST(Pool, NaNWinsAndStays) {
  PoolSpec s = pool(2, 1, 2, 12, 2, 2);
  s.in = {2, 2, 1}, s.out = {1, 1, 1};
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  for (std::int64_t tap = 0; tap < 4; ++tap) {
    std::vector<float> x(48, 1.0f), y(12);
    std::vector<std::uint8_t> index(12, 9);
    for (std::size_t c = 0; c < 12; ++c) x[static_cast<std::size_t>(tap) * 12 + c] = nan;
    max_pool(s, x.data(), y.data(), index.data(), 1);
    for (std::size_t c = 0; c < 12; ++c) {
      EXPECT_TRUE(std::isnan(y[c]));
      EXPECT_EQ(index[c], tap);
    }
  }
  std::vector<float> x(48, nan), y(12);
  std::vector<std::uint8_t> index(12, 9);
  max_pool(s, x.data(), y.data(), index.data(), 1);
  EXPECT_EQ(index[0] + index[11], 0);
  x.assign(48, -infinite);
  max_pool(s, x.data(), y.data(), nullptr, 1);
  EXPECT_EQ(y[0], -infinite);
  EXPECT_EQ(y[11], -infinite);
}

TEST(Pool, ThreadsFollowTheWork) {
  EXPECT_EQ(pool(2, 1, 4, 8, 2, 2).preferred_threads(2), 1);
  EXPECT_EQ(pool(2, 64, 28, 32, 2, 2).preferred_threads(2), 2);
}

}  // namespace
}  // namespace bp::cpu

// DirectConv against sums written out, over shapes whose sizes fit no tile.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cpu/kernels/conv_direct.h"
#include "kernels/values.h"

namespace bp::cpu {
namespace {

// Calls f(x index, w index, y index) for every term of the convolution, indices at channel 0 (w: at [tap, 0, 0]).
template <class F> void each_term(const ConvSpec& s, F f) {
  std::int64_t o[3], t[3];
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t p = 0; p < s.out_positions(); ++p)
      for (std::int64_t tap = 0; tap < s.kernel_positions(); ++tap) {
        std::int64_t rest = p, kernel = tap, pixel = 0;
        for (int i = s.spatial; i-- > 0;) {
          o[i] = rest % s.out(i), rest /= s.out(i);
          t[i] = kernel % s.kernel[static_cast<std::size_t>(i)], kernel /= s.kernel[static_cast<std::size_t>(i)];
        }
        bool there = true;
        for (int i = 0; i < s.spatial; ++i) {
          const auto k = static_cast<std::size_t>(i);
          const std::int64_t at = o[i] * s.stride[k] + t[i] * s.dilation[k] - s.pad_low[k];
          there = there && at >= 0 && at < s.in[k];
          pixel = pixel * s.in[k] + at;
        }
        if (there)
          f((n * s.in_positions() + pixel) * s.in_channels, tap * s.in_channels * s.out_channels,
            (n * s.out_positions() + p) * s.out_channels);
      }
}

template <class T>
std::vector<T> run_conv(const ConvSpec& s, ConvKind kind, const std::vector<T>& a, const std::vector<T>& b,
                        const std::vector<T>& bias, const std::vector<T>& residual, std::vector<T> out, int threads) {
  const DirectConv conv(s, kind);
  std::vector<double> memory(conv.workspace_bytes(threads) / 8 + 16, std::nan(""));
  void* space = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  conv.run(a.data(), b.data(), bias.data(), residual.empty() ? nullptr : residual.data(), out.data(), space, threads);
  return out;
}

template <class T> void expect_near(const std::vector<T>& got, const std::vector<double>& want, double terms) {
  const double tolerance = (sizeof(T) == 4 ? 3e-7 : 1e-15) * (4 + 4 * std::sqrt(terms));
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << "element " << i;
  for (std::size_t i = want.size(); i < got.size(); ++i) ASSERT_EQ(got[i], T(7)) << "beyond the end, " << i;
}

template <class T> void check_conv_as(ConvSpec s, int threads) {
  s.dtype = dtype_of<T>;
  Rng rng(Key(3));
  const std::int64_t in = s.batch * s.in_positions() * s.in_channels;
  const std::int64_t out = s.batch * s.out_positions() * s.out_channels;
  const auto x = random_values<T>(rng, in), w = random_values<T>(rng, s.weight_size()), dy = random_values<T>(rng, out),
             bias = random_values<T>(rng, s.out_channels), residual = random_values<T>(rng, out);
  const auto at = [](const std::vector<T>& v, std::int64_t i) {
    return static_cast<double>(v[static_cast<std::size_t>(i)]);
  };
  std::vector<double> y(static_cast<std::size_t>(out)), dx(static_cast<std::size_t>(in)),
      dw(static_cast<std::size_t>(s.weight_size()));
  each_term(s, [&](std::int64_t a, std::int64_t b, std::int64_t c) {
    for (std::int64_t i = 0; i < s.in_channels; ++i)
      for (std::int64_t k = 0; k < s.out_channels; ++k) {
        const std::int64_t weight = b + i * s.out_channels + k;
        y[static_cast<std::size_t>(c + k)] += at(x, a + i) * at(w, weight);
        dx[static_cast<std::size_t>(a + i)] += at(dy, c + k) * at(w, weight);
        dw[static_cast<std::size_t>(weight)] += at(x, a + i) * at(dy, c + k);
      }
  });
  const double taps = static_cast<double>(s.kernel_positions());
  const auto room = [](std::int64_t n) { return std::vector<T>(static_cast<std::size_t>(n) + 16, T(7)); };
  {
    SCOPED_TRACE("forward");
    expect_near(run_conv<T>(s, ConvKind::forward, x, w, bias, {}, room(out), threads), y,
                taps * static_cast<double>(s.in_channels));
  }
  ConvSpec full = s;
  full.epilogue = {.bias = true, .residual = true, .activation = Epilogue::Activation::relu};
  for (std::size_t i = 0; i < y.size(); ++i)
    y[i] = std::max(0.0, y[i] + at(bias, static_cast<std::int64_t>(i) % s.out_channels) +
                             at(residual, static_cast<std::int64_t>(i)));
  {
    SCOPED_TRACE("forward with bias, residual, relu");
    expect_near(run_conv<T>(full, ConvKind::forward, x, w, bias, residual, room(out), threads), y,
                taps * static_cast<double>(s.in_channels));
  }
  if (DirectConv::supports(s, ConvKind::input_grad)) {
    SCOPED_TRACE("input gradient");
    expect_near(run_conv<T>(s, ConvKind::input_grad, dy, w, bias, {}, room(in), threads), dx,
                taps * static_cast<double>(s.out_channels));
  }
  SCOPED_TRACE("weight gradient");
  expect_near(run_conv<T>(s, ConvKind::weight_grad, x, dy, bias, {}, room(s.weight_size()), threads), dw,
              static_cast<double>(s.batch * s.out_positions()));
}

void check_conv(const ConvSpec& s) {
  for (int threads : {1, 3}) {
    SCOPED_TRACE(testing::Message() << s.spatial << " axes, " << s.in_channels << " -> " << s.out_channels << ", in "
                                    << s.in[0] << " " << s.in[1] << " " << s.in[2] << ", " << threads << " threads");
    check_conv_as<float>(s, threads);
    check_conv_as<double>(s, threads);
    if (testing::Test::HasFailure()) return;
  }
}

ConvSpec images(std::int64_t batch, std::int64_t height, std::int64_t width, std::int64_t in, std::int64_t out,
                std::int64_t kernel, std::int64_t stride, std::int64_t pad, std::int64_t dilation = 1) {
  ConvSpec s;
  s.batch = batch, s.in_channels = in, s.out_channels = out;
  s.in = {height, width, 1};
  s.kernel = {kernel, kernel, 1};
  s.stride = {stride, stride, 1};
  s.dilation = {dilation, dilation, 1};
  s.pad_low = s.pad_high = {pad, pad, 0};
  return s;
}

TEST(DirectConv, Channels) {
  for (std::int64_t in : {1, 3, 5, 6, 7, 16, 19})
    for (std::int64_t out : {1, 2, 7, 8, 9, 15, 16, 17, 24, 33}) check_conv(images(2, 5, 7, in, out, 3, 1, 1));
}

TEST(DirectConv, Positions) {
  for (std::int64_t width : {1, 2, 3, 5, 6, 7, 8, 13, 32}) check_conv(images(3, 4, width, 5, 9, 3, 1, 1));
}

TEST(DirectConv, StridesDilationsPadding) {
  for (std::int64_t kernel : {1, 2, 3, 5})
    for (std::int64_t stride : {1, 2, 3})
      for (std::int64_t pad : {0, 1, 4})
        for (std::int64_t dilation : {1, 2}) check_conv(images(2, 11, 12, 3, 10, kernel, stride, pad, dilation));
}

TEST(DirectConv, ManyRowsAndOneTap) {
  check_conv(images(9, 17, 3, 6, 16, 3, 1, 1));
  check_conv(images(2, 40, 40, 4, 4, 1, 1, 0));
  check_conv(images(2, 3, 300, 4, 20, 3, 1, 1));
  check_conv(images(5, 1, 1, 4, 20, 1, 1, 0));
}

TEST(DirectConv, OneAndThreeAxes) {
  ConvSpec line;
  line.spatial = 1, line.batch = 3, line.in_channels = 6, line.out_channels = 11;
  line.in = {19, 1, 1}, line.kernel = {4, 1, 1}, line.pad_low = {3, 0, 0}, line.dilation = {2, 1, 1};
  check_conv(line);
  ConvSpec volume;
  volume.spatial = 3, volume.batch = 2, volume.in_channels = 5, volume.out_channels = 18;
  volume.in = {4, 5, 6}, volume.kernel = {2, 3, 3}, volume.pad_low = {1, 1, 1}, volume.pad_high = {0, 1, 2};
  check_conv(volume);
  volume.stride = {1, 2, 2};
  check_conv(volume);
}

TEST(DirectConv, EmptyBatch) { check_conv(images(0, 5, 5, 3, 4, 3, 1, 1)); }

}  // namespace
}  // namespace bp::cpu

// DnnlConv against scalar convolutions in f64: dimensions, strides, dilation, groups, padding, epilogues, and which
// kernels are chosen for the networks of the benchmark.
#include "cpu/dnnl/conv.h"

#include <cstring>

#include "bp/error.h"
#include "cpu/dnnl/internal.h"
#include "dnnl/fixture.h"

namespace bp::cpu {
namespace {

using test::tolerance;
using test::values;
using test::worst;

ConvSpec conv(int spatial, std::int64_t batch, std::int64_t size, std::int64_t in, std::int64_t out,
              std::int64_t kernel, std::int64_t stride = 1, std::int64_t pad = 0, std::int64_t dilation = 1,
              std::int64_t groups = 1) {
  ConvSpec s;
  s.spatial = spatial;
  s.batch = batch;
  s.in_channels = in, s.out_channels = out, s.groups = groups;
  for (std::size_t i = 0; i < static_cast<std::size_t>(spatial); ++i) {
    s.in[i] = size + static_cast<std::int64_t>(i);
    s.kernel[i] = kernel, s.stride[i] = stride, s.dilation[i] = dilation, s.pad_low[i] = s.pad_high[i] = pad;
  }
  return s;
}

struct Data {
  std::vector<float> x, w, y, bias, residual;
  explicit Data(const ConvSpec& s)
      : x(values(s.batch * s.in_positions() * s.in_channels, 1)),
        w(values(s.weight_size(), 2)),
        y(values(s.batch * s.out_positions() * s.out_channels, 3)),
        bias(values(s.out_channels, 4)),
        residual(values(s.batch * s.out_positions() * s.out_channels, 5)) {}
};

// Calls f(x index, w index, y index) for every multiply-add.
template <class F> void each_product(const ConvSpec& s, F f) {
  std::int64_t out[3] = {1, 1, 1};
  for (int i = 0; i < s.spatial; ++i) out[i] = s.out(i);
  const std::int64_t gi = s.in_channels / s.groups, go = s.out_channels / s.groups;
  for (std::int64_t n = 0; n < s.batch; ++n)
    for (std::int64_t o = 0; o < s.out_positions(); ++o)
      for (std::int64_t t = 0; t < s.kernel_positions(); ++t) {
        std::int64_t position = 0, o_rest = o, t_rest = t, scale = 1;
        bool inside = true;
        for (int d = s.spatial - 1; d >= 0; --d) {
          const auto i = static_cast<std::size_t>(d);
          const std::int64_t p = o_rest % out[i] * s.stride[i] + t_rest % s.kernel[i] * s.dilation[i] - s.pad_low[i];
          inside = inside && p >= 0 && p < s.in[i];
          position += p * scale;
          scale *= s.in[i], o_rest /= out[i], t_rest /= s.kernel[i];
        }
        if (!inside) continue;
        for (std::int64_t c = 0; c < s.out_channels; ++c)
          for (std::int64_t i = 0; i < gi; ++i)
            f(static_cast<std::size_t>((n * s.in_positions() + position) * s.in_channels + c / go * gi + i),
              static_cast<std::size_t>((t * gi + i) * s.out_channels + c),
              static_cast<std::size_t>((n * s.out_positions() + o) * s.out_channels + c));
      }
}

std::vector<double> conv_reference(const ConvSpec& s, ConvKind kind, const Data& d) {
  std::vector<double> out(kind == ConvKind::forward      ? d.y.size()
                          : kind == ConvKind::input_grad ? d.x.size()
                                                         : d.w.size());
  each_product(s, [&](std::size_t x, std::size_t w, std::size_t y) {
    if (kind == ConvKind::forward) out[y] += static_cast<double>(d.x[x]) * static_cast<double>(d.w[w]);
    if (kind == ConvKind::input_grad) out[x] += static_cast<double>(d.y[y]) * static_cast<double>(d.w[w]);
    if (kind == ConvKind::weight_grad) out[w] += static_cast<double>(d.x[x]) * static_cast<double>(d.y[y]);
  });
  if (kind != ConvKind::forward) return out;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (s.epilogue.bias) out[i] += static_cast<double>(d.bias[i % static_cast<std::size_t>(s.out_channels)]);
    if (s.epilogue.residual) out[i] += static_cast<double>(d.residual[i]);
    if (s.epilogue.accumulate) out[i] += static_cast<double>(d.y[i]);
    if (s.epilogue.activation == Epilogue::Activation::relu) out[i] = std::max(out[i], 0.0);
  }
  return out;
}

std::vector<float> run_conv(const ConvSpec& s, ConvKind kind, const Data& d, const DnnlConv& c) {
  Buffer packed = Buffer::allocate(c.pack_bytes()), scratch = Buffer::allocate(c.scratchpad_bytes());
  const bool packs = c.pack_bytes() > 0, gradient = kind == ConvKind::weight_grad;
  std::vector<float> out = kind == ConvKind::forward ? d.y : kind == ConvKind::input_grad ? d.x : d.w;
  if (packs && !gradient) c.run_pack(d.w.data(), packed.mutable_data());
  DnnlConv::Args args;
  args.x = d.x.data();
  args.w = packs ? packed.data() : d.w.data();
  args.dy = d.y.data();
  args.out = gradient && packs ? packed.mutable_data() : out.data();
  if (s.epilogue.bias) args.bias = d.bias.data();
  if (s.epilogue.residual) args.residual = d.residual.data();
  args.scratchpad = scratch.mutable_data();
  c.run(args);
  if (gradient && packs) c.run_unpack(packed.data(), out.data());
  return out;
}

constexpr ConvKind kKinds[] = {ConvKind::forward, ConvKind::input_grad, ConvKind::weight_grad};

std::int64_t terms(const ConvSpec& s, ConvKind kind) {
  return kind == ConvKind::weight_grad ? s.batch * s.out_positions() : s.kernel_positions() * s.in_channels;
}

void check_conv(const ConvSpec& s, int threads = 1) {
  const Data d(s);
  for (ConvKind kind : kKinds) {
    const DnnlConv c(s, kind, threads);
    EXPECT_LT(worst(run_conv(s, kind, d, c), conv_reference(s, kind, d)), 2 * tolerance(terms(s, kind)))
        << "kind " << static_cast<int>(kind) << " " << c.impl_name() << " channels " << s.in_channels << " "
        << s.out_channels << " groups " << s.groups << " spatial " << s.spatial << " size " << s.in[0] << " kernel "
        << s.kernel[0] << " stride " << s.stride[0] << " dilation " << s.dilation[0] << " pad " << s.pad_low[0];
  }
}

TEST(DnnlConv, OddSizesStridesDilationPadding) {
  for (int spatial : {1, 2, 3})
    for (std::int64_t kernel : {1, 2, 3})
      for (std::int64_t stride : {1, 2})
        for (std::int64_t dilation : {1, 2})
          for (std::int64_t pad : {0, 1}) {
            check_conv(conv(spatial, 2, 6, 3, 5, kernel, stride, pad, dilation));
            check_conv(conv(spatial, 2, 5, 8, 16, kernel, stride, pad, dilation));
          }
}

TEST(DnnlConv, GroupsAndDepthwise) {
  for (int spatial : {1, 2, 3})
    for (std::int64_t stride : {1, 2}) {
      check_conv(conv(spatial, 2, 6, 8, 8, 3, stride, 1, 1, 8));    // depthwise
      check_conv(conv(spatial, 2, 6, 5, 5, 3, stride, 1, 1, 5));    // depthwise, odd
      check_conv(conv(spatial, 2, 6, 16, 32, 3, stride, 1, 1, 2));  // groups of 8
      check_conv(conv(spatial, 2, 6, 6, 9, 3, stride, 1, 1, 3));    // odd groups
      check_conv(conv(spatial, 2, 6, 4, 8, 3, stride, 1, 2, 4));    // depth multiplier, dilated
    }
}

TEST(DnnlConv, AsymmetricPaddingAndStrideLeftOvers) {
  ConvSpec s = conv(2, 3, 7, 3, 8, 3, 2);
  s.pad_low = {0, 1, 0}, s.pad_high = {1, 0, 0};
  check_conv(s);
  s.stride = {3, 2, 1};
  check_conv(s);
  s.pad_low = {2, 0, 0}, s.pad_high = {2, 3, 0};  // windows wholly in the padding
  check_conv(s);
  check_conv(conv(2, 2, 9, 8, 8, 2, 3));  // the last rows are never read
}

TEST(DnnlConv, Epilogues) {
  for (int bits = 0; bits < 16; ++bits) {
    if ((bits & 6) == 6) continue;
    ConvSpec s = conv(2, 2, 7, 8, 16, 3, 1, 1);
    s.epilogue = {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0,
                  bits & 8 ? Epilogue::Activation::relu : Epilogue::Activation::none};
    const Data d(s);
    const DnnlConv c(s, ConvKind::forward, 2);
    EXPECT_EQ(c.impl_name().find("ref"), std::string::npos) << c.impl_name() << " " << bits;
    EXPECT_LT(worst(run_conv(s, ConvKind::forward, d, c), conv_reference(s, ConvKind::forward, d)), tolerance(72))
        << bits;
  }
}

TEST(DnnlConv, EmptyBatchAndEmptyOutput) {
  check_conv(conv(2, 0, 8, 3, 8, 3, 1, 1));
  check_conv(conv(2, 2, 2, 3, 8, 5));  // the kernel is larger than the image: no output, zero gradients
}

TEST(DnnlConv, NetworksOfTheBenchmarkUseJittedKernels) {
  if (!detail::has_avx2()) GTEST_SKIP() << "before AVX2 oneDNN convolves by products";
  const ConvSpec layers[] = {conv(2, 4, 28, 1, 32, 3, 1, 1),  conv(2, 4, 14, 32, 64, 3, 1, 1),
                             conv(2, 4, 32, 3, 16, 3, 1, 1),  conv(2, 4, 32, 16, 16, 3, 1, 1),
                             conv(2, 4, 32, 16, 32, 3, 2, 1), conv(2, 4, 32, 16, 32, 1, 2, 0),
                             conv(2, 4, 16, 32, 32, 3, 1, 1), conv(2, 4, 16, 32, 64, 3, 2, 1),
                             conv(2, 4, 16, 32, 64, 1, 2, 0), conv(2, 4, 8, 64, 64, 3, 1, 1)};
  for (const ConvSpec& s : layers)
    for (ConvKind kind : kKinds) {
      const DnnlConv c(s, kind, 2);
      EXPECT_EQ(c.impl_name().find("ref"), std::string::npos) << c.impl_name();
      EXPECT_EQ(c.impl_name().find("gemm"), std::string::npos)
          << c.impl_name() << " " << s.in_channels << " to " << s.out_channels << " kind " << static_cast<int>(kind);
      EXPECT_GT(c.pack_bytes(), 0u);
    }
  check_conv(layers[0], 2);
  check_conv(layers[2], 2);
}

TEST(DnnlConv, RefusesWhatItCannotDo) {
  ConvSpec s = conv(2, 1, 4, 4, 4, 1);
  s.dtype = f64;
  EXPECT_THROW(DnnlConv(s, ConvKind::forward, 1), Error);
  s = conv(2, 1, 4, 4, 4, 1);
  s.pad_low[0] = -1;
  EXPECT_THROW(DnnlConv(s, ConvKind::forward, 1), Error);
  EXPECT_THROW(DnnlConv(conv(2, 1, 4, 4, 6, 1, 1, 0, 1, 4), ConvKind::forward, 1), Error);
}

}  // namespace
}  // namespace bp::cpu

// DirectConv: shapes, packing and threads around the register tiles of conv_tiles.cc.
#include "cpu/kernels/conv_direct.h"

#include <algorithm>
#include <cstring>

#include "cpu/kernels/conv_tiles.h"
#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

// dx is the convolution of dy with the taps turned round and the channels exchanged.
DirectConv::Shape shape_of(const ConvSpec& s, ConvKind kind) {
  DirectConv::Shape d{};
  const int missing = 3 - s.spatial;
  for (int i = 0; i < 3; ++i) d.in[i] = d.out[i] = d.kernel[i] = d.stride[i] = d.dilation[i] = 1;
  for (int i = 0; i < s.spatial; ++i) {
    const auto k = static_cast<std::size_t>(i);
    const int at = missing + i;
    d.in[at] = s.in[k];
    d.out[at] = s.out(i);
    d.kernel[at] = s.kernel[k];
    d.stride[at] = s.stride[k];
    d.dilation[at] = s.dilation[k];
    d.pad[at] = s.pad_low[k];
    if (kind != ConvKind::input_grad) continue;
    std::swap(d.in[at], d.out[at]);
    d.pad[at] = (s.kernel[k] - 1) * s.dilation[k] - s.pad_low[k];
  }
  d.batch = s.batch;
  d.in_channels = kind == ConvKind::input_grad ? s.out_channels : s.in_channels;
  d.out_channels = kind == ConvKind::input_grad ? s.in_channels : s.out_channels;
  if (kind != ConvKind::forward) return d;
  d.bias = s.epilogue.bias;
  d.residual = s.epilogue.residual;
  d.accumulate = s.epilogue.accumulate;
  d.relu = s.epilogue.activation == Epilogue::Activation::relu;
  return d;
}

}  // namespace

bool DirectConv::supports(const ConvSpec& spec, ConvKind kind) {
  if (spec.groups != 1 || (spec.dtype != f32 && spec.dtype != f64)) return false;
  if (kind == ConvKind::input_grad)
    for (int i = 0; i < spec.spatial; ++i)
      if (spec.stride[static_cast<std::size_t>(i)] != 1) return false;
  const Epilogue::Activation a = spec.epilogue.activation;
  return kind != ConvKind::forward || a == Epilogue::Activation::none || a == Epilogue::Activation::relu;
}

// Zen 3, one thread, GFLOP/s of oneDNN and ours: 3x3 16 -> 16 on 32x32 y 72, 82; dx 88, 80; dw 50 to 70, 60 to 86; 64
// -> 64 on 8x8 y 47, 68; dx 62, 84; dw 45, 80. Strided rows (58 against 76), one tap (40 against 73) and three channels
// (43 against 72) are oneDNN's. With sixteen lanes nothing was measured.
bool DirectConv::beats_dnnl(const ConvSpec& spec, ConvKind kind) {
  constexpr std::int64_t kMeasuredTile = 16, kManyChannels = 256;
  if (!supports(spec, kind) || spec.dtype != f32 || conv_tiles(f32).tile != kMeasuredTile) return false;
  if (spec.kernel_positions() == 1) return false;
  const auto last = static_cast<std::size_t>(spec.spatial - 1);
  switch (kind) {
    case ConvKind::forward: {
      const bool fits = spec.in_channels >= 16 && spec.in_channels <= kManyChannels;
      return fits && spec.out_channels >= 16 && spec.stride[last] == 1;
    }
    case ConvKind::input_grad:
      return spec.out_channels >= 32 && spec.out_channels < kManyChannels && spec.in_channels >= 16;
    default: return spec.in_channels >= 6 && spec.out_channels >= 16;
  }
}

DirectConv::DirectConv(const ConvSpec& spec, ConvKind kind)
    : shape_(shape_of(spec, kind)), kind_(kind), size_(size_of(spec.dtype)), tile_(conv_tiles(spec.dtype).tile) {}

std::size_t DirectConv::packed_bytes() const noexcept {
  const std::int64_t out =
      kind_ == ConvKind::weight_grad ? shape_.out_channels : (shape_.out_channels + tile_ - 1) / tile_ * tile_;
  return whole_lines(static_cast<std::size_t>(shape_.taps() * shape_.in_channels * out) * size_);
}

std::size_t DirectConv::workspace_bytes(int threads) const noexcept {
  if (kind_ == ConvKind::weight_grad) return static_cast<std::size_t>(threads) * packed_bytes();
  return packed_bytes() + whole_lines(static_cast<std::size_t>(shape_.in_channels) * size_);
}

int DirectConv::preferred_threads() const noexcept {
  constexpr double kFlopsForOne = 2e5;
  const double flops = 2.0 * static_cast<double>(shape_.rows() * shape_.out[2] * shape_.taps()) *
                       static_cast<double>(shape_.in_channels * shape_.out_channels);
  const double rows = static_cast<double>(std::max<std::int64_t>(shape_.rows(), 1));
  return static_cast<int>(std::clamp(flops / kFlopsForOne, 1.0, std::min(1024.0, rows)));
}

// w: [tap][in][out], for an input gradient [turned tap][out][in] of the convolution that is run.
template <class T> void DirectConv::pack(const T* w, T* packed) const {
  const std::int64_t taps = shape_.taps(), in = shape_.in_channels, out = shape_.out_channels;
  const bool turned = kind_ == ConvKind::input_grad;
  for (std::int64_t first = 0; first < out; first += tile_) {
    const std::int64_t width = std::min(tile_, out - first);
    for (std::int64_t t = 0; t < taps; ++t)
      for (std::int64_t i = 0; i < in; ++i, packed += tile_) {
        const T* from = turned ? w + ((taps - 1 - t) * out + first) * in + i : w + (t * in + i) * out + first;
        const std::int64_t step = turned ? in : 1;
        for (std::int64_t c = 0; c < width; ++c) packed[c] = from[c * step];
        std::fill_n(packed + width, tile_ - width, T(0));
      }
  }
}

void DirectConv::run(const void* first, const void* second, const void* bias, const void* residual, void* out,
                     void* workspace, int threads) const {
  const bool wide = size_ == sizeof(double);
  const ConvTiles& tiles = conv_tiles(wide ? f64 : f32);
  char* memory = static_cast<char*>(workspace);
  if (kind_ != ConvKind::weight_grad) {
    if (wide)
      pack(static_cast<const double*>(second), reinterpret_cast<double*>(memory));
    else
      pack(static_cast<const float*>(second), reinterpret_cast<float*>(memory));
    char* zeros = memory + packed_bytes();
    std::memset(zeros, 0, static_cast<std::size_t>(shape_.in_channels) * size_);
    share(shape_.rows(), threads, [&](std::int64_t begin, std::int64_t end) {
      tiles.forward(shape_, first, memory, shape_.bias ? bias : nullptr, shape_.residual ? residual : nullptr, out,
                    zeros, begin, end);
    });
    return;
  }
  const std::int64_t count = shape_.taps() * shape_.in_channels * shape_.out_channels;
  int team = 1;
  share(shape_.rows(), threads, [&](std::int64_t begin, std::int64_t end) {
    const int thread = threads > 1 ? omp_get_thread_num() : 0;
    if (thread == 0) team = threads > 1 ? omp_get_num_threads() : 1;
    char* sum = memory + static_cast<std::size_t>(thread) * packed_bytes();
    std::memset(sum, 0, static_cast<std::size_t>(count) * size_);
    tiles.weight_grad(shape_, first, second, sum, begin, end);
  });
  const auto join = [&](auto zero) {
    using T = decltype(zero);
    const auto sums = [&](int thread) {
      return reinterpret_cast<const T*>(memory + static_cast<std::size_t>(thread) * packed_bytes());
    };
    T* dw = static_cast<T*>(out);
    std::copy_n(sums(0), count, dw);
    for (int t = 1; t < team; ++t) {
      const T* more = sums(t);
      for (std::int64_t i = 0; i < count; ++i) dw[i] += more[i];
    }
  };
  if (wide)
    join(0.0);
  else
    join(0.0f);
}

}  // namespace bp::cpu

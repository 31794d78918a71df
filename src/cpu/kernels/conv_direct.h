// DirectConv: convolutions on channels-last tensors and plain weights by our own SIMD kernels, f32 and f64. Made by
// lowering for what it is faster at than oneDNN (below AVX-512) and for what oneDNN lacks (f64).
#pragma once

#include <cstddef>

#include "cpu/dnnl/conv.h"

namespace bp::cpu {

// Same tensors as DnnlConv, weights plain. A register tile holds six positions (for the weight gradient: six input
// channels) by two vectors of output channels; its sum runs over taps and channels (over the positions of a block of
// rows) with one broadcast load for two multiply-adds. Limited by flops: weights and rows stay in the first two caches.
class DirectConv {
 public:
  // One group; an input gradient must have stride 1 (it is the convolution of dy with the taps turned round); the
  // epilogue has no activation but relu.
  static bool supports(const ConvSpec& spec, ConvKind kind);
  // Whether it is the faster one, f32, by shape and instruction set (never by timing; bench/conv.cc measures).
  static bool beats_dnnl(const ConvSpec& spec, ConvKind kind);
  DirectConv(const ConvSpec& spec, ConvKind kind);  // dtype f32 or f64

  std::size_t workspace_bytes(int threads) const noexcept;  // 64-byte aligned
  int preferred_threads() const noexcept;

  // forward: (x, w) -> y; input_grad: (dy, w) -> dx; weight_grad: (x, dy) -> dw. Rows are shared out to the threads; a
  // weight gradient is the sum of theirs, in order: it depends on the number of threads, never on the run.
  void run(const void* first, const void* second, const void* bias, const void* residual, void* out, void* workspace,
           int threads) const;

  // What the kernels see: a convolution over three spatial axes (the first ones may be 1).
  struct Shape {
    std::int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    std::int64_t batch, in_channels, out_channels;
    bool bias, residual, accumulate, relu;
    std::int64_t rows() const { return batch * out[0] * out[1]; }
    std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  };

 private:
  std::size_t packed_bytes() const noexcept;  // forward forms: the weights tile by tile; weight_grad: a thread's sum
  template <class T> void pack(const T* w, T* packed) const;

  Shape shape_;
  ConvKind kind_;
  std::size_t size_;   // of an element
  std::int64_t tile_;  // channels of a register tile
};

}  // namespace bp::cpu

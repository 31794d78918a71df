// DnnlConv: a prepared oneDNN convolution (forward, input gradient, weight gradient) on channels-last activations and
// plain weights. Made by lowering (src/cpu/lower), run by the executable.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cpu/dnnl/matmul.h"

namespace bp::cpu {

// x: [batch, in..., in_channels]   w: [kernel..., in_channels / groups, out_channels], groups outermost in out_channels
// y: [batch, out..., out_channels]
// y[n, o, c] = sum over t, i of x[n, o · stride + t · dilation − pad_low, i] · w[t, i, c], zero outside x.
// Entries at and beyond `spatial` of the arrays are ignored.
struct ConvSpec {
  using Dims = std::array<std::int64_t, 3>;
  int spatial = 2;  // 1, 2 or 3
  std::int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  Dims in{1, 1, 1}, kernel{1, 1, 1};
  Dims stride{1, 1, 1}, dilation{1, 1, 1};
  Dims pad_low{0, 0, 0}, pad_high{0, 0, 0};  // may not be negative
  DType dtype = f32;                         // of x, w and y, but for what is written
  DType result = f32;                        // of what is written: y or dx; a weight gradient is always f32
  Epilogue epilogue;                         // forward only

  std::int64_t out(int axis) const noexcept;  // floor((in + pads − dilated kernel) / stride) + 1, at least 0
  std::int64_t out_positions() const noexcept;
  std::int64_t in_positions() const noexcept;
  std::int64_t kernel_positions() const noexcept;
  std::int64_t weight_size() const noexcept;  // elements of w
  double flops() const noexcept;              // 2 a multiply-add, padding included
};

enum class ConvKind : std::uint8_t { forward, input_grad, weight_grad };

class DnnlConv {
 public:
  // threads: the most that run() may use. Throws Error(shape) for a negative padding, Error(dtype) for what
  // dnnl_supports refuses.
  DnnlConv(const ConvSpec& spec, ConvKind kind, int threads);
  DnnlConv(DnnlConv&&) noexcept;
  DnnlConv& operator=(DnnlConv&&) noexcept;
  ~DnnlConv();

  // The bytes of the weights (of their gradient for weight_grad) in the layout the primitive asks for; 0 when plain
  // weights are passed to run() directly.
  std::size_t pack_bytes() const noexcept;
  void run_pack(const void* w, void* packed) const;      // forward, input_grad: before run()
  void run_unpack(const void* packed, float* dw) const;  // weight_grad: after run()

  std::size_t scratchpad_bytes() const noexcept;  // 64-byte aligned memory that run() may overwrite

  struct Args {
    const void* x = nullptr;         // forward, weight_grad: read
    const void* w = nullptr;         // forward, input_grad: read, packed when pack_bytes() > 0
    const void* dy = nullptr;        // input_grad, weight_grad: read
    void* out = nullptr;             // y, dx, or dw (packed when pack_bytes() > 0)
    const float* bias = nullptr;     // [out_channels], forward
    const void* residual = nullptr;  // like y, forward
    void* scratchpad = nullptr;
  };
  // Not reentrant: one run of an object at a time.
  void run(const Args& args) const;

  int threads() const noexcept;
  const std::string& impl_name() const noexcept;  // oneDNN's name, "" when there is nothing to compute (a zero size)

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bp::cpu

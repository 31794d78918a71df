// Im2colConv: convolutions as matrix products over gathered windows, for what oneDNN lacks (f64). Made by lowering.
#pragma once

#include <cstddef>

#include "cpu/dnnl/conv.h"
#include "cpu/kernels/matmul.h"

namespace bp::cpu {

// Same tensors as DnnlConv, weights plain, f32 or f64, epilogue as in the spec (relu only; a residual is added after it
// is refused together with an activation). One image at a time: its windows become a matrix [positions, kernel ·
// channels].
class Im2colConv {
 public:
  Im2colConv(const ConvSpec& spec, ConvKind kind);  // dtype f32 or f64

  std::size_t workspace_bytes(int threads) const noexcept;  // 64-byte aligned
  int preferred_threads() const noexcept;

  // forward: (x, w) -> y; input_grad: (dy, w) -> dx; weight_grad: (x, dy) -> dw. Images are shared out to the threads;
  // for weight_grad they are added in order, and the threads share each product. The result is the same for any number.
  void run(const void* first, const void* second, const void* bias, const void* residual, void* out, void* workspace,
           int threads) const;

 private:
  template <class T> void gather(const T* image, std::int64_t group, T* columns) const;
  template <class T> void scatter(const T* columns, std::int64_t group, T* image) const;
  template <class F> void each_window(F f) const;
  template <class T>
  void run_image(std::int64_t n, const T* first, const T* second, const void* bias, const T* residual, T* out,
                 T* columns, void* product_space) const;
  template <class T> void run_weight_grad(const T* x, const T* dy, T* dw, T* columns, void* space, int threads) const;
  template <class T>
  void run_as(const void* first, const void* second, const void* bias, const void* residual, void* out, char* workspace,
              int threads) const;

  ConvSpec spec_;
  ConvKind kind_;
  std::int64_t positions_, taps_, in_group_, out_group_, in_image_, out_image_;
  std::size_t column_bytes_;
  MatmulKernel product_, adding_;  // adding_: the weight gradient of the second image and later
};

}  // namespace bp::cpu

// DnnlMatmul: a prepared oneDNN matrix product with its epilogue, run on raw pointers. Made by lowering
// (src/cpu/lower), run by the executable. oneDNN stays hidden in the .cc files of this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bp/dtype.h"

namespace bp::cpu {

// What is done to a product before it is stored: y = activation(product + bias + residual + y_old).
struct Epilogue {
  enum class Activation : std::uint8_t { none, relu, tanh, sigmoid, gelu_tanh, gelu_erf };
  bool bias = false;                         // a vector along the last dimension of the output, f32
  bool residual = false;                     // a tensor with the shape, strides and dtype of the output
  bool accumulate = false;                   // the output's old value
  Activation activation = Activation::none;  // relu keeps NaN; −infinity becomes NaN
};

// C[b, m, n] = epilogue(sum over k of A[b, m, k] · B[b, k, n]). Strides are in elements; of the two strides of a matrix
// one is 1 (a transposed operand has row == 1), and the other at least the size of the contiguous dimension.
struct DnnlMatmulSpec {
  struct Strides {
    std::int64_t row = 0, col = 1;
    std::vector<std::int64_t> batch;  // one a batch dimension; 0 repeats the matrix
  };
  std::vector<std::int64_t> batch;  // sizes of the batch dimensions of C, possibly none
  std::int64_t m = 0, n = 0, k = 0;
  Strides a, b, c;
  DType in = f32;   // of A and B: f32 or bf16
  DType out = f32;  // of C: f32 or bf16
  Epilogue epilogue;
  std::int64_t runs_per_pack = 1;  // how often a packed B is used before B changes (a scan: its length)
  int pack_threads = 0;            // the most that run_pack() may use; 0: as many as run()
};

// The spec of contiguous operands: A is [b, m, k] (or [b, k, m] when trans_a), B [b, k, n] (or [b, n, k]).
DnnlMatmulSpec dense_matmul(std::vector<std::int64_t> batch, std::int64_t m, std::int64_t n, std::int64_t k,
                            bool trans_a = false, bool trans_b = false, DType dtype = f32);

// Whether oneDNN multiplies this dtype with jitted code on this processor (f32: yes; bf16: AVX-512 only).
bool dnnl_supports(DType dtype);

// How the product is formed.
enum class MatmulPlan : std::uint8_t {
  automatic,    // the measured rule, from shape, strides and instruction set (never by timing)
  plain,        // operands as they are
  packed,       // B is reordered into the layout that the primitive asks for, by run_pack
  convolution,  // B is packed; the product runs as a 1x1 convolution over the rows of A (AVX2 only, dense A and C)
};

class DnnlMatmul {
 public:
  // threads: the most that run() may use; fewer are taken when the work is small. The result may depend on the number,
  // never on the run. Throws Error(dtype) for what dnnl_supports refuses, Error(shape) for strides outside the
  // contract.
  explicit DnnlMatmul(const DnnlMatmulSpec& spec, int threads, MatmulPlan plan = MatmulPlan::automatic);
  DnnlMatmul(DnnlMatmul&&) noexcept;
  DnnlMatmul& operator=(DnnlMatmul&&) noexcept;
  ~DnnlMatmul();

  // b: what run() takes as B when pack_bytes() > 0 is `packed`, pack_bytes() long, 64-byte aligned.
  std::size_t pack_bytes() const noexcept;
  void run_pack(const void* b, void* packed) const;

  std::size_t scratchpad_bytes() const noexcept;  // 64-byte aligned memory that run() may overwrite

  struct Args {
    const void* a = nullptr;
    const void* b = nullptr;  // packed when pack_bytes() > 0
    void* c = nullptr;
    const float* bias = nullptr;     // [n]
    const void* residual = nullptr;  // strides of C
    void* scratchpad = nullptr;
  };
  // Not reentrant: one run of an object at a time.
  void run(const Args& args) const;

  int threads() const noexcept;       // what run() uses
  int pack_threads() const noexcept;  // what run_pack() uses
  MatmulPlan plan() const noexcept;
  const std::string& impl_name() const noexcept;  // oneDNN's name, "" when there is nothing to multiply (a zero size)

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bp::cpu

// MatmulKernel: C (+)= op(A) op(B) with an epilogue, for sizes where oneDNN's launch costs more than the product and
// for f64, which oneDNN lacks. Lowering picks it; the executor runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "bp/dtype.h"

namespace bp::cpu {

enum class Activation : std::uint8_t { none, relu, tanh, sigmoid };

// All matrices are row-major with a leading dimension (elements between rows as stored).
// op(A): [m, k], stored [m, k] or, transposed, [k, m]. op(B): [k, n], stored [k, n] or, transposed, [n, k]. C: [m, n].
//   C = activation((accumulate ? C : 0) + op(A) op(B) + bias) + residual
struct MatmulSpec {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0;  // 0: tight
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  bool bias = false;  // [n]
  Activation activation = Activation::none;
  bool residual = false;  // [m, n] with leading dimension ldr
  std::int64_t ldr = 0;
  DType dtype = DType::f32;  // f32 or f64
};

// The strategy for one spec, prepared once: direct (no packing), packed small, or cache-blocked with packing.
// Immutable; the sum over k runs in an order fixed by the spec, so results do not depend on the thread count.
class MatmulKernel {
 public:
  explicit MatmulKernel(const MatmulSpec& spec);

  const MatmulSpec& spec() const noexcept { return spec_; }
  std::size_t workspace_bytes(int threads) const noexcept;  // memory aligned to 64
  int useful_threads(int max_threads) const noexcept;

  // bias and residual are read only when the spec has them. C may alias residual (same elements), nothing else.
  // m, n or k of 0 are allowed: k == 0 leaves the epilogue of zero.
  void run(const void* a, const void* b, const void* bias, const void* residual, void* c, void* workspace,
           int threads) const;

  struct Strategy {
    // The function of the instruction set found at construction, and its block sizes.
    void (*run)(const MatmulSpec&, const Strategy&, const void* a, const void* b, const void* bias,
                const void* residual, void* c, void* workspace, int threads) = nullptr;
    std::int64_t mr = 0, nr = 0, mc = 0, nc = 0, kc = 0;
    bool swapped = false;  // computes C^T = op(B)^T op(A)^T
  };

 private:
  MatmulSpec spec_;
  Strategy strategy_;
};

// The scalar oracle of the tests, summing in f64.
void reference_matmul(const MatmulSpec& spec, const void* a, const void* b, const void* bias, const void* residual,
                      void* c);

}  // namespace bp::cpu

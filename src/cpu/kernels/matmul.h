// MatmulKernel: C (+)= op(A) op(B) with an epilogue, for sizes where oneDNN's launch costs more than the product and
// for f64, which oneDNN lacks. Lowering picks it; the executor runs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "bp/dtype.h"

namespace bp::cpu {

enum class Activation : std::uint8_t { none, relu, tanh, sigmoid };

class BlockProduct;
struct MicroTable;

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
  ~MatmulKernel();

  const MatmulSpec& spec() const noexcept { return spec_; }
  std::size_t workspace_bytes(int threads) const noexcept;  // memory aligned to 64
  int useful_threads(int max_threads) const noexcept;

  // bias and residual are read only when the spec has them. C may alias residual (same elements), nothing else.
  // m, n or k of 0 are allowed: k == 0 leaves the epilogue of zero.
  void run(const void* a, const void* b, const void* bias, const void* residual, void* c, void* workspace,
           int threads) const;

  // How a spec is computed.
  enum class Method : std::uint8_t {
    direct,    // register tiles straight over A and B
    packed_b,  // the same after B was transposed into the workspace
    dots,      // one of m, n is 1 and the other operand's rows are contiguous along k
    blocked,   // A and B packed block by block
    code       // BlockProduct: the same in machine code
  };
  Method method() const noexcept { return method_; }

 private:
  struct Call;
  void choose();
  void run_tiles(const Call& call, std::int64_t row_begin, std::int64_t row_end) const;
  void run_dots(const Call& call, std::int64_t begin, std::int64_t end) const;
  void run_blocked(const Call& call, char* workspace, int thread, int threads) const;
  void pack_a(const Call& call, std::int64_t row, std::int64_t rows, std::int64_t p, std::int64_t depth,
              char* out) const;
  void pack_b(const Call& call, std::int64_t col, std::int64_t cols, std::int64_t p, std::int64_t depth,
              char* out) const;

  MatmulSpec spec_;
  // What is computed: the spec, or C^T = op(B)^T op(A)^T where one column of C is a row in memory.
  MatmulSpec work_;
  bool swapped_ = false;
  Method method_ = Method::direct;
  const MicroTable* micro_ = nullptr;
  std::unique_ptr<const BlockProduct> code_;
  std::int64_t mc_ = 0, nc_ = 0, kc_ = 0;  // block sizes
};

// The scalar oracle of the tests, summing in f64.
void reference_matmul(const MatmulSpec& spec, const void* a, const void* b, const void* bias, const void* residual,
                      void* c);

}  // namespace bp::cpu

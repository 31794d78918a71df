// Attention by blocks of scores that stay in the cache (Dao et al., "FlashAttention", NeurIPS 2022), forward and
// backward, in f32, f64 and bf16: products on register tiles, softmax rows by SIMD. Called by lowering's attention
// steps. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bp/dtype.h"

namespace bp::cpu {

// Where an operand lies: its first element behind the pointer, and elements from one batch entry, token and head to the
// next. The elements of a head lie side by side.
struct TokenStrides {
  std::int64_t first = 0, batch = 0, token = 0, head = 0;
};

// q, out: [batch, queries, heads, depth | values]; k, v: [batch, keys, key_heads, depth | values];
// lse: [batch, heads, queries]; out, its cotangent and lse are row-major.
struct AttentionSpec {
  std::int64_t batch = 0, queries = 0, keys = 0, heads = 0, key_heads = 0, depth = 0, values = 0;
  TokenStrides q, k, v, dq, dk, dv;
  double scale = 1;
  bool causal = false;
  enum class Mask : std::uint8_t { none, boolean, added } mask = Mask::none;
  std::int64_t mask_strides[4] = {0, 0, 0, 0};  // elements between batch entries, heads, queries, keys; 0: broadcast
  double dropout = 0;                           // of the weights, drawn at `place`
  std::uint64_t place = 0;
  DType dtype = f32;  // f32, f64, or bf16: weights rounded to bf16, sums, lse and added masks f32

  double flops() const noexcept;  // of one product of all queries and keys
};

struct AttentionArgs {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  const void* mask = nullptr;
  const std::int64_t* lengths = nullptr;  // [batch] or null
  const std::int64_t* offset = nullptr;   // [batch] or null: 0
  const std::int64_t* random = nullptr;   // seed and counter, where there is dropout
};

std::size_t attention_workspace(const AttentionSpec& spec, int threads) noexcept;
int attention_threads(const AttentionSpec& spec, int most) noexcept;
void attention(const AttentionSpec& spec, const AttentionArgs& args, void* out, void* lse, void* workspace,
               int threads);

// What the forward pass read and made, and the cotangent of `out`.
struct AttentionGradArgs {
  AttentionArgs forward;
  const void *out = nullptr, *lse = nullptr, *dout = nullptr;
};
std::size_t attention_grad_workspace(const AttentionSpec& spec, int threads) noexcept;
int attention_grad_threads(const AttentionSpec& spec, int most) noexcept;
void attention_grad(const AttentionSpec& spec, const AttentionGradArgs& args, void* dq, void* dk, void* dv,
                    void* workspace, int threads);

}  // namespace bp::cpu

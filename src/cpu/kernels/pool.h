// Max and average pooling over channels-last tensors, forward and backward, in 1-3 dimensions: f32 and f64. Called by
// lowering's pool steps. Highway vectors over channels; results do not depend on the number of
// threads.
#pragma once

#include <array>
#include <cstdint>

#include "bp/dtype.h"

namespace bp::cpu {

// x: [batch, in..., channels]   y: [batch, out..., channels]; entries at and beyond `spatial` are ignored.
// Window position t of output o reads x at o · stride + t · dilation − pad_low; what lies outside is skipped.
struct PoolSpec {
  using Dims = std::array<std::int64_t, 3>;
  int spatial = 2;  // 1, 2 or 3
  std::int64_t batch = 0, channels = 0;
  Dims in{1, 1, 1}, out{1, 1, 1}, window{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1}, pad_low{0, 0, 0};
  bool count_include_pad = false;  // average: divide by the window's size rather than by the positions inside x
  DType dtype = f32;               // f32 or f64
  DType index = u8;                // of max_pool's indices: u8 (windows of at most 255 positions) or i32

  double bytes() const noexcept;          // memory traffic of one forward pass, about
  int preferred_threads(int most) const;  // by work
};

// The index of a maximum is the row-major position within its window (not within x): one byte for every usual window,
// and x is found again from the output's place. The first maximum wins, NaN before numbers. A window that lies wholly
// outside x gives -infinity and index 0.
// y, index: [batch, out..., channels]; index may be null.
void max_pool(const PoolSpec& spec, const void* x, void* y, void* index, int threads);

// dx: [batch, in..., channels], overwritten: each x gathers dy over the windows that chose it, in their order.
void max_pool_grad(const PoolSpec& spec, const void* dy, const void* index, void* dx, int threads);

// y[o] = x at the place that index chose (the gradient of max_pool_grad); 0 for a window wholly outside x.
void max_pool_take(const PoolSpec& spec, const void* x, const void* index, void* y, int threads);

// y: [batch, out..., channels]. A window wholly outside x gives 0.
void avg_pool(const PoolSpec& spec, const void* x, void* y, int threads);

// dx: [batch, in..., channels], overwritten.
void avg_pool_grad(const PoolSpec& spec, const void* dy, void* dx, int threads);

}  // namespace bp::cpu

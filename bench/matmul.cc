// MatmulKernel: ns a product and GFLOP/s, small sizes and large f64.
// usage: matmul [seconds per figure]
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "cpu/kernels/matmul.h"

using namespace bp;
using namespace bp::cpu;
using Clock = std::chrono::steady_clock;

namespace {
void measure(MatmulSpec s, DType dtype, double seconds) {
  s.dtype = dtype;
  const MatmulKernel kernel(s);
  const auto aligned = [](std::vector<double>& v) {
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(v.data()) + 63) / 64 * 64);
  };
  std::vector<double> a(static_cast<std::size_t>(s.m * s.k) + 16), b(static_cast<std::size_t>(s.k * s.n) + 16),
      c(static_cast<std::size_t>(s.m * s.n) + 16), bias(static_cast<std::size_t>(s.n) + 16);
  std::vector<double> space(kernel.workspace_bytes(1) / 8 + 16);
  double best = 1e30;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    const int repeat = std::max(1, static_cast<int>(300000 / std::max<std::int64_t>(s.m * s.n * s.k / 16, 50)));
    const auto start = Clock::now();
    for (int i = 0; i < repeat; ++i)
      kernel.run(aligned(a), aligned(b), aligned(bias), nullptr, aligned(c), aligned(space), 1);
    best = std::min(best, std::chrono::duration<double, std::nano>(Clock::now() - start).count() / repeat);
  }
  fmt::print("{} {:>4}x{:<4} k {:<5} {}{} method {}  {:>10.0f} ns  {:.1f} GFLOP/s\n", name_of(dtype), s.m, s.n, s.k,
             s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', static_cast<int>(kernel.method()), best,
             2e0 * static_cast<double>(s.m * s.n * s.k) / best);
}
}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.05;
  for (DType t : {f32, f64}) {
    measure({.m = 32, .n = 16, .k = 2, .bias = true, .activation = Activation::tanh}, t, seconds);
    measure({.m = 32, .n = 16, .k = 16}, t, seconds);
    measure({.m = 32, .n = 16, .k = 16, .bias = true, .activation = Activation::relu}, t, seconds);
    measure({.m = 32, .n = 1, .k = 16, .bias = true}, t, seconds);
    measure({.m = 32, .n = 16, .k = 16, .transpose_b = true}, t, seconds);
    measure({.m = 32, .n = 16, .k = 1, .transpose_b = true}, t, seconds);
    measure({.m = 16, .n = 16, .k = 32, .transpose_a = true}, t, seconds);
    measure({.m = 2, .n = 16, .k = 32, .transpose_a = true}, t, seconds);
    measure({.m = 16, .n = 1, .k = 32, .transpose_a = true}, t, seconds);
    for (std::int64_t n : {48, 64, 96, 128, 256, 512}) measure({.m = n, .n = n, .k = n}, t, seconds);
    measure({.m = 256, .n = 256, .k = 256, .transpose_a = true, .transpose_b = true}, t, seconds);
    measure({.m = 64, .n = 128, .k = 784}, t, seconds);
    measure({.m = 784, .n = 128, .k = 64, .transpose_a = true}, t, seconds);
    measure({.m = 1, .n = 512, .k = 512}, t, seconds);
  }
}

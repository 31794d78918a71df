// Our convolutions beside oneDNN's, f32, GFLOP/s of both for the shapes of CASES.md: what the rule in
// src/cpu/lower/products.cc was measured with.
// usage: conv [threads 1] [seconds a figure 0.1]
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "cpu/dnnl/conv.h"
#include "cpu/kernels/conv_direct.h"

namespace {

using namespace bp;
using namespace bp::cpu;
using Clock = std::chrono::steady_clock;

template <class F> double best_seconds(F f, double seconds) {
  f();
  double best = 1e30;
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

struct Memory {
  std::vector<float> v;
  explicit Memory(std::size_t n) : v(n + 16, 0.5f) {}
  float* data() { return reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(v.data()) + 63) / 64 * 64); }
};

void compare(std::int64_t batch, std::int64_t size, std::int64_t in, std::int64_t out, std::int64_t kernel,
             std::int64_t stride, int threads, double seconds) {
  ConvSpec s;
  s.batch = batch, s.in_channels = in, s.out_channels = out;
  s.in = {size, size, 1}, s.kernel = {kernel, kernel, 1}, s.stride = {stride, stride, 1};
  s.pad_low = s.pad_high = {kernel / 2, kernel / 2, 0};
  const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  Memory x(count(batch * s.in_positions() * in)), y(count(batch * s.out_positions() * out)), w(count(s.weight_size())),
      dx(x.v.size()), dw(w.v.size());
  fmt::print("{:3} {:3}x{:<3} {:3} -> {:3} {}x{}/{}", batch, size, size, in, out, kernel, kernel, stride);
  for (const ConvKind kind : {ConvKind::forward, ConvKind::input_grad, ConvKind::weight_grad}) {
    const DnnlConv theirs(s, kind, threads);
    Memory packed(theirs.pack_bytes() / 4), scratch(theirs.scratchpad_bytes() / 4);
    DnnlConv::Args a;
    a.x = x.data(), a.dy = y.data(), a.scratchpad = scratch.data();
    a.w = theirs.pack_bytes() > 0 ? packed.data() : w.data();
    a.out = kind == ConvKind::forward      ? y.data()
            : kind == ConvKind::input_grad ? dx.data()
            : theirs.pack_bytes() > 0      ? packed.data()
                                           : dw.data();
    const double t = best_seconds([&] { theirs.run(a); }, seconds);
    fmt::print("  {} {:6.1f}",
               kind == ConvKind::forward      ? "y"
               : kind == ConvKind::input_grad ? "dx"
                                              : "dw",
               s.flops() / t / 1e9);
    if (!DirectConv::supports(s, kind)) {
      fmt::print(" {:>6}", "-");
      continue;
    }
    const DirectConv ours(s, kind);
    Memory space(ours.workspace_bytes(threads) / 4);
    const float* first = kind == ConvKind::input_grad ? y.data() : x.data();
    const float* second = kind == ConvKind::weight_grad ? y.data() : w.data();
    const double u =
        best_seconds([&] { ours.run(first, second, nullptr, nullptr, a.out, space.data(), threads); }, seconds);
    fmt::print(" {:6.1f}", s.flops() / u / 1e9);
  }
  fmt::print("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.1;
  fmt::print("GFLOP/s of oneDNN, then ours ({} threads)\n", threads);
  const auto run = [&](std::int64_t batch, std::int64_t size, std::int64_t in, std::int64_t out, std::int64_t kernel,
                       std::int64_t stride) { compare(batch, size, in, out, kernel, stride, threads, seconds); };
  run(64, 32, 3, 16, 3, 1);
  run(64, 32, 16, 16, 3, 1);
  run(64, 32, 16, 32, 3, 2);
  run(64, 32, 16, 32, 1, 2);
  run(64, 16, 32, 32, 3, 1);
  run(64, 16, 32, 64, 3, 2);
  run(64, 8, 64, 64, 3, 1);
  run(64, 28, 1, 32, 3, 1);
  run(64, 14, 32, 64, 3, 1);
  run(8, 56, 64, 64, 3, 1);
  run(8, 28, 128, 128, 3, 1);
  run(8, 14, 256, 256, 3, 1);
  run(8, 7, 512, 512, 3, 1);
  run(8, 28, 128, 256, 1, 1);
  run(8, 7, 512, 2048, 1, 1);
  run(8, 224, 3, 64, 7, 2);
}

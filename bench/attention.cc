// The fused attention against the same in plain operations on one thread, forward and with gradients: CPU time and
// planned memory. usage: attention [--batch 16] [--heads 6] [--length 128] [--depth 32] [--causal 1] [--seconds 0.5]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "cases.h"

namespace {

using Attention = std::function<bp::Tensor(const bp::Tensor&, const bp::Tensor&, const bp::Tensor&)>;

struct Figures {
  double us;
  std::size_t bytes;
};

// CPU time of the process: with one thread, a figure that other work on the machine leaves alone.
double now_us() { return static_cast<double>(std::clock()) * (1e6 / CLOCKS_PER_SEC); }

Figures measure(const Attention& f, bool gradients, const std::vector<bp::Tensor>& in, double seconds) {
  using Clock = std::chrono::steady_clock;
  auto step = bp::compile(
      [&](const bp::Tensor& q, const bp::Tensor& k, const bp::Tensor& v, const bp::Tensor& d) {
        const bp::Tensor y = f(q, k, v);
        std::vector<bp::Tensor> out{y};
        if (gradients)
          for (const bp::Tensor& g : bp::vjp(std::vector{y}, std::vector{q, k, v}, std::vector{d})) out.push_back(g);
        return out;
      },
      {.threads = 1});
  step(in[0], in[1], in[2], in[3]);
  std::vector<double> times;
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds);
       Clock::now() < end || times.size() < 3;) {
    const double start = now_us();
    step(in[0], in[1], in[2], in[3]);
    times.push_back(now_us() - start);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], step.info().planned_peak_bytes};
}

}  // namespace

int main(int argc, char** argv) try {
  const auto number = [&](const char* name, const char* otherwise) {
    return std::stoll(bench::option(argc, argv, name, otherwise));
  };
  const std::int64_t b = number("batch", "16"), h = number("heads", "6"), t = number("length", "128");
  const std::int64_t d = number("depth", "32");
  const bp::AttentionOptions options{.causal = number("causal", "1") != 0};
  const double seconds = std::stod(bench::option(argc, argv, "seconds", "0.5"));
  std::vector<bp::Tensor> in;
  for (std::uint32_t i = 0; i < 4; ++i) in.push_back(bench::uniform_tensor(i, {b, t, h, d}, bp::f32));
  const Attention fused = [&](const bp::Tensor& q, const bp::Tensor& k, const bp::Tensor& v) {
    return bp::attention(q, k, v, options);
  };
  const Attention parts = [&](const bp::Tensor& q, const bp::Tensor& k, const bp::Tensor& v) {
    return bp::attend(bp::attention_weights(q, k, options), v);
  };
  const double flops = 4.0 * static_cast<double>(b * h * t * t * d);
  for (const bool gradients : {false, true}) {
    const Figures one = measure(fused, gradients, in, seconds);
    const double all = flops * (gradients ? 3.5 : 1);  // as if every score counted
    fmt::print("{:<22} fused {:10.0f} us {:7.1f} GFLOP/s {:8.1f} MB", gradients ? "forward and gradients" : "forward",
               one.us, all / one.us * 1e-3, static_cast<double>(one.bytes) * 1e-6);
    if (t <= 2048) {
      const Figures other = measure(parts, gradients, in, seconds);
      fmt::print("   parts {:10.0f} us {:8.1f} MB   {:.2f} x", other.us, static_cast<double>(other.bytes) * 1e-6,
                 other.us / one.us);
    }
    fmt::print("\n");
  }
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "attention: {}\n", e.what());
  return 1;
}

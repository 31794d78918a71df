// The cost of a gradient: forward, forward and backward by backprop, and central finite differences over the same
// parameters (two forward passes a parameter, timed on a sample and extrapolated). usage: gradient_cost [--case mlp]
// [--threads 2] [--seconds 1]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "cases.h"

namespace {

using Clock = std::chrono::steady_clock;

template <class F> double median_us(F f, double seconds) {
  for (int i = 0; i < 3; ++i) f();
  std::vector<double> times;
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds);
       Clock::now() < end || times.size() < 5;) {
    const auto start = Clock::now();
    f();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string name = bench::option(argc, argv, "case", "mlp");
  const int threads = std::stoi(bench::option(argc, argv, "threads", "2"));
  const double seconds = std::stod(bench::option(argc, argv, "seconds", "1"));
  bench::Case c = bench::make_case(name, bp::f32);
  const auto [x, t] = c.batch(0);
  auto forward = bp::compile([&](const bp::Tensor& a, const bp::Tensor& b) { return c.loss(c.model(a), b); },
                             {.mode = bp::Mode::train, .threads = threads});
  auto gradient = bp::compile(
      [&](const bp::Tensor& a, const bp::Tensor& b) {
        const bp::Tensor loss = c.loss(c.model(a), b);
        std::vector<bp::Tensor> out = bp::grad(loss, c.parameters);
        out.push_back(loss);
        return out;
      },
      {.mode = bp::Mode::train, .threads = threads});
  const double forward_us = median_us([&] { forward(x, t).item(); }, seconds);
  const double gradient_us = median_us([&] { gradient(x, t); }, seconds);

  // One parameter at a time: change it by +-eps, run the forward pass. A sample of elements of every tensor, evenly
  // spread.
  std::int64_t parameters = 0, sampled = 0;
  for (const bp::Variable& v : c.parameters) parameters += v.shape().numel();
  const auto start = Clock::now();
  for (bp::Variable& v : c.parameters) {
    const std::vector<float> original = v.get().to_vector<float>();
    const std::size_t n = original.size(), stride = std::max<std::size_t>(1, n / 4);
    for (std::size_t i = 0; i < n; i += stride, ++sampled)
      for (const float eps : {1e-3f, -1e-3f}) {
        std::vector<float> moved = original;
        moved[i] += eps;
        v.set(bp::Tensor::from(moved, v.shape()));
        forward(x, t).item();
      }
    v.set(bp::Tensor::from(original, v.shape()));
  }
  const double sample_us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  const double differences_us = sample_us / static_cast<double>(sampled) * static_cast<double>(parameters);
  fmt::print("case {}, {} parameters, {} threads\n", name, parameters, threads);
  fmt::print("forward pass                      {:14.1f} us\n", forward_us);
  fmt::print("forward and backward (backprop)   {:14.1f} us   {:.2f} x the forward pass\n", gradient_us,
             gradient_us / forward_us);
  fmt::print(
      "central finite differences        {:14.1f} us   {:.0f} x backprop   (extrapolated from {} of {} parameters)\n",
      differences_us, differences_us / gradient_us, sampled, parameters);
  fmt::print(
      "{{\"case\":\"{}\",\"forward_us\":{:.1f},\"gradient_us\":{:.1f},\"ratio\":{:.3f},\"differences_us\":{:.0f},"
      "\"sampled\":{}}}\n",
      name, forward_us, gradient_us, gradient_us / forward_us, differences_us, sampled);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "gradient_cost: {}\n", e.what());
  return 1;
}

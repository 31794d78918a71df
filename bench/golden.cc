// Replays a golden run: 20 steps from weights and data made by formula; prints losses and the gradient norms of step 0.
// usage: golden --case tiny|mlp|cnn|resnet20|lstm|gpt [--dtype f64|f32|bf16 (mixed precision)] [--steps 20]
// [--threads N]
#include <fmt/format.h>

#include "cases.h"

int main(int argc, char** argv) try {
  const std::string name = bench::option(argc, argv, "case", "tiny");
  const bench::Numbers numbers = bench::numbers_of(bp::dtype_from_name(bench::option(argc, argv, "dtype", "f64")));
  const auto steps = static_cast<std::uint32_t>(std::stoul(bench::option(argc, argv, "steps", "20")));
  const int threads = std::stoi(bench::option(argc, argv, "threads", "0"));
  const bench::Case c = bench::make_case(name, numbers.values);
  auto step = bp::compile([&](const bp::Tensor& x, const bp::Tensor& t) { return bench::golden_step(c, x, t); },
                          {.mode = bp::Mode::train, .threads = threads, .precision = numbers.precision});
  std::vector<std::string> losses, norms;
  for (std::uint32_t s = 0; s < steps; ++s) {
    const auto [x, t] = c.batch(s);
    const std::vector<bp::Tensor> out = step(x, t);
    losses.push_back(fmt::format("{:.12g}", out[0].item()));
    for (std::size_t k = 1; s == 0 && k < out.size(); ++k) norms.push_back(fmt::format("{:.12g}", out[k].item()));
  }
  fmt::print("{{\"case\":\"{}\",\"losses\":[{}],\"grad_norms_step0\":[{}]}}\n", name, fmt::join(losses, ","),
             fmt::join(norms, ","));
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "golden: {}\n", e.what());
  return 1;
}

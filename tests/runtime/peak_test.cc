// The planned peak against the resident set that the system counts.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <fstream>
#include <string>

#include "bp/bp.h"

namespace bp {
namespace {

// Of /proc/self/status, in bytes; 0 where the system has no such thing.
double resident(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind(name + ":", 0) == 0) return std::stod(line.substr(name.size() + 1)) * 1024;
  return 0;
}
bool count_peak_from_here() {
  malloc_trim(0);
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good() && resident("VmHWM") > 0;
}

TEST(Peak, IsThePlannedOne) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory is resident too";
#endif
  nn::Sequential model;
  for (int i = 0; i < 5; ++i)
    model.add(nn::Conv2d(i == 0 ? 3 : 24, 24, 3, {.padding = 1, .bias = false})).add(nn::BatchNorm(24)).add(nn::ReLU());
  model.add(nn::GlobalAvgPool()).add(nn::Linear(24, 256)).add(nn::GELU()).add(nn::Linear(256, 10));
  nn::init(model, Key(1));
  optim::Adam optimizer(nn::parameters(model), optim::AdamOptions{.lr = 1e-3});
  const Tensor x = random_uniform(random_state(Key(2)), {32, 32, 32, 3}),
               t = random_uniform(random_state(Key(3)), {32, 10});
  evaluate(std::vector{x, t});
  const auto compiled = [&](std::size_t budget) {
    return compile(
        [&](const Tensor& in, const Tensor& target) {
          const Tensor loss = squared_error(model(in), target);
          optimizer.update(grad(loss, optimizer.parameters()));
          return loss;
        },
        {.mode = Mode::train, .threads = 2, .memory_budget = budget});
  };
  std::size_t whole = 0;
  {
    auto step = compiled(0);  // loads the code
    step(x, t).item();
    whole = step.info().planned_peak_bytes;
  }
  for (std::size_t budget : {std::size_t{0}, whole * 7 / 10}) {
    malloc_trim(0);  // an arena in pages that were left would not show
    auto step = compiled(budget);
    const ExecutableInfo info = step.prepare({x.type(), t.type()});
    if (!count_peak_from_here()) GTEST_SKIP() << "the system does not count the peak";
    const double before = resident("VmRSS");
    for (int i = 0; i < 3; ++i) step(x, t).item();
    const double measured =
        resident("VmHWM") - before + static_cast<double>(info.planned_peak_bytes - info.arena_bytes);
    EXPECT_NEAR(measured / static_cast<double>(info.planned_peak_bytes), 1, 0.02)
        << measured << " of " << info.planned_peak_bytes << " bytes, budget " << budget;
  }
}

}  // namespace
}  // namespace bp

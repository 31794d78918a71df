// The memory that a training step of a case takes, planned and measured. A first step of the same case loads the code
// (its executable is dropped again). Then the peak of the resident set grows over the next steps from the compiled step
// ("measured" adds arguments and states, which the plan counts) and from the model and optimizer before it is compiled
// ("growth"). Prints one JSON line; scripts/performance puts PyTorch's growth beside it. Linux.
// usage: memory --case cnn [--threads 2] [--steps 3]
#include <fmt/format.h>
#include <malloc.h>

#include <fstream>

#include "cases.h"

namespace {

// The resident set; its peak is counted from here on.
double settle() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
  return bench::process_status("VmRSS");
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string name = bench::option(argc, argv, "case", "cnn");
  const int threads = std::stoi(bench::option(argc, argv, "threads", "2"));
  const int steps = std::stoi(bench::option(argc, argv, "steps", "3"));
  const bench::Case c = bench::make_case(name, bp::f32, 1e-3);
  const auto [x, t] = c.batch(0);
  bench::training_step(c, {.threads = threads})(x, t).item();
  const double built = settle();
  auto step = bench::training_step(c, {.threads = threads});
  const bp::ExecutableInfo info = step.prepare({x.type(), t.type()});
  const double prepared = settle();
  for (int i = 0; i < steps; ++i) step(x, t).item();
  const double peak = bench::process_status("VmHWM");
  // Arguments and states, which the plan counts too, were there before.
  const double fixed = static_cast<double>(info.planned_peak_bytes - info.arena_bytes);
  fmt::print(
      "{{\"peer\":\"bp\",\"case\":\"{}\",\"threads\":{},\"planned\":{},\"measured\":{:.0f},\"growth\":{:.0f}}}\n", name,
      threads, info.planned_peak_bytes, fixed + peak - prepared, peak - built);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "memory: {}\n", e.what());
  return 1;
}

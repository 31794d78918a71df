// Times one training step (forward, loss, backward, optimizer, loss readable by the caller) on fixed data, one step at
// a time after five warm-up steps; prints one JSON line. usage: train_step --case tiny|mlp|cnn|resnet20|lstm|gpt
// [--dtype f32|f64|bf16 (mixed precision)] [--threads 2] [--seconds 4] [--steps N: so many instead] [--trace FILE.json]
// [--disable PASS] [--explain|--profile]
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "cases.h"

namespace {
long peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}
}  // namespace

int main(int argc, char** argv) try {
  using Clock = std::chrono::steady_clock;
  const std::string name = bench::option(argc, argv, "case", "tiny"),
                    dtype_name = bench::option(argc, argv, "dtype", "f32");
  const bench::Numbers numbers = bench::numbers_of(bp::dtype_from_name(dtype_name));
  const int threads = std::stoi(bench::option(argc, argv, "threads", "2"));
  const double seconds = std::stod(bench::option(argc, argv, "seconds", "4"));
  const std::size_t count = std::stoul(bench::option(argc, argv, "steps", "0"));
  const std::string trace = bench::option(argc, argv, "trace", "");
  std::vector<std::string> disable;
  if (const std::string pass = bench::option(argc, argv, "disable", ""); !pass.empty()) disable.push_back(pass);
  const bench::Case c = bench::make_case(name, numbers.values,
                                         1e-3);  // a fixed batch learned to zero loss would fill moments with denormals
  auto step = bench::training_step(c, {.threads = threads, .precision = numbers.precision, .disable_passes = disable});
  const auto [x, t] = c.batch(0);
  const auto begin = Clock::now();
  const double loss0 = step(x, t).item();
  const double first = std::chrono::duration<double>(Clock::now() - begin).count();
  if (argc > 1 && std::string(argv[argc - 1]) == "--explain") fmt::print("{}", step.explain());
  if (argc > 1 && std::string(argv[argc - 1]) == "--profile")
    fmt::print("{}", step.profile(name == "gpt" ? 5 : 50, x, t));
  if (!trace.empty()) bp::io::write_file(trace, step.profile_steps(name == "gpt" ? 10 : 30, x, t).chrome_trace());
  for (int i = 0; i < 4; ++i) step(x, t).item();
  std::vector<double> times;
  double loss1 = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (count > 0 ? times.size() < count : Clock::now() < end || times.empty()) {
    const auto start = Clock::now();
    loss1 = step(x, t).item();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  std::int64_t parameters = 0;
  for (const bp::Variable& v : c.parameters) parameters += v.shape().numel();
  fmt::print(
      "{{\"peer\":\"bp\",\"case\":\"{}\",\"mode\":\"compile\",\"dtype\":\"{}\",\"threads\":{},\"step_us\":{:.2f},\"min_"
      "us\":{:.2f},"
      "\"steps\":{},\"params\":{},\"loss0\":{:.4f},\"loss1\":{:.4f},\"planned_bytes\":{},\"peak_rss\":{},\"first_step_"
      "seconds\":{:.4f},\"compile_seconds\":{:.4f}}}\n",
      name, dtype_name, threads, times[times.size() / 2], times[0], times.size(), parameters, loss0, loss1,
      step.info().planned_peak_bytes, peak_rss_bytes(), first, step.info().compile_seconds);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "train_step: {}\n", e.what());
  return 1;
}

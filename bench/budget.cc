// What a memory budget costs: a training step of a case without a budget and within a share of its activations (the
// arena: what it plans but for states, arguments and results), run in turns from the same first values. Prints one JSON
// line with both plans, the medians of their times, and whether losses and final parameters are the same bit for bit.
// usage: budget [--case gpt12] [--share 0.35] [--threads 2] [--steps 5]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "cases.h"

namespace {

struct Training {
  std::shared_ptr<bench::Case> c;             // copying it would copy its Variables
  std::function<double(std::uint32_t)> step;  // of batch s: the loss
  std::function<bp::ExecutableInfo()> info;
  std::vector<double> seconds;
};

Training training(const std::string& name, int threads, std::size_t budget) {
  Training t{std::make_shared<bench::Case>(bench::make_case(name, bp::f32)), {}, {}, {}};
  auto made = bench::training_step(*t.c, {.threads = threads, .memory_budget = budget});
  auto step = std::make_shared<decltype(made)>(std::move(made));
  t.step = [step, c = t.c](std::uint32_t s) {
    const auto [x, y] = c->batch(s);
    return (*step)(x, y).item();
  };
  t.info = [step] { return step->info(); };
  return t;
}

double timed(Training& t, std::uint32_t s) {
  const auto start = std::chrono::steady_clock::now();
  const double loss = t.step(s);
  t.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return loss;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

bool same_bits(const bp::Variable& a, const bp::Variable& b) {
  const bp::Buffer x = a.get().buffer(), y = b.get().buffer();
  return x.bytes() == y.bytes() && std::memcmp(x.data(), y.data(), x.bytes()) == 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string name = bench::option(argc, argv, "case", "gpt12");
  const double share = std::stod(bench::option(argc, argv, "share", "0.35"));
  const int threads = std::stoi(bench::option(argc, argv, "threads", "2"));
  const auto steps = static_cast<std::uint32_t>(std::stoul(bench::option(argc, argv, "steps", "5")));
  Training whole = training(name, threads, 0);
  bool same = whole.step(0) != 0;
  const bp::ExecutableInfo plan = whole.info();
  const double budget =
      static_cast<double>(plan.planned_peak_bytes) - (1 - share) * static_cast<double>(plan.arena_bytes);
  Training within = training(name, threads, static_cast<std::size_t>(budget));
  within.step(0);
  for (std::uint32_t s = 1; s <= steps; ++s) same &= timed(whole, s) == timed(within, s);
  for (std::size_t i = 0; i < whole.c->parameters.size(); ++i)
    same &= same_bits(whole.c->parameters[i], within.c->parameters[i]);
  const bp::ExecutableInfo less = within.info();
  fmt::print(
      "{{\"case\":\"{}\",\"threads\":{},\"activations\":{},\"budgeted_activations\":{},\"share\":{:.4f},\"step_us\":{:."
      "1f},"
      "\"budgeted_step_us\":{:.1f},\"time_ratio\":{:.4f},\"flops_ratio\":{:.4f},\"same_bits\":{},\"compile_seconds\":{:"
      ".4f},"
      "\"budgeted_compile_seconds\":{:.4f}}}\n",
      name, threads, plan.arena_bytes, less.arena_bytes,
      static_cast<double>(less.arena_bytes) / static_cast<double>(plan.arena_bytes), median(whole.seconds) * 1e6,
      median(within.seconds) * 1e6, median(within.seconds) / median(whole.seconds), less.flops / plan.flops, same,
      plan.compile_seconds, less.compile_seconds);
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "budget: {}\n", e.what());
  return 1;
}

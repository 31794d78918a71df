// Profiles: sums that add up, steps of loops inside their loop, limits and bounds that make sense, a trace that parses.
#include "bp/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "bp/bp.h"

namespace bp {
namespace {

using ::testing::HasSubstr;

double total(const std::vector<ProfileSum>& sums) {
  double t = 0;
  for (const ProfileSum& s : sums) t += s.seconds;
  return t;
}

// Five products with one matrix in a loop, a sum, a gradient and an update.
Profile profile_of_loop(int runs) {
  Variable w(Tensor::from<float>(std::vector<float>(256, 0.05f), {16, 16}));
  auto step = compile(
      [&](const Tensor& x) {
        const Scope scope("net");
        const auto body = [&](std::span<const Tensor> carry, std::span<const Tensor>) {
          return Scanned{{tanh(matmul(carry[0], w))}, {}};
        };
        const Tensor last = scan(body, {x}, {}, {.length = 5}).carry[0];
        const Tensor loss = sum(last * last);
        w.set(w - 0.01 * grad(loss, w));
        return loss;
      },
      {.mode = Mode::train, .threads = 1});
  const Tensor x = Tensor::from<float>(std::vector<float>(256, 0.5f), {16, 16});
  return profile(step, runs, x);
}

TEST(Profile, SumsAddUp) {
  const Profile p = profile_of_loop(5);
  EXPECT_EQ(p.runs, 5);
  EXPECT_GT(p.seconds(), 0);
  for (const auto& sums : {p.by_layer(), p.by_pass(), p.by_bound()}) {
    EXPECT_NEAR(total(sums), p.seconds(), 1e-9 * p.seconds() + 1e-12);
    EXPECT_TRUE(std::is_sorted(sums.begin(), sums.end(), [](auto& a, auto& b) { return a.seconds > b.seconds; }));
    double limit = 0;
    std::size_t steps = 0;
    for (const ProfileSum& s : sums) limit += s.limit_seconds, steps += s.steps;
    EXPECT_NEAR(limit, p.limit_seconds(), 1e-9 * limit);
    EXPECT_EQ(steps, p.steps.size());
  }
  EXPECT_EQ(p.by_pass().size(), 3u);
}

TEST(Profile, PassesAndLayersAreTold) {
  const Profile p = profile_of_loop(1);
  std::set<std::string> passes;
  for (const ProfileStep& s : p.steps) passes.insert(s.pass);
  EXPECT_EQ(passes, (std::set<std::string>{"backward", "forward", "update"}));
  EXPECT_TRUE(std::all_of(p.steps.begin(), p.steps.end(),
                          [](const ProfileStep& s) { return s.layer.empty() || s.layer.starts_with("net"); }));
  EXPECT_TRUE(std::any_of(p.steps.begin(), p.steps.end(), [](const ProfileStep& s) { return s.layer == "net"; }));
}

TEST(Profile, TheStepsOfALoopLieWithinIt) {
  const Profile p = profile_of_loop(3);
  const ProfileStep* loop = nullptr;
  int inside = 0;
  for (const ProfileStep& s : p.steps) {
    EXPECT_GE(s.own_seconds, 0);
    EXPECT_LE(s.own_seconds, s.seconds * (1 + 1e-12));
    if (s.depth == 0) {
      loop = &s;
      continue;
    }
    ++inside;
    EXPECT_EQ(loop->name, "scan");
    EXPECT_TRUE(s.runs == 5 || s.runs == 1) << s.runs;  // 1: what runs before the loop
    EXPECT_GE(s.start, loop->start * (1 - 1e-12));
    EXPECT_LE(s.start + s.seconds, (loop->start + loop->seconds) * (1 + 1e-9));
  }
  EXPECT_GT(inside, 2);
}

TEST(Profile, BoundsFollowTheShapes) {
  auto product = compile([](const Tensor& a, const Tensor& b) { return matmul(a, b); }, {.threads = 1});
  const Tensor a = Tensor::from<float>(std::vector<float>(256 * 256, 0.5f), {256, 256});
  const Profile large = profile(product, 3, a, a);
  const auto longest =
      std::max_element(large.steps.begin(), large.steps.end(), [](auto& x, auto& y) { return x.seconds < y.seconds; });
  EXPECT_EQ(longest->bound, Bound::flops);
  EXPECT_EQ(longest->flops, 2.0 * 256 * 256 * 256);
  auto scale = compile([](const Tensor& x) { return x * 2.0; }, {.threads = 1});
  const Tensor x = Tensor::from<float>(std::vector<float>(1 << 18, 0.5f), {1 << 18});
  EXPECT_EQ(profile(scale, 3, x).steps.at(0).bound, Bound::bandwidth);
  EXPECT_EQ(profile(scale, 3, x).steps.at(0).bytes, 2.0 * 4 * (1 << 18));
  const Profile tiny = profile(scale, 3, Tensor::from<float>({1, 2}));
  EXPECT_EQ(tiny.steps.at(0).bound, Bound::launch);
  EXPECT_THAT(tiny.text(), HasSubstr("launch"));
}

TEST(Profile, TheTraceParses) {
  const Profile p = profile_of_loop(2);
  const auto trace = nlohmann::json::parse(p.chrome_trace());
  const auto& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), p.steps.size());
  double end = 0;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const auto& e = events[i];
    EXPECT_EQ(e.at("ph"), "X");
    EXPECT_EQ(e.at("cat"), p.steps[i].pass);
    EXPECT_NEAR(e.at("dur").get<double>(), p.steps[i].seconds * 1e6, 1e-9);
    EXPECT_EQ(e.at("args").at("bound"), name_of(p.steps[i].bound));
    end = std::max(end, e.at("ts").get<double>() + e.at("dur").get<double>());
  }
  EXPECT_NEAR(end, p.seconds() * 1e6, 1e-6 * end);
}

TEST(Profile, TheTextHoldsStepsAndSums) {
  const Profile p = profile_of_loop(2);
  const std::string text = p.text();
  for (const char* part : {"matmul 16x16x16", "5 x ", "update", "bound by", "machine's limits"})
    EXPECT_THAT(text, HasSubstr(part));
  for (const ProfileStep& s : p.steps) EXPECT_THAT(text, HasSubstr(name_of(s.bound)));
}

TEST(Profile, LimitsAreInterpolated) {
  const MachineLimits limits{{{1, 100, 200, 50, 1e-6, {{1000, 40, 20}, {4000, 10, 10}}},
                              {3, 300, 600, 150, 3e-6, {{1000, 120, 60}, {4000, 30, 30}}}}};
  EXPECT_DOUBLE_EQ(limits.flops(f32, 2), 200);
  EXPECT_DOUBLE_EQ(limits.flops(bf16, 3), 600);
  EXPECT_DOUBLE_EQ(limits.flops(f64, 1), 50);
  EXPECT_DOUBLE_EQ(limits.flops(f32, 8), 300);
  EXPECT_DOUBLE_EQ(limits.launch(2), 2e-6);
  EXPECT_DOUBLE_EQ(limits.seconds(400, 400, 1), 800.0 / 20);         // a copy
  EXPECT_DOUBLE_EQ(limits.seconds(1000, 0, 1), 1000.0 / 40);         // a sum
  EXPECT_DOUBLE_EQ(limits.seconds(600, 200, 1), 400.0 / 20 + 10);    // two read, one of them overwritten
  EXPECT_DOUBLE_EQ(limits.seconds(50000, 50000, 3), 100000.0 / 30);  // beyond the largest amount
  EXPECT_DOUBLE_EQ(limits.seconds(0, 0, 1), 0);
}

TEST(Profile, LimitsAreMeasured) {
  const MachineLimits limits = measure_limits(1, 0.02);
  ASSERT_EQ(limits.rates.size(), 1u);
  const MachineLimits::Rates& r = limits.rates[0];
  EXPECT_GT(r.f32, 1e8);
  EXPECT_GE(r.bf16, r.f32);
  EXPECT_GT(r.f64, 1e8);
  ASSERT_GT(r.bandwidth.size(), 3u);
  for (const auto& b : r.bandwidth) {
    EXPECT_GT(b.copy, 1e8);
    EXPECT_GT(b.read, 1e8);
  }
  EXPECT_THAT(limits.text(), HasSubstr("GFLOP/s"));
  EXPECT_THROW(measure_limits(-1), Error);
}

TEST(Profile, RefusesNoRuns) {
  auto step = compile([](const Tensor& x) { return x + 1.0; });
  EXPECT_THROW(profile(step, 0, Tensor::from<float>({1})), Error);
}

}  // namespace
}  // namespace bp

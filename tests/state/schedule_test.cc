// Schedules against PyTorch's, their ends and their refusals.
#include "bp/schedule.h"

#include "state/expectations.h"

namespace bp {
namespace {

using test::Doubles;
using test::expect_close;
using test::torch_values;
using ::testing::HasSubstr;

void expect_torch(const char* name, const Schedule& schedule) {
  const Doubles expected = torch_values()["schedules"][name];
  Doubles got;
  for (std::size_t t = 0; t < expected.size(); ++t) got.push_back(schedule(static_cast<std::int64_t>(t)));
  expect_close(got, expected, 1e-12, name);
}

TEST(Schedule, MatchesPyTorch) {
  expect_torch("step", schedule::step(0.1, 3, 0.5));
  expect_torch("multistep", schedule::multistep(0.1, {2, 5, 5, 9}, 0.3));
  expect_torch("exponential", schedule::exponential(0.1, 0.9));
  expect_torch("cosine", schedule::cosine(0.1, 10, 0.01));
  expect_torch("polynomial", schedule::polynomial(0.1, 8, 2));
  expect_torch("warmup_exponential", schedule::warmup(schedule::exponential(0.1, 0.9), 5, 0.1));
  expect_torch("one_cycle", schedule::one_cycle(0.5, 20));
  expect_torch(
      "one_cycle_linear",
      schedule::one_cycle(0.5, 21, {.pct_start = 0.25, .cosine = false, .div_factor = 10, .final_div_factor = 100}));
}

TEST(Schedule, StaysAtItsEnd) {
  EXPECT_DOUBLE_EQ(schedule::cosine(0.1, 10, 0.01)(1000), 0.01);
  EXPECT_DOUBLE_EQ(schedule::polynomial(0.1, 8)(1000), 0);
  EXPECT_NEAR(schedule::one_cycle(0.5, 20)(1000), 0.5 / 25 / 1e4, 1e-15);
  EXPECT_DOUBLE_EQ(schedule::constant(0.1)(1000), 0.1);
}

TEST(Schedule, OneCycleAtTheEdges) {
  for (const double pct : {0.0, 0.05, 1.0}) {
    const Schedule s = schedule::one_cycle(1, 10, {.pct_start = pct});
    double highest = 0;
    for (int t = 0; t < 10; ++t) {
      EXPECT_TRUE(std::isfinite(s(t))) << pct;
      highest = std::max(highest, s(t));
    }
    EXPECT_LE(highest, 1) << pct;
  }
}

TEST(Schedule, PlateauMatchesPyTorchAndResumes) {
  for (const auto& c : torch_values()["plateau"]) {
    const auto& o = c["options"];
    const ReduceOnPlateauOptions options{.maximize = o.value("mode", "min") == "max",
                                         .factor = o.value("factor", 0.1),
                                         .patience = o["patience"],
                                         .threshold = o.value("threshold", 1e-4),
                                         .absolute_threshold = o.value("threshold_mode", "rel") == "abs",
                                         .cooldown = o.value("cooldown", 0),
                                         .min_rate = o.value("min_lr", 0.0)};
    ReduceOnPlateau whole(0.1, options), resumed(0.1, options);
    Doubles a, b;
    for (const double metric : Doubles(c["metrics"])) {
      a.push_back(whole(metric));
      ReduceOnPlateau next(0.3, options);
      next.restore(resumed.state());
      resumed = next;
      b.push_back(resumed(metric));
    }
    expect_close(a, Doubles(c["rates"]), 1e-15, o.dump());
    EXPECT_EQ(a, b);
  }
  ReduceOnPlateau nan_counts_as_bad(0.1, {.patience = 0});
  EXPECT_DOUBLE_EQ(nan_counts_as_bad(std::nan("")), 0.01);
}

TEST(Schedule, RefusesWhatMakesNoSense) {
  EXPECT_THAT(message_of(ErrorKind::value, [] { schedule::constant(-1); }), HasSubstr("got -1"));
  message_of(ErrorKind::value, [] { schedule::constant(std::nan("")); });
  message_of(ErrorKind::value, [] { schedule::step(0.1, 0); });
  message_of(ErrorKind::value, [] { schedule::exponential(0.1, -0.5); });
  message_of(ErrorKind::value, [] { schedule::cosine(0.1, 0); });
  message_of(ErrorKind::value, [] { schedule::multistep(0.1, {3, 1}); });
  message_of(ErrorKind::value, [] { schedule::warmup(nullptr, 3); });
  message_of(ErrorKind::value, [] { schedule::one_cycle(0.1, 1); });
  message_of(ErrorKind::value, [] { ReduceOnPlateau(0.1, {.factor = 1}); });
  message_of(ErrorKind::format, [] {
    ReduceOnPlateau p(0.1);
    p.restore(Doubles{1, 2});
  });
}

}  // namespace
}  // namespace bp

// Every trouble of `bp cures` in its small form, one seed: what shows it fails, and what mends it does not.
#include "doctor/cures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "bp/error.h"

namespace bp::doctor {
namespace {

using ::testing::HasSubstr;

const char* const kImages = "/usr/share/datasets/fashion-mnist";

class Cures : public ::testing::TestWithParam<std::string> {};

TEST_P(Cures, TheFailingSetupFailsAndTheOthersMendIt) {
  if (!std::filesystem::exists(kImages)) GTEST_SKIP() << "dataset-fashion-mnist is not installed";
  const std::string name = GetParam();
  const Measured m = measure(cures_named(std::vector{name}).at(0), Lab(kImages, true), 1);
  int failing = 0;
  for (std::size_t i = 0; i < m.outcomes.size(); ++i) {
    const auto& setup = m.cure.setups[i];
    failing += setup.fails ? 1 : 0;
    EXPECT_STREQ(name_of(judge(m.cure, m.outcomes[i][0])), setup.fails ? "fails" : "mended") << setup.name << "\n"
                                                                                             << table_text(m);
    EXPECT_EQ(m.outcomes[i][0].figures.size(), m.cure.columns.size());
    EXPECT_EQ(m.outcomes[i][0].x.size(), m.outcomes[i][0].y.size());
  }
  EXPECT_GE(failing, 1) << "a cure needs a setup without it";
  EXPECT_LT(failing, static_cast<int>(m.outcomes.size()));
  if (name != "cost") return;
  for (std::size_t i = 0; i + 1 < m.outcomes.size(); i += 2) {  // checkpoints change not one bit of the loss
    EXPECT_EQ(m.outcomes[i][0].figures[2], m.outcomes[i + 1][0].figures[2]) << m.cure.setups[i].name;
  }
}

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const Cure& c : cures()) out.push_back(c.name);
  return out;
}
INSTANTIATE_TEST_SUITE_P(All, Cures, ::testing::ValuesIn(names()), [](const auto& i) { return i.param; });

// A cure of two setups that give these figures.
Cure made(std::vector<Bound> bounds) {
  Cure c;
  c.name = c.title = "made";
  c.columns = {{"a"}, {"b", 0}};
  c.bounds = std::move(bounds);
  c.setups = {{"bad", true,
               [](const Lab&, Key key) {
                 return Outcome{{1, static_cast<double>(key.value)}, {0, 1}, {2, 3}};
               }},
              {"good", false, [](const Lab&, Key) {
                 return Outcome{{9, 12.4}, {0, 1}, {3, 2}};
               }}};
  return c;
}

TEST(Verdicts, FollowTheBounds) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Cure higher = made({{0, 2, 5}});
  EXPECT_EQ(judge(higher, {{1, 0}, {}, {}}), Verdict::fails);
  EXPECT_EQ(judge(higher, {{2, 0}, {}, {}}), Verdict::fails);
  EXPECT_EQ(judge(higher, {{3, 0}, {}, {}}), Verdict::between);
  EXPECT_EQ(judge(higher, {{5, 0}, {}, {}}), Verdict::mended);
  EXPECT_EQ(judge(higher, {{nan, 0}, {}, {}}), Verdict::fails);
  const Cure lower = made({{0, 5, 2}});
  EXPECT_EQ(judge(lower, {{6, 0}, {}, {}}), Verdict::fails);
  EXPECT_EQ(judge(lower, {{1, 0}, {}, {}}), Verdict::mended);
  const Cure both = made({{0, 2, 5}, {1, 5, 2}});
  EXPECT_EQ(judge(both, {{6, 1}, {}, {}}), Verdict::mended);
  EXPECT_EQ(judge(both, {{6, 3}, {}, {}}), Verdict::between);
  EXPECT_EQ(judge(both, {{6, 7}, {}, {}}), Verdict::fails);
}

TEST(Verdicts, AWrongOneIsNoticed) {
  EXPECT_TRUE(as_expected(measure(made({{0, 2, 5}}), Lab("", true), 2)));
  EXPECT_FALSE(as_expected(measure(made({{0, 0.5, 5}}), Lab("", true), 2))) << "the bad one lies between";
  EXPECT_FALSE(as_expected(measure(made({{0, 2, 10}}), Lab("", true), 2))) << "the good one lies between";
}

TEST(Report, SaysWhatWasMeasured) {
  const std::vector<Measured> all{measure(made({{0, 2, 5}}), Lab("", true), 3)};
  EXPECT_THAT(table_text(all[0]), HasSubstr("2 (1 to 3)"));
  const std::string text = page(all, 3);
  EXPECT_THAT(text, HasSubstr("| bad | 1.00 | 2 (1 to 3) | fails |\n| good | 9.00 | 12 | mended |"));
  EXPECT_THAT(text, HasSubstr("Fails: a at most 2.00 or NaN. Mended: a at least 5.00."));
  EXPECT_THAT(text, HasSubstr("cures_made.svg"));
  EXPECT_THAT(chart_svg(all[0]), HasSubstr("good"));
}

TEST(Lab, MistakesAreNamed) {
  try {
    Lab("/nowhere", true).train({784}, 10);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_THAT(e.what(), HasSubstr("dataset-fashion-mnist"));
  }
  try {
    cures_named(std::vector<std::string>{"vanish"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config);
    EXPECT_THAT(e.what(), HasSubstr("vanishing"));
  }
}

}  // namespace
}  // namespace bp::doctor

// Searches: spaces and proposals, rungs by hand, importance, and a study that several use at once.
#include "train/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "message_of.h"
#include "train/study.h"

namespace bp::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

Search search_of(const std::string& text) {
  Node root = parse_toml("[tune]\n" + text, "t.toml");
  return read_search(*root.find("tune"));
}

TEST(Search, AGridHasAllCombinationsTheLastKeyFastest) {
  const Search s = search_of(
      "method = 'grid'\n[tune.space]\noptimizer.type = ['sgd', 'adam']\n"
      "'optimizer.lr' = { log = [0.01, 1.0], points = 3 }\n'x.n' = { integer = [1, 2], points = 9 }");
  EXPECT_EQ(s.trials, 2 * 3 * 2);
  EXPECT_THAT(assignments(s, proposal(s, 0)), ElementsAre("optimizer.type=\"sgd\"", "optimizer.lr=0.01", "x.n=1"));
  EXPECT_THAT(assignments(s, proposal(s, 3)), ElementsAre("optimizer.type=\"sgd\"", "optimizer.lr=0.1", "x.n=2"));
  EXPECT_THAT(assignments(s, proposal(s, 11)), ElementsAre("optimizer.type=\"adam\"", "optimizer.lr=1.0", "x.n=2"));
}

TEST(Search, ProposalsStayInTheirRangesAndDependOnTheirNumberAlone) {
  for (const std::string method : {"random", "halton", "asha"}) {
    const std::string space =
        "\n[tune.space]\n'a' = { log = [1e-4, 1e-1] }\n'b' = { uniform = [-1, 1] }\n'c' = { integer = [3, 5] }\n"
        "'d' = { log_integer = [1, 100] }\n'e' = [[1, 2], 'x']";
    const Search s = search_of("method = '" + method + "'\ntrials = 7" + space);
    const Search more = search_of("method = '" + method + "'\ntrials = 500" + space);
    std::set<std::int64_t> integers;
    int below = 0, small = 0;
    for (int n = 0; n < 300; ++n) {
      const std::vector<Node> v = proposal(s, n);
      EXPECT_EQ(assignments(s, v), assignments(more, proposal(more, n)));
      EXPECT_TRUE(v[0].number >= 1e-4 && v[0].number <= 1e-1) << v[0].number;
      EXPECT_TRUE(v[1].number >= -1 && v[1].number <= 1) << v[1].number;
      EXPECT_TRUE(v[3].integer >= 1 && v[3].integer <= 100) << v[3].integer;
      integers.insert(v[2].integer);
      below += v[0].number < std::sqrt(1e-5) ? 1 : 0;
      small += v[3].integer <= 10 ? 1 : 0;
    }
    EXPECT_THAT(integers, ElementsAre(3, 4, 5)) << method;
    EXPECT_NEAR(below, 150, method == "halton" ? 3 : 35) << method;
    EXPECT_NEAR(small, 300 * std::log(11) / std::log(101), 35) << method;
  }
  const std::string space = "\n[tune.space]\n'a' = { uniform = [0, 1] }";
  EXPECT_NE(proposal(search_of("seed = 1" + space), 0)[0].number, proposal(search_of("seed = 2" + space), 0)[0].number);
}

// In as many cells of a square as there are; in one base for both keys they would lie on a diagonal.
TEST(Search, HaltonFillsASquare) {
  const Search s = search_of("method = 'halton'\n[tune.space]\n'a' = { uniform = [0, 4] }\n'b' = { uniform = [0, 4] }");
  std::set<std::pair<int, int>> cells;
  for (int n = 0; n < 64; ++n) {
    const std::vector<Node> v = proposal(s, n);
    cells.emplace(static_cast<int>(v[0].number), static_cast<int>(v[1].number));
  }
  EXPECT_GE(cells.size(), 16u);
}

TEST(Search, MistakesNameTheKey) {
  const auto message = [](const std::string& text) { return message_of(ErrorKind::config, [&] { search_of(text); }); };
  EXPECT_THAT(message("[tune.space]\n'optimizer.lr' = { log = [0, 1] }"),
              HasSubstr("t.toml:3: tune.space.optimizer.lr: expected [LOW, HIGH], two numbers > 0 with LOW < HIGH"));
  EXPECT_THAT(message("[tune.space]\n'a' = { integer = [1, 2.5] }"), HasSubstr("two integers"));
  EXPECT_THAT(message("[tune.space]\n'a' = { uniform = [1, 1] }"), HasSubstr("LOW < HIGH"));
  EXPECT_THAT(message("[tune.space]\n'a' = { log = [1, 2], steps = 3 }"), HasSubstr("tune.space.a: expected a list"));
  EXPECT_THAT(message("[tune.space]\n'a' = { log = [1, 2], uniform = [1, 2] }"), HasSubstr("expected a list"));
  EXPECT_THAT(message("[tune.space]\n'a' = 3"), HasSubstr("expected a list of values"));
  EXPECT_THAT(message("[tune.space]\n'a' = []"), HasSubstr("expected a list of values"));
  EXPECT_THAT(message("[tune.space]\n'tune.seed' = [1, 2]"), HasSubstr("not one to search over"));
  EXPECT_THAT(message("[tune.space]"), HasSubstr("at least one key"));
  EXPECT_THAT(message("method = 'grid'\n[tune.space]\n'a' = { log = [1, 2] }"), HasSubstr("number of points of a"));
  EXPECT_THAT(message("method = 'grid'\n[tune.space]\n'a' = { log = [1, 2], points = 90000 }\n'b' = [1, 2]"),
              HasSubstr("more than 100000 points"));
  EXPECT_THAT(message("methods = 'grid'\n[tune.space]\n'a' = [1]"), HasSubstr("did you mean \"method\""));
  EXPECT_THAT(message("trials = 0\n[tune.space]\n'a' = [1]"), HasSubstr("tune.trials"));
}

TEST(Search, TheBestThirdGoesOnPastARung) {
  const Search s = search_of("method = 'asha'\nmin_epochs = 2\neta = 3\n[tune.space]\n'a' = [1, 2]");
  std::vector<int> rungs;
  for (int e = 1; e < 60; ++e)
    if (is_rung(s, e)) rungs.push_back(e);
  EXPECT_THAT(rungs, ElementsAre(2, 6, 18, 54));
  EXPECT_FALSE(is_rung(search_of("method = 'halton'\n[tune.space]\n'a' = [1, 2]"), 1));

  EXPECT_TRUE(goes_on(std::vector{0.5}, 0.5, 3));  // the first
  EXPECT_TRUE(goes_on(std::vector{0.5, 0.4}, 0.4, 3));
  EXPECT_FALSE(goes_on(std::vector{0.5, 0.4}, 0.5, 3));
  const std::vector<double> six{0.6, 0.5, 0.4, 0.3, 0.2, 0.1};
  EXPECT_TRUE(goes_on(six, 0.2, 3));  // two of six
  EXPECT_FALSE(goes_on(six, 0.3, 3));
  EXPECT_TRUE(goes_on(six, 0.3, 2));
  EXPECT_FALSE(goes_on(std::vector{std::nan("")}, std::nan(""), 3));
  EXPECT_TRUE(goes_on(std::vector{kInfinite, 0.4}, 0.4, 3));
}

TEST(Search, ImportanceFindsTheKeyThatMatters) {
  const Search s = search_of(
      "method = 'random'\n[tune.space]\n'lr' = { log = [1e-4, 1] }\n'noise' = { uniform = [0, 1] }\n'kind' = ['a', "
      "'b']");
  std::vector<std::pair<double, std::int64_t>> by_cost;  // a valley in lr, worse for kind b
  for (std::int64_t n = 0; n < 100; ++n) {
    const std::vector<Node> v = proposal(s, n);
    by_cost.emplace_back(std::abs(std::log10(v[0].number) + 2) + (v[2].text == "b" ? 0.5 : 0), n);
  }
  std::sort(by_cost.begin(), by_cost.end());
  std::vector<std::int64_t> numbers;
  for (const auto& [cost, n] : by_cost) numbers.push_back(n);
  const std::vector<double> shares = importance(s, numbers);
  EXPECT_GT(shares[0], 0.5);
  EXPECT_LT(shares[1], 0.1);
  EXPECT_GT(shares[2], 0.05);
  EXPECT_LT(shares[2], shares[0]);
  EXPECT_THAT(importance(s, std::vector<std::int64_t>{0, 1, 2}), ElementsAre(0, 0, 0));
  EXPECT_THAT(importance_svg(s, shares, "a <b>"), HasSubstr("a &lt;b&gt;"));
}

// By hand: of ranks -1.5, -0.5, 0.5, 1.5 in two pairs the share between is 0.8, less chance 0.7; in turns it is 0.2,
// less than chance.
TEST(Search, ImportanceIsLessWhatChanceGives) {
  const Search s = search_of("method = 'grid'\n[tune.space]\n'a' = [1, 2]\n'b' = [1, 2]");
  const std::vector<double> shares = importance(s, std::vector<std::int64_t>{0, 1, 2, 3});
  EXPECT_NEAR(shares[0], 0.7, 1e-12);
  EXPECT_EQ(shares[1], 0);
}

TEST(Search, TrialsAreRankedByWhomTheyBeatWhereBothCame) {
  // 0 came to the end when nobody else was there; 1 to 3 are better than it at the first rung, 4 diverged.
  const std::vector<Course> courses{{0, {{1, 0.9}, {3, 0.8}, {9, 0.7}}},
                                    {1, {{1, 0.5}, {3, 0.45}}},
                                    {2, {{1, 0.6}}},
                                    {3, {{1, 0.7}, {3, 0.4}, {9, 0.3}}},
                                    {4, {}},
                                    {5, {{1, kInfinite}}},
                                    {6, {{1, 0.6}}}};
  EXPECT_THAT(by_wins(courses), ElementsAre(1, 2, 6, 3, 0, 5, 4));
  EXPECT_THAT(by_wins({}), ElementsAre());
}

class StudyFile : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string folder_ = ::testing::TempDir() + "/bp_study_test." + std::to_string(getpid());
};

TEST_F(StudyFile, TwoWorkersShareItsTrialsAndTakeUpWhatWasLeft) {
  Study a(folder_, "x"), b(folder_, "x");
  std::optional<Claim> first = a.claim(3), second = b.claim(3), third = a.claim(3);
  ASSERT_TRUE(first && second && third);
  EXPECT_THAT((std::vector{first->trial.number, second->trial.number, third->trial.number}), ElementsAre(0, 1, 2));
  EXPECT_FALSE(b.claim(3));

  first->trial.state = "finished";
  first->trial.value = 0.25;
  first->trial.epochs = 4;
  a.end(first->trial);
  first.reset();
  second.reset();  // as a worker does that is killed
  second = a.claim(3);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->trial.number, 1);
  EXPECT_FALSE(b.claim(3));
  EXPECT_EQ(b.claim(4)->trial.number, 3);  // more trials than before

  const std::vector<Trial> all = b.trials();
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].state, "finished");
  EXPECT_EQ(all[0].value, 0.25);
  EXPECT_EQ(all[1].state, "running");
  EXPECT_TRUE(std::isnan(all[1].value));
}

TEST_F(StudyFile, ATrialThatKillsItsWorkersFails) {
  Study study(folder_, "x");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(study.claim(1)->trial.number, 0);
  EXPECT_FALSE(study.claim(1));
  EXPECT_EQ(study.trials()[0].state, "failed");
  EXPECT_EQ(study.trials()[0].reason, "its worker was killed 3 times");

  std::optional<Claim> other = study.claim(2);
  for (int i = 0; i < 5; ++i) {  // an orderly interruption is no death
    other->trial.state = "interrupted";
    study.end(other->trial);
    other.reset();
    other = study.claim(2);
    ASSERT_TRUE(other);
  }
}

TEST_F(StudyFile, RungsDecideOnce) {
  Study a(folder_, "x"), b(folder_, "x");
  std::vector<std::optional<Claim>> claims;
  for (int n = 0; n < 3; ++n) claims.push_back(a.claim(3));
  EXPECT_TRUE(a.passes_rung(0, 1, 0.5, 3));
  EXPECT_FALSE(b.passes_rung(1, 1, 0.6, 3));
  EXPECT_TRUE(b.passes_rung(2, 1, 0.4, 3));
  EXPECT_TRUE(b.passes_rung(0, 1, 0.5, 3));  // asked again; no longer the best
  EXPECT_TRUE(a.passes_rung(0, 3, 0.6, 3));  // the first to come there
  EXPECT_THAT(b.rungs(0), ElementsAre(std::pair(1, 0.5), std::pair(3, 0.6)));
  EXPECT_TRUE(a.stopped(1));
  EXPECT_FALSE(a.stopped(2));
}

TEST_F(StudyFile, AnotherSearchIsRefused) {
  { const Study study(folder_, "a = 1\nlr = 0.1\n"); }
  EXPECT_THAT(message_of(ErrorKind::state, [&] { Study(folder_, "a = 1\nlr = 0.2\n"); }),
              HasSubstr("\"lr = 0.2\" was \"lr = 0.1\""));
}

}  // namespace
}  // namespace bp::train

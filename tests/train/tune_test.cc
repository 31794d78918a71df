// A search in this process: which trials stop, what each leaves, in which order they are told, what ends the search.
#include "train/tune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>

#include "classifier.h"
#include "train/experiment.h"
#include "train/runs.h"

namespace bp::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using train_test::empty_folder;
namespace fs = std::filesystem;

constexpr const char* kSearched = R"(name = "searched"
[data]
format = "csv"
train = "t.csv"
target = "where"
validation_fraction = 0.25
[model]
input = [2]
layers = [{ type = "linear", units = 8 }, { type = "relu" }, { type = "linear", units = 2 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.1
[train]
epochs = 3
batch = 16
threads = 1
report = false
[tune]
)";

std::string text_of_file(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// A folder with a table of two classes, and searches over its configuration.
class TuneFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    Rng rng{Key{1}};
    std::ofstream file(folder_ + "/t.csv");
    file << "x,y,where\n";
    for (int i = 0; i < 64; ++i) {
      const double x = rng.normal(), y = rng.normal();
      file << x << ',' << y << ',' << (x + y > 0 ? "above" : "below") << '\n';
    }
  }
  TunePlan plan(const std::string& tune, std::vector<std::string> overrides = {}) const {
    std::ofstream(folder_ + "/net.toml") << kSearched << tune;
    return plan_search(folder_ + "/net.toml", overrides, folder_ + "/study");
  }
  std::string trial(int number) const { return open_study(*last_).folder_of(number); }
  // All trials, from best to worst.
  std::vector<Trial> search(const std::string& tune, std::vector<std::string> overrides = {}) {
    last_ = plan(tune, std::move(overrides));
    EXPECT_TRUE(work_on(*last_, {}));
    return ranked(*last_, open_study(*last_).trials());
  }
  std::vector<std::string> states(const std::vector<Trial>& trials) const {
    std::vector<std::string> all;
    for (const Trial& t : trials) all.push_back(fmt::format("{} {} {}", t.number, t.state, t.epochs));
    return all;
  }

  std::string folder_ = empty_folder("tuned");
  std::optional<TunePlan> last_;
};

// Every trial trains with its own values whatever came before it: two workers that share the trials, the later one
// first, leave the files that one leaves.
TEST_F(TuneFolder, ATrialDependsOnItsNumberAlone) {
  const std::string tune = "method = 'random'\ntrials = 3\n[tune.space]\n'optimizer.lr' = { log = [1e-3, 1] }";
  search(tune);
  std::vector<std::string> alone, values;
  for (int n = 0; n < 3; ++n) {
    alone.push_back(text_of_file(trial(n) + "/model.safetensors"));
    values.push_back(text_of_file(trial(n) + "/config.toml"));
  }
  EXPECT_NE(values[0], values[1]);
  fs::remove_all(folder_ + "/study");
  {
    Study other = open_study(*last_);
    const std::optional<Claim> first = other.claim(3);  // a worker that is slow: it never gets to train
    EXPECT_TRUE(work_on(*last_, {}));                   // does 1 and 2
  }
  EXPECT_TRUE(work_on(*last_, {}));
  for (int n = 0; n < 3; ++n) {
    EXPECT_EQ(text_of_file(trial(n) + "/model.safetensors"), alone[static_cast<std::size_t>(n)]) << n;
    EXPECT_EQ(text_of_file(trial(n) + "/config.toml"), values[static_cast<std::size_t>(n)]) << n;
  }
}

// By an accuracy larger is better; the rate 0 learns nothing and stops at a rung, 1e30 diverges.
TEST_F(TuneFolder, FallenBehindIsPrunedAndDivergedIsAResult) {
  const std::vector<Trial> all =
      search("method = 'asha'\ntrials = 12\neta = 3\n[tune.space]\n'optimizer.lr' = [0.5, 1e-9, 1e30]",
             {"train.watch=accuracy", "train.epochs=4"});
  ASSERT_EQ(all.size(), 12u);
  int pruned = 0, diverged = 0;
  for (const Trial& t : all) {
    const double lr = proposal(*last_->base.search, t.number)[0].number;
    if (lr > 1) {
      EXPECT_EQ(t.state, "diverged");
      EXPECT_THAT(t.reason, HasSubstr("Remedies"));
      ++diverged;
    } else if (lr < 0.1 && t.number > 4) {
      EXPECT_EQ(t.state, "pruned") << t.number;
      EXPECT_EQ(read_run_record(trial(static_cast<int>(t.number))).status, "pruned");
      ++pruned;
    }
    EXPECT_FALSE(fs::exists(trial(static_cast<int>(t.number)) + "/checkpoints") && t.state != "diverged") << t.state;
  }
  EXPECT_GT(pruned, 0);
  EXPECT_GT(diverged, 0);
  EXPECT_EQ(all.front().state, "finished");
  EXPECT_EQ(all.back().state, "diverged");
  EXPECT_GT(all.front().value, 0.8);
  conclude_search(*last_, all);
  EXPECT_THAT(text_of_file(folder_ + "/study/best.toml"), HasSubstr("lr = 0.5"));
  // More trials later: what stopped stays as it is.
  const std::vector<Trial> more = search(
      "method = 'asha'\ntrials = 13\neta = 3\n[tune.space]\n'optimizer.lr' = [0.5, "
      "1e-9, 1e30]",
      {"train.watch=accuracy", "train.epochs=4"});
  EXPECT_EQ(more.size(), 13u);
  for (const Trial& t : more) {
    const auto before = std::find_if(all.begin(), all.end(), [&](const Trial& b) { return b.number == t.number; });
    if (before == all.end()) continue;
    EXPECT_EQ(states({t}), states({*before}));
  }
}

// Killed between the rung's verdict and its end.
TEST_F(TuneFolder, WhatARungStoppedStaysStopped) {
  const TunePlan p = plan("method = 'asha'\ntrials = 1\n[tune.space]\n'optimizer.lr' = [1, 2]");
  {
    Study study = open_study(p);
    const std::optional<Claim> claim = study.claim(1);
    EXPECT_FALSE(study.passes_rung(0, 1, std::nan(""), 3));
  }
  EXPECT_TRUE(work_on(p, {}));
  EXPECT_THAT(states(open_study(p).trials()), ElementsAre("0 pruned 0"));
}

// The end of a run is no rung, and a run that reached its target has ended, whatever the rung there says.
TEST_F(TuneFolder, WhatHasEndedIsNotPruned) {
  const std::string tune = "method = 'asha'\ntrials = 4\n[tune.space]\n'optimizer.lr' = [0.5, 1e-9]";
  search(tune);
  Study study = open_study(*last_);
  for (const Trial& t : study.trials()) EXPECT_EQ(study.rungs(t.number).count(3), 0u);
  fs::remove_all(folder_ + "/study");
  for (const Trial& t : search(tune, {"train.target=100"})) EXPECT_EQ(states({t})[0].substr(2), "finished 1");
}

TEST_F(TuneFolder, RanksFinishedThenFarthestThenDiverged) {
  const TunePlan p = plan("[tune.space]\n'optimizer.lr' = [1, 2]", {"train.watch=accuracy"});
  const double none = std::nan("");
  const std::vector<Trial> all = ranked(p, {{0, "failed", none, 0, 0, ""},
                                            {1, "diverged", 0.9, 2, 0, ""},
                                            {2, "pruned", 0.8, 1, 0, ""},
                                            {3, "pruned", 0.4, 3, 0, ""},
                                            {4, "finished", 0.6, 3, 0, ""},
                                            {5, "finished", 0.7, 2, 0, ""},
                                            {6, "finished", none, 3, 0, ""},
                                            {7, "running", 0.99, 2, 0, ""},
                                            {8, "pruned", 0.5, 3, 0, ""},
                                            {9, "finished", 0.7, 3, 0, ""}});
  std::vector<std::int64_t> numbers;
  for (const Trial& t : all) numbers.push_back(t.number);
  EXPECT_THAT(numbers, ElementsAre(5, 9, 4, 6, 8, 3, 2, 7, 1, 0));
}

// By hand, four trials of two keys. Where the last two diverged the first key tells all; where two were pruned at the
// rung that all came to, between and behind those that finished, the second does.
TEST_F(TuneFolder, ImportanceComparesTrialsWhereBothCame) {
  const std::string grid =
      "method = 'grid'\n[tune.space]\n'optimizer.lr' = [0.1, 0.2]\n'optimizer.momentum' = [0.0, 0.5]";
  const TunePlan p = plan(grid);
  const auto shares = [&](const std::vector<std::string>& states, const std::vector<double>& costs) {
    fs::remove_all(folder_ + "/study");
    Study study = open_study(p);
    for (std::size_t i = 0; i < states.size(); ++i) {
      std::optional<Claim> claim = study.claim(4);
      study.passes_rung(claim->trial.number, 1, costs[i], 3);
      claim->trial.state = states[i];
      claim->trial.value = costs[i];
      study.end(claim->trial);
    }
    return conclude_search(p, ranked(p, study.trials()));
  };
  using ::testing::DoubleNear;
  EXPECT_THAT(shares({"diverged", "diverged", "finished", "pruned"}, {0.1, 0.1, 0.5, 0.6}),
              ElementsAre(DoubleNear(0.7, 1e-9), 0));
  EXPECT_THAT(shares({"finished", "finished", "pruned", "pruned"}, {0.2, 0.4, 0.1, 0.3}),
              ElementsAre(0, DoubleNear(0.7, 1e-9)));
  EXPECT_EQ(open_study(plan(grid, {"train.threads=2"})).trials().size(), 4u);  // is no other search
}

// The model that a trial leaves is what it is judged by: the best epoch's where that one is kept, otherwise the last.
TEST_F(TuneFolder, ATrialIsJudgedByTheModelItLeaves) {
  for (const std::string keep : {"last", "best"}) {
    fs::remove_all(folder_ + "/study");
    const std::vector<Trial> all =
        search("trials = 2\n[tune.space]\n'optimizer.lr' = [30.0, 40.0]", {"train.keep=" + keep, "train.epochs=6"});
    for (const Trial& t : all) {
      const RunRecord r = read_run_record(trial(static_cast<int>(t.number)));
      const MetricRecord& loss = r.metrics.at("validation_loss");
      EXPECT_NE(loss.best, loss.last) << "these rates were meant to go up and down";
      EXPECT_NEAR(t.value, keep == "best" ? loss.best : loss.last, 1e-9);
    }
  }
}

// Interrupted at any epoch and taken up again, also one that a rung had stopped just then.
TEST_F(TuneFolder, AnInterruptedSearchEndsAsOneThatWasNot) {
  const std::string tune =
      "method = 'asha'\ntrials = 9\nseed = 4\neta = 3\n[tune.space]\n'optimizer.lr' = { log = [1e-4, 1] }";
  const std::vector<std::string> whole = states(search(tune));
  EXPECT_NE(std::count_if(whole.begin(), whole.end(), [](auto& s) { return s.find("pruned") != s.npos; }), 0);
  fs::remove_all(folder_ + "/study");
  bool done = false;
  for (int turn = 0; turn < 100 && !done; ++turn) {
    TuneHooks hooks;
    int asked = 0;
    hooks.interrupted = [&] { return ++asked > 7; };
    done = work_on(*last_, hooks);
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(states(ranked(*last_, open_study(*last_).trials())), whole);
}

// A trial whose settings do not work together is a result; one whose data cannot be read ends the search and stays.
TEST_F(TuneFolder, SettingsThatDoNotWorkAreNotADiskThatFails) {
  const std::vector<Trial> all = search("method = 'grid'\n[tune.space]\n'train.batch' = [16, 4000]");
  EXPECT_THAT(states(all), ElementsAre("0 finished 3", "1 failed 0"));
  EXPECT_THAT(all[1].reason, HasSubstr("train.batch is 4000"));
  fs::remove_all(folder_ + "/study");
  const TunePlan p = plan("trials = 1\n[tune.space]\n'optimizer.lr' = [1, 2]");
  fs::rename(folder_ + "/t.csv", folder_ + "/away.csv");
  EXPECT_THAT(message_of(ErrorKind::io, [&] { work_on(p, {}); }), HasSubstr("t.csv"));
  EXPECT_THAT(states(open_study(p).trials()), ElementsAre("0 interrupted 0"));
  fs::rename(folder_ + "/away.csv", folder_ + "/t.csv");
  EXPECT_TRUE(work_on(p, {}));
  EXPECT_THAT(states(open_study(p).trials()), ElementsAre("0 finished 3"));
}

}  // namespace
}  // namespace bp::train

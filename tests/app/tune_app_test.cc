// bp tune: what a search finds, and that it goes on after it, or one of its workers, is killed.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include "app_fixture.h"

namespace bp::app_test {
namespace {

class Tune : public App {
 protected:
  // tune.toml: the network, and a search over its rate.
  void write_search(const std::string& settings, const std::string& rates, const std::string& more = "") const {
    write("tune.toml", std::string(kNet) + "[tune]\n" + settings +
                           "\n[tune.space]\n\"optimizer.lr\" = { log = " + rates + " }\n" + more + "\n");
  }
};

// The table without times, which begins at "trial".
std::string without_times(const std::string& out) {
  std::string kept;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    for (int i = 0; words >> word; ++i)
      if (i != 3) kept += word + " ";
    kept += "\n";
  }
  return kept;
}

// The process that is at a trial, by the trial's record; 0 when there is none yet.
pid_t worker_at(const std::string& trial) {
  const std::string record = read(trial + "/run.json"), key = "\"process\": \"";
  const auto at = record.find(key);
  return at == std::string::npos ? 0 : std::stoi(record.substr(at + key.size()));
}

bool is_alive(pid_t process) {
  const std::string stat = read("/proc/" + std::to_string(process) + "/stat");
  return !stat.empty() && stat.find(") Z") == std::string::npos;
}

TEST_F(Tune, FindsARateAndGoesOnAfterAKill) {
  write_search("method = \"halton\"\ntrials = 6", "[1e-4, 1e-1]", "\"model.layers.0.units\" = [4, 16]");
  const std::vector<std::string> set{"--set", "train.epochs=20", "--set", "train.batch=2"};
  const auto tune = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"tune", "tune.toml", "--threads", "1"});
    arguments.insert(arguments.end(), set.begin(), set.end());
    return arguments;
  };
  const Outcome whole = bp(tune({"--out", "whole"}));
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_THAT(whole.out, HasSubstr("best: trial "));
  EXPECT_THAT(read(at("whole/importance.svg")), HasSubstr("optimizer.lr"));
  EXPECT_THAT(read(at("whole/best.toml")), HasSubstr("validation loss"));

  const pid_t killed = start(tune({"--out", "two", "--workers", "2"}));
  for (int i = 0; i < 3000 && worker_at(at("two/trial-003")) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const pid_t worker = worker_at(at("two/trial-003"));
  kill(killed, SIGKILL);
  finish(killed);
  for (int i = 0; i < 5000 && is_alive(worker); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_FALSE(is_alive(worker) || fs::exists(at("two/trial-005/model.safetensors")))
      << "the workers of a killed search went on";
  const Outcome two = bp(tune({"--out", "two", "--workers", "2"}));
  ASSERT_EQ(two.code, 0) << two.err;
  EXPECT_EQ(without_times(two.out.substr(0, two.out.find("best:"))),
            without_times(whole.out.substr(0, whole.out.find("best:"))));
  for (const char* trial : {"/trial-000", "/trial-002", "/trial-003"})
    EXPECT_EQ(losses(std::string("two") + trial), losses(std::string("whole") + trial));

  const Outcome best = bp({"train", "whole/best.toml", "--out", "again", "-q"});
  EXPECT_EQ(best.code, 0) << best.err;
  const Outcome other = bp({"tune", "tune.toml", "--out", "two"});
  EXPECT_EQ(other.code, 7) << other.err;
  EXPECT_THAT(other.err, HasSubstr("search with other settings"));
}

// A worker is killed under a living search, once and then whenever it is at trial 0: the trial is gone on with, and
// fails when it has lost three; the others end as they would have.
TEST_F(Tune, ReplacesAWorkerThatIsKilled) {
  write_search("trials = 3", "[1e-4, 1e-1]");
  const auto tune = [&](const std::string& out) {
    return start(
        {"tune", "tune.toml", "--workers", "2", "--out", out, "--set", "train.epochs=20", "--set", "train.batch=2"});
  };
  const Outcome whole = finish(tune("whole"));
  ASSERT_EQ(whole.code, 0) << whole.err;
  for (const int kills : {1, 3}) {
    const std::string out = "killed" + std::to_string(kills);
    const pid_t search = tune(out);
    pid_t last = 0;
    for (int done = 0, turn = 0; done < kills && turn < 10000; ++turn) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      const pid_t now = worker_at(at(out + "/trial-000"));
      if (now == 0 || now == last) continue;
      ASSERT_NE(now, search);
      EXPECT_EQ(kill(now, SIGKILL), 0);
      last = now;
      ++done;
    }
    const Outcome o = finish(search);
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(count_of(o.err, "warning: a worker was killed by signal 9; another one takes up its trial"), kills);
    if (kills == 1) {
      EXPECT_EQ(without_times(o.out.substr(0, o.out.find("best:"))),
                without_times(whole.out.substr(0, whole.out.find("best:"))));
      EXPECT_EQ(losses(out + "/trial-000"), losses("whole/trial-000"));
    } else {
      EXPECT_THAT(o.out, HasSubstr("failed"));
      EXPECT_EQ(losses(out + "/trial-002"), losses("whole/trial-002"));
    }
  }
}

TEST_F(Tune, StopsTrialsThatFallBehindAndOnASignal) {
  write_search("method = \"asha\"\ntrials = 8", "[1e-6, 1e-1]");
  const pid_t child = start({"tune", "tune.toml", "--workers", "2", "--set", "train.batch=2"});
  for (int i = 0; i < 3000 && !fs::exists(at("runs/tune-tune/trial-001/history.csv")); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  kill(child, SIGINT);
  const Outcome stopped = finish(child);
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("The same command goes on"));
  EXPECT_FALSE(fs::exists(at("runs/tune-tune/trial-007"))) << "its workers went on";
  const Outcome all = bp({"tune", "tune.toml", "--set", "train.batch=2"});
  ASSERT_EQ(all.code, 0) << all.err;
  EXPECT_THAT(all.out, HasSubstr("pruned"));
  EXPECT_THAT(all.out, HasSubstr("finished"));
  const Outcome more = bp({"tune", "tune.toml", "--set", "train.batch=2", "--trials", "9", "-q"});
  EXPECT_EQ(std::count(more.out.begin(), more.out.end(), '\n'), std::count(all.out.begin(), all.out.end(), '\n') + 1);

  EXPECT_THAT(bp({"tune", "net.toml"}).err, HasSubstr("nothing to search over"));
  const Outcome blind = bp({"tune", "tune.toml", "--set", "data.validation_fraction=0"});
  EXPECT_EQ(blind.code, 2);
  EXPECT_THAT(blind.err, HasSubstr("needs data to judge by"));
  EXPECT_THAT(bp({"tune", "tune.toml", "--set", "tune.space.optimizer.rate=[1,2]"}).err, HasSubstr("trial 0"));
  EXPECT_EQ(bp({"train", "tune.toml", "-q"}).code, 0);
}

}  // namespace
}  // namespace bp::app_test

// Checkpoints of a Trainer: which are kept, which is found again, what a torn file or a full disk costs, and 200 runs
// killed at random.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <span>

#include "bp/io.h"
#include "classifier.h"

namespace bp {
namespace {

using namespace train_test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string step_file(int step) {
  std::string digits = std::to_string(step);
  return "step-" + std::string(9 - digits.size(), char(48)) + digits + ".safetensors";
}

TEST(Checkpoints, TheLastAndTheBestAreKept) {
  const std::string folder = empty_folder("kept");
  Classifier c(3e-3);
  // From the second epoch on the weights are spoilt: the first ones stay the best.
  const train::Result r = c.trainer({.epochs = 6,
                                     .checkpoint = {.folder = folder, .keep_last = 2, .keep_best = 1},
                                     .on_epoch =
                                         [&](const train::Epoch& e) {
                                           if (e.epoch == 2) nn::parameters(c.model)[0].set(0.5);
                                           if (e.epoch == 2) c.optimizer.set_lr(0);
                                         }})
                              .fit(c.loader);
  EXPECT_GT(r.history[2].train.loss, r.history[1].train.loss);
  EXPECT_THAT(names_in(folder), ElementsAre(step_file(16), step_file(40), step_file(48)));
}

TEST(Checkpoints, BySteps) {
  const std::string folder = empty_folder("steps");
  std::vector<std::string> written;
  struct Note final : train::Callback {
    std::vector<std::string>& to;
    explicit Note(std::vector<std::string>& list) : to(list) {}
    void on_checkpoint(const std::string& path) override { to.push_back(fs::path(path).filename()); }
  };
  Classifier c;
  c.trainer({.epochs = 2,
             .checkpoint = {.folder = folder, .every_steps = 3, .keep_last = 1},
             .callbacks = {std::make_shared<Note>(written)}})
      .fit(c.loader);
  EXPECT_THAT(written, ElementsAre(step_file(3), step_file(6), step_file(8), step_file(9), step_file(12), step_file(15),
                                   step_file(16)));
  EXPECT_THAT(names_in(folder), ElementsAre(step_file(16)));
}

TEST(Checkpoints, ByTheClock) {
  const std::string folder = empty_folder("clock");
  Classifier c;
  c.trainer({.epochs = 1, .checkpoint = {.folder = folder, .every_seconds = 1e-9, .keep_last = 100}}).fit(c.loader);
  EXPECT_EQ(names_in(folder).size(), 8u);
}

// Whatever is torn or altered is passed over, and said so.
TEST(Checkpoints, TheNewestThatIsWholeIsFound) {
  const std::string folder = empty_folder("newest");
  Classifier whole, part, c;
  whole.trainer({.epochs = 3}).fit(whole.loader);
  part.trainer({.epochs = 2, .checkpoint = {.folder = folder, .every_steps = 5, .keep_last = 10}}).fit(part.loader);
  EXPECT_THAT(names_in(folder), ElementsAre(step_file(5), step_file(8), step_file(10), step_file(15), step_file(16)));
  fs::resize_file(folder + "/" + step_file(16), 1000);
  {
    std::fstream file(folder + "/" + step_file(15), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-7, std::ios::end);
    file.put('!');
  }
  std::ofstream(folder + "/step-000000099.safetensors.tmp.1.0") << "what a killed writer left";
  std::ofstream(folder + "/step-x.safetensors") << "another file";
  std::vector<std::string> warnings;
  Options options{.epochs = 3, .checkpoint = {.folder = folder, .keep_last = 10}};
  options.on_warning = [&](const std::string& w) { warnings.push_back(w); };
  train::Trainer t = c.trainer(options);
  EXPECT_EQ(t.resume(folder), folder + "/" + step_file(10));
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], HasSubstr(step_file(16)));
  EXPECT_THAT(warnings[1], HasSubstr(step_file(15)));
  EXPECT_THAT(warnings[1], HasSubstr("checksum"));
  t.fit(c.loader);
  EXPECT_EQ(bits(c.model), bits(whole.model));
  EXPECT_THAT(names_in(folder), ElementsAre(step_file(5), step_file(8), step_file(10), step_file(16), step_file(24),
                                            "step-x.safetensors"));
}

TEST(Checkpoints, WithoutAWholeOneNothingIsChanged) {
  const std::string folder = empty_folder("broken");
  Classifier c;
  c.trainer({.epochs = 1, .checkpoint = {.folder = folder}}).fit(c.loader);
  fs::resize_file(folder + "/" + step_file(8), 20);
  const auto before = bits(c.model);
  train::Trainer t = c.trainer({});
  EXPECT_THAT(message_of([&] { t.resume(folder); }, ErrorKind::format), HasSubstr(step_file(8)));
  EXPECT_EQ(bits(c.model), before);
  fs::remove(folder + "/" + step_file(8));
  EXPECT_THAT(message_of([&] { t.resume(folder); }, ErrorKind::io), HasSubstr("no checkpoint"));
}

TEST(Checkpoints, ThoseOfAnotherRunAreNotOverwritten) {
  const std::string folder = empty_folder("other");
  Classifier c;
  c.trainer({.epochs = 1, .checkpoint = {.folder = folder}}).fit(c.loader);
  train::Trainer again = c.trainer({.epochs = 1, .checkpoint = {.folder = folder}});
  EXPECT_THAT(message_of([&] { again.fit(c.loader); }, ErrorKind::state), HasSubstr("another run"));
}

// Every write past 20 kB fails, as on a full disk: the run goes on, and the older checkpoints stay as they are.
TEST(Checkpoints, AFullDiskCostsNoOlderOne) {
  const std::string folder = empty_folder("full");
  Classifier c;
  train::Trainer first = c.trainer({.epochs = 1, .checkpoint = {.folder = folder}});
  first.fit(c.loader);
  const std::string kept = folder + "/" + step_file(8);
  const Buffer before = io::read_file(kept);
  ASSERT_GT(before.bytes(), 20000u);
  std::vector<std::string> warnings;
  Options options{.epochs = 3, .checkpoint = {.folder = folder, .keep_last = 1}};
  options.on_warning = [&](const std::string& w) { warnings.push_back(w); };
  train::Trainer t = c.trainer(options);
  t.resume(folder);
  rlimit unlimited{};
  getrlimit(RLIMIT_FSIZE, &unlimited);
  const rlimit small{20000, unlimited.rlim_max};
  const auto old = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const train::Result r = t.fit(c.loader);
  setrlimit(RLIMIT_FSIZE, &unlimited);
  signal(SIGXFSZ, old);
  EXPECT_EQ(r.steps, 24);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], HasSubstr("step 16"));
  EXPECT_THAT(names_in(folder), ElementsAre(step_file(8)));
  const Buffer after = io::read_file(kept);
  EXPECT_TRUE(
      std::ranges::equal(std::span(after.as<char>(), after.bytes()), std::span(before.as<char>(), before.bytes())));
}

TEST(Checkpoints, AFolderThatCannotBeWrittenIsFoundBeforeTheFirstStep) {
  const std::string file = scratch("file");
  std::ofstream(file) << "a file";
  Classifier c;
  train::Trainer t = c.trainer({.checkpoint = {.folder = file + "/inside"}});
  EXPECT_THAT(message_of([&] { t.fit(c.loader); }, ErrorKind::io), HasSubstr(file + "/inside"));
  EXPECT_EQ(c.optimizer.step.get().item(), 0);
}

// A run of 40 updates with dropout, momentum, a schedule, an average of weights and accumulated gradients, that writes
// a checkpoint after every second update. The final model goes to `out`.
void run_to_the_end(const std::string& folder, const std::string& out) {
  nn::Sequential model{nn::Linear{2, 24}, nn::ReLU{}, nn::Dropout{0.2}, nn::BatchNorm{24}, nn::Linear{24, 1}};
  nn::init(model, Key{1});
  optim::Adam adam(model, {.lr = 1e-2});
  data::DataLoader loader(line(160), {.batch_size = 8, .key = Key{2}, .threads = 0});
  data::DataLoader validation(line(40), {.batch_size = 40, .shuffle = false, .threads = 0});
  train::Trainer t(model, mse, adam,
                   {.epochs = 4,
                    .task = Task::regression,
                    .threads = 1,
                    .accumulate = 2,
                    .schedule = schedule::cosine(1e-2, 40),
                    .ema = 0.9,
                    .checkpoint = {.folder = folder, .every_steps = 2, .keep_last = 2, .keep_best = 1}});
  if (!train::newest_checkpoint(folder).empty()) t.resume(folder);
  const train::Result r = t.fit(loader, &validation);
  Metadata metadata;
  for (const train::Epoch& e : r.history)
    metadata["epoch " + std::to_string(e.epoch)] =
        std::to_string(e.train.loss) + " " + std::to_string(e.validation->loss);
  save_state(out, model, &adam, metadata);
}

// Runs it in a process of its own, killed after `microseconds` unless 0; true when it came to its end.
bool child_runs(const std::string& folder, const std::string& out, unsigned microseconds) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      run_to_the_end(folder, out);
      _exit(0);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      _exit(1);
    }
  }
  if (microseconds > 0) {
    usleep(microseconds);
    kill(child, SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "a resumed run failed";
  return WIFEXITED(status);
}

std::string content(const std::string& path) {
  const Buffer b = io::read_file(path);
  return {b.as<char>(), b.bytes()};
}

// Kills come at random moments of a run that spends half of its time in writing; some must fall into a write, which
// leaves a temporary file behind.
TEST(Killed, TwoHundredTimesEndsBitForBit) {
  const std::string expected = scratch("expected.safetensors"), out = scratch("out.safetensors");
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(child_runs(scratch("whole"), expected, 0));
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  std::mt19937 random(7);
  std::uniform_int_distribution<unsigned> moment(1, static_cast<unsigned>(whole.count()));
  int kills = 0, in_writes = 0, runs = 0;
  while (kills < 200) {
    const std::string folder = scratch("run");
    fs::remove_all(folder);
    fs::remove(out);
    ++runs;
    for (int tries = 0; !child_runs(folder, out, tries < 12 ? moment(random) : 0); ++tries) {
      ++kills;
      const auto is_torn = [](const std::string& name) { return name.find(".tmp.") != std::string::npos; };
      if (!fs::exists(folder)) continue;
      const auto names = names_in(folder);
      in_writes += std::any_of(names.begin(), names.end(), is_torn);
    }
    ASSERT_TRUE(content(out) == content(expected)) << "after " << kills << " kills";
  }
  EXPECT_GT(in_writes, 0);
  RecordProperty("runs", runs);
  RecordProperty("kills_within_a_write", in_writes);
  std::printf("%d kills of %d runs, %d of them within a write\n", kills, runs, in_writes);
}

}  // namespace
}  // namespace bp

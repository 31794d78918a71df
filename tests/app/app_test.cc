// The program bp, run as a user does: its outputs, mistakes and exit codes, an interruption, a full disk.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "app_fixture.h"
#include "bp/io.h"

namespace bp::app_test {
namespace {

TEST_F(App, TrainsEvaluatesAndPredicts) {
  const Outcome train = bp({"train", "net.toml"});
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_THAT(train.out, HasSubstr("test: loss"));
  EXPECT_THAT(train.err, HasSubstr("epoch 12/12"));
  EXPECT_EQ(train.err.find('\r'), std::string::npos) << "a bar where there is no terminal";
  for (const char* file : {"model.safetensors", "checkpoints", "config.toml", "history.csv", "loss.svg", "run.json",
                           "events/train", "events/validation"})
    EXPECT_TRUE(fs::exists(at(std::string("runs/net/") + file))) << file;
  EXPECT_EQ(losses("runs/net").size(), 13u);

  const Outcome eval = bp({"eval", "runs/net"});
  EXPECT_EQ(eval.code, 0) << eval.err;
  EXPECT_EQ(eval.out.substr(0, eval.out.find('\n')), train.out.substr(0, train.out.find('\n')));

  const Outcome predict = bp({"predict", "runs/net", "test.csv", "-o", "p.csv"});
  ASSERT_EQ(predict.code, 0) << predict.err;
  const io::Table table = io::read_csv(at("p.csv"), {.categorical = {"class"}});
  const io::Table truth = io::read_csv(at("test.csv"), {.categorical = {"where"}});
  ASSERT_EQ(table.rows(), 50);
  int right = 0;
  for (int i = 0; i < 50; ++i) {
    const float sum = table.column("p inside").values.values<float>()[static_cast<std::size_t>(i)] +
                      table.column("p outside").values.values<float>()[static_cast<std::size_t>(i)];
    EXPECT_NEAR(sum, 1, 1e-5);
    const auto k = static_cast<std::size_t>(i);
    right += table.column("class").values.values<std::int64_t>()[k] ==
             truth.column("where").values.values<std::int64_t>()[k];
  }
  EXPECT_GE(right, 40);
}

TEST_F(App, PredictsRowsThatStayOnDisk) {
  ASSERT_EQ(bp({"train", "net.toml", "--set", "train.epochs=1"}).code, 0);
  ASSERT_EQ(bp({"predict", "runs/net", "test.csv", "-o", "memory.csv"}).code, 0);
  std::string config = read(at("runs/net/config.toml"));
  config.insert(config.find("[data]\n") + 7, "stream = true\n");
  std::ofstream(at("runs/net/config.toml")) << config;
  const Outcome streamed = bp({"predict", "runs/net", "test.csv", "-o", "disk.csv"});
  ASSERT_EQ(streamed.code, 0) << streamed.err;
  EXPECT_THAT(streamed.out, HasSubstr("disk.csv: 50 rows"));
  EXPECT_EQ(read(at("disk.csv")), read(at("memory.csv")));

  std::ofstream(at("test.csv"), std::ios::app) << "0,far,inside\n";
  const Outcome wrong = bp({"predict", "runs/net", "test.csv", "-o", "wrong.csv"});
  EXPECT_EQ(wrong.code, 5);
  EXPECT_THAT(wrong.err, HasSubstr("test.csv: line 52, column \"y\": \"far\" is not a number"));
  EXPECT_FALSE(fs::exists(at("wrong.csv")));
}

TEST_F(App, ExportsAndImports) {
  ASSERT_EQ(bp({"train", "net.toml"}).code, 0);
  for (const char* file : {"m.onnx", "m.safetensors", "m.npz"}) {
    const Outcome out = bp({"export", "runs/net", "-o", file});
    ASSERT_EQ(out.code, 0) << out.err;
    EXPECT_EQ(out.out, std::string(file) + " is written\n");
  }
  EXPECT_EQ(io::read_safetensors(at("m.safetensors")).metadata.at("bp.layout"), "pytorch");
  EXPECT_EQ(io::read_npz(at("m.npz")).size(), io::read_safetensors(at("m.safetensors")).tensors.size());
  const Outcome in = bp({"import", "m.onnx", "-o", "tuned"});
  ASSERT_EQ(in.code, 0) << in.err;
  EXPECT_THAT(in.out, HasSubstr("input       input  f32[?, 2]\n"));
  EXPECT_THAT(read(at("tuned/train.toml")),
              HasSubstr("input = [2]\nlayers = [{ type = \"onnx\", file = \"model.onnx\" }]"));

  // Without a step of training the model is the one that was exported.
  std::string toml = read(at("net.toml"));
  const auto from = toml.find("layers = ["), to = toml.find("]\n", from);
  toml.replace(from, to + 1 - from, "layers = [{ type = \"onnx\", file = \"tuned/model.onnx\" }]");
  write("tuned.toml", toml);
  const Outcome still = bp({"train", "tuned.toml", "--set", "optimizer.lr=0", "--set", "train.epochs=1"});
  ASSERT_EQ(still.code, 0) << still.err;
  EXPECT_EQ(bp({"eval", "runs/tuned"}).out, bp({"eval", "runs/net"}).out);
  EXPECT_EQ(bp({"export", "runs/net", "-o", "m.pt"}).code, 2);
  write("bad.onnx", "nothing of the kind");
  const Outcome bad = bp({"import", "bad.onnx"});
  EXPECT_EQ(bad.code, 5);
  EXPECT_THAT(bad.err, HasSubstr("bad.onnx: not an ONNX file, or damaged"));
}

TEST_F(App, TrainsOnTextAndWritesSome) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "abcdefgh";
  write("t.txt", text);
  write("gpt.toml", R"([data]
format = "text"
train = "missing.txt"
[model]
input = [4]
layers = [{ type = "gpt", vocabulary = "vocabulary", layers = 1, heads = 2, width = 16, hidden = 16 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "adam"
lr = 2e-2
[train]
epochs = 8
batch = 8
threads = 1
)");
  EXPECT_EQ(bp({"train", "gpt.toml"}).code, 4);
  const Outcome train = bp({"train", "gpt.toml", "--set", "data.train=t.txt"});
  ASSERT_EQ(train.code, 0) << train.err;
  const Outcome cold = bp({"sample", "runs/gpt", "--prompt", "abc", "--tokens", "9", "--temperature", "0"});
  EXPECT_EQ(cold.code, 0) << cold.err;
  EXPECT_EQ(cold.out, "abcdefghabcd\n");
  const std::vector<std::string> warm{"sample", "runs/gpt", "--tokens",      "30", "--top-k", "5",
                                      "--seed", "2",        "--temperature", "3"};
  EXPECT_EQ(bp(warm).out, bp(warm).out);
  EXPECT_EQ(bp({"sample", "runs/gpt", "--prompt", "z"}).code, 3);
  EXPECT_EQ(bp({"sample", "runs/gpt", "--temperature", "-1"}).code, 2);
}

// Shards of ids: the run tells what it streams; the same ids in one file train alike.
TEST_F(App, TrainsOnShardsOfTokens) {
  std::string ids;
  for (int i = 0; i < 300; ++i) ids += std::string(1, static_cast<char>(i % 8)) + std::string(1, '\0');
  write("all.bin", ids);
  fs::create_directory(at("shards"));
  write("shards/0.bin", ids.substr(0, 200));
  write("shards/1.bin", ids.substr(200));
  write("tokens.toml", R"([data]
format = "tokens"
train = "shards"
[model]
input = [4]
layers = [{ type = "gpt", vocabulary = 8, layers = 1, heads = 2, width = 16, hidden = 16 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "adam"
lr = 2e-2
[train]
epochs = 2
batch = 8
threads = 1
)");
  const Outcome train = bp({"train", "tokens.toml"});
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_THAT(train.err, HasSubstr("(2 shards, 270 tokens), blocks from random places"));
  const Outcome one = bp({"train", "tokens.toml", "--out", "runs/one", "--set", "data.train=all.bin"});
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(losses("runs/tokens"), losses("runs/one"));
  EXPECT_EQ(bp({"eval", "runs/tokens", "--data", "validation"}).out,
            bp({"eval", "runs/one", "--data", "validation"}).out);
  EXPECT_EQ(bp({"sample", "runs/tokens"}).code, 2);
  EXPECT_EQ(bp({"train", "tokens.toml", "--set", "data.ids=u8"}).code, 0);
  const Outcome wrong = bp({"train", "tokens.toml", "--set", "data.train=all.bin", "--set", "data.ids=u32"});
  EXPECT_NE(wrong.code, 0);
  EXPECT_THAT(wrong.err, HasSubstr("all.bin, id "));
}

TEST_F(App, RunsOfOneNameGetFoldersOfTheirOwnAndAgreeBitForBit) {
  ASSERT_EQ(bp({"train", "net.toml", "-q", "--set", "train.epochs=2"}).code, 0);
  const Outcome second = bp({"train", "net.toml", "-q", "--set", "train.epochs=2"});
  EXPECT_THAT(second.out, HasSubstr("runs/net-2"));
  EXPECT_EQ(second.err, "");
  EXPECT_EQ(losses("runs/net"), losses("runs/net-2"));
  EXPECT_EQ(read(at("runs/net/model.safetensors")), read(at("runs/net-2/model.safetensors")));
  // The effective configuration is a configuration.
  ASSERT_EQ(bp({"train", "runs/net/config.toml", "-q", "--out", "again", "--set", "train.tensorboard=false"}).code, 0);
  EXPECT_FALSE(fs::exists(at("again/events")));
  EXPECT_EQ(losses("runs/net"), losses("again"));
}

TEST_F(App, RunsAreListedComparedAndForgotten) {
  ASSERT_EQ(bp({"train", "net.toml", "-q", "--set", "train.epochs=2"}).code, 0);
  ASSERT_EQ(bp({"train", "net.toml", "-q", "--set", "train.epochs=3", "--set", "optimizer.lr=0.5"}).code, 0);
  EXPECT_EQ(bp({"train", "net.toml", "-q", "--set", "optimizer.type=sgd", "--set", "optimizer.lr=1e30"}).code, 6);
  const Outcome list = bp({"runs", "--sort", "-optimizer.lr", "--where", "epochs>0"});
  ASSERT_EQ(list.code, 0) << list.err;
  for (const char* part : {"finished", "2/2", "3/3", "best accuracy", "test loss"})
    EXPECT_THAT(list.out, HasSubstr(part));
  EXPECT_LT(list.out.find("net-2 "), list.out.find("net "));
  EXPECT_THAT(bp({"runs", "--where", "status=diverged"}).out, HasSubstr("net-3"));
  EXPECT_THAT(bp({"runs", "--json", "--limit", "1"}).out, HasSubstr("\"optimizer.lr\": \"0.02\""));
  const Outcome compare = bp({"runs", "compare", "net", "runs/net-2/", "--chart", "both.svg"});
  ASSERT_EQ(compare.code, 0) << compare.err;
  EXPECT_THAT(compare.out, HasSubstr("optimizer.lr"));
  EXPECT_EQ(compare.out.find("optimizer.type"), std::string::npos);
  EXPECT_THAT(read(at("both.svg")), HasSubstr("net-2, validation"));
  EXPECT_EQ(bp({"runs", "rm", "net-2"}).code, 0);
  EXPECT_EQ(bp({"runs"}).out.find("net-2"), std::string::npos);
  EXPECT_THAT(bp({"runs", "--scan"}).out, HasSubstr("net-2"));
  const Outcome wrong = bp({"runs", "compare", "net", "nett-2"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("did you mean \"net-2\""));
  EXPECT_EQ(bp({"runs", "--where", "epochs"}).code, 2);
  EXPECT_EQ(bp({"runs", "--in", "nowhere"}).code, 4);
  // A record that cannot be kept stops no training.
  fs::remove(at("runs/runs.sqlite"));
  fs::create_directory(at("runs/runs.sqlite"));
  const Outcome without = bp({"train", "net.toml", "-q", "--set", "train.epochs=1"});
  EXPECT_EQ(without.code, 0);
  EXPECT_THAT(without.err, HasSubstr("not in the list of runs"));
}

TEST_F(App, AnInterruptedRunGoesOnAsIfNothingHadHappened) {
  ASSERT_EQ(bp({"train", "net.toml", "--out", "whole", "--set", "train.epochs=80", "--set", "train.batch=2"}).code, 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    const std::string run = signal == SIGINT ? "int" : "term";
    const pid_t child =
        start({"train", "net.toml", "--out", run, "--set", "train.epochs=80", "--set", "train.batch=2"});
    // Signals it once a few epochs are on record.
    for (int i = 0; i < 2000 && (!fs::exists(at(run + "/history.csv")) || losses(run).size() < 4); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    kill(child, signal);
    const Outcome stopped = finish(child);
    ASSERT_EQ(stopped.code, 130) << stopped.err;
    EXPECT_THAT(stopped.err, HasSubstr("bp train --resume " + run));
    EXPECT_LT(losses(run).size(), 81u);
    const Outcome resumed = bp({"train", "--resume", run});
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(losses(run), losses("whole"));
    EXPECT_EQ(read(at(run + "/model.safetensors")).size(), read(at("whole/model.safetensors")).size());
    const io::SafeTensors a = io::read_safetensors(at(run + "/model.safetensors")),
                          b = io::read_safetensors(at("whole/model.safetensors"));
    for (const auto& [name, value] : a.tensors) {
      const Array* other = b.find(name);
      ASSERT_NE(other, nullptr) << name;
      EXPECT_EQ(std::memcmp(value.buffer.data(), other->buffer.data(), value.bytes()), 0) << name;
    }
  }
}

TEST_F(App, AFullDiskIsToldAndTheOlderCheckpointStays) {
  ASSERT_EQ(bp({"train", "net.toml", "--out", "run", "--set", "train.epochs=2"}).code, 0);
  const std::string newest = at("run/checkpoints/step-000000024.safetensors"), before = read(newest);
  ASSERT_GT(before.size(), 3000u);
  const Outcome full = finish(start({"train", "--resume", "run", "--set", "train.epochs=3"}, 3000));
  EXPECT_EQ(full.code, 0) << full.err;  // the model itself is smaller
  EXPECT_THAT(full.err, HasSubstr("could not be written"));
  EXPECT_EQ(read(newest), before);
  const Outcome later = bp({"train", "--resume", "run", "--set", "train.epochs=3"});
  EXPECT_EQ(later.code, 0) << later.err;
  EXPECT_EQ(losses("run").size(), 4u);
}

TEST_F(App, MistakesHaveExitCodes) {
  struct Case {
    std::vector<std::string> arguments;
    int code;
    const char* part;
  };
  write("nan.csv", "x,y,where\n1,nan,inside\n");
  write("labels.csv", "x,y,where\n1,2,middle\n");
  write("broken.toml", "[data\n");
  write("short", "\x1f\x8b");
  const std::vector<Case> cases{
      {{}, 2, "subcommand"},
      {{"trian", "net.toml"}, 2, "did you mean \"train\""},
      {{"train"}, 2, "FILE.toml"},
      {{"train", "net.toml", "--threads", "-3"}, 2, "threads"},
      {{"train", "none.toml"}, 4, "none.toml"},
      {{"train", "broken.toml"}, 2, "broken.toml:1"},
      {{"train", "net.toml", "--set", "optimizer.lr=-1"}, 2, "optimizer.lr"},
      {{"train", "net.toml", "--set", "optimizer.lr=nan"}, 2, "optimizer.lr"},
      {{"train", "net.toml", "--set", "optimizer.rate=1"}, 2, "did you mean"},
      {{"train", "net.toml", "--set", "train.batch=1000"}, 2, "1000"},
      {{"train", "net.toml", "--set", "data.train=none.csv"}, 4, "none.csv"},
      {{"train", "net.toml", "--set", "data.train=nan.csv"}, 5, "nan.csv"},
      {{"train", "net.toml", "--set", "data.test=labels.csv"}, 5, "middle"},
      {{"train", "net.toml", "--set", "data.train=short"}, 5, "short"},
      {{"train", "net.toml", "--set", "model.input=3"}, 3, "model.input"},
      {{"train", "net.toml", "--set", "optimizer.type=sgd", "--set", "optimizer.lr=1e30", "--out", "bad"},
       6,
       "Remedies"},
      {{"train", "--resume", "nowhere"}, 4, "config.toml"},
      {{"eval", "nowhere"}, 4, "config.toml"},
      {{"gradcheck", "none.toml"}, 4, "none.toml"},
  };
  for (const Case& c : cases) {
    const Outcome o = bp(c.arguments);
    EXPECT_EQ(o.code, c.code) << ::testing::PrintToString(c.arguments) << o.err;
    EXPECT_THAT(o.err + o.out, HasSubstr(c.part)) << ::testing::PrintToString(c.arguments);
  }
  EXPECT_FALSE(fs::exists(at("runs"))) << "a mistake left a folder behind";
}

TEST_F(App, ATruncatedModelIsRefusedAndATornCheckpointPassedOver) {
  ASSERT_EQ(bp({"train", "net.toml", "--out", "run", "-q", "--set", "train.epochs=2"}).code, 0);
  fs::resize_file(at("run/model.safetensors"), 100);
  EXPECT_EQ(bp({"eval", "run"}).code, 5);
  fs::resize_file(at("run/checkpoints/step-000000024.safetensors"), 100);
  const Outcome older = bp({"train", "--resume", "run"});
  EXPECT_EQ(older.code, 0) << older.err;
  EXPECT_THAT(older.err, HasSubstr("passed over"));
  for (const auto& file : fs::directory_iterator(at("run/checkpoints"))) fs::resize_file(file.path(), 100);
  const Outcome none = bp({"train", "--resume", "run"});
  EXPECT_EQ(none.code, 5);
  EXPECT_THAT(none.err, HasSubstr("run/checkpoints"));
}

// Killed before its first checkpoint, a run begins anew.
TEST_F(App, ARunWithoutCheckpointsBeginsAnew) {
  ASSERT_EQ(bp({"train", "net.toml", "--out", "run", "-q", "--set", "train.epochs=2"}).code, 0);
  const std::string model = read(at("run/model.safetensors"));
  for (const char* lost : {"checkpoints", "model.safetensors", "history.csv"})
    fs::remove_all(at("run/" + std::string(lost)));
  const Outcome again = bp({"train", "--resume", "run", "-q"});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(read(at("run/model.safetensors")), model);
}

TEST_F(App, AveragesLimitsAndRollbacksFromTheFile) {
  const Outcome o = bp({"train", "net.toml",           "--out", "run",
                        "--set", "train.accumulate=2", "--set", "train.ema=0.9",
                        "--set", "train.max_steps=20", "--set", "train.rollbacks=2",
                        "--set", "train.top_k=1",      "--set", "train.watch=f1",
                        "--set", "train.keep=best",    "--set", "train.keep_best_checkpoints=1"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("limit of steps"));
  EXPECT_THAT(o.out, HasSubstr("F1 "));
  EXPECT_THAT(read(at("run/history.csv")), HasSubstr("validation_top_k"));
  for (const auto& [set, part] :
       {std::pair{"train.watch=auc", "watch"}, std::pair{"train.swa_from=30", "train.swa_from"},
        std::pair{"train.ema=1", "train.ema"}}) {
    const Outcome wrong = bp({"train", "net.toml", "--out", "bad", "--set", set});
    EXPECT_THAT(wrong.code, ::testing::AnyOf(2, 3)) << wrong.err;
    EXPECT_THAT(wrong.err, HasSubstr(part));
  }
}

TEST_F(App, InspectsAndChecksGradients) {
  const Outcome inspect = bp({"inspect", "net.toml"});
  EXPECT_EQ(inspect.code, 0) << inspect.err;
  EXPECT_THAT(inspect.out, HasSubstr("linear(2 -> 16)"));
  EXPECT_THAT(inspect.out, HasSubstr("parameters       82"));
  EXPECT_THAT(inspect.out, HasSubstr("planned peak"));
  EXPECT_THAT(bp({"inspect", "net.toml", "--memory", "1MiB"}).out, HasSubstr("within 1048576 bytes"));
  const Outcome rate = bp({"find-rate", "net.toml", "--low", "1e-5", "--high", "10", "--chart", "rate.svg"});
  EXPECT_EQ(rate.code, 0) << rate.err;
  EXPECT_THAT(rate.out, HasSubstr("suggestion: --set optimizer.lr="));
  EXPECT_TRUE(fs::exists(at("rate.svg")));
  const Outcome check = bp({"gradcheck", "net.toml"});
  EXPECT_EQ(check.code, 0) << check.out << check.err;
  EXPECT_THAT(check.out, HasSubstr("3.bias"));
  EXPECT_EQ(check.out.find("WRONG"), std::string::npos);
}

TEST_F(App, ProfilesATrainingStep) {
  const Outcome profile = bp({"profile", "net.toml", "--steps", "3", "--threads", "1", "--trace", "step.json"});
  EXPECT_EQ(profile.code, 0) << profile.err;
  for (const char* part : {"bound by", "forward", "backward", "update", "limits", "step.json"})
    EXPECT_THAT(profile.out, HasSubstr(part));
  EXPECT_THAT(read(at("step.json")), HasSubstr("traceEvents"));
  EXPECT_FALSE(fs::exists(at("runs")));
  EXPECT_EQ(bp({"profile", "net.toml", "--steps", "0"}).code, 2);
  EXPECT_EQ(bp({"profile", "nothing.toml"}).code, 4);
}

// The bars among what a terminal was sent, in their order; not the lines of epochs.
std::vector<std::string> bars_in(const std::string& shown) {
  const std::string clear = "\r\033[K";
  std::vector<std::string> bars;
  for (std::size_t at = 0; (at = shown.find(clear + "epoch ", at)) != std::string::npos;) {
    at += clear.size();
    const std::size_t end = shown.find('\r', at);
    if (shown.compare(end, 2, "\r\n") != 0) bars.push_back(shown.substr(at, end - at));
  }
  return bars;
}

TEST_F(App, ATerminalGetsALiveBar) {
  const std::optional<std::string> terminal = shown_in({});
  if (!terminal) GTEST_SKIP() << "this system has no pseudo-terminals (/dev/pts)";
  const std::string& shown = *terminal;
  EXPECT_THAT(shown, HasSubstr("\r\033[Kepoch 1/12 ["));
  for (const char* what : {"loss ", "accuracy ", "samples/s", "left"}) EXPECT_THAT(shown, HasSubstr(what));
}

// Every bar fits in one line, whatever the width; the smallest still says which epoch.
TEST_F(App, BarsFitNarrowTerminals) {
  for (const unsigned short width : {20, 33, 60, 200}) {
    const std::optional<std::string> shown = shown_in({.width = width});
    if (!shown) GTEST_SKIP() << "this system has no pseudo-terminals (/dev/pts)";
    const std::vector<std::string> bars = bars_in(*shown);
    EXPECT_GE(bars.size(), 12u) << width;
    for (const std::string& bar : bars) {
      EXPECT_LT(bar.size(), width) << bar;
      EXPECT_EQ(bar.find("samples/s") != std::string::npos, width == 200) << bar;
    }
  }
}

// A terminal holds a few thousand characters that nobody has read; the last of so many epochs are drawn after that.
TEST_F(App, BarsFollowATerminalThatIsResized) {
  for (const auto& [before, after] : {std::pair{100, 40}, {40, 100}}) {
    const std::optional<std::string> shown = shown_in(
        {.width = static_cast<unsigned short>(before), .epochs = 150, .later = static_cast<unsigned short>(after)});
    if (!shown) GTEST_SKIP() << "this system has no pseudo-terminals (/dev/pts)";
    const std::vector<std::string> bars = bars_in(*shown);
    ASSERT_GE(bars.size(), 150u);
    EXPECT_EQ(bars.front().size() < 40, before == 40) << bars.front();
    for (std::size_t i = bars.size() - 10; i < bars.size(); ++i) {
      EXPECT_LT(static_cast<int>(bars[i].size()), after) << bars[i];
      EXPECT_EQ(bars[i].size() < 40, after == 40) << bars[i];
    }
  }
}

// Where the terminal does not know its width COLUMNS tells, and 80 where that is none; a known width counts more.
TEST_F(App, BarsTakeTheWidthOfColumns) {
  struct Case {
    unsigned short width;
    const char* columns;
    std::size_t below;
    bool speed;  // is shown: there is room
  };
  for (const Case& c : {Case{0, "30", 30, false},
                        {0, "200", 200, true},
                        {0, "wide", 80, false},
                        {0, "-5", 80, false},
                        {0, "99999999999999999999", 1000, true},
                        {200, "30", 200, true}}) {
    const std::optional<std::string> shown = shown_in({.width = c.width, .environment = {{"COLUMNS", c.columns}}});
    if (!shown) GTEST_SKIP() << "this system has no pseudo-terminals (/dev/pts)";
    const std::vector<std::string> bars = bars_in(*shown);
    ASSERT_FALSE(bars.empty()) << c.columns;
    for (const std::string& bar : bars) EXPECT_LT(bar.size(), c.below) << bar;
    const bool speed = bars.front().find("samples/s") != std::string::npos;
    EXPECT_TRUE(speed == c.speed || c.below == 80) << bars.front();  // in 80 columns it depends on the numbers
  }
}

// A terminal that cannot clear a line gets lines, and none gets colours: NO_COLOR has nothing to take away.
TEST_F(App, DumbTerminalsGetLinesAndNoneGetsColours) {
  const std::optional<std::string> dumb = shown_in({.width = 100, .environment = {{"TERM", "dumb"}}});
  if (!dumb) GTEST_SKIP() << "this system has no pseudo-terminals (/dev/pts)";
  EXPECT_EQ(dumb->find('\033'), std::string::npos);
  EXPECT_EQ(count_of(*dumb, "epoch "), 12);
  const std::optional<std::string> shown =
      shown_in({.width = 100, .environment = {{"TERM", "xterm-256color"}, {"NO_COLOR", "1"}}});
  EXPECT_FALSE(bars_in(*shown).empty());
  EXPECT_EQ(count_of(*shown, "\033"), count_of(*shown, "\r\033[K")) << "an escape that does more than clear the line";
}

std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  char part[4096];
  for (std::size_t n = 0; (n = fread(part, 1, sizeof part, pipe)) > 0;) out.append(part, n);
  pclose(pipe);
  return out;
}

TEST_F(App, TheReportOfARunIsOneSafePage) {
  std::string data = read(at("t.csv"));
  for (std::size_t i = 0; (i = data.find("outside", i)) != std::string::npos; i += 10) data.replace(i, 7, "<script>&'");
  write("t.csv", data);
  std::string net = kNet;
  net.erase(net.find("test = "), 18);
  write("net.toml", "name = \"<script>alert(1)<\\u002fscript>\"\n" + net);
  EXPECT_EQ(bp({"train", "net.toml", "-q"}).code, 2) << "a slash in a name";
  write("net.toml", "name = \"<script>alert(1)\"\n" + net);
  const Outcome train = bp({"train", "net.toml", "-q", "--out", "run"});
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_EQ(train.err, "");
  const std::string page = read(at("run/report.html"));
  EXPECT_EQ(page.find("<script"), std::string::npos);
  for (const char* part : {"&lt;script&gt;alert(1)", "&lt;script&gt;&amp;&#39;", "default-src 'none'", "precision",
                           "Worst examples", "gradient norm", "validation", "Environment", "dead units"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_EQ(page.find("A training step takes"), std::string::npos) << "a short run does not measure its step";
  for (const char* outside : {"src=\"http", "href=", "url("}) EXPECT_EQ(page.find(outside), std::string::npos);
  fs::remove(at("run/report.html"));
  EXPECT_EQ(bp({"report", "run"}).out, "run/report.html\n");
  const std::string measured = read(at("run/report.html"));
  for (const char* part : {"A training step takes", "<th>layer</th>", "<td>backward</td>", "of the machine's limit"})
    EXPECT_THAT(measured, HasSubstr(part));
  EXPECT_EQ(bp({"report", "nowhere"}).code, 4);
  if (output_of("command -v chromium").empty()) GTEST_SKIP() << "there is no chromium to open the page in";
  // Measured by a script that the page itself would refuse.
  std::string probed = measured;
  probed.erase(probed.find("<meta http-equiv"), probed.find("<meta name=") - probed.find("<meta http-equiv"));
  probed += "<script>document.title = `over ${document.documentElement.scrollWidth - innerWidth < 1}`</script>";
  write("probed.html", probed);
  for (const std::string width : {"360", "500", "1280"}) {
    const std::string chromium =
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --enable-logging=stderr "
        "--user-data-dir=" +
        at("profile") + " --window-size=" + width + ",900 --dump-dom file://";
    const std::string dom = output_of(chromium + at("run/report.html") + " 2>" + at("log"));
    EXPECT_THAT(dom, HasSubstr("</main>"));
    EXPECT_EQ(read(at("log")).find("CONSOLE"), std::string::npos) << read(at("log"));
    EXPECT_NE(output_of(chromium + at("probed.html") + " 2>/dev/null").find("<title>over true<"), std::string::npos)
        << "wider than " << width;
  }
}

// A training that fails leaves a page that says why, of what it had come to; `bp report` looks at its last checkpoint.
TEST_F(App, ARunThatDivergesHasAPage) {
  const Outcome bad =
      bp({"train", "net.toml", "-q", "--out", "bad", "--set", "optimizer.type=sgd", "--set", "optimizer.lr=1e30"});
  EXPECT_EQ(bad.code, 6) << bad.err;
  const std::string page = read(at("bad/report.html"));
  for (const char* part : {">diverged</span>", "Remedies", "No epoch was finished", "3.bias", "<td>–</td>"})
    EXPECT_THAT(page, HasSubstr(part));
  for (const char* part : {"Worst examples", "Confusion", ">nan<"})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  EXPECT_EQ(bp({"report", "bad"}).code, 0);

  ASSERT_EQ(bp({"train", "net.toml", "-q", "--out", "late", "--set", "train.epochs=2"}).code, 0);
  const Outcome late =
      bp({"train", "--resume", "late", "-q", "--set", "train.epochs=4", "--set", "train.max_loss=1e-9"});
  EXPECT_EQ(late.code, 6) << late.err;
  const std::string after = read(at("late/report.html"));
  EXPECT_THAT(after, HasSubstr("<b>2 of 4</b>"));
  EXPECT_THAT(after, HasSubstr("paused, resumed once"));
  fs::remove(at("late/model.safetensors"));
  EXPECT_EQ(bp({"report", "late"}).code, 0);
  EXPECT_THAT(read(at("late/report.html")), HasSubstr("Worst examples"));
}

TEST_F(App, CuresAreMeasuredAndWritten) {
  const Outcome cures = bp({"cures", "--only", "saddle,minimum", "--seeds", "1", "--quick", "--out", "page"});
  EXPECT_EQ(cures.code, 0) << cures.out << cures.err;
  for (const char* part : {"Saddles", "plain descent", "fails", "mended"}) EXPECT_THAT(cures.out, HasSubstr(part));
  EXPECT_THAT(read(at("page/cures.md")), HasSubstr("cures_saddle.svg"));
  EXPECT_THAT(read(at("page/cures_saddle.svg")), HasSubstr("</svg>"));
  const Outcome wrong = bp({"cures", "--only", "sadle"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("saddle"));
  EXPECT_EQ(bp({"cures", "--only", "logits", "--data", "nowhere"}).code, 4);
}

TEST_F(App, HelpTellsItAll) {
  const Outcome help = bp({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* part : {"train", "eval", "predict", "inspect", "gradcheck", "profile", "cures", "runs", "tune",
                           "Exit codes", "Ctrl-C", "Examples"})
    EXPECT_THAT(help.out, HasSubstr(part));
}

}  // namespace
}  // namespace bp::app_test

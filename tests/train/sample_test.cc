// A GPT described by a configuration learns a text by heart and writes it; runs on other data refuse.
#include "train/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "bp/error.h"
#include "train/experiment.h"

namespace bp::train {
namespace {

using ::testing::HasSubstr;

class Sampling : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = (std::filesystem::path(::testing::TempDir()) / ("bp_sample_test." + std::to_string(getpid()))).string();
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Config config(const std::string& text, const std::string& layer, const std::string& data = "") const {
    std::ofstream(folder_ + "/t.txt") << text;
    return parse_config(parse_toml("[data]\nformat = \"text\"\ntrain = \"t.txt\"\nvalidation_fraction = 0.2\nblocks = "
                                   "256\n" +
                                       data + "[model]\ninput = [8]\nlayers = [{ type = \"gpt\", " + layer +
                                       " }]\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\ntype = \"adamw\"\nlr = "
                                       "1e-2\n[train]\nepochs = 3\nbatch = 16\nthreads = 1\n",
                                   "net.toml"),
                        folder_, "net");
  }
  std::string folder_;
};

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "nothing was thrown";
}

TEST_F(Sampling, AGptLearnsATextByHeartAndWritesIt) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "to be, or not\n";
  for (const char* more : {"", ", positions = \"rotary\", key_heads = 1, tie = false, activation = \"silu\""}) {
    const Config c =
        config(text, std::string("vocabulary = \"vocabulary\", layers = 1, heads = 2, width = 32, hidden = 32") + more);
    const Report r = train_run(c, folder_ + "/run", {});
    EXPECT_LT(r.result.history.back().validation->loss, 0.5);
    Config again = read_run(r.folder);
    EXPECT_NEAR(evaluate_run(again, r.folder, Split::validation).loss, r.result.history.back().validation->loss, 1e-6);
    const nn::Sequential model = load_model(again, r.folder);
    SampleOptions o{.prompt = "to be, o", .tokens = 40, .temperature = 0};
    EXPECT_EQ(sample_text(again, model, o), text.substr(0, 48));
    std::string pieces;
    o.on_text = [&](std::string_view piece) { return (pieces += piece).size() < 5; };
    sample_text(again, model, o);
    EXPECT_EQ(pieces, "r not");
    EXPECT_EQ(sample_text(again, model, {.prompt = {}, .tokens = 0}), "\n");
    EXPECT_THAT(message_of([&] { sample_text(again, model, {.prompt = "x"}); }), HasSubstr("the prompt"));
    // As any other model: read again for each symbol.
    nn::Sequential wrapped;
    wrapped.add(nn::Identity{});
    wrapped.push("", model[0].clone());
    EXPECT_EQ(sample_text(again, wrapped, {.prompt = "to", .tokens = 6, .temperature = 0}), "to be, o");
  }
}

TEST_F(Sampling, BytesAndMistakes) {
  const Config c =
      config("\xff\xfe\xfd 12345678 90123", "vocabulary = 256, layers = 1, heads = 1, width = 4", "unit = \"byte\"\n");
  const std::string written = sample_text(c, c.make_model(), {.prompt = {}, .tokens = 5});
  EXPECT_EQ(written.size(), 6u);
  EXPECT_EQ(written[0], '\n');
  EXPECT_THAT(message_of([&] { config("abcdefghijklm", "vocabulary = 5"); }), HasSubstr("vocabulary"));
  EXPECT_THAT(message_of([&] { config("abcdefghijklm", "vocabulary = \"vocabulary\", heads = 3"); }),
              HasSubstr("heads: expected a divisor of the width 128, got 3"));
  Config other;
  other.data.format = "csv";
  EXPECT_THAT(message_of([&] { sample_text(other, {}, {}); }), HasSubstr("expected a run on text"));
}

}  // namespace
}  // namespace bp::train

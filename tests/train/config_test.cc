// Configuration files: what they become, and what each mistake is told.
#include <cstring>
#include <set>

#include "bp/error.h"
#include "bp/ops.h"
#include "config_fixture.h"
#include "train/config_keys.h"

namespace bp::train_test {
namespace {

TEST(Config, InfersSizesAndFillsInDefaults) {
  const Config c = parse(kGood);
  EXPECT_EQ(c.output, (Shape{5}));
  EXPECT_EQ(nn::parameter_count(c.model), 3 * 9 * 4 + 4 + 8 * 8 * 4 * 5 + 5);
  EXPECT_EQ(c.task, Task::classification);
  EXPECT_EQ(c.data.train.inputs, "/data/x.npy");
  EXPECT_EQ(c.batch, 32);
  EXPECT_FALSE(c.schedule);
  EXPECT_EQ(c.root.find("train")->find("epochs")->integer, 10);
}

TEST(Config, TheEffectiveConfigurationReadsAsTheSame) {
  const Config first = parse(kGood, {"optimizer.lr=0.30000000000000004", "name=a b\"c"});
  const std::string text = to_toml(first.root);
  const Config second = parse(text);
  EXPECT_EQ(to_toml(second.root), text);
  EXPECT_EQ(second.lr, 0.30000000000000004);
  EXPECT_EQ(second.name, "a b\"c");
}

// Those of text read their file for its symbols, which may not be there.
TEST(Config, TheExamplesAreRight) {
  int read = 0;
  for (const auto& file : std::filesystem::directory_iterator(std::string(BP_TEST_DATA) + "/../../examples")) {
    if (file.path().extension() != ".toml") continue;
    try {
      (void)read_config(file.path().string());
      ++read;
    } catch (const Error& e) { EXPECT_EQ(e.kind(), ErrorKind::io) << e.what(); }
  }
  EXPECT_GE(read, 2);
}

TEST(Config, OverridesReachEveryPlace) {
  const Config c = parse(kGood, {"model.layers.3.units=7", "train.epochs=3", "optimizer.type=adam", "seed=1",
                                 "schedule.type=cosine", "data.mean=[0.1, 0.2, 0.3]"});
  EXPECT_EQ(c.output, (Shape{7}));
  EXPECT_EQ(c.train.epochs, 3);
  EXPECT_EQ(c.seed, 1u);
  EXPECT_EQ(c.data.mean.size(), 3u);
  ASSERT_TRUE(c.schedule);
  EXPECT_DOUBLE_EQ(c.schedule(100)(0), 0.1);
  EXPECT_NEAR(c.schedule(100)(300), 0, 1e-12);
}

TEST(Config, EveryLayerLossOptimizerAndScheduleCanBeMade) {
  const std::vector<std::string> layers{
      "type = \"conv2d\", filters = 3, kernel = [3, 1], stride = 1, padding = [1, 0], dilation = 1, groups = 3",
      "type = \"max_pool\", size = 3, stride = 1, padding = 1",
      "type = \"avg_pool\", size = 1, count_include_pad = false",
      "type = \"dropout\", rate = 0.2",
      "type = \"batch_norm\"",
      "type = \"layer_norm\", eps = 1e-6",
      "type = \"residual\", layers = [{ type = \"conv2d\", filters = 3, kernel = 1 }], shortcut = [{ type = "
      "\"identity\" }]",
      "type = \"identity\"",
      "type = \"tanh\"",
      "type = \"sigmoid\"",
      "type = \"silu\"",
      "type = \"softplus\"",
      "type = \"gelu\", approximate = true",
      "type = \"leaky_relu\", slope = 0.2",
      "type = \"elu\"",
      "type = \"softmax\"",
      "type = \"conv2d\", filters = 3, kernel = 1, normalize = \"weight\"",
      "type = \"conv_transpose2d\", filters = 6, kernel = 3, stride = 2, padding = 1, output_padding = 1, groups = 3, "
      "normalize = \"spectral\"",
      "type = \"adaptive_max_pool\", sizes = [3, 5]",
      "type = \"adaptive_avg_pool\", sizes = 3",
      "type = \"spatial_dropout\"",
      "type = \"alpha_dropout\", rate = 0.1",
      "type = \"drop_path\"",
      "type = \"batch_norm\", cumulative = true",
      "type = \"group_norm\", groups = 3",
      "type = \"instance_norm\", track = true",
      "type = \"rms_norm\"",
      "type = \"prelu\", shared = false",
      "type = \"celu\"",
      "type = \"selu\"",
      "type = \"mish\"",
      "type = \"softsign\"",
      "type = \"log_sigmoid\"",
      "type = \"relu6\"",
      "type = \"hard_tanh\", high = 2",
      "type = \"hard_sigmoid\"",
      "type = \"hard_swish\"",
      "type = \"hard_shrink\"",
      "type = \"soft_shrink\", lambda = 0.1",
      "type = \"tanh_shrink\"",
      "type = \"log_softmax\"",
      "type = \"conv2d\", filters = 4, kernel = 1 }, { type = \"glu\"",
      "type = \"conv2d\", filters = 4, kernel = 1 }, { type = \"geglu\"",
      "type = \"conv2d\", filters = 4, kernel = 1 }, { type = \"swiglu\"",
      "type = \"conv2d\", filters = 4, kernel = 1 }, { type = \"reglu\""};
  for (const std::string& layer : layers) {
    const Config c =
        parse(replaced(kGood, "type = \"relu\" }",
                       "type = \"relu\" }, { type = \"conv2d\", filters = 3, kernel = 1 }, { " + layer + " }"));
    EXPECT_EQ(c.output, (Shape{5})) << layer;
    EXPECT_EQ(c.make_model()(zeros({2, 8, 8, 3})).shape(), (Shape{2, 5})) << layer;
  }
  for (const char* type : {"rnn", "gru", "lstm"}) {
    std::string text = replaced(kGood, "input = [8, 8, 3]", "input = [8, 3]");
    text =
        replaced(text, "{ type = \"conv2d\", filters = 4, kernel = 3, padding = \"same\" }",
                 std::string("{ type = \"") + type + "\", units = 4, layers = 2, bidirectional = true }, { type = \"" +
                     type + "\", units = 3, output = \"last\", bias = false, segment = 2 }");
    EXPECT_EQ(parse(text).make_model()(zeros({2, 8, 3})).shape(), (Shape{2, 5})) << type;
  }
  std::string tried = std::string(kGood) +
                      "\"conv1d\" \"conv3d\" \"global_avg_pool\" \"global_max_pool\" "
                      "\"conv_transpose1d\" \"conv_transpose3d\" \"embedding\" \"rnn\" \"gru\" \"lstm\" \"gpt\" "
                      "\"onnx\"";  // gpt: sample_test.cc, onnx: app_test.cc
  for (const std::string& layer : layers) tried += layer;
  for (const std::string& type : types_of("layer")) EXPECT_THAT(tried, HasSubstr("\"" + type + "\""));
  for (const char* type : {"1d", "3d"}) {
    std::string text = replaced(kGood, "conv2d", std::string("conv") + type);
    text = replaced(text, "[8, 8, 3]", type[0] == '1' ? "[8, 3]" : "[4, 4, 4, 1]");
    EXPECT_EQ(parse(text).output, (Shape{5}));
    text = replaced(replaced(text, "padding = \"same\"", "padding = 1"), "\"conv", "\"conv_transpose");
    EXPECT_EQ(parse(text).output, (Shape{5}));
  }
  const std::string ids =
      replaced(replaced(kGood, "[8, 8, 3]", "[6]"), "type = \"conv2d\", filters = 4, kernel = 3, padding = \"same\"",
               "type = \"embedding\", ids = 9, units = 4, padding = 0");
  EXPECT_EQ(nn::parameter_count(parse(ids).model), 9 * 4 + 6 * 4 * 5 + 5);
  for (const char* pool : {"global_avg_pool", "global_max_pool"})
    EXPECT_EQ(parse(replaced(kGood, "type = \"flatten\"", "type = \"" + std::string(pool) + "\"")).output, (Shape{5}));
  for (const std::string& loss : types_of("loss")) EXPECT_TRUE(parse(kGood, {"loss.type=" + loss}).loss) << loss;
  for (const std::string& type : types_of("optimizer")) {
    const Config c = parse(replaced(kGood, "lr = 0.1\n", ""), {"optimizer.type=" + type});
    EXPECT_NE(c.optimizer(nn::parameters(c.make_model())), nullptr);
  }
  for (const std::string& type : types_of("schedule")) {
    std::vector<std::string> set{"schedule.type=" + type};
    if (type == "step") set.push_back("schedule.every=3");
    if (type == "multistep") set.push_back("schedule.milestones=[3, 5]");
    if (type == "exponential") set.push_back("schedule.gamma=0.9");
    const Config c = parse(kGood, set);
    const Schedule schedule = c.schedule ? c.schedule(10) : schedule::constant(1);
    EXPECT_GT(schedule(1), 0) << type;
    EXPECT_EQ(c.plateau.has_value(), type == "reduce_on_plateau");
  }
}

struct BadLine {
  const char* from;  // replaced in kGood
  const char* to;
  std::vector<std::string> parts;  // of the message
};

TEST(Config, MistakesAreExplained) {
  const std::vector<BadLine> mistakes{
      {"lr = 0.1", "lrr = 0.1", {"net.toml:22", "unknown key \"optimizer.lrr\"", "did you mean \"lr\""}},
      {"lr = 0.1", "lr = -0.1", {"net.toml:22", "optimizer.lr", "a number >= 0", "-0.1"}},
      {"lr = 0.1", "lr = nan", {"net.toml:22", "optimizer.lr", "a number >= 0", "nan"}},
      {"lr = 0.1", "lr = inf", {"optimizer.lr", "inf"}},
      {"lr = 0.1", "lr = \"fast\"", {"optimizer.lr", "a number", "\"fast\""}},
      {"lr = 0.1", "lr = 1979-05-27", {"optimizer.lr", "a date"}},
      {"lr = 0.1", "lr = 0.1\nmomentum = 1.5", {"optimizer.momentum", "in [0, 1)", "1.5"}},
      {"lr = 0.1", "lr = 0.1\nnesterov = true", {"optimizer.nesterov", "momentum above 0"}},
      {"lr = 0.1", "lr = 0.1\nlr = 0.2", {"net.toml:23", "not TOML"}},
      {"type = \"sgd\"", "type = \"adma\"", {"net.toml:21", "there is no \"adma\"", "did you mean \"adam\""}},
      {"type = \"sgd\"", "", {"optimizer", "\"type\" is missing", "sgd, rmsprop"}},
      {"[optimizer]", "[optimiser]", {"unknown key \"optimiser\"", "did you mean \"optimizer\""}},
      {"seed = 7", "seed = -1", {"net.toml:2", "seed", "an integer >= 0", "-1"}},
      {"seed = 7", "seed = 1.5", {"seed", "an integer", "1.5"}},
      {"seed = 7", "dtype = \"f16\"", {"dtype", "one of \"f32\", \"f64\"", "f16"}},
      {"seed = 7", "train = 3", {"net.toml:2", "train: expected a table", "3"}},
      {"\"net\"", "\"../net\"", {"name", "the name of a folder"}},
      {"\"net\"", "\"a/../../net\"", {"name", "the name of a folder"}},
      {"\"net\"", "\"/tmp/net\"", {"name", "the name of a folder"}},
      {"\"net\"", "\"..\"", {"name", "the name of a folder"}},
      {"format = \"npy\"", "format = \"png\"", {"data.format", "there is no \"png\"", "idx, csv, npy"}},
      {"train = { inputs = \"x.npy\", targets = \"y.npy\" }", "", {"data", "\"train\" is missing"}},
      {"{ inputs = \"x.npy\", targets = \"y.npy\" }", "\"x.npy\"", {"data.train", "{ inputs = path"}},
      {"targets = ", "target = ", {"data.train", "unknown key \"target\""}},
      {"[model]", "classes = [\"a\", \"b\"]\n[model]", {"data.classes", "2 names", "5 outputs"}},
      {"[model]", "mean = [1.0, 2.0]\n[model]", {"data.mean", "1 or 3 numbers"}},
      {"[model]", "std = 0\n[model]", {"data.std", "> 0"}},
      {"[model]", "validation_fraction = 1.0\n[model]", {"data.validation_fraction", "[0, 1)"}},
      {"[8, 8, 3]", "[8, 0, 3]", {"net.toml:9", "model.input", ">= 1", "[8, 0, 3]"}},
      {"[8, 8, 3]", "[192]", {"net.toml:11", "model.layers[0]", "[conv2d]", "expected input"}},
      {"[8, 8, 3]", "[]", {"model.input"}},
      {"filters = 4", "filter = 4", {"net.toml:11", "model.layers[0].filter", "did you mean \"filters\""}},
      {"filters = 4, ", "", {"model.layers[0]", "\"filters\" is missing", "an integer >= 1"}},
      {"kernel = 3", "kernel = 30, stride = [1, 1, 1]", {"model.layers[0]", "expected 1 or 2 sizes"}},
      {"padding = \"same\"", "padding = \"full\"", {"model.layers[0].padding", "\"same\"", "full"}},
      {"padding = \"same\"", "init = \"he_norml\"", {"net.toml:11", "model.layers[0]", "he_normal"}},
      {"type = \"relu\"", "type = \"rellu\"", {"net.toml:12", "model.layers[1].type", "did you mean \"relu\""}},
      {"type = \"relu\"", "type = \"dropout\", rate = 1.0", {"model.layers[1].rate", "[0, 1)"}},
      {"type = \"relu\"",
       "type = \"residual\", layers = [{ type = \"linear\", units = 9 }]",
       {"net.toml:12", "residual", "[1, 8, 8, 9]"}},
      {"units = 5", "units = 1", {"loss.type", "2 or more classes"}},
      {"[loss]\ntype = \"cross_entropy\"",
       "[loss]\ntype = \"cross_entropy\"\nclass_weights = [1, 2]",
       {"loss.class_weights", "5 numbers", "2"}},
      {"[optimizer]", "[schedule]\ntype = \"step\"\n[optimizer]", {"schedule", "\"every\" is missing"}},
      {"[optimizer]",
       "[schedule]\ntype = \"multistep\"\nmilestones = [5, 3]\n[optimizer]",
       {"schedule.milestones", "ascending", "[5, 3]"}},
      {"[optimizer]", "[train]\nepochs = 0\n[optimizer]", {"train.epochs", ">= 1", "0"}},
      {"[optimizer]", "[train]\nprecision = \"f16\"\n[optimizer]", {"train.precision", "\"f32\", \"bf16\"", "f16"}},
      {"seed = 7", "seed = 7\ndtype = \"f64\"\ntrain.precision = \"bf16\"", {"train.precision", "dtype is f64"}},
      {"[optimizer]",
       "[train]\nmemory_budget = \"5 TB\"\n[optimizer]",
       {"train.memory_budget", "a number of bytes", "512 MiB", "5 TB"}},
      {"[optimizer]", "[train]\nmemory_budget = -1\n[optimizer]", {"train.memory_budget", "a number of bytes", "-1"}},
      {"seed = 7", "seed = ", {"net.toml:2", "not TOML"}},
  };
  for (const BadLine& m : mistakes) {
    const std::string text = replaced(kGood, m.from, m.to);
    const std::string message = message_of([&] { parse(text); }, ErrorKind::config);
    for (const std::string& part : m.parts) EXPECT_THAT(message, HasSubstr(part)) << m.to;
  }
}

TEST(Config, MemoryIsGivenInBytesOrWithAUnit) {
  EXPECT_EQ(parse(kGood).train.memory_budget, 0u);
  const auto budget = [](const std::string& text) {
    return parse(kGood, {"train.memory_budget=" + text}).train.memory_budget;
  };
  EXPECT_EQ(budget("1000000"), 1000000u);
  EXPECT_EQ(budget("\"512 MiB\""), std::size_t{512} << 20);
  EXPECT_EQ(budget("\"1.5GB\""), 1500000000u);
  EXPECT_EQ(budget("\"64 KiB\""), 65536u);
  for (const char* wrong : {"1.5", "\"MiB\"", "\"2 MiBs\"", "\"-1 MB\"", "\"nan GB\"", "\"1e30 GB\"", "true"})
    EXPECT_THROW(budget(wrong), Error) << wrong;
}

TEST(Config, MistakesOnTheCommandLineAreExplained) {
  for (const auto& [set, part] : {std::pair("optimizer.lr", "expected KEY=VALUE"), std::pair("=3", "KEY=VALUE"),
                                  std::pair("optimizer.lr=-1", "--set optimizer.lr: optimizer.lr: expected a number"),
                                  std::pair("model.layers.9.units=3", "not a position in a list of 4"),
                                  std::pair("seed.x=1", "below a value"), std::pair("a..b=1", "empty")})
    EXPECT_THAT(message_of([&] { parse(kGood, {set}); }, ErrorKind::config), HasSubstr(part));
}

TEST(Config, FilesThatAreNotThere) {
  EXPECT_THAT(message_of([] { read_config("/nowhere/net.toml"); }, ErrorKind::io), HasSubstr("/nowhere/net.toml"));
  Config c = parse(kGood);
  EXPECT_THAT(message_of([&] { load_datasets(c); }, ErrorKind::io), HasSubstr("/data/x.npy"));
}

TEST(Config, TheReferenceIsUpToDate) {
  std::ifstream file(std::string(BP_TEST_DATA) + "/../../docs/config.md");
  const std::string written((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(written, config_reference()) << "run: build/bp keys > docs/config.md";
}

TEST(Config, DefaultsObeyTheirOwnRules) {
  for (const KeyRule& k : keys()) {
    if (k.fallback == kRequired || k.fallback == kAbsent) continue;
    const std::string type(k.types.substr(0, k.types.find(' ')));
    Node table;
    if (!types_of(k.group).empty())
      table.set(k.group == "data" ? "format" : "type", Node::of(type.empty() ? types_of(k.group)[0] : type));
    Section s(table, "test", k.group);
    EXPECT_NE(s.value(k.key), nullptr) << k.key;
  }
}

}  // namespace
}  // namespace bp::train_test

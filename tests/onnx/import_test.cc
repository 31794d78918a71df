// onnx::Model: what is a parameter, training on, modes, refusals. Operators are asked of onnx's own node tests by
// tests/oracles/onnx_import.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "bp/bp.h"
#include "message_of.h"
#include "onnx/proto.h"

namespace bp::onnx {
namespace {

using proto::Attribute;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OnnxImport : public ::testing::Test {
 protected:
  OnnxImport() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = (std::filesystem::temp_directory_path() / ("bp_" + std::string(test->name()) + ".onnx")).string();
  }
  ~OnnxImport() override { std::filesystem::remove(path_); }

  // x [N, 3] -> y, by these nodes.
  Model model_of(std::vector<proto::Node> nodes, std::vector<std::pair<std::string, Array>> initializers,
                 std::vector<proto::Dim> input = {{-1, "N"}, {3, ""}}) {
    proto::Model m;
    m.ir_version = 8;
    m.opsets[""] = 17;
    m.graph.nodes = std::move(nodes);
    m.graph.initializers = std::move(initializers);
    m.graph.inputs = {{"x", 1, !input.empty(), input}};
    m.graph.outputs = {{"y", 1, false, {}}};
    proto::write_model(path_, m);
    return Model(path_);
  }
  std::string path_;
};

Array floats(const std::vector<float>& v, const Shape& s) { return Array::from(v, s); }

std::vector<std::string> names(const Model& m, bool trainable) {
  std::vector<std::string> out;
  for (const auto& s : nn::state(m))
    if (s.variable.trainable() == trainable) out.push_back(s.name);
  return out;
}

struct Perceptron {
  nn::Linear hidden{3, 8}, head{8, 2};
  Tensor operator()(const Tensor& x) const { return head(tanh(hidden(x))); }
  BP_FIELDS(Perceptron, hidden, head)
};

TEST_F(OnnxImport, WhatWasExportedComesBackAndTrainsOn) {
  Perceptron net;
  nn::init(net, Key{1});
  export_onnx(path_, net, {{f32, {1, 3}}});
  Model model(path_);
  EXPECT_THAT(names(model, true),
              testing::UnorderedElementsAre("hidden.weight", "hidden.bias", "head.weight", "head.bias"));
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, -1, 0, 0.5f}, {2, 3}), t = ones({2, 2});
  EXPECT_EQ(model(x).to_vector<float>(), net(x).to_vector<float>());
  EXPECT_EQ(model.output_shape({5, 3}), (Shape{5, 2}));
  optim::SGD ours(net, {.lr = 0.1}), theirs(model, {.lr = 0.1});
  const auto train = [&](auto& m, optim::SGD& opt) {
    return compile(
        [&](Tensor in, Tensor target) {
          const Tensor loss = squared_error(m(in), target);
          opt.update(grad(loss, m));
          return loss;
        },
        {.mode = Mode::train});
  };
  auto a = train(net, ours);
  auto b = train(model, theirs);
  double loss = 0;
  for (int i = 0; i < 5; ++i) {
    loss = b(x, t).item();
    EXPECT_NEAR(a(x, t).item(), loss, 1e-6);
  }
  EXPECT_LT(b(x, t).item(), loss);
  Model copy = model;  // deep
  const std::string saved = path_ + ".safetensors";
  save_state(saved, model);
  b(x, t);
  EXPECT_NE(copy(x).to_vector<float>(), model(x).to_vector<float>());
  load_state(saved, model);
  std::filesystem::remove(saved);
  EXPECT_EQ(copy(x).to_vector<float>(), model(x).to_vector<float>());
}

TEST_F(OnnxImport, ShapesThatConstantsMakeAreFoldedWhileTracing) {
  // y = Reshape(x, Concat(Shape(x)[0:1], [1, 3])) * w
  const Model model = model_of({{"Shape", "s", "", {"x"}, {"s"}, {Attribute::of("end", std::int64_t{1})}},
                                {"Concat", "c", "", {"s", "rest"}, {"c"}, {Attribute::of("axis", std::int64_t{0})}},
                                {"Reshape", "r", "", {"x", "c"}, {"r"}, {}},
                                {"Mul", "m", "", {"r", "w"}, {"y"}, {}}},
                               {{"rest", Array::from(std::vector<std::int64_t>{1, 3}, {2})}, {"w", floats({2}, {1})}});
  auto step = compile([&](Tensor x) { return model(x); });
  EXPECT_EQ(step(ones({4, 3})).shape(), (Shape{4, 1, 3}));
  EXPECT_EQ(step(ones({2, 3})).to_vector<float>(), std::vector<float>(6, 2.0f));
}

TEST_F(OnnxImport, TrainModeDrawsAndKeepsStatistics) {
  const Model model = model_of({{"BatchNormalization", "bn", "", {"x", "g", "b", "m", "v"}, {"n"}, {}},
                                {"Dropout", "drop", "", {"n"}, {"y"}, {}}},
                               {{"g", floats({1, 1, 1}, {3})},
                                {"b", floats({0, 0, 0}, {3})},
                                {"m", floats({0, 0, 0}, {3})},
                                {"v", floats({1, 1, 1}, {3})}});
  EXPECT_THAT(names(model, true), ElementsAre("g", "b"));
  EXPECT_THAT(names(model, false), ElementsAre("m", "v", "random_state"));
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 3, 2, 1}, {2, 3});
  auto train = compile([&](Tensor in) { return model(in); }, {.mode = Mode::train});
  std::vector<std::vector<float>> draws;
  for (int i = 0; i < 8; ++i) draws.push_back(train(x).to_vector<float>());
  EXPECT_NE(draws[0], draws[1]);
  EXPECT_NEAR(nn::state(model)[2].variable.get().to_vector<float>()[0], 2 * (1 - std::pow(0.9, 8)), 1e-5);
  EXPECT_NEAR(model(x).to_vector<float>()[1], (2 - 2 * (1 - std::pow(0.9, 8))) / std::sqrt(std::pow(0.9, 8) + 1e-5),
              1e-4);
}

// A Dropout that was exported for training draws in train mode only.
TEST_F(OnnxImport, RefusesRandomNumbersWhereAModelIsEvaluated) {
  const Model model =
      model_of({{"Dropout", "drop", "", {"x", "ratio", "training"}, {"y"}, {}}},
               {{"ratio", floats({0.5}, {})}, {"training", Array::from(std::array<bool, 1>{true}, {})}});
  const Tensor x = ones({4, 3});
  EXPECT_THAT(error_of([&] { model(x); }), HasSubstr("[onnx] Dropout \"drop\": training_mode asks for random numbers"));
  const ModeScope mode(Mode::train);
  EXPECT_THAT(model(x).to_vector<float>(), Each(AnyOf(0.0f, 2.0f)));
}

TEST_F(OnnxImport, RefusesSizesThatTakeMemoryBeforeAnythingIsComputed) {
  const auto pads = [](std::int64_t n) { return Array::from(std::vector<std::int64_t>{0, n, 0, 0}, {4}); };
  for (const std::int64_t n : {std::int64_t{1} << 33, INT64_MIN}) {
    const Model model = model_of({{"Pad", "pad", "", {"x", "p"}, {"y"}, {Attribute::of("mode", std::string("edge"))}}},
                                 {{"p", pads(n)}});
    EXPECT_THAT(error_of([&] { model(ones({1, 3})); }), HasSubstr("[onnx] Pad \"pad\": pads of "));
  }
  const Model model = model_of({{"Resize", "up", "", {"x", "", "", "s"}, {"y"}, {}}},
                               {{"s", Array::from(std::vector<std::int64_t>{1 << 24, 3}, {2})}});
  EXPECT_THAT(error_of([&] { model(ones({100, 3})); }), HasSubstr("[onnx] Resize \"up\": a size of 16777216 from 100"));
}

// A hundred times 30,000: each by itself would do.
TEST_F(OnnxImport, RefusesLoopsWithinLoopsThatWouldNotEnd) {
  const auto loop = [](const char* times, proto::Node inner) {
    proto::Graph body;
    body.nodes = {std::move(inner)};
    body.inputs = {{"i", 7, true, {}}, {"go", 9, true, {}}, {"c", 1, false, {}}};
    body.outputs = {{"go", 9, true, {}}, {"d", 1, false, {}}};
    return proto::Node{"Loop",           times, "",
                       {times, "", "c"}, {"d"}, {Attribute::of("body", std::make_shared<proto::Graph>(body))}};
  };
  proto::Node outer = loop("hundred", loop("many", {"Neg", "neg", "", {"c"}, {"d"}, {}}));
  outer.inputs[2] = "x";
  outer.outputs[0] = "y";
  const Model model = model_of({outer}, {{"hundred", Array::from(std::vector<std::int64_t>{100}, {})},
                                         {"many", Array::from(std::vector<std::int64_t>{30000}, {})}});
  EXPECT_THAT(error_of([&] {
                model(ones({1, 3}));
              }),
              HasSubstr("[onnx] Loop \"many\": loops of more than 65536 operations in all are not unrolled"));
}

TEST_F(OnnxImport, RefusesAScanWhoseGraphGivesNoCarryBack) {
  proto::Graph body;
  body.inputs = {{"c", 1, false, {}}, {"s", 1, false, {}}};
  const Model model = model_of({{"Scan",
                                 "scan",
                                 "",
                                 {"z", "x"},
                                 {"y"},
                                 {Attribute::of("body", std::make_shared<proto::Graph>(body)),
                                  Attribute::of("num_scan_inputs", std::int64_t{1})}}},
                               {{"z", floats({1, 1, 1}, {3})}});
  EXPECT_THAT(error_of([&] {
                model(ones({2, 3}));
              }),
              HasSubstr("[onnx] Scan \"scan\": its graph has fewer outputs than carries"));
}

TEST_F(OnnxImport, RefusesByName) {
  EXPECT_THAT(error_of([&] {
                model_of({{"NonMaxSuppression", "nms", "", {"x"}, {"a"}, {}},
                          {"Attention", "", "com.microsoft", {"a"}, {"y"}, {}}},
                         {});
              }),
              HasSubstr("operators that are not supported: NonMaxSuppression (\"nms\"), com.microsoft.Attention"));
  const Model pool = model_of(
      {{"MaxPool", "pool", "", {"x"}, {"y", "i"}, {Attribute::of("kernel_shape", std::vector<std::int64_t>{2})}}}, {},
      {});
  EXPECT_EQ(error_of([&] {
              pool(ones({1, 1, 4}));
            }),
            "value: [onnx] MaxPool \"pool\": the output Indices is not supported");
  const Model shaped = model_of({{"Cast", "c", "", {"x"}, {"i"}, {Attribute::of("to", std::int64_t{7})}},
                                 {"Reshape", "r", "", {"x", "i"}, {"y"}, {}}},
                                {}, {{-1, ""}});
  auto step = compile([&](Tensor x) { return shaped(x); });
  EXPECT_THAT(error_of([&] { step(ones({1})); }),
              HasSubstr("[onnx] Reshape \"r\": input 1 (\"i\") must be known before anything runs"));
  const Model plain = model_of({{"MatMul", "mm", "", {"x", "w"}, {"y"}, {}}}, {{"w", floats({1, 2}, {2, 1})}});
  EXPECT_THAT(error_of([&] { plain(ones({2, 3})); }), HasSubstr("[onnx] MatMul \"mm\": "));
  EXPECT_THAT(error_of([&] { plain(ones({2, 4})); }), HasSubstr("input \"x\": expected [N, 3], got [2, 4]"));
  EXPECT_THAT(error_of([&] { plain(ones({2, 3}, f64)); }), HasSubstr("input \"x\": expected f32, got f64[2, 3]"));
  EXPECT_THAT(error_of([&] {
                model_of({{"Relu", "a", "", {"nowhere"}, {"y"}, {}}}, {})(ones({1, 3}));
              }),
              HasSubstr("\"nowhere\" is made by no node"));
}

struct Mixed {
  nn::Conv2d conv{2, 3, 3};
  nn::BatchNorm norm{3};
  nn::LSTM lstm{3, 2};
  nn::Linear head{2, 2};
  Tensor operator()(const Tensor& x) const {
    const Tensor y = max_pool(relu(norm(conv(x))), PoolOptions{.window = {2}, .padding = {1}});
    return head(lstm(reshape(y, {x.size(0), -1, 3})));
  }
  BP_FIELDS(Mixed, conv, norm, lstm, head)
};

// Whatever a file says: numbers, or an Error.
TEST_F(OnnxImport, DamagedModelsThrowOrCompute) {
  Mixed net;
  nn::init(net, Key{1});
  export_onnx(path_, net, {{f32, {1, 6, 5, 2}}});
  const Buffer b = io::read_file(path_);
  const std::vector<std::byte> good(b.as<std::byte>(), b.as<std::byte>() + b.bytes());
  const Tensor x = ones({2, 6, 5, 2});
  int tried = 0, refused = 0;
  for (std::size_t i = 0; i < good.size(); i += 4, ++tried) {
    Buffer bad = Buffer::allocate(good.size());
    std::memcpy(bad.mutable_data(), good.data(), good.size());
    bad.as_mutable<std::byte>()[i] ^= static_cast<std::byte>(tried % 3 == 0 ? 0x01 : tried % 3 == 1 ? 0x80 : 0x07);
    try {
      Model(bad, "f")(x).to_vector<float>();
    } catch (const Error&) { ++refused; }
  }
  EXPECT_GT(refused, tried / 3);
}

// TensorProto's fields 13, where a tensor lies, and 14, that it lies elsewhere.
TEST(OnnxTensor, OfAnotherFileIsRefused) {
  for (const std::string& bytes : {std::string("\x6a\x00", 2), std::string("\x70\x01")})
    EXPECT_THAT(error_of([&] { proto::parse_tensor(std::as_bytes(std::span(bytes)), "t.pb"); }),
                HasSubstr("lies in another file (external data), which is not read"));
}

TEST_F(OnnxImport, GradientsReachTheInput) {
  const Model model = model_of({{"Mul", "m", "", {"x", "x"}, {"y"}, {}}}, {});
  const Tensor x = watch(Tensor::from(std::vector<float>{1, 2, 3}, {1, 3}));
  EXPECT_EQ(grad(sum(model(x)), x).to_vector<float>(), (std::vector<float>{2, 4, 6}));
}

}  // namespace
}  // namespace bp::onnx

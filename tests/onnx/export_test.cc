// export_onnx: what is written where, symbolic sizes, refusals by name. That the files compute the same is asked of
// onnxruntime by tests/oracles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "bp/bp.h"
#include "message_of.h"
#include "onnx/proto.h"

namespace bp::onnx {
namespace {

using ::testing::_;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using In = std::span<const Tensor>;
using Tensors = std::vector<Tensor>;

class OnnxExport : public ::testing::Test {
 protected:
  OnnxExport() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = (std::filesystem::temp_directory_path() / ("bp_" + std::string(test->name()) + ".onnx")).string();
  }
  ~OnnxExport() override { std::filesystem::remove(path_); }
  proto::Model exported(const std::function<Tensors(In)>& f, const std::vector<Type>& in,
                        const ExportOptions& options = {}) {
    detail::export_function(path_, f, {}, in, options);
    return read();
  }
  proto::Model read() {
    const Buffer b = io::read_file(path_);
    return proto::parse_model({b.as<std::byte>(), b.bytes()}, path_);
  }
  std::string refusal(const std::function<Tensors(In)>& f, const std::vector<Type>& in) {
    return error_of([&] { detail::export_function(path_, f, {}, in, {}); });
  }
  std::string path_;
};

struct Net {
  nn::Conv2d conv{2, 3, 3};
  nn::Linear head{3, 4};
  Tensor operator()(const Tensor& x) const { return head(mean(relu(conv(x)), {1, 2})); }
  BP_FIELDS(Net, conv, head)
};

TEST_F(OnnxExport, ParametersKeepTheirPathsAndTheBatchIsSymbolic) {
  Net net;
  nn::init(net, Key{1});
  export_onnx(path_, net, {{f32, {1, 6, 5, 2}}},
              {.inputs = {"image"}, .channels_first = true, .metadata = {{"by", "me"}}});
  const proto::Model m = read();
  EXPECT_EQ(m.opsets.at(""), 17);
  EXPECT_EQ(m.metadata.at("by"), "me");
  std::map<std::string, Shape> weights;
  for (const auto& [name, array] : m.graph.initializers) weights[name] = array.shape;
  EXPECT_EQ(weights.at("conv.weight"), (Shape{3, 2, 3, 3}));
  EXPECT_EQ(weights.at("head.weight"), (Shape{3, 4}));
  ASSERT_EQ(m.graph.inputs.size(), 1u);
  EXPECT_EQ(m.graph.inputs[0].name, "image");
  EXPECT_EQ(m.graph.inputs[0].dims[0].param, "N");
  EXPECT_EQ(m.graph.inputs[0].dims[1].value, 2);
  EXPECT_EQ(m.graph.outputs[0].name, "output");
  for (const proto::Node& n : m.graph.nodes) EXPECT_NE(n.op, "Transpose") << n.name;
}

TEST_F(OnnxExport, BatchNormStaysOneOperation) {
  nn::Sequential net{nn::Conv2d{2, 3, 3}, nn::BatchNorm{3, {.affine = false}},
                     nn::ReLU{},          nn::BatchNorm{3},
                     nn::Flatten{},       nn::BatchNorm{36}};
  nn::init(net, Key{1});
  const auto drawn = [](std::int64_t seed, const Shape& shape) {
    return random_uniform(Tensor::from<std::int64_t>({seed, 0}), shape);
  };
  std::int64_t seed = 1;
  for (auto&& s : nn::state(net))  // values that no two operands share
    if (s.name.find("running") != std::string::npos || s.name[0] == '3')
      s.variable.set(0.5 + drawn(++seed, s.variable.shape()));
  export_onnx(path_, net, {{f32, {1, 6, 5, 2}}});
  std::vector<std::vector<std::string>> norms;
  for (const proto::Node& n : read().graph.nodes) {
    EXPECT_THAT(n.op, AnyOf("Conv", "BatchNormalization", "Relu", "Reshape", "Transpose", "Add", "Identity"));
    if (n.op == "BatchNormalization") norms.push_back({n.inputs.begin() + 1, n.inputs.end()});
  }
  ASSERT_EQ(norms.size(), 3u);
  EXPECT_THAT(norms[0], ElementsAre(_, _, "1.running_mean", "1.running_var"));
  EXPECT_THAT(norms[1], ElementsAre("3.weight", "3.bias", "3.running_mean", "3.running_var"));
  EXPECT_THAT(norms[2], ElementsAre("5.weight", "5.bias", "5.running_mean", "5.running_var"));
  const Tensor x = drawn(1, {4, 6, 5, 2});
  const std::vector<float> ours = net(x).to_vector<float>(), theirs = Model(path_)(x).to_vector<float>();
  ASSERT_EQ(ours.size(), theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], theirs[i], 1e-5) << i;
}

TEST_F(OnnxExport, SizesAreExpressionsOfTheBatch) {
  const proto::Model m = exported(
      [](In x) -> Tensors {
        return {reshape(concatenate({x[0], zeros({2, 3})}, 0), {-1})};
      },
      {{f32, {1, 3}}});
  EXPECT_EQ(m.graph.outputs[0].dims[0].param, "3*N+6");
  const proto::Model fixed =
      exported([](In x) -> Tensors { return {x[0] * 2.0}; }, {{f32, {4, 3}}}, {.dynamic_batch = false});
  EXPECT_EQ(fixed.graph.outputs[0].dims[0].value, 4);
}

TEST_F(OnnxExport, RefusesByName) {
  const std::vector<Type> in{{f32, {2, 3}}};
  const auto scoped = [](auto f) {
    return [f](In x) -> Tensors {
      const Scope scope("block.noise");
      return {f(x[0])};
    };
  };
  EXPECT_EQ(refusal(scoped([](const Tensor& x) { return x + random_uniform(random_state(Key{1}), {3}); }), in),
            "value: [export_onnx] block.noise: random_bits: ONNX has no operation for it");
  EXPECT_THAT(
      refusal(scoped([](const Tensor& x) { return reshape(matmul(x, x, false, true), {x.size(0) * x.size(0)}); }), in),
      HasSubstr("block.noise: reshape: a size grows with the batch, but not in proportion to it"));
  EXPECT_THAT(refusal(scoped([](const Tensor& x) { return x.size(0) == 1009 ? exp(x) : x * 2.0; }), in),
              HasSubstr("the model computes something else at another batch size"));
  EXPECT_THAT(refusal(scoped([](const Tensor& x) { return x * std::sqrt(static_cast<double>(x.size(0))); }), in),
              HasSubstr("a constant depends on the batch"));
  Variable count(zeros({}));
  EXPECT_THAT(refusal(
                  [&](In x) -> Tensors {
                    count.set(count.get() + 1.0);
                    return {x[0]};
                  },
                  in),
              HasSubstr("the model assigns the Variable"));
  EXPECT_THAT(error_of([&] {
                exported([](In x) -> Tensors { return {x[0]}; }, in, {.outputs = {"a", "b"}});
              }),
              HasSubstr("expected 1 names of outputs, got 2"));
  EXPECT_THAT(error_of([&] {
                exported([](In x) -> Tensors { return {x[0]}; }, {{f32, {}}});
              }),
              HasSubstr("expected inputs with a batch dimension"));
  EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp"));
}

TEST_F(OnnxExport, DamagedFilesAreRefusedOrRead) {
  Net net;
  nn::init(net, Key{1});
  export_onnx(path_, net, {{f32, {1, 6, 5, 2}}});
  const Buffer b = io::read_file(path_);
  const io::Bytes good(b.as<std::byte>(), b.bytes());
  std::vector<std::byte> bad(good.begin(), good.end());
  for (std::size_t i = 0; i < bad.size(); ++i)
    for (const int flip : {1, 0x80, 0xff}) {
      bad[i] ^= static_cast<std::byte>(flip);
      try {
        proto::parse_model(bad, "f");
      } catch (const Error& e) {
        EXPECT_TRUE(e.kind() == ErrorKind::format || e.kind() == ErrorKind::dtype) << i << " " << e.what();
      }
      bad[i] = good[i];
    }
  for (std::size_t n = 0; n < good.size(); n += 3) {
    try {
      proto::parse_model(good.first(n), "f");
    } catch (const Error& e) { EXPECT_EQ(e.kind(), ErrorKind::format) << e.what(); }
  }
}

}  // namespace
}  // namespace bp::onnx

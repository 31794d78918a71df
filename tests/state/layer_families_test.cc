// What PyTorch's values (torch_layers_test.cc) do not show of the layers: dropouts, first values, ids that are out of
// range, impossible shapes and options, tied weights, residual and dense connections in plain C++, edge batches.
#include <set>

#include "state/expectations.h"

namespace bp {
namespace {

using test::Doubles;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- dropouts ----------------------------------------------------------------------------------------------------

TEST(SpatialDropout, DropsWholeChannels) {
  nn::SpatialDropout drop{0.25};
  drop.init(Key{3});
  const ModeScope train(Mode::train);
  const Doubles y = drop(ones({50, 3, 2, 8})).to_vector<double>();
  double total = 0;
  for (std::size_t n = 0; n < 50; ++n)
    for (std::size_t c = 0; c < 8; ++c) {
      const double v = y[n * 48 + c];
      EXPECT_TRUE(v == 0 || std::abs(v - 4.0 / 3) < 1e-6);
      for (std::size_t p = 0; p < 6; ++p) EXPECT_EQ(y[n * 48 + p * 8 + c], v);
      total += v;
    }
  EXPECT_NEAR(total / 400, 1, 0.15);
}

TEST(DropPath, DropsWholeSamplesAndScalesTheRest) {
  nn::DropPath drop{0.5};
  drop.init(Key{3});
  const Tensor x = watch(ones({200, 3, 2}));
  EXPECT_EQ(drop(x).to_vector<double>(), x.to_vector<double>());  // eval
  const ModeScope train(Mode::train);
  const Tensor y = drop(x);
  const Doubles v = y.to_vector<double>();
  std::set<double> seen;
  for (std::size_t n = 0; n < 200; ++n)
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(v[n * 6 + i], v[n * 6]);
      seen.insert(v[n * 6]);
    }
  EXPECT_THAT(seen, ElementsAre(0, 2));
  EXPECT_EQ(grad(sum(y), x).to_vector<double>(), v);  // the same mask
  EXPECT_NE(drop(x).to_vector<double>(), v);          // and another one next time
}

TEST(AlphaDropout, KeepsMeanAndVarianceOfUnitInput) {
  nn::AlphaDropout drop{0.2};
  drop.init(Key{3});
  const Tensor x = random_normal(random_state(Key{4}), {200000}, f64);
  const ModeScope train(Mode::train);
  const Tensor y = drop(x);
  EXPECT_NEAR(mean(y).item(), 0, 0.01);
  EXPECT_NEAR(var(y).item(), 1, 0.02);
}

// ---- embedding ---------------------------------------------------------------------------------------------------

TEST(Embedding, AnUnknownIdIsAnError) {
  struct Net {
    nn::Embedding table{5, 2};
    BP_FIELDS(Net, table)
  };
  Net net;
  nn::init(net, Key{1});
  const Tensor ids = Tensor::from<std::int64_t>({0, 4, 5}), low = Tensor::from<std::int64_t>({0, -1, 2});
  EXPECT_EQ(message_of(ErrorKind::value, [&] { net.table(ids); }),
            "[embedding] table: expected ids from 0 to 4, got 5 at position 2 of [3]");
  auto step = compile([&](Tensor x) { return net.table(x); });
  EXPECT_EQ(step(Tensor::from<std::int64_t>({0, 4, 3})).shape(), Shape({3, 2}));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { step(ids); }), HasSubstr("5"));
  EXPECT_THAT(message_of(ErrorKind::value, [&] { step(low); }), HasSubstr("-1"));
  message_of(ErrorKind::dtype, [&] { net.table(ones({3})); });
}

TEST(Embedding, ThePaddingRowStartsAtZeroAndStays) {
  nn::Sequential net{nn::Embedding{4, 3, {.padding = 2}}, nn::Linear{3, 1}};
  nn::init(net, Key{1});
  const Variable& table = dynamic_cast<nn::Embedding&>(net[0]).weight;
  const auto row = [&] { return slice(table, 0, 2, 3).to_vector<double>(); };
  EXPECT_THAT(row(), Each(0.0));
  optim::SGD opt(net, {.lr = 0.1});
  auto step = compile(
      [&](Tensor ids) {
        const Tensor loss = sum(square(net(ids) - 1));
        opt.update(grad(loss, net));
        return loss;
      },
      {.mode = Mode::train});
  const Tensor ids = Tensor::from<std::int64_t>({2, 1, 2, 0}, {2, 2});
  const double before = step(ids).item();
  EXPECT_LT(step(ids).item(), before);
  EXPECT_THAT(row(), Each(0.0));
}

// ---- norms -------------------------------------------------------------------------------------------------------

TEST(Norms, WhatCannotBeNormalisedIsAnError) {
  const ModeScope train(Mode::train);
  const auto message = [](auto f) { return message_of(ErrorKind::shape, f); };
  EXPECT_THAT(message([] { nn::InstanceNorm{2}(ones({3, 1, 1, 2})); }), HasSubstr("more than one position"));
  EXPECT_THAT(message([] {
                nn::BatchNorm{2, {.momentum = std::nullopt}}(ones({1, 2}));
              }),
              HasSubstr("more than one value per channel"));
  EXPECT_EQ(message([] { nn::GroupNorm{2, 4}(ones({2, 3})); }), "[group_norm] expected input [N, .., 4], got [2, 3]");
  EXPECT_EQ(message([] {
              nn::InstanceNorm{4}(ones({2, 4}));
            }),
            "[instance_norm] expected input [N, s.., 4], got [2, 4]");
  EXPECT_EQ(message([] { nn::RMSNorm{4}(ones({2, 3})); }), "[rms_norm] expected input [.., 4], got [2, 3]");
}

TEST(Norms, Bf16IsNormalisedInF32) {
  const Tensor x = cast(iota({2, 4, 64}, 2, f32) + 1000, bf16);  // a variance that bf16 could not hold
  for (const nn::Sequential& norm : {nn::Sequential{nn::GroupNorm{1, 64}}, nn::Sequential{nn::InstanceNorm{64}}}) {
    const Tensor y = norm(x);
    EXPECT_EQ(y.dtype(), bf16);
    EXPECT_LT(max(abs(cast(y, f32))).item(), 3);
  }
}

// ---- weights under a constraint ------------------------------------------------------------------------------------

TEST(WeightNorm, StartsAsTheLayerItself) {
  nn::Sequential plain{nn::Linear{4, 3}}, normed{nn::WeightNorm{nn::Linear{4, 3}}};
  nn::init(plain, Key{5}, f64);
  nn::init(normed, Key{5}, f64);
  const Tensor x = random_normal(random_state(Key{1}), {6, 4}, f64);
  test::expect_close(normed(x).to_vector<double>(), plain(x).to_vector<double>(), 1e-14, "y");
  std::vector<std::string> names;
  for (const auto& entry : nn::state(normed)) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("0.weight_g", "0.weight_v", "0.bias"));
  EXPECT_THAT(message_of(ErrorKind::shape, [&] { normed(ones({2, 5})); }), HasSubstr("[linear] 0: expected input"));
}

TEST(SpectralNorm, TheLargestSingularValueBecomesOne) {
  nn::Sequential net{nn::SpectralNorm{nn::Linear{6, 6, {.bias = false}}}};
  nn::init(net, Key{5}, f64);
  const auto& layer = dynamic_cast<nn::SpectralNorm<nn::Linear>&>(net[0]);
  const Doubles u = layer.weight_u.get().to_vector<double>();
  net(ones({1, 6}, f64)).to_vector<double>();
  EXPECT_EQ(layer.weight_u.get().to_vector<double>(), u);  // eval mode leaves the vectors
  {
    const ModeScope train(Mode::train);
    for (int i = 0; i < 300; ++i) net(ones({1, 6}, f64)).to_vector<double>();
  }
  EXPECT_NE(layer.weight_u.get().to_vector<double>(), u);
  Tensor v = random_normal(random_state(Key{2}), {6}, f64);  // the power method, on the layer as it acts
  const Tensor w = net(one_hot(arange(6), 6, f64));
  for (int i = 0; i < 300; ++i) {
    v = matmul(w, matmul(v, w));
    v = v / norm(v);
  }
  EXPECT_NEAR(norm(matmul(v, w)).item(), 1, 1e-9);
}

// ---- shapes and options
// ----------------------------------------------------------------------------------------------

TEST(Layers, NewOnesFindImpossibleShapesWhileTheModelIsBuilt) {
  const auto message = [](const nn::Layer& layer, const Shape& in) {
    return message_of(ErrorKind::shape, [&] { layer.output_shape(in); });
  };
  EXPECT_EQ(message(nn::ConvTranspose2d(4, 2, 3), {1, 5, 5, 3}),
            "[conv_transpose2d] expected input [N, H, W, 4], got [1, 5, 5, 3]");
  EXPECT_THAT(message(nn::ConvTranspose1d(2, 2, 2, {.padding = 3}), {1, 4, 2}), HasSubstr("whose output has elements"));
  EXPECT_EQ(message(nn::GLU{}, {2, 5}), "[glu] expected an even last dimension, got [2, 5]");
  EXPECT_EQ(message(nn::PReLU{3}, {2, 5}), "[prelu] expected input [.., 3], got [2, 5]");
  EXPECT_THAT(message(nn::AdaptiveAvgPool{{2, 2}}, {2, 5}), HasSubstr("rank 3 to 5"));
  EXPECT_THAT(message(nn::AdaptiveMaxPool{2}, {2, 0, 3}), HasSubstr("at least 1 along axis 1"));
  EXPECT_THAT(message(nn::GlobalMaxPool{}, {2, 3}), HasSubstr("[global_max_pool]"));
  EXPECT_THAT(message(nn::SpatialDropout{}, {2, 3}), HasSubstr("[spatial_dropout]"));
}

TEST(Layers, OptionsOfTheNewOnesAreChecked) {
  const auto refuse = [](auto f) { return message_of(ErrorKind::value, f); };
  EXPECT_THAT(refuse([] { nn::ConvTranspose2d(2, 2, 3, {.stride = 2, .output_padding = 2}); }),
              HasSubstr("less than the stride"));
  refuse([] { nn::ConvTranspose2d(3, 2, 3, {.groups = 2}); });
  refuse([] { nn::AdaptiveAvgPool(0); });
  EXPECT_THAT(refuse([] { nn::AdaptiveAvgPool({2, 2}).output_shape({1, 4, 2}); }), HasSubstr("expected 1 or 1 sizes"));
  refuse([] { nn::GroupNorm(3, 4); });
  refuse([] { nn::InstanceNorm(3, {.momentum = 2}); });
  refuse([] { nn::RMSNorm(3, {.eps = -1}); });
  refuse([] { nn::Embedding(3, 2, {.padding = 3}); });
  refuse([] { nn::Embedding(0, 2); });
  refuse([] { nn::PReLU(0); });
  refuse([] { nn::DropPath(1); });
  refuse([] { nn::CELU(0); });
  refuse([] { nn::HardTanh(1, 1); });
  refuse([] { nn::SoftShrink(-1); });
}

// ---- batches of one and of none ------------------------------------------------------------------------------------

std::vector<nn::Sequential> image_layers() {
  using namespace nn;
  return {Sequential{Conv2d{4, 4, 3, {.padding = 1}}},
          Sequential{ConvTranspose2d{4, 4, 3, {.padding = 1}}},
          Sequential{depthwise<2>(4, 3, {.padding = 1})},
          Sequential{MaxPool{2}},
          Sequential{AvgPool{2}},
          Sequential{AdaptiveMaxPool{{1, 3}}},
          Sequential{AdaptiveAvgPool{{2, 3}}},
          Sequential{GlobalMaxPool{}},
          Sequential{GlobalAvgPool{}},
          Sequential{Flatten{}, Linear{64, 2}},
          Sequential{BatchNorm{4}},
          Sequential{BatchNorm{4, {.momentum = std::nullopt}}},
          Sequential{LayerNorm{4}},
          Sequential{GroupNorm{2, 4}},
          Sequential{InstanceNorm{4, {.affine = true, .track = true}}},
          Sequential{InstanceNorm{4}},
          Sequential{RMSNorm{4}},
          Sequential{Dropout{}, SpatialDropout{}, AlphaDropout{}, DropPath{}},
          Sequential{WeightNorm{Conv2d{4, 4, 1}}},
          Sequential{SpectralNorm{Conv2d{4, 4, 1}}},
          Sequential{PReLU{4}, Mish{}, GLU{}, Softmax{}}};
}

TEST(Layers, EvaluateBatchesOfOneAndOfNone) {
  for (nn::Sequential& net : image_layers()) {
    SCOPED_TRACE(net[0].describe());
    nn::init(net, Key{1});
    auto eval = compile([&](Tensor x) { return net(x); });
    const Tensor x = random_normal(random_state(Key{2}), {3, 4, 4, 4});
    const Tensor all = eval(x), first = eval(slice(x, 0, 0, 1)), none = eval(slice(x, 0, 0, 0));
    EXPECT_EQ(none.shape()[0], 0);
    EXPECT_EQ(none.shape(), net.output_shape({0, 4, 4, 4}));
    test::expect_close(first.to_vector<double>(), slice(all, 0, 0, 1).to_vector<double>(), 1e-5, "first");
    for (const double v : all.to_vector<double>()) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST(Layers, TrainOnBatchesOfNoneOnlyWhereNoStatisticIsNeeded) {
  for (nn::Sequential& net : image_layers()) {
    SCOPED_TRACE(net[0].describe());
    nn::init(net, Key{1});
    const ModeScope train(Mode::train);
    if (std::string(net[0].kind()) == "batch_norm") {
      message_of(ErrorKind::shape, [&] { net(ones({0, 4, 4, 4})); });
      continue;
    }
    EXPECT_EQ(net(ones({0, 4, 4, 4})).numel(), 0);
    for (const auto& entry : nn::state(net))
      for (const double v : entry.variable.get().to_vector<double>()) EXPECT_TRUE(std::isfinite(v)) << entry.name;
  }
}

// ---- ordinary C++: tied weights, residual and dense connections
// ------------------------------------------------------

// The output layer is the transpose of the table of the input: one Variable in two places.
struct TiedHead {
  nn::Embedding table{7, 4};
  nn::Linear head{4, 4, {.bias = false}};
  Variable shared;
  void tie() { shared = table.weight.alias(); }
  Tensor operator()(const Tensor& ids) const { return matmul(head(table(ids)), shared, false, true); }
  BP_FIELDS(TiedHead, table, head, shared)
};

TEST(Layers, TiedWeightsAreOneParameterWithBothGradients) {
  TiedHead net;
  net.tie();
  nn::init(net, Key{1}, f64);
  ASSERT_EQ(nn::parameters(net).size(), 2U);
  ASSERT_TRUE(net.shared.same_cell(net.table.weight));
  const Tensor ids = Tensor::from<std::int64_t>({1, 3, 6});
  const Tensor y = net(ids), dy = random_normal(random_state(Key{2}), y.shape(), f64);
  const Tensor both = grad(sum(y * dy), net)[0];
  // The product rule by hand: through the table, and through the output's product.
  const Tensor h = net.head(net.table(ids));
  const Tensor through_table = scatter_add({7, 4}, ids, matmul(matmul(dy, net.shared), net.head.weight, false, true));
  const Tensor expected = through_table + matmul(dy, h, true, false);
  test::expect_close(both.to_vector<double>(), expected.to_vector<double>(), 1e-12, "gradient");
  optim::SGD opt(net, {.lr = 0.1});
  opt.update(grad(sum(net(ids) * dy), net));
  EXPECT_EQ(net.shared.get().to_vector<double>(), net.table.weight.get().to_vector<double>());
}

// Huang et al. 2017: every layer sees all before it.
struct Dense {
  std::vector<nn::Linear> layers;
  nn::Linear head{10, 1};
  Dense() {
    for (int i = 0; i < 3; ++i) layers.emplace_back(4 + 2 * i, 2);
  }
  Tensor operator()(const Tensor& x) const {
    Tensor all = x;
    for (const nn::Linear& layer : layers) all = concatenate({all, silu(layer(all))}, -1);
    return head(all);
  }
  BP_FIELDS(Dense, layers, head)
};

// He et al. 2016, with stochastic depth: the sum may be written as it stands in the paper.
struct Deep {
  std::vector<nn::Linear> layers;
  nn::DropPath drop{0.2};
  nn::Linear head{4, 1};
  Deep() {
    for (int i = 0; i < 4; ++i) layers.emplace_back(4, 4);
  }
  Tensor operator()(Tensor x) const {
    for (const nn::Linear& layer : layers) x = x + drop(silu(layer(x)));
    return head(x);
  }
  BP_FIELDS(Deep, layers, drop, head)
};

template <class M> void learns() {
  M net;
  nn::init(net, Key{1});
  const GradcheckResult r = [&] {
    M exact = net;
    nn::set_dtype(exact, f64);
    return gradcheck([&](const Tensor& x) { return exact(x); }, random_normal(random_state(Key{3}), {3, 4}, f64),
                     {.second_order = true});
  }();
  EXPECT_TRUE(r.ok) << r.str();
  optim::Adam opt(net, {.lr = 1e-2});
  const Tensor x = random_normal(random_state(Key{2}), {64, 4}), y = sin(sum(x, {1}, true));
  auto step = compile(
      [&] {
        const Tensor loss = squared_error(net(x), y);
        opt.update(grad(loss, net));
        return loss;
      },
      {.mode = Mode::train});
  const double before = step().item();
  for (int i = 0; i < 150; ++i) step();
  EXPECT_LT(step().item(), before / 3);
}

TEST(Layers, DenseConnectionsLearn) { learns<Dense>(); }
TEST(Layers, ResidualConnectionsLearn) { learns<Deep>(); }

}  // namespace
}  // namespace bp

// BP_FIELDS, paths, copying and moving, initialisation by path.
#include "state/expectations.h"

namespace bp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Block {
  nn::Conv2d conv{4, 4, 3, {.same = true}};
  nn::BatchNorm norm{4};
  std::optional<nn::Conv2d> shortcut;
  int depth = 1;
  std::vector<std::string> notes;
  Tensor operator()(Tensor x) const { return norm(conv(x)); }
  BP_FIELDS(Block, conv, norm, shortcut, depth, notes)
};

struct Branched {
  nn::Conv2d stem{3, 4, 3};
  std::vector<Block> blocks{2};
  std::array<nn::Linear, 2> heads{nn::Linear{4, 2}, nn::Linear{4, 3, {.bias = false}}};
  std::unique_ptr<nn::Linear> extra;
  Variable scale{Tensor::from({1.0F})};
  nn::Dropout drop{0.5};
  BP_FIELDS(Branched, stem, blocks, heads, extra, scale, drop)
};

std::vector<std::string> names(const std::vector<nn::NamedVariable>& state) {
  std::vector<std::string> out;
  for (const auto& entry : state) out.push_back(entry.name);
  return out;
}

TEST(Module, StateListsPathsInOrderOfTheFields) {
  Branched net;
  net.blocks[1].shortcut.emplace(4, 4, 1);
  net.extra = std::make_unique<nn::Linear>(2, 2);
  EXPECT_THAT(
      names(nn::state(net)),
      ElementsAre("stem.weight", "stem.bias", "blocks.0.conv.weight", "blocks.0.conv.bias", "blocks.0.norm.weight",
                  "blocks.0.norm.bias", "blocks.0.norm.running_mean", "blocks.0.norm.running_var",
                  "blocks.1.conv.weight", "blocks.1.conv.bias", "blocks.1.norm.weight", "blocks.1.norm.bias",
                  "blocks.1.norm.running_mean", "blocks.1.norm.running_var", "blocks.1.shortcut.weight",
                  "blocks.1.shortcut.bias", "heads.0.weight", "heads.0.bias", "heads.1.weight", "extra.weight",
                  "extra.bias", "scale", "drop.rng_state"));
}

TEST(Module, ParametersAreTheTrainableOnes) {
  struct Small {
    nn::Linear a{2, 3};
    nn::BatchNorm b{3};
    BP_FIELDS(Small, a, b)
  };
  Small m;
  EXPECT_EQ(nn::parameters(m).size(), 4U);
  EXPECT_EQ(nn::parameter_count(m), 2 * 3 + 3 + 3 + 3);
  m.a.weight.set_trainable(false);
  EXPECT_EQ(nn::parameters(m).size(), 3U);
  EXPECT_TRUE(nn::parameters(m)[0].same_cell(m.a.bias));
}

TEST(Module, TiedVariablesAreListedOnce) {
  struct Tied {
    nn::Linear a{3, 3}, b{3, 3};
    BP_FIELDS(Tied, a, b)
  };
  Tied m;
  m.b.weight = m.a.weight.alias();
  EXPECT_THAT(names(nn::state(m)), ElementsAre("a.weight", "a.bias", "b.bias"));
  nn::init(m, Key{1}, f64);  // changes every cell
  EXPECT_TRUE(m.b.weight.same_cell(m.a.weight));
}

TEST(Module, CopyIsDeepAndMoveKeepsIdentity) {
  struct Small {
    nn::Linear a{2, 2};
    nn::Sequential s{nn::Linear{2, 2}, nn::ReLU{}};
    BP_FIELDS(Small, a, s)
  };
  Small m;
  nn::init(m, Key{1});
  const auto before = nn::parameters(m);
  const Small copy = m;
  const auto copied = nn::parameters(copy);
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_FALSE(copied[i].same_cell(before[i]));
    EXPECT_EQ(copied[i].get().to_vector<double>(), before[i].get().to_vector<double>());
  }
  m.a.weight.set(7.0);
  EXPECT_NE(copy.a.weight.get().to_vector<double>(), m.a.weight.get().to_vector<double>());
  copy.a(Tensor::from({1.0F, 2.0F}, {1, 2}));  // a copy of an initialised layer is initialised
  const Small moved = std::move(m);
  const auto after = nn::parameters(moved);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(after[i].same_cell(before[i]));
}

TEST(Module, InitNamesEverything) {
  Branched net;
  nn::init(net, Key{1});
  EXPECT_EQ(net.blocks[1].conv.path(), "blocks.1.conv");
  EXPECT_EQ(net.blocks[1].conv.weight.name(), "blocks.1.conv.weight");
  std::vector<std::string> paths;
  nn::for_each_layer(net, [&](const std::string& path, nn::Layer& layer) {
    EXPECT_EQ(layer.path(), path);
    paths.push_back(path);
  });
  EXPECT_THAT(paths, ElementsAre("stem", "blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm", "heads.0",
                                 "heads.1", "drop"));
}

struct Before {
  nn::Linear a{3, 4}, c{3, 4};
  BP_FIELDS(Before, a, c)
};
struct After {
  nn::Linear a{3, 4}, added{5, 5}, c{3, 4};
  BP_FIELDS(After, a, added, c)
};

TEST(Module, AddingALayerChangesNoOther) {
  Before before;
  After after;
  nn::init(before, Key{3});
  nn::init(after, Key{3});
  const auto values = [](const nn::Linear& l) { return l.weight.get().to_vector<double>(); };
  EXPECT_EQ(values(before.a), values(after.a));
  EXPECT_EQ(values(before.c), values(after.c));
  EXPECT_NE(values(before.a), values(before.c));
}

TEST(Module, DtypeAndOwnInit) {
  struct Own {
    nn::Linear a{3, 4};
    Variable gain{Tensor::from({1.0F, 2.0F})};
    nn::Dropout drop{0.1};
    void init(Key) { a.bias.set(5.0); }
    BP_FIELDS(Own, a, gain, drop)
  };
  Own m;
  nn::init(m, Key{3}, f64);
  EXPECT_EQ(m.a.weight.dtype(), f64);
  EXPECT_EQ(m.gain.dtype(), f64);
  EXPECT_EQ(m.drop.rng_state.dtype(), i64);
  EXPECT_THAT(m.gain.get().to_vector<double>(), ElementsAre(1, 2));
  EXPECT_THAT(m.a.bias.get().to_vector<double>(), ElementsAre(5, 5, 5, 5));
  EXPECT_FALSE(m.drop.rng_state.trainable());
  message_of(ErrorKind::dtype, [&] { nn::set_dtype(m, i32); });
}

TEST(Module, ForgottenInitIsAnError) {
  struct Small {
    nn::Linear a{2, 2};
    BP_FIELDS(Small, a)
  };
  Small m;
  nn::set_names(m);
  EXPECT_THAT(message_of(ErrorKind::state,
                         [&] {
                           m.a(Tensor::from({1.0F, 2.0F}, {1, 2}));
                         }),
              HasSubstr("[linear] a: the parameters have no values yet: call nn::init(model, Key{seed})"));
}

static_assert(nn::Module<Branched> && nn::Module<std::vector<Block>> && nn::Module<nn::Sequential>);
static_assert(!nn::Module<Variable> && !nn::Module<std::vector<Variable>> && !nn::Module<std::vector<int>>);

}  // namespace
}  // namespace bp

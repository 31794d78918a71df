// Checkpoints: round trips, resuming exactly, PyTorch's layout, refusals that change nothing.
#include "bp/checkpoint.h"

#include <filesystem>

#include "bp/io.h"
#include "message_of.h"
#include "state/expectations.h"

namespace bp {
namespace {

using test::Doubles;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct ConvNet {
  nn::Conv2d conv{1, 2, {2, 3}};
  nn::BatchNorm norm{2};
  nn::Dropout drop{0.3};
  nn::Linear head{2, 3};
  Tensor operator()(const Tensor& x) const { return head(drop(mean(relu(norm(conv(x))), {1, 2}))); }
  BP_FIELDS(ConvNet, conv, norm, drop, head)
};

class Checkpoint : public ::testing::Test {
 protected:
  Checkpoint() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = (std::filesystem::temp_directory_path() / ("bp_" + std::string(test->name()) + ".safetensors")).string();
  }
  ~Checkpoint() override { std::filesystem::remove(path_); }
  std::string path_;
};

template <class M> std::vector<Doubles> values(const M& model) {
  std::vector<Doubles> all;
  for (const auto& entry : nn::state(model)) all.push_back(entry.variable.get().template to_vector<double>());
  return all;
}

ConvNet made(std::uint64_t seed) {
  ConvNet net;
  nn::init(net, Key{seed});
  return net;
}

TEST_F(Checkpoint, RoundTripWithMetadata) {
  const ConvNet net = made(1);
  save_state(path_, net, nullptr, {{"epoch", "3"}});
  ConvNet other;  // never initialised: loading is enough
  const Metadata metadata = load_state(path_, other);
  EXPECT_EQ(values(other), values(net));
  EXPECT_EQ(metadata.at("epoch"), "3");
  EXPECT_EQ(metadata.at("bp.layout"), "channels_last");
  other(ones({2, 4, 4, 1}));
}

TEST_F(Checkpoint, OtherNamesAndNumPysArchive) {
  const ConvNet net = made(1);
  const Rename rename = [](const std::string& path) { return "net/" + path; };
  const std::string npz = path_ + ".npz";
  save_state(path_, net, nullptr, {}, WeightLayout::pytorch, rename);
  save_state(npz, net, nullptr, {}, WeightLayout::channels_last, rename);
  for (const std::string& path : {path_, npz}) {
    ConvNet other = made(2);
    load_state(path, other, nullptr, {.rename = rename});
    EXPECT_EQ(values(other), values(net)) << path;
    EXPECT_THAT(error_of([&] { load_state(path, other); }), HasSubstr("missing in the file: conv.weight, conv.bias"));
    const Rename same = [](const std::string&) { return std::string("w"); };
    EXPECT_THAT(error_of([&] { load_state(path, other, nullptr, {.rename = same}); }),
                HasSubstr("two entries of the model are renamed to \"w\""));
  }
  EXPECT_EQ(io::read_npz(npz)[0].second.shape, (Shape{2, 1, 2, 3}));  // the convolution, as PyTorch's
  std::filesystem::remove(npz);
}

TEST_F(Checkpoint, ResumesExactly) {
  const Tensor x = Tensor::from_buffer(init::normal(0, 1)({4, 5, 5, 1}, Key{2}).buffer(), f32, {4, 5, 5, 1});
  const auto run = [&](ConvNet& net, optim::Optimizer& opt, int steps) {
    auto step = compile(
        [&](Tensor in) {
          const Tensor loss = mean(square(net(in)));
          opt.update(grad(loss, net));
          return loss;
        },
        {.mode = Mode::train});
    Tensor loss;
    for (int i = 0; i < steps; ++i) loss = step(x);
    return loss.item();
  };
  ConvNet whole = made(1);
  optim::Adam opt(whole, {.lr = 0.1});
  run(whole, opt, 3);
  opt.set_lr(0.05);
  save_state(path_, whole, &opt);
  const double expected = run(whole, opt, 4);

  ConvNet resumed = made(9);
  optim::Adam again(resumed);
  load_state(path_, resumed, &again);
  EXPECT_EQ(run(resumed, again, 4), expected);
  EXPECT_EQ(values(resumed), values(whole));

  ConvNet only_model;
  load_state(path_, only_model);  // the optimizer's entries are passed over
}

TEST_F(Checkpoint, RefusalNamesEverythingAndChangesNothing) {
  struct Other {
    nn::Conv2d conv{1, 2, {2, 3}};
    nn::Linear head{2, 4};
    nn::Linear extra{1, 1};
    BP_FIELDS(Other, conv, head, extra)
  };
  save_state(path_, made(1));
  Other other;
  nn::init(other, Key{5});
  const auto before = values(other);
  const std::string message = message_of(ErrorKind::state, [&] { load_state(path_, other); });
  EXPECT_THAT(message, AllOf(HasSubstr("missing in the file: extra.weight, extra.bias"),
                             HasSubstr("not in the model: "), HasSubstr("norm.running_var"),
                             HasSubstr("head.weight (expected f32[2, 4], the file has f32[2, 3])"), HasSubstr(path_)));
  EXPECT_EQ(values(other), before);
  message_of(ErrorKind::state, [&] { load_state(path_, other, nullptr, {.strict = false}); });  // shapes still count
  EXPECT_EQ(values(other), before);
}

TEST_F(Checkpoint, LenientLoadTakesWhatFits) {
  struct Part {
    nn::Conv2d conv{1, 2, {2, 3}};
    nn::Linear extra{1, 1};
    BP_FIELDS(Part, conv, extra)
  };
  const ConvNet net = made(1);
  save_state(path_, net);
  Part part;
  nn::init(part, Key{5});
  const auto extra = part.extra.weight.get().to_vector<double>();
  load_state(path_, part, nullptr, {.strict = false});
  EXPECT_EQ(part.conv.weight.get().to_vector<double>(), net.conv.weight.get().to_vector<double>());
  EXPECT_EQ(part.extra.weight.get().to_vector<double>(), extra);
}

TEST_F(Checkpoint, PyTorchLayoutIsTransposed) {
  const ConvNet net = made(1);
  save_state(path_, net, nullptr, {}, WeightLayout::pytorch);
  const io::SafeTensors file = io::read_safetensors(path_);
  const Array& conv = *file.find("conv.weight");  // [k1, k2, in, out] = [2, 3, 1, 2] to [out, in, k1, k2]
  EXPECT_EQ(conv.shape, Shape({2, 1, 2, 3}));
  const Doubles ours = net.conv.weight.get().to_vector<double>();
  for (std::size_t o = 0; o < 2; ++o)
    for (std::size_t k = 0; k < 6; ++k) EXPECT_EQ(conv.data<float>()[o * 6 + k], ours[k * 2 + o]);
  ConvNet other;
  load_state(path_, other);
  EXPECT_EQ(values(other), values(net));
}

TEST_F(Checkpoint, AFileWithoutOurMetadataIsPyTorchs) {
  struct Small {
    nn::Linear fc{2, 2};
    nn::BatchNorm bn{2};
    nn::Dropout drop{0.5};
    BP_FIELDS(Small, fc, bn, drop)
  };
  const auto row = [](std::vector<float> v) { return Array::from(v, {static_cast<std::int64_t>(v.size())}); };
  const std::vector<std::pair<std::string, Array>> tensors = {
      {"fc.weight", Array::from(std::vector<float>{1, 2, 3, 4}, {2, 2})},
      {"fc.bias", row({5, 6})},
      {"bn.weight", row({1, 1})},
      {"bn.bias", row({0, 0})},
      {"bn.running_mean", row({7, 8})},
      {"bn.running_var", row({1, 1})},
      {"bn.num_batches_tracked", Array::from(std::vector<std::int64_t>{3}, Shape{1})}};
  io::write_safetensors(path_, tensors, {{"format", "pt"}});
  Small model;
  nn::init(model, Key{1});
  load_state(path_, model);
  EXPECT_THAT(model.fc.weight.get().to_vector<double>(), ElementsAre(1, 3, 2, 4));
  EXPECT_THAT(model.bn.running_mean.get().to_vector<double>(), ElementsAre(7, 8));
}

TEST_F(Checkpoint, DtypesConvertOnRequestOnly) {
  nn::Linear f32_layer{2, 2}, f64_layer{2, 2};
  nn::init(f32_layer, Key{1});
  nn::init(f64_layer, Key{2}, f64);
  save_state(path_, f32_layer);
  EXPECT_THAT(message_of(ErrorKind::state, [&] { load_state(path_, f64_layer); }),
              HasSubstr("weight (expected f64[2, 2], the file has f32[2, 2])"));
  load_state(path_, f64_layer, nullptr, {.convert = true});
  EXPECT_EQ(values(f64_layer), values(f32_layer));
}

TEST_F(Checkpoint, SnapshotsAreNotWrittenThrough) {
  ConvNet net = made(1);
  save_state(path_, net);
  ConvNet loaded;
  load_state(path_, loaded);
  const auto before = values(net);
  loaded.head.weight.set(0.0);
  EXPECT_EQ(values(net), before);
}

TEST_F(Checkpoint, BadFilesAndKeys) {
  ConvNet net = made(1);
  message_of(ErrorKind::io, [&] { load_state("/nonexistent/model.safetensors", net); });
  message_of(ErrorKind::io, [&] { save_state("/nonexistent/model.safetensors", net); });
  message_of(ErrorKind::value, [&] { save_state(path_, net, nullptr, {{"bp.mine", "x"}}); });
  io::write_file(path_, "not a checkpoint");
  message_of(ErrorKind::format, [&] { load_state(path_, net); });
}

}  // namespace
}  // namespace bp

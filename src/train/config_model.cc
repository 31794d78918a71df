// [model]: a list of layers becomes a Sequential; the sizes of inputs follow from the layers before.
#include "base/error.h"
#include "bp/recurrent.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train {

namespace {

using LayerPtr = std::unique_ptr<nn::Layer>;

template <class L, class... Args> LayerPtr make(Args&&... args) {
  return std::make_unique<L>(std::forward<Args>(args)...);
}

// Channels: the last dimension of [N, .., C].
std::int64_t channels(const Section& s, const Shape& in) {
  if (in.rank() < 2) s.wrong("type", fmt::format("expected an input [.., C], got {} (with the batch)", in));
  return in.back();
}

LayerPtr linear(Section& s, const Shape& in) {
  return make<nn::Linear>(channels(s, in), s.integer("units"),
                          nn::LinearOptions{.bias = s.boolean("bias"), .weight_init = init::from_name(s.text("init"))});
}

template <int Dims> LayerPtr conv(Section& s, const Shape& in) {
  nn::ConvLayerOptions o;
  o.stride = s.integers("stride");
  if (const Node* padding = s.value("padding"); padding->kind == Node::Kind::text) {
    o.same = true;
  } else {
    o.padding = s.integers("padding");
  }
  o.dilation = s.integers("dilation");
  o.groups = s.integer("groups");
  o.bias = s.boolean("bias");
  o.weight_init = init::from_name(s.text("init"));
  return make<nn::Conv<Dims>>(channels(s, in), s.integer("filters"), s.integers("kernel"), std::move(o));
}

nn::PoolLayerOptions pool(Section& s) {
  nn::PoolLayerOptions o;
  if (s.has("stride")) o.stride = nn::Sizes(s.integers("stride"));
  o.padding = s.integers("padding");
  return o;
}

LayerPtr max_pool(Section& s) {
  nn::PoolLayerOptions o = pool(s);
  o.dilation = s.integers("dilation");
  return make<nn::MaxPool>(s.integers("size"), std::move(o));
}

LayerPtr avg_pool(Section& s) {
  nn::PoolLayerOptions o = pool(s);
  o.count_include_pad = s.boolean("count_include_pad");
  return make<nn::AvgPool>(s.integers("size"), std::move(o));
}

LayerPtr batch_norm(Section& s, const Shape& in) {
  return make<nn::BatchNorm>(
      channels(s, in),
      nn::BatchNormOptions{.eps = s.number("eps"), .momentum = s.number("momentum"), .affine = s.boolean("affine")});
}

LayerPtr layer_norm(Section& s, const Shape& in) {
  return make<nn::LayerNorm>(channels(s, in),
                             nn::LayerNormOptions{.eps = s.number("eps"), .affine = s.boolean("affine")});
}

LayerPtr residual(Section& s, const Shape& in) {
  Shape inner = in, skip = in;
  nn::Sequential layers = read_layers(*s.value("layers"), s.path() + ".layers", inner);
  std::optional<nn::Sequential> shortcut;
  if (Node* n = s.value("shortcut")) shortcut = read_layers(*n, s.path() + ".shortcut", skip);
  return make<nn::Residual>(std::move(layers), std::move(shortcut));
}

template <class L> LayerPtr recurrent(Section& s, const Shape& in) {
  nn::RecurrentOptions o;
  o.layers = s.integer("layers");
  o.bidirectional = s.boolean("bidirectional");
  o.dropout = s.number("dropout");
  o.bias = s.boolean("bias");
  o.last = s.text("output") == "last";
  o.segment = s.integer("segment");
  return make<L>(channels(s, in), s.integer("units"), std::move(o));
}

LayerPtr activation(Section& s) {
  const std::string& type = s.type();
  if (type == "identity") return make<nn::Identity>();
  if (type == "relu") return make<nn::ReLU>();
  if (type == "tanh") return make<nn::Tanh>();
  if (type == "sigmoid") return make<nn::Sigmoid>();
  if (type == "silu") return make<nn::SiLU>();
  if (type == "softplus") return make<nn::Softplus>();
  if (type == "gelu") return make<nn::GELU>(s.boolean("approximate"));
  if (type == "leaky_relu") return make<nn::LeakyReLU>(s.number("slope"));
  if (type == "elu") return make<nn::ELU>(s.number("alpha"));
  return make<nn::Softmax>();
}

LayerPtr layer(Section& s, const Shape& in) {
  const std::string& type = s.type();
  if (type == "linear") return linear(s, in);
  if (type == "conv1d") return conv<1>(s, in);
  if (type == "conv2d") return conv<2>(s, in);
  if (type == "conv3d") return conv<3>(s, in);
  if (type == "max_pool") return max_pool(s);
  if (type == "avg_pool") return avg_pool(s);
  if (type == "global_avg_pool") return make<nn::GlobalAvgPool>();
  if (type == "flatten") return make<nn::Flatten>(nn::FlattenOptions{.channels_first = s.boolean("channels_first")});
  if (type == "dropout") return make<nn::Dropout>(s.number("rate"));
  if (type == "batch_norm") return batch_norm(s, in);
  if (type == "layer_norm") return layer_norm(s, in);
  if (type == "rnn") return recurrent<nn::RNN>(s, in);
  if (type == "gru") return recurrent<nn::GRU>(s, in);
  if (type == "lstm") return recurrent<nn::LSTM>(s, in);
  if (type == "residual") return residual(s, in);
  return activation(s);
}

}  // namespace

nn::Sequential read_layers(Node& layers, const std::string& path, Shape& shape) {
  nn::Sequential model;
  for (std::size_t i = 0; i < layers.items.size(); ++i) {
    Section s(layers.items[i], fmt::format("{}[{}]", path, i), "layer");
    const std::string name = s.has("name") ? s.text("name") : std::string();
    try {
      LayerPtr made = layer(s, shape);
      made->set_path(name);
      shape = made->output_shape(shape);
      model.push(name, std::move(made));
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::config) throw;
      fail(ErrorKind::config, "{}: {}: {}", s.where(), s.path(), e.what());
    }
  }
  return model;
}

}  // namespace bp::train

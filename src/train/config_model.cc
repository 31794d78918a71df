// [model]: a list of layers becomes a Sequential; the sizes of inputs follow from the layers before.
#include "base/error.h"
#include "bp/gpt.h"
#include "bp/onnx.h"
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

// The layer with its weight under the constraint that the section asks for.
template <class L> LayerPtr constrained(Section& s, L layer) {
  const std::string how = s.text("normalize");
  if (how == "weight") return make<nn::WeightNorm<L>>(std::move(layer));
  if (how == "spectral") return make<nn::SpectralNorm<L>>(std::move(layer));
  return make<L>(std::move(layer));
}

LayerPtr linear(Section& s, const Shape& in) {
  return constrained(
      s, nn::Linear(channels(s, in), s.integer("units"),
                    nn::LinearOptions{.bias = s.boolean("bias"), .weight_init = init::from_name(s.text("init"))}));
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
  return constrained(s, nn::Conv<Dims>(channels(s, in), s.integer("filters"), s.integers("kernel"), std::move(o)));
}

template <int Dims> LayerPtr conv_transpose(Section& s, const Shape& in) {
  nn::ConvTransposeOptions o;
  o.stride = s.integers("stride");
  o.padding = s.integers("padding");
  o.output_padding = s.integers("output_padding");
  o.dilation = s.integers("dilation");
  o.groups = s.integer("groups");
  o.bias = s.boolean("bias");
  o.weight_init = init::from_name(s.text("init"));
  return constrained(
      s, nn::ConvTranspose<Dims>(channels(s, in), s.integer("filters"), s.integers("kernel"), std::move(o)));
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

LayerPtr norm(Section& s, const Shape& in) {
  const std::string& type = s.type();
  const std::int64_t c = channels(s, in);
  const double eps = s.number("eps");
  const bool affine = s.boolean("affine");
  if (type == "layer_norm") return make<nn::LayerNorm>(c, nn::LayerNormOptions{.eps = eps, .affine = affine});
  if (type == "rms_norm") return make<nn::RMSNorm>(c, nn::RMSNormOptions{.eps = eps, .affine = affine});
  if (type == "group_norm")
    return make<nn::GroupNorm>(s.integer("groups"), c, nn::GroupNormOptions{.eps = eps, .affine = affine});
  const double momentum = s.number("momentum");
  if (type == "instance_norm")
    return make<nn::InstanceNorm>(
        c, nn::InstanceNormOptions{.eps = eps, .momentum = momentum, .affine = affine, .track = s.boolean("track")});
  nn::BatchNormOptions o{.eps = eps, .momentum = momentum, .affine = affine};
  if (s.boolean("cumulative")) o.momentum.reset();
  return make<nn::BatchNorm>(c, o);
}

LayerPtr embedding(Section& s) {
  nn::EmbeddingOptions o;
  if (s.has("padding")) o.padding = s.integer("padding");
  return make<nn::Embedding>(s.integer("ids"), s.integer("units"), std::move(o));
}

// nullptr for another type.
LayerPtr regulariser(Section& s) {
  const std::string& type = s.type();
  if (type == "dropout") return make<nn::Dropout>(s.number("rate"));
  if (type == "spatial_dropout") return make<nn::SpatialDropout>(s.number("rate"));
  if (type == "alpha_dropout") return make<nn::AlphaDropout>(s.number("rate"));
  if (type == "drop_path") return make<nn::DropPath>(s.number("rate"));
  return nullptr;
}

LayerPtr residual(Section& s, const Shape& in) {
  Shape inner = in, skip = in;
  nn::Sequential layers = read_layers(*s.value("layers"), s.path() + ".layers", inner);
  std::optional<nn::Sequential> shortcut;
  if (Node* n = s.value("shortcut")) shortcut = read_layers(*n, s.path() + ".shortcut", skip);
  return make<nn::Residual>(std::move(layers), std::move(shortcut));
}

LayerPtr gpt(Section& s, const Shape& in) {
  if (in.rank() != 2) s.wrong("type", fmt::format("expected model.input = [context], got {} (with the batch)", in));
  const std::string f = s.text("activation");
  return make<nn::GPT>(s.integer("vocabulary"), in[1],
                       nn::GPTOptions{.layers = s.integer("layers"),
                                      .heads = s.integer("heads"),
                                      .width = s.integer("width"),
                                      .hidden = s.integer("hidden"),
                                      .key_heads = s.integer("key_heads"),
                                      .dropout = s.number("dropout"),
                                      .bias = s.boolean("bias"),
                                      .tie = s.boolean("tie"),
                                      .rotary = s.text("positions") == "rotary",
                                      .activation = f == "relu"        ? nn::FeedForward::relu
                                                    : f == "gelu_tanh" ? nn::FeedForward::gelu_tanh
                                                    : f == "silu"      ? nn::FeedForward::silu
                                                                       : nn::FeedForward::gelu});
}

LayerPtr onnx_model(Section& s) {
  return make<onnx::Model>(s.text("file"), onnx::ImportOptions{.channels_last = s.boolean("channels_first")});
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

// Those with a number, and the gated ones; nullptr for another type.
LayerPtr activation_with_options(Section& s, const Shape& in) {
  const std::string& type = s.type();
  if (type == "gelu") return make<nn::GELU>(s.boolean("approximate"));
  if (type == "leaky_relu") return make<nn::LeakyReLU>(s.number("slope"));
  if (type == "prelu") return make<nn::PReLU>(s.boolean("shared") ? 1 : channels(s, in), s.number("slope"));
  if (type == "elu") return make<nn::ELU>(s.number("alpha"));
  if (type == "celu") return make<nn::CELU>(s.number("alpha"));
  if (type == "hard_tanh") return make<nn::HardTanh>(s.number("low"), s.number("high"));
  if (type == "hard_shrink") return make<nn::HardShrink>(s.number("lambda"));
  if (type == "soft_shrink") return make<nn::SoftShrink>(s.number("lambda"));
  if (type == "glu") return make<nn::GLU>(nn::Gate::sigmoid);
  if (type == "geglu") return make<nn::GLU>(nn::Gate::gelu);
  if (type == "swiglu") return make<nn::GLU>(nn::Gate::silu);
  if (type == "reglu") return make<nn::GLU>(nn::Gate::relu);
  return nullptr;
}

struct PlainLayer {
  std::string_view type;
  LayerPtr (*make)();
};
template <class L> LayerPtr plain() { return make<L>(); }

// Layers without options.
constexpr PlainLayer kPlain[] = {
    {"global_avg_pool", plain<nn::GlobalAvgPool>},
    {"global_max_pool", plain<nn::GlobalMaxPool>},
    {"identity", plain<nn::Identity>},
    {"relu", plain<nn::ReLU>},
    {"relu6", plain<nn::ReLU6>},
    {"tanh", plain<nn::Tanh>},
    {"sigmoid", plain<nn::Sigmoid>},
    {"hard_sigmoid", plain<nn::HardSigmoid>},
    {"log_sigmoid", plain<nn::LogSigmoid>},
    {"silu", plain<nn::SiLU>},
    {"hard_swish", plain<nn::HardSwish>},
    {"mish", plain<nn::Mish>},
    {"selu", plain<nn::SELU>},
    {"softplus", plain<nn::Softplus>},
    {"softsign", plain<nn::Softsign>},
    {"tanh_shrink", plain<nn::TanhShrink>},
    {"softmax", plain<nn::Softmax>},
    {"log_softmax", plain<nn::LogSoftmax>},
};

// Layers with weights or windows; nullptr for another type.
LayerPtr product_or_pool(Section& s, const Shape& in) {
  const std::string& type = s.type();
  if (type == "linear") return linear(s, in);
  if (type == "conv1d") return conv<1>(s, in);
  if (type == "conv2d") return conv<2>(s, in);
  if (type == "conv3d") return conv<3>(s, in);
  if (type == "conv_transpose1d") return conv_transpose<1>(s, in);
  if (type == "conv_transpose2d") return conv_transpose<2>(s, in);
  if (type == "conv_transpose3d") return conv_transpose<3>(s, in);
  if (type == "embedding") return embedding(s);
  if (type == "max_pool") return max_pool(s);
  if (type == "avg_pool") return avg_pool(s);
  if (type == "adaptive_max_pool") return make<nn::AdaptiveMaxPool>(s.integers("sizes"));
  if (type == "adaptive_avg_pool") return make<nn::AdaptiveAvgPool>(s.integers("sizes"));
  return nullptr;
}

LayerPtr layer(Section& s, const Shape& in) {
  const std::string& type = s.type();
  for (const PlainLayer& p : kPlain)
    if (p.type == type) return p.make();
  if (LayerPtr made = product_or_pool(s, in)) return made;
  if (LayerPtr made = regulariser(s)) return made;
  if (LayerPtr made = activation_with_options(s, in)) return made;
  if (type == "flatten") return make<nn::Flatten>(nn::FlattenOptions{.channels_first = s.boolean("channels_first")});
  if (type == "rnn") return recurrent<nn::RNN>(s, in);
  if (type == "gru") return recurrent<nn::GRU>(s, in);
  if (type == "lstm") return recurrent<nn::LSTM>(s, in);
  if (type == "residual") return residual(s, in);
  if (type == "gpt") return gpt(s, in);
  if (type == "onnx") return onnx_model(s);
  return norm(s, in);
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

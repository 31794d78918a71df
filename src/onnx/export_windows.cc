// Convolutions and pools: ONNX's take channels first.
#include <algorithm>

#include "base/error.h"
#include "onnx/exporter.h"
#include "state/weight_layout.h"

namespace bp::onnx {

using ir::NodeId;
using ir::OpId;
using proto::Attribute;

// One function an op; a struct, so that their names are its own.
struct WindowRules {
  static std::vector<Attribute> shared(Exporter& e, NodeId i, const std::vector<std::int64_t>& window) {
    std::vector<std::int64_t> pads = e.fixed_ints(i, "padding_low");
    const std::vector<std::int64_t> high = e.fixed_ints(i, "padding_high");
    pads.insert(pads.end(), high.begin(), high.end());
    return {Attribute::of("kernel_shape", window), Attribute::of("pads", pads),
            Attribute::of("strides", e.fixed_ints(i, "stride"))};
  }

  // [k.., in, out] as [out, in, k..]: laid out when written, if it is an initializer.
  static std::string kernel(Exporter& e, ir::Value w) {
    const Named& n = e.slot(w);
    const int rank = e.rank(w);
    if (!n.channels_first.empty()) return n.channels_first;
    if (n.weight != nullptr) {
      e.shared().main->initializers.emplace_back(e.fresh(n.weight_name), to_pytorch(*n.weight));
      return e.slot(w).channels_first = e.shared().main->initializers.back().first;
    }
    std::vector<std::int64_t> p{rank - 1, rank - 2};
    for (int d = 0; d < rank - 2; ++d) p.push_back(d);
    return e.emit("Transpose", {e.plain(w)}, {Attribute::of("perm", p)});
  }
  static std::vector<std::int64_t> window_of(const Exporter& e, ir::Value w) {
    const Shape& s = e.type(w).shape;
    return {s.begin(), s.end() - 2};
  }

  static void conv(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    std::vector<Attribute> attributes = shared(e, i, window_of(e, n.inputs[1]));
    attributes.push_back(Attribute::of("dilations", e.fixed_ints(i, "dilation")));
    attributes.push_back(Attribute::of("group", n.attrs.integer("groups")));
    const std::string x = e.channels_first(n.inputs[0]), w = kernel(e, n.inputs[1]);
    e.slot({i, 0}).channels_first = e.emit("Conv", {x, w}, std::move(attributes));
  }

  // Elements of the result that no window reaches from the end.
  static void conv_transpose(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const std::vector<std::int64_t> window = window_of(e, n.inputs[1]), spatial = e.fixed_ints(i, "spatial"),
                                    stride = e.fixed_ints(i, "stride"), dilation = e.fixed_ints(i, "dilation"),
                                    low = e.fixed_ints(i, "padding_low"), high = e.fixed_ints(i, "padding_high");
    std::vector<std::int64_t> rest;
    for (std::size_t d = 0; d < window.size(); ++d) {
      const std::int64_t y = e.type(n.inputs[0]).shape[static_cast<int>(d) + 1];
      rest.push_back(spatial[d] - ((y - 1) * stride[d] + dilation[d] * (window[d] - 1) + 1 - low[d] - high[d]));
    }
    std::vector<Attribute> attributes = shared(e, i, window);
    attributes.push_back(Attribute::of("dilations", dilation));
    attributes.push_back(Attribute::of("group", n.attrs.integer("groups")));
    attributes.push_back(Attribute::of("output_padding", rest));
    const std::string y = e.channels_first(n.inputs[0]), w = kernel(e, n.inputs[1]);
    e.slot({i, 0}).channels_first = e.emit("ConvTranspose", {y, w}, std::move(attributes));
  }

  static void max_pool(Exporter& e, NodeId i) {
    std::vector<Attribute> attributes = shared(e, i, e.fixed_ints(i, "window"));
    attributes.push_back(Attribute::of("dilations", e.fixed_ints(i, "dilation")));
    const std::string x = e.channels_first(e.node(i).inputs[0]);
    e.slot({i, 0}).channels_first = e.emit("MaxPool", {x}, std::move(attributes));
  }

  static void avg_pool(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    std::vector<Attribute> attributes = shared(e, i, e.fixed_ints(i, "window"));
    attributes.push_back(Attribute::of("count_include_pad", std::int64_t{n.attrs.flag("count_include_pad")}));
    const std::string x = e.channels_first(n.inputs[0]);
    e.slot({i, 0}).channels_first = e.emit("AveragePool", {x}, std::move(attributes));
  }
};

Rule window_rule_of(OpId op) {
  switch (op) {
    case OpId::conv: return WindowRules::conv;
    case OpId::conv_input_grad: return WindowRules::conv_transpose;
    case OpId::max_pool: return WindowRules::max_pool;
    case OpId::avg_pool: return WindowRules::avg_pool;
    default: return nullptr;
  }
}

}  // namespace bp::onnx

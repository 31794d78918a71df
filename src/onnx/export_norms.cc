// Batch normalisation in evaluation mode is arithmetic once it is captured. Here it is found again and written as
// ONNX's BatchNormalization, which others fold into a convolution, and which knows its statistics from its parameters.
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx/exporter.h"

namespace bp::onnx {

using ir::NodeId;
using ir::OpId;
using ir::Value;

namespace {

// Looks for (x - mean) * (weight * rsqrt(var + eps)) + bias, where all but x lie along the channels, the last axis.
class NormFinder {
 public:
  NormFinder(const Exporter& e, ExportedNorm& n) : e_(e), n_(n) {}

  bool whole(Value v) {  // weight and bias may be missing
    for (const auto& [centred, bias] : orders(v, OpId::add))
      if (along_channels(bias) && scaled(centred)) return n_.bias = source(bias), true;
    return scaled(v);
  }

 private:
  bool is(Value v, OpId op) const { return e_.node(v.node).op == op; }
  Value operand(Value v, std::size_t i) const { return e_.node(v.node).inputs[i]; }
  Value source(Value v) const { return operand(v, 0); }  // of a broadcast

  // Both ways to read a + b and a * b; none when `v` is another operation.
  std::vector<std::pair<Value, Value>> orders(Value v, OpId op) const {
    if (!is(v, op)) return {};
    return {{operand(v, 0), operand(v, 1)}, {operand(v, 1), operand(v, 0)}};
  }
  bool along_channels(Value v) const {
    return is(v, OpId::broadcast) && e_.rank(v) >= 2 && e_.rank(source(v)) == 1 &&
           e_.type(source(v)).shape[0] == e_.type(v).shape[e_.rank(v) - 1];
  }
  // A layer's own statistics, by their names: others may be trained.
  bool is_statistic(Value v, std::string_view name) const {
    const std::string* weight = e_.weight_name(v);
    return weight != nullptr && weight->ends_with(name);
  }

  bool scaled(Value v) {
    for (const auto& [centred, scale] : orders(v, OpId::mul))
      if (along_channels(scale) && is(centred, OpId::sub) && along_channels(operand(centred, 1)) &&
          is_statistic(source(operand(centred, 1)), "running_mean") && weighted(source(scale))) {
        n_.x = operand(centred, 0);
        n_.mean = source(operand(centred, 1));
        return true;
      }
    return false;
  }
  bool weighted(Value v) {
    for (const auto& [root, weight] : orders(v, OpId::mul))
      if (inverse_deviation(root)) return n_.weight = weight, true;
    return inverse_deviation(v);
  }
  bool inverse_deviation(Value v) {
    if (!is(v, OpId::rsqrt)) return false;
    for (const auto& [var, eps] : orders(source(v), OpId::add))
      if (is(eps, OpId::full) && is_statistic(var, "running_var")) {
        n_.var = var;
        n_.epsilon = e_.node(eps.node).attrs.real("value");
        return true;
      }
    return false;
  }

  const Exporter& e_;
  ExportedNorm& n_;
};

}  // namespace

std::vector<Value> ExportedNorm::operands() const {
  std::vector<Value> all{x, mean, var};
  for (const auto& v : {weight, bias})
    if (v) all.push_back(*v);
  return all;
}

const std::string* Exporter::weight_name(Value v) const {
  const auto& outputs = values_[v.node];
  return outputs.empty() || outputs[v.output].weight == nullptr ? nullptr : &outputs[v.output].weight_name;
}

std::optional<ExportedNorm> Exporter::batch_norm_at(NodeId i) const {
  ExportedNorm n;
  if (node(i).types.size() != 1 || !is_float(type({i, 0}).dtype) || !NormFinder(*this, n).whole({i, 0}))
    return std::nullopt;
  return n;
}

void Exporter::write_batch_norm(NodeId i, const ExportedNorm& n) {
  path_ = ir::scope_path(node(i).scope);
  const bool first = rank(n.x) > 2;
  const auto filled = [&](double value) {
    const Type& t = type(n.mean);
    return constant(
        convert(Array::from(std::vector<double>(static_cast<std::size_t>(t.shape[0]), value), t.shape), t.dtype));
  };
  const std::vector<std::string> in{first ? channels_first(n.x) : plain(n.x), n.weight ? plain(*n.weight) : filled(1),
                                    n.bias ? plain(*n.bias) : filled(0), plain(n.mean), plain(n.var)};
  const std::string name = emit("BatchNormalization", in, {proto::Attribute::of("epsilon", n.epsilon)});
  (first ? slot({i, 0}).channels_first : slot({i, 0}).plain) = name;
}

}  // namespace bp::onnx

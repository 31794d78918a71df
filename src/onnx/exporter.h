// From a captured graph to an ONNX graph. Two captures of the same function, at two batch sizes, show which numbers
// depend on the batch: each is slope * N + offset.
//
// Called by export.cc; the rules for each op are in export_ops.cc and export_windows.cc, those for what several ops
// make in export_norms.cc.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "onnx/proto.h"

namespace bp::onnx {

// slope * N + offset.
struct Extent {
  std::int64_t slope = 0, offset = 0;
  bool fixed() const noexcept { return slope == 0; }
  bool is(std::int64_t n) const noexcept { return slope == 0 && offset == n; }
  friend bool operator==(const Extent&, const Extent&) = default;
};
using Extents = std::vector<Extent>;
std::string str(const Extent& e);

// What all graphs of one file share.
struct Shared {
  proto::Graph* main = nullptr;
  std::int64_t batch[2] = {0, 0};  // of the two captures; equal when no size is symbolic
  std::string first_input;         // whose first dimension is N
  std::vector<proto::Node> prologue;
  std::string batch_name;  // i64[1]; empty until somebody needs it
  std::unordered_set<std::string> taken;
  std::unordered_map<std::string, std::string> constants;  // by content
};

// One value of the captured graph and the ONNX names under which it exists so far.
struct Named {
  std::string plain = {};           // as it lies here
  std::string channels_first = {};  // [N, s.., C] as [N, C, s..]
  // It is `source` (whose dimensions align at the right) broadcast to its type; no name until somebody needs it whole.
  std::string source = {};
  Extents source_extents = {};
  const Array* weight = nullptr;  // an initializer that is not written yet
  std::string weight_name = {};
};

// A batch normalisation by kept statistics, and what it is made of.
struct ExportedNorm {
  ir::Value x, mean, var;
  std::optional<ir::Value> weight = {}, bias = {};
  double epsilon = 0;
  std::vector<ir::Value> operands() const;
};

class Exporter {
 public:
  // `other`: the same graph captured at the other batch size.
  Exporter(Shared& shared, const ir::Graph& g, const ir::Graph& other, proto::Graph& out)
      : shared_(shared), g_(g), other_(other), out_(out), values_(g.nodes.size()) {}

  void bind(ir::Value v, Named named) { slot(v) = std::move(named); }
  void run();  // all nodes

  // The names of a value, made when they are first asked for.
  std::string plain(ir::Value v);
  std::string channels_first(ir::Value v);
  proto::ValueInfo info(ir::Value v, const std::string& name, bool first = false) const;

  std::string fresh(const std::string& base);
  std::string constant(const Array& a);
  std::string integers(const std::vector<std::int64_t>& values);
  void finish(ir::Value v, const std::string& name, bool first);  // an output of the graph

  // For the rules.
  Named& slot(ir::Value v);
  const ir::Node& node(ir::NodeId i) const { return g_.nodes[i]; }
  const Type& type(ir::Value v) const { return g_.type(v); }
  int rank(ir::Value v) const { return type(v).shape.rank(); }
  Extents extents(ir::Value v) const;
  Extent extent_of(std::int64_t a, std::int64_t b, ir::NodeId at) const;
  Extents ints(ir::NodeId i, const char* attribute) const;
  std::vector<std::int64_t> fixed_ints(ir::NodeId i, const char* attribute) const;
  [[noreturn]] void refuse(ir::NodeId i, std::string_view why) const;

  // Adds a node; the name of its first output.
  std::string emit(const std::string& op, std::vector<std::string> inputs,
                   std::vector<proto::Attribute> attributes = {}, const std::string& name = {});
  std::vector<std::string> emit_many(const std::string& op, std::vector<std::string> inputs, std::size_t outputs,
                                     std::vector<proto::Attribute> attributes);
  std::string shape_value(const Extents& e);  // i64[rank]
  std::string batch();
  std::string reshaped(const std::string& x, const Extents& to);
  std::string scalar(double value, DType dtype);
  std::string cast(const std::string& x, DType to);
  std::string expanded(const std::string& source, const Extents& to);

  void set(ir::NodeId i, std::string plain_name) { slot({i, 0}).plain = std::move(plain_name); }
  bool prefers_channels_first(std::span<const ir::Value> inputs) const;
  std::vector<std::string> elementwise_operands(std::span<const ir::Value> inputs, const Extents& result, bool first);
  // Of a value that is an initializer, not written yet; else null.
  const std::string* weight_name(ir::Value v) const;
  const ir::Graph& other() const { return other_; }
  Shared& shared() { return shared_; }

 private:
  void visit(ir::NodeId i);
  std::optional<ExportedNorm> batch_norm_at(ir::NodeId i) const;
  void write_batch_norm(ir::NodeId i, const ExportedNorm& n);
  std::string channels_first_source(const Named& n, int to_rank);

  Shared& shared_;
  const ir::Graph &g_, &other_;
  proto::Graph& out_;
  std::vector<std::vector<Named>> values_;
  std::unordered_map<std::string, std::string> shapes_;
  std::string path_;  // of the scope of the node under way, for names
};

// The rules, by op; null for what ONNX has no words for.
using Rule = void (*)(Exporter&, ir::NodeId);
Rule rule_of(ir::OpId op);
Rule window_rule_of(ir::OpId op);

}  // namespace bp::onnx

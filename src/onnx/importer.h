// A node of an ONNX graph on its way to bp's operations. The builders, by operator, are in import_*.cc; import.cc walks
// graphs and calls them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bp/ops.h"
#include "onnx/proto.h"

namespace bp::onnx {

using Ints64 = std::vector<std::int64_t>;
using Tensors = std::vector<Tensor>;
// Values by name; a graph within a graph sees the names around it.
using Environment = std::unordered_map<std::string, Tensor>;

// Of sizes that a file asks for and that take memory, or time, while the model is built.
constexpr std::int64_t kMostPlaces = 1 << 24;
constexpr std::size_t kMostUnrolled = std::size_t{1} << 16;  // operations of loops in a call, loops within loops too
inline bool too_large(std::int64_t n) noexcept { return n > kMostPlaces || n < -kMostPlaces; }

// What a node may change beside its outputs: state of the module.
class Host {
 public:
  virtual ~Host() = default;
  virtual Tensors run_graph(const proto::Graph& g, Environment environment) = 0;
  // Gives the Variable behind an initializer a new value; nothing happens for what is none.
  virtual void update(const std::string& name, const Tensor& value) = 0;
  virtual Tensor random_state() = 0;  // i64[2], another one each time
  // Before operations of a loop are recorded once more: false where loops have come to more than kMostUnrolled.
  virtual bool unrolls(std::size_t operations) = 0;
};

// One node with its operands. Getters throw Error(value) naming operator and node.
class Call {
 public:
  Call(Host& h, const proto::Node& n, const Environment& around, std::int64_t set, Tensors operands)
      : host(h), node(n), environment(around), opset(set), in(std::move(operands)) {}

  [[noreturn]] void refuse(std::string_view why) const;
  bool has(std::size_t i) const noexcept { return i < in.size() && in[i].defined(); }
  const Tensor& at(std::size_t i) const;  // refuses what is missing
  bool wants(std::size_t output) const noexcept {
    return output < node.outputs.size() && !node.outputs[output].empty();
  }

  const proto::Attribute* find(std::string_view name) const noexcept;
  std::int64_t integer(std::string_view name, std::int64_t otherwise) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name, double otherwise) const;
  std::string text(std::string_view name, const std::string& otherwise) const;
  Ints64 integers(std::string_view name, const Ints64& otherwise = {}) const;
  std::vector<float> numbers(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;
  const proto::Graph& graph(std::string_view name) const;

  // The elements of an operand that must be known before anything runs: shapes, axes, sizes. Refuses what depends on
  // an argument of a compiled step or on a parameter.
  bool known(std::size_t i) const;
  template <class T = std::int64_t> std::vector<T> values(std::size_t i) const {
    require_known(i);
    return in[i].to_vector<T>();
  }
  // Of operand i, or of an attribute, where operator sets moved one to the other.
  Ints64 integers_at(std::size_t i, std::string_view attribute, const Ints64& otherwise = {}) const;
  int axis(std::int64_t value, int rank) const;

  Host& host;
  const proto::Node& node;
  const Environment& environment;
  std::int64_t opset;
  Tensors in;

 private:
  void require_known(std::size_t i) const;
};

using Builder = Tensors (*)(const Call&);
using Builders = std::unordered_map<std::string_view, Builder>;
// One table a file.
const Builders& math_builders();
const Builders& shape_builders();
const Builders& layer_builders();
const Builders& loop_builders();

// Runs `f` outside of any trace and evaluates its results: for what depends on constants only.
Tensors computed_now(const std::function<Tensors()>& f);
bool is_known(const Tensor& t);

Tensor constant_tensor(const Array& a);
inline Tensor integers_tensor(const Ints64& v) { return Tensor::from(v, Shape{static_cast<std::int64_t>(v.size())}); }
inline Shape shape_from(const Ints64& v) { return Shape(std::span<const std::int64_t>(v)); }

}  // namespace bp::onnx

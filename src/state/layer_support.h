// What the layers share: messages, checks of input and parameters, filling. Used by src/state/*.cc only.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"
#include "bp/layers.h"

namespace bp::nn {

// "[conv2d] block1.conv2:"
inline std::string prefix(const Layer& layer) {
  return layer.path().empty() ? fmt::format("[{}]", layer.kind()) : fmt::format("[{}] {}:", layer.kind(), layer.path());
}

// shape_error(*this, "input [.., 784]", x.shape())
[[noreturn]] inline void shape_error(const Layer& layer, const std::string& expected, const Shape& got) {
  fail(ErrorKind::shape, "{} expected {}, got {}", prefix(layer), expected, got);
}

// A parameter at zero. Its version stays 0 until somebody gives it a value.
inline Variable parameter(std::initializer_list<std::int64_t> dims, double value = 0, bool trainable = true) {
  const Shape shape(dims);
  const std::vector<float> values(static_cast<std::size_t>(shape.numel()), static_cast<float>(value));
  return Variable(Tensor::from(values, shape), trainable);
}

inline void require_values(const Layer& layer, const Variable& weight) {
  if (weight.version() == 0)
    fail(ErrorKind::state, "{} the parameters have no values yet: call nn::init(model, Key{{seed}}) or load_state",
         prefix(layer));
}

inline void initialise(Variable& variable, const Initializer& initializer, Fans fans, Key key) {
  variable.set(initializer(variable.shape(), fans, key, variable.dtype()));
}

inline std::string list(const std::vector<std::int64_t>& values) { return Shape(std::span(values)).str(); }

// Expands one size to all `dims`; throws Error(value) for another number of sizes or one below `least`.
inline std::vector<std::int64_t> per_dim(const char* kind, const char* what, const Sizes& sizes, int dims,
                                         std::int64_t least) {
  std::vector<std::int64_t> v = sizes.values();
  if (v.size() == 1) v.assign(static_cast<std::size_t>(dims), v[0]);
  if (static_cast<int>(v.size()) != dims)
    fail(ErrorKind::value, "[{}] {}: expected 1 or {} sizes, got {}", kind, what, dims, v.size());
  for (const std::int64_t n : v)
    if (n < least) fail(ErrorKind::value, "[{}] {}: expected sizes of {} or more, got {}", kind, what, least, list(v));
  return v;
}

inline void require_size(const char* kind, const char* what, std::int64_t n) {
  if (n < 1) fail(ErrorKind::value, "[{}] {}: expected 1 or more, got {}", kind, what, n);
}

}  // namespace bp::nn

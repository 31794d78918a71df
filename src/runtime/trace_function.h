// Tracing a function of Tensors once into a graph. Used by compile; by export and inspection later.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "trace/node.h"

namespace bp::runtime {

struct Traced {
  ir::Graph graph;  // inputs: arguments, then states, then constants
  std::vector<std::shared_ptr<detail::Cell>> states;
  std::vector<std::pair<std::size_t, std::size_t>> updates;  // (output, state)
  std::vector<Type> result_types;                            // outputs 0..n-1
  std::vector<Tensor> constants;
};

using Body = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

// Throws what the function throws; no Variable is changed by tracing. `guard`: states keep their old values when the
// first result is not finite.
Traced trace_function(const Body& body, std::span<const Type> arguments, Mode mode, const std::string& name,
                      bool guard = false);

}  // namespace bp::runtime

// Counting floating-point operations.
#include "ir/flops.h"

namespace bp::ir {

double node_flops(const Graph& g, const Node& n) {
  const OpDef& def = op_def(n.op);
  if (def.flops != nullptr) {
    std::vector<Type> in;
    in.reserve(n.inputs.size());
    for (Value v : n.inputs) in.push_back(g.type(v));
    return def.flops(in, n.types, n.attrs);
  }
  return def.cls == OpClass::elementwise ? static_cast<double>(n.types[0].shape.numel()) : 0;
}

double graph_flops(const Graph& g) {
  double sum = 0;
  for (const Node& n : g.nodes) sum += node_flops(g, n);
  return sum;
}

}  // namespace bp::ir

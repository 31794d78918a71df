// The reference interpreter.
#include "ops/interpret.h"

#include <cassert>

namespace bp::ops {

std::vector<std::vector<Buffer>> interpret_all(const ir::Graph& g, std::span<const void* const> inputs) {
  assert(inputs.size() == g.inputs.size());
  std::vector<std::vector<Buffer>> values(g.nodes.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const ir::NodeId n = g.inputs[i].node;
    values[n] = {Buffer::wrap(const_cast<void*>(inputs[i]), g.nodes[n].types[0].bytes(), nullptr)};
  }
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i) {
    const ir::Node& n = g.nodes[i];
    if (n.op == ir::OpId::input) continue;
    std::vector<ir::View> in, out;
    for (ir::Value v : n.inputs) in.push_back({values[v.node][v.output].mutable_data(), g.type(v)});
    for (const Type& t : n.types) {
      values[i].push_back(Buffer::allocate(t.bytes()));
      out.push_back({values[i].back().mutable_data(), t});
    }
    ir::op_def(n.op).reference({in, out, n.attrs});
  }
  return values;
}

std::vector<Buffer> interpret(const ir::Graph& g, std::span<const void* const> inputs) {
  const auto values = interpret_all(g, inputs);
  std::vector<Buffer> out;
  for (const ir::Output& o : g.outputs) out.push_back(values[o.value.node][o.value.output]);
  return out;
}

}  // namespace bp::ops

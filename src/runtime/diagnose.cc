// The first value of a graph that is not finite.
#include "runtime/diagnose.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/interpret.h"

namespace bp::runtime {

namespace {

struct Range {
  std::int64_t bad = -1;  // the first element that is not finite
  double value = 0;
  double low = INFINITY, high = -INFINITY;
};

Range range_of(const Buffer& b, const Type& t) {
  Range r;
  if (!is_float(t.dtype)) return r;
  dispatch(t.dtype, [&](auto zero) {
    const auto* p = b.as<decltype(zero)>();
    for (std::int64_t i = 0; i < t.shape.numel(); ++i) {
      const auto x = static_cast<double>(p[i]);
      if (!std::isfinite(x)) {
        if (r.bad < 0) {
          r.bad = i;
          r.value = x;
        }
        continue;
      }
      r.low = std::min(r.low, x);
      r.high = std::max(r.high, x);
    }
  });
  return r;
}

std::string describe_input(const ir::Graph& g, ir::NodeId n) {
  for (const ir::Input& in : g.inputs)
    if (in.node == n) return in.name.empty() ? "a constant" : in.name;
  return "an input";
}

}  // namespace

std::string first_nonfinite(const ir::Graph& g, std::span<const void* const> inputs) {
  const auto values = ops::interpret_all(g, inputs);
  for (ir::NodeId i = 0; i < g.nodes.size(); ++i) {
    const ir::Node& n = g.nodes[i];
    if (n.op == ir::OpId::full) continue;  // a constant of the program: infinite on purpose where it is
    for (std::uint32_t k = 0; k < n.types.size(); ++k) {
      const Range r = range_of(values[i][k], n.types[k]);
      if (r.bad < 0) continue;
      if (n.op == ir::OpId::input)
        return fmt::format("{} holds {} at element {} of {}", describe_input(g, i), r.value, r.bad, n.types[k].str());
      std::string operands;
      for (ir::Value v : n.inputs) {
        const Range in = range_of(values[v.node][v.output], g.type(v));
        operands +=
            fmt::format("{}{} in [{:.4g}, {:.4g}]", operands.empty() ? "" : ", ", g.type(v).str(), in.low, in.high);
      }
      const std::string& scope = ir::scope_path(n.scope);
      return fmt::format("[{}]{}{}: the first operation to give {} (element {} of {}; operands: {})", ir::name_of(n.op),
                         scope.empty() ? "" : " " + scope, n.backward ? " (backward)" : "", r.value, r.bad,
                         n.types[k].str(), operands);
    }
  }
  return {};
}

}  // namespace bp::runtime

// The first value of a graph that is not finite.
#include "runtime/diagnose.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ir/body.h"
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

namespace {

std::string describe(const ir::Graph& g, ir::NodeId i, std::uint32_t output, const Range& r,
                     const std::vector<std::vector<Buffer>>& values) {
  const ir::Node& n = g.nodes[i];
  const Type& type = n.types[output];
  if (n.op == ir::OpId::input)
    return fmt::format("{} holds {} at element {} of {}", describe_input(g, i), r.value, r.bad, type.str());
  std::string operands;
  for (ir::Value v : n.inputs) {
    const Range in = range_of(values[v.node][v.output], g.type(v));
    operands += fmt::format("{}{} in [{:.4g}, {:.4g}]", operands.empty() ? "" : ", ", g.type(v).str(), in.low, in.high);
  }
  const std::string& scope = ir::scope_path(n.scope);
  return fmt::format("[{}]{}{}: the first operation to give {} (element {} of {}; operands: {})", ir::name_of(n.op),
                     scope.empty() ? "" : " " + scope, n.backward ? " (backward)" : "", r.value, r.bad, type.str(),
                     operands);
}

// The first value that is not finite inside a loop, and in which iteration; nothing when only its operands are to
// blame.
std::string first_in_scan(const ir::Node& n, const std::vector<std::vector<Buffer>>& values) {
  const ir::Graph& body = ir::body_of(n.attrs);
  const ir::ScanLayout layout(n.attrs);
  std::vector<const void*> in;
  std::vector<std::size_t> bytes;
  for (std::size_t k = 0; k < n.inputs.size(); ++k) {
    in.push_back(values[n.inputs[k].node][n.inputs[k].output].data());
    bytes.push_back(body.nodes[body.inputs[k].node].types[0].bytes());
  }
  const std::vector<const void*> first = in;
  std::vector<Buffer> carries;
  for (std::int64_t i = 0; i < layout.length; ++i) {
    for (std::size_t k = layout.first_slice(); k < in.size(); ++k)
      in[k] = static_cast<const std::byte*>(first[k]) + static_cast<std::size_t>(layout.at(i)) * bytes[k];
    std::string found = first_nonfinite(body, in);
    if (!found.empty()) return fmt::format("{}, in iteration {} of {}", found, layout.at(i), layout.length);
    const std::vector<Buffer> out = ops::interpret(body, in);
    std::vector<Buffer> next;
    for (std::size_t k = 0; k < layout.carries; ++k) next.push_back(out[k].clone());
    carries = std::move(next);
    for (std::size_t k = 0; k < layout.carries; ++k) in[layout.invariants + k] = carries[k].data();
  }
  return {};
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
      if (n.op == ir::OpId::scan)
        if (std::string inside = first_in_scan(n, values); !inside.empty()) return inside;
      return describe(g, i, k, r, values);
    }
  }
  return {};
}

}  // namespace bp::runtime

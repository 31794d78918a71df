// ONNX's graphs within graphs: If, Loop and Scan.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "bp/scan.h"
#include "onnx/importer.h"

namespace bp::onnx {

// One function an operator; a struct, so that their names are its own.
struct LoopImport {
  static Tensors branch(const Call& c) {
    const auto run = [&](const char* which) { return c.host.run_graph(c.graph(which), c.environment); };
    if (c.known(0)) return run(c.values<double>(0).at(0) != 0 ? "then_branch" : "else_branch");
    return cond(
        c.at(0), [&](std::span<const Tensor>) { return run("then_branch"); },
        [&](std::span<const Tensor>) { return run("else_branch"); }, {});
  }

  static void bind(const Call& c, const proto::Graph& g, std::span<const Tensor> values, Environment& environment) {
    if (g.inputs.size() != values.size())
      c.refuse(fmt::format("its graph has {} inputs for {} values", g.inputs.size(), values.size()));
    for (std::size_t i = 0; i < values.size(); ++i) environment[g.inputs[i].name] = values[i];
  }

  // Unrolled: how often it runs must be known.
  static Tensors loop(const Call& c) {
    const proto::Graph& body = c.graph("body");
    const std::int64_t most = c.has(0) ? c.values(0).at(0) : INT64_MAX;
    bool go_on = !c.has(1) || c.values<double>(1).at(0) != 0;
    Tensors carry(c.in.begin() + std::min<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(c.in.size())), c.in.end());
    if (body.outputs.size() < carry.size() + 1) c.refuse("its graph has fewer outputs than carries");
    std::vector<Tensors> stacked(body.outputs.size() - 1 - carry.size());
    for (std::int64_t i = 0; i < most && go_on; ++i) {
      if (!c.host.unrolls(1 + body.nodes.size()))
        c.refuse(fmt::format("loops of more than {} operations in all are not unrolled", kMostUnrolled));
      Environment inside = c.environment;
      Tensors in{Tensor::from(std::vector<std::int64_t>{i}, Shape{}),
                 Tensor::from(std::vector<std::uint8_t>{1}, Shape{})};
      in[1] = computed_now([&] { return Tensors{cast(in[1], DType::boolean)}; })[0];
      in.insert(in.end(), carry.begin(), carry.end());
      bind(c, body, in, inside);
      const Tensors out = c.host.run_graph(body, std::move(inside));
      if (!is_known(out[0])) c.refuse("whether the loop goes on depends on an argument or a parameter");
      go_on = out[0].item() != 0;
      std::copy_n(out.begin() + 1, carry.size(), carry.begin());
      for (std::size_t k = 0; k < stacked.size(); ++k) stacked[k].push_back(out[1 + carry.size() + k]);
    }
    for (const Tensors& parts : stacked) {
      if (parts.empty()) c.refuse("a loop that never runs has no outputs to stack");
      carry.push_back(stack(parts, 0));
    }
    return carry;
  }

  static Tensor time_first(const Call& c, const Tensor& x, std::int64_t axis, bool back) {
    const int a = c.axis(axis, x.rank());
    if (a == 0) return x;
    Axes p;
    for (int d = 0; d < x.rank(); ++d)
      if (d != (back ? 0 : a)) p.push_back(d);
    p.insert(p.begin() + (back ? a : 0), back ? 0 : a);
    return transpose(x, p);
  }

  static Tensors scan_over(const Call& c) {
    if (c.opset < 9) c.refuse("the Scan of operator set 8 is not supported");
    const proto::Graph& body = c.graph("body");
    const auto slices = static_cast<std::size_t>(c.integer("num_scan_inputs"));
    if (slices == 0 || slices > c.in.size()) c.refuse(fmt::format("{} scan inputs of {}", slices, c.in.size()));
    const std::size_t carries = c.in.size() - slices;
    const Ints64 directions = c.integers("scan_input_directions", Ints64(slices, 0)),
                 axes = c.integers("scan_input_axes", Ints64(slices, 0));
    if (body.outputs.size() < carries) c.refuse("its graph has fewer outputs than carries");
    const std::size_t outs = body.outputs.size() - carries;
    const Ints64 out_directions = c.integers("scan_output_directions", Ints64(outs, 0)),
                 out_axes = c.integers("scan_output_axes", Ints64(outs, 0));
    Tensors init(c.in.begin(), c.in.begin() + static_cast<std::ptrdiff_t>(carries)), xs;
    for (std::size_t k = 0; k < slices; ++k) {
      Tensor x = time_first(c, c.at(carries + k), axes.at(k), false);
      xs.push_back(directions.at(k) != 0 ? reverse(x, {0}) : x);
    }
    Scanned out = scan(
        [&](std::span<const Tensor> carry, std::span<const Tensor> x) -> Scanned {
          Environment inside = c.environment;
          Tensors in(carry.begin(), carry.end());
          in.insert(in.end(), x.begin(), x.end());
          bind(c, body, in, inside);
          const Tensors results = c.host.run_graph(body, std::move(inside));
          const auto middle = results.begin() + static_cast<std::ptrdiff_t>(carries);
          return {{results.begin(), middle}, {middle, results.end()}};
        },
        init, xs);
    Tensors results = out.carry;
    for (std::size_t k = 0; k < out.ys.size(); ++k) {
      const Tensor y = out_directions.at(k) != 0 ? reverse(out.ys[k], {0}) : out.ys[k];
      results.push_back(time_first(c, y, out_axes.at(k), true));
    }
    return results;
  }
};

const Builders& loop_builders() {
  static const Builders kTable{{"If", LoopImport::branch}, {"Loop", LoopImport::loop}, {"Scan", LoopImport::scan_over}};
  return kTable;
}

}  // namespace bp::onnx

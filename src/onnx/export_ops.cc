// How each op of src/ir/ops.def is said in ONNX, windows aside.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "ir/body.h"
#include "onnx/exporter.h"

namespace bp::onnx {

using ir::NodeId;
using ir::OpId;
using proto::Attribute;

// One function an op, or a family; a struct, so that their names are its own.
struct ExportRules {
  // ---- elementwise -------------------------------------------------------------------------------------------------

  // One node, or a few, on operands that broadcast; in the layout that they have.
  template <class F> static void elementwise(Exporter& e, NodeId i, F f) {
    const std::vector<ir::Value>& in = e.node(i).inputs;
    const bool first = e.rank({i, 0}) >= 3 && e.prefers_channels_first(in);
    const std::string name = f(e.elementwise_operands(in, e.extents({i, 0}), first));
    Named& n = e.slot({i, 0});
    (first ? n.channels_first : n.plain) = name;
  }

  static bool on_booleans(const Exporter& e, NodeId i) { return e.type(e.node(i).inputs[0]).dtype == DType::boolean; }
  static bool on_integers(const Exporter& e, NodeId i) { return !is_float(e.type(e.node(i).inputs[0]).dtype); }

  template <OpId Op> static void direct(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const std::vector<std::string>& x) { return e.emit(onnx_name(Op), x); });
  }
  // What ONNX does not define for booleans: by logic, or as numbers.
  template <OpId Op> static void numeric(Exporter& e, NodeId i) {
    if (!on_booleans(e, i)) return direct<Op>(e, i);
    elementwise(e, i, [&](std::vector<std::string> x) {
      if (Op == OpId::add || Op == OpId::maximum) return e.emit("Or", x);
      if (Op == OpId::mul || Op == OpId::minimum) return e.emit("And", x);
      if (Op == OpId::equal) return e.emit("Equal", x);
      for (std::string& name : x) name = e.cast(name, DType::i32);
      return e.emit(onnx_name(Op), x);
    });
  }

  static const char* onnx_name(OpId op) {
    switch (op) {
      case OpId::neg: return "Neg";
      case OpId::abs: return "Abs";
      case OpId::sign: return "Sign";
      case OpId::exp: return "Exp";
      case OpId::log: return "Log";
      case OpId::sqrt: return "Sqrt";
      case OpId::reciprocal: return "Reciprocal";
      case OpId::sin: return "Sin";
      case OpId::cos: return "Cos";
      case OpId::tanh: return "Tanh";
      case OpId::sigmoid: return "Sigmoid";
      case OpId::erf: return "Erf";
      case OpId::floor: return "Floor";
      case OpId::ceil: return "Ceil";
      case OpId::round: return "Round";
      case OpId::logical_not: return "Not";
      case OpId::relu: return "Relu";
      case OpId::add: return "Add";
      case OpId::sub: return "Sub";
      case OpId::mul: return "Mul";
      case OpId::div: return "Div";
      case OpId::pow: return "Pow";
      case OpId::maximum: return "Max";
      case OpId::minimum: return "Min";
      case OpId::equal: return "Equal";
      case OpId::less: return "Less";
      case OpId::less_equal: return "LessOrEqual";
      case OpId::greater: return "Greater";
      case OpId::greater_equal: return "GreaterOrEqual";
      case OpId::logical_and: return "And";
      case OpId::logical_or: return "Or";
      case OpId::select: return "Where";
      default: return "Identity";
    }
  }

  static void rsqrt(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) { return e.emit("Reciprocal", {e.emit("Sqrt", x)}); });
  }
  static void expm1(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) { return e.emit("Sub", {e.emit("Exp", x), one(e, i)}); });
  }
  static void log1p(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) { return e.emit("Log", {e.emit("Add", {x[0], one(e, i)})}); });
  }
  static std::string one(Exporter& e, NodeId i) { return e.scalar(1, e.type({i, 0}).dtype); }

  static void isfinite(Exporter& e, NodeId i) {
    if (on_integers(e, i)) e.refuse(i, "ONNX defines it for floating numbers only");
    elementwise(e, i, [&](const auto& x) {  // x - x is 0, or NaN
      return e.emit("Not", {e.emit("IsNaN", {e.emit("Sub", {x[0], x[0]})})});
    });
  }
  static void not_equal(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) { return e.emit("Not", {e.emit("Equal", x)}); });
  }
  static void remainder(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) {
      if (on_integers(e, i)) return e.emit("Mod", x);
      return e.emit("Sub", {x[0], e.emit("Mul", {x[1], e.emit("Floor", {e.emit("Div", x)})})});
    });
  }
  static void cast(Exporter& e, NodeId i) {
    elementwise(e, i, [&](const auto& x) { return e.cast(x[0], e.type({i, 0}).dtype); });
  }
  static void same(Exporter& e, NodeId i) { e.slot({i, 0}) = e.slot(e.node(i).inputs[0]); }

  // ---- leaves ------------------------------------------------------------------------------------------------------

  // A number that is c, c / N (the mean over a batch) or c * N.
  static std::string number(Exporter& e, NodeId i) {
    const double a = e.node(i).attrs.real("value"), b = e.other().nodes[i].attrs.real("value");
    const DType dtype = e.type({i, 0}).dtype;
    if (a == b || (std::isnan(a) && std::isnan(b))) return e.scalar(a, dtype);
    const auto same = [](double x, double y) { return std::abs(x - y) <= 1e-12 * std::abs(x); };
    const auto n = static_cast<double>(e.shared().batch[0]), m = static_cast<double>(e.shared().batch[1]);
    if (same(a * n, b * m)) return e.emit("Div", {e.scalar(a * n, dtype), batch_number(e, dtype)});
    if (same(a / n, b / m)) return e.emit("Mul", {e.scalar(a / n, dtype), batch_number(e, dtype)});
    e.refuse(i, "a constant depends on the batch: export it with a fixed batch (dynamic_batch = false)");
  }
  static std::string batch_number(Exporter& e, DType dtype) { return e.cast(e.reshaped(e.batch(), {}), dtype); }

  static void full(Exporter& e, NodeId i) {
    const std::string name = number(e, i);
    if (e.rank({i, 0}) == 0)
      e.set(i, name);
    else
      e.slot({i, 0}).source = name;
  }

  static void iota(Exporter& e, NodeId i) {
    const auto axis = static_cast<std::size_t>(e.node(i).attrs.integer("axis"));
    const Extents all = e.extents({i, 0});
    const DType dtype = e.type({i, 0}).dtype;
    std::string row;
    if (all[axis].fixed()) {
      std::vector<std::int64_t> values(static_cast<std::size_t>(all[axis].offset));
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = static_cast<std::int64_t>(k);
      row = e.constant(convert(Array::from(values, {all[axis].offset}), dtype));
    } else {
      const std::string end = e.reshaped(e.shape_value({all[axis]}), {});
      row = e.emit("Range", {e.scalar(0, DType::i64), end, e.scalar(1, DType::i64)});
      if (dtype != DType::i64) row = e.cast(row, dtype);
    }
    Extents column{all[axis]};
    column.resize(all.size() - axis, Extent{0, 1});
    if (column.size() > 1) row = e.reshaped(row, column);
    e.slot({i, 0}).source = row;
    e.slot({i, 0}).source_extents = column;
  }

  // ---- shapes ------------------------------------------------------------------------------------------------------

  static void reshape(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    const Named& from = e.slot(in);
    if (from.plain.empty() && !from.source.empty() && from.source_extents.empty()) {  // one number, in any shape
      e.slot({i, 0}).source = from.source;
      return;
    }
    e.set(i, e.reshaped(e.plain(in), e.extents({i, 0})));
  }

  static void transpose(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    const std::vector<std::int64_t> p = e.fixed_ints(i, "permutation");
    const int rank = static_cast<int>(p.size());
    bool to_first = rank >= 3 && p[0] == 0 && p[1] == rank - 1;
    for (int d = 2; d < rank; ++d) to_first = to_first && p[static_cast<std::size_t>(d)] == d - 1;
    if (to_first && !e.slot(in).channels_first.empty()) return e.set(i, e.slot(in).channels_first);
    const std::string x = e.plain(in);
    e.set(i, e.emit("Transpose", {x}, {Attribute::of("perm", p)}));
    // What is moved back to channels last is known as channels first already.
    bool to_last = rank >= 3 && p[0] == 0 && p.back() == 1;
    for (int d = 1; d < rank - 1; ++d) to_last = to_last && p[static_cast<std::size_t>(d)] == d + 1;
    if (to_last) e.slot({i, 0}).channels_first = x;
  }

  static void broadcast(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    const Named& from = e.slot(in);
    Named n;
    if (from.plain.empty() && from.channels_first.empty() && !from.source.empty()) {
      n.source = from.source;
      n.source_extents = from.source_extents;
    } else {
      n.source = e.plain(in);
      n.source_extents = e.extents(in);
    }
    if (e.rank({i, 0}) == 0)
      e.set(i, n.source);
    else
      e.slot({i, 0}) = n;
  }

  static std::vector<std::int64_t> all_axes(int rank) {
    std::vector<std::int64_t> axes(static_cast<std::size_t>(rank));
    for (std::size_t k = 0; k < axes.size(); ++k) axes[k] = static_cast<std::int64_t>(k);
    return axes;
  }

  static void slice(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    const Extents start = e.ints(i, "start"), stop = e.ints(i, "stop"), whole = e.extents(in);
    const std::vector<std::int64_t> step = e.fixed_ints(i, "step");
    Extents starts, stops;
    std::vector<std::int64_t> axes, steps;
    for (std::size_t d = 0; d < start.size(); ++d) {
      if (start[d].is(0) && stop[d] == whole[d] && step[d] == 1) continue;
      axes.push_back(static_cast<std::int64_t>(d));
      starts.push_back(start[d]);
      stops.push_back(stop[d]);
      steps.push_back(step[d]);
    }
    const std::string x = e.plain(in);
    e.set(i, e.emit("Slice", {x, e.shape_value(starts), e.shape_value(stops), e.integers(axes), e.integers(steps)}));
  }

  static void reverse(Exporter& e, NodeId i) {
    const std::vector<std::int64_t> axes = e.fixed_ints(i, "axes");
    const std::vector<std::int64_t> back(axes.size(), -1), before(axes.size(), INT64_MIN);
    e.set(i, e.emit("Slice", {e.plain(e.node(i).inputs[0]), e.integers(back), e.integers(before), e.integers(axes),
                              e.integers(back)}));
  }

  // Interior padding: each element followed by `n` more, the last one's cut off again.
  static std::string spread(Exporter& e, NodeId i, std::string x, Extents& sizes, std::size_t axis, std::int64_t n,
                            const std::string& value) {
    Extents apart = sizes;
    apart.insert(apart.begin() + static_cast<std::ptrdiff_t>(axis) + 1, Extent{0, 1});
    std::vector<std::int64_t> pads(2 * apart.size(), 0);
    pads[apart.size() + axis + 1] = n;
    x = e.emit("Pad", {e.reshaped(x, apart), e.integers(pads), value});
    Extent& size = sizes[axis];
    if (!size.fixed()) e.refuse(i, "padding between the samples of a batch");
    if (size.offset == 0) return e.reshaped(x, sizes);
    size.offset *= n + 1;
    x = e.reshaped(x, sizes);
    size.offset -= n;
    const auto a = static_cast<std::int64_t>(axis);
    return e.emit("Slice", {x, e.integers({0}), e.integers({size.offset}), e.integers({a})});
  }

  static void pad(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    const std::vector<std::int64_t> low = e.fixed_ints(i, "low"), high = e.fixed_ints(i, "high"),
                                    interior = e.fixed_ints(i, "interior");
    std::string x = e.plain(in);
    const DType dtype = e.type(in).dtype;
    const bool booleans = dtype == DType::boolean;  // which Pad of onnxruntime does not take
    if (booleans) x = e.cast(x, DType::i32);
    const std::string value = e.scalar(e.node(i).attrs.real("value"), booleans ? DType::i32 : dtype);
    Extents sizes = e.extents(in);
    for (std::size_t d = 0; d < interior.size(); ++d)
      if (interior[d] != 0) x = spread(e, i, x, sizes, d, interior[d], value);
    std::vector<std::int64_t> pads = low;
    pads.insert(pads.end(), high.begin(), high.end());
    x = e.emit("Pad", {x, e.integers(pads), value});
    e.set(i, booleans ? e.cast(x, dtype) : x);
  }

  static void concatenate(Exporter& e, NodeId i) {
    std::vector<std::string> parts;
    for (const ir::Value v : e.node(i).inputs) parts.push_back(e.plain(v));
    e.set(i, e.emit("Concat", parts, {Attribute::of("axis", e.node(i).attrs.integer("axis"))}));
  }

  // ---- reductions --------------------------------------------------------------------------------------------------

  // The operand and its axes: in channels-first layout where that is what there is and the result is the same.
  static std::pair<std::string, std::vector<std::int64_t>> reduced(Exporter& e, NodeId i) {
    const ir::Value in = e.node(i).inputs[0];
    std::vector<std::int64_t> axes = e.fixed_ints(i, "axes");
    const std::int64_t rank = e.rank(in);
    if (rank < 3 || !e.prefers_channels_first(e.node(i).inputs)) return {e.plain(in), axes};
    const bool spatial = std::all_of(axes.begin(), axes.end(), [&](auto a) { return a > 0 && a < rank - 1; });
    if (!spatial || static_cast<std::int64_t>(axes.size()) != rank - 2) return {e.plain(in), axes};
    for (std::int64_t& a : axes) ++a;
    return {e.channels_first(in), axes};
  }

  static void reduce_sum(Exporter& e, NodeId i) {
    auto [x, axes] = reduced(e, i);
    const DType from = e.type(e.node(i).inputs[0]).dtype, to = e.type({i, 0}).dtype;
    if (from != to) x = e.cast(x, to);
    e.set(i, e.emit("ReduceSum", {x, e.integers(axes)}, {Attribute::of("keepdims", std::int64_t{0})}));
  }
  template <OpId Op> static void reduce(Exporter& e, NodeId i) {
    auto [x, axes] = reduced(e, i);
    const DType from = e.type(e.node(i).inputs[0]).dtype, to = e.type({i, 0}).dtype;
    const bool booleans = from == DType::boolean;
    if (booleans || from != to) x = e.cast(x, booleans ? DType::i32 : to);
    const char* name = Op == OpId::reduce_max ? "ReduceMax" : Op == OpId::reduce_min ? "ReduceMin" : "ReduceProd";
    x = e.emit(name, {x}, {Attribute::of("axes", axes), Attribute::of("keepdims", std::int64_t{0})});
    e.set(i, booleans && to == DType::boolean ? e.cast(x, to) : x);
  }
  template <OpId Op> static void arg(Exporter& e, NodeId i) {
    e.set(i,
          e.emit(Op == OpId::argmax ? "ArgMax" : "ArgMin", {e.plain(e.node(i).inputs[0])},
                 {Attribute::of("axis", e.node(i).attrs.integer("axis")), Attribute::of("keepdims", std::int64_t{0})}));
  }
  static void cumsum(Exporter& e, NodeId i) {
    const std::int64_t reversed = e.node(i).attrs.flag("reversed") ? 1 : 0;
    std::string x = e.plain(e.node(i).inputs[0]);
    if (e.type(e.node(i).inputs[0]).dtype != e.type({i, 0}).dtype) x = e.cast(x, e.type({i, 0}).dtype);
    e.set(i, e.emit("CumSum", {x, e.constant(Array::from(std::vector{e.node(i).attrs.integer("axis")}, Shape{}))},
                    {Attribute::of("reverse", reversed)}));
  }
  static void sort(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const std::int64_t axis = n.attrs.integer("axis");
    const Extent size = e.extents({i, 0})[static_cast<std::size_t>(axis)];
    const std::vector<std::string> out =
        e.emit_many("TopK", {e.plain(n.inputs[0]), e.shape_value({size})}, 2,
                    {Attribute::of("axis", axis), Attribute::of("largest", std::int64_t{n.attrs.flag("descending")}),
                     Attribute::of("sorted", std::int64_t{1})});
    for (std::uint32_t k = 0; k < 2; ++k) e.slot({i, k}).plain = out[k];
  }

  // ---- indexing ----------------------------------------------------------------------------------------------------

  template <OpId Op> static void gather(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const std::string x = e.plain(n.inputs[0]), at = e.plain(n.inputs[1]);
    e.set(i, e.emit(Op == OpId::gather ? "Gather" : "GatherElements", {x, at},
                    {Attribute::of("axis", n.attrs.integer("axis"))}));
  }
  static std::string zeros(Exporter& e, NodeId i) {
    return e.expanded(e.scalar(0, e.type({i, 0}).dtype), e.extents({i, 0}));
  }
  static void scatter_add(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    Extents column = e.extents(n.inputs[0]);
    column.push_back({0, 1});
    std::string at = e.plain(n.inputs[0]);
    if (e.type(n.inputs[0]).dtype != DType::i64) at = e.cast(at, DType::i64);
    const std::string updates = e.plain(n.inputs[1]), to = zeros(e, i);
    e.set(i,
          e.emit("ScatterND", {to, e.reshaped(at, column), updates}, {Attribute::of("reduction", std::string("add"))}));
  }
  static void scatter_along(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const std::string updates = e.plain(n.inputs[0]), at = e.plain(n.inputs[1]), to = zeros(e, i);
    e.set(i, e.emit("ScatterElements", {to, at, updates},
                    {Attribute::of("axis", n.attrs.integer("axis")), Attribute::of("reduction", std::string("add"))}));
  }

  // ---- products ----------------------------------------------------------------------------------------------------

  static void matmul(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const auto factor = [&](std::size_t k, const char* transposed) {
      const std::string x = e.plain(n.inputs[k]);
      if (!n.attrs.flag(transposed)) return x;
      std::vector<std::int64_t> p = all_axes(e.rank(n.inputs[k]));
      std::swap(p[p.size() - 1], p[p.size() - 2]);
      return e.emit("Transpose", {x}, {Attribute::of("perm", p)});
    };
    const std::string a = factor(0, "transpose_a"), b = factor(1, "transpose_b");
    e.set(i, e.emit("MatMul", {a, b}));
  }

  // ---- loops and branches ------------------------------------------------------------------------------------------

  // An output of a subgraph must be made in it, once.
  static void finish_body(Exporter& body, proto::Graph& graph, const std::vector<ir::Output>& outputs) {
    for (const ir::Output& o : outputs) {
      const std::string name = body.fresh("result");
      body.finish(o.value, name, false);
    }
    graph.name = body.fresh("body");
  }

  static void scan(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    const ir::ScanLayout layout(n.attrs);
    const ir::Graph &g = ir::body_of(n.attrs), &other = ir::body_of(e.other().nodes[i].attrs);
    if (layout.length != e.other().nodes[i].attrs.integer("length"))
      e.refuse(i, "a loop over the samples of the batch");
    auto graph = std::make_shared<proto::Graph>();
    Exporter body(e.shared(), g, other, *graph);
    std::vector<std::string> in;
    for (std::size_t k = 0; k < g.inputs.size(); ++k) {
      const ir::Value inner{g.inputs[k].node, 0};
      if (k >= n.inputs.size()) {
        body.bind(inner, {.plain = e.constant(constant_of(g, k))});
        continue;
      }
      const std::string outer = e.plain(n.inputs[k]);
      if (k < layout.invariants) {
        body.bind(inner, {.plain = outer});
        continue;
      }
      const std::string name = e.fresh(k < layout.first_slice() ? "carry" : "slice");
      graph->inputs.push_back(body.info(inner, name));
      body.bind(inner, {.plain = name});
      in.push_back(outer);
    }
    std::size_t slices = n.inputs.size() - layout.first_slice();
    if (slices == 0) {  // the number of iterations is that of some slices
      in.push_back(e.constant(Array::zeros(DType::i64, {layout.length})));
      graph->inputs.push_back({e.fresh("slice"), static_cast<int>(proto::Elem::i64), true, {}});
      slices = 1;
    }
    body.run();
    finish_body(body, *graph, g.outputs);
    const std::vector<std::int64_t> in_directions(slices, layout.reverse ? 1 : 0),
        out_directions(g.outputs.size() - layout.carries, layout.reverse ? 1 : 0);
    std::vector<Attribute> attributes{Attribute::of("body", graph),
                                      Attribute::of("num_scan_inputs", static_cast<std::int64_t>(slices)),
                                      Attribute::of("scan_input_directions", in_directions)};
    if (!out_directions.empty()) attributes.push_back(Attribute::of("scan_output_directions", out_directions));
    const std::vector<std::string> out = e.emit_many("Scan", in, g.outputs.size(), std::move(attributes));
    for (std::uint32_t k = 0; k < out.size(); ++k) e.slot({i, k}).plain = out[k];
  }

  static Array constant_of(const ir::Graph& g, std::size_t input) {
    const Type& t = g.nodes[g.inputs[input].node].types[0];
    return {t.dtype, t.shape, g.inputs[input].constant};
  }

  static void cond(Exporter& e, NodeId i) {
    const ir::Node& n = e.node(i);
    std::vector<Attribute> attributes;
    for (int b = 0; b < 2; ++b) {
      const ir::Graph &g = ir::body_of(n.attrs, ir::kBranches[b]),
                      &other = ir::body_of(e.other().nodes[i].attrs, ir::kBranches[b]);
      const std::vector<std::size_t> operands = ir::branch_operands(n.attrs, n.inputs.size(), b);
      auto graph = std::make_shared<proto::Graph>();
      Exporter body(e.shared(), g, other, *graph);
      for (std::size_t k = 0; k < g.inputs.size(); ++k)
        body.bind({g.inputs[k].node, 0},
                  {.plain = k < operands.size() ? e.plain(n.inputs[operands[k]]) : e.constant(constant_of(g, k))});
      body.run();
      finish_body(body, *graph, g.outputs);
      attributes.push_back(Attribute::of(b == 0 ? "then_branch" : "else_branch", graph));
    }
    const std::string predicate = e.reshaped(e.plain(n.inputs[0]), {});
    const std::vector<std::string> out = e.emit_many("If", {predicate}, n.types.size(), std::move(attributes));
    for (std::uint32_t k = 0; k < out.size(); ++k) e.slot({i, k}).plain = out[k];
  }
};

Rule rule_of(OpId op) {
  using R = ExportRules;
  static const std::unordered_map<OpId, Rule> kRules{
      {OpId::neg, R::direct<OpId::neg>},
      {OpId::abs, R::direct<OpId::abs>},
      {OpId::sign, R::direct<OpId::sign>},
      {OpId::exp, R::direct<OpId::exp>},
      {OpId::log, R::direct<OpId::log>},
      {OpId::sqrt, R::direct<OpId::sqrt>},
      {OpId::reciprocal, R::direct<OpId::reciprocal>},
      {OpId::sin, R::direct<OpId::sin>},
      {OpId::cos, R::direct<OpId::cos>},
      {OpId::tanh, R::direct<OpId::tanh>},
      {OpId::sigmoid, R::direct<OpId::sigmoid>},
      {OpId::erf, R::direct<OpId::erf>},
      {OpId::floor, R::direct<OpId::floor>},
      {OpId::ceil, R::direct<OpId::ceil>},
      {OpId::round, R::direct<OpId::round>},
      {OpId::logical_not, R::direct<OpId::logical_not>},
      {OpId::relu, R::direct<OpId::relu>},
      {OpId::sub, R::direct<OpId::sub>},
      {OpId::div, R::direct<OpId::div>},
      {OpId::pow, R::direct<OpId::pow>},
      {OpId::logical_and, R::direct<OpId::logical_and>},
      {OpId::logical_or, R::direct<OpId::logical_or>},
      {OpId::select, R::direct<OpId::select>},
      {OpId::add, R::numeric<OpId::add>},
      {OpId::mul, R::numeric<OpId::mul>},
      {OpId::maximum, R::numeric<OpId::maximum>},
      {OpId::minimum, R::numeric<OpId::minimum>},
      {OpId::equal, R::numeric<OpId::equal>},
      {OpId::less, R::numeric<OpId::less>},
      {OpId::less_equal, R::numeric<OpId::less_equal>},
      {OpId::greater, R::numeric<OpId::greater>},
      {OpId::greater_equal, R::numeric<OpId::greater_equal>},
      {OpId::rsqrt, R::rsqrt},
      {OpId::expm1, R::expm1},
      {OpId::log1p, R::log1p},
      {OpId::isfinite, R::isfinite},
      {OpId::not_equal, R::not_equal},
      {OpId::remainder, R::remainder},
      {OpId::cast, R::cast},
      {OpId::full, R::full},
      {OpId::iota, R::iota},
      {OpId::reshape, R::reshape},
      {OpId::transpose, R::transpose},
      {OpId::broadcast, R::broadcast},
      {OpId::slice, R::slice},
      {OpId::reverse, R::reverse},
      {OpId::pad, R::pad},
      {OpId::concatenate, R::concatenate},
      {OpId::reduce_sum, R::reduce_sum},
      {OpId::cumsum, R::cumsum},
      {OpId::sort, R::sort},
      {OpId::scatter_add, R::scatter_add},
      {OpId::scatter_along, R::scatter_along},
      {OpId::matmul, R::matmul},
      {OpId::scan, R::scan},
      {OpId::cond, R::cond},
      {OpId::stop_gradient, R::same},
      {OpId::reduce_max, R::reduce<OpId::reduce_max>},
      {OpId::reduce_min, R::reduce<OpId::reduce_min>},
      {OpId::reduce_prod, R::reduce<OpId::reduce_prod>},
      {OpId::argmax, R::arg<OpId::argmax>},
      {OpId::argmin, R::arg<OpId::argmin>},
      {OpId::gather, R::gather<OpId::gather>},
      {OpId::take_along, R::gather<OpId::take_along>},
  };
  const auto found = kRules.find(op);
  return found != kRules.end() ? found->second : window_rule_of(op);
}

void Exporter::visit(NodeId i) {
  const ir::Node& n = node(i);
  path_ = ir::scope_path(n.scope);
  const Rule rule = rule_of(n.op);
  if (rule == nullptr) refuse(i, "ONNX has no operation for it");
  rule(*this, i);
}

void Exporter::run() {
  std::vector<bool> used(g_.nodes.size(), false);  // what nobody reads is not written
  for (const ir::Output& o : g_.outputs) used[o.value.node] = true;
  std::unordered_map<NodeId, ExportedNorm> norms;
  for (NodeId i = static_cast<NodeId>(g_.nodes.size()); i-- > 0;) {
    if (!used[i]) continue;
    const std::optional<ExportedNorm> norm = batch_norm_at(i);
    if (norm) norms.emplace(i, *norm);
    for (const ir::Value v : norm ? norm->operands() : g_.nodes[i].inputs) used[v.node] = true;
  }
  for (NodeId i = 0; i < g_.nodes.size(); ++i) {
    if (!used[i] || g_.nodes[i].op == OpId::input) continue;
    const auto norm = norms.find(i);
    norm != norms.end() ? write_batch_norm(i, norm->second) : visit(i);
  }
}

}  // namespace bp::onnx

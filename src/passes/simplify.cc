// One walk that rebuilds the graph: folds uniform constants, cancels inverse pairs, merges equal nodes; then drops the
// dead ones. Rules keep results bit for bit, except that x + 0 turns -0 into -0 where adding would give +0, that the
// sum of a max pool's gradient and a gather's gradient add the same numbers in another order, and that factors leave
// sums (one rounding for many).
#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "base/hash.h"
#include "passes/pipeline.h"

namespace bp::passes {

namespace {

using ir::Attrs;
using ir::Graph;
using ir::Ints;
using ir::Node;
using ir::NodeId;
using ir::OpClass;
using ir::OpId;
using ir::Value;

constexpr double kExactInteger = 9007199254740992.0;  // 2^53: beyond it a double no longer counts every integer

class Simplifier {
 public:
  explicit Simplifier(const Graph& g) : g_(g), map_(g.nodes.size()) {}

  Graph run() {
    for (NodeId i = 0; i < g_.nodes.size(); ++i) visit(i);
    out_.inputs = g_.inputs;
    for (ir::Input& in : out_.inputs) in.node = map_[in.node][0].node;
    for (const ir::Output& o : g_.outputs) out_.outputs.push_back({mapped(o.value), o.updates, o.name});
    return std::move(out_);
  }

 private:
  Value mapped(Value v) const { return map_[v.node][v.output]; }

  void visit(NodeId i) {
    Node n = g_.nodes[i];
    for (Value& v : n.inputs) v = mapped(v);
    if (n.op == OpId::custom_vjp) {  // an identity on its first inputs
      map_[i].assign(n.inputs.begin(), n.inputs.begin() + static_cast<std::ptrdiff_t>(n.types.size()));
      return;
    }
    if (n.op != OpId::input) {
      if (const std::optional<Value> v = rewrite(n)) {
        map_[i] = {*v};
        return;
      }
    }
    const NodeId id = intern(std::move(n));
    for (std::uint32_t k = 0; k < out_.nodes[id].types.size(); ++k) map_[i].push_back({id, k});
  }

  // The node, or an equal one that is there already.
  NodeId intern(Node n) {
    const ir::OpDef& def = ir::op_def(n.op);
    if (n.op == OpId::input || (def.flags & ir::kImpure) != 0) return out_.add(std::move(n));
    if ((def.flags & ir::kCommutative) != 0 && n.inputs[1].node < n.inputs[0].node) std::swap(n.inputs[0], n.inputs[1]);
    std::size_t h = hash_combine(static_cast<std::size_t>(n.op), n.attrs.hash());
    for (Value v : n.inputs) h = hash_combine(h, std::hash<Value>{}(v));
    const auto [first, last] = seen_.equal_range(h);
    for (auto it = first; it != last; ++it) {
      const Node& other = out_.nodes[it->second];
      if (other.op == n.op && other.inputs == n.inputs && other.types == n.types && other.attrs == n.attrs)
        return it->second;
    }
    const NodeId id = out_.add(std::move(n));
    seen_.emplace(h, id);
    return id;
  }

  Value emit(OpId op, std::vector<Value> in, Attrs attrs, const Node& like) {
    std::vector<Type> types;
    for (Value v : in) types.push_back(out_.type(v));
    Node n{op, std::move(attrs), std::move(in), {}, like.scope, like.backward};
    n.types = ir::op_def(op).infer({types, n.attrs});
    if (const std::optional<Value> v = rewrite(n)) return *v;
    return {intern(std::move(n)), 0};
  }
  Value emit_full(double value, const Type& t, const Node& like) {
    return {intern({OpId::full,
                    {{"shape", ir::to_ints(t.shape)}, {"value", value}, {"dtype", t.dtype}},
                    {},
                    {t},
                    like.scope,
                    like.backward}),
            0};
  }

  const Node& node(Value v) const { return out_.nodes[v.node]; }
  bool is(Value v, OpId op) const { return node(v).op == op; }
  std::optional<double> uniform(Value v) const {
    if (!is(v, OpId::full)) return std::nullopt;
    return node(v).attrs.real("value");
  }
  bool is_uniform(Value v, double x) const {
    const std::optional<double> u = uniform(v);
    return u && *u == x && !(x == 0 && std::signbit(*u));
  }

  std::optional<Value> rewrite(const Node& n) {
    if (n.inputs.empty()) return std::nullopt;
    if (n.types.size() == 1) {
      if (const auto v = fold(n)) return v;
    }
    switch (n.op) {
      case OpId::stop_gradient: return n.inputs[0];
      case OpId::reshape: return rewrite_reshape(n);
      case OpId::transpose: return rewrite_transpose(n);
      case OpId::broadcast: return rewrite_broadcast(n);
      case OpId::cast: return rewrite_cast(n);
      case OpId::reduce_sum:
      case OpId::reduce_max:
      case OpId::reduce_min:
      case OpId::reduce_prod: return rewrite_reduce(n);
      case OpId::matmul: return rewrite_matmul(n);
      case OpId::scatter_add: return rewrite_scatter_add(n);
      default: return rewrite_arithmetic(n);
    }
  }

  // Elementwise ops and movements of uniform tensors are uniform.
  std::optional<Value> fold(const Node& n) {
    const OpClass cls = ir::op_def(n.op).cls;
    if (cls != OpClass::elementwise && n.op != OpId::reshape && n.op != OpId::broadcast && n.op != OpId::transpose &&
        n.op != OpId::slice && n.op != OpId::reverse)
      return std::nullopt;
    if ((ir::op_def(n.op).flags & ir::kImpure) != 0 || n.op == OpId::random_bits) return std::nullopt;
    for (Value v : n.inputs)
      if (!uniform(v) || std::abs(*uniform(v)) > kExactInteger) return std::nullopt;
    if (cls != OpClass::elementwise) return emit_full(*uniform(n.inputs[0]), n.types[0], n);
    return emit_full(evaluate_one(n), n.types[0], n);
  }

  double evaluate_one(const Node& n) const {
    std::vector<Buffer> memory;
    std::vector<ir::View> in;
    for (Value v : n.inputs) {
      const DType t = out_.type(v).dtype;
      memory.push_back(Buffer::allocate(size_of(t)));
      dispatch(t, [&](auto zero) {
        *memory.back().as_mutable<decltype(zero)>() = static_cast<decltype(zero)>(*uniform(v));
      });
      in.push_back({memory.back().mutable_data(), {t, Shape{}}});
    }
    const Buffer result = Buffer::allocate(8);
    const ir::View out{result.mutable_data(), {n.types[0].dtype, Shape{}}};
    ir::op_def(n.op).reference({in, std::span(&out, 1), n.attrs});
    return dispatch(n.types[0].dtype, [&](auto zero) { return static_cast<double>(*result.as<decltype(zero)>()); });
  }

  std::optional<Value> rewrite_reshape(const Node& n) {
    const Value x = n.inputs[0];
    if (out_.type(x) == n.types[0]) return x;
    if (is(x, OpId::reshape)) return emit(OpId::reshape, {node(x).inputs[0]}, n.attrs, n);
    return std::nullopt;
  }

  std::optional<Value> as_reshape(const Node& n) {
    return emit(OpId::reshape, {n.inputs[0]}, {{"shape", ir::to_ints(n.types[0].shape)}}, n);
  }

  std::optional<Value> rewrite_transpose(const Node& n) {
    const Value x = n.inputs[0];
    const Ints& p = n.attrs.ints("permutation");
    std::int64_t last = -1;
    bool ordered = true;  // of the dimensions that are not 1
    for (auto axis : p)
      if (out_.type(x).shape[static_cast<int>(axis)] != 1) {
        ordered &= axis > last;
        last = axis;
      }
    if (ordered) return as_reshape(n);
    if (is(x, OpId::gather)) return transpose_indices(n);
    if (!is(x, OpId::transpose)) return std::nullopt;
    Ints both;
    for (auto axis : p) both.push_back(node(x).attrs.ints("permutation")[static_cast<std::size_t>(axis)]);
    return emit(OpId::transpose, {node(x).inputs[0]}, {{"permutation", both}}, n);
  }

  // Whether a permutation moves the first `rank` axes among themselves only.
  static bool keeps_slices(const Ints& permutation, int rank) {
    for (auto d = static_cast<std::size_t>(rank); d < permutation.size(); ++d)
      if (permutation[d] != static_cast<std::int64_t>(d)) return false;
    return true;
  }

  // Slices in another order are gathered in that order: an embedding [batch, time, ..] that a loop reads as [time,
  // batch, ..].
  std::optional<Value> transpose_indices(const Node& n) {
    const Node gather = node(n.inputs[0]);
    const Ints& p = n.attrs.ints("permutation");
    const int rank = out_.type(gather.inputs[1]).shape.rank();
    if (gather.attrs.integer("axis") != 0 || !keeps_slices(p, rank)) return std::nullopt;
    const Value indices =
        emit(OpId::transpose, {gather.inputs[1]}, {{"permutation", Ints(p.begin(), p.begin() + rank)}}, n);
    return emit(OpId::gather, {gather.inputs[0], indices}, gather.attrs, gather);
  }

  // The gradient of that: updates are added where they lie.
  std::optional<Value> rewrite_scatter_add(const Node& n) {
    if (!is(n.inputs[1], OpId::transpose)) return std::nullopt;
    const Node updates = node(n.inputs[1]);
    const Ints& p = updates.attrs.ints("permutation");
    const int rank = out_.type(n.inputs[0]).shape.rank();
    if (!keeps_slices(p, rank)) return std::nullopt;
    Ints inverse(static_cast<std::size_t>(rank));
    for (int d = 0; d < rank; ++d) inverse[static_cast<std::size_t>(p[static_cast<std::size_t>(d)])] = d;
    const Value indices = emit(OpId::transpose, {n.inputs[0]}, {{"permutation", inverse}}, n);
    return emit(OpId::scatter_add, {indices, updates.inputs[0]}, n.attrs, n);
  }

  std::optional<Value> rewrite_broadcast(const Node& n) {
    const Value x = n.inputs[0];
    if (out_.type(x).shape.numel() == n.types[0].shape.numel()) return as_reshape(n);
    if (is(x, OpId::broadcast)) return emit(OpId::broadcast, {node(x).inputs[0]}, n.attrs, n);
    // Broadcasting adds leading dimensions itself.
    if (is(x, OpId::reshape) && without_leading_ones(out_.type(x).shape) == out_.type(node(x).inputs[0]).shape)
      return emit(OpId::broadcast, {node(x).inputs[0]}, n.attrs, n);
    return std::nullopt;
  }
  static Shape without_leading_ones(const Shape& s) {
    const auto first = std::find_if(s.begin(), s.end(), [](std::int64_t d) { return d != 1; });
    return Shape(std::span(first, s.end()));
  }

  // A cast to a wider type and back is nothing.
  std::optional<Value> rewrite_cast(const Node& n) {
    const Value x = n.inputs[0];
    const DType to = n.types[0].dtype;
    if (out_.type(x).dtype == to) return x;
    if (!is(x, OpId::cast)) return std::nullopt;
    const Value inner = node(x).inputs[0];
    const DType from = out_.type(inner).dtype, via = out_.type(x).dtype;
    const bool lossless = is_float(from)
                              ? is_float(via) && promote(from, via) == via
                              : (is_float(via) ? via == DType::f64 && from != DType::i64 : promote(from, via) == via);
    if (!lossless) return std::nullopt;
    if (from == to) return inner;
    return std::nullopt;
  }

  static bool keeps_only_channels(const Ints& axes, const Shape& x) {
    if (static_cast<int>(axes.size()) != x.rank() - 1) return false;
    return std::find(axes.begin(), axes.end(), x.rank() - 1) == axes.end();
  }

  std::optional<Value> rewrite_reduce(const Node& n) {
    const Value x = n.inputs[0];
    if (n.types[0].dtype != out_.type(x).dtype) return std::nullopt;
    const Ints& axes = n.attrs.ints("axes");
    if (axes.empty()) return x;
    if (n.op == OpId::reduce_sum && is(x, OpId::max_pool_grad) && keeps_only_channels(axes, out_.type(x).shape))
      return emit(OpId::reduce_sum, {node(x).inputs[0]}, n.attrs, n);  // every element of dy went to one of dx
    if (n.op == OpId::reduce_sum && is_float(n.types[0].dtype)) {
      if (is(x, OpId::neg)) return emit(OpId::neg, {emit(OpId::reduce_sum, node(x).inputs, n.attrs, n)}, {}, n);
      if (is(x, OpId::mul)) {
        const Value a = node(x).inputs[0], b = node(x).inputs[1];
        if (const auto factor = constant_along(b, axes, n)) return scaled_sum(a, *factor, n);
        if (const auto factor = constant_along(a, axes, n)) return scaled_sum(b, *factor, n);
      }
      if (is_scaled(x, axes) && (is(x, OpId::add) || is(x, OpId::sub))) {
        const Value a = node(x).inputs[0], b = node(x).inputs[1];
        const OpId op = node(x).op;
        const Value left = emit(OpId::reduce_sum, {a}, n.attrs, n), right = emit(OpId::reduce_sum, {b}, n.attrs, n);
        return emit(op, {left, right}, {}, n);
      }
    }
    if (const auto v = in_blocks(n)) return v;
    const bool trivial =
        std::all_of(axes.begin(), axes.end(), [&](auto a) { return out_.type(x).shape[static_cast<int>(a)] == 1; });
    return trivial ? as_reshape(n) : std::nullopt;
  }

  // Axes that are apart ({0, 2} of [a, b, c]) are reduced one after the other, the last first: there are fast kernels
  // for each block of axes.
  std::optional<Value> in_blocks(const Node& n) {
    const Ints& axes = n.attrs.ints("axes");
    const Shape& x = out_.type(n.inputs[0]).shape;
    std::size_t first = axes.size() - 1;  // of the last block; axes of size 1 separate nothing
    for (; first > 0; --first)
      for (auto d = axes[first - 1] + 1; d < axes[first]; ++d)
        if (x[static_cast<int>(d)] != 1) {
          const auto cut = axes.begin() + static_cast<std::ptrdiff_t>(first);
          Attrs last = n.attrs, rest = n.attrs;
          last.set("axes", Ints(cut, axes.end()));
          rest.set("axes", Ints(axes.begin(), cut));
          return emit(n.op, {emit(n.op, n.inputs, std::move(last), n)}, std::move(rest), n);
        }
    return std::nullopt;
  }

  // The sizes of v's operand along the axes that a sum over `axes` keeps, when v does not vary along the others.
  std::optional<Ints> kept_of(Value v, const Ints& axes) const {
    if (uniform(v)) return Ints{};
    if (!is(v, OpId::broadcast)) return std::nullopt;
    const Shape &in = out_.type(node(v).inputs[0]).shape, &all = out_.type(v).shape;
    Ints kept;
    for (int axis = 0; axis < all.rank(); ++axis) {
      const int from = axis - (all.rank() - in.rank());
      const std::int64_t size = from < 0 ? 1 : in[from];
      if (std::find(axes.begin(), axes.end(), axis) == axes.end())
        kept.push_back(size);
      else if (size != 1)
        return std::nullopt;
    }
    return kept;
  }
  // What v is for the result of a sum over `axes`, when it does not vary along them.
  std::optional<Value> constant_along(Value v, const Ints& axes, const Node& sum) {
    if (const std::optional<double> u = uniform(v)) return emit_full(*u, sum.types[0], sum);
    const std::optional<Ints> kept = kept_of(v, axes);
    if (!kept) return std::nullopt;
    const Value factor = emit(OpId::reshape, {node(v).inputs[0]}, {{"shape", *kept}}, sum);
    return emit(OpId::broadcast, {factor}, {{"shape", ir::to_ints(sum.types[0].shape)}}, sum);
  }
  // Whether every term of v has a factor (or a sign) that leaves a sum over `axes`.
  bool is_scaled(Value v, const Ints& axes, int depth = 4) const {
    const Node& n = node(v);
    if (depth == 0) return false;
    if (n.op == OpId::neg) return true;
    if (n.op == OpId::mul) return kept_of(n.inputs[0], axes) || kept_of(n.inputs[1], axes);
    if (n.op != OpId::add && n.op != OpId::sub) return false;
    return is_scaled(n.inputs[0], axes, depth - 1) && is_scaled(n.inputs[1], axes, depth - 1);
  }
  // A factor leaves the sum: what remains is often wanted already, and there is less to multiply.
  Value scaled_sum(Value x, Value factor, const Node& sum) {
    return emit(OpId::mul, {emit(OpId::reduce_sum, {x}, sum.attrs, sum), factor}, {}, sum);
  }

  // A transposed operand of a product is a flag.
  std::optional<Value> rewrite_matmul(const Node& n) {
    Node m = n;
    bool changed = false;
    static constexpr const char* kFlags[] = {"transpose_a", "transpose_b"};
    for (std::size_t k = 0; k < 2; ++k) {
      const Value x = m.inputs[k];
      if (!is(x, OpId::transpose)) continue;
      const Ints& p = node(x).attrs.ints("permutation");
      const std::size_t r = p.size();
      bool last_two =
          r >= 2 && p[r - 1] == static_cast<std::int64_t>(r) - 2 && p[r - 2] == static_cast<std::int64_t>(r) - 1;
      for (std::size_t i = 0; last_two && i + 2 < r; ++i) last_two = p[i] == static_cast<std::int64_t>(i);
      if (!last_two) continue;
      m.attrs.set(kFlags[k], !m.attrs.flag(kFlags[k]));
      m.inputs[k] = node(x).inputs[0];
      changed = true;
    }
    if (!changed) return std::nullopt;
    return Value{intern(std::move(m)), 0};
  }

  // select(x > 0, max_pool_grad(dy, i), 0), where (y, i) = max_pool(x): what relu and max_pool leave going backward. An
  // element of x that was chosen is y, so the mask moves to the smaller side: max_pool_grad(select(y > 0, dy, 0), i).
  std::optional<Value> rewrite_masked_pool_grad(const Node& n) {
    const Value mask = n.inputs[0], grad = n.inputs[1];
    if (!is(mask, OpId::greater) || !is(grad, OpId::max_pool_grad) || !is_uniform(n.inputs[2], 0)) return std::nullopt;
    const Value dy = node(grad).inputs[0], index = node(grad).inputs[1];
    if (!is_uniform(node(mask).inputs[1], 0) || !is(index, OpId::max_pool) || index.output != 1) return std::nullopt;
    if (node(index).inputs[0] != node(mask).inputs[0]) return std::nullopt;
    const Attrs attrs = node(grad).attrs;
    const Value zero = emit_full(0, out_.type(dy), n);
    const Value positive = emit(OpId::greater, {{index.node, 0}, zero}, {}, n);
    return emit(OpId::max_pool_grad, {emit(OpId::select, {positive, dy, zero}, {}, n), index}, attrs, n);
  }

  // A tensor with zeros around it along one axis.
  struct Padded {
    Value inside;
    int axis;
    std::int64_t low, high;
  };
  std::optional<Padded> padded(Value v) const {
    if (!is(v, OpId::pad) || node(v).attrs.real("value") != 0) return std::nullopt;
    const Ints &low = node(v).attrs.ints("low"), &high = node(v).attrs.ints("high"),
               &interior = node(v).attrs.ints("interior");
    int axis = -1;
    for (std::size_t i = 0; i < low.size(); ++i) {
      if (low[i] < 0 || high[i] < 0 || interior[i] != 0) return std::nullopt;
      if (low[i] == 0 && high[i] == 0) continue;
      if (axis >= 0) return std::nullopt;
      axis = static_cast<int>(i);
    }
    if (axis < 0) return std::nullopt;
    const auto k = static_cast<std::size_t>(axis);
    return Padded{node(v).inputs[0], axis, low[k], high[k]};
  }

  // The gradients of the parts of a split, each padded with zeros to the whole and added, are one concatenation.
  std::optional<Value> rewrite_adjacent_pads(const Node& n) {
    std::optional<Padded> a = padded(n.inputs[0]), b = padded(n.inputs[1]);
    if (!a || !b || a->axis != b->axis) return std::nullopt;
    if (a->low > b->low) std::swap(a, b);
    if (a->low + out_.type(a->inside).shape[a->axis] != b->low) return std::nullopt;
    std::vector<Value> parts;
    for (const Value v : {a->inside, b->inside}) {
      const bool nested = is(v, OpId::concatenate) && node(v).attrs.integer("axis") == a->axis;
      if (nested)
        parts.insert(parts.end(), node(v).inputs.begin(), node(v).inputs.end());
      else
        parts.push_back(v);
    }
    const Value joined = emit(OpId::concatenate, std::move(parts), {{"axis", std::int64_t{a->axis}}}, n);
    if (a->low == 0 && b->high == 0) return joined;
    const auto rank = static_cast<std::size_t>(n.types[0].shape.rank());
    Ints low(rank, 0), high(rank, 0);
    low[static_cast<std::size_t>(a->axis)] = a->low;
    high[static_cast<std::size_t>(a->axis)] = b->high;
    return emit(OpId::pad, {joined}, {{"low", low}, {"high", high}, {"interior", Ints(rank, 0)}, {"value", 0.0}}, n);
  }

  std::optional<Value> rewrite_arithmetic(const Node& n) {
    const Value a = n.inputs[0];
    const Value b = n.inputs.size() > 1 ? n.inputs[1] : a;
    switch (n.op) {
      case OpId::add:
        if (is_uniform(b, 0)) return a;
        if (is_uniform(a, 0)) return b;
        if (is(b, OpId::neg)) return emit(OpId::sub, {a, node(b).inputs[0]}, {}, n);
        if (is(a, OpId::neg)) return emit(OpId::sub, {b, node(a).inputs[0]}, {}, n);
        if (a == b && is_float(n.types[0].dtype)) return emit(OpId::mul, {a, emit_full(2, n.types[0], n)}, {}, n);
        return rewrite_adjacent_pads(n);
      case OpId::sub:
        if (is_uniform(b, 0)) return a;
        if (is(b, OpId::neg)) return emit(OpId::add, {a, node(b).inputs[0]}, {}, n);
        break;
      case OpId::mul:
        if (is_uniform(b, 1)) return a;
        if (is_uniform(a, 1)) return b;
        if (is_uniform(b, -1) && is_float(n.types[0].dtype)) return emit(OpId::neg, {a}, {}, n);
        if (is_uniform(a, -1) && is_float(n.types[0].dtype)) return emit(OpId::neg, {b}, {}, n);
        return rewrite_scaled_sum(n);
      case OpId::div:
        if (is_uniform(b, 1)) return a;
        return rewrite_scaled_sum(n);
      case OpId::pow:
        if (is_uniform(b, 1)) return a;
        if (is_uniform(b, 2)) return emit(OpId::mul, {a, a}, {}, n);
        break;
      case OpId::neg:
        if (is(a, OpId::neg)) return node(a).inputs[0];
        if (is(a, OpId::sub)) return std::nullopt;
        break;
      case OpId::select:
        if (is_uniform(a, 1)) return n.inputs[1];
        if (is_uniform(a, 0)) return n.inputs[2];
        return rewrite_masked_pool_grad(n);
      default: break;
    }
    return std::nullopt;
  }

  // A sum that keeps its dimensions and the same one that does not meet when both are scaled before they are reshaped.
  std::optional<Value> rewrite_scaled_sum(const Node& n) {
    const Value x = n.inputs[0];
    const std::optional<double> scale = uniform(n.inputs[1]);
    if (!scale || !is(x, OpId::reshape) || !is(node(x).inputs[0], OpId::reduce_sum)) return std::nullopt;
    const Value sum = node(x).inputs[0];
    const Value scaled = emit(n.op, {sum, emit_full(*scale, out_.type(sum), n)}, {}, n);
    return emit(OpId::reshape, {scaled}, {{"shape", ir::to_ints(n.types[0].shape)}}, n);
  }

  const Graph& g_;
  Graph out_;
  std::vector<std::vector<Value>> map_;
  std::unordered_multimap<std::size_t, NodeId> seen_;
};

}  // namespace

Graph simplify(const Graph& g) { return drop_dead(Simplifier(g).run()); }

}  // namespace bp::passes

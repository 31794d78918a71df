// Finding the common space of a group of nodes.
#include "passes/loop_space.h"

#include <algorithm>
#include <cmath>

namespace bp::passes {

namespace {

using ir::Graph;
using ir::Node;
using ir::NodeId;
using ir::OpId;
using ir::Value;

constexpr std::int64_t kExactInF32 = std::int64_t{1} << 24;
constexpr std::size_t kMaxReads = 40;

// An integer operand whose values f32 holds exactly, so that comparing with it is exact whatever the other one is.
bool is_small_integer(const Graph& g, Value v) {
  const Value base = behind_transparent(g, v);
  const Node& n = g.nodes[base.node];
  if (g.type(v).dtype == DType::u8) return true;
  if (n.op == OpId::full) return std::fabs(n.attrs.real("value")) <= static_cast<double>(kExactInF32);
  if (n.op == OpId::iota) return n.types[0].shape.numel() <= kExactInF32;
  return n.op == OpId::random_bits && n.attrs.integer("width") <= 24;
}

// Integers are exact in a loop only while f32 or f64 holds them: no cast between integers but the widening of i32 and
// u8 (which asks for f64). A float truncates and saturates.
bool is_cast_of_loops(DType from, DType to) {
  if (to == DType::boolean || is_float(to) || is_float(from) || from == DType::boolean) return true;
  return from != DType::i64 && size_of(to) > size_of(from);
}
bool is_integer_cast(const Node& n, DType from) {
  return n.op == OpId::cast && is_integer(from) && is_integer(n.types[0].dtype);
}

// A loop reads a slice in place: worth it for rows of some length, and where the rest of the operand, which lives on
// for the loop, is not much more.
bool is_long_slice(const Graph& g, NodeId id) {
  constexpr std::int64_t kShortestRow = 32, kLargestRest = 8;
  const Node& n = g.nodes[id];
  const Shape& out = n.types[0].shape;
  const ir::Ints& step = n.attrs.ints("step");
  return out.rank() > 0 && step.back() == 1 && out[out.rank() - 1] >= kShortestRow &&
         out.numel() * kLargestRest >= g.type(n.inputs[0]).shape.numel() &&
         std::all_of(step.begin(), step.end(), [](std::int64_t k) { return k > 0; });
}

// The dtype a node forces on its loop: f64, f32, or none (boolean) when it has no floating value.
DType forced_compute(const Graph& g, const Node& n) {
  bool f32_seen = false;
  if (!n.inputs.empty() && is_integer_cast(n, g.type(n.inputs[0]).dtype)) return DType::f64;
  for (const Type& t : n.types) {
    if (t.dtype == DType::f64) return DType::f64;
    f32_seen |= is_float(t.dtype);
  }
  for (Value v : n.inputs) {
    if (g.type(v).dtype == DType::f64) return DType::f64;
    f32_seen |= is_float(g.type(v).dtype);
  }
  return f32_seen ? DType::f32 : DType::boolean;
}

class Finder {
 public:
  Finder(const Graph& g, std::span<const NodeId> nodes) : g_(g) {
    for (NodeId n : nodes)
      if (g.nodes[n].op == OpId::concatenate)
        space_.joins.push_back({n, {}});
      else if (!is_transparent(g, n))
        space_.members.push_back(member(n));
    if (space_.members.empty() && !nodes.empty()) space_.members.push_back(member(nodes.back()));
  }

  std::optional<LoopSpace> find() {
    if (space_.members.empty() || !choose_dims() || !choose_compute()) return std::nullopt;
    if (!place_members() || !place_reads() || !place_joins()) return std::nullopt;
    merge_dims();
    if (!classify()) return std::nullopt;
    if (space_.compute == DType::boolean) space_.compute = DType::f32;
    return std::move(space_);
  }

 private:
  static LoopMember member(NodeId n) {
    LoopMember m;
    m.node = n;
    return m;
  }
  const Node& node_of(const LoopMember& m) const { return g_.nodes[m.node]; }
  bool is_member(NodeId n) const { return space_.find(n) != nullptr; }
  static bool same_numel(const Shape& a, const Shape& b) { return a.numel() == b.numel(); }

  // The shape over which a member works: its result's, or what it reduces.
  const Shape& work_shape(const LoopMember& m) const {
    const Node& n = node_of(m);
    return is_reduction(n.op) ? g_.type(n.inputs[0]).shape : n.types[0].shape;
  }

  // The largest member's dimensions, of the most finely divided shape.
  bool choose_dims() {
    const Shape* best = nullptr;
    for (const LoopMember& m : space_.members) {
      const Shape& s = work_shape(m);
      if (s.numel() == 0) return false;
      const auto wide = [](const Shape& x) { return std::count_if(x.begin(), x.end(), [](auto d) { return d != 1; }); };
      if (best == nullptr || s.numel() > best->numel() || (same_numel(s, *best) && wide(s) > wide(*best))) best = &s;
    }
    for (std::int64_t d : *best)
      if (d != 1) space_.dims.push_back(d);
    full_.resize(space_.dims.size());
    std::int64_t step = 1;
    for (std::size_t i = full_.size(); i-- > 0;) full_[i] = step, step *= space_.dims[i];
    numel_ = step;
    return true;
  }

  bool choose_compute() {
    space_.compute = DType::boolean;
    // A copy of integers must not round them.
    const Node& last = node_of(space_.members.back());
    if (is_transparent(g_, space_.members.back().node) && is_integer(last.types[0].dtype)) {
      space_.compute = DType::f64;
      return last.types[0].dtype != DType::i64 || last.op == OpId::full;
    }
    for (const LoopMember& m : space_.members) {
      const DType t = forced_compute(g_, node_of(m));
      if (t == DType::boolean) continue;
      if (space_.compute != DType::boolean && space_.compute != t) return false;
      space_.compute = t;
    }
    return true;
  }

  // ---- where members lie ----
  // Strides of a reduction's result when its operand is laid out in full.
  std::optional<Strides> reduced_strides(const Node& n) const {
    const Shape& in = g_.type(n.inputs[0]).shape;
    const ir::Ints& axes = n.attrs.ints("axes");
    Strides out(space_.dims.size(), 0);
    std::vector<std::int64_t> step(static_cast<std::size_t>(in.rank()), 0), unit(step);
    std::int64_t kept = 1, all = 1;
    for (int i = in.rank() - 1; i >= 0; --i) {
      const auto k = static_cast<std::size_t>(i);
      unit[k] = all;
      all *= in[i];
      if (std::find(axes.begin(), axes.end(), i) != axes.end()) continue;
      step[k] = kept;
      kept *= in[i];
    }
    for (std::size_t d = 0; d < out.size(); ++d) {
      const int axis = axis_of(in, full_[d], space_.dims[d]);
      if (axis < 0) return std::nullopt;
      const auto k = static_cast<std::size_t>(axis);
      out[d] = step[k] * (full_[d] / unit[k]);
    }
    return out;
  }

  // Strides into the operand of n from those into its result; scale(axis): how far a step along an axis of the result
  // goes there.
  template <class F> std::optional<Strides> before(const Node& n, const Strides& s, F scale) const {
    const Shape& out = n.types[0].shape;
    const Shape steps = row_major_strides(out);
    Strides into(s.size(), 0);
    for (std::size_t d = 0; d < s.size(); ++d) {
      if (s[d] == 0) continue;
      const int axis = axis_of(out, s[d], space_.dims[d]);
      if (axis < 0) return std::nullopt;
      into[d] = scale(axis) * (s[d] / steps[axis]);
    }
    return into;
  }

  std::optional<Strides> before_broadcast(const Node& n, const Strides& s) const {
    const Shape& in = g_.type(n.inputs[0]).shape;
    const Shape in_steps = row_major_strides(in);
    const int added = n.types[0].shape.rank() - in.rank();
    return before(n, s, [&](int axis) {
      const int from = axis - added;
      return from >= 0 && in[from] != 1 ? in_steps[from] : std::int64_t{0};
    });
  }

  // Also moves the offset from a place in the slice to the same one in its operand.
  std::optional<Strides> before_slice(const Node& n, const Strides& s, std::int64_t& offset) const {
    const Shape& out = n.types[0].shape;
    const ir::Ints &start = n.attrs.ints("start"), &step = n.attrs.ints("step");
    const Shape in_steps = row_major_strides(g_.type(n.inputs[0]).shape), out_steps = row_major_strides(out);
    std::int64_t at = 0;
    for (int i = 0; i < out.rank(); ++i) {
      const auto k = static_cast<std::size_t>(i);
      at += (start[k] + offset / out_steps[i] % out[i] * step[k]) * in_steps[i];
    }
    offset = at;
    return before(n, s, [&](int axis) { return in_steps[axis] * step[static_cast<std::size_t>(axis)]; });
  }

  // Follows an operand with the given strides through transparent nodes to what is behind. A slice that cannot be
  // looked through is read from memory itself; of a member there is none then, as its value is at hand where it was
  // computed.
  std::optional<LoopRead> follow(Value v, Strides s) const {
    LoopRead read;
    std::optional<LoopRead> slice;
    while (is_transparent(g_, v.node) && !is_member(v.node)) {
      const Node& n = g_.nodes[v.node];
      if (n.op == OpId::full) {
        read.kind = LoopRead::Kind::constant;
        read.constant = n.attrs.real("value");
        return read;
      }
      if (n.op == OpId::slice && !slice) {
        if (is_member(behind_transparent(g_, v).node)) return std::nullopt;
        slice = LoopRead{.kind = LoopRead::Kind::memory, .value = v, .strides = s};
      }
      if (n.op == OpId::broadcast || n.op == OpId::slice) {
        auto into = n.op == OpId::slice ? before_slice(n, s, read.offset)
                    : read.offset != 0  ? std::nullopt
                                        : before_broadcast(n, s);
        if (!into) return slice;
        s = std::move(*into);
      }
      v = n.inputs[0];
    }
    read.kind = is_member(v.node) ? LoopRead::Kind::member : LoopRead::Kind::memory;
    read.value = v;
    read.strides = std::move(s);
    return read;
  }

  // Strides of a member's operands: those of its result, or all of the space for a reduction.
  const Strides& operand_strides(const LoopMember& m) const { return is_reduction(node_of(m).op) ? full_ : m.strides; }

  bool place_members() {
    const std::size_t count = space_.members.size();
    placed_.assign(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      LoopMember& m = space_.members[i];
      const Node& n = node_of(m);
      if (is_reduction(n.op)) {
        if (g_.type(n.inputs[0]).shape.numel() != numel_) return false;
        auto s = reduced_strides(n);
        if (!s) return false;
        m.strides = std::move(*s), placed_[i] = true;
      } else if (n.types[0].shape.numel() == numel_) {
        m.strides = full_, placed_[i] = true;
      } else if (n.types[0].shape.numel() == 1) {
        m.strides.assign(full_.size(), 0), placed_[i] = true;
      }
      if (n.op == OpId::random_bits && n.types[0].shape.numel() != numel_) return false;
    }
    // Smaller ones lie where their producers or their consumers in the group say.
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t i = 0; i < count; ++i)
        if (!placed_[i]) changed |= place_after_producer(i);
      for (std::size_t i = count; i-- > 0;)
        if (placed_[i] && !place_producers(i, changed)) return false;
    }
    return std::all_of(placed_.begin(), placed_.end(), [](bool b) { return b; });
  }

  std::size_t index_of(NodeId n) const { return static_cast<std::size_t>(space_.find(n) - space_.members.data()); }

  bool place_after_producer(std::size_t i) {
    const Node& n = node_of(space_.members[i]);
    for (Value v : n.inputs) {
      while (g_.nodes[v.node].op == OpId::reshape && !is_member(v.node)) v = g_.nodes[v.node].inputs[0];
      if (!is_member(v.node) || !same_numel(g_.type(v).shape, n.types[0].shape)) continue;
      const std::size_t k = index_of(v.node);
      if (!placed_[k]) continue;
      space_.members[i].strides = space_.members[k].strides;
      return placed_[i] = true;
    }
    return false;
  }

  bool place_producers(std::size_t i, bool& changed) {
    for (Value v : node_of(space_.members[i]).inputs) {
      const auto read = follow(v, operand_strides(space_.members[i]));
      if (!read) return false;
      if (read->kind != LoopRead::Kind::member) continue;
      const std::size_t k = index_of(read->value.node);
      if (placed_[k]) {
        if (space_.members[k].strides != read->strides) return false;
      } else {
        space_.members[k].strides = read->strides;
        placed_[k] = changed = true;
      }
    }
    return true;
  }

  bool place_reads() {
    std::size_t reads = 0;
    for (LoopMember& m : space_.members) {
      if (node_of(m).op == OpId::iota) {  // alone
        m.reads.push_back({LoopRead::Kind::column, {m.node, 0}, 0, m.strides});
        continue;
      }
      if (node_of(m).op == OpId::full)  // alone
        m.reads.push_back({LoopRead::Kind::constant, {}, node_of(m).attrs.real("value"), {}});
      for (Value v : node_of(m).inputs) {
        Strides from = node_of(m).op == OpId::random_bits ? Strides(full_.size(), 0) : operand_strides(m);
        if (node_of(m).op == OpId::broadcast) {  // alone
          auto into = before_broadcast(node_of(m), from);
          if (!into) return false;
          from = std::move(*into);
        }
        auto read = follow(v, std::move(from));
        if (!read) return false;
        if (read->kind == LoopRead::Kind::memory && g_.nodes[read->value.node].op == OpId::iota)
          read->kind = LoopRead::Kind::column;
        m.reads.push_back(std::move(*read));
        ++reads;
      }
    }
    return reads <= 2 * kMaxReads;
  }

  // Every part is a member of the whole space, seen through reshapes.
  bool place_joins() {
    for (LoopJoin& join : space_.joins) {
      const Node& n = g_.nodes[join.concatenate];
      const auto axis = static_cast<int>(n.attrs.integer("axis"));
      const Shape steps = row_major_strides(n.types[0].shape);
      std::int64_t first = 0;
      for (Value v : n.inputs) {
        const Shape& part = g_.type(v).shape;
        while (g_.nodes[v.node].op == OpId::reshape && !is_member(v.node)) v = g_.nodes[v.node].inputs[0];
        const LoopMember* m = space_.find(v.node);
        auto strides = m != nullptr && m->strides == full_ ? strides_among(part, steps) : std::nullopt;
        if (!strides) return false;
        join.parts.push_back({v.node, std::move(*strides), first});
        first += part[axis] * steps[axis];
      }
    }
    return true;
  }

  // Of the whole space, where each axis of a tensor of this shape goes `steps` apart.
  std::optional<Strides> strides_among(const Shape& shape, const Shape& steps) const {
    const Shape own = row_major_strides(shape);
    Strides out;
    for (std::size_t d = 0; d < full_.size(); ++d) {
      const int axis = axis_of(shape, full_[d], space_.dims[d]);
      if (axis < 0) return std::nullopt;
      out.push_back(full_[d] / own[axis] * steps[axis]);
    }
    return out;
  }

  void merge_dims() {
    std::vector<Strides*> all{&full_};
    for (LoopJoin& join : space_.joins)
      for (LoopJoin::Part& part : join.parts) all.push_back(&part.strides);
    for (LoopMember& m : space_.members) {
      all.push_back(&m.strides);
      for (LoopRead& r : m.reads)
        if (r.kind == LoopRead::Kind::memory || r.kind == LoopRead::Kind::column) all.push_back(&r.strides);
    }
    for (std::size_t d = space_.dims.size(); d-- > 1;) {
      const std::int64_t inner = space_.dims[d];
      const auto alike = [&](const Strides* s) { return (*s)[d - 1] == (*s)[d] * inner; };
      if (!std::all_of(all.begin(), all.end(), alike)) continue;
      space_.dims[d - 1] *= inner;
      space_.dims.erase(space_.dims.begin() + static_cast<std::ptrdiff_t>(d));
      for (Strides* s : all) {
        (*s)[d - 1] = (*s)[d];
        s->erase(s->begin() + static_cast<std::ptrdiff_t>(d));
      }
    }
    space_.cols = space_.dims.empty() ? 1 : space_.dims.back();
    space_.rows = numel_ / space_.cols;
  }

  bool classify() {
    if (space_.dims.size() > 7) return false;
    for (LoopMember& m : space_.members) {
      if (!classify_member(m)) return false;
      for (LoopRead& r : m.reads)
        if (r.kind == LoopRead::Kind::member && space_.find(r.value.node)->kind == LoopMember::Kind::column_reduction)
          return false;
        else if (r.kind == LoopRead::Kind::column && !classify_index(r))
          return false;
    }
    return true;
  }

  bool classify_member(LoopMember& m) {
    const std::size_t k = space_.dims.size();
    const auto rows_end = m.strides.begin() + static_cast<std::ptrdiff_t>(k == 0 ? 0 : k - 1);
    const bool no_rows = std::all_of(m.strides.begin(), rows_end, [](auto s) { return s == 0; });
    const bool all_rows = std::all_of(m.strides.begin(), rows_end, [](auto s) { return s != 0; });
    if (!no_rows && !all_rows) return false;  // a stored value is written once a place
    if (!is_reduction(node_of(m).op)) return true;
    const bool column = k > 0 && m.strides[k - 1] != 0;
    if (!column && (k <= 1 || all_rows))
      m.kind = LoopMember::Kind::row_reduction;
    else if (column && no_rows && k >= 2 && node_of(m).op != OpId::reduce_prod)
      m.kind = LoopMember::Kind::column_reduction;
    else
      return false;
    return true;
  }

  // An iota along the columns is their index; along anything else it is read from memory.
  bool classify_index(LoopRead& r) const {
    const Node& n = g_.nodes[r.value.node];
    const Shape& shape = n.types[0].shape;
    const int axis = static_cast<int>(n.attrs.integer("axis"));
    const std::int64_t unit = row_major_strides(shape)[axis];
    const bool along_columns = !r.strides.empty() && r.strides.back() == unit && shape[axis] == space_.cols;
    const bool bounded = shape[axis] <= kExactInF32;
    // Rows may move through the other axes only: by whole multiples of this axis or below one unit of it.
    const auto elsewhere = [&](std::int64_t s) { return s % (unit * shape[axis]) == 0; };
    if (along_columns && bounded && std::all_of(r.strides.begin(), r.strides.end() - 1, elsewhere)) return true;
    r.kind = LoopRead::Kind::memory;
    return !(space_.members.size() == 1 && space_.members[0].node == r.value.node);
  }

  const Graph& g_;
  LoopSpace space_;
  Strides full_;
  std::int64_t numel_ = 1;
  std::vector<bool> placed_;
};

}  // namespace

const LoopMember* LoopSpace::find(NodeId n) const {
  const auto at =
      std::lower_bound(members.begin(), members.end(), n, [](const LoopMember& m, NodeId id) { return m.node < id; });
  return at != members.end() && at->node == n ? &*at : nullptr;
}

int axis_of(const Shape& shape, std::int64_t stride, std::int64_t count) {
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    const std::int64_t end = step * shape[i];
    if (stride < end) return stride % step == 0 && stride * count <= end ? i : -1;
    step = end;
  }
  return -1;
}

bool is_reduction(OpId op) {
  return op == OpId::reduce_sum || op == OpId::reduce_max || op == OpId::reduce_min || op == OpId::reduce_prod;
}

bool is_transparent(const Graph& g, NodeId n) {
  const OpId op = g.nodes[n].op;
  return op == OpId::reshape || op == OpId::broadcast || op == OpId::full || (op == OpId::slice && is_long_slice(g, n));
}

Value behind_transparent(const Graph& g, Value v) {
  while (is_transparent(g, v.node) && !g.nodes[v.node].inputs.empty()) v = g.nodes[v.node].inputs[0];
  return v;
}

bool is_loop_op(const Graph& g, NodeId id) {
  const Node& n = g.nodes[id];
  if (n.types.size() != 1) return false;
  const DType out = n.types[0].dtype;
  const DType in = n.inputs.empty() ? out : g.type(n.inputs[0]).dtype;
  switch (n.op) {
    case OpId::neg:
    case OpId::abs:
    case OpId::sign:
    case OpId::exp:
    case OpId::expm1:
    case OpId::log:
    case OpId::log1p:
    case OpId::sqrt:
    case OpId::rsqrt:
    case OpId::reciprocal:
    case OpId::sin:
    case OpId::cos:
    case OpId::tanh:
    case OpId::sigmoid:
    case OpId::erf:
    case OpId::floor:
    case OpId::ceil:
    case OpId::round:
    case OpId::relu:
    case OpId::add:
    case OpId::sub:
    case OpId::mul:
    case OpId::div:
    case OpId::pow:
    case OpId::maximum:
    case OpId::minimum:
    case OpId::remainder:
    case OpId::isfinite:
    case OpId::reduce_max:
    case OpId::reduce_min:
    case OpId::reduce_prod: return is_float(in);
    case OpId::reduce_sum:
      return is_float(in) || (in == DType::boolean && g.type(n.inputs[0]).shape.numel() <= kExactInF32);
    case OpId::stop_gradient: return is_float(in) || in == DType::boolean;
    case OpId::logical_not:
    case OpId::logical_and:
    case OpId::logical_or: return in == DType::boolean;
    case OpId::cast: return is_cast_of_loops(in, out);
    case OpId::select: return is_float(out) || out == DType::boolean;
    case OpId::equal:
    case OpId::not_equal:
    case OpId::less:
    case OpId::less_equal:
    case OpId::greater:
    case OpId::greater_equal:
      return !is_integer(in) || is_small_integer(g, n.inputs[0]) || is_small_integer(g, n.inputs[1]);
    case OpId::random_bits: return n.attrs.integer("width") <= 24;
    default: return false;
  }
}

std::optional<LoopSpace> loop_space(const Graph& g, std::span<const NodeId> nodes) { return Finder(g, nodes).find(); }

}  // namespace bp::passes

// Groups of kind loop to steps: a LoopSpace becomes a LoopProgram, its operands the step's reads and writes.
#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "cpu/kernels/loop_program.h"
#include "cpu/lower/lowering.h"
#include "passes/loop_space.h"

namespace bp::cpu {

namespace {

using ir::NodeId;
using ir::OpId;
using ir::Value;
using passes::LoopMember;
using passes::LoopRead;
using passes::LoopSpace;
using passes::Strides;

class LoopKernel final : public Kernel {
 public:
  LoopKernel(const LoopProgram& program, int max_threads)
      : loop_(program), threads_(loop_.useful_threads(max_threads)) {}
  void run(void* const* args, void* workspace, int threads) const override { loop_.run(args, threads, workspace); }
  std::size_t workspace_bytes(int threads) const override { return loop_.workspace_bytes(threads); }
  int preferred_threads() const override { return threads_; }

 private:
  CompiledLoop loop_;
  int threads_;
};

LoopOp loop_op(OpId op) {
  switch (op) {
    case OpId::neg: return LoopOp::neg;
    case OpId::abs: return LoopOp::abs;
    case OpId::sign: return LoopOp::sign;
    case OpId::exp: return LoopOp::exp;
    case OpId::expm1: return LoopOp::expm1;
    case OpId::log: return LoopOp::log;
    case OpId::log1p: return LoopOp::log1p;
    case OpId::sqrt: return LoopOp::sqrt;
    case OpId::rsqrt: return LoopOp::rsqrt;
    case OpId::reciprocal: return LoopOp::reciprocal;
    case OpId::sin: return LoopOp::sin;
    case OpId::cos: return LoopOp::cos;
    case OpId::tanh: return LoopOp::tanh;
    case OpId::sigmoid: return LoopOp::sigmoid;
    case OpId::erf: return LoopOp::erf;
    case OpId::floor: return LoopOp::floor;
    case OpId::ceil: return LoopOp::ceil;
    case OpId::round: return LoopOp::round;
    case OpId::isfinite: return LoopOp::is_finite;
    case OpId::logical_not: return LoopOp::logical_not;
    case OpId::add: return LoopOp::add;
    case OpId::sub: return LoopOp::sub;
    case OpId::mul: return LoopOp::mul;
    case OpId::div: return LoopOp::div;
    case OpId::pow: return LoopOp::pow;
    case OpId::maximum: return LoopOp::max;
    case OpId::minimum: return LoopOp::min;
    case OpId::remainder: return LoopOp::remainder;
    case OpId::equal: return LoopOp::eq;
    case OpId::not_equal: return LoopOp::ne;
    case OpId::less: return LoopOp::lt;
    case OpId::less_equal: return LoopOp::le;
    case OpId::greater: return LoopOp::gt;
    case OpId::greater_equal: return LoopOp::ge;
    case OpId::logical_and: return LoopOp::logical_and;
    default: return LoopOp::logical_or;
  }
}

LoopOp reduction_op(OpId op, bool column) {
  switch (op) {
    case OpId::reduce_max: return column ? LoopOp::column_max : LoopOp::row_max;
    case OpId::reduce_min: return column ? LoopOp::column_min : LoopOp::row_min;
    case OpId::reduce_prod: return LoopOp::row_prod;
    default: return column ? LoopOp::column_sum : LoopOp::row_sum;
  }
}

// Writes one group's program. Operands are numbered inputs first, then outputs: the order of a step's arguments.
class Writer {
 public:
  Writer(Lowering& l, const LoopSpace& space, const std::vector<Value>& results)
      : l_(l), g_(l.graph()), space_(space), results_(results) {
    program_.rows = space.rows, program_.cols = space.cols, program_.compute = space.compute;
  }

  void emit(StepInfo info) {
    for (const LoopMember& m : space_.members)
      for (const LoopRead& r : m.reads)
        if (r.kind == LoopRead::Kind::memory) input(r);
    add_outputs();
    for (const LoopMember& m : space_.members) values_[m.node] = write(m);
    // Column sums are stored as they are made; what remains are values.
    for (const auto& [v, operand] : outputs_)
      if (space_.find(v.node)->kind != LoopMember::Kind::column_reduction) program_.store(operand, values_[v.node]);
    info.bytes = bytes();
    l_.emit(std::make_unique<LoopKernel>(program_, l_.options().threads), std::move(reads_), std::move(writes_),
            std::move(info), in_place_safe_);
  }

 private:
  LoopAccess access(const Strides& s) const {
    LoopAccess a;
    for (std::size_t d = 0; d + 1 < s.size(); ++d) a.digit(space_.dims[d], s[d]);
    a.col_stride = s.empty() ? 0 : s.back();
    return a;
  }

  int input(const LoopRead& r) {
    const BufferId buffer = l_.buffer(r.value);
    const auto key = std::tuple(buffer, r.strides, r.offset);
    if (const auto at = inputs_.find(key); at != inputs_.end()) return at->second;
    reads_.push_back(buffer);
    return inputs_[key] = program_.input(g_.type(r.value).dtype, access(r.strides), r.offset);
  }

  // What is read and written of each operand: a slice or a part of a tensor is not all of it.
  double bytes() const {
    double sum = 0;
    for (const LoopOperand& o : program_.operands) {
      double elements = o.access.col_stride == 0 ? 1 : static_cast<double>(program_.cols);
      for (std::size_t d = 0; d < static_cast<std::size_t>(o.access.rank); ++d)
        if (o.access.stride[d] != 0) elements *= static_cast<double>(o.access.size[d]);
      sum += elements * static_cast<double>(size_of(o.dtype));
    }
    return sum;
  }

  // An output that updates a state may overwrite it while it is read, if it is read element by element only.
  void add_outputs() {
    for (Value v : results_) {
      if (add_joined(v)) continue;
      const LoopMember& m = *space_.find(v.node);
      const int shared = state_operand(v, m);
      writes_.push_back(l_.buffer(v));
      outputs_.emplace_back(v, program_.output(g_.type(v).dtype, access(m.strides), shared));
    }
  }

  // The parts of a concatenate.
  bool add_joined(Value v) {
    for (const passes::LoopJoin& join : space_.joins) {
      if (join.concatenate != v.node) continue;
      const BufferId buffer = l_.buffer(v);
      in_place_safe_ &= l_.memory(buffer).kind != MemoryRef::Kind::output;
      for (const passes::LoopJoin::Part& part : join.parts) {
        writes_.push_back(buffer);
        outputs_.emplace_back(Value{part.member, 0},
                              program_.output(g_.type(v).dtype, access(part.strides), -1, part.offset));
      }
      return true;
    }
    return false;
  }

  int state_operand(Value v, const LoopMember& m) {
    const MemoryRef& memory = l_.memory(l_.buffer(v));
    if (memory.kind != MemoryRef::Kind::output || g_.outputs[memory.index].updates < 0) return -1;
    const Value state{g_.inputs[static_cast<std::size_t>(g_.outputs[memory.index].updates)].node, 0};
    const BufferId buffer = l_.buffer(state);
    int found = -1;
    for (const auto& [key, operand] : inputs_) {
      const auto& [from, strides, offset] = key;
      if (from != buffer) continue;
      const bool alike =
          strides == m.strides && offset == 0 && is_full(m.strides) && g_.type(v).dtype == g_.type(state).dtype;
      if (!alike || found >= 0 || is_plain_copy(m)) return in_place_safe_ = false, -1;
      found = operand;
    }
    return found;
  }
  bool is_full(const Strides& s) const {
    std::int64_t step = 1;
    for (std::size_t d = s.size(); d-- > 0; step *= space_.dims[d])
      if (s[d] != step) return false;
    return true;
  }
  // Two states may be swapped by copies: nothing orders those within a step.
  bool is_plain_copy(const LoopMember& m) const {
    return g_.nodes[m.node].op == OpId::stop_gradient || passes::is_transparent(g_, m.node);
  }

  int read(const LoopRead& r) {
    switch (r.kind) {
      case LoopRead::Kind::member: return values_.at(r.value.node);
      case LoopRead::Kind::constant: return program_.constant(r.constant);
      case LoopRead::Kind::column: return program_.column_index();
      case LoopRead::Kind::memory: break;
    }
    const int operand = input(r);
    if (const auto at = loads_.find(operand); at != loads_.end()) return at->second;
    return loads_[operand] = program_.load(operand);
  }

  int write(const LoopMember& m) {
    const ir::Node& n = g_.nodes[m.node];
    if (n.op == OpId::random_bits)
      return program_.random(input(m.reads[0]), static_cast<std::uint64_t>(n.attrs.integer("place")),
                             static_cast<int>(n.attrs.integer("width")));
    const int a = read(m.reads[0]);
    if (m.kind == LoopMember::Kind::row_reduction) return program_.reduce(reduction_op(n.op, false), a);
    if (m.kind == LoopMember::Kind::column_reduction) {
      for (const auto& [v, operand] : outputs_)
        if (v.node == m.node) program_.column(reduction_op(n.op, true), operand, a);
      return -1;
    }
    switch (n.op) {
      case OpId::broadcast:
      case OpId::full:
      case OpId::iota:
      case OpId::stop_gradient: return a;
      case OpId::cast: return write_cast(n, a);
      case OpId::relu: return program_.binary(LoopOp::max, a, program_.constant(0));
      case OpId::select: return program_.select(a, read(m.reads[1]), read(m.reads[2]));
      default: break;
    }
    if (n.inputs.size() == 1) return program_.unary(loop_op(n.op), a);
    return program_.binary(loop_op(n.op), a, read(m.reads[1]));
  }

  int write_cast(const ir::Node& n, int a) {
    const DType from = g_.type(n.inputs[0]).dtype, to = n.types[0].dtype;
    if (to == DType::boolean && from != DType::boolean) return program_.binary(LoopOp::ne, a, program_.constant(0));
    if (to == DType::bf16) return program_.unary(LoopOp::to_bf16, a);
    if (is_float(from) && is_integer(to)) return write_truncation(to, a);
    if (to == DType::f32 && space_.compute == DType::f64) return program_.unary(LoopOp::to_f32, a);
    return a;
  }

  // Toward zero, within the integer's range, NaN as 0.
  int write_truncation(DType to, int a) {
    const int number = program_.select(program_.binary(LoopOp::eq, a, a), a, program_.constant(0));
    const auto bounds = dispatch(to, [](auto zero) {
      using T = decltype(zero);
      return std::pair(static_cast<double>(std::numeric_limits<T>::min()),
                       static_cast<double>(std::numeric_limits<T>::max()));
    });
    const int low = program_.binary(LoopOp::max, number, program_.constant(bounds.first));
    return program_.unary(LoopOp::trunc, program_.binary(LoopOp::min, low, program_.constant(bounds.second)));
  }

  Lowering& l_;
  const ir::Graph& g_;
  const LoopSpace& space_;
  const std::vector<Value>& results_;
  LoopProgram program_;
  std::map<std::tuple<BufferId, Strides, std::int64_t>, int> inputs_;  // operands
  std::map<int, int> loads_;                                           // operand -> value
  std::map<NodeId, int> values_;
  std::vector<std::pair<Value, int>> outputs_;
  std::vector<BufferId> reads_, writes_;
  bool in_place_safe_ = true;
};

// "loop(sub, exp, sum)", the first few of many.
StepInfo info_of(Lowering& l, const LoopSpace& space) {
  constexpr std::size_t kNamed = 6;
  StepInfo info = l.info_of(space.members.back().node);
  info.name = "loop(";
  info.flops = 0;
  for (std::size_t i = 0; i < space.members.size(); ++i) {
    const StepInfo one = l.info_of(space.members[i].node);
    info.flops += one.flops;
    if (i < kNamed) info.name += (i == 0 ? "" : ", ") + one.name;
    if (i == kNamed) info.name += ", ...";
  }
  info.name += ")";
  return info;
}

}  // namespace

bool lower_loop(Lowering& l, const passes::Group& group) {
  const ir::Graph& g = l.graph();
  const auto at = std::find_if(group.nodes.rbegin(), group.nodes.rend(),
                               [&](NodeId n) { return g.nodes[n].op != OpId::concatenate; });
  if (at == group.nodes.rend()) return false;
  const NodeId last = *at;
  const OpId op = g.nodes[last].op;
  const bool known =
      passes::is_loop_op(g, last) || (passes::is_transparent(g, last) && op != OpId::slice) || op == OpId::iota;
  if (!known || (group.kind != passes::Group::Kind::loop && group.nodes.size() > 1)) return false;
  const auto space = passes::loop_space(g, group.nodes);
  if (!space) return false;
  const std::vector<Value>& results = l.results(l.partition().group_of[last]);
  if (results.empty()) return true;  // nobody reads it
  Writer(l, *space, results).emit(info_of(l, *space));
  return true;
}

}  // namespace bp::cpu

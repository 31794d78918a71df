// Indexing to steps: gather, take_along and their transposes.
#include "cpu/kernels/gather.h"
#include "cpu/kernels/strided_copy.h"
#include "cpu/lower/lowering.h"

namespace bp::cpu {

namespace {

using ir::OpId;

class GatherKernel final : public Kernel {
 public:
  GatherKernel(OpId op, const GatherSpec& spec) : op_(op), spec_(spec) {}
  void run(void* const* args, void*, int threads) const override {
    switch (op_) {
      case OpId::gather: return gather_rows(spec_, args[0], args[1], args[2], threads);
      case OpId::take_along: return take_along(spec_, args[0], args[1], args[2], threads);
      case OpId::scatter_add:
        clear(args[2], threads);
        return scatter_add_rows(spec_, args[1], args[0], args[2], threads);
      default: clear(args[2], threads); return scatter_add_along(spec_, args[0], args[1], args[2], threads);
    }
  }
  int preferred_threads() const override { return spec_.preferred_threads(kManyThreads); }

 private:
  void clear(void* table, int threads) const {
    constexpr std::uint64_t kZero = 0;
    fill_elements(table, &kZero, spec_.outer * spec_.rows * spec_.inner, size_of(spec_.dtype), threads);
  }
  OpId op_;
  GatherSpec spec_;
};

bool lower_gather(Lowering& l, ir::NodeId id) {
  const ir::Graph& g = l.graph();
  const ir::Node& n = g.nodes[id];
  const bool adds = n.op == OpId::scatter_add || n.op == OpId::scatter_along;
  const std::size_t index_input = n.op == OpId::scatter_add ? 0 : 1;
  const Shape& table = adds ? n.types[0].shape : g.type(n.inputs[0]).shape;
  const Type& index = g.type(n.inputs[index_input]);
  if (index.dtype != i32 && index.dtype != i64) return false;
  const int axis = n.op == OpId::scatter_add ? 0 : static_cast<int>(n.attrs.integer("axis"));
  GatherSpec s;
  s.rows = table[axis];
  for (int d = 0; d < table.rank(); ++d) (d < axis ? s.outer : s.inner) *= d == axis ? 1 : table[d];
  const bool along = n.op == OpId::take_along || n.op == OpId::scatter_along;
  s.count = along ? index.shape[axis] : index.shape.numel();
  s.dtype = n.types[0].dtype;
  s.index = index.dtype;
  if (adds && (s.dtype == bf16 || s.dtype == boolean)) return false;  // sums of bf16 are made in f64 and rounded once
  l.emit_node(id, std::make_unique<GatherKernel>(n.op, s));
  return true;
}

}  // namespace

bool lower_indexing(Lowering& l, const passes::Group& group) {
  if (group.nodes.size() != 1) return false;
  switch (l.graph().nodes[group.nodes[0]].op) {
    case OpId::gather:
    case OpId::take_along:
    case OpId::scatter_add:
    case OpId::scatter_along: return lower_gather(l, group.nodes[0]);
    default: return false;
  }
}

}  // namespace bp::cpu

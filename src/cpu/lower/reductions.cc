// Reductions that are no part of a loop, to steps.
#include "cpu/kernels/reduce_rows.h"
#include "cpu/lower/lowering.h"
#include "passes/loop_space.h"

namespace bp::cpu {

namespace {

using ir::OpId;

class ReduceRowsKernel final : public Kernel {
 public:
  explicit ReduceRowsKernel(const ReduceRowsSpec& spec) : spec_(spec) {}
  void run(void* const* args, void*, int threads) const override { reduce_rows(spec_, args[0], args[1], threads); }
  int preferred_threads() const override { return spec_.preferred_threads(kManyThreads); }

 private:
  ReduceRowsSpec spec_;
};

ReduceRowsSpec::Fold fold_of(OpId op) {
  using Fold = ReduceRowsSpec::Fold;
  return op == OpId::reduce_sum   ? Fold::sum
         : op == OpId::reduce_max ? Fold::max
         : op == OpId::reduce_min ? Fold::min
                                  : Fold::prod;
}

}  // namespace

bool lower_reduction(Lowering& l, const passes::Group& group) {
  if (group.nodes.size() != 1) return false;
  const ir::Graph& g = l.graph();
  const ir::NodeId id = group.nodes[0];
  const ir::Node& n = g.nodes[id];
  if (!passes::is_reduction(n.op)) return false;
  const Type& x = g.type(n.inputs[0]);
  if ((x.dtype != f32 && x.dtype != f64) || n.types[0].dtype != x.dtype) return false;
  const ir::Ints& axes = n.attrs.ints("axes");
  // One block of axes (simplify sees to it), and something behind it.
  if (axes.empty() || axes.back() - axes.front() + 1 != static_cast<std::int64_t>(axes.size())) return false;
  ReduceRowsSpec s;
  s.outer = s.rows = s.columns = 1;
  for (int d = 0; d < x.shape.rank(); ++d)
    (d < axes.front() ? s.outer : d <= axes.back() ? s.rows : s.columns) *= x.shape[d];
  if (s.columns < 2 || x.shape.numel() == 0) return false;
  s.fold = fold_of(n.op);
  s.dtype = x.dtype;
  l.emit_node(id, std::make_unique<ReduceRowsKernel>(s));
  return true;
}

}  // namespace bp::cpu

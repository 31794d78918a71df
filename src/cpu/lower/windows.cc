// Pooling to steps.
#include "cpu/kernels/pool.h"
#include "cpu/lower/lowering.h"

namespace bp::cpu {

namespace {

using ir::OpId;

class PoolKernel final : public Kernel {
 public:
  PoolKernel(OpId op, const PoolSpec& spec) : op_(op), spec_(spec) {}
  void run(void* const* args, void*, int threads) const override {
    switch (op_) {
      case OpId::max_pool: return max_pool(spec_, args[0], args[1], args[2], threads);
      case OpId::max_pool_grad: return max_pool_grad(spec_, args[0], args[1], args[2], threads);
      case OpId::max_pool_take: return max_pool_take(spec_, args[0], args[1], args[2], threads);
      case OpId::avg_pool: return avg_pool(spec_, args[0], args[1], threads);
      default: return avg_pool_grad(spec_, args[0], args[1], threads);
    }
  }
  int preferred_threads() const override { return spec_.preferred_threads(kManyThreads); }

 private:
  OpId op_;
  PoolSpec spec_;
};

bool lower_pool(Lowering& l, ir::NodeId id) {
  const ir::Graph& g = l.graph();
  const ir::Node& n = g.nodes[id];
  const bool backward = n.op == OpId::max_pool_grad || n.op == OpId::avg_pool_grad;
  const Type &first = g.type(n.inputs[0]), &result = n.types[0];
  const Shape &x = backward ? result.shape : first.shape, &y = backward ? first.shape : result.shape;
  if ((result.dtype != f32 && result.dtype != f64) || x.rank() > 5) return false;
  PoolSpec s;
  s.spatial = x.rank() - 2;
  s.batch = x[0];
  s.channels = x.back();
  s.dtype = result.dtype;
  if (n.op == OpId::max_pool) s.index = n.types[1].dtype;
  if (n.op == OpId::max_pool_grad || n.op == OpId::max_pool_take) s.index = g.type(n.inputs[1]).dtype;
  if (n.attrs.has("count_include_pad")) s.count_include_pad = n.attrs.flag("count_include_pad");
  for (int i = 0; i < s.spatial; ++i) {
    const auto at = static_cast<std::size_t>(i);
    s.in[at] = x[i + 1];
    s.out[at] = y[i + 1];
    s.window[at] = n.attrs.ints("window")[at];
    s.stride[at] = n.attrs.ints("stride")[at];
    s.dilation[at] = n.attrs.ints("dilation")[at];
    s.pad_low[at] = n.attrs.ints("padding_low")[at];
  }
  l.emit_node(id, std::make_unique<PoolKernel>(n.op, s));
  return true;
}

}  // namespace

bool lower_window(Lowering& l, const passes::Group& group) {
  if (group.nodes.size() != 1) return false;
  switch (l.graph().nodes[group.nodes[0]].op) {
    case OpId::max_pool:
    case OpId::max_pool_grad:
    case OpId::max_pool_take:
    case OpId::avg_pool:
    case OpId::avg_pool_grad: return lower_pool(l, group.nodes[0]);
    default: return false;
  }
}

}  // namespace bp::cpu

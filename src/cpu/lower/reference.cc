// The step that runs an op's scalar kernel: for ops without a fast one, and for reference executables.
#include "cpu/lower/lowering.h"

namespace bp::cpu {

namespace {

class ReferenceKernel final : public Kernel {
 public:
  ReferenceKernel(const ir::Graph& g, ir::NodeId n)
      : op_(g.nodes[n].op), attrs_(g.nodes[n].attrs), out_(g.nodes[n].types) {
    for (ir::Value v : g.nodes[n].inputs) in_.push_back(g.type(v));
    views_.resize(in_.size() + out_.size());
  }

  void run(void* const* args, void*, int) const override {
    for (std::size_t i = 0; i < views_.size(); ++i)
      views_[i] = {args[i], i < in_.size() ? in_[i] : out_[i - in_.size()]};
    const std::span<const ir::View> all(views_);
    ir::op_def(op_).reference({all.subspan(0, in_.size()), all.subspan(in_.size()), attrs_});
  }

 private:
  ir::OpId op_;
  ir::Attrs attrs_;
  std::vector<Type> in_, out_;
  mutable std::vector<ir::View> views_;  // an executable runs on one caller at a time
};

}  // namespace

void lower_reference(Lowering& l, ir::NodeId n) {
  const ir::Graph& g = l.graph();
  std::vector<BufferId> reads, writes;
  for (ir::Value v : g.nodes[n].inputs) reads.push_back(l.buffer(v));
  for (std::uint32_t k = 0; k < g.nodes[n].types.size(); ++k) writes.push_back(l.buffer({n, k}));
  StepInfo info = l.info_of(n);
  info.name = "reference " + info.name;
  l.emit(std::make_unique<ReferenceKernel>(g, n), std::move(reads), std::move(writes), std::move(info));
}

}  // namespace bp::cpu

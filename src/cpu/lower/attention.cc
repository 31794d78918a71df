// Attention and its gradient to steps.
#include "cpu/kernels/attention.h"

#include "cpu/lower/lowering.h"
#include "passes/head_view.h"

namespace bp::cpu {

namespace {

using ir::OpId;

// Where the optional operands stand among a step's arguments; -1: absent.
struct Places {
  int mask = -1, lengths = -1, offset = -1, random = -1, count = 0;
};

AttentionArgs args_of(void* const* args, const Places& at) {
  const auto integers = [&](int i) { return i < 0 ? nullptr : static_cast<const std::int64_t*>(args[i]); };
  return {args[0],
          args[1],
          args[2],
          at.mask < 0 ? nullptr : args[at.mask],
          integers(at.lengths),
          integers(at.offset),
          integers(at.random)};
}

TokenStrides token_strides(const passes::HeadView& v) { return {v.offset, v.batch, v.token, v.head}; }

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(const AttentionSpec& spec, const Places& at) : spec_(spec), at_(at) {}
  void run(void* const* args, void* workspace, int threads) const override {
    attention(spec_, args_of(args, at_), args[at_.count], args[at_.count + 1], workspace, threads);
  }
  std::size_t workspace_bytes(int threads) const override { return attention_workspace(spec_, threads); }
  int preferred_threads() const override { return attention_threads(spec_, kManyThreads); }

 private:
  AttentionSpec spec_;
  Places at_;
};

class AttentionGradKernel final : public Kernel {
 public:
  // joined: one result holds dq, dk and dv
  AttentionGradKernel(const AttentionSpec& spec, const Places& at, bool joined)
      : spec_(spec), at_(at), step_(joined ? 0 : 1) {}
  void run(void* const* args, void* workspace, int threads) const override {
    void* const* out = args + at_.count;
    attention_grad(spec_, {args_of(args, at_), args[3], args[4], args[5]}, out[0], out[step_], out[2 * step_],
                   workspace, threads);
  }
  std::size_t workspace_bytes(int threads) const override { return attention_grad_workspace(spec_, threads); }
  int preferred_threads() const override { return attention_grad_threads(spec_, kManyThreads); }

 private:
  AttentionSpec spec_;
  Places at_;
  std::size_t step_;
};

// The memory of an operand: what slices were taken from, unless they are in memory themselves.
passes::HeadView operand(const Lowering& l, ir::NodeId id, std::size_t input) {
  const ir::Graph& g = l.graph();
  return passes::head_view(g, g.nodes[id].inputs[input],
                           [&](ir::NodeId n) { return l.partition().group_of[n] == passes::kNoGroup; });
}

void emit_attention(Lowering& l, ir::NodeId id, std::unique_ptr<Kernel> kernel, std::vector<BufferId> writes) {
  const ir::Node& n = l.graph().nodes[id];
  std::vector<BufferId> reads;
  StepInfo info = l.info_of(id);
  for (std::size_t i = 0; i < n.inputs.size(); ++i) {
    reads.push_back(l.buffer(passes::is_head_operand(l.graph(), id, i) ? operand(l, id, i).base : n.inputs[i]));
    info.bytes += static_cast<double>(l.graph().type(n.inputs[i]).bytes());
  }
  for (const Type& t : n.types) info.bytes += static_cast<double>(t.bytes());
  l.emit(std::move(kernel), std::move(reads), std::move(writes), std::move(info));
}

}  // namespace

bool lower_attention(Lowering& l, const passes::Group& group) {
  const ir::Graph& g = l.graph();
  const ir::NodeId id = group.nodes[0];
  const ir::Node& n = g.nodes[id];
  if (n.op != OpId::attention && n.op != OpId::attention_grad) return false;
  const Shape &q = g.type(n.inputs[0]).shape, &k = g.type(n.inputs[1]).shape, &v = g.type(n.inputs[2]).shape;
  AttentionSpec s;
  s.batch = q[0], s.queries = q[1], s.heads = q[2], s.depth = q[3];
  s.keys = k[1], s.key_heads = k[2], s.values = v[3];
  s.q = token_strides(operand(l, id, 0)), s.k = token_strides(operand(l, id, 1)),
  s.v = token_strides(operand(l, id, 2));
  s.scale = n.attrs.real("scale");
  s.causal = n.attrs.flag("causal");
  s.dtype = n.types[0].dtype;
  const bool backward = n.op == OpId::attention_grad;
  Places at;
  at.count = backward ? 6 : 3;
  if (n.attrs.flag("mask")) {
    at.mask = at.count++;
    const Type& m = g.type(n.inputs[static_cast<std::size_t>(at.mask)]);
    s.mask = m.dtype == boolean ? AttentionSpec::Mask::boolean : AttentionSpec::Mask::added;
    const Shape strides = row_major_strides(m.shape);
    for (int d = 0; d < 4; ++d) s.mask_strides[d] = m.shape[d] == 1 ? 0 : strides[d];
  }
  if (n.attrs.flag("lengths")) at.lengths = at.count++;
  if (n.attrs.flag("offset")) at.offset = at.count++;
  if (n.attrs.flag("random")) {
    at.random = at.count++;
    s.dropout = n.attrs.real("dropout");
    s.place = static_cast<std::uint64_t>(n.attrs.integer("place"));
  }
  std::vector<BufferId> writes;
  const bool joined = group.nodes.size() > 1;
  if (joined) {
    const passes::JoinedHeads j = passes::joined_heads(g, group.nodes.back(), ir::use_counts(g));
    s.dq = token_strides(j.dq), s.dk = token_strides(j.dk), s.dv = token_strides(j.dv);
    writes = {l.buffer({group.nodes.back(), 0})};
  } else {
    const auto row_major = [](const Shape& x) { return TokenStrides{0, x[1] * x[2] * x[3], x[2] * x[3], x[3]}; };
    s.dq = row_major(q), s.dk = row_major(k), s.dv = row_major(v);
    for (std::uint32_t i = 0; i < n.types.size(); ++i) writes.push_back(l.buffer({id, i}));
  }
  if (backward)
    emit_attention(l, id, std::make_unique<AttentionGradKernel>(s, at, joined), std::move(writes));
  else
    emit_attention(l, id, std::make_unique<AttentionKernel>(s, at), std::move(writes));
  return true;
}

}  // namespace bp::cpu

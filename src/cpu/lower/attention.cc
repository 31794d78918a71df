// Attention and its gradient to steps.
#include "cpu/kernels/attention.h"

#include "cpu/lower/lowering.h"

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

TokenStrides row_major(const Shape& s) { return {s[1] * s[2] * s[3], s[2] * s[3], s[3]}; }

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
  AttentionGradKernel(const AttentionSpec& spec, const Places& at) : spec_(spec), at_(at) {}
  void run(void* const* args, void* workspace, int threads) const override {
    void* const* out = args + at_.count;
    attention_grad(spec_, {args_of(args, at_), args[3], args[4], args[5]}, out[0], out[1], out[2], workspace, threads);
  }
  std::size_t workspace_bytes(int threads) const override { return attention_grad_workspace(spec_, threads); }
  int preferred_threads() const override { return attention_grad_threads(spec_, kManyThreads); }

 private:
  AttentionSpec spec_;
  Places at_;
};

}  // namespace

bool lower_attention(Lowering& l, const passes::Group& group) {
  if (group.nodes.size() != 1) return false;
  const ir::Graph& g = l.graph();
  const ir::NodeId id = group.nodes[0];
  const ir::Node& n = g.nodes[id];
  if (n.op != OpId::attention && n.op != OpId::attention_grad) return false;
  const Shape &q = g.type(n.inputs[0]).shape, &k = g.type(n.inputs[1]).shape, &v = g.type(n.inputs[2]).shape;
  AttentionSpec s;
  s.batch = q[0], s.queries = q[1], s.heads = q[2], s.depth = q[3];
  s.keys = k[1], s.key_heads = k[2], s.values = v[3];
  s.q = s.dq = row_major(q), s.k = s.dk = row_major(k), s.v = s.dv = row_major(v);
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
  if (backward)
    l.emit_node(id, std::make_unique<AttentionGradKernel>(s, at));
  else
    l.emit_node(id, std::make_unique<AttentionKernel>(s, at));
  return true;
}

}  // namespace bp::cpu

// cond: one of two bodies, chosen at run time. Operands: the predicate, the invariants of `then`, those of `otherwise`,
// the operands of both. Its gradient is the cond of the branches' gradients; each computes its forward values again.
#include <algorithm>
#include <cstring>

#include "bp/scan.h"
#include "ir/flops.h"
#include "ops/common.h"
#include "ops/interpret.h"
#include "trace/body.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

std::vector<Type> infer_cond(const InferArgs& a) {
  if (a.in.empty() || a.in[0].dtype != DType::boolean || a.in[0].shape.numel() != 1)
    fail(ErrorKind::shape, "[cond] expected a predicate bool[], got {}", a.in.empty() ? "nothing" : a.in[0].str());
  std::vector<Type> types[2];
  for (int b = 0; b < 2; ++b) {
    const Graph& body = body_of(a.attrs, kBranches[b]);
    const std::vector<std::size_t> in = branch_operands(a.attrs, a.in.size(), b);
    if (in.size() != body.inputs.size())
      fail(ErrorKind::shape, "[cond] {} has {} inputs for {} operands", kBranches[b], body.inputs.size(), in.size());
    for (std::size_t i = 0; i < in.size(); ++i)
      if (const Type& t = body.nodes[body.inputs[i].node].types[0]; !(t == a.in[in[i]]))
        fail(ErrorKind::shape, "[cond] {}: input {} is {}, got {}", kBranches[b], i, t.str(), a.in[in[i]].str());
    for (const Output& o : body.outputs) types[b].push_back(body.type(o.value));
  }
  if (types[0].size() != types[1].size())
    fail(ErrorKind::value, "[cond] then returns {} tensors, otherwise {}", types[0].size(), types[1].size());
  for (std::size_t i = 0; i < types[0].size(); ++i)
    if (!(types[0][i] == types[1][i]))
      fail(types[0][i].dtype != types[1][i].dtype ? ErrorKind::dtype : ErrorKind::shape,
           "[cond] result {}: then returns {}, otherwise {}", i, types[0][i].str(), types[1][i].str());
  return types[0];
}

void reference_cond(const KernelArgs& k) {
  const int branch = *k.in[0].as<bool>() ? 0 : 1;
  std::vector<const void*> in;
  for (std::size_t i : branch_operands(k.attrs, k.in.size(), branch)) in.push_back(k.in[i].data);
  const std::vector<Buffer> out = interpret(body_of(k.attrs, kBranches[branch]), in);
  for (std::size_t i = 0; i < out.size(); ++i)
    if (out[i].bytes() != 0) std::memcpy(k.out[i].data, out[i].data(), out[i].bytes());
}

double flops_cond(std::span<const Type>, std::span<const Type>, const Attrs& attrs) {
  return std::max(graph_flops(body_of(attrs, kBranches[0])), graph_flops(body_of(attrs, kBranches[1])));
}

std::shared_ptr<detail::Node> record_cond(const Tensor& predicate, const detail::CapturedBody (&branches)[2],
                                          const std::vector<Tensor>& operands) {
  std::vector<Tensor> in{predicate};
  for (const auto& b : branches) in.insert(in.end(), b.invariants.begin(), b.invariants.end());
  in.insert(in.end(), operands.begin(), operands.end());
  return record(OpId::cond, std::move(in),
                {{"then", branches[0].body},
                 {"otherwise", branches[1].body},
                 {"then_invariants", static_cast<std::int64_t>(branches[0].invariants.size())},
                 {"otherwise_invariants", static_cast<std::int64_t>(branches[1].invariants.size())}});
}

// The cotangents of every needed input out of one branch; zeros for what the branch does not read.
detail::CapturedBody branch_vjp(const VjpArgs& v, int branch, const std::vector<Tensor>& operands) {
  const detail::Region region;
  std::vector<Tensor> p, inputs;  // placeholders of all inputs but the predicate, then of the cotangents
  for (const Tensor& t : operands) p.push_back(region.placeholder(t.type()));
  for (std::size_t i : branch_operands(v.attrs, v.in.size(), branch)) inputs.push_back(p[i - 1]);
  const std::vector<Tensor> out = detail::instantiate(body_of(v.attrs, kBranches[branch]), inputs);
  std::vector<Tensor> ys, cotangents, xs;
  for (std::size_t k = 0, next = v.in.size() - 1; k < out.size(); ++k)
    if (v.cotangent[k].defined()) {
      ys.push_back(out[k]);
      cotangents.push_back(p[next++]);
    }
  for (std::size_t i = 1; i < v.in.size(); ++i)
    if (v.needed[i]) xs.push_back(p[i - 1]);
  return detail::capture_body(vjp(ys, xs, cotangents), p, region);
}

std::vector<Tensor> vjp_cond(const VjpArgs& v) {
  std::vector<Tensor> operands(v.in.begin() + 1, v.in.end());
  for (const Tensor& d : v.cotangent)
    if (d.defined()) operands.push_back(d);
  const detail::CapturedBody branches[2] = {branch_vjp(v, 0, operands), branch_vjp(v, 1, operands)};
  const auto node = record_cond(v.in[0], branches, operands);
  std::vector<Tensor> out(v.in.size());
  std::uint32_t next = 0;
  for (std::size_t i = 1; i < v.in.size(); ++i)
    if (v.needed[i]) out[i] = Tensor(node, next++);
  return out;
}

}  // namespace

const OpDef op_cond{.name = "cond",
                    .cls = OpClass::other,
                    .flags = kNone,
                    .infer = infer_cond,
                    .vjp = vjp_cond,
                    .reference = reference_cond,
                    .flops = flops_cond,
                    .doc = "predicate ? then(operands) : otherwise(operands); only the branch taken is computed."};

}  // namespace ir

std::vector<Tensor> cond(const Tensor& predicate, const Function& then, const Function& otherwise,
                         const std::vector<Tensor>& operands) {
  if (!then || !otherwise) fail(ErrorKind::value, "[cond] needs both branches");
  if (!predicate.defined()) fail(ErrorKind::value, "[cond] the predicate is undefined");
  const auto capture = [&](const Function& f) {
    const detail::Region region;
    std::vector<Tensor> p;
    for (const Tensor& t : operands) p.push_back(region.placeholder(t.type()));
    return detail::capture_body(f(p), p, region);
  };
  const detail::CapturedBody branches[2] = {capture(then), capture(otherwise)};
  const auto node = ir::record_cond(predicate, branches, operands);
  std::vector<Tensor> out;
  for (std::uint32_t k = 0; k < node->types.size(); ++k) out.emplace_back(node, k);
  return out;
}

}  // namespace bp

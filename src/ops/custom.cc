// The user's own operations: custom (plain C++ forward, vjp of Tensors) and custom_vjp (a computation with a gradient
// of the user's). Exceptions of the user's functions pass through as they are.
#include "ops/custom.h"

#include <cstring>

#include "ops/common.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

const CustomOp& custom_of(const Attrs& attrs) { return *static_cast<const CustomOpHolder&>(*attrs.opaque("op")).op; }

// Users are given a cotangent for every floating output: zeros where nothing flows back.
std::vector<Tensor> filled(std::span<const Tensor> cotangents, std::span<const Tensor> outputs) {
  std::vector<Tensor> out(cotangents.begin(), cotangents.end());
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!out[i].defined() && is_float(outputs[i].dtype())) out[i] = zeros_like(outputs[i]);
  return out;
}

void check_cotangents(const std::vector<Tensor>& cotangents, std::span<const Tensor> inputs, const std::string& who) {
  if (cotangents.size() != inputs.size())
    fail(ErrorKind::gradient, "{} expected a cotangent for each of {} inputs, got {}", who, inputs.size(),
         cotangents.size());
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (cotangents[i].defined() && cotangents[i].type() != inputs[i].type())
      fail(ErrorKind::gradient, "{} expected the cotangent of input {} to be {}, got {}", who, i,
           inputs[i].type().str(), cotangents[i].type().str());
}

std::vector<Type> infer_custom(const InferArgs& a) {
  const CustomOp& op = custom_of(a.attrs);
  std::vector<Type> types = op.infer(a.in);
  if (types.empty()) fail(ErrorKind::value, "[custom] {}: infer returned no outputs", op.name);
  return types;
}

std::vector<Tensor> vjp_custom(const VjpArgs& v) {
  const CustomOp& op = custom_of(v.attrs);
  if (!op.vjp) fail(ErrorKind::gradient, "[custom] {} has no gradient: give its CustomOp a vjp", op.name);
  std::vector<Tensor> out = op.vjp(v.in, v.out, filled(v.cotangent, v.out));
  check_cotangents(out, v.in, fmt::format("[custom] {}: its vjp:", op.name));
  return out;
}

void reference_custom(const KernelArgs& k) {
  std::vector<const void*> in;
  std::vector<void*> out;
  std::vector<Type> types;
  for (const View& v : k.in) {
    in.push_back(v.data);
    types.push_back(v.type);
  }
  for (const View& v : k.out) out.push_back(v.data);
  custom_of(k.attrs).forward(in, out, types);
}

// Inputs: the `outputs` results of the user's function, then its arguments.
std::size_t results_of(const Attrs& attrs) { return static_cast<std::size_t>(attrs.integer("outputs")); }

std::vector<Tensor> vjp_custom_vjp(const VjpArgs& v) {
  const std::size_t n = results_of(v.attrs);
  const std::span<const Tensor> arguments = v.in.subspan(n);
  const auto& holder = static_cast<const BackwardHolder&>(*v.attrs.opaque("backward"));
  const std::vector<Tensor> d = holder.backward(arguments, v.out, filled(v.cotangent, v.out));
  check_cotangents(d, arguments, "[custom_vjp]");
  std::vector<Tensor> out(n);  // nothing flows into the function's own graph
  out.insert(out.end(), d.begin(), d.end());
  return out;
}

}  // namespace

const OpDef op_custom{.name = "custom",
                      .cls = OpClass::other,
                      .flags = kImpure,
                      .infer = infer_custom,
                      .vjp = vjp_custom,
                      .reference = reference_custom,
                      .doc = "The user's C++ function over row-major memory, with the user's type rule and gradient."};

const OpDef op_custom_vjp{.name = "custom_vjp",
                          .cls = OpClass::other,
                          .flags = kImpure,
                          .infer = [](const InferArgs& a) -> std::vector<Type> {
                            const auto results = a.in.first(results_of(a.attrs));
                            return {results.begin(), results.end()};
                          },
                          .vjp = vjp_custom_vjp,
                          .reference =
                              [](const KernelArgs& k) {
                                for (std::size_t i = 0; i < k.out.size(); ++i)
                                  if (k.in[i].type.bytes() != 0)
                                    std::memcpy(k.out[i].data, k.in[i].data, k.in[i].type.bytes());
                              },
                          .doc =
                              "A function's results as they are; its arguments receive the cotangents that the "
                              "user's backward computes."};

}  // namespace ir

std::vector<Tensor> custom_op(std::shared_ptr<const CustomOp> op, const std::vector<Tensor>& inputs) {
  if (!op) fail(ErrorKind::value, "[custom] the CustomOp is null");
  if (!op->infer || !op->forward)
    fail(ErrorKind::value, "[custom] {}: a CustomOp needs both infer and forward", op->name);
  ir::Attrs attrs{{"name", op->name}};
  attrs.set("op", std::shared_ptr<const ir::Opaque>(std::make_shared<ops::CustomOpHolder>(std::move(op))));
  const auto node = detail::record(ir::OpId::custom, inputs, std::move(attrs));
  std::vector<Tensor> out;
  for (std::uint32_t k = 0; k < node->types.size(); ++k) out.emplace_back(node, k);
  return out;
}

}  // namespace bp

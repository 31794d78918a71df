// Ops that move or rename elements: reshape, broadcast, transpose, slice, pad, concatenate, reverse.
#include <cstring>

#include "ops/common.h"

namespace bp {
namespace ir {
using namespace ops;

const OpDef op_reshape{.name = "reshape",
                       .cls = OpClass::view,
                       .flags = kNone,
                       .infer = [](const InferArgs& a) -> std::vector<Type> {
                         const Shape to = a.attrs.shape("shape");
                         if (to.numel() != a.in[0].shape.numel())
                           fail(ErrorKind::shape, "[reshape] {} has {} elements, {} would need {}", a.in[0].shape,
                                a.in[0].shape.numel(), to, to.numel());
                         return {{a.in[0].dtype, to}};
                       },
                       .vjp = [](const VjpArgs& v) -> std::vector<Tensor> { return {reshape(v.d(), v.in[0].shape())}; },
                       .reference =
                           [](const KernelArgs& k) {
                             if (k.in[0].type.bytes() != 0)
                               std::memcpy(k.out[0].data, k.in[0].data, k.in[0].type.bytes());
                           },
                       .doc = "The same elements in row-major order under another shape."};

}  // namespace ir

using namespace ops;

Tensor reshape(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return record1(OpId::reshape, {x}, {{"shape", ir::to_ints(shape)}});
}

}  // namespace bp

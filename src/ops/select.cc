// select: elementwise choice between two operands. Called by users and by the gradient rules that need a mask.
#include "ops/elementwise.h"

namespace bp {
namespace ir {
using namespace ops;

constinit const OpDef op_select{
    .name = "select",
    .cls = OpClass::elementwise,
    .flags = kNone,
    .infer = [](const InferArgs& a) -> std::vector<Type> {
      if (a.in[0].dtype != DType::boolean || a.in[0].shape != a.in[1].shape || !(a.in[1] == a.in[2]))
        fail(ErrorKind::shape, "[select] expected bool{} and two operands of one type, got {}, {} and {}",
             a.in[1].shape, a.in[0].str(), a.in[1].str(), a.in[2].str());
      return {a.in[1]};
    },
    // A mask by choice, not by product: an infinite cotangent of the side not taken must not become NaN.
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
      const Tensor zero = zeros_like(v.d());
      return {Tensor(), v.needed[1] ? select(v.in[0], v.d(), zero) : Tensor(),
              v.needed[2] ? select(v.in[0], zero, v.d()) : Tensor()};
    },
    .reference =
        [](const KernelArgs& k) {
          const bool* condition = k.in[0].as<bool>();
          dispatch(k.out[0].type.dtype, [&](auto zero) {
            using T = decltype(zero);
            const T *a = k.in[1].as<T>(), *b = k.in[2].as<T>();
            T* y = k.out[0].as<T>();
            for (std::int64_t i = 0, n = k.out[0].type.shape.numel(); i < n; ++i) y[i] = condition[i] ? a[i] : b[i];
          });
        },
    .doc = "condition ? a : b; no gradient by the condition"};

}  // namespace ir

using namespace ops;

Tensor select(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const DType t = promote(a.dtype(), b.dtype());
  const Shape shape = broadcast_shapes(condition.shape(), broadcast_shapes(a.shape(), b.shape(), "select"), "select");
  return record1(OpId::select, {broadcast_to(cast(condition, DType::boolean), shape), broadcast_to(cast(a, t), shape),
                                broadcast_to(cast(b, t), shape)});
}

}  // namespace bp

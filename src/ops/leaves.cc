// Ops without tensor operands to compute from: input (a placeholder), full, iota.
#include "ops/common.h"

#include <algorithm>

namespace bp {
namespace ir {
using namespace ops;

const OpDef op_input{.name = "input",
                     .cls = OpClass::leaf,
                     .flags = kNone,
                     .infer = nullptr,
                     .vjp = nullptr,
                     .reference = nullptr,
                     .doc = "A value given from outside: an argument, a Variable or a constant."};

const OpDef op_full{.name = "full",
                    .cls = OpClass::leaf,
                    .flags = kNone,
                    .infer = [](const InferArgs& a) -> std::vector<Type> {
                      return {{a.attrs.dtype("dtype"), a.attrs.shape("shape")}};
                    },
                    .vjp = nullptr,
                    .reference =
                        [](const KernelArgs& k) {
                          const double v = k.attrs.real("value");
                          dispatch(k.out[0].type.dtype, [&](auto zero) {
                            using T = decltype(zero);
                            std::fill_n(k.out[0].as<T>(), k.out[0].type.shape.numel(), static_cast<T>(v));
                          });
                        },
                    .doc = "All elements equal to `value`."};

const OpDef op_iota{.name = "iota",
                    .cls = OpClass::leaf,
                    .flags = kNone,
                    .infer = [](const InferArgs& a) -> std::vector<Type> {
                      return {{a.attrs.dtype("dtype"), a.attrs.shape("shape")}};
                    },
                    .vjp = nullptr,
                    .reference =
                        [](const KernelArgs& k) {
                          const Shape& s = k.out[0].type.shape;
                          const int axis = static_cast<int>(k.attrs.integer("axis"));
                          const std::int64_t inner = row_major_strides(s)[axis], n = s[axis];
                          dispatch(k.out[0].type.dtype, [&](auto zero) {
                            using T = decltype(zero);
                            T* y = k.out[0].as<T>();
                            for (std::int64_t i = 0, all = s.numel(); i < all; ++i)
                              y[i] = static_cast<T>(static_cast<arithmetic_t<T>>(i / inner % n));
                          });
                        },
                    .doc = "out[.., i, ..] = i along `axis`."};

}  // namespace ir

using namespace ops;

Tensor full(const Shape& shape, double value, DType dtype) {
  if (!holds(dtype, value)) fail(ErrorKind::value, "[full] {} cannot hold {}", name_of(dtype), value);
  return record1(OpId::full, {}, {{"shape", ir::to_ints(shape)}, {"value", value}, {"dtype", dtype}});
}
Tensor zeros(const Shape& shape, DType dtype) { return full(shape, 0, dtype); }
Tensor ones(const Shape& shape, DType dtype) { return full(shape, 1, dtype); }
Tensor scalar(double value, DType dtype) { return full({}, value, dtype); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype()); }
Tensor ones_like(const Tensor& x) { return ones(x.shape(), x.dtype()); }

Tensor iota(const Shape& shape, int axis, DType dtype) {
  return record1(OpId::iota, {},
                 {{"shape", ir::to_ints(shape)},
                  {"axis", static_cast<std::int64_t>(normalize_axis(axis, shape.rank(), "iota"))},
                  {"dtype", dtype}});
}
Tensor arange(std::int64_t n, DType dtype) { return iota({n}, 0, dtype); }

}  // namespace bp

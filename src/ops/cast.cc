// cast and stop_gradient. Called by users and by promotion in every builder.
#include <cmath>
#include <limits>

#include "ops/elementwise.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
// Integers keep their low bits, as in NumPy. Floats truncate and saturate (NaN gives 0): C++ leaves that open.
template <class To, class From> To convert_value(From v) {
  if constexpr (std::is_same_v<To, bool>) {
    return v != From{};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (v != v) return To{};
    const From low = static_cast<From>(std::numeric_limits<To>::min());
    const From past_high = static_cast<From>(std::ldexp(1.0, std::numeric_limits<To>::digits));  // a power of two
    if (v <= low) return std::numeric_limits<To>::min();
    if (v >= past_high) return std::numeric_limits<To>::max();
    return static_cast<To>(v);
  } else {
    return static_cast<To>(v);
  }
}

void cast_reference(const KernelArgs& k) {
  dispatch(k.in[0].type.dtype, [&](auto from) {
    dispatch(k.out[0].type.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const From* x = k.in[0].as<From>();
      To* y = k.out[0].as<To>();
      for (std::int64_t i = 0, n = k.out[0].type.shape.numel(); i < n; ++i)
        y[i] = convert_value<To>(static_cast<arithmetic_t<From>>(x[i]));
    });
  });
}

double cast_flops(std::span<const Type>, std::span<const Type>, const Attrs&) { return 0; }
}  // namespace

constinit const OpDef op_cast{
    .name = "cast",
    .cls = OpClass::elementwise,
    .flags = kNone,
    .infer = [](const InferArgs& a) -> std::vector<Type> {
      return {{a.attrs.dtype("dtype"), a.in[0].shape}};
    },
    // Between floats only: numbers that were rounded to integers have no gradient to give.
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
      const DType from = v.in[0].dtype();
      return {is_float(from) && is_float(v.d().dtype()) ? cast(v.d(), from) : Tensor()};
    },
    .reference = cast_reference,
    .flops = cast_flops,
    .doc =
        "x as `dtype`; float to integer truncates and saturates, integers keep their low bits, to bool: != 0; "
        "differentiable between floats"};

constinit const OpDef op_stop_gradient{.name = "stop_gradient",
                                       .cls = OpClass::elementwise,
                                       .flags = kZeroGradient,
                                       .infer = same_as_input,
                                       .vjp = nullptr,
                                       .reference = [](const KernelArgs& k) { map_unary(k, [](auto x) { return x; }); },
                                       .flops = cast_flops,
                                       .doc = "x, with a gradient of zero"};

}  // namespace ir

using namespace ops;

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return record1(OpId::cast, {x}, {{"dtype", dtype}});
}

Tensor stop_gradient(const Tensor& x) { return record1(OpId::stop_gradient, {x}); }

}  // namespace bp

// Elementwise functions of one operand. Called by users (bp/ops.h) and by the gradient rules of every family.
#include <cmath>
#include <numbers>

#include "ops/elementwise.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
using Vjp = std::vector<Tensor> (*)(const VjpArgs&);

template <OpId id> std::vector<Type> float_rule(const InferArgs& a) { return same_float(a, name_of(id)); }

// A function of floating numbers. F: a stateless lambda over float and double.
template <OpId id, class F>
constexpr OpDef float_op(const char* name, F, Vjp vjp, const char* doc, std::uint32_t flags = kNone) {
  return {.name = name,
          .cls = OpClass::elementwise,
          .flags = flags,
          .infer = float_rule<id>,
          .vjp = vjp,
          .reference = [](const KernelArgs& k) { map_float(k, F{}); },
          .doc = doc};
}

template <class A> A negated(A x) {
  return wrapping(x, x, [](auto a, auto) { return -a; });
}

// A function of floats and integers alike.
template <OpId id, class F>
constexpr OpDef numeric_op(const char* name, F, Vjp vjp, const char* doc, std::uint32_t flags = kNone) {
  return {.name = name,
          .cls = OpClass::elementwise,
          .flags = flags,
          .infer = [](const InferArgs& a) { return numeric(a, name_of(id)); },
          .vjp = vjp,
          .reference = [](const KernelArgs& k) { map_unary(k, F{}); },
          .doc = doc};
}
}  // namespace

constinit const OpDef op_neg = numeric_op<OpId::neg>(
    "neg", [](auto x) { return negated(x); }, [](const VjpArgs& v) -> std::vector<Tensor> { return {-v.d()}; }, "-x");

constinit const OpDef op_abs = numeric_op<OpId::abs>(
    "abs",
    [](auto x) {
      if constexpr (std::is_floating_point_v<decltype(x)>)
        return std::fabs(x);
      else
        return x < decltype(x){} ? negated(x) : x;
    },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * sign(v.in[0])}; }, "\\|x\\|; gradient 0 at 0");

constinit const OpDef op_sign = numeric_op<OpId::sign>(
    "sign",
    [](auto x) {
      const decltype(x) zero{};
      return x != x ? x : static_cast<decltype(x)>((x > zero) - (x < zero));
    },
    nullptr, "-1, 0 or 1; NaN stays NaN", kZeroGradient);

constinit const OpDef op_relu = numeric_op<OpId::relu>(
    "relu", [](auto x) { return x > decltype(x){} || x != x ? x : decltype(x){}; },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {select(v.out[0] > 0, v.d(), zeros_like(v.d()))}; },
    "max(x, 0); gradient 0 at 0; NaN stays NaN");

constinit const OpDef op_exp = float_op<OpId::exp>(
    "exp", [](auto x) { return std::exp(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * v.out[0]}; }, "e^x");

constinit const OpDef op_expm1 = float_op<OpId::expm1>(
    "expm1", [](auto x) { return std::expm1(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * (v.out[0] + 1)}; }, "e^x - 1, exact near 0");

constinit const OpDef op_log = float_op<OpId::log>(
    "log", [](auto x) { return std::log(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() / v.in[0]}; }, "natural logarithm");

constinit const OpDef op_log1p = float_op<OpId::log1p>(
    "log1p", [](auto x) { return std::log1p(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() / (v.in[0] + 1)}; }, "log(1 + x), exact near 0");

constinit const OpDef op_sqrt = float_op<OpId::sqrt>(
    "sqrt", [](auto x) { return std::sqrt(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * 0.5 / v.out[0]}; }, "square root; gradient inf at 0");

constinit const OpDef op_rsqrt = float_op<OpId::rsqrt>(
    "rsqrt", [](auto x) { return 1 / std::sqrt(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * -0.5 * (v.out[0] * v.out[0] * v.out[0])}; },
    "1 / sqrt(x)");

constinit const OpDef op_reciprocal = float_op<OpId::reciprocal>(
    "reciprocal", [](auto x) { return 1 / x; },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {-(v.d() * (v.out[0] * v.out[0]))}; }, "1 / x");

constinit const OpDef op_sin = float_op<OpId::sin>(
    "sin", [](auto x) { return std::sin(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * cos(v.in[0])}; }, "sine of radians");

constinit const OpDef op_cos = float_op<OpId::cos>(
    "cos", [](auto x) { return std::cos(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {-(v.d() * sin(v.in[0]))}; }, "cosine of radians");

constinit const OpDef op_tanh = float_op<OpId::tanh>(
    "tanh", [](auto x) { return std::tanh(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * (1 - v.out[0] * v.out[0])}; }, "hyperbolic tangent");

constinit const OpDef op_sigmoid = float_op<OpId::sigmoid>(
    "sigmoid",
    [](auto x) {
      const auto e = std::exp(-std::fabs(x));  // at most 1: no overflow on either side
      return (x < 0 ? e : decltype(x){1}) / (1 + e);
    },
    [](const VjpArgs& v) -> std::vector<Tensor> { return {v.d() * (v.out[0] * (1 - v.out[0]))}; }, "1 / (1 + e^-x)");

constinit const OpDef op_erf = float_op<OpId::erf>(
    "erf", [](auto x) { return std::erf(x); },
    [](const VjpArgs& v) -> std::vector<Tensor> {
      return {v.d() * (exp(-(v.in[0] * v.in[0])) * (2 / std::sqrt(std::numbers::pi)))};
    },
    "2 / sqrt(pi) * integral of e^(-t^2) from 0 to x");

constinit const OpDef op_floor = float_op<OpId::floor>(
    "floor", [](auto x) { return std::floor(x); }, nullptr, "largest integer <= x", kZeroGradient);

constinit const OpDef op_ceil = float_op<OpId::ceil>(
    "ceil", [](auto x) { return std::ceil(x); }, nullptr, "smallest integer >= x", kZeroGradient);

constinit const OpDef op_round = float_op<OpId::round>(
    "round", [](auto x) { return std::nearbyint(x); }, nullptr, "nearest integer, ties to even", kZeroGradient);

constinit const OpDef op_isfinite{
    .name = "isfinite",
    .cls = OpClass::elementwise,
    .flags = kNotDifferentiable,
    .infer = [](const InferArgs& a) -> std::vector<Type> {
      return {{DType::boolean, a.in[0].shape}};
    },
    .vjp = nullptr,
    .reference =
        [](const KernelArgs& k) { map_to_bool(k, [](auto x) { return std::isfinite(static_cast<double>(x)); }); },
    .doc = "bool: neither infinite nor NaN"};

constinit const OpDef op_logical_not{
    .name = "logical_not",
    .cls = OpClass::elementwise,
    .flags = kNotDifferentiable,
    .infer = [](const InferArgs& a) { return boolean_operands(a, "logical_not"); },
    .vjp = nullptr,
    .reference = [](const KernelArgs& k) { map_to_bool(k, [](auto x) { return !x; }); },
    .doc = "bool: not x (other dtypes are compared with 0 first)"};

}  // namespace ir

using namespace ops;

Tensor neg(const Tensor& x) { return record1(OpId::neg, {x}); }
Tensor abs(const Tensor& x) { return record1(OpId::abs, {x}); }
Tensor sign(const Tensor& x) { return record1(OpId::sign, {x}); }
Tensor relu(const Tensor& x) { return record1(OpId::relu, {x}); }
Tensor exp(const Tensor& x) { return record1(OpId::exp, {to_float(x)}); }
Tensor expm1(const Tensor& x) { return record1(OpId::expm1, {to_float(x)}); }
Tensor log(const Tensor& x) { return record1(OpId::log, {to_float(x)}); }
Tensor log1p(const Tensor& x) { return record1(OpId::log1p, {to_float(x)}); }
Tensor sqrt(const Tensor& x) { return record1(OpId::sqrt, {to_float(x)}); }
Tensor rsqrt(const Tensor& x) { return record1(OpId::rsqrt, {to_float(x)}); }
Tensor reciprocal(const Tensor& x) { return record1(OpId::reciprocal, {to_float(x)}); }
Tensor square(const Tensor& x) { return mul(x, x); }
Tensor sin(const Tensor& x) { return record1(OpId::sin, {to_float(x)}); }
Tensor cos(const Tensor& x) { return record1(OpId::cos, {to_float(x)}); }
Tensor tanh(const Tensor& x) { return record1(OpId::tanh, {to_float(x)}); }
Tensor sigmoid(const Tensor& x) { return record1(OpId::sigmoid, {to_float(x)}); }
Tensor erf(const Tensor& x) { return record1(OpId::erf, {to_float(x)}); }

// Integers are whole already.
Tensor floor(const Tensor& x) { return is_float(x.dtype()) ? record1(OpId::floor, {x}) : x; }
Tensor ceil(const Tensor& x) { return is_float(x.dtype()) ? record1(OpId::ceil, {x}) : x; }
Tensor round(const Tensor& x) { return is_float(x.dtype()) ? record1(OpId::round, {x}) : x; }

Tensor isfinite(const Tensor& x) { return record1(OpId::isfinite, {x}); }
Tensor logical_not(const Tensor& x) { return record1(OpId::logical_not, {cast(x, DType::boolean)}); }

}  // namespace bp

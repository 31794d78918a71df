// Elementwise arithmetic, comparisons and logic of two operands.
#include <cmath>
#include <optional>

#include "ops/elementwise.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
using Vjp = std::vector<Tensor> (*)(const VjpArgs&);
using Gradients = std::vector<Tensor>;

template <OpId id> std::vector<Type> pair_rule(const InferArgs& a) { return same_pair(a, name_of(id)); }
template <OpId id> std::vector<Type> float_pair_rule(const InferArgs& a) { return float_pair(a, name_of(id)); }
template <OpId id> std::vector<Type> compare_rule(const InferArgs& a) { return compare_pair(a, name_of(id)); }
template <OpId id> std::vector<Type> logic_rule(const InferArgs& a) { return boolean_operands(a, name_of(id)); }

// F: a stateless lambda over two numbers of one arithmetic type.
template <class F>
constexpr OpDef pair_op(const char* name, std::vector<Type> (*infer)(const InferArgs&), F, Vjp vjp, const char* doc,
                        std::uint32_t flags = kNone) {
  return {.name = name,
          .cls = OpClass::elementwise,
          .flags = flags,
          .infer = infer,
          .vjp = vjp,
          .reference = [](const KernelArgs& k) { map_binary(k, F{}); },
          .doc = doc};
}

template <OpId id, class F> constexpr OpDef float_pair_op(const char* name, F, Vjp vjp, const char* doc) {
  return {.name = name,
          .cls = OpClass::elementwise,
          .flags = kNone,
          .infer = float_pair_rule<id>,
          .vjp = vjp,
          .reference = [](const KernelArgs& k) { map_float(k, F{}); },
          .doc = doc};
}

template <class F>
constexpr OpDef bool_op(const char* name, std::vector<Type> (*infer)(const InferArgs&), F, const char* doc,
                        std::uint32_t flags = kNone) {
  return {.name = name,
          .cls = OpClass::elementwise,
          .flags = flags | kNotDifferentiable,
          .infer = infer,
          .vjp = nullptr,
          .reference = [](const KernelArgs& k) { map_to_bool(k, F{}); },
          .doc = doc};
}

// The value of a tensor that is known to be one number everywhere.
std::optional<double> constant_value(const Tensor& x) {
  const detail::Node* n = x.node().get();
  while (n->inputs.size() == 1 && (n->op == OpId::cast || n->op == OpId::broadcast)) n = n->inputs[0].node().get();
  if (n->op != OpId::full) return std::nullopt;
  return n->attrs.real("value");
}

// d/da a^b = b a^(b-1): the exponent is moved where a = b = 0, so that 0 * 0^-1 is 0 and not NaN.
Tensor pow_base_gradient(const Tensor& a, const Tensor& b) {
  if (const auto c = constant_value(b)) return *c == 0 ? zeros_like(a) : pow(a, *c - 1) * *c;
  const Tensor zero = zeros_like(a);
  const Tensor both_zero = logical_and(equal(a, zero), equal(b, zero));
  return b * pow(a, select(both_zero, ones_like(b), b - 1));
}

// d/db a^b = a^b log a, whose limit at a = 0 is 0 for b >= 0.
Tensor pow_exponent_gradient(const Tensor& a, const Tensor& b, const Tensor& out) {
  const Tensor zero = zeros_like(a);
  const Tensor vanishes = logical_and(equal(a, zero), b >= zero);
  return select(vanishes, zero, out * log(select(vanishes, ones_like(a), a)));
}

// The share of the cotangent that goes to `a`: all where it wins, half where both are equal.
Tensor winner_share(const Tensor& d, const Tensor& wins, const Tensor& ties) {
  return select(wins, d, select(ties, d * 0.5, zeros_like(d)));
}

// NumPy's %: the result has the sign of b; integers modulo 0 give 0.
template <class A> A floor_remainder(A a, A b) {
  if constexpr (std::is_floating_point_v<A>) {
    const A r = std::fmod(a, b);
    if (r == 0) return std::copysign(r, b);
    return (r < 0) != (b < 0) ? r + b : r;
  } else if constexpr (std::is_same_v<A, bool>) {
    return false;
  } else {
    if (b == A{} || b == static_cast<A>(-1)) return A{};  // the smallest integer modulo -1 would overflow
    const A r = static_cast<A>(a % b);
    return r != A{} && (r < A{}) != (b < A{}) ? static_cast<A>(r + b) : r;
  }
}
}  // namespace

constinit const OpDef op_add = pair_op(
    "add", pair_rule<OpId::add>, [](auto a, auto b) { return wrapping(a, b, [](auto x, auto y) { return x + y; }); },
    [](const VjpArgs& v) -> Gradients {
      return {v.d(), v.d()};
    },
    "a + b (bool: or)", kCommutative);

constinit const OpDef op_sub = pair_op(
    "sub",
    [](const InferArgs& a) {
      same_pair(a, "sub");
      return numeric(a, "sub");
    },
    [](auto a, auto b) { return wrapping(a, b, [](auto x, auto y) { return x - y; }); },
    [](const VjpArgs& v) -> Gradients {
      return {v.d(), v.needed[1] ? -v.d() : Tensor()};
    },
    "a - b");

constinit const OpDef op_mul = pair_op(
    "mul", pair_rule<OpId::mul>, [](auto a, auto b) { return wrapping(a, b, [](auto x, auto y) { return x * y; }); },
    [](const VjpArgs& v) -> Gradients {
      return {v.needed[0] ? v.d() * v.in[1] : Tensor(), v.needed[1] ? v.d() * v.in[0] : Tensor()};
    },
    "a * b (bool: and)", kCommutative);

constinit const OpDef op_div = float_pair_op<OpId::div>(
    "div", [](auto a, auto b) { return a / b; },
    [](const VjpArgs& v) -> Gradients {
      const Tensor da = v.d() / v.in[1];
      return {da, v.needed[1] ? -(da * v.out[0]) : Tensor()};
    },
    "a / b; of integers: f32");

constinit const OpDef op_pow = float_pair_op<OpId::pow>(
    "pow", [](auto a, auto b) { return std::pow(a, b); },
    [](const VjpArgs& v) -> Gradients {
      const Tensor &a = v.in[0], &b = v.in[1];
      return {v.needed[0] ? v.d() * pow_base_gradient(a, b) : Tensor(),
              v.needed[1] ? v.d() * pow_exponent_gradient(a, b, v.out[0]) : Tensor()};
    },
    "a^b; of integers: f32; gradient by b is 0 at a = 0, b >= 0 and NaN for a < 0");

constinit const OpDef op_maximum = pair_op(
    "maximum", pair_rule<OpId::maximum>, [](auto a, auto b) { return a > b || a != a ? a : b; },
    [](const VjpArgs& v) -> Gradients {
      const Tensor &a = v.in[0], &b = v.in[1], ties = equal(a, b);
      return {v.needed[0] ? winner_share(v.d(), a > b, ties) : Tensor(),
              v.needed[1] ? winner_share(v.d(), a < b, ties) : Tensor()};
    },
    "larger of a and b; NaN propagates; equal operands halve the gradient", kCommutative);

constinit const OpDef op_minimum = pair_op(
    "minimum", pair_rule<OpId::minimum>, [](auto a, auto b) { return a < b || a != a ? a : b; },
    [](const VjpArgs& v) -> Gradients {
      const Tensor &a = v.in[0], &b = v.in[1], ties = equal(a, b);
      return {v.needed[0] ? winner_share(v.d(), a < b, ties) : Tensor(),
              v.needed[1] ? winner_share(v.d(), a > b, ties) : Tensor()};
    },
    "smaller of a and b; NaN propagates; equal operands halve the gradient", kCommutative);

constinit const OpDef op_remainder = pair_op(
    "remainder", pair_rule<OpId::remainder>, [](auto a, auto b) { return floor_remainder(a, b); },
    [](const VjpArgs& v) -> Gradients {
      return {v.d(), v.needed[1] ? -(v.d() * round((v.in[0] - v.out[0]) / v.in[1])) : Tensor()};
    },
    "a - b floor(a / b), the sign of b; integers modulo 0 give 0");

constinit const OpDef op_equal = bool_op(
    "equal", compare_rule<OpId::equal>, [](auto a, auto b) { return a == b; }, "bool: a = b", kCommutative);
constinit const OpDef op_not_equal = bool_op(
    "not_equal", compare_rule<OpId::not_equal>, [](auto a, auto b) { return a != b; }, "bool: not a = b", kCommutative);
constinit const OpDef op_less = bool_op(
    "less", compare_rule<OpId::less>, [](auto a, auto b) { return a < b; }, "bool: a < b");
constinit const OpDef op_less_equal = bool_op(
    "less_equal", compare_rule<OpId::less_equal>, [](auto a, auto b) { return a <= b; }, "bool: a <= b");
constinit const OpDef op_greater = bool_op(
    "greater", compare_rule<OpId::greater>, [](auto a, auto b) { return a > b; }, "bool: a > b");
constinit const OpDef op_greater_equal = bool_op(
    "greater_equal", compare_rule<OpId::greater_equal>, [](auto a, auto b) { return a >= b; }, "bool: a >= b");
constinit const OpDef op_logical_and = bool_op(
    "logical_and", logic_rule<OpId::logical_and>, [](auto a, auto b) { return a && b; },
    "bool: a and b (other dtypes are compared with 0 first)", kCommutative);
constinit const OpDef op_logical_or = bool_op(
    "logical_or", logic_rule<OpId::logical_or>, [](auto a, auto b) { return a || b; },
    "bool: a or b (other dtypes are compared with 0 first)", kCommutative);

}  // namespace ir

using namespace ops;

namespace {
Tensor binary(OpId op, const Tensor& a, const Tensor& b) {
  auto [x, y] = meet(a, b, ir::name_of(op));
  return record1(op, {x, y});
}

// The operands meet as ever, then integers become f32.
Tensor float_binary(OpId op, const Tensor& a, const Tensor& b) {
  const DType t = promote(a.dtype(), b.dtype());
  const DType to = is_float(t) ? t : DType::f32;
  return binary(op, cast(a, to), cast(b, to));
}

Tensor logic(OpId op, const Tensor& a, const Tensor& b) {
  return binary(op, cast(a, DType::boolean), cast(b, DType::boolean));
}
}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary(OpId::add, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary(OpId::sub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary(OpId::mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return float_binary(OpId::div, a, b); }
Tensor pow(const Tensor& a, const Tensor& b) { return float_binary(OpId::pow, a, b); }

Tensor pow(const Tensor& a, double b) {
  const Tensor x = to_float(a);
  if (b == 0) return ones_like(x);
  if (b == 1) return x;
  if (b == 2) return x * x;
  if (b == -1) return reciprocal(x);
  return pow(x, full({}, b, x.dtype()));
}

Tensor maximum(const Tensor& a, const Tensor& b) { return binary(OpId::maximum, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary(OpId::minimum, a, b); }
Tensor remainder(const Tensor& a, const Tensor& b) { return binary(OpId::remainder, a, b); }
Tensor equal(const Tensor& a, const Tensor& b) { return binary(OpId::equal, a, b); }
Tensor not_equal(const Tensor& a, const Tensor& b) { return binary(OpId::not_equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return binary(OpId::less, a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) { return binary(OpId::less_equal, a, b); }
Tensor greater(const Tensor& a, const Tensor& b) { return binary(OpId::greater, a, b); }
Tensor greater_equal(const Tensor& a, const Tensor& b) { return binary(OpId::greater_equal, a, b); }
Tensor logical_and(const Tensor& a, const Tensor& b) { return logic(OpId::logical_and, a, b); }
Tensor logical_or(const Tensor& a, const Tensor& b) { return logic(OpId::logical_or, a, b); }

}  // namespace bp

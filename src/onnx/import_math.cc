// ONNX's elementwise operators, reductions and products.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "bp/activations.h"
#include "onnx/importer.h"

namespace bp::onnx {

// One function an operator, or a family; a struct, so that their names are its own.
struct MathImport {
  template <Tensor (*F)(const Tensor&)> static Tensors unary(const Call& c) { return {F(c.at(0))}; }
  template <Tensor (*F)(const Tensor&, const Tensor&)> static Tensors binary(const Call& c) {
    return {F(c.at(0), c.at(1))};
  }
  // Of any number of operands.
  template <Tensor (*F)(const Tensor&, const Tensor&)> static Tensors fold(const Call& c) {
    Tensor out = c.at(0);
    for (std::size_t i = 1; i < c.in.size(); ++i) out = F(out, c.at(i));
    return {out};
  }

  static Tensors div(const Call& c) {
    const Tensor &a = c.at(0), &b = c.at(1);
    if (is_float(a.dtype())) return {a / b};
    const Tensor q = cast(a, f64) / cast(b, f64);  // integers: towards zero
    return {cast(q, a.dtype())};
  }
  static Tensors pow(const Call& c) {
    const Tensor &a = c.at(0), &b = c.at(1);
    const DType wide = is_float(a.dtype()) ? promote(a.dtype(), is_float(b.dtype()) ? b.dtype() : a.dtype()) : f64;
    return {cast(bp::pow(cast(a, wide), cast(b, wide)), a.dtype())};
  }
  static Tensors mod(const Call& c) {
    const Tensor &a = c.at(0), &b = c.at(1);
    if (c.integer("fmod", 0) == 0) return {remainder(a, b)};
    const Tensor magnitude = remainder(bp::abs(a), bp::abs(b));  // the sign of a
    return {select(a < 0.0, neg(magnitude), magnitude)};
  }
  static Tensor exclusive_or(const Tensor& a, const Tensor& b) { return not_equal(a, b); }
  static Tensors mean(const Call& c) { return {fold<add>(c)[0] / static_cast<double>(c.in.size())}; }
  static Tensors where(const Call& c) { return {select(c.at(0), c.at(1), c.at(2))}; }

  static Tensors tan(const Call& c) { return {sin(c.at(0)) / cos(c.at(0))}; }
  static Tensor half_exp(const Tensor& x, double sign) { return 0.5 * (exp(x) + sign * exp(-x)); }
  static Tensors sinh(const Call& c) { return {half_exp(c.at(0), -1)}; }
  static Tensors cosh(const Call& c) { return {half_exp(c.at(0), 1)}; }
  static Tensors asinh(const Call& c) {
    const Tensor a = bp::abs(c.at(0));
    return {sign(c.at(0)) * log1p(a + square(a) / (1.0 + sqrt(square(a) + 1.0)))};
  }
  static Tensors acosh(const Call& c) { return {log(c.at(0) + sqrt(square(c.at(0)) - 1.0))}; }
  static Tensors atanh(const Call& c) { return {0.5 * (log1p(c.at(0)) - log1p(-c.at(0)))}; }

  // atan(x): the argument is halved twice, which leaves |x| < 0.2, then its series.
  static Tensor arctangent(const Tensor& given) {
    Tensor x = given;
    for (int i = 0; i < 3; ++i) x = x / (1.0 + sqrt(1.0 + square(x)));
    const Tensor s = square(x);
    Tensor sum = zeros_like(x);
    for (int k = 12; k >= 0; --k) sum = sum * s + (k % 2 == 0 ? 1.0 : -1.0) / (2 * k + 1);
    return 8.0 * x * sum;
  }
  static Tensors atan(const Call& c) { return {arctangent(c.at(0))}; }
  // asin(x) = 2 atan(x / (1 + sqrt(1 - x^2)))
  static Tensor arcsine(const Tensor& x) { return 2.0 * arctangent(x / (1.0 + sqrt((1.0 - x) * (1.0 + x)))); }
  static Tensors asin(const Call& c) { return {arcsine(c.at(0))}; }
  static Tensors acos(const Call& c) { return {std::numbers::pi / 2 - arcsine(c.at(0))}; }

  static Tensors is_nan(const Call& c) { return {not_equal(c.at(0), c.at(0))}; }
  static Tensors is_inf(const Call& c) {
    const double inf = std::numeric_limits<double>::infinity();
    const Tensor none = logical_and(c.at(0) > 0.0, c.at(0) < 0.0);
    const Tensor up = c.integer("detect_positive", 1) != 0 ? equal(c.at(0), inf) : none;
    return {logical_or(up, c.integer("detect_negative", 1) != 0 ? equal(c.at(0), -inf) : none)};
  }

  // ---- activations -------------------------------------------------------------------------------------------------

  static Tensors leaky_relu(const Call& c) { return {bp::leaky_relu(c.at(0), c.number("alpha", 0.01))}; }
  static Tensors elu(const Call& c) { return {bp::elu(c.at(0), c.number("alpha", 1))}; }
  static Tensors celu(const Call& c) { return {bp::celu(c.at(0), c.number("alpha", 1))}; }
  static Tensors selu(const Call& c) {
    return {c.number("gamma", 1.05070102214813232421875) *
            bp::elu(c.at(0), c.number("alpha", 1.67326319217681884765625))};
  }
  static Tensors prelu(const Call& c) { return {select(c.at(0) < 0.0, c.at(0) * c.at(1), c.at(0))}; }
  static Tensors thresholded_relu(const Call& c) {
    return {select(c.at(0) > c.number("alpha", 1), c.at(0), zeros_like(c.at(0)))};
  }
  static Tensors hard_sigmoid(const Call& c) {
    return {bp::clip(c.number("alpha", 0.2) * c.at(0) + c.number("beta", 0.5), 0, 1)};
  }
  static Tensors shrink(const Call& c) {
    const double lambda = c.number("lambd", 0.5), bias = c.number("bias", 0);
    const Tensor& x = c.at(0);
    return {cast(select(x < -lambda, x + bias, select(x > lambda, x - bias, zeros_like(x))), x.dtype())};
  }
  static Tensors clip(const Call& c) {
    Tensor x = c.at(0);
    if (c.opset < 11) return {bp::clip(x, c.number("min", -HUGE_VAL), c.number("max", HUGE_VAL))};
    if (c.has(1)) x = maximum(x, cast(c.at(1), x.dtype()));
    if (c.has(2)) x = minimum(x, cast(c.at(2), x.dtype()));
    return {x};
  }
  // Operator sets before 13 flatten everything from the axis on.
  template <Tensor (*F)(const Tensor&, int)> static Tensors soft(const Call& c) {
    const Tensor& x = c.at(0);
    if (c.opset >= 13) return {F(x, c.axis(c.integer("axis", -1), x.rank()))};
    const int axis = static_cast<int>(c.integer("axis", 1));
    const int from = axis < 0 ? axis + x.rank() : axis;
    if (from < 0 || from > x.rank()) c.refuse(fmt::format("the axis {} is out of range for rank {}", axis, x.rank()));
    std::int64_t rows = 1;
    for (int d = 0; d < from; ++d) rows *= x.shape()[d];
    return {reshape(F(reshape(x, {rows, -1}), 1), x.shape())};
  }
  static Tensor hard_max(const Tensor& x, int axis) {
    const Tensor place = unsqueeze(argmax(x, axis), axis);
    return cast(equal(iota(x.shape(), axis), broadcast_to(place, x.shape())), x.dtype());
  }

  // ---- reductions --------------------------------------------------------------------------------------------------

  static std::pair<Axes, bool> axes_of(const Call& c, std::size_t input) {
    Axes axes;
    const Ints64 given = c.has(input) ? c.values(input) : c.integers("axes");
    for (const std::int64_t a : given) axes.push_back(c.axis(a, c.at(0).rank()));
    return {axes, c.integer("keepdims", 1) != 0};
  }
  // `f` on floating numbers, or on integers as they are; the dtype stays.
  template <class F> static Tensors reduced(const Call& c, F f) {
    const auto [axes, keep] = axes_of(c, 1);
    if (axes.empty() && c.integer("noop_with_empty_axes", 0) != 0) return {c.at(0)};
    return {cast(f(c.at(0), axes, keep), c.at(0).dtype())};
  }
  static Tensors reduce_sum(const Call& c) { return reduced(c, sum); }
  static Tensors reduce_mean(const Call& c) { return reduced(c, bp::mean); }
  static Tensors reduce_max(const Call& c) { return reduced(c, max); }
  static Tensors reduce_min(const Call& c) { return reduced(c, min); }
  static Tensors reduce_prod(const Call& c) { return reduced(c, prod); }
  static Tensors reduce_l1(const Call& c) {
    return reduced(c, [](const Tensor& x, const Axes& a, bool k) { return sum(bp::abs(x), a, k); });
  }
  static Tensors reduce_l2(const Call& c) { return reduced(c, norm); }
  static Tensors reduce_log_sum(const Call& c) {
    return reduced(c, [](const Tensor& x, const Axes& a, bool k) { return log(sum(x, a, k)); });
  }
  static Tensors reduce_log_sum_exp(const Call& c) { return reduced(c, logsumexp); }
  static Tensors reduce_sum_square(const Call& c) {
    return reduced(c, [](const Tensor& x, const Axes& a, bool k) { return sum(square(x), a, k); });
  }
  template <bool Largest> static Tensors arg(const Call& c) {
    Tensor x = c.at(0);
    const int axis = c.axis(c.integer("axis", 0), x.rank());
    const bool last = c.integer("select_last_index", 0) != 0;
    if (last) x = reverse(x, {axis});
    Tensor place = Largest ? argmax(x, axis) : argmin(x, axis);
    if (last) place = (static_cast<double>(x.size(axis)) - 1.0) - place;
    return {c.integer("keepdims", 1) != 0 ? unsqueeze(place, axis) : place};
  }
  static Tensors cum_sum(const Call& c) {
    const Tensor& x = c.at(0);
    const int axis = c.axis(c.values(1).at(0), x.rank());
    Tensor y = cumsum(x, axis, c.integer("reverse", 0) != 0);
    if (c.integer("exclusive", 0) != 0) y = y - x;
    return {cast(y, x.dtype())};
  }

  // ---- products ----------------------------------------------------------------------------------------------------

  static Tensors matmul(const Call& c) { return {bp::matmul(c.at(0), c.at(1))}; }
  static Tensors gemm(const Call& c) {
    const double alpha = c.number("alpha", 1), beta = c.number("beta", 1);
    Tensor y = bp::matmul(c.at(0), c.at(1), c.integer("transA", 0) != 0, c.integer("transB", 0) != 0);
    if (alpha != 1) y = y * alpha;
    if (c.has(2)) y = y + (beta == 1 ? c.at(2) : c.at(2) * beta);
    return {y};
  }
  static Tensors einsum(const Call& c) {
    std::string equation;
    for (const char letter : c.text("equation", ""))
      if (letter != ' ') equation += letter;
    if (equation.find('.') != std::string::npos) return {batched_einsum(c, equation)};
    return {bp::einsum(equation.c_str(), c.in)};
  }
  // "..ij,..jk" with dots: letters of their own for the dimensions that they stand for.
  static Tensor batched_einsum(const Call& c, std::string equation) {
    std::string free;
    for (char l = 'A'; l <= 'Z'; ++l)
      if (equation.find(l) == std::string::npos) free += l;
    const std::size_t letters = equation.substr(0, equation.find_first_of(",-")).size() - 3;
    const std::size_t dots = static_cast<std::size_t>(c.at(0).rank()) - letters;
    for (std::size_t at; (at = equation.find("...")) != std::string::npos;)
      equation.replace(at, 3, free.substr(0, dots));
    return bp::einsum(equation.c_str(), c.in);
  }

  // Unsigned integers of 8 bits wrap; wider ones are i64 here.
  static Tensors bit_shift(const Call& c) {
    const Tensor &a = c.at(0), &b = c.at(1);
    const Tensor factor = cast(bp::pow(full({}, 2, f64), cast(b, f64)), i64), wide = cast(a, i64);
    if (c.text("direction", "") == "LEFT") return {cast(remainder_of(a.dtype(), wide * factor), a.dtype())};
    return {cast(floor(cast(wide, f64) / cast(factor, f64)), a.dtype())};
  }
  static Tensor remainder_of(DType t, const Tensor& x) {
    return t == DType::u8 ? remainder(x, weak_scalar(256, x)) : x;
  }
};

const Builders& math_builders() {
  using M = MathImport;
  static const Builders kTable{
      {"Abs", M::unary<bp::abs>},
      {"Acos", M::acos},
      {"Acosh", M::acosh},
      {"Add", M::binary<add>},
      {"And", M::binary<logical_and>},
      {"ArgMax", M::arg<true>},
      {"ArgMin", M::arg<false>},
      {"Asin", M::asin},
      {"Asinh", M::asinh},
      {"Atan", M::atan},
      {"Atanh", M::atanh},
      {"BitShift", M::bit_shift},
      {"Ceil", M::unary<ceil>},
      {"Celu", M::celu},
      {"Clip", M::clip},
      {"Cos", M::unary<cos>},
      {"Cosh", M::cosh},
      {"CumSum", M::cum_sum},
      {"Div", M::div},
      {"Einsum", M::einsum},
      {"Elu", M::elu},
      {"Equal", M::binary<equal>},
      {"Erf", M::unary<erf>},
      {"Exp", M::unary<exp>},
      {"Floor", M::unary<floor>},
      {"Gemm", M::gemm},
      {"Greater", M::binary<greater>},
      {"GreaterOrEqual", M::binary<greater_equal>},
      {"HardSigmoid", M::hard_sigmoid},
      {"HardSwish", M::unary<hard_swish>},
      {"Hardmax", M::soft<M::hard_max>},
      {"IsInf", M::is_inf},
      {"IsNaN", M::is_nan},
      {"LeakyRelu", M::leaky_relu},
      {"Less", M::binary<less>},
      {"LessOrEqual", M::binary<less_equal>},
      {"Log", M::unary<log>},
      {"LogSoftmax", M::soft<log_softmax>},
      {"MatMul", M::matmul},
      {"Max", M::fold<maximum>},
      {"Mean", M::mean},
      {"Min", M::fold<minimum>},
      {"Mod", M::mod},
      {"Mul", M::binary<mul>},
      {"Neg", M::unary<neg>},
      {"Not", M::unary<logical_not>},
      {"Or", M::binary<logical_or>},
      {"PRelu", M::prelu},
      {"Pow", M::pow},
      {"Reciprocal", M::unary<reciprocal>},
      {"ReduceL1", M::reduce_l1},
      {"ReduceL2", M::reduce_l2},
      {"ReduceLogSum", M::reduce_log_sum},
      {"ReduceLogSumExp", M::reduce_log_sum_exp},
      {"ReduceMax", M::reduce_max},
      {"ReduceMean", M::reduce_mean},
      {"ReduceMin", M::reduce_min},
      {"ReduceProd", M::reduce_prod},
      {"ReduceSum", M::reduce_sum},
      {"ReduceSumSquare", M::reduce_sum_square},
      {"Relu", M::unary<relu>},
      {"Round", M::unary<round>},
      {"Selu", M::selu},
      {"Shrink", M::shrink},
      {"Sigmoid", M::unary<sigmoid>},
      {"Sign", M::unary<sign>},
      {"Sin", M::unary<sin>},
      {"Sinh", M::sinh},
      {"Softmax", M::soft<softmax>},
      {"Softplus", M::unary<softplus>},
      {"Softsign", M::unary<softsign>},
      {"Sqrt", M::unary<sqrt>},
      {"Sub", M::binary<sub>},
      {"Sum", M::fold<add>},
      {"Tan", M::tan},
      {"Tanh", M::unary<tanh>},
      {"ThresholdedRelu", M::thresholded_relu},
      {"Where", M::where},
      {"Xor", M::binary<M::exclusive_or>},
  };
  return kTable;
}

}  // namespace bp::onnx

// Rows of the op table: unary, binary, select, cast, random bits and leaves.
#include "base/random_word.h"
#include "op_table.h"

namespace bp::test {
namespace {

const Domain kPositive{0.1, 3};
constexpr Gradient kNone = Gradient::none;

// The error names the operation at which floating numbers end.
OpRow blaming(const char* op, OpRow row) {
  row.blamed = op;
  return row;
}

// Between floats a cast rounds, which finite differences cannot see through: tests/ops/elementwise_test.cc.
OpRow cast_row() {
  return {"cast",
          [](std::span<const Tensor> x) { return std::vector<Tensor>{cast(x[0], f64)}; },
          {{{{7}, i32, -5, 5}}, {{{}, i64, -5, 5}}, {{{0}, u8}}, {{{3, 11}, boolean, 0, 2}}},
          elementwise([](double x) { return x; })};
}

// Elements of an f64 operand on both sides, ties among them.
OpRow ties_row(std::string name, std::function<Tensor(const Tensor&, const Tensor&)> f, Formula expected) {
  OpRow row = binary(std::move(name), std::move(f), std::move(expected), {}, {}, kNone);
  row.cases.push_back({{{4}, f64, 0, 0, {1, 2, 3, 4}}, {{4}, f64, 0, 0, {1, 3, 3, -4}}});
  return row;
}

const AddRows unary_rows({
    unary("neg", bp::neg, elementwise([](double x) { return 0 - x; })),
    unary("abs", bp::abs, elementwise([](double x) { return x < 0 ? -x : x; })),
    unary("sign", bp::sign, elementwise([](double x) { return x < 0 ? -1 : 1; })),
    unary("relu", bp::relu, elementwise([](double x) { return x < 0 ? 0 : x; })),
    unary("exp", bp::exp, elementwise([](double x) { return std::pow(2.718281828459045235, x); })),
    unary("expm1", bp::expm1, elementwise([](double x) { return 2 * std::sinh(x / 2) * std::exp(x / 2); })),
    unary("log", bp::log, elementwise([](double x) { return std::log2(x) / std::log2(2.718281828459045235); }), 0.1, 5),
    unary("log1p", bp::log1p, elementwise([](double x) { return 2 * std::atanh(x / (2 + x)); }), -0.8, 3),
    unary("sqrt", bp::sqrt, elementwise([](double x) { return std::pow(x, 0.5); }), 0.1, 5),
    unary("rsqrt", bp::rsqrt, elementwise([](double x) { return std::pow(x, -0.5); }), 0.1, 5),
    unary("reciprocal", bp::reciprocal, elementwise([](double x) { return std::pow(x, -1); }), 0.1, 5),
    unary("square", bp::square, elementwise([](double x) { return std::pow(x, 2); })),
    unary("sin", bp::sin, elementwise([](double x) { return std::cos(x - std::acos(0.0)); }), 0.2, 3),
    unary("cos", bp::cos, elementwise([](double x) { return 1 - 2 * std::pow(std::sin(x / 2), 2); }), -1.5, 1.5),
    unary("tanh", bp::tanh, elementwise([](double x) { return std::expm1(2 * x) / (std::expm1(2 * x) + 2); })),
    unary("sigmoid", bp::sigmoid, elementwise([](double x) { return 0.5 + 0.5 * std::tanh(x / 2); })),
    unary("erf", bp::erf, elementwise([](double x) { return 1 - std::erfc(x); })),
    unary("floor", bp::floor, elementwise([](double x) { return std::trunc(x + 10) - 10; })),
    unary("ceil", bp::ceil, elementwise([](double x) { return 10 - std::trunc(10 - x); })),
    unary("round", bp::round, elementwise([](double x) { return std::trunc(x + 10.5) - 10; })),
    unary("stop_gradient", bp::stop_gradient, elementwise([](double x) { return x; }), -2, 2, Gradient::zero),
    unary(
        "isfinite", [](const Tensor& x) { return isfinite(log(x)); }, elementwise([](double x) { return x > 0; }), -2,
        2, kNone),
    blaming("cast", unary("logical_not", bp::logical_not, elementwise([](double x) { return x == 0; }), -2, 2, kNone)),
});

const AddRows binary_rows({
    binary("add", bp::add, elementwise([](double a, double b) { return a - -b; })),
    binary("sub", bp::sub, elementwise([](double a, double b) { return a + -b; })),
    binary("mul", bp::mul, elementwise([](double a, double b) { return a / (1 / b); })),
    binary("div", bp::div, elementwise([](double a, double b) { return a * (1 / b); }), {}, kPositive),
    binary(
        "pow", [](const Tensor& a, const Tensor& b) { return pow(a, b); },
        elementwise([](double a, double b) { return std::exp(b * std::log(a)); }), kPositive),
    binary(
        "maximum", [](const Tensor& a, const Tensor& b) { return maximum(a, b); },
        elementwise([](double a, double b) { return a > b ? a : b; })),
    binary(
        "minimum", [](const Tensor& a, const Tensor& b) { return minimum(a, b); },
        elementwise([](double a, double b) { return a < b ? a : b; })),
    binary("remainder", bp::remainder, elementwise([](double a, double b) { return a - b * std::floor(a / b); }),
           {-3, 3}, {0.6, 1.4}),
    ties_row(
        "equal", [](const Tensor& a, const Tensor& b) { return equal(a, b); },
        elementwise([](double a, double b) { return a == b; })),
    ties_row("not_equal", bp::not_equal, elementwise([](double a, double b) { return a != b; })),
    ties_row("less", bp::less, elementwise([](double a, double b) { return a < b; })),
    ties_row("less_equal", bp::less_equal, elementwise([](double a, double b) { return a <= b; })),
    ties_row("greater", bp::greater, elementwise([](double a, double b) { return a > b; })),
    ties_row("greater_equal", bp::greater_equal, elementwise([](double a, double b) { return a >= b; })),
    blaming("greater", ties_row(
                           "logical_and", [](const Tensor& a, const Tensor& b) { return logical_and(a > 0, b > 0); },
                           elementwise([](double a, double b) { return a > 0 && b > 0; }))),
    blaming("greater", ties_row(
                           "logical_or", [](const Tensor& a, const Tensor& b) { return logical_or(a > 0, b > 0); },
                           elementwise([](double a, double b) { return a > 0 || b > 0; }))),
});

OpRow select_row() {
  OpRow row{"select",
            [](std::span<const Tensor> x) { return std::vector<Tensor>{select(x[0], x[1], x[2])}; },
            {},
            elementwise([](double c, double a, double b) { return c != 0 ? a : b; })};
  const std::vector<Shape> shapes[] = {{{}, {}, {}},      {{7}, {7}, {7}},    {{33}, {1}, {33}},
                                       {{3, 1}, {5}, {}}, {{1}, {2, 3}, {3}}, {{0}, {1}, {0}}};
  for (const auto& s : shapes) row.cases.push_back({{s[0], boolean, 0, 2}, {s[1]}, {s[2]}});
  return row;
}

const AddRows other_rows({
    select_row(),
    cast_row(),
    {"full",
     [](std::span<const Tensor>) {
       return std::vector<Tensor>{full({3, 2}, 1.5, f64)};
     },
     {{}},
     [](auto, auto) { return Values(6, 1.5); }},
    {"iota",
     [](std::span<const Tensor>) {
       return std::vector<Tensor>{iota({2, 3, 2}, 1, f64)};
     },
     {{}},
     [](auto, auto) { return Values{0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2}; }},
    {"random_bits",
     [](std::span<const Tensor> x) { return std::vector<Tensor>{random_bits(x[0], {33}, 12, 5)}; },
     {{{{2}, i64, 0, 0, {7, 3}}}},
     [](auto, auto) {
       Values out;
       for (std::uint64_t i = 0; i < 33; ++i) out.push_back(random_word(7, 3, 5, i) >> 20);
       return out;
     },
     kNone},
});

}  // namespace
}  // namespace bp::test

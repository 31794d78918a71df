// The op test table: one row an op or composition. Each family adds its rows in op_table_<family>_test.cc; the checks
// that every row undergoes are in op_table_test.cc.
#pragma once

#include <cmath>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/grad.h"
#include "bp/ops.h"

namespace bp::test {

using Values = std::vector<double>;

// One operand. f64 values are drawn from [low, high), at least 0.05 away from every multiple of 1/2 (the kinks of abs,
// floor, round) and exact in f32; integers from {low, ..., high - 1}. `values` gives them instead.
struct Input {
  Shape shape;
  DType dtype = f64;  // f64: becomes f32 in the f32 checks. Others stay as they are
  double low = -2, high = 2;
  Values values = {};
};

// The first output, row-major, from the operands' values: written without any op of the library.
using Formula = std::function<Values(std::span<const Input> inputs, std::span<const Values> values)>;

enum class Gradient {
  checked,  // against finite differences (ops that are flat almost everywhere too)
  zero,     // zeros by definition (stop_gradient)
  none      // asking for one throws, naming the op
};

struct OpRow {
  std::string name;  // of the op, as in ops.def, or of the composition
  Function f;
  std::vector<std::vector<Input>> cases;  // operands of each call; sizes 0, 1, odd and broadcast among them
  Formula expected = {};
  Gradient gradient = Gradient::checked;
  bool second_order = true;             // whether the gradient of the gradient is checked as well
  double rtol = 1e-12;                  // of the value in f64 against `expected`, and of the executable
  double rtol32 = 1e-5, atol32 = 1e-6;  // of the f32 executable against the f64 reference interpreter
  double grad_rtol32 = 1e-4, grad_atol32 = 1e-5;
  double rtol_bf16 = 0;                        // of the bf16 executable's value against its reference; 0: not tried
  std::vector<std::vector<Input>> large = {};  // further operands, for the executable only: many tiles, several threads
  std::string blamed = {};                     // the op that the error of Gradient::none names; empty: `name`
  std::vector<std::string> covers = {};        // further ops that its value, gradient or second gradient uses
};

inline void PrintTo(const OpRow& row, std::ostream* out) { *out << row.name; }

inline std::vector<OpRow>& op_rows() {
  static std::vector<OpRow> rows;
  return rows;
}

// static const AddRows rows({unary(...), ...});
struct AddRows {
  explicit AddRows(std::vector<OpRow> rows) {
    for (OpRow& r : rows) op_rows().push_back(std::move(r));
  }
};

// Position of row-major element i of `out` in an operand that was broadcast to it.
inline std::int64_t source_index(std::int64_t i, const Shape& out, const Shape& in) {
  const Shape to = row_major_strides(out), from = row_major_strides(in);
  std::int64_t at = 0;
  for (int d = 0; d < in.rank(); ++d) {
    const int k = d + out.rank() - in.rank();
    if (in[d] != 1) at += i / to[k] % out[k] * from[d];
  }
  return at;
}

// An elementwise formula over any number of broadcast operands.
template <class F> Formula elementwise(F f) {
  return [f](std::span<const Input> in, std::span<const Values> v) {
    Shape out;
    for (const Input& i : in) out = broadcast_shapes(out, i.shape, "formula");
    Values y;
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      const auto at = [&](std::size_t k) { return v[k][static_cast<std::size_t>(source_index(i, out, in[k].shape))]; };
      if constexpr (std::is_invocable_v<F, double, double, double>)
        y.push_back(static_cast<double>(f(at(0), at(1), at(2))));
      else if constexpr (std::is_invocable_v<F, double, double>)
        y.push_back(static_cast<double>(f(at(0), at(1))));
      else
        y.push_back(static_cast<double>(f(at(0))));
    }
    return y;
  };
}

// One unit in the last place of bf16: both sides round the same number, or its neighbour.
inline constexpr double kBf16 = 1.0 / 128;

// What a row's function returns, of one tensor.
inline std::vector<Tensor> one(const Tensor& x) { return {x}; }

// A function of one tensor, tried on scalars, odd, empty and two-dimensional shapes.
inline OpRow unary(std::string name, std::function<Tensor(const Tensor&)> f, Formula expected, double low = -2,
                   double high = 2, Gradient gradient = Gradient::checked) {
  OpRow row{std::move(name),
            [f = std::move(f)](std::span<const Tensor> x) { return std::vector<Tensor>{f(x[0])}; },
            {},
            std::move(expected),
            gradient};
  for (const Shape& s : {Shape{}, Shape{1}, Shape{7}, Shape{33}, Shape{3, 5}, Shape{0}, Shape{3, 0}})
    row.cases.push_back({{s, f64, low, high}});
  for (const Shape& s : {Shape{40003}, Shape{129, 67}}) row.large.push_back({{s, f64, low, high}});
  row.rtol_bf16 = kBf16;
  return row;
}

struct Domain {
  double low = -2, high = 2;
};

// A function of two tensors, tried on equal and on broadcast shapes.
inline OpRow binary(std::string name, std::function<Tensor(const Tensor&, const Tensor&)> f, Formula expected,
                    Domain a = {}, Domain b = {}, Gradient gradient = Gradient::checked) {
  OpRow row{std::move(name),
            [f = std::move(f)](std::span<const Tensor> x) { return std::vector<Tensor>{f(x[0], x[1])}; },
            {},
            std::move(expected),
            gradient};
  const std::pair<Shape, Shape> shapes[] = {{{}, {}},         {{1}, {7}},          {{33}, {33}},
                                            {{3, 1}, {1, 5}}, {{2, 3, 4}, {3, 1}}, {{}, {3, 3}},
                                            {{0}, {1}},       {{3, 0}, {1, 0}}};
  for (const auto& [x, y] : shapes) row.cases.push_back({{x, f64, a.low, a.high}, {y, f64, b.low, b.high}});
  const std::pair<Shape, Shape> large[] = {
      {{40003}, {40003}}, {{129, 67}, {67}}, {{129, 1}, {67}}, {{5, 1, 33}, {131, 1}}};
  for (const auto& [x, y] : large) row.large.push_back({{x, f64, a.low, a.high}, {y, f64, b.low, b.high}});
  row.rtol_bf16 = kBf16;
  return row;
}

}  // namespace bp::test

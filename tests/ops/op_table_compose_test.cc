// Rows of the op table: activations, softmax, einsum and the losses, against formulas written out.
#include <algorithm>
#include <string>

#include "op_table.h"

namespace bp::test {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

// In bf16 the reference rounds after every op, a fused loop only where it stores: several steps may lie between the
// two.
OpRow composed(OpRow row) {
  row.rtol_bf16 *= 6;
  return row;
}

const AddRows activations({
    unary("softplus", bp::softplus, elementwise([](double x) { return std::log(1 + std::exp(x)); })),
    composed(unary("gelu", bp::gelu, elementwise([](double x) { return x * Phi(x); }))),
    composed(unary("gelu_tanh", bp::gelu_tanh, elementwise([](double x) {
                     return 0.5 * x *
                            (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
                   }))),
    unary("silu", bp::silu, elementwise([](double x) { return x / (1 + std::exp(-x)); })),
    unary(
        "elu", [](const Tensor& x) { return elu(x, 1.5); },
        elementwise([](double x) { return x > 0 ? x : 1.5 * (std::exp(x) - 1); })),
    unary(
        "leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.1); },
        elementwise([](double x) { return x > 0 ? x : 0.1 * x; })),
    unary(
        "clip", [](const Tensor& x) { return clip(x, -1, 0.5); }, elementwise([](double x) {
          return x < -1 ? -1 : x > 0.5 ? 0.5 : x;
        })),
});

// A difference of near values: in bf16 the rounding of either is all that is left.
OpRow in_f32(OpRow row) {
  row.rtol_bf16 = 0;
  return row;
}

double softplus_of(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double hard_sigmoid_of(double x) { return std::min(std::max(x + 3, 0.0), 6.0) / 6; }

const AddRows more_activations({
    unary("log_sigmoid", bp::log_sigmoid, elementwise([](double x) { return -softplus_of(-x); })),
    composed(unary("mish", bp::mish, elementwise([](double x) { return x * std::tanh(softplus_of(x)); }))),
    composed(unary("softsign", bp::softsign, elementwise([](double x) { return x / (1 + std::fabs(x)); }))),
    composed(unary("selu", bp::selu, elementwise([](double x) {
                     return 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * std::expm1(x));
                   }))),
    composed(unary(
        "celu", [](const Tensor& x) { return celu(x, 0.5); },
        elementwise([](double x) { return x > 0 ? x : 0.5 * std::expm1(x / 0.5); }))),
    unary(
        "relu6", [](const Tensor& x) { return relu6(x * 5); },
        elementwise([](double x) { return std::min(std::max(x * 5, 0.0), 6.0); })),
    unary(
        "hard_tanh", [](const Tensor& x) { return hard_tanh(x, -1, 0.5); },
        elementwise([](double x) { return std::min(std::max(x, -1.0), 0.5); })),
    composed(unary("hard_sigmoid", bp::hard_sigmoid, elementwise(hard_sigmoid_of), -5, 5)),
    composed(unary("hard_swish", bp::hard_swish, elementwise([](double x) { return x * hard_sigmoid_of(x); }), -5, 5)),
    unary(
        "hard_shrink", [](const Tensor& x) { return hard_shrink(x, 1); },
        elementwise([](double x) { return std::fabs(x) > 1 ? x : 0; })),
    unary(
        "soft_shrink", [](const Tensor& x) { return soft_shrink(x); },
        elementwise([](double x) { return std::copysign(std::max(std::fabs(x) - 0.5, 0.0), x); })),
    in_f32(unary("tanh_shrink", bp::tanh_shrink, elementwise([](double x) { return x - std::tanh(x); }), 0.5, 2)),
    binary("prelu", bp::prelu, elementwise([](double x, double a) { return x > 0 ? x : a * x; })),
});

// a * f(b) of the two halves [a, b] of the last axis.
OpRow gated(std::string name, Tensor (*gate)(const Tensor&, int), double (*f)(double)) {
  OpRow row{std::move(name), [gate](std::span<const Tensor> x) { return one(gate(x[0], -1)); }, {}};
  for (const Shape& s : {Shape{2}, Shape{3, 6}, Shape{2, 3, 10}, Shape{0, 4}, Shape{3, 0}}) row.cases.push_back({{s}});
  row.large.push_back({{{129, 66}}});
  row.expected = [f](std::span<const Input> in, std::span<const Values> v) {
    const auto n = static_cast<std::size_t>(in[0].shape.back());
    Values y;
    for (std::size_t r = 0; n != 0 && r < v[0].size(); r += n)
      for (std::size_t i = r; i < r + n / 2; ++i) y.push_back(v[0][i] * f(v[0][i + n / 2]));
    return y;
  };
  return row;
}

const AddRows gates({
    gated("glu", bp::glu, [](double x) { return 1 / (1 + std::exp(-x)); }),
    gated("geglu", bp::geglu, [](double x) { return x * Phi(x); }),
    gated("swiglu", bp::swiglu, [](double x) { return x / (1 + std::exp(-x)); }),
    gated("reglu", bp::reglu, [](double x) { return x > 0 ? x : 0; }),
});

// p_i = exp(x_i) / sum_j exp(x_j) of the last axis.
Values softmax_formula(std::span<const Input> in, std::span<const Values> v) {
  Values out = v[0];
  const auto n = static_cast<std::size_t>(in[0].shape.back());
  for (std::size_t r = 0; n != 0 && r < out.size(); r += n) {
    double s = 0;
    for (std::size_t i = r; i < r + n; ++i) s += std::exp(v[0][i]);
    for (std::size_t i = r; i < r + n; ++i) out[i] = std::exp(v[0][i]) / s;
  }
  return out;
}
Values log_softmax_formula(std::span<const Input> in, std::span<const Values> v) {
  Values out = softmax_formula(in, v);
  for (double& x : out) x = std::log(x);
  return out;
}

const std::vector<std::vector<Input>> kRows = {{{{3, 7}}}, {{{33}}}, {{{2, 1}}}, {{{2, 3, 5}}}, {{{0, 4}}}, {{{2, 0}}}};
std::vector<OpRow> all_with_large(std::vector<OpRow> rows, const std::vector<std::vector<Input>>& large) {
  for (OpRow& r : rows) r.large = large;
  return rows;
}

const AddRows softmaxes(all_with_large(
    {
        {"softmax", [](std::span<const Tensor> x) { return one(softmax(x[0])); }, kRows, softmax_formula},
        {"softmax", [](std::span<const Tensor> x) { return one(softmax(x[0], 0)); }, {{{{5, 2, 3}}}}},
        {"log_softmax", [](std::span<const Tensor> x) { return one(log_softmax(x[0])); }, kRows, log_softmax_formula},
        {"log_softmax", [](std::span<const Tensor> x) { return one(square(log_softmax(x[0], 1))); }, {{{{2, 5, 3}}}}},
    },
    {{{{2, 129, 257}}}}));

// The definition: a sum over all letters of the product of the operands.
Formula einsum_formula(const std::string& equation) {
  return [equation](std::span<const Input> in, std::span<const Values> v) {
    const auto arrow = equation.find("->");
    const std::string left = equation.substr(0, arrow), output = equation.substr(arrow + 2);
    std::vector<std::string> inputs(1);
    for (char c : left)
      if (c == ',')
        inputs.emplace_back();
      else
        inputs.back().push_back(c);
    std::string letters = output;
    std::int64_t sizes[128] = {};
    for (std::size_t k = 0; k < inputs.size(); ++k)
      for (std::size_t d = 0; d < inputs[k].size(); ++d) {
        const char c = inputs[k][d];
        if (letters.find(c) == std::string::npos) letters += c;
        sizes[static_cast<std::size_t>(c)] = in[k].shape[static_cast<int>(d)];
      }
    std::int64_t all = 1, kept = 1;
    for (char c : letters) all *= sizes[static_cast<std::size_t>(c)];
    for (char c : output) kept *= sizes[static_cast<std::size_t>(c)];
    Values out(static_cast<std::size_t>(kept));
    for (std::int64_t i = 0; i < all; ++i) {
      std::int64_t digit[128] = {}, rest = i;
      for (auto c = letters.rbegin(); c != letters.rend(); ++c) {
        digit[static_cast<std::size_t>(*c)] = rest % sizes[static_cast<std::size_t>(*c)];
        rest /= sizes[static_cast<std::size_t>(*c)];
      }
      const auto at = [&](const std::string& labels) {
        std::int64_t a = 0;
        for (char c : labels) a = a * sizes[static_cast<std::size_t>(c)] + digit[static_cast<std::size_t>(c)];
        return static_cast<std::size_t>(a);
      };
      double p = 1;
      for (std::size_t k = 0; k < inputs.size(); ++k) p *= v[k][at(inputs[k])];
      out[at(output)] += p;
    }
    return out;
  };
}

OpRow einsum_row(const std::string& equation, std::vector<Shape> shapes) {
  OpRow r{"einsum",
          [equation](std::span<const Tensor> x) {
            return one(einsum(equation.c_str(), {x.begin(), x.end()}));
          },
          {}};
  r.cases.emplace_back();
  for (const Shape& s : shapes) r.cases[0].push_back({s});
  r.expected = einsum_formula(equation);
  r.rtol = 1e-10;  // sums of both signs
  r.atol32 = 1e-5;
  return r;
}

const AddRows einsums({
    einsum_row("ij,jk->ik", {{2, 3}, {3, 5}}),
    einsum_row("bij,bjk->bik", {{2, 3, 4}, {2, 4, 5}}),
    einsum_row("ji,kj->ki", {{3, 2}, {4, 3}}),
    einsum_row("ij,ij->ij", {{2, 3}, {2, 3}}),
    einsum_row("i,j->ij", {{3}, {4}}),
    einsum_row("i,i->", {{5}, {5}}),
    einsum_row("ijk->ki", {{2, 3, 4}}),
    einsum_row("ij->", {{2, 3}}),
    einsum_row("bhqd,bhkd->bhqk", {{2, 2, 3, 4}, {2, 2, 5, 4}}),
    einsum_row("bqhd,bkhd->bhqk", {{2, 3, 2, 4}, {2, 5, 2, 4}}),
    einsum_row("ijz,jky,kl->il", {{2, 3, 2}, {3, 4, 2}, {4, 2}}),
    einsum_row("a,ab,bc,c->", {{2}, {2, 3}, {3, 4}, {4}}),
    einsum_row("abc,c->cab", {{2, 3, 4}, {4}}),
    einsum_row("ij,jk->ik", {{2, 0}, {0, 3}}),
    einsum_row("abcde,efghd->abcfgh", {{1, 2, 1, 2, 3}, {3, 2, 1, 2, 2}}),
});

// A loss over pairs of elements, reduced by the mean.
Formula averaged(std::function<double(double, double)> f) {
  return [f](std::span<const Input> in, std::span<const Values> v) {
    double s = 0;
    for (std::size_t i = 0; i < v[0].size(); ++i) s += f(v[0][i], v[1][i]);
    return Values{s / static_cast<double>(in[0].shape.numel())};
  };
}

OpRow pair_loss(std::string name, std::function<Tensor(const Tensor&, const Tensor&)> f, Formula expected,
                Domain target = {-2, 2}) {
  OpRow r{std::move(name),
          [f = std::move(f)](std::span<const Tensor> x) { return one(f(x[0], x[1])); },
          {},
          std::move(expected)};
  for (const Shape& s : {Shape{3, 7}, Shape{1}, Shape{33}, Shape{2, 3, 1}})
    r.cases.push_back({{s}, {s, f64, target.low, target.high}});
  return r;
}

Values half_squares(std::span<const Input> in, std::span<const Values> v) {
  double s = 0;
  for (std::size_t i = 0; i < v[0].size(); ++i) s += 0.5 * std::pow(v[0][i] - v[1][i], 2);
  return {s / static_cast<double>(in[0].shape[0])};
}

double bce(double z, double t) {
  const double p = 1 / (1 + std::exp(-z));
  return -t * std::log(p) - (1 - t) * std::log(1 - p);
}

const AddRows pair_losses({
    pair_loss(
        "squared_error", [](const Tensor& y, const Tensor& t) { return squared_error(y, t); },
        averaged([](double y, double t) { return (y - t) * (y - t); })),
    pair_loss(
        "half_squared_error", [](const Tensor& y, const Tensor& t) { return half_squared_error(y, t); }, half_squares),
    pair_loss(
        "l1_loss", [](const Tensor& y, const Tensor& t) { return l1_loss(y, t); },
        averaged([](double y, double t) { return std::fabs(y - t); })),
    pair_loss(
        "huber_loss", [](const Tensor& y, const Tensor& t) { return huber_loss(y, t, 0.7); },
        averaged([](double y, double t) {
          const double e = std::fabs(y - t);
          return e <= 0.7 ? 0.5 * e * e : 0.7 * (e - 0.35);
        })),
    pair_loss("binary_cross_entropy", [](const Tensor& z, const Tensor& t) { return binary_cross_entropy(z, t); },
              averaged(bce), {0, 1}),
});

// sum_c t_c (log sum_j exp(z_j) - z_c) of each row, with the targets t_c that `target` makes; divided by `divisor`.
Formula cross_entropy_formula(double smoothing, const Values& weights) {
  return [smoothing, weights](std::span<const Input> in, std::span<const Values> v) {
    const auto classes = static_cast<std::size_t>(in[0].shape.back());
    const bool ids = in[1].dtype != f64;
    double loss = 0, divisor = 0;
    for (std::size_t r = 0; r * classes < v[0].size(); ++r) {
      double s = 0;
      for (std::size_t c = 0; c < classes; ++c) s += std::exp(v[0][r * classes + c]);
      for (std::size_t c = 0; c < classes; ++c) {
        const double p = ids ? static_cast<double>(v[1][r] == static_cast<double>(c)) : v[1][r * classes + c];
        const double w = weights.empty() ? 1 : weights[c];
        const double t = (1 - smoothing) * p + smoothing / static_cast<double>(classes);
        loss += w * t * (std::log(s) - v[0][r * classes + c]);
        if (ids) divisor += w * p;
      }
      if (!ids) divisor += 1;
    }
    return Values{loss / divisor};
  };
}

OpRow cross_entropy_row(double smoothing, Values weights) {
  OpRow r{"cross_entropy", {}, {}, cross_entropy_formula(smoothing, weights)};
  r.f = [smoothing, weights](std::span<const Tensor> x) {
    CrossEntropyOptions o{.label_smoothing = smoothing};
    if (!weights.empty()) o.class_weights = Tensor::from(weights, {3});
    return one(cross_entropy(x[0], x[1], o));
  };
  r.cases = {{{{5, 3}}, {{5}, i64, 0, 3}},
             {{{2, 2, 3}}, {{2, 2}, i32, 0, 3}},
             {{{3}}, {{}, i64, 0, 3}},
             {{{33, 3}}, {{33}, u8, 0, 3}},
             {{{5, 3}}, {{5, 3}, f64, 0.1, 1}}};
  r.large = {{{{5003, 3}}, {{5003}, i64, 0, 3}}, {{{5003, 3}}, {{5003, 3}, f64, 0.1, 1}}};
  return r;
}

Values kl_formula(std::span<const Input> in, std::span<const Values> v) {
  double s = 0;
  for (std::size_t i = 0; i < v[0].size(); ++i) s += v[1][i] * (std::log(v[1][i]) - v[0][i]);
  return {s / static_cast<double>(in[0].shape.numel() / in[0].shape.back())};
}

const AddRows class_losses({
    cross_entropy_row(0, {}),
    cross_entropy_row(0.1, {}),
    cross_entropy_row(0, {0.5, 2, 1.25}),
    cross_entropy_row(0.3, {0.5, 2, 1.25}),
    {"kl_divergence",
     [](std::span<const Tensor> x) { return one(kl_divergence(x[0], x[1])); },
     {{{{5, 3}}, {{5, 3}, f64, 0.1, 1}}, {{{4}}, {{4}, f64, 0.1, 1}}, {{{2, 3, 1}}, {{2, 3, 1}, f64, 0.1, 1}}},
     kl_formula},
});

}  // namespace
}  // namespace bp::test

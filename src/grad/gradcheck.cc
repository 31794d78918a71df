// gradcheck: reverse-mode gradients against central differences. Called by users, `bp gradcheck` and the op table's
// tests.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "bp/rng.h"

namespace bp {

namespace {

using Values = std::vector<double>;

void check_inputs(const std::vector<Tensor>& inputs) {
  bool any = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const DType t = inputs[i].dtype();
    any |= t == DType::f64;
    if (is_float(t) && t != DType::f64)
      fail(ErrorKind::dtype, "[gradcheck] input {} is {}: expected f64, differences of {} prove nothing", i,
           inputs[i].type().str(), name_of(t));
  }
  if (!any) fail(ErrorKind::dtype, "[gradcheck] expected at least one f64 input");
}

// Weights of magnitude 0.5 to 1.5 and random sign: none so small that it hides an element.
Values projection(std::int64_t n, std::uint64_t seed, std::size_t output) {
  Rng rng(Key(seed).fold(output));
  Values w(static_cast<std::size_t>(n));
  for (double& v : w) {
    const double u = rng.uniform();
    v = u < 0.5 ? u - 1.5 : u;
  }
  return w;
}

class Checker {
 public:
  Checker(const Function& f, const std::vector<Tensor>& inputs, const GradcheckOptions& options)
      : f_(f), options_(options) {
    for (const Tensor& x : inputs) inputs_.push_back(watch(x));
  }

  GradcheckResult run() const {
    const std::vector<Tensor> gradients = analytic(inputs_);
    evaluate(gradients);
    GradcheckResult result;
    for (std::size_t i = 0, g = 0; i < inputs_.size(); ++i) {
      if (inputs_[i].dtype() != DType::f64) continue;
      const Values a = gradients[g++].to_vector<double>();
      for (std::size_t e = 0; e < a.size(); ++e) compare(result, i, e, a[e], numeric(i, e));
    }
    result.ok = result.worst <= 1;
    return result;
  }

  // J^T w for the fixed projection w, one an f64 input, as a function that can be differentiated again.
  std::vector<Tensor> analytic(std::span<const Tensor> xs) const {
    std::vector<Tensor> ys, ws, targets;
    const std::vector<Tensor> outputs = f_(xs);
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      if (!is_float(outputs[k].dtype())) continue;
      if (outputs[k].dtype() != DType::f64)
        fail(ErrorKind::dtype, "[gradcheck] output {} is {}: expected f64", k, outputs[k].type().str());
      ys.push_back(outputs[k]);
      ws.push_back(Tensor::from(projection(outputs[k].numel(), options_.seed, k), outputs[k].shape()));
    }
    for (const Tensor& x : xs)
      if (x.dtype() == DType::f64) targets.push_back(x);
    return vjp(ys, targets, ws);
  }

 private:
  std::vector<Values> outputs_at(std::size_t input, std::size_t element, double value) const {
    std::vector<Tensor> xs = inputs_;
    Values moved = xs[input].to_vector<double>();
    moved[element] = value;
    xs[input] = watch(Tensor::from(moved, xs[input].shape()));
    const std::vector<Tensor> ys = f_(xs);
    evaluate(ys);
    std::vector<Values> out;
    for (const Tensor& y : ys) out.push_back(y.dtype() == DType::f64 ? y.to_vector<double>() : Values());
    return out;
  }

  // The differences are taken output by output before they are summed: a large sum would swallow them.
  double numeric(std::size_t input, std::size_t element) const {
    const double x = inputs_[input].data<double>()[element];
    const double h = options_.eps * std::max(1.0, std::fabs(x));
    const volatile double above = x + h, below = x - h;  // what is representable, not what was asked for
    const auto high = outputs_at(input, element, above), low = outputs_at(input, element, below);
    double sum = 0;
    for (std::size_t k = 0; k < high.size(); ++k) {
      const Values w = projection(static_cast<std::int64_t>(high[k].size()), options_.seed, k);
      for (std::size_t j = 0; j < w.size(); ++j) sum += w[j] * (high[k][j] - low[k][j]);
    }
    return sum / (above - below);
  }

  void compare(GradcheckResult& r, std::size_t input, std::size_t element, double a, double n) const {
    const double tolerance = options_.atol + options_.rtol * std::max(std::fabs(a), std::fabs(n));
    const bool finite = std::isfinite(a) && std::isfinite(n);
    const double off = finite ? std::fabs(a - n) / tolerance : std::numeric_limits<double>::infinity();
    if (r.input >= 0 && off <= r.worst) return;
    r.worst = off;
    r.input = static_cast<int>(input);
    r.element = static_cast<std::int64_t>(element);
    r.analytic = a;
    r.numeric = n;
  }

  const Function& f_;
  const GradcheckOptions& options_;
  std::vector<Tensor> inputs_;
};

}  // namespace

std::string GradcheckResult::str() const {
  if (input < 0) return "no elements to check";
  return fmt::format("input {}, element {}: analytic {:.12g}, numeric {:.12g} ({} order, {:.3g} times the tolerance)",
                     input, element, analytic, numeric, order == 1 ? "first" : "second", worst);
}

GradcheckResult gradcheck(const Function& f, const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  check_inputs(inputs);
  if (!(options.eps > 0) || !(options.atol >= 0) || !(options.rtol >= 0))
    fail(ErrorKind::value, "[gradcheck] expected eps > 0, atol >= 0 and rtol >= 0, got {}, {} and {}", options.eps,
         options.atol, options.rtol);
  const Checker first(f, inputs, options);
  GradcheckResult result = first.run();
  if (!options.second_order) return result;
  const Function gradient = [&](std::span<const Tensor> xs) { return first.analytic(xs); };
  GradcheckOptions again = options;
  again.seed = Key(options.seed).fold("second order").value;
  GradcheckResult second = Checker(gradient, inputs, again).run();
  second.order = 2;
  return second.worst > result.worst ? second : result;
}

GradcheckResult gradcheck(const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
                          const GradcheckOptions& options) {
  return gradcheck([&](std::span<const Tensor> xs) { return std::vector<Tensor>{f(xs[0])}; }, std::vector<Tensor>{x},
                   options);
}

}  // namespace bp

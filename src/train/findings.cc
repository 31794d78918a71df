// Figures of a trained model.
#include "train/findings.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bp/ops.h"

namespace bp::train {

namespace {

constexpr std::int64_t kRows = 10000, kClasses = 200, kWorst = 12, kBins = 24;

std::vector<double> numbers(const Array& a) {
  const Array wide = convert(a, DType::f64);
  return {wide.data<double>(), wide.data<double>() + wide.numel()};
}

std::int64_t likeliest(const double* p, std::int64_t n) { return std::max_element(p, p + n) - p; }

// -sum t log softmax(logits); a class id is a t of one 1.
double cross_entropy_at(const double* logits, const double* target, std::int64_t id, std::int64_t classes) {
  const double top = *std::max_element(logits, logits + classes);
  double sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(logits[k] - top);
  const double log_sum = top + std::log(sum);
  if (target == nullptr) return log_sum - logits[id];
  double loss = 0;
  for (std::int64_t k = 0; k < classes; ++k) loss += target[k] * (log_sum - logits[k]);
  return loss;
}

class Examiner {
 public:
  Examiner(const Config& c, Findings& f) : c_(c), f_(f) {}

  void batch(std::int64_t first, const Array& output, const Array& target) {
    const std::vector<double> y = numbers(output), t = numbers(target);
    const std::int64_t rows = target.rows();
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t width = output.numel() / rows, targets = target.numel() / rows;
      const double* out = y.data() + i * width;
      const double* wanted = t.data() + i * targets;
      keep(c_.task == Task::classification ? classified(first + i, out, wanted, width, is_float(target.dtype))
                                           : Mistake{first + i, c_.task == Task::binary ? binary(out, wanted, width)
                                                                                        : squared(out, wanted, width)});
    }
  }

 private:
  // A row of one or more predictions, [.., classes].
  Mistake classified(std::int64_t row, const double* out, const double* wanted, std::int64_t width, bool shares) {
    const std::int64_t classes = c_.output.back(), places = width / classes;
    Mistake m{row};
    for (std::int64_t p = 0; p < places; ++p) {
      const double* logits = out + p * classes;
      const double* target = shares ? wanted + p * classes : nullptr;
      const std::int64_t id = shares ? likeliest(target, classes) : static_cast<std::int64_t>(wanted[p]);
      const std::int64_t best = likeliest(logits, classes);
      m.loss += cross_entropy_at(logits, target, id, classes) / static_cast<double>(places);
      if (!f_.confusion.empty()) ++f_.confusion[static_cast<std::size_t>(id * classes + best)];
      if (places == 1) {
        m.target = id;
        m.output = best;
      }
    }
    return m;
  }
  static double binary(const double* out, const double* wanted, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i)
      sum += std::max(out[i], 0.0) - out[i] * wanted[i] + std::log1p(std::exp(-std::abs(out[i])));
    return sum / static_cast<double>(n);
  }
  static double squared(const double* out, const double* wanted, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += (out[i] - wanted[i]) * (out[i] - wanted[i]);
    return sum / static_cast<double>(n);
  }
  void keep(const Mistake& m) {
    const auto worse = [](const Mistake& a, const Mistake& b) { return a.loss > b.loss; };
    f_.worst.insert(std::upper_bound(f_.worst.begin(), f_.worst.end(), m, worse), m);
    if (f_.worst.size() > kWorst) f_.worst.pop_back();
  }
  const Config& c_;
  Findings& f_;
};

ParameterFigures figures_of(const Variable& v, const Tensor& gradient) {
  const std::vector<double> x = v.get().to_vector<double>();
  ParameterFigures f{.name = v.name(), .shape = v.shape()};
  const auto n = static_cast<double>(std::max<std::size_t>(1, x.size()));
  double squares = 0, spread = 0;
  for (const double value : x) {
    f.mean += value / n;
    squares += value * value;
    f.largest = std::max(f.largest, std::abs(value));
    f.zeros += value == 0 ? 1 / n : 0;
  }
  for (const double value : x) spread += (value - f.mean) * (value - f.mean);
  f.norm = std::sqrt(squares);
  f.stddev = std::sqrt(spread / n);
  squares = 0;
  for (const double g : gradient.to_vector<double>()) squares += g * g;
  f.gradient_norm = std::sqrt(squares);
  f.histogram.assign(kBins, 0);
  if (x.empty()) return f;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  for (const double value : x) {
    const double place = *high > *low ? (value - *low) / (*high - *low) * kBins : 0;
    if (std::isfinite(place)) f.histogram[static_cast<std::size_t>(std::clamp(place, 0.0, kBins - 1.0))] += 1;
  }
  return f;
}

}  // namespace

Findings examine(const Config& c, const nn::Sequential& model, const data::Source& set, const std::string& split) {
  Findings f{.split = split, .rows = std::min(kRows, set.size()), .of = set.size()};
  if (c.task == Task::classification) f.classes = c.output.back();
  if (f.classes > 0 && f.classes <= kClasses) f.confusion.assign(static_cast<std::size_t>(f.classes * f.classes), 0);
  auto step = compile([&](const Tensor& x) { return model(x); },
                      {.mode = Mode::eval, .threads = c.train.threads, .name = "examination"});
  detail::CompiledStep gradient([&](std::span<const Tensor> in) { return grad(c.loss(model(in[0]), in[1]), model); },
                                {.mode = Mode::eval, .threads = c.train.threads, .name = "gradients of a batch"});
  Examiner examiner(c, f);
  for (std::int64_t at = 0; at < f.rows; at += c.eval_batch) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(c.eval_batch, f.rows - at)));
    std::iota(rows.begin(), rows.end(), at);
    const data::Batch batch = set.fetch(rows, Key{});
    const std::array<Tensor, 2> in{to_tensor(batch.x), to_tensor(batch.y)};
    examiner.batch(at, to_array(step(in[0])), batch.y);
    if (at != 0) continue;
    const std::vector<Variable> parameters = nn::parameters(model);
    const std::vector<Tensor> gradients = gradient.call(in);
    for (std::size_t i = 0; i < parameters.size(); ++i) f.parameters.push_back(figures_of(parameters[i], gradients[i]));
  }
  return f;
}

}  // namespace bp::train

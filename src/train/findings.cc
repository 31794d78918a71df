// Figures of a trained model.
#include "train/findings.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bp/ops.h"

namespace bp::train {

namespace {

constexpr std::int64_t kRows = 10000, kClasses = 200, kWorst = 12, kBins = 24;

// [rows, ..] as [rows].
Tensor row_means(const Tensor& x) {
  Axes rest;
  for (int axis = 1; axis < x.rank(); ++axis) rest.push_back(axis);
  return rest.empty() ? x : mean(x, rest);
}

// Cross entropy, or squared error, of each row.
Tensor row_losses(Task task, const Tensor& output, const Tensor& target) {
  if (task == Task::classification) return row_means(cross_entropy(output, target, {.reduction = Reduction::none}));
  return row_means(task == Task::binary ? binary_cross_entropy(output, target, Reduction::none)
                                        : squared_error(output, target, Reduction::none));
}

// Label k of each row as two classes, its logit against 0.
void count_label(metrics::ConfusionMatrix& to, const Array& output, const Array& target, std::int64_t k) {
  const Array logits = convert(output, DType::f64), labels = convert(target, DType::f64);
  const std::int64_t rows = output.rows(), width = output.numel() / rows;
  std::vector<double> scores;
  std::vector<std::int64_t> ids;
  for (std::int64_t at = k; at < rows * width; at += width) {
    scores.insert(scores.end(), {0.0, logits.data<double>()[at]});
    ids.push_back(labels.data<double>()[at] > 0.5 ? 1 : 0);
  }
  to.add(Array::from(scores, {rows, 2}), Array::from(ids, {rows}));
}

class Examiner {
 public:
  Examiner(const Config& c, Findings& f) : task_(c.task), f_(f) {
    const bool classes = c.task == Task::classification;
    const std::int64_t width = classes ? c.output.back() : c.output.numel();
    if (c.task == Task::regression || width > kClasses) return;
    f.confusion.assign(classes ? 1 : static_cast<std::size_t>(width), metrics::ConfusionMatrix(classes ? width : 2));
  }

  void batch(std::int64_t first, const Array& output, const Array& losses, const Array& target) {
    const bool classes = task_ == Task::classification;
    if (classes && !f_.confusion.empty()) f_.confusion[0].add(output, target);
    for (std::size_t k = 0; !classes && k < f_.confusion.size(); ++k)
      count_label(f_.confusion[k], output, target, static_cast<std::int64_t>(k));
    std::vector<std::int64_t> outputs, targets;
    if (classes) {
      outputs = metrics::predicted_classes(output);
      targets = metrics::target_classes(target, output.shape.back());
    }
    const Array wide = convert(losses, DType::f64);
    for (std::int64_t i = 0; i < losses.numel(); ++i) {
      Mistake m{first + i, wide.data<double>()[i]};
      const auto k = static_cast<std::size_t>(i);
      if (static_cast<std::int64_t>(outputs.size()) == losses.numel()) {  // a row has one class
        m.target = targets[k];
        m.output = outputs[k];
      }
      keep(m);
    }
  }

 private:
  void keep(const Mistake& m) {
    const auto worse = [](const Mistake& a, const Mistake& b) { return a.loss > b.loss; };
    f_.worst.insert(std::upper_bound(f_.worst.begin(), f_.worst.end(), m, worse), m);
    if (f_.worst.size() > kWorst) f_.worst.pop_back();
  }
  Task task_;
  Findings& f_;
};

bool can_saturate(const nn::Layer& layer) {
  constexpr std::string_view kKinds[] = {"relu",       "relu6", "tanh",     "sigmoid",  "hard_sigmoid", "hard_tanh",
                                         "hard_swish", "silu",  "mish",     "gelu",     "gelu_tanh",    "elu",
                                         "selu",       "celu",  "softsign", "softplus", "log_sigmoid"};
  return std::find(std::begin(kKinds), std::end(kKinds), layer.kind()) != std::end(kKinds);
}

// Runs x through the layers and notes of each that can saturate the share of values, and the units (a scalar each).
void walk_activations(nn::Sequential& layers, Tensor x, std::vector<ActivationFigures>& figures,
                      std::vector<Tensor>& measured) {
  constexpr double kPassed = 0.02;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    nn::Layer& layer = layers[i];
    const Tensor y = layer(x);
    if (auto* residual = dynamic_cast<nn::Residual*>(&layer)) walk_activations(residual->inner(), x, figures, measured);
    if (can_saturate(layer) && y.rank() >= 2) {
      const Tensor low = cast(abs(grad(sum(y), x)) < kPassed, f32);
      Axes rows;
      for (int axis = 0; axis + 1 < y.rank(); ++axis) rows.push_back(axis);
      figures.push_back({.path = layer.path(), .kind = layer.kind(), .units = y.shape().back()});
      measured.push_back(mean(low));
      measured.push_back(sum(min(low, rows)));
    }
    x = y;
  }
}

std::vector<ActivationFigures> activations_of(const Config& c, nn::Sequential& model, const Tensor& x) {
  std::vector<ActivationFigures> figures;
  detail::CompiledStep step(
      [&](std::span<const Tensor> in) {
        std::vector<Tensor> measured{sum(cast(in[0], f32))};  // a step has a result
        figures.clear();
        walk_activations(model, in[0], figures, measured);
        return measured;
      },
      {.mode = Mode::eval, .threads = c.train.threads, .name = "activations"});
  const std::vector<Tensor> measured = step.call({&x, 1});
  for (std::size_t i = 0; i < figures.size(); ++i) {
    figures[i].saturated = measured[1 + 2 * i].item();
    figures[i].dead = std::llround(measured[2 + 2 * i].item());
  }
  return figures;
}

ParameterFigures figures_of(const Variable& v) {
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
  f.histogram.assign(kBins, 0);
  if (x.empty()) return f;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  for (const double value : x) {
    const double place = *high > *low ? (value - *low) / (*high - *low) * kBins : 0;
    if (std::isfinite(place)) f.histogram[static_cast<std::size_t>(std::clamp(place, 0.0, kBins - 1.0))] += 1;
  }
  return f;
}

double norm_of(const Tensor& x) {
  double squares = 0;
  for (const double g : x.to_vector<double>()) squares += g * g;
  return std::sqrt(squares);
}

}  // namespace

Findings examine_parameters(const nn::Sequential& model) {
  Findings f;
  for (const Variable& v : nn::parameters(model)) f.parameters.push_back(figures_of(v));
  return f;
}

Findings examine(const Config& c, nn::Sequential& model, const data::Source& set, const std::string& split) {
  Findings f = examine_parameters(model);
  f.split = split;
  f.rows = std::min(kRows, set.size());
  f.of = set.size();
  detail::CompiledStep step(
      [&](std::span<const Tensor> in) {
        const Tensor output = model(in[0]);
        return std::vector<Tensor>{output, row_losses(c.task, output, in[1])};
      },
      {.mode = Mode::eval, .threads = c.train.threads, .name = "examination"});
  detail::CompiledStep gradient([&](std::span<const Tensor> in) { return grad(c.loss(model(in[0]), in[1]), model); },
                                {.mode = Mode::eval, .threads = c.train.threads, .name = "gradients of a batch"});
  Examiner examiner(c, f);
  for (std::int64_t at = 0; at < f.rows; at += c.eval_batch) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(c.eval_batch, f.rows - at)));
    std::iota(rows.begin(), rows.end(), at);
    const data::Batch batch = set.fetch(rows, Key{});
    const std::array<Tensor, 2> in{to_tensor(batch.x), to_tensor(batch.y)};
    const std::vector<Tensor> results = step.call(in);
    examiner.batch(at, to_array(results[0]), to_array(results[1]), batch.y);
    if (at != 0) continue;
    const std::vector<Tensor> gradients = gradient.call(in);
    for (std::size_t i = 0; i < gradients.size(); ++i) f.parameters[i].gradient_norm = norm_of(gradients[i]);
    f.activations = activations_of(c, model, in[0]);
  }
  return f;
}

}  // namespace bp::train

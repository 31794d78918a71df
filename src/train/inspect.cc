// Listing a model, and checking its gradient against finite differences.
#include "train/inspect.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::train {

namespace {

Shape batched(std::int64_t n, const Shape& sample) {
  Shape shape{n};
  for (int i = 0; i < sample.rank(); ++i) shape.push_back(sample[i]);
  return shape;
}

double flops_of(const nn::Layer& layer, const Shape& in, DType dtype) {
  auto step = compile([&layer](const Tensor& x) { return layer(x); }, {.threads = 1, .name = layer.kind()});
  return step.prepare({Type{dtype, in}}).flops;
}

void add_rows(std::vector<LayerRow>& rows, nn::Sequential& layers, Shape in, DType dtype, int depth) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    nn::Layer& layer = layers[i];
    LayerRow row{.path = layer.path(), .what = layer.describe(), .depth = depth};
    row.flops = flops_of(layer, in, dtype);
    const Shape before = in;
    in = layer.output_shape(in);
    row.output = in;
    row.output.erase(0);
    for (const Variable& v : nn::detail::parameters([&](nn::Visitor& visitor) { layer.visit("", visitor); }))
      row.parameters += v.shape().numel();
    rows.push_back(row);
    if (auto* residual = dynamic_cast<nn::Residual*>(&layer))
      add_rows(rows, residual->inner(), before, dtype, depth + 1);
    const ModeScope eval(Mode::eval);
    dtype = layer(zeros(before, dtype)).dtype();  // records only; ids become values on the way
  }
}

// Evaluates the loss with everything but the parameters as it was at the beginning.
class LossOf {
 public:
  LossOf(const Config& config, nn::Sequential& model, const data::Batch& batch)
      : x_(to_tensor(batch.x)),
        y_(to_tensor(batch.y)),
        step_([&config, &model](
                  std::span<const Tensor> in) -> std::vector<Tensor> { return {config.loss(model(in[0]), in[1])}; },
              {.mode = Mode::train, .name = "loss"}),
        grad_(
            [&config, &model](std::span<const Tensor> in) -> std::vector<Tensor> {
              return grad(config.loss(model(in[0]), in[1]), model);
            },
            {.mode = Mode::train, .name = "gradient"}) {
    for (nn::NamedVariable& v : nn::state(model)) {
      if (v.variable.trainable()) continue;
      at_first_.push_back(
          Tensor::from_buffer(v.variable.get().buffer().clone(), v.variable.dtype(), v.variable.shape()));
      others_.push_back(v.variable.alias());
    }
  }
  double value() { return run(step_)[0].item(); }
  std::vector<Tensor> gradient() { return run(grad_); }

 private:
  std::vector<Tensor> run(detail::CompiledStep& step) {
    assign(others_, at_first_);
    const std::array<Tensor, 2> in{x_, y_};
    return step.call(in);
  }
  Tensor x_, y_;
  detail::CompiledStep step_, grad_;
  std::vector<Variable> others_;
  std::vector<Tensor> at_first_;
};

void move_vectors(const std::vector<Variable>& parameters, std::uint64_t seed) {
  Rng rng(Key{seed}.fold("gradcheck"));
  for (const Variable& v : parameters) {
    if (v.shape().rank() > 1) continue;
    std::vector<double> values = v.get().to_vector<double>();
    for (double& x : values) x += 0.1 * rng.normal();
    v.alias().set(Tensor::from(values, v.shape()));
  }
}

ParameterCheck check_parameter(LossOf& loss, const Variable& p, const Tensor& gradient, const CheckOptions& options,
                               std::uint64_t seed) {
  const GradcheckOptions& tolerance = options.tolerance;
  ParameterCheck check{.name = p.name(), .elements = p.shape().numel()};
  const std::vector<double> analytic = gradient.to_vector<double>(), start = p.get().to_vector<double>();
  std::vector<std::int64_t> order = data::permutation(check.elements, Key{seed}.fold(p.name()));
  order.resize(static_cast<std::size_t>(std::min(check.elements, options.elements)));
  Variable variable = p.alias();
  const auto loss_at = [&](std::size_t k, double value) {
    std::vector<double> values = start;
    values[k] = value;
    variable.set(Tensor::from(values, p.shape()));
    return loss.value();
  };
  check.worst.worst = -1;
  for (const std::int64_t element : order) {
    const auto k = static_cast<std::size_t>(element);
    const double h = tolerance.eps * std::max(1.0, std::abs(start[k]));
    const double a = analytic[k], n = (loss_at(k, start[k] + h) - loss_at(k, start[k] - h)) / (2 * h);
    const double allowed = tolerance.atol + tolerance.rtol * std::max(std::abs(a), std::abs(n));
    const double error = std::isfinite(a) && std::isfinite(n) ? std::abs(a - n) / allowed : INFINITY;
    ++check.checked;
    if (error <= check.worst.worst) continue;
    check.worst = {.ok = error <= 1, .worst = error, .input = 0, .element = element, .analytic = a, .numeric = n};
  }
  variable.set(Tensor::from(start, p.shape()));
  return check;
}

}  // namespace

std::vector<LayerRow> layer_rows(nn::Sequential& model, const Shape& input, DType dtype) {
  std::vector<LayerRow> rows;
  add_rows(rows, model, batched(1, input), dtype, 0);
  return rows;
}

namespace {

// f(trainer, types of a training batch).
template <class F> auto with_trainer(const Config& config, F&& f) {
  nn::Sequential model = config.make_model();
  const std::unique_ptr<optim::Optimizer> optimizer = config.optimizer(nn::parameters(model));
  const bool ids =
      config.task == Task::classification && config.root.find("loss")->find("type")->text == "cross_entropy";
  Shape target = config.output;
  if (ids) target.erase(target.rank() - 1);
  Trainer trainer(model, config.loss, *optimizer, config.train);
  return f(trainer, Type{config.input_dtype(), batched(config.batch, config.input)},
           Type{ids ? DType::i64 : config.dtype, batched(config.batch, target)});
}

}  // namespace

Costs costs_of(const Config& config) {
  return with_trainer(config, [&](Trainer& trainer, const Type& x, const Type& y) {
    return Costs{nn::parameter_count(config.model), trainer.step_info(x, y)};
  });
}

std::int64_t largest_batch(const Config& config, std::size_t bytes) {
  return with_trainer(
      config, [&](Trainer& trainer, const Type& x, const Type& y) { return trainer.largest_batch(x, y, bytes); });
}

std::vector<ParameterCheck> check_gradients(const Config& config, const data::Batch& batch,
                                            const CheckOptions& options) {
  nn::Sequential model = config.make_model(DType::f64);
  const std::vector<Variable> parameters = nn::parameters(model);
  move_vectors(parameters, config.seed);
  const Array y = is_float(batch.y.dtype) ? convert(batch.y, DType::f64) : batch.y;
  const Array x = is_float(batch.x.dtype) ? convert(batch.x, DType::f64) : batch.x;
  LossOf loss(config, model, {x, y});
  const std::vector<Tensor> gradients = loss.gradient();
  std::vector<ParameterCheck> checks;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    checks.push_back(check_parameter(loss, parameters[i], gradients[i], options, config.seed));
  return checks;
}

}  // namespace bp::train

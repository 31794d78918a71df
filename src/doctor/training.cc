// The shared loop of the experiments of bp cures.
#include "doctor/training.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bp/compile.h"
#include "bp/ops.h"

namespace bp::doctor {

namespace {
Model model_of(const nn::Sequential& net, const Model& given) {
  return given ? given : [&net](const Tensor& x) { return net(x); };
}
}  // namespace

double History::final_loss() const {
  if (!finite || losses.empty()) return std::numeric_limits<double>::quiet_NaN();
  const std::size_t n = std::min<std::size_t>(20, losses.size());
  return std::accumulate(losses.end() - static_cast<std::ptrdiff_t>(n), losses.end(), 0.0) / static_cast<double>(n);
}

History train(nn::Sequential& net, optim::Optimizer& optimizer, std::shared_ptr<const data::Source> source,
              const Plan& plan) {
  const Model model = model_of(net, plan.model);
  auto step = compile(
      [&](const Tensor& x, const Tensor& y) {
        const Tensor logits = model(x);
        const Tensor loss = plan.loss ? plan.loss(logits, y) : cross_entropy(logits, y);
        const std::vector<Tensor> grads = grad(loss, net);
        optimizer.update(grads);
        return std::pair{loss, optim::global_norm(grads)};
      },
      {.mode = Mode::train, .threads = 1});
  data::DataLoader loader(std::move(source), {.batch_size = plan.batch, .key = plan.key});
  History h;
  for (int epoch = 0; epoch < plan.epochs; ++epoch) {
    for (auto& [x, y] : loader) {
      if (plan.rate) optimizer.set_lr(plan.rate(static_cast<std::int64_t>(h.losses.size())));
      const auto [loss, norm] = step(x, y);
      const double value = loss.item();
      if (const double n = norm.item(); std::isfinite(n)) h.largest_norm = std::max(h.largest_norm, n);
      if (!std::isfinite(value)) {
        h.finite = false;
        return h;
      }
      h.losses.push_back(value);
    }
    if (plan.after_epoch) plan.after_epoch(epoch + 1);
  }
  return h;
}

History train(nn::Sequential& net, optim::Optimizer& optimizer, const data::ArrayDataset& data, const Plan& plan) {
  return train(net, optimizer, std::make_shared<data::ArrayDataset>(data), plan);
}

Score score(const nn::Sequential& net, const data::ArrayDataset& data, const Model& given) {
  const Model model = model_of(net, given);
  auto step = compile(
      [&](const Tensor& x, const Tensor& y) {
        const Tensor logits = cast(model(x), f32);
        return std::pair{sum(cast(equal(argmax(logits), y), f32)),
                         cross_entropy(logits, y, {.reduction = Reduction::sum})};
      },
      {.threads = 1});
  data::DataLoader loader(data, {.batch_size = 500, .shuffle = false});
  double right = 0, loss = 0;
  for (auto& [x, y] : loader) {
    const auto [r, l] = step(x, y);
    right += r.item();
    loss += l.item();
  }
  const auto n = static_cast<double>(data.size());
  return {100 * right / n, loss / n};
}

void put_curve(Outcome& outcome, const std::vector<double>& losses) {
  const std::size_t run = std::max<std::size_t>(1, losses.size() / 60);
  for (std::size_t start = 0; start + run <= losses.size(); start += run) {
    double total = 0;
    for (std::size_t i = start; i < start + run; ++i) total += losses[i];
    outcome.x.push_back(static_cast<double>(start + run));
    outcome.y.push_back(total / static_cast<double>(run));
  }
}

nn::Sequential dense(const std::vector<std::int64_t>& widths, const Initializer& weights,
                     const std::function<std::unique_ptr<nn::Layer>()>& activation) {
  nn::Sequential net;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    net.add(nn::Linear(widths[i], widths[i + 1], {.weight_init = weights}));
    if (i + 2 < widths.size()) net.push("", activation());
  }
  return net;
}

}  // namespace bp::doctor

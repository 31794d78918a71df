// The compiled steps of a Trainer and a batch's way through them.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"
#include "train/trainer_impl.h"

namespace bp::train {

namespace {

// `loss`, or NaN when a gradient is not finite: then the step's guard keeps every Variable as it is.
Tensor spoilt_by(const std::vector<Tensor>& gradients, const Tensor& loss) {
  const Scope scope("check_gradients");
  Tensor total = zeros(Shape{}, loss.dtype());
  for (const Tensor& g : gradients) total = total + cast(sum(g), loss.dtype());
  return select(isfinite(total), loss, full(Shape{}, std::numeric_limits<double>::quiet_NaN(), loss.dtype()));
}

}  // namespace

// The first value of the result is the loss, looked at by the step's guard.
std::vector<Tensor> Trainer::Impl::update_step(std::span<const Tensor> in) {
  const Tensor output = forward(in[0]);
  Tensor value = loss(output, in[1]);
  std::vector<Tensor> gradients = grad(value, optimizer.parameters());
  if (options.check_gradients) value = spoilt_by(gradients, value);
  for (std::size_t i = 0; i < gathered.size(); ++i) {
    const Tensor sum = gathered[i].get();
    gradients[i] = sum + cast(in[2], sum.dtype()) * cast(gradients[i], sum.dtype());
    gathered[i].set(zeros(sum.shape(), sum.dtype()));
  }
  optimizer.update(gradients);
  if (averages && options.ema > 0) averages->follow(optimizer.step.get(), options.ema);
  return batch_results(options.task, value, output, in[1]);
}

std::vector<Tensor> Trainer::Impl::add_gradients(std::span<const Tensor> in) {
  const Tensor output = forward(in[0]);
  Tensor value = loss(output, in[1]);
  const std::vector<Tensor> gradients = grad(value, optimizer.parameters());
  if (options.check_gradients) value = spoilt_by(gradients, value);
  for (std::size_t i = 0; i < gathered.size(); ++i) {
    const Tensor sum = gathered[i].get();
    gathered[i].set(sum + cast(in[2], sum.dtype()) * cast(gradients[i], sum.dtype()));
  }
  return batch_results(options.task, value, output, in[1]);
}

void Trainer::Impl::set_rate() {
  double rate = run.lr;
  if (options.schedule) {
    rate = run.rate_scale * options.schedule(options.schedule_by_epoch ? run.epoch : run.step);
  } else if (plateau) {
    rate = run.rate_scale * plateau->rate();
  } else {
    run.lr = optimizer.lr.get().item();
    return;
  }
  if (rate != run.lr || run.step == 0) optimizer.set_lr(rate);
  run.lr = rate;
}

// Batches of the update that batch `batch` of an epoch belongs to.
std::int64_t Trainer::Impl::group_size(std::int64_t batch, std::int64_t batches) const {
  return std::min(options.accumulate, batches - batch / options.accumulate * options.accumulate);
}

bool Trainer::Impl::ends_group(std::int64_t batch, std::int64_t batches) const {
  return (batch + 1) % options.accumulate == 0 || batch + 1 == batches;
}

std::optional<Divergence> Trainer::Impl::train_batch(const data::Batch& batch, std::int64_t batches) {
  if (!batch.y.buffer) fail(ErrorKind::value, "[train] the data have no targets");
  std::vector<Tensor> in{to_tensor(batch.x), to_tensor(batch.y)};
  if (!gathered.empty()) in.push_back(scalar(1.0 / static_cast<double>(group_size(run.batch, batches)), f64));
  const bool updates = ends_group(run.batch, batches);
  if (updates) set_rate();
  Step& step = updates ? train_step : gather_step;
  const std::vector<Tensor> results = step.call(in);
  const double value = results[0].item();
  if (!std::isfinite(value))
    return Divergence{fmt::format("the loss{} became {}", options.check_gradients ? " or a gradient" : "", value),
                      options.rollbacks > run.rollbacks ? std::string() : cause_of(step, in)};
  if (value > options.max_loss)
    return Divergence{fmt::format("the loss became {}, above max_loss {}", value, options.max_loss), ""};
  accumulate(run.sums, options.task, results, batch.y);
  run.batch = std::min(run.batch + 1, batches);
  run.step += updates;
  return std::nullopt;
}

std::string Trainer::Impl::cause_of(Step& step, std::span<const Tensor> in) {
  std::string found = step.diagnose(in);
  if (found.empty()) return "The reference kernels find finite values only: an overflow of the fast ones.";
  if (not_finite_state())
    found +=
        "\n  A gradient of an earlier step was not finite while its loss was. The same run with check_gradients stops "
        "there and names the operation.";
  return found;
}

// Running statistics belong to the weights that made them. Forward passes in training mode: first until nothing is left
// of the old ones (0.9^50 = 0.5%), then an epoch over which they are averaged.
void Trainer::Impl::refresh_statistics(data::DataLoader& loader) {
  constexpr std::int64_t kForget = 50;
  Averages statistics(floats_of(walk, Floats::statistics));
  if (statistics.state().empty()) return;
  Step pass([this](std::span<const Tensor> in) { return std::vector<Tensor>{sum(forward(in[0]))}; },
            {.mode = Mode::train, .threads = options.threads, .name = "statistics step"});
  const auto epoch = [&](auto&& after_batch) {
    while (const std::optional<data::Batch> batch = loader.next()) {
      const std::array<Tensor, 1> in{to_tensor(batch->x)};
      pass.call(in);
      after_batch();
    }
  };
  loader.restore({});
  for (std::int64_t done = 0; done < kForget;) epoch([&] { ++done; });
  std::int64_t n = 0;
  epoch([&] { statistics.add(++n); });
  statistics.swap();
}

}  // namespace bp::train

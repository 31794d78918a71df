// What a Trainer finds out before training: a learning rate, the largest batch.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/ops.h"
#include "train/trainer_impl.h"

namespace bp::train {

namespace {

void check_search(const RateSearchOptions& o) {
  if (!(o.low > 0 && o.low < o.high && std::isfinite(o.high)))
    fail(ErrorKind::value, "[find_rate] expected 0 < low < high, got {} and {}", o.low, o.high);
  if (o.steps < 3) fail(ErrorKind::value, "[find_rate] steps: expected 3 or more, got {}", o.steps);
  if (!(o.smoothing >= 0 && o.smoothing < 1))
    fail(ErrorKind::value, "[find_rate] smoothing: expected 0 or more, below 1, got {}", o.smoothing);
  if (!(o.stop_factor > 1)) fail(ErrorKind::value, "[find_rate] stop_factor: expected above 1, got {}", o.stop_factor);
}

// Where the smoothed loss falls fastest against the logarithm of the rate, over a fifth of the steps, before its least
// value; 0 where it never falls. Neighbours would tell the noise of two batches.
double steepest(const RateSearch& s, std::int64_t steps) {
  const auto least = std::min_element(s.losses.begin(), s.losses.end()) - s.losses.begin();
  const std::ptrdiff_t reach = std::max<std::ptrdiff_t>(1, steps / 10);
  double slope = 0, rate = 0;
  for (std::ptrdiff_t i = reach; i + reach <= least; ++i) {
    const auto low = static_cast<std::size_t>(i - reach), high = static_cast<std::size_t>(i + reach);
    const double d = (s.losses[high] - s.losses[low]) / std::log(s.rates[high] / s.rates[low]);
    if (d >= slope) continue;
    slope = d;
    rate = s.rates[static_cast<std::size_t>(i)];
  }
  return rate;
}

// Puts everything back, also after an exception.
class PutBack {
 public:
  PutBack(std::vector<nn::NamedVariable> state, data::DataLoader& loader) : loader_(loader), place_(loader.state()) {
    for (nn::NamedVariable& v : state) {
      values_.push_back(v.variable.get());
      variables_.push_back(v.variable.alias());
    }
  }
  ~PutBack() {
    assign(variables_, values_);
    loader_.restore(place_);
  }
  PutBack(const PutBack&) = delete;
  PutBack& operator=(const PutBack&) = delete;

 private:
  data::DataLoader& loader_;
  data::LoaderState place_;
  std::vector<Variable> variables_;
  std::vector<Tensor> values_;
};

}  // namespace

RateSearch Trainer::find_rate(data::DataLoader& loader, const RateSearchOptions& options) {
  check_search(options);
  Impl& t = *impl_;
  t.show_averages(false);
  t.check_targets(loader, "training labels");
  std::vector<nn::NamedVariable> state = t.everything();
  for (nn::NamedVariable& v : t.optimizer.state()) state.push_back(std::move(v));
  const PutBack back(std::move(state), loader);

  RateSearch found;
  double smooth = 0, weight = 0, least = std::numeric_limits<double>::infinity();
  const double growth = std::log(options.high / options.low) / static_cast<double>(options.steps - 1);
  for (std::int64_t i = 0; i < options.steps; ++i) {
    std::optional<data::Batch> batch = loader.next();
    if (!batch) batch = loader.next();  // an epoch has at least one
    std::vector<Tensor> in{to_tensor(batch->x), to_tensor(batch->y)};
    if (!t.gathered.empty()) in.push_back(scalar(1.0, f64));
    const double rate = options.low * std::exp(growth * static_cast<double>(i));
    t.optimizer.set_lr(rate);
    const double loss = t.train_step.call(in)[0].item();
    if (!std::isfinite(loss)) break;
    smooth = options.smoothing * smooth + (1 - options.smoothing) * loss;
    weight = options.smoothing * weight + (1 - options.smoothing);
    found.rates.push_back(rate);
    found.losses.push_back(smooth / weight);
    if (found.losses.back() > options.stop_factor * std::abs(least)) break;
    least = std::min(least, found.losses.back());
  }
  if (!found.losses.empty()) found.suggestion = steepest(found, options.steps);
  return found;
}

std::int64_t Trainer::largest_batch(const Type& x, const Type& y, std::size_t bytes, std::int64_t limit) {
  if (x.shape.rank() < 1 || y.shape.rank() < 1 || limit < 1)
    fail(ErrorKind::value, "[largest_batch] expected [rows, ..] twice and a limit of 1 or more, got {}, {} and {}",
         x.shape, y.shape, limit);
  const auto fits = [&](std::int64_t rows) {
    Type a = x, b = y;
    a.shape[0] = b.shape[0] = rows;
    return step_info(a, b).planned_peak_bytes <= bytes;
  };
  if (!fits(1)) return 0;
  std::int64_t good = 1, bad = 2;
  while (bad <= limit && fits(bad)) {
    good = bad;
    bad *= 2;
  }
  bad = std::min(bad, limit + 1);
  while (bad - good > 1) {
    const std::int64_t middle = good + (bad - good) / 2;
    (fits(middle) ? good : bad) = middle;
  }
  return good;
}

}  // namespace bp::train

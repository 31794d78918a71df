// Learning-rate schedules: functions of a count (of epochs or updates, from 0 on) that give a rate.
//
//   const Schedule rate = schedule::warmup(schedule::cosine(0.1, 90), 5);
//   assert(rate(0) < rate(4) && rate(5) == 0.1 && rate(95) < 1e-12);  // opt.set_lr(rate(epoch))
//
// All are PyTorch's closed forms (torch.optim.lr_scheduler). Every function throws Error(value), saying what it got,
// for a negative or non-finite rate, a factor out of its range, or a number of steps below 1.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace bp {

using Schedule = std::function<double(std::int64_t)>;  // from a count to a rate

namespace schedule {

// `rate` at all times.
Schedule constant(double rate);
// StepLR: rate * gamma^floor(t / every).
Schedule step(double rate, std::int64_t every, double gamma = 0.1);
// MultiStepLR: rate * gamma^(number of milestones <= t). Milestones ascend.
Schedule multistep(double rate, std::vector<std::int64_t> milestones, double gamma = 0.1);
// ExponentialLR: rate * gamma^t.
Schedule exponential(double rate, double gamma);
// CosineAnnealingLR (Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5): min + (rate - min) (1 + cos(pi t / steps)) / 2;
// stays at `min` from t = steps on, where PyTorch would rise again.
Schedule cosine(double rate, std::int64_t steps, double min = 0);
// PolynomialLR: rate * (1 - min(t, steps) / steps)^power.
Schedule polynomial(double rate, std::int64_t steps, double power = 1);
// LinearLR before `after` (SequentialLR): after(0) * (start + (1 - start) t / steps) for t < steps, then
// after(t - steps). Goyal et al., "Accurate, large minibatch SGD", 2017.
Schedule warmup(Schedule after, std::int64_t steps, double start = 1.0 / 3);

// OneCycleLR, two phases (Smith and Topin, "Super-convergence", 2017): from max_rate / div_factor up to max_rate at
// t = pct_start * steps - 1, then down to max_rate / (div_factor * final_div_factor) at t = steps - 1, where it stays.
struct OneCycleOptions {
  double pct_start = 0.3;         // share of the steps that go up
  bool cosine = true;             // or linear
  double div_factor = 25;         // max_rate over the first rate
  double final_div_factor = 1e4;  // the first rate over the last
};
// Throws Error(value) for steps below 1 or options out of range.
Schedule one_cycle(double max_rate, std::int64_t steps, OneCycleOptions options = {});

}  // namespace schedule

// ReduceLROnPlateau: the rate falls by `factor` once the metric has not improved for more than `patience` epochs.
struct ReduceOnPlateauOptions {
  bool maximize = false;            // whether larger metrics are better (accuracy)
  double factor = 0.1;              // in (0, 1): times the rate
  std::int64_t patience = 10;       // bad epochs that are let pass
  double threshold = 1e-4;          // what counts as an improvement: relative to the best, or absolute
  bool absolute_threshold = false;  // otherwise relative
  std::int64_t cooldown = 0;        // epochs after a reduction in which bad ones are not counted
  double min_rate = 0;              // the rate falls no lower
  double eps = 1e-8;                // a reduction smaller than this is not made
};
// Follows a metric, epoch by epoch.
class ReduceOnPlateau {
 public:
  explicit ReduceOnPlateau(double rate, ReduceOnPlateauOptions options = {});  // the first rate
  // Takes the metric of an epoch and returns the rate of the next one. NaN counts as no improvement.
  double operator()(double metric);
  double rate() const noexcept { return rate_; }  // of now

  // All that a checkpoint must keep; restore throws Error(format) for another number of values.
  std::vector<double> state() const;
  // Goes on from state().
  void restore(std::span<const double> state);

 private:
  bool better(double metric) const;
  ReduceOnPlateauOptions options_;
  double rate_;
  double best_;
  std::int64_t bad_epochs_ = 0;
  std::int64_t cooldown_left_ = 0;
};

}  // namespace bp

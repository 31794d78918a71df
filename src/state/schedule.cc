// Learning-rate schedules. Called by users and by the trainer, once an epoch or an update.
#include "bp/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"

namespace bp {

namespace {
void schedule_requires(bool ok, const char* schedule, const char* expected, double got) {
  if (!ok) fail(ErrorKind::value, "[schedule] {}: expected {}, got {}", schedule, expected, got);
}
void require_rate(const char* schedule, double rate) {
  schedule_requires(rate >= 0 && std::isfinite(rate), schedule, "a finite rate of 0 or more", rate);
}
void require_gamma(const char* schedule, double gamma) {
  schedule_requires(gamma > 0 && std::isfinite(gamma), schedule, "a positive, finite factor", gamma);
}
void require_steps(const char* schedule, std::int64_t steps) {
  schedule_requires(steps >= 1, schedule, "1 step or more", static_cast<double>(steps));
}
double ratio(std::int64_t t, std::int64_t steps) {
  return static_cast<double>(std::clamp<std::int64_t>(t, 0, steps)) / static_cast<double>(steps);
}
}  // namespace

namespace schedule {

Schedule constant(double rate) {
  require_rate("constant", rate);
  return [=](std::int64_t) { return rate; };
}

Schedule step(double rate, std::int64_t every, double gamma) {
  require_rate("step", rate);
  require_steps("step", every);
  require_gamma("step", gamma);
  return [=](std::int64_t t) { return rate * std::pow(gamma, static_cast<double>(t / every)); };
}

Schedule multistep(double rate, std::vector<std::int64_t> milestones, double gamma) {
  require_rate("multistep", rate);
  require_gamma("multistep", gamma);
  if (!std::is_sorted(milestones.begin(), milestones.end()))
    fail(ErrorKind::value, "[schedule] multistep: expected ascending milestones");
  return [=, m = std::move(milestones)](std::int64_t t) {
    return rate * std::pow(gamma, static_cast<double>(std::upper_bound(m.begin(), m.end(), t) - m.begin()));
  };
}

Schedule exponential(double rate, double gamma) {
  require_rate("exponential", rate);
  require_gamma("exponential", gamma);
  return [=](std::int64_t t) { return rate * std::pow(gamma, static_cast<double>(t)); };
}

Schedule cosine(double rate, std::int64_t steps, double min) {
  require_rate("cosine", rate);
  require_rate("cosine", min);
  require_steps("cosine", steps);
  return [=](std::int64_t t) { return min + (rate - min) * (1 + std::cos(std::numbers::pi * ratio(t, steps))) / 2; };
}

Schedule polynomial(double rate, std::int64_t steps, double power) {
  require_rate("polynomial", rate);
  require_steps("polynomial", steps);
  require_gamma("polynomial", power);
  return [=](std::int64_t t) { return rate * std::pow(1 - ratio(t, steps), power); };
}

Schedule warmup(Schedule after, std::int64_t steps, double start) {
  if (!after) fail(ErrorKind::value, "[schedule] warmup: expected a schedule to follow, got none");
  require_steps("warmup", steps);
  schedule_requires(start >= 0 && start <= 1, "warmup", "a start factor of 0 to 1", start);
  return [=, next = std::move(after)](std::int64_t t) {
    return t < steps ? next(0) * (start + (1 - start) * ratio(t, steps)) : next(t - steps);
  };
}

Schedule one_cycle(double max_rate, std::int64_t steps, OneCycleOptions o) {
  require_rate("one_cycle", max_rate);
  schedule_requires(steps >= 2, "one_cycle", "2 steps or more", static_cast<double>(steps));
  schedule_requires(o.pct_start >= 0 && o.pct_start <= 1, "one_cycle", "pct_start of 0 to 1", o.pct_start);
  schedule_requires(o.div_factor >= 1, "one_cycle", "div_factor of 1 or more", o.div_factor);
  schedule_requires(o.final_div_factor >= 1, "one_cycle", "final_div_factor of 1 or more", o.final_div_factor);
  const double initial = max_rate / o.div_factor, last = initial / o.final_div_factor;
  const double top = o.pct_start * static_cast<double>(steps) - 1, end = static_cast<double>(steps - 1);
  return [=](std::int64_t step) {
    const double t = std::clamp(static_cast<double>(step), 0.0, end);
    const bool rising = t <= top || top == end;
    const double from = rising ? initial : max_rate, to = rising ? max_rate : last;
    const double part = rising ? (top > 0 ? t / top : 1) : (t - top) / (end - top);
    return o.cosine ? to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * part)) : from + (to - from) * part;
  };
}

}  // namespace schedule

ReduceOnPlateau::ReduceOnPlateau(double rate, ReduceOnPlateauOptions options)
    : options_(options),
      rate_(rate),
      best_(options.maximize ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity()) {
  require_rate("reduce_on_plateau", rate);
  require_rate("reduce_on_plateau", options.min_rate);
  schedule_requires(options.factor > 0 && options.factor < 1, "reduce_on_plateau", "a factor between 0 and 1",
                    options.factor);
  schedule_requires(options.patience >= 0, "reduce_on_plateau", "a patience of 0 or more",
                    static_cast<double>(options.patience));
  schedule_requires(options.cooldown >= 0, "reduce_on_plateau", "a cooldown of 0 or more",
                    static_cast<double>(options.cooldown));
  schedule_requires(options.threshold >= 0, "reduce_on_plateau", "a threshold of 0 or more", options.threshold);
}

bool ReduceOnPlateau::better(double metric) const {
  if (options_.absolute_threshold)
    return options_.maximize ? metric > best_ + options_.threshold : metric < best_ - options_.threshold;
  return options_.maximize ? metric > best_ * (1 + options_.threshold) : metric < best_ * (1 - options_.threshold);
}

double ReduceOnPlateau::operator()(double metric) {
  if (better(metric)) {
    best_ = metric;
    bad_epochs_ = 0;
  } else {
    ++bad_epochs_;
  }
  if (cooldown_left_ > 0) {
    --cooldown_left_;
    bad_epochs_ = 0;
  }
  if (bad_epochs_ > options_.patience) {
    const double next = std::max(rate_ * options_.factor, options_.min_rate);
    if (rate_ - next > options_.eps) rate_ = next;
    cooldown_left_ = options_.cooldown;
    bad_epochs_ = 0;
  }
  return rate_;
}

std::vector<double> ReduceOnPlateau::state() const {
  return {rate_, best_, static_cast<double>(bad_epochs_), static_cast<double>(cooldown_left_)};
}

void ReduceOnPlateau::restore(std::span<const double> state) {
  if (state.size() != 4)
    fail(ErrorKind::format, "[schedule] reduce_on_plateau: expected 4 numbers of state, got {}", state.size());
  rate_ = state[0];
  best_ = state[1];
  bad_epochs_ = static_cast<std::int64_t>(state[2]);
  cooldown_left_ = static_cast<std::int64_t>(state[3]);
}

}  // namespace bp

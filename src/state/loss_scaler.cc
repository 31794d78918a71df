// Dynamic loss scaling.
#include "bp/loss_scaler.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::optim {

namespace {
void require_scaler(bool holds, const char* what, const char* expected, double got) {
  if (!holds) fail(ErrorKind::value, "[loss_scaler] {}: expected {}, got {}", what, expected, got);
}
}  // namespace

LossScaler::LossScaler(const LossScalerOptions& o)
    : scale(Tensor::from({static_cast<float>(o.scale)}, Shape{}), false),
      good(Tensor::from<std::int64_t>({0}, Shape{}), false),
      skipped(Tensor::from<std::int64_t>({0}, Shape{}), false),
      options_(o) {
  constexpr double kMost = std::numeric_limits<float>::max(), kLeast = std::numeric_limits<float>::min();
  require_scaler(o.scale >= kLeast && o.scale <= kMost, "scale", "a positive number that f32 holds", o.scale);
  require_scaler(o.growth >= 1 && std::isfinite(o.growth), "growth", "1 or more", o.growth);
  require_scaler(o.backoff > 0 && o.backoff < 1, "backoff", "a number between 0 and 1", o.backoff);
  require_scaler(o.interval >= 1, "interval", "1 or more", static_cast<double>(o.interval));
  scale.set_name("scaler.scale");
  good.set_name("scaler.good");
  skipped.set_name("scaler.skipped");
}

Tensor LossScaler::scaled(const Tensor& loss) const { return loss * cast(scale.get(), loss.dtype()); }

std::vector<Tensor> LossScaler::unscaled(std::span<const Tensor> grads) {
  const Scope scope("loss_scaler");
  const Tensor now = scale.get();
  std::vector<Tensor> out;
  Tensor finite;
  for (const Tensor& g : grads) {
    // The largest magnitude is finite when all are: NaN wins every maximum.
    const Tensor one = g.numel() == 0 ? full({}, 1.0, DType::boolean) : isfinite(max(abs(g)));
    finite = finite.defined() ? logical_and(finite, one) : one;
    out.push_back(g / cast(now, g.dtype()));
  }
  if (!finite.defined()) fail(ErrorKind::state, "[loss_scaler] there are no gradients");
  const Variable own[] = {scale.alias(), good.alias(), skipped.alias()};
  commit_if(finite, own);
  const Tensor count = good.get() + 1, grows = count >= static_cast<double>(options_.interval);
  // Neither leaves the normal numbers of f32.
  const Tensor larger = minimum(now * options_.growth, static_cast<double>(std::numeric_limits<float>::max()));
  const Tensor smaller = maximum(now * options_.backoff, static_cast<double>(std::numeric_limits<float>::min()));
  scale.set(select(finite, select(grows, larger, now), smaller));
  good.set(select(logical_and(finite, logical_not(grows)), count, zeros_like(count)));
  skipped.set(skipped.get() + cast(logical_not(finite), DType::i64));
  return out;
}

std::vector<nn::NamedVariable> LossScaler::state() const {
  std::vector<nn::NamedVariable> all;
  for (const Variable* v : {&scale, &good, &skipped}) all.emplace_back(v->name(), v->alias());
  return all;
}

}  // namespace bp::optim

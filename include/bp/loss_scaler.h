// LossScaler: the scale that keeps small gradients from vanishing in formats of few exponent bits, found while training
// (Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2; the schedule is that of PyTorch's
// GradScaler). bf16 has the exponents of f32 and needs none.
//
//   nn::Linear model(4, 3);
//   nn::init(model, Key{42});
//   optim::SGD opt(model, {.lr = 0.1});
//   optim::LossScaler scaler;
//   auto step = compile(
//       [&](Tensor x, Tensor y) {
//         Tensor loss = cross_entropy(model(x), y);
//         opt.update(scaler.unscaled(grad(scaler.scaled(loss), model)));
//         return loss;
//       },
//       {.mode = Mode::train});
//   step(ones({8, 4}), zeros({8}, i64));
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bp/module.h"
#include "bp/variable.h"

namespace bp::optim {

// How the scale starts and moves.
struct LossScalerOptions {
  double scale = 65536;          // at the beginning, > 0
  double growth = 2;             // >= 1: times the scale after `interval` good steps in a row
  double backoff = 0.5;          // in (0, 1): times the scale after a step with a gradient that is NaN or infinite
  std::int64_t interval = 2000;  // >= 1
};

// The scale and its counters, which are Variables.
class LossScaler {
 public:
  // Throws Error(value) for options out of their range.
  explicit LossScaler(const LossScalerOptions& options = {});

  // loss * scale.
  Tensor scaled(const Tensor& loss) const;
  // The gradients of a scaled loss, divided by the scale, each in its dtype. When one is NaN or infinite the step
  // leaves every Variable as it was (commit_if), but for the scaler's own: the scale shrinks and skipped counts one.
  // Inside compile only: Error(state) otherwise.
  std::vector<Tensor> unscaled(std::span<const Tensor> grads);

  // "scaler.scale", "scaler.good", "scaler.skipped": what a checkpoint must keep.
  std::vector<nn::NamedVariable> state() const;

  Variable scale;    // f32 scalar
  Variable good;     // i64 scalar: good steps since the scale changed last
  Variable skipped;  // i64 scalar: steps that were left out so far

 private:
  LossScalerOptions options_;
};

}  // namespace bp::optim

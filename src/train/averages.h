// Averages of a model's weights beside them: exponential or stochastic. Used by the Trainer.
#pragma once

#include <vector>

#include "bp/module.h"
#include "bp/variable.h"

namespace bp::train {

enum class Floats { parameters, statistics, all };
// The floating-point state of a model: what is trained, what is not, or both.
std::vector<nn::NamedVariable> floats_of(const nn::detail::Walk& walk, Floats which);

class Averages {
 public:
  explicit Averages(std::vector<nn::NamedVariable> weights);  // floating-point ones

  void reset();  // to the weights as they are
  // Inside a compiled step, after the update of number `t`: a += (1 - d) (w - a), d = min(decay, (1 + t) / (10 + t)).
  void follow(const Tensor& t, double decay);
  // The mean over `n` weights with the present ones as the last: a += (w - a) / n.
  void add(std::int64_t n);
  // Exchanges averages and weights.
  void swap();
  // "train.average.<path>": what a checkpoint keeps.
  std::vector<nn::NamedVariable> state() const;

 private:
  void approach(const Tensor& share);

  std::vector<Variable> weights_, averages_;
};

}  // namespace bp::train

// Averages of weights are Variables: a compiled step updates them with the rest.
#include "train/averages.h"

#include "bp/ops.h"

namespace bp::train {

std::vector<nn::NamedVariable> floats_of(const nn::detail::Walk& walk, Floats which) {
  std::vector<nn::NamedVariable> chosen;
  for (nn::NamedVariable& v : nn::detail::state(walk)) {
    const bool wanted = which == Floats::all || v.variable.trainable() == (which == Floats::parameters);
    if (wanted && is_float(v.variable.dtype())) chosen.push_back(std::move(v));
  }
  return chosen;
}

Averages::Averages(std::vector<nn::NamedVariable> weights) {
  for (nn::NamedVariable& v : weights) {
    Variable average(v.variable.get(), false);
    average.set_name("train.average." + v.name);
    averages_.push_back(std::move(average));
    weights_.push_back(v.variable.alias());
  }
}

void Averages::reset() {
  for (std::size_t i = 0; i < weights_.size(); ++i) averages_[i].set(weights_[i].get());
}

void Averages::approach(const Tensor& share) {
  const Scope scope("average");
  std::vector<Tensor> values;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const Tensor a = averages_[i].get(), w = weights_[i].get();
    values.push_back(a + cast(share, a.dtype()) * (w - a));
  }
  assign(averages_, values);
}

void Averages::follow(const Tensor& t, double decay) {
  const Tensor n = cast(t, f64);
  approach(1.0 - minimum((1.0 + n) / (10.0 + n), decay));
}

void Averages::add(std::int64_t n) { approach(scalar(1.0 / static_cast<double>(n), f64)); }

void Averages::swap() {
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    const Tensor w = weights_[i].get(), a = averages_[i].get();
    weights_[i].set(a);
    averages_[i].set(w);
  }
}

std::vector<nn::NamedVariable> Averages::state() const {
  std::vector<nn::NamedVariable> all;
  for (const Variable& a : averages_) all.emplace_back(a.name(), a.alias());
  return all;
}

}  // namespace bp::train

// What a trained model gets right and wrong on data, and what its parameters look like: the figures of report.html.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/config.h"

namespace bp::train {

struct Mistake {
  std::int64_t row = 0;
  double loss = 0;                        // cross entropy, or mean squared error, over the row's outputs
  std::int64_t target = -1, output = -1;  // of classification: the classes, where a row has one
};

struct ParameterFigures {
  std::string name;
  Shape shape;
  double mean = 0, stddev = 0, norm = 0, largest = 0, zeros = 0;  // zeros: a share
  double gradient_norm = metrics::kNone;                          // of the loss of one batch, in evaluation mode
  std::vector<double> histogram = {};                             // 24 bins from the least to the largest value
};

// Of a layer that is a function of each element: the share of values at which it passes on less than 2% of the gradient
// (zeros of a ReLU, |tanh| above 0.99), and how many of its units, the last axis, do so for every row of one batch, in
// evaluation mode.
struct ActivationFigures {
  std::string path, kind;
  double saturated = 0;
  std::int64_t dead = 0, units = 0;
};

struct Findings {
  std::string split;  // "test", "validation" or "training"
  std::int64_t rows = 0, of = 0;
  // Of classes; of binary labels one of two classes a label. Empty for values and for more than 200 classes or labels.
  std::vector<metrics::ConfusionMatrix> confusion = {};
  std::vector<Mistake> worst = {};  // the largest loss first
  std::vector<ParameterFigures> parameters = {};
  std::vector<ActivationFigures> activations = {};
  std::optional<Profile> step = {};  // of training: where its time goes
};

// Over the first 10,000 rows of `set` at most. `step` is left empty.
Findings examine(const Config& config, nn::Sequential& model, const data::Source& set, const std::string& split);
// The parameters alone, without gradients (NaN): what a training that failed has reached.
Findings examine_parameters(const nn::Sequential& model);

}  // namespace bp::train

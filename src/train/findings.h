// What a trained model gets right and wrong on data, and what its parameters look like: the figures of report.html.
#pragma once

#include <cstdint>
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
  double gradient_norm = 0;                                       // of the loss of one batch, in evaluation mode
  std::vector<double> histogram = {};                             // 24 bins from the least to the largest value
};

struct Findings {
  std::string split;  // "test", "validation" or "training"
  std::int64_t rows = 0, of = 0;
  // Row-major [classes, classes], by target and then output; empty for other tasks and for more than 200 classes.
  std::int64_t classes = 0;
  std::vector<std::int64_t> confusion = {};
  std::vector<Mistake> worst = {};  // the largest loss first
  std::vector<ParameterFigures> parameters = {};
};

// Over the first 10,000 rows of `set` at most.
Findings examine(const Config& config, const nn::Sequential& model, const data::Source& set, const std::string& split);

}  // namespace bp::train

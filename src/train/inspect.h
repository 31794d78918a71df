// What a configured model consists of and costs, and whether its gradient is right. The program bp prints it.
#pragma once

#include <string>
#include <vector>

#include "bp/grad.h"
#include "train/config.h"

namespace bp::train {

struct LayerRow {
  std::string path, what;       // "3.inner.0", "conv2d(8 -> 8, kernel [3, 3], same)"
  int depth = 0;                // inside residual layers
  Shape output = {};            // of one sample
  std::int64_t parameters = 0;  // with those of the layers inside
  double flops = 0;             // of a forward pass for one sample
};
std::vector<LayerRow> layer_rows(nn::Sequential& model, const Shape& input, DType dtype = DType::f32);

struct Costs {
  std::int64_t parameters = 0;
  ExecutableInfo step;  // of a training step with the configured batch
};
Costs costs_of(const Config& config);
// The largest batch whose training step takes at most so many bytes (Trainer::largest_batch).
std::int64_t largest_batch(const Config& config, std::size_t bytes);

struct ParameterCheck {
  std::string name;
  std::int64_t elements = 0, checked = 0;
  GradcheckResult worst = {};
};
struct CheckOptions {
  std::int64_t elements = 20;  // of each parameter, drawn at random; all when there are fewer
  GradcheckOptions tolerance = {.rtol = 1e-4, .atol = 1e-7};
};
// Central differences of the loss in training mode, in f64, by the parameters. Random states and running statistics are
// put back before each evaluation. Vectors (biases, gains), which begin at the kinks of relu and max_pool, are moved at
// random first.
std::vector<ParameterCheck> check_gradients(const Config& config, const data::Batch& batch,
                                            const CheckOptions& options = {});

}  // namespace bp::train

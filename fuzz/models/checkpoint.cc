// load_state: a file that is refused leaves the model as it was.
#include "bp/checkpoint.h"

#include <vector>

#include "../target.h"
#include "bp/init.h"
#include "bp/layers.h"

namespace {
std::vector<float> values(const bp::nn::Linear& model) {
  std::vector<float> all;
  for (const auto& entry : bp::nn::state(model))
    for (const float v : entry.variable.get().to_vector<float>()) all.push_back(v);
  return all;
}
}  // namespace

BP_FUZZ_TARGET(checkpoint) {
  const bp::fuzz::File file(bytes);
  bp::nn::Linear model(2, 3);
  bp::nn::init(model, bp::Key{1});
  const std::vector<float> before = values(model);
  if (!bp::fuzz::accepted([&] { bp::load_state(file.path(), model); }) && values(model) != before)
    bp::fuzz::broken("a checkpoint that was refused changed the model");
}

// Text from a run that was trained on text. `bp sample` calls it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "train/config.h"

namespace bp::train {

struct SampleOptions {
  std::string prompt;  // empty: a line break, or the vocabulary's first symbol where it has none
  std::int64_t tokens = 500;
  double temperature = 0.8;
  std::int64_t top_k = 0;
  std::uint64_t seed = 0;
  std::function<bool(std::string_view piece)> on_text = {};  // each symbol as it is drawn; false stops
};

// The prompt and what the model writes after it. A GPT caches keys and values; other models of text read their context
// again for each symbol. Throws Error(config) for a run on other data, Error(value) for a prompt with a character that
// is not in the vocabulary.
std::string sample_text(const Config& config, const nn::Sequential& model, const SampleOptions& options);

}  // namespace bp::train

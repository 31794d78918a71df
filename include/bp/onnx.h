// ONNX: models to files that other runtimes run, and files to modules that can be trained on.
//
// Written is operator set 17 (ONNX 1.12); read are the operator sets up to 17.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bp/checkpoint.h"
#include "bp/module.h"

namespace bp::onnx {

struct ExportOptions {
  // Names of the graph's inputs and outputs; unset: "input", or "input_0", "input_1", ..; "output" alike.
  std::vector<std::string> inputs = {}, outputs = {};
  // The first dimension of every input becomes "N", any size. What the model makes of it stays an expression of N; a
  // model that needs more of it (its square, a constant that depends on it) is refused with Error(value), naming the
  // operation. false: the sizes as they are given.
  bool dynamic_batch = true;
  // Inputs and outputs of rank 4 and more are [N, C, H, W], as elsewhere, instead of [N, H, W, C].
  bool channels_first = false;
  Metadata metadata = {};
};

namespace detail {
void export_function(const std::string& path, const std::function<std::vector<Tensor>(std::span<const Tensor>)>& f,
                     std::span<const nn::NamedVariable> state, std::span<const Type> inputs,
                     const ExportOptions& options);
}  // namespace detail

// Traces model(x) in evaluation mode, for x of the types `inputs`, and writes the computation to `path`, whole or not
// at all. The model's Variables become initializers under their paths: kernels of convolutions as PyTorch lays them
// out, [out, in, k..]; all else as it lies here, so that a linear layer is MatMul with a weight [in, out]. Loops
// (nn::LSTM, bp::scan) become Scan, branches If; attention is written out.
// Throws Error(value) naming the operation and its layer for what ONNX has no words for (random numbers, custom
// operations, gradients) and for a model that assigns Variables; Error(io) for the path.
template <nn::Module M>
void export_onnx(const std::string& path, const M& model, const std::vector<Type>& inputs,
                 const ExportOptions& options = {}) {
  const auto call = [&model](std::span<const Tensor> x) -> std::vector<Tensor> {
    if constexpr (requires { model(x); })
      return model(x);
    else
      return {model(x[0])};
  };
  detail::export_function(path, call, nn::state(model), inputs, options);
}

}  // namespace bp::onnx

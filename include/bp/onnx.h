// ONNX: models to files that other runtimes run, and files to modules that can be trained on.
//
// Written is operator set 17 (ONNX 1.12); read are the operator sets up to 17.
//
//   nn::Sequential net{nn::Linear(4, 8), nn::ReLU(), nn::Linear(8, 3)};
//   nn::init(net, Key{42});
//   onnx::export_onnx("net.onnx", net, {{f32, {1, 4}}});
//   const onnx::Model read("net.onnx");
//   assert(read(ones({5, 4})).shape() == Shape({5, 3}));  // any batch
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bp/checkpoint.h"
#include "bp/layers.h"
#include "bp/module.h"

namespace bp::onnx {

// How a model is written.
struct ExportOptions {
  // Names of the graph's inputs and outputs; unset: "input", or "input_0", "input_1", ..; "output" alike.
  std::vector<std::string> inputs = {}, outputs = {};
  // The first dimension of every input becomes "N", any size. What the model makes of it stays an expression of N; a
  // model that needs more of it (its square, a constant that depends on it) is refused with Error(value), naming the
  // operation. false: the sizes as they are given.
  bool dynamic_batch = true;
  // Inputs and outputs of rank 4 and more are [N, C, H, W], as elsewhere, instead of [N, H, W, C].
  bool channels_first = false;
  Metadata metadata = {};  // properties of the model, by name
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

// How a model is read.
struct ImportOptions {
  // Inputs and outputs of rank 4 and more are [N, H, W, C], as elsewhere in bp, whatever the file's are.
  bool channels_last = false;
};

// A model from a file, as a layer: it can be called, walked, trained, saved and put among other layers.
//
// Initializers of floating numbers with a dimension are Variables under their names; those that batch normalisation
// keeps its statistics in are not trainable; all else is constant. Images are [N, C, H, W], as in the file, unless
// asked otherwise. In train mode Dropout draws and BatchNormalization uses and keeps statistics, whatever the file says
// of its own use; in evaluation mode the model computes what the file says, and refuses a Dropout that was exported to
// draw there too. nn::init leaves the values that the file gave.
//
// Element types become ours: f16 f32, i8, i16 and u16 i32, u32 and u64 i64. Throws Error(format) for a file that is
// damaged, and Error(value) listing all operators that are not supported, or naming operator and node for an attribute
// that is not, or for a shape that only running would tell.
class Model final : public nn::LayerOf<Model> {
 public:
  explicit Model(const std::string& path, ImportOptions options = {});              // path: of the file
  Model(const Buffer& bytes, const std::string& name, ImportOptions options = {});  // name: for messages

  // One input to one output; any number of them, in the file's order.
  Tensor operator()(const Tensor& x) const override;
  std::vector<Tensor> operator()(std::span<const Tensor> x) const;

  // What goes in and comes out, as the file says; -1: any size. Of outputs a file need not tell shapes.
  struct Port {
    std::string name;                 // of the value in the graph
    DType dtype;                      // ours
    std::vector<std::int64_t> sizes;  // -1: any
  };
  std::vector<Port> inputs() const;   // of the graph, without initializers
  std::vector<Port> outputs() const;  // of the graph
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override { return "onnx"; }
  std::string describe() const override;
  void visit(const std::string& path, nn::Visitor& visitor) override;

 private:
  struct Graph;
  struct Run;
  static void check(const Graph& graph);
  void take_initializers(Graph& graph);
  void check_input(std::size_t i, const Tensor& x) const;

  ImportOptions options_;
  std::shared_ptr<const Graph> graph_;
  std::vector<std::pair<std::string, Variable>> weights_;  // in the file's order
  Variable random_;                                        // of Dropout
};

}  // namespace bp::onnx

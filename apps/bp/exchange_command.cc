// bp export and bp import: trained models to files that other programs read; ONNX files to weights, or to a folder in
// which they are trained on.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "bp/checkpoint.h"
#include "bp/io.h"
#include "bp/onnx.h"
#include "commands.h"
#include "train/experiment.h"

namespace bp::app {

namespace {

bool is_weights(const std::string& path) { return path.ends_with(".safetensors") || path.ends_with(".npz"); }

std::string port_text(const onnx::Model::Port& p) {
  std::string sizes;
  for (const std::int64_t n : p.sizes)
    sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", n < 0 ? "?" : std::to_string(n));
  return fmt::format("{}  {}[{}]", p.name, name_of(p.dtype), sizes);
}

// model.input of a configuration: without the batch, and with channels behind, as images lie here.
std::string configured_input(const onnx::Model& model) {
  std::vector<std::int64_t> sizes = model.inputs().at(0).sizes;
  if (sizes.size() >= 4) std::rotate(sizes.begin() + 1, sizes.begin() + 2, sizes.end());
  std::string text;
  for (std::size_t d = 1; d < sizes.size(); ++d) {
    if (sizes[d] < 1)
      fail(ErrorKind::shape, "the input {} has sizes beside the batch that are open: a configuration needs them",
           port_text(model.inputs()[0]));
    text += fmt::format("{}{}", d == 1 ? "" : ", ", sizes[d]);
  }
  return text;
}

void write_training_folder(const ImportCommand& o, const onnx::Model& model) {
  const std::string toml = fmt::format(
      R"(# Trains model.onnx on. Fill in the data, then: bp train train.toml (docs/config.md lists the keys)
[model]
input = [{}]
layers = [{{ type = "onnx", file = "model.onnx" }}]

[loss]
type = "cross_entropy"

[optimizer]
type = "adam"
lr = 1e-4

[data]
format = "npy"
train = {{ inputs = "x.npy", targets = "y.npy" }}
validation_fraction = 0.1
)",
      configured_input(model));
  std::filesystem::create_directories(o.output);
  const Buffer bytes = io::read_file(o.file);
  io::write_file(o.output + "/model.onnx", {bytes.as<char>(), bytes.bytes()});
  io::write_file(o.output + "/train.toml", toml);
  fmt::print("{0}/model.onnx and {0}/train.toml are written\n", o.output);
}

}  // namespace

int export_model(const ExportCommand& o) {
  const train::Config c = train::read_run(o.run);
  const nn::Sequential model = train::load_model(c, o.run);
  if (is_weights(o.output)) {
    save_state(o.output, model, nullptr, {{"run", c.name}},
               o.channels_last ? WeightLayout::channels_last : WeightLayout::pytorch);
  } else if (o.output.ends_with(".onnx")) {
    Shape input = c.input;
    input.insert(0, 1);
    onnx::export_onnx(o.output, model, {{c.input_dtype(), input}},
                      {.channels_first = !o.channels_last, .metadata = {{"run", c.name}}});
  } else {
    fail(ErrorKind::config, "{}: expected a name that ends in .onnx, .safetensors or .npz", o.output);
  }
  fmt::print("{} is written\n", o.output);
  return kOk;
}

int import_model(const ImportCommand& o) {
  const onnx::Model model(o.file);
  for (const auto& p : model.inputs()) fmt::print("input       {}\n", port_text(p));
  for (const auto& p : model.outputs()) fmt::print("output      {}\n", port_text(p));
  fmt::print("parameters  {} in {} tensors\n", nn::parameter_count(model), nn::parameters(model).size());
  if (o.output.empty()) return kOk;
  if (!is_weights(o.output)) {
    write_training_folder(o, model);
    return kOk;
  }
  save_state(o.output, model);
  fmt::print("{} is written\n", o.output);
  return kOk;
}

}  // namespace bp::app

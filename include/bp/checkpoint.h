// Checkpoints: the state of a model, and of its optimizer, in one safetensors file, whole or not at all.
//
// Keys are the paths that PyTorch uses too ("conv1.weight"); the optimizer's begin with "optim.". The metadata carry
// "bp.version" and "bp.layout", which says how the weights of Linear and Conv layers lie: "channels_last" is
// [k1.., in, out] as in memory here, "pytorch" is [out, in, k1..].
//
// A path that ends in ".npz" is NumPy's archive instead. It has no place for metadata: its weights lie as PyTorch's.
//
//   nn::Linear a(4, 3), b(4, 3);
//   nn::init(a, Key{1});
//   save_state("a.safetensors", a, nullptr, {{"note", "the first"}});
//   assert(load_state("a.safetensors", b).at("note") == "the first");
//   assert(b.weight.get().to_vector<float>() == a.weight.get().to_vector<float>());
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "bp/module.h"
#include "bp/optim.h"

namespace bp {

using Metadata = std::map<std::string, std::string>;  // keys and values that travel with a file

// How the weights of Linear and Conv layers lie in a file: [k.., in, out], or [out, in, k..].
enum class WeightLayout { channels_last, pytorch };

// From a path in the model ("blocks.0.norm.weight") to the name in a file ("body.3.b1.weight"), where a model elsewhere
// names its parts differently. Two paths must not get one name: Error(value).
using Rename = std::function<std::string(const std::string& path)>;

// How a file meets a model.
struct LoadOptions {
  // Every Variable must be in the file and every tensor of the file must belong to a Variable. Without it, what is
  // missing keeps its value and what is unexpected is left out.
  bool strict = true;
  // Converts between floating-point dtypes; otherwise a dtype that differs is an error.
  bool convert = false;
  Rename rename = {};  // the names that the file has; unset: the model's paths
};

namespace detail {
void save_state(const std::string& path, std::vector<nn::NamedVariable> state, const optim::Optimizer* optimizer,
                Metadata metadata, WeightLayout layout, const Rename& rename = {});
Metadata load_state(const std::string& path, std::vector<nn::NamedVariable> state, const optim::Optimizer* optimizer,
                    const LoadOptions& options);
}  // namespace detail

// Writes nn::state(model), the optimizer's state unless it is null, and `metadata` (whose keys must not begin with
// "bp."). Throws Error(io) naming the path.
template <nn::Module M>
void save_state(const std::string& path, const M& model, const optim::Optimizer* optimizer = nullptr,
                const Metadata& metadata = {}, WeightLayout layout = WeightLayout::channels_last,
                const Rename& rename = {}) {
  detail::save_state(path, nn::state(model), optimizer, metadata, layout, rename);
}

// Reads a file of save_state into the model (and the optimizer unless it is null: without one the "optim." entries and
// the "train." ones of a Trainer are passed over). Returns the metadata. Everything is checked before anything is
// assigned: on Error(state), which lists the names that are missing, unexpected, or of another shape or dtype, the
// model is as it was. A file without "bp.layout" was written by PyTorch: its weights are transposed,
// "num_batches_tracked" is passed over, and random states, which it does not have, keep their values.
template <nn::Module M>
Metadata load_state(const std::string& path, M& model, const optim::Optimizer* optimizer = nullptr,
                    const LoadOptions& options = {}) {
  nn::set_names(model);
  return detail::load_state(path, nn::state(model), optimizer, options);
}

}  // namespace bp

// Checkpoints: named state to and from safetensors. Called through the templates of bp/checkpoint.h.
#include "bp/checkpoint.h"

#include <cstring>
#include <unordered_set>

#include "base/error.h"
#include "bp/io.h"
#include "bp/version.h"
#include "state/weight_layout.h"

namespace bp::detail {

namespace {

constexpr const char* kVersionKey = "bp.version";
constexpr const char* kLayoutKey = "bp.layout";
constexpr const char* kChannelsLast = "channels_last";
constexpr const char* kPyTorch = "pytorch";

// What a message lists: at most eight names, then how many more.
std::string listed(const std::vector<std::string>& items) {
  std::string text;
  for (std::size_t i = 0; i < items.size() && i < 8; ++i) text += (i == 0 ? "" : ", ") + items[i];
  if (items.size() > 8) text += fmt::format(" and {} more", items.size() - 8);
  return text;
}

std::string name_in_file(const std::string& path, const Rename& rename) { return rename ? rename(path) : path; }

bool is_npz(const std::string& path) { return path.ends_with(".npz"); }

io::SafeTensors read_tensors(const std::string& path) {
  if (!is_npz(path)) return io::read_safetensors(path);
  io::SafeTensors file;
  file.tensors = io::read_npz(path);
  return file;
}

class Loader {
 public:
  Loader(const std::string& path, io::SafeTensors file, const LoadOptions& options)
      : path_(path), file_(std::move(file)), options_(options) {
    const auto layout = file_.metadata.find(kLayoutKey);
    foreign_ = layout == file_.metadata.end();
    pytorch_ = foreign_ || layout->second == kPyTorch;
    if (!foreign_ && layout->second != kPyTorch && layout->second != kChannelsLast)
      fail(ErrorKind::format, "[load_state] {}: unknown {} \"{}\"", path, kLayoutKey, layout->second);
  }

  void take(const nn::NamedVariable& entry) {
    const std::string name = name_in_file(entry.name, options_.rename);
    if (!known_.insert(name).second)
      fail(ErrorKind::value, "[load_state] {}: two entries of the model are renamed to \"{}\"", path_, name);
    const Array* found = file_.find(name);
    if (found == nullptr) {
      const bool random_state = entry.variable.dtype() == i64 && !entry.variable.trainable();
      if (!(foreign_ && random_state)) missing_.push_back(name);
      return;
    }
    Array value = *found;
    if (entry.is_kernel && pytorch_ && value.shape.rank() >= 2) value = from_pytorch(value);
    const Type& type = entry.variable.type();
    const bool converts = options_.convert && is_float(value.dtype) && is_float(type.dtype);
    if (value.shape != type.shape || (value.dtype != type.dtype && !converts)) {
      wrong_.push_back(
          fmt::format("{} (expected {}, the file has {})", name, type.str(), Type{value.dtype, value.shape}.str()));
      return;
    }
    value = convert(value, type.dtype);
    // A copy of its own: the file's memory must neither be written nor kept alive.
    Buffer buffer = Buffer::allocate(type.bytes());
    if (type.bytes() != 0) std::memcpy(buffer.mutable_data(), value.buffer.data(), type.bytes());
    targets_.push_back(entry.variable.alias());
    values_.push_back(Tensor::from_buffer(std::move(buffer), type.dtype, type.shape));
  }

  // Throws if anything does not fit; otherwise assigns everything.
  Metadata finish(bool with_optimizer) {
    std::vector<std::string> unexpected;
    for (const auto& [name, value] : file_.tensors) {
      const bool passed_over = (!with_optimizer && (name.starts_with("optim.") || name.starts_with("train."))) ||
                               (foreign_ && name.ends_with("num_batches_tracked"));
      if (!passed_over && !known_.contains(name)) unexpected.push_back(name);
    }
    std::string problems;
    const auto report = [&problems](const char* what, const std::vector<std::string>& names) {
      if (!names.empty()) problems += fmt::format("\n  {}: {}", what, listed(names));
    };
    if (options_.strict) {
      report("missing in the file", missing_);
      report("not in the model", unexpected);
    }
    report("of another shape or dtype", wrong_);
    if (!problems.empty())
      fail(ErrorKind::state, "[load_state] {} does not fit the model; nothing was changed{}", path_, problems);
    assign(targets_, values_);
    return std::move(file_.metadata);
  }

 private:
  std::string path_;
  io::SafeTensors file_;
  LoadOptions options_;
  bool foreign_ = false;  // not written by save_state
  bool pytorch_ = false;
  std::unordered_set<std::string> known_;
  std::vector<std::string> missing_, wrong_;
  std::vector<Variable> targets_;
  std::vector<Tensor> values_;
};

}  // namespace

void save_state(const std::string& path, std::vector<nn::NamedVariable> state, const optim::Optimizer* optimizer,
                Metadata metadata, WeightLayout layout, const Rename& rename) {
  for (const auto& [key, value] : metadata)
    if (key.starts_with("bp.")) fail(ErrorKind::value, "[save_state] the metadata key \"{}\" is reserved", key);
  if (optimizer != nullptr)
    for (nn::NamedVariable& entry : optimizer->state()) state.push_back(std::move(entry));
  std::vector<std::pair<std::string, Array>> tensors;
  for (const nn::NamedVariable& entry : state) {
    const Tensor value = entry.variable;
    Array array{value.dtype(), value.shape(), value.buffer()};
    if (entry.is_kernel && (layout == WeightLayout::pytorch || is_npz(path))) array = to_pytorch(array);
    tensors.emplace_back(name_in_file(entry.name, rename), std::move(array));
  }
  if (is_npz(path)) return io::write_npz(path, tensors);
  metadata[kVersionKey] = BP_VERSION_STRING;
  metadata[kLayoutKey] = layout == WeightLayout::pytorch ? kPyTorch : kChannelsLast;
  io::write_safetensors(path, tensors, metadata);
}

Metadata load_state(const std::string& path, std::vector<nn::NamedVariable> state, const optim::Optimizer* optimizer,
                    const LoadOptions& options) {
  Loader loader(path, read_tensors(path), options);
  for (const nn::NamedVariable& entry : state) loader.take(entry);
  if (optimizer != nullptr)
    for (const nn::NamedVariable& entry : optimizer->state()) loader.take(entry);
  return loader.finish(optimizer != nullptr);
}

}  // namespace bp::detail

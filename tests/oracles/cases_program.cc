// What the oracles run: a benchmark case with weights from a file, or as it begins, writes its outputs and its weights.
// usage: oracle_cases CASE [--load WEIGHTS] [--x X.npy --y Y.npy [--from MODEL.onnx]] [--save WEIGHTS] [--onnx
// MODEL.onnx [--first 1]] Names in WEIGHTS (.safetensors or .npz) are those of the PyTorch model of
// tests/oracles/cases.py.
#include <cstdio>
#include <exception>
#include <optional>

#include "../../bench/cases.h"
#include "bp/io.h"
#include "bp/onnx.h"

namespace {

using Names = std::vector<std::pair<std::string, std::string>>;  // how our paths begin, how PyTorch's do

Names names_of(const std::string& name) {
  if (name == "tiny" || name == "mlp") return {{"l1.", "0."}, {"l2.", "2."}, {"l3.", "4."}};
  if (name == "cnn") return {{"c1.", "0."}, {"c2.", "3."}, {"l1.", "7."}, {"l2.", "9."}};
  if (name == "lstm") return {{"embedding", "e.weight"}, {"lstm.", "r."}, {"head.", "o."}};
  Names out{{"head.", "o."}, {"token", "te.weight"}, {"position", "pe.weight"}, {"norm.", "n."}};
  if (name == "resnet20") out = {{"head.", "fc."}, {"stem.conv.", "body.0."}, {"stem.norm.", "body.1."}};
  for (int i = 0; i < 9; ++i) {
    const std::string ours = "blocks." + std::to_string(i) + ".";
    const std::string block = name == "gpt" ? "bl." + std::to_string(i) + "." : "body." + std::to_string(3 + i) + ".";
    for (const auto& [part, theirs] :
         name == "gpt" ? Names{{"norm1", "n1"}, {"norm2", "n2"}, {"proj", "pr"}, {"down", "dn"}, {"", ""}}
                       : Names{{"first.conv", "c1"},
                               {"first.norm", "b1"},
                               {"second.conv", "c2"},
                               {"second.norm", "b2"},
                               {"shortcut.conv", "sc.0"},
                               {"shortcut.norm", "sc.1"}})
      out.emplace_back(ours + part, block + theirs);
  }
  return out;
}

bp::Rename rename_of(const std::string& name) {
  return [names = names_of(name)](const std::string& path) {
    for (const auto& [ours, theirs] : names)
      if (path.starts_with(ours)) return theirs + path.substr(ours.size());
    return path;
  };
}

int run(int argc, char** argv) {
  const auto option = [&](const char* name) { return bench::option(argc, argv, name, ""); };
  const std::string name = argv[1];
  const bench::Case c = bench::make_case(name, bp::f32);
  const bp::Rename rename = rename_of(name);
  if (const std::string path = option("load"); !path.empty())
    bp::detail::load_state(path, c.state(), nullptr, {.rename = rename});
  std::optional<bp::onnx::Model> read;
  if (const std::string path = option("from"); !path.empty()) read.emplace(path);
  if (const std::string x = option("x"); !x.empty()) {
    auto model = bp::compile([&](bp::Tensor in) { return read ? (*read)(in) : c.model(in); });
    const bp::Tensor y = model(bp::io::read_npy(x));
    bp::io::write_npy(option("y"), {y.dtype(), y.shape(), y.buffer()});
  }
  if (const std::string path = option("onnx"); !path.empty()) {
    const bp::Tensor x = c.batch(0).first;
    const auto call = [&](std::span<const bp::Tensor> in) -> std::vector<bp::Tensor> { return {c.model(in[0])}; };
    bp::onnx::detail::export_function(path, call, c.state(), {{x.type()}},
                                      {.channels_first = !option("first").empty()});
  }
  if (const std::string path = option("save"); !path.empty())
    bp::detail::save_state(path, c.state(), nullptr, {}, bp::WeightLayout::pytorch, rename);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc >= 2) return run(argc, argv);
  } catch (const std::exception& e) { std::fprintf(stderr, "oracle_cases: %s\n", e.what()); }
  return 1;
}

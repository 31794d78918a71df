// What the oracle onnx_import.py runs: ONNX models called once.
// usage: oracle_import < LIST     each line: MODEL.onnx OUT_PREFIX INPUT.pb...
// Writes OUT_PREFIX0.npy, .. and prints "ok", or "refused MESSAGE", a line each.
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>

#include "bp/bp.h"
#include "bp/io.h"
#include "onnx/proto.h"

namespace {

void call(const std::string& line) {
  std::istringstream words(line);
  std::string model_path, prefix, input;
  words >> model_path >> prefix;
  const bp::onnx::Model model(model_path);
  std::vector<bp::Tensor> in;
  while (words >> input) {
    const bp::Buffer b = bp::io::read_file(input);
    in.push_back(bp::onnx::proto::parse_tensor({b.as<std::byte>(), b.bytes()}, input).second);
  }
  const std::vector<bp::Tensor> out = model(std::span<const bp::Tensor>(in));
  for (std::size_t i = 0; i < out.size(); ++i)
    bp::io::write_npy(prefix + std::to_string(i) + ".npy", {out[i].dtype(), out[i].shape(), out[i].buffer()});
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    try {
      call(line);
      std::printf("ok\n");
    } catch (const std::exception& e) {
      std::string text = e.what();
      for (char& c : text)
        if (c == '\n') c = ' ';
      std::printf("refused %s\n", text.c_str());
    }
  }
  return 0;
}

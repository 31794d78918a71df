// onnx::Model: a file becomes a layer, which is called where its input is small.
#include <algorithm>
#include <cstring>

#include "../target.h"
#include "bp/onnx.h"
#include "bp/ops.h"

BP_FUZZ_TARGET(onnx_model) {
  bp::fuzz::accepted([&] {
    const bp::Buffer copy = bp::Buffer::allocate(bytes.size());
    if (!bytes.empty()) std::memcpy(copy.mutable_data(), bytes.data(), bytes.size());
    const bp::onnx::Model model(copy, "fuzz.onnx");
    const auto inputs = model.inputs();
    if (inputs.size() != 1 || inputs[0].sizes.size() > 4) return;
    bp::Shape shape;
    for (const std::int64_t n : inputs[0].sizes) shape.push_back(n < 0 ? 2 : n);
    if (shape.rank() > 0 && *std::max_element(inputs[0].sizes.begin(), inputs[0].sizes.end()) > 16) return;
    (void)model(bp::zeros(shape, inputs[0].dtype));
  });
}

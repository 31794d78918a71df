// onnx::proto: models and tensors in protobuf's wire format.
#include "onnx/proto.h"

#include "target.h"

BP_FUZZ_TARGET(onnx) {
  bp::fuzz::accepted([&] { bp::onnx::proto::parse_model(bytes, "fuzz.onnx"); });
  bp::fuzz::accepted([&] { bp::onnx::proto::parse_tensor(bytes, "fuzz.pb"); });
}

// ONNX's messages (onnx/onnx.proto3 of ONNX 1.12: IR version 8, operator set 17), as far as a computation needs them,
// and their bytes in protobuf's wire format. Called by the exporter and the importer.
//
// Written out here instead of generated: a library that is linked into other programs should not bring protobuf into
// them, whose versions clash, and tensors stay views of the file until they are converted.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bp/array.h"
#include "bp/io.h"

namespace bp::onnx::proto {

// TensorProto.DataType.
enum class Elem : int {
  undefined = 0,
  f32 = 1,
  u8 = 2,
  i8 = 3,
  u16 = 4,
  i16 = 5,
  i32 = 6,
  i64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  bf16 = 16
};
Elem elem_of(DType t);
// What values become here: f16 turns into f32, i8, i16 and u16 into i32, u32 and u64 into i64. Throws Error(dtype),
// opened by `where`, for strings, complex numbers and what later releases added.
DType dtype_of_elem(int elem, std::string_view where);

struct Graph;

struct Attribute {
  // AttributeProto.AttributeType.
  enum Type {
    undefined = 0,
    number = 1,
    integer = 2,
    text = 3,
    tensor = 4,
    graph = 5,
    numbers = 6,
    integers = 7,
    texts = 8
  };
  std::string name;
  int type = undefined;
  float f = 0;
  std::int64_t i = 0;
  std::string s;
  Array t;
  std::shared_ptr<Graph> g;
  std::vector<float> floats;
  std::vector<std::int64_t> ints;
  std::vector<std::string> strings;

  static Attribute of(std::string name, std::int64_t value);
  static Attribute of(std::string name, double value);
  static Attribute of(std::string name, std::string value);
  static Attribute of(std::string name, std::vector<std::int64_t> values);
  static Attribute of(std::string name, Array value);
  static Attribute of(std::string name, std::shared_ptr<Graph> value);
};

struct Node {
  std::string op, name, domain;
  std::vector<std::string> inputs, outputs;  // "": left out
  std::vector<Attribute> attributes;
};

struct Dim {
  std::int64_t value = -1;  // -1: unknown, perhaps named
  std::string param;
};

struct ValueInfo {
  std::string name;
  int elem = 0;            // 0: no tensor, or unknown
  bool has_shape = false;  // dims: empty for a scalar
  std::vector<Dim> dims;
};

struct Graph {
  std::string name;
  std::vector<Node> nodes;
  std::vector<std::pair<std::string, Array>> initializers;
  std::vector<ValueInfo> inputs, outputs;
};

struct Model {
  std::int64_t ir_version = 0;
  std::string producer, producer_version;
  std::map<std::string, std::int64_t> opsets;  // by domain; "" is ONNX's own
  std::map<std::string, std::string> metadata;
  Graph graph;
};

// Throws Error(format) naming the place for bytes that are no such message, and for what is not read: external data,
// sparse tensors, functions, nesting beyond 32 graphs. Memory is taken for what is there, never for what is claimed.
Model parse_model(io::Bytes bytes, std::string_view name);
// One TensorProto and its name, as ONNX's test data are stored.
std::pair<std::string, Array> parse_tensor(io::Bytes bytes, std::string_view name);

// Written atomically.
void write_model(const std::string& path, const Model& model);
void write_tensor(const std::string& path, const std::string& name, const Array& value);

}  // namespace bp::onnx::proto

// Bytes to ONNX's messages.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <set>

#include "base/error.h"
#include "io/file.h"
#include "onnx/proto.h"

namespace bp::onnx::proto {

namespace {

constexpr int kMaxDepth = 32;  // of graphs within graphs

struct Field {
  int number = 0, type = 0;
  std::uint64_t value = 0;  // types 0, 1 and 5
  io::Bytes bytes;          // type 2
};

// The fields of one message, in their order.
class Reader {
 public:
  Reader(io::Bytes bytes, std::string_view file) : rest_(bytes), file_(file) {}

  bool next(Field& f) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    f.number = static_cast<int>(tag >> 3 & 0x1fffffff);
    f.type = static_cast<int>(tag & 7);
    if (f.number == 0) damaged("a field has the number 0");
    switch (f.type) {
      case 0: f.value = varint(); return true;
      case 1: f.value = io::load<std::uint64_t>(take(8).data(), false); return true;
      case 2: f.bytes = take(varint()); return true;
      case 5: f.value = io::load<std::uint32_t>(take(4).data(), false); return true;
      default: damaged(fmt::format("a field of wire type {}", f.type));
    }
  }
  std::uint64_t varint() {
    std::uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto b = std::to_integer<std::uint64_t>(take(1)[0]);
      v |= (b & 0x7f) << shift;
      if (b < 0x80) return v;
    }
    damaged("a number of more than ten bytes");
  }
  io::Bytes take(std::uint64_t bytes) {
    if (bytes > rest_.size()) damaged(fmt::format("a field claims {} bytes, {} are there", bytes, rest_.size()));
    const io::Bytes out = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return out;
  }
  bool done() const { return rest_.empty(); }

 private:
  [[noreturn]] void damaged(std::string_view what) const {
    fail(ErrorKind::format, "{}: not an ONNX file, or damaged: {}", file_, what);
  }
  io::Bytes rest_;
  std::string_view file_;
};

std::string text_of(const Field& f) { return {reinterpret_cast<const char*>(f.bytes.data()), f.bytes.size()}; }
float float_of(std::uint64_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits)); }

// A repeated number: packed into one field, or one field each. `width`: 0 for varints, else its bytes.
void append_numbers(const Field& f, std::size_t width, std::string_view file, std::vector<std::uint64_t>& to) {
  if (f.type != 2) {
    to.push_back(f.value);
    return;
  }
  Reader r(f.bytes, file);
  while (!r.done()) {
    if (width == 0)
      to.push_back(r.varint());
    else if (width == 4)
      to.push_back(io::load<std::uint32_t>(r.take(4).data(), false));
    else
      to.push_back(io::load<std::uint64_t>(r.take(8).data(), false));
  }
}

// ---- Tensors -------------------------------------------------------------------------------------------------------

struct StoredTensor {
  std::string name;
  std::vector<std::uint64_t> dims;
  int elem = 0;
  bool has_raw = false, external = false;
  io::Bytes raw;
  std::vector<std::uint64_t> values;  // of a typed list, as they were stored
};

StoredTensor stored_tensor(io::Bytes bytes, std::string_view file) {
  StoredTensor t;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    switch (f.number) {
      case 1: append_numbers(f, 0, file, t.dims); break;
      case 2: t.elem = static_cast<int>(f.value); break;
      case 4: append_numbers(f, 4, file, t.values); break;   // float_data
      case 5:                                                // int32_data, also of bool, 8 and 16 bits
      case 7:                                                // int64_data
      case 11: append_numbers(f, 0, file, t.values); break;  // uint64_data
      case 10: append_numbers(f, 8, file, t.values); break;  // double_data
      case 8: t.name = text_of(f); break;
      case 9: t.has_raw = true, t.raw = f.bytes; break;
      case 13: t.external = true; break;
      case 14: t.external = t.external || f.value == 1; break;
      default: break;
    }
  }
  return t;
}

std::size_t stored_size(Elem e) {
  switch (e) {
    case Elem::u8:
    case Elem::i8:
    case Elem::boolean: return 1;
    case Elem::u16:
    case Elem::i16:
    case Elem::f16:
    case Elem::bf16: return 2;
    case Elem::f64:
    case Elem::i64:
    case Elem::u64: return 8;
    default: return 4;
  }
}

Shape shape_of(const StoredTensor& t, std::string_view file) {
  if (t.dims.size() > static_cast<std::size_t>(Shape::kMaxRank))
    fail(ErrorKind::format, "{}: tensor \"{}\" has {} dimensions, at most {} are supported", file, t.name,
         t.dims.size(), Shape::kMaxRank);
  Shape shape;
  for (const std::uint64_t n : t.dims) {
    if (n > std::uint64_t{1} << 62) fail(ErrorKind::format, "{}: tensor \"{}\" has a negative size", file, t.name);
    shape.push_back(static_cast<std::int64_t>(n));
  }
  return shape;
}

// Element i of the tensor, from raw bytes or as it stood in a list.
template <class Stored> Stored stored_value(const StoredTensor& t, std::size_t i) {
  if (t.has_raw) return io::load<Stored>(t.raw.data() + i * sizeof(Stored), false);
  const std::uint64_t v = t.values[i];
  if constexpr (std::is_same_v<Stored, float>) return float_of(v);
  if constexpr (std::is_same_v<Stored, double>) return std::bit_cast<double>(v);
  if constexpr (std::is_integral_v<Stored>) return static_cast<Stored>(v);
}

template <class Stored, class T> void fill(const StoredTensor& t, Array& out) {
  T* to = out.mutable_data<T>();
  for (std::size_t i = 0, n = static_cast<std::size_t>(out.numel()); i < n; ++i)
    to[i] = static_cast<T>(stored_value<Stored>(t, i));
}

void fill_values(const StoredTensor& t, Array& out, std::string_view file) {
  const auto n = static_cast<std::size_t>(out.numel());
  switch (static_cast<Elem>(t.elem)) {
    case Elem::f32: return fill<float, float>(t, out);
    case Elem::f64: return fill<double, double>(t, out);
    case Elem::i64: return fill<std::int64_t, std::int64_t>(t, out);
    case Elem::i32: return fill<std::int32_t, std::int32_t>(t, out);
    case Elem::u8: return fill<std::uint8_t, std::uint8_t>(t, out);
    case Elem::boolean: return fill<std::uint8_t, bool>(t, out);
    case Elem::i8: return fill<std::int8_t, std::int32_t>(t, out);
    case Elem::i16: return fill<std::int16_t, std::int32_t>(t, out);
    case Elem::u16: return fill<std::uint16_t, std::int32_t>(t, out);
    case Elem::u32: return fill<std::uint32_t, std::int64_t>(t, out);
    case Elem::f16:
      for (std::size_t i = 0; i < n; ++i)
        out.mutable_data<float>()[i] = io::half_to_float(stored_value<std::uint16_t>(t, i));
      return;
    case Elem::bf16:
      for (std::size_t i = 0; i < n; ++i)
        out.mutable_data<bfloat16>()[i] = std::bit_cast<bfloat16>(stored_value<std::uint16_t>(t, i));
      return;
    default: break;
  }
  fill<std::int64_t, std::int64_t>(t, out);
  for (const std::int64_t v : out.values<std::int64_t>())
    if (v < 0)
      fail(ErrorKind::format, "{}: tensor \"{}\": the unsigned value {} does not fit i64", file, t.name,
           static_cast<std::uint64_t>(v));
}

std::pair<std::string, Array> tensor_of(io::Bytes bytes, std::string_view file) {
  const StoredTensor t = stored_tensor(bytes, file);
  if (t.external)
    fail(ErrorKind::format, "{}: tensor \"{}\" lies in another file (external data), which is not read", file, t.name);
  const DType dtype = dtype_of_elem(t.elem, fmt::format("{}: tensor \"{}\"", file, t.name));
  const Shape shape = shape_of(t, file);
  const std::size_t size = stored_size(static_cast<Elem>(t.elem));
  const std::uint64_t there = t.has_raw ? t.raw.size() / size : t.values.size(), claimed = io::claimed_elements(shape);
  if (claimed != there || (t.has_raw && t.raw.size() % size != 0))
    fail(ErrorKind::format, "{}: tensor \"{}\" claims {} values in shape {}, {} are there", file, t.name, claimed,
         shape, there);
  std::pair<std::string, Array> out(t.name, Array::empty(dtype, shape));
  fill_values(t, out.second, file);
  return out;
}

// ---- Graphs --------------------------------------------------------------------------------------------------------

Graph graph_of(io::Bytes bytes, std::string_view file, int depth);

Attribute attribute_of(io::Bytes bytes, std::string_view file, int depth) {
  Attribute a;
  std::vector<std::uint64_t> floats, ints;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    switch (f.number) {
      case 1: a.name = text_of(f); break;
      case 2: a.f = float_of(f.value); break;
      case 3: a.i = static_cast<std::int64_t>(f.value); break;
      case 4: a.s = text_of(f); break;
      case 5: a.t = tensor_of(f.bytes, file).second; break;
      case 6: a.g = std::make_shared<Graph>(graph_of(f.bytes, file, depth + 1)); break;
      case 7: append_numbers(f, 4, file, floats); break;
      case 8: append_numbers(f, 0, file, ints); break;
      case 9: a.strings.push_back(text_of(f)); break;
      case 20: a.type = static_cast<int>(f.value); break;
      default: break;
    }
  }
  for (const std::uint64_t v : floats) a.floats.push_back(float_of(v));
  for (const std::uint64_t v : ints) a.ints.push_back(static_cast<std::int64_t>(v));
  return a;
}

Node node_of(io::Bytes bytes, std::string_view file, int depth) {
  Node n;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    switch (f.number) {
      case 1: n.inputs.push_back(text_of(f)); break;
      case 2: n.outputs.push_back(text_of(f)); break;
      case 3: n.name = text_of(f); break;
      case 4: n.op = text_of(f); break;
      case 5: n.attributes.push_back(attribute_of(f.bytes, file, depth)); break;
      case 7: n.domain = text_of(f); break;
      default: break;
    }
  }
  return n;
}

Dim dim_of(io::Bytes bytes, std::string_view file) {
  Dim d;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    if (f.number == 1) d.value = static_cast<std::int64_t>(f.value);
    if (f.number == 2) d.param = text_of(f);
  }
  return d;
}

// A TypeProto.Tensor.
void read_tensor_type(io::Bytes bytes, std::string_view file, ValueInfo& v) {
  Field f, dim;
  for (Reader r(bytes, file); r.next(f);) {
    if (f.number == 1) v.elem = static_cast<int>(f.value);
    if (f.number != 2) continue;
    v.has_shape = true;
    for (Reader dims(f.bytes, file); dims.next(dim);)
      if (dim.number == 1) v.dims.push_back(dim_of(dim.bytes, file));
  }
}

ValueInfo value_info_of(io::Bytes bytes, std::string_view file) {
  ValueInfo v;
  Field f, type;
  for (Reader r(bytes, file); r.next(f);) {
    if (f.number == 1) v.name = text_of(f);
    if (f.number != 2) continue;
    for (Reader types(f.bytes, file); types.next(type);)
      if (type.number == 1) read_tensor_type(type.bytes, file, v);
  }
  return v;
}

Graph graph_of(io::Bytes bytes, std::string_view file, int depth) {
  if (depth > kMaxDepth) fail(ErrorKind::format, "{}: graphs are nested deeper than {}", file, kMaxDepth);
  Graph g;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    switch (f.number) {
      case 1: g.nodes.push_back(node_of(f.bytes, file, depth)); break;
      case 2: g.name = text_of(f); break;
      case 5: g.initializers.push_back(tensor_of(f.bytes, file)); break;
      case 11: g.inputs.push_back(value_info_of(f.bytes, file)); break;
      case 12: g.outputs.push_back(value_info_of(f.bytes, file)); break;
      case 15: fail(ErrorKind::format, "{}: sparse initializers are not read", file);
      default: break;
    }
  }
  return g;
}

std::pair<std::string, std::string> entry_of(io::Bytes bytes, std::string_view file) {
  std::pair<std::string, std::string> out;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    if (f.number == 1) out.first = text_of(f);
    if (f.number == 2) out.second = text_of(f);
  }
  return out;
}

std::pair<std::string, std::int64_t> opset_of(io::Bytes bytes, std::string_view file) {
  std::pair<std::string, std::int64_t> out;
  Field f;
  for (Reader r(bytes, file); r.next(f);) {
    if (f.number == 1) out.first = text_of(f);
    if (f.number == 2) out.second = static_cast<std::int64_t>(f.value);
  }
  if (out.first == "ai.onnx") out.first.clear();
  return out;
}

}  // namespace

DType dtype_of_elem(int elem, std::string_view where) {
  switch (static_cast<Elem>(elem)) {
    case Elem::f64: return DType::f64;
    case Elem::f32:
    case Elem::f16: return DType::f32;
    case Elem::bf16: return DType::bf16;
    case Elem::i64:
    case Elem::u32:
    case Elem::u64: return DType::i64;
    case Elem::i32:
    case Elem::i16:
    case Elem::u16:
    case Elem::i8: return DType::i32;
    case Elem::u8: return DType::u8;
    case Elem::boolean: return DType::boolean;
    default: break;
  }
  fail(ErrorKind::dtype, "{}: elements of ONNX type {}{} are not supported: expected numbers of 8 to 64 bits or bool",
       where, elem, elem == static_cast<int>(Elem::string) ? " (strings)" : "");
}

Model parse_model(io::Bytes bytes, std::string_view name) {
  Model m;
  bool has_graph = false;
  Field f;
  for (Reader r(bytes, name); r.next(f);) {
    switch (f.number) {
      case 1: m.ir_version = static_cast<std::int64_t>(f.value); break;
      case 2: m.producer = text_of(f); break;
      case 3: m.producer_version = text_of(f); break;
      case 7: m.graph = graph_of(f.bytes, name, 0), has_graph = true; break;
      case 8: m.opsets.insert(opset_of(f.bytes, name)); break;
      case 14: m.metadata.insert(entry_of(f.bytes, name)); break;
      case 25: fail(ErrorKind::format, "{}: functions local to a model are not read", name);
      default: break;
    }
  }
  if (!has_graph) fail(ErrorKind::format, "{}: not an ONNX file: it holds no graph", name);
  return m;
}

std::pair<std::string, Array> parse_tensor(io::Bytes bytes, std::string_view name) { return tensor_of(bytes, name); }

}  // namespace bp::onnx::proto

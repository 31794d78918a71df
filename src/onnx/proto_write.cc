// ONNX's messages to bytes.
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "base/error.h"
#include "onnx/proto.h"

namespace bp::onnx::proto {

namespace {

constexpr std::uint64_t kMaxMessage = 0x7fffffff;  // protobuf's readers take no more than 2 GiB

// A message under way: text, and tensors that are written from where they lie.
class Wire {
 public:
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) text_ += static_cast<char>(v | 0x80);
    text_ += static_cast<char>(v);
  }
  void integer(int field, std::int64_t v) {
    tag(field, 0);
    varint(static_cast<std::uint64_t>(v));
  }
  void text(int field, std::string_view v) {
    tag(field, 2);
    varint(v.size());
    text_ += v;
  }
  void number(int field, float v) {
    tag(field, 5);
    const auto bits = std::bit_cast<std::uint32_t>(v);
    for (int i = 0; i < 4; ++i) text_ += static_cast<char>(bits >> (8 * i));
  }
  void raw(int field, const Array& a) {
    tag(field, 2);
    varint(a.bytes());
    pieces_.emplace_back(std::move(text_), a);
    text_.clear();
    bytes_ += pieces_.back().first.size() + a.bytes();
  }
  void message(int field, Wire&& inner) {
    tag(field, 2);
    varint(inner.bytes());
    for (auto& [before, array] : inner.pieces_) {
      text_ += before;
      bytes_ += text_.size() + array.bytes();
      pieces_.emplace_back(std::move(text_), std::move(array));
      text_.clear();
    }
    text_ += inner.text_;
  }
  std::uint64_t bytes() const { return bytes_ + text_.size(); }
  void write(io::AtomicWriter& out) const {
    for (const auto& [before, array] : pieces_) {
      out.write(before);
      if (array.bytes() != 0) out.write(array.buffer.data(), array.bytes());
    }
    out.write(text_);
  }

 private:
  void tag(int field, int type) { varint(static_cast<std::uint64_t>(field << 3 | type)); }
  std::vector<std::pair<std::string, Array>> pieces_;
  std::string text_;         // behind the last piece
  std::uint64_t bytes_ = 0;  // of the pieces
};

Wire wire_of(const std::string& name, const Array& a) {
  Wire w;
  for (const std::int64_t n : a.shape) w.integer(1, n);
  w.integer(2, static_cast<int>(elem_of(a.dtype)));
  if (!name.empty()) w.text(8, name);
  w.raw(9, a);
  return w;
}

Wire wire_of(const Graph& g);

Wire wire_of(const Attribute& a) {
  Wire w;
  w.text(1, a.name);
  switch (a.type) {
    case Attribute::number: w.number(2, a.f); break;
    case Attribute::integer: w.integer(3, a.i); break;
    case Attribute::text: w.text(4, a.s); break;
    case Attribute::tensor: w.message(5, wire_of("", a.t)); break;
    case Attribute::graph: w.message(6, wire_of(*a.g)); break;
    case Attribute::numbers:
      for (const float f : a.floats) w.number(7, f);
      break;
    case Attribute::integers:
      for (const std::int64_t i : a.ints) w.integer(8, i);
      break;
    case Attribute::texts:
      for (const std::string& s : a.strings) w.text(9, s);
      break;
    default: break;
  }
  w.integer(20, a.type);
  return w;
}

Wire wire_of(const Node& n) {
  Wire w;
  for (const std::string& in : n.inputs) w.text(1, in);
  for (const std::string& out : n.outputs) w.text(2, out);
  w.text(3, n.name);
  w.text(4, n.op);
  for (const Attribute& a : n.attributes) w.message(5, wire_of(a));
  if (!n.domain.empty()) w.text(7, n.domain);
  return w;
}

Wire wire_of(const ValueInfo& v) {
  Wire shape;
  for (const Dim& d : v.dims) {
    Wire dim;
    if (d.value >= 0)
      dim.integer(1, d.value);
    else if (!d.param.empty())
      dim.text(2, d.param);
    shape.message(1, std::move(dim));
  }
  Wire tensor, type, w;
  tensor.integer(1, v.elem);
  if (v.has_shape) tensor.message(2, std::move(shape));
  type.message(1, std::move(tensor));
  w.text(1, v.name);
  w.message(2, std::move(type));
  return w;
}

Wire wire_of(const Graph& g) {
  Wire w;
  for (const Node& n : g.nodes) w.message(1, wire_of(n));
  w.text(2, g.name);
  for (const auto& [name, array] : g.initializers) w.message(5, wire_of(name, array));
  for (const ValueInfo& v : g.inputs) w.message(11, wire_of(v));
  for (const ValueInfo& v : g.outputs) w.message(12, wire_of(v));
  return w;
}

Wire wire_of(const Model& m) {
  Wire w;
  w.integer(1, m.ir_version);
  w.text(2, m.producer);
  w.text(3, m.producer_version);
  w.message(7, wire_of(m.graph));
  for (const auto& [domain, version] : m.opsets) {
    Wire set;
    set.text(1, domain);
    set.integer(2, version);
    w.message(8, std::move(set));
  }
  for (const auto& [key, value] : m.metadata) {
    Wire entry;
    entry.text(1, key);
    entry.text(2, value);
    w.message(14, std::move(entry));
  }
  return w;
}

void write(const std::string& path, const Wire& w) {
  static_assert(std::endian::native == std::endian::little, "values are written as they lie in memory");
  if (w.bytes() > kMaxMessage)
    fail(ErrorKind::value, "{}: {} bytes exceed the 2 GiB of an ONNX file without external data, which is not written",
         path, w.bytes());
  io::AtomicWriter out(path);
  w.write(out);
  out.commit();
}

}  // namespace

Elem elem_of(DType t) {
  switch (t) {
    case DType::f64: return Elem::f64;
    case DType::f32: return Elem::f32;
    case DType::bf16: return Elem::bf16;
    case DType::i64: return Elem::i64;
    case DType::i32: return Elem::i32;
    case DType::u8: return Elem::u8;
    case DType::boolean: break;
  }
  return Elem::boolean;
}

Attribute Attribute::of(std::string name, std::int64_t value) {
  Attribute a;
  a.name = std::move(name), a.type = integer, a.i = value;
  return a;
}
Attribute Attribute::of(std::string name, double value) {
  Attribute a;
  a.name = std::move(name), a.type = number, a.f = static_cast<float>(value);
  return a;
}
Attribute Attribute::of(std::string name, std::string value) {
  Attribute a;
  a.name = std::move(name), a.type = text, a.s = std::move(value);
  return a;
}
Attribute Attribute::of(std::string name, std::vector<std::int64_t> values) {
  Attribute a;
  a.name = std::move(name), a.type = integers, a.ints = std::move(values);
  return a;
}
Attribute Attribute::of(std::string name, Array value) {
  Attribute a;
  a.name = std::move(name), a.type = tensor, a.t = std::move(value);
  return a;
}
Attribute Attribute::of(std::string name, std::shared_ptr<Graph> value) {
  Attribute a;
  a.name = std::move(name), a.type = graph, a.g = std::move(value);
  return a;
}

void write_model(const std::string& path, const Model& model) { write(path, wire_of(model)); }
void write_tensor(const std::string& path, const std::string& name, const Array& value) {
  write(path, wire_of(name, value));
}

}  // namespace bp::onnx::proto

// NPY, NumPy's array format: magic, version, a header that is a Python dict literal, then the values.
// numpy.lib.format documents it.
#include <charconv>
#include <limits>
#include <optional>

#include "io/array_file.h"
#include "io/file.h"
#include "io/npy.h"

namespace bp::io {

namespace {
constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicSize = 6;

struct NpyHeader {
  std::string descr;
  bool fortran = false;
  Shape shape;
};

// Reads the dict literal {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } and nothing else of Python.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  NpyHeader parse() {
    std::optional<std::string> descr;
    std::optional<bool> fortran;
    std::optional<Shape> shape;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !descr)
        descr = description();
      else if (key == "fortran_order" && !fortran)
        fortran = boolean_literal();
      else if (key == "shape" && !shape)
        shape = tuple();
      else
        error("an unknown or repeated key \"" + key + "\"");
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) error("text behind the dict");
    if (!descr || !fortran || !shape) error("descr, fortran_order or shape is missing");
    return {*descr, *fortran, *shape};
  }

 private:
  [[noreturn]] void error(std::string_view what) const {
    fail(ErrorKind::format, "{}: bad NPY header at character {}: {}", name_, at_, what);
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) error(fmt::format("expected '{}'", c));
  }
  std::string string() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') error("expected a string");
    const auto close = text_.find(quote, at_ + 1);
    if (close == std::string_view::npos) error("a string is not closed");
    std::string s(text_.substr(at_ + 1, close - at_ - 1));
    at_ = close + 1;
    return s;
  }
  std::string description() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[')
      fail(ErrorKind::format, "{}: an array of records cannot be read: save each field as an array of numbers", name_);
    return string();
  }
  bool boolean_literal() {
    skip_space();
    for (const auto& [word, value] : {std::pair{"True", true}, std::pair{"False", false}}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += std::strlen(word);
        return value;
      }
    }
    error("expected True or False");
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t n = 0;
      const auto [end, code] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), n);
      if (code != std::errc{} || n < 0) error("expected a size");
      at_ = static_cast<std::size_t>(end - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // written by Python 2
      if (shape.rank() == Shape::kMaxRank)
        fail(ErrorKind::format, "{}: more than {} dimensions are not supported", name_, Shape::kMaxRank);
      shape.push_back(n);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_, name_;
  std::size_t at_ = 0;
};

// How values are stored, and what they become.
struct NpyType {
  std::string_view code;  // of descr, without the byte order
  std::size_t size;
  DType dtype;
};
constexpr NpyType kNpyTypes[] = {{"f8", 8, DType::f64}, {"f4", 4, DType::f32}, {"f2", 2, DType::f32},
                                 {"i8", 8, DType::i64}, {"i4", 4, DType::i32}, {"i2", 2, DType::i32},
                                 {"i1", 1, DType::i32}, {"u8", 8, DType::i64}, {"u4", 4, DType::i64},
                                 {"u2", 2, DType::i32}, {"u1", 1, DType::u8},  {"b1", 1, DType::boolean}};

const NpyType& npy_type_of(const NpyHeader& header, std::string_view name) {
  const std::string_view d = header.descr;
  const bool order = !d.empty() && (d[0] == '<' || d[0] == '>' || d[0] == '|' || d[0] == '=');
  for (const NpyType& t : kNpyTypes)
    if (order && d.substr(1) == t.code && (d[0] != '|' || t.size == 1)) return t;
  fail(ErrorKind::format,
       "{}: element type \"{}\" cannot be read: expected floats of 2, 4 or 8 bytes, integers of 1 to 8 bytes or bool; "
       "convert it with astype() before saving",
       name, d);
}

// Calls put(i, source) for element number i in row-major order, stored as element number `source`.
template <class Put> void for_each_element(const NpyHeader& header, Put&& put) {
  const Shape& shape = header.shape;
  const std::int64_t n = shape.numel();
  if (!header.fortran || shape.rank() < 2) {
    for (std::int64_t i = 0; i < n; ++i) put(i, i);
    return;
  }
  Shape step = shape, index = shape;  // column-major strides
  std::int64_t stride = 1, source = 0;
  for (int k = 0; k < shape.rank(); ++k) {
    step[k] = stride;
    stride *= shape[k];
    index[k] = 0;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    put(i, source);
    for (int k = shape.rank() - 1; k >= 0; --k) {
      source += step[k];
      if (++index[k] < shape[k]) break;
      source -= index[k] * step[k];
      index[k] = 0;
    }
  }
}

template <class Stored, class T> void copy_values(const std::byte* from, const NpyHeader& header, Array& out) {
  const bool big = header.descr[0] == '>' || (header.descr[0] == '=' && std::endian::native == std::endian::big);
  T* to = out.mutable_data<T>();
  for_each_element(header, [&](std::int64_t i, std::int64_t source) {
    to[i] = static_cast<T>(load<Stored>(from + static_cast<std::size_t>(source) * sizeof(Stored), big));
  });
}

void copy_halves(const std::byte* from, const NpyHeader& header, Array& out) {
  const bool big = header.descr[0] == '>' || (header.descr[0] == '=' && std::endian::native == std::endian::big);
  float* to = out.mutable_data<float>();
  for_each_element(header, [&](std::int64_t i, std::int64_t source) {
    to[i] = half_to_float(load<std::uint16_t>(from + source * 2, big));
  });
}

void refuse_wrapped(const Array& out, std::string_view name) {
  for (const std::int64_t v : out.values<std::int64_t>())
    if (v < 0)
      fail(ErrorKind::format, "{}: the unsigned value {} does not fit i64", name, static_cast<std::uint64_t>(v));
}

// Whether values lie in the file as in an Array.
bool is_plain(const NpyHeader& header, const NpyType& type) {
  const bool ordered = !header.fortran && header.descr[0] != '>' && std::endian::native == std::endian::little;
  return ordered && type.size == size_of(type.dtype) && type.code[0] != 'b' && type.code != "u8";
}

Array values_of(const std::byte* from, const NpyHeader& header, const NpyType& type, std::string_view name) {
  Array out = Array::empty(type.dtype, header.shape);
  if (is_plain(header, type)) {
    if (out.bytes() != 0) std::memcpy(out.buffer.mutable_data(), from, out.bytes());
    return out;
  }
  if (type.code == "f8") copy_values<double, double>(from, header, out);
  if (type.code == "f4") copy_values<float, float>(from, header, out);
  if (type.code == "f2") copy_halves(from, header, out);
  if (type.code == "i8") copy_values<std::int64_t, std::int64_t>(from, header, out);
  if (type.code == "i4") copy_values<std::int32_t, std::int32_t>(from, header, out);
  if (type.code == "i2") copy_values<std::int16_t, std::int32_t>(from, header, out);
  if (type.code == "i1") copy_values<std::int8_t, std::int32_t>(from, header, out);
  if (type.code == "u4") copy_values<std::uint32_t, std::int64_t>(from, header, out);
  if (type.code == "u2") copy_values<std::uint16_t, std::int32_t>(from, header, out);
  if (type.code == "u1") copy_values<std::uint8_t, std::uint8_t>(from, header, out);
  if (type.code == "b1") copy_values<std::uint8_t, bool>(from, header, out);
  if (type.code == "u8") {
    copy_values<std::uint64_t, std::int64_t>(from, header, out);
    refuse_wrapped(out, name);
  }
  return out;
}

std::string_view descr_of(DType t) {
  switch (t) {
    case DType::f64: return "<f8";
    case DType::bf16:
    case DType::f32: return "<f4";
    case DType::i64: return "<i8";
    case DType::i32: return "<i4";
    case DType::u8: return "|u1";
    case DType::boolean: return "|b1";
  }
  return "";
}
}  // namespace

Stored npy_layout(Bytes head, std::uint64_t size, std::string_view name) {
  if (head.size() < 10 || std::memcmp(head.data(), kMagic, kMagicSize) != 0)
    fail(ErrorKind::format, "{}: not an NPY file: the magic \"\\x93NUMPY\" is missing", name);
  const int version = std::to_integer<int>(head[6]);
  if (version < 1 || version > 3)
    fail(ErrorKind::format, "{}: NPY version {} is unknown: expected 1, 2 or 3", name, version);
  const std::size_t prefix = version == 1 ? 10 : 12;
  if (head.size() < prefix) fail(ErrorKind::format, "{}: the NPY header is truncated", name);
  const std::size_t length =
      version == 1 ? load<std::uint16_t>(head.data() + 8, false) : load<std::uint32_t>(head.data() + 8, false);
  if (length > head.size() - prefix)
    fail(ErrorKind::format, "{}: the NPY header claims {} bytes, {} are there", name, length, head.size() - prefix);
  const std::string_view text(reinterpret_cast<const char*>(head.data()) + prefix, length);
  const NpyHeader header = HeaderParser(text, name).parse();
  const NpyType& type = npy_type_of(header, name);
  Stored stored{
      .type = header.descr, .offset = prefix + length, .shape = header.shape, .size = type.size, .dtype = type.dtype};
  check_claim(stored, size, name);
  stored.plain = is_plain(header, type);
  stored.by_columns = header.fortran && header.shape.rank() > 1;
  stored.decode = [header, &type, name = std::string(name)](const std::byte* from, const Shape& shape) {
    NpyHeader part = header;
    part.shape = shape;
    return values_of(from, part, type, name);
  };
  return stored;
}

Array parse_npy(Bytes bytes, std::string_view name) {
  const Stored stored = npy_layout(bytes, bytes.size(), name);
  return stored.decode(bytes.data() + stored.offset, stored.shape);
}

Array read_npy(const std::string& path, const ReadLimits& limits) {
  return parse_npy(bytes_of(read_file(path, limits)), path);
}

std::string npy_text(const Array& array) {
  static_assert(std::endian::native == std::endian::little, "values are written as they lie in memory");
  const Array values = array.dtype == DType::bf16 ? convert(array, DType::f32) : array;
  std::string shape;
  for (std::int64_t n : array.shape) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", n);
  if (array.shape.rank() == 1) shape += ",";
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr_of(array.dtype), shape);
  header.append((64 - (kMagicSize + 4 + header.size() + 1) % 64) % 64, ' ');  // values begin at a multiple of 64
  header += '\n';
  std::string out(kMagic, kMagicSize);
  out += std::string("\x01\x00", 2);
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  out += header;
  out.append(values.buffer.as<char>(), values.bytes());
  return out;
}

void write_npy(const std::string& path, const Array& array) { write_file(path, npy_text(array)); }

}  // namespace bp::io

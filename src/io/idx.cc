// IDX, the format of MNIST: 0, 0, type, rank, then big-endian 32-bit sizes, then big-endian values, row-major.
#include "io/array_file.h"

namespace bp::io {

namespace {
struct Type {
  unsigned code;
  std::size_t size;
  DType dtype;  // after reading
};
constexpr Type kTypes[] = {{0x08, 1, DType::u8},  {0x09, 1, DType::i32}, {0x0B, 2, DType::i32},
                           {0x0C, 4, DType::i32}, {0x0D, 4, DType::f32}, {0x0E, 8, DType::f64}};

template <class Stored, class T> void read_values(const std::byte* from, std::int64_t n, T* to) {
  for (std::int64_t i = 0; i < n; ++i)
    to[i] = static_cast<T>(load<Stored>(from + static_cast<std::size_t>(i) * sizeof(Stored), true));
}

void read_values(const std::byte* from, const Type& type, Array& out) {
  const std::int64_t n = out.numel();
  switch (type.code) {
    case 0x08: std::memcpy(out.mutable_data<std::uint8_t>(), from, static_cast<std::size_t>(n)); break;
    case 0x09: read_values<std::int8_t>(from, n, out.mutable_data<std::int32_t>()); break;
    case 0x0B: read_values<std::int16_t>(from, n, out.mutable_data<std::int32_t>()); break;
    case 0x0C: read_values<std::int32_t>(from, n, out.mutable_data<std::int32_t>()); break;
    case 0x0D: read_values<float>(from, n, out.mutable_data<float>()); break;
    default: read_values<double>(from, n, out.mutable_data<double>()); break;
  }
}

const Type& idx_type_of(Bytes bytes, std::string_view name) {
  if (bytes.size() < 4) fail(ErrorKind::format, "{}: {} bytes are too few for an IDX file", name, bytes.size());
  if (bytes[0] != std::byte{0} || bytes[1] != std::byte{0})
    fail(ErrorKind::format, "{}: not an IDX file: it begins with {:#04x} {:#04x} instead of two zeros", name,
         std::to_integer<int>(bytes[0]), std::to_integer<int>(bytes[1]));
  for (const Type& t : kTypes)
    if (std::byte(t.code) == bytes[2]) return t;
  fail(ErrorKind::format, "{}: unknown IDX type {:#04x}: expected 0x08, 0x09, 0x0b, 0x0c, 0x0d or 0x0e", name,
       std::to_integer<int>(bytes[2]));
}
}  // namespace

Stored idx_layout(Bytes head, std::uint64_t size, std::string_view name) {
  const Type& type = idx_type_of(head, name);
  const int rank = std::to_integer<int>(head[3]);
  if (rank > Shape::kMaxRank)
    fail(ErrorKind::format, "{}: {} dimensions, at most {} are supported", name, rank, Shape::kMaxRank);
  const std::size_t header = 4 + 4 * static_cast<std::size_t>(rank);
  if (head.size() < header) fail(ErrorKind::format, "{}: the IDX header is truncated", name);
  Stored stored{
      .type = std::to_string(type.code), .offset = header, .shape = {}, .size = type.size, .dtype = type.dtype};
  for (int i = 0; i < rank; ++i)
    stored.shape.push_back(load<std::uint32_t>(head.data() + 4 + 4 * static_cast<std::size_t>(i), true));
  check_claim(stored, size, name);
  stored.plain = type.code == 0x08;
  stored.decode = [&type](const std::byte* from, const Shape& shape) {
    Array out = Array::empty(type.dtype, shape);
    read_values(from, type, out);
    return out;
  };
  return stored;
}

Array parse_idx(Bytes bytes, std::string_view name) {
  const Stored stored = idx_layout(bytes, bytes.size(), name);
  return stored.decode(bytes.data() + stored.offset, stored.shape);
}

Array read_idx(const std::string& path, const ReadLimits& limits) {
  return parse_idx(bytes_of(read_file(path, limits)), path);
}

void write_idx(const std::string& path, const Array& array) {
  const Type* type = nullptr;
  for (const Type& t : kTypes)
    if (t.dtype == array.dtype && t.size == size_of(array.dtype)) type = &t;
  if (type == nullptr) fail(ErrorKind::dtype, "{}: IDX cannot hold {}", path, name_of(array.dtype));
  AtomicWriter out(path);
  const std::uint8_t magic[4] = {0, 0, static_cast<std::uint8_t>(type->code),
                                 static_cast<std::uint8_t>(array.shape.rank())};
  out.write(magic, 4);
  for (std::int64_t n : array.shape) {
    if (n > 0xffffffff) fail(ErrorKind::shape, "{}: IDX sizes have 32 bits, {} does not fit", path, n);
    const std::uint8_t be[4] = {static_cast<std::uint8_t>(n >> 24), static_cast<std::uint8_t>(n >> 16),
                                static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)};
    out.write(be, 4);
  }
  const auto* from = array.buffer.as<std::byte>();
  for (std::size_t i = 0; i < array.bytes(); i += type->size) {
    std::array<std::byte, 8> value{};
    for (std::size_t k = 0; k < type->size; ++k) value[k] = from[i + type->size - 1 - k];
    out.write(value.data(), type->size);
  }
  out.commit();
}

}  // namespace bp::io

// safetensors: 8 bytes of header size, a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes.
// https://github.com/huggingface/safetensors#format
#include <fmt/format.h>

#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "io/file.h"

namespace bp::io {

namespace {
using Json = nlohmann::json;

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the bound of the reference implementation
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kChecksum = "bp.crc32";

struct Entry {
  std::string name, dtype;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // in the data section
};

struct Header {
  std::vector<Entry> entries;  // by position
  std::map<std::string, std::string> metadata;
  std::optional<std::string> checksum;
};

struct StoredType {
  std::string_view code;
  std::size_t size;
  DType dtype;
};
constexpr StoredType kStoredTypes[] = {{"F64", 8, DType::f64},      {"F32", 4, DType::f32}, {"BF16", 2, DType::bf16},
                                       {"I64", 8, DType::i64},      {"I32", 4, DType::i32}, {"U8", 1, DType::u8},
                                       {"BOOL", 1, DType::boolean}, {"F16", 2, DType::f32}};

const StoredType& stored_type_of(const Entry& e, std::string_view file) {
  for (const StoredType& t : kStoredTypes)
    if (t.code == e.dtype) return t;
  fail(ErrorKind::format, "{}: tensor \"{}\" has dtype \"{}\": expected F64, F32, F16, BF16, I64, I32, U8 or BOOL",
       file, e.name, e.dtype);
}

const StoredType& stored_type_of(DType t) {
  for (const StoredType& type : kStoredTypes)
    if (type.dtype == t) return type;  // F16 comes last, behind F32
  return kStoredTypes[0];
}

// ---- Header ------------------------------------------------------------------------------------------------------

// JSON as it is, except that repeated keys, of which nlohmann keeps the last, are refused, as is deep nesting.
Json parse_json(std::string_view text, std::string_view file) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 8) fail(ErrorKind::format, "{}: the header is nested too deeply", file);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      fail(ErrorKind::format, "{}: the name \"{}\" occurs twice", file, parsed.get<std::string>());
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& e) {
    fail(ErrorKind::format, "{}: the header is not valid JSON: {}", file, e.what());
  }
}

std::uint64_t unsigned_of(const Json& value, const Entry& e, std::string_view what, std::string_view file) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > (std::uint64_t{1} << 62))
    fail(ErrorKind::format, "{}: tensor \"{}\": {} holds {}, which is no size", file, e.name, what, value.dump());
  return value.get<std::uint64_t>();
}

Entry entry_of(const std::string& name, const Json& value, std::string_view file) {
  Entry e;
  e.name = name;
  const bool complete = value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
                        value.contains("data_offsets") && value["dtype"].is_string() && value["shape"].is_array() &&
                        value["data_offsets"].is_array() && value["data_offsets"].size() == 2;
  if (!complete)
    fail(ErrorKind::format, "{}: tensor \"{}\" needs exactly dtype, shape and two data_offsets", file, name);
  e.dtype = value["dtype"].get<std::string>();
  if (value["shape"].size() > static_cast<std::size_t>(Shape::kMaxRank))
    fail(ErrorKind::format, "{}: tensor \"{}\" has {} dimensions, at most {} are supported", file, name,
         value["shape"].size(), Shape::kMaxRank);
  for (const Json& n : value["shape"]) e.shape.push_back(static_cast<std::int64_t>(unsigned_of(n, e, "shape", file)));
  e.begin = unsigned_of(value["data_offsets"][0], e, "data_offsets", file);
  e.end = unsigned_of(value["data_offsets"][1], e, "data_offsets", file);
  return e;
}

void read_metadata(const Json& value, Header& header, std::string_view file) {
  if (!value.is_object()) fail(ErrorKind::format, "{}: __metadata__ is not an object", file);
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail(ErrorKind::format, "{}: the metadata \"{}\" is not a string", file, key);
    if (key == kChecksum)
      header.checksum = text.get<std::string>();
    else
      header.metadata[key] = text.get<std::string>();
  }
}

// The tensors must cover [0, data_bytes) one behind the other.
void check_tiling(std::vector<Entry>& entries, std::uint64_t data_bytes, std::string_view file) {
  std::stable_sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    if (std::pair(a.begin, a.end) != std::pair(b.begin, b.end))
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    const auto width = [&](const Entry& e) { return stored_type_of(e, file).size; };
    return width(a) > width(b);  // empty tensors: the order in which write_safetensors summed them up
  });
  std::uint64_t at = 0;
  for (const Entry& e : entries) {
    const StoredType& type = stored_type_of(e, file);
    const std::uint64_t elements = claimed_elements(e.shape);
    if (e.begin > e.end || e.end > data_bytes)
      fail(ErrorKind::format, "{}: tensor \"{}\" claims bytes {} to {} of {}", file, e.name, e.begin, e.end,
           data_bytes);
    if (elements > data_bytes || elements * type.size != e.end - e.begin)
      fail(ErrorKind::format, "{}: tensor \"{}\" of dtype {} and shape {} does not fill its {} bytes", file, e.name,
           e.dtype, e.shape, e.end - e.begin);
    if (e.begin != at)
      fail(ErrorKind::format, "{}: tensor \"{}\" {} at byte {}, expected {}", file, e.name,
           e.begin < at ? "overlaps the one before it" : "leaves a hole before it", e.begin, at);
    at = e.end;
  }
  if (at != data_bytes)
    fail(ErrorKind::format, "{}: {} bytes behind the last tensor belong to none", file, data_bytes - at);
}

Header header_of(std::string_view text, std::uint64_t data_bytes, std::string_view file) {
  const Json json = parse_json(text, file);
  if (!json.is_object()) fail(ErrorKind::format, "{}: the header is not a JSON object", file);
  Header header;
  for (const auto& [name, value] : json.items()) {
    if (name == kMetadata)
      read_metadata(value, header, file);
    else
      header.entries.push_back(entry_of(name, value, file));
  }
  check_tiling(header.entries, data_bytes, file);
  return header;
}

// Bytes of the JSON header; the file has `file_bytes` in all.
std::size_t header_size(const std::byte* first8, std::uint64_t file_bytes, std::string_view file) {
  const auto size = load<std::uint64_t>(first8, false);
  if (size > kMaxHeader || size > file_bytes - 8)
    fail(ErrorKind::format, "{}: not a safetensors file, or truncated: the header claims {} bytes, {} are there", file,
         size, file_bytes - 8);
  return static_cast<std::size_t>(size);
}

// ---- Checksum ----------------------------------------------------------------------------------------------------

class Checksum {
 public:
  void add(const void* data, std::size_t bytes) { crc_ = ::crc32_z(crc_, static_cast<const Bytef*>(data), bytes); }
  void add(std::string_view text) {  // with its length, so that neighbours cannot trade characters
    const std::uint64_t n = text.size();
    add(&n, sizeof n);
    if (n != 0) add(text.data(), text.size());
  }
  void add(std::string_view name, std::string_view dtype, const Shape& shape) {
    add(name);
    add(dtype);
    add(shape.str());
  }
  void add(const std::map<std::string, std::string>& metadata) {
    for (const auto& [key, text] : metadata) {
      add(key);
      add(text);
    }
  }
  std::string str() const { return fmt::format("{:08x}", crc_); }

 private:
  unsigned long crc_ = ::crc32_z(0, nullptr, 0);
};

void verify(const Header& header, const Checksum& sum, std::string_view file) {
  if (header.checksum && *header.checksum != sum.str())
    fail(ErrorKind::format, "{}: the checksum is {}, recorded is {}: the file is damaged", file, sum.str(),
         *header.checksum);
}

// ---- Tensors -----------------------------------------------------------------------------------------------------

// `stored` holds the bytes of `e` as in the file, suitably aligned.
Array array_of(const Entry& e, Buffer stored, std::string_view file) {
  const StoredType& type = stored_type_of(e, file);
  if (e.dtype == "F16") {
    Array out = Array::empty(DType::f32, e.shape);
    const auto* half = stored.as<std::uint16_t>();
    float* to = out.mutable_data<float>();
    for (std::int64_t i = 0; i < out.numel(); ++i) to[i] = half_to_float(half[i]);
    return out;
  }
  if (type.dtype == DType::boolean) {
    const auto* b = stored.as<std::uint8_t>();
    for (std::size_t i = 0; i < stored.bytes(); ++i)
      if (b[i] > 1) fail(ErrorKind::format, "{}: tensor \"{}\": element {} is {}, no bool", file, e.name, i, b[i]);
  }
  return {type.dtype, e.shape, std::move(stored)};
}

// `tensor_bytes` yields the bytes of one entry.
SafeTensors collect(Header header, bool check, std::string_view file,
                    const std::function<Buffer(const Entry&)>& tensor_bytes) {
  SafeTensors out;
  Checksum sum;
  sum.add(header.metadata);
  check = check && header.checksum.has_value();
  for (const Entry& e : header.entries) {
    Buffer stored = tensor_bytes(e);
    if (check) {
      sum.add(e.name, e.dtype, e.shape);
      if (stored.bytes() != 0) sum.add(stored.data(), stored.bytes());
    }
    out.tensors.emplace_back(e.name, array_of(e, std::move(stored), file));
  }
  if (check) verify(header, sum, file);
  out.metadata = std::move(header.metadata);
  return out;
}

Buffer copy_of(const std::byte* from, std::size_t bytes) {
  Buffer b = Buffer::allocate(bytes);
  if (bytes != 0) std::memcpy(b.mutable_data(), from, bytes);
  return b;
}

using Named = std::pair<std::string, Array>;

// Appended piece by piece: a JSON object sorts its names, or, ordered, takes quadratic time.
std::string header_text(std::span<const Named* const> order, const std::map<std::string, std::string>& metadata,
                        Checksum& sum, std::string_view path) {
  std::string entries;
  std::uint64_t at = 0;
  sum.add(metadata);
  try {
    for (const Named* t : order) {
      const auto& [name, a] = *t;
      const std::string_view dtype = stored_type_of(a.dtype).code;
      entries += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", Json(name).dump(),
                             dtype, fmt::join(a.shape.begin(), a.shape.end(), ","), at, at + a.bytes());
      sum.add(name, dtype, a.shape);
      if (a.bytes() != 0) sum.add(a.buffer.data(), a.bytes());
      at += a.bytes();
    }
    Json texts(metadata);
    texts[kChecksum] = sum.str();
    return fmt::format("{{\"{}\":{}{}}}", kMetadata, texts.dump(), entries);
  } catch (const Json::exception&) {
    fail(ErrorKind::value, "{}: a tensor name or metadata value is not valid UTF-8", path);
  }
}

// A private mapping of a whole file, followed by a readable page: Buffers promise slack behind their end.
class Mapping {
 public:
  explicit Mapping(const InputFile& file) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto size = static_cast<std::size_t>(file.size());
    bytes_ = (size + page - 1) / page * page + page;
    base_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) fail_io("map", file.path(), errno);
    if (::mmap(base_, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file.descriptor(), 0) == MAP_FAILED) {
      const int error = errno;
      ::munmap(base_, bytes_);
      fail_io("map", file.path(), error);
    }
  }
  ~Mapping() { ::munmap(base_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::byte* data() const noexcept { return static_cast<std::byte*>(base_); }

 private:
  void* base_ = nullptr;
  std::size_t bytes_ = 0;
};
}  // namespace

const Array* SafeTensors::find(std::string_view name) const noexcept {
  for (const auto& [key, array] : tensors)
    if (key == name) return &array;
  return nullptr;
}

SafeTensors parse_safetensors(Bytes bytes, std::string_view name) {
  if (bytes.size() < 8) fail(ErrorKind::format, "{}: {} bytes are too few for a safetensors file", name, bytes.size());
  const std::size_t size = header_size(bytes.data(), bytes.size(), name);
  const Bytes data = bytes.subspan(8 + size);
  Header header = header_of({reinterpret_cast<const char*>(bytes.data()) + 8, size}, data.size(), name);
  return collect(std::move(header), true, name, [&](const Entry& e) {
    return copy_of(data.data() + e.begin, static_cast<std::size_t>(e.end - e.begin));
  });
}

SafeTensors read_safetensors(const std::string& path, const SafeTensorsOptions& options) {
  const InputFile file(path);
  if (!file.regular()) return parse_safetensors(bytes_of(read_file(path)), path);
  if (file.size() < 8) fail(ErrorKind::format, "{}: {} bytes are too few for a safetensors file", path, file.size());
  std::byte first8[8];
  file.read_at(0, first8, 8);
  const std::size_t size = header_size(first8, file.size(), path);
  std::string text(size, '\0');
  file.read_at(8, text.data(), size);
  const std::uint64_t start = 8 + size;
  Header header = header_of(text, file.size() - start, path);
  std::shared_ptr<Mapping> mapping = options.map ? std::make_shared<Mapping>(file) : nullptr;
  return collect(std::move(header), options.verify, path, [&](const Entry& e) {
    const auto bytes = static_cast<std::size_t>(e.end - e.begin);
    if (!mapping) {
      Buffer b = Buffer::allocate(bytes);
      file.read_at(start + e.begin, b.mutable_data(), bytes);
      return b;
    }
    std::byte* at = mapping->data() + start + e.begin;
    const bool aligned = (start + e.begin) % stored_type_of(e, path).size == 0;
    return aligned ? Buffer::wrap(at, bytes, mapping) : copy_of(at, bytes);
  });
}

void write_safetensors(const std::string& path, std::span<const std::pair<std::string, Array>> tensors,
                       const std::map<std::string, std::string>& metadata) {
  static_assert(std::endian::native == std::endian::little, "values are written as they lie in memory");
  std::vector<const Named*> order;
  std::set<std::string_view> names;
  for (const auto& t : tensors) {
    if (t.first == kMetadata || !names.insert(t.first).second)
      fail(ErrorKind::value, "{}: the tensor name \"{}\" is {}", path, t.first,
           t.first == kMetadata ? "reserved" : "given twice");
    order.push_back(&t);
  }
  if (metadata.count(kChecksum) != 0) fail(ErrorKind::value, "{}: the metadata \"{}\" is reserved", path, kChecksum);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const std::size_t wide_a = size_of(a->second.dtype), wide_b = size_of(b->second.dtype);
    return wide_a != wide_b ? wide_a > wide_b : a->first < b->first;
  });
  Checksum sum;
  std::string header = header_text(order, metadata, sum, path);
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t size = header.size();
  AtomicWriter out(path);
  out.write(&size, sizeof size);
  out.write(header);
  for (const auto* t : order) out.write(t->second.buffer.data(), t->second.bytes());
  out.commit();
}

}  // namespace bp::io

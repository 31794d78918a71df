// NPZ, NumPy's archive: a zip file (APPNOTE 6.3) of NPY files, stored or deflated. Read from the central directory at
// the end, as zip readers do; entries beyond 4 GiB by the zip64 fields.
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <new>
#include <optional>
#include <set>

#include "io/file.h"
#include "io/npy.h"

namespace bp::io {

namespace {
constexpr std::uint32_t kLocalMagic = 0x04034b50, kCentralMagic = 0x02014b50, kEndMagic = 0x06054b50;
constexpr std::uint32_t kEnd64Magic = 0x06064b50, kLocator64Magic = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr std::size_t kMaxComment = 65535;
constexpr std::uint32_t kNarrow = 0xffffffff;  // the value stands in a zip64 field
constexpr int kStored = 0, kDeflated = 8;
constexpr std::uint64_t kDeflateRatio = 1032;  // the most that a byte of deflate expands to

struct ZipEntry {
  std::string name;
  int method = kStored;
  std::uint32_t crc = 0;
  std::uint64_t packed = 0, size = 0, offset = 0;  // offset: of the local header
};

// Little-endian fields of an archive, none beyond its end.
class ZipReader {
 public:
  ZipReader(Bytes bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  std::vector<ZipEntry> entries() const;
  Buffer content(const ZipEntry& e) const;

 private:
  [[noreturn]] void damaged(std::string_view what) const {
    fail(ErrorKind::format, "{}: not an NPZ file, or damaged: {}", name_, what);
  }
  template <class T> T at(std::uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) damaged("a header ends beyond the file");
    return load<T>(bytes_.data() + offset, false);
  }
  std::string_view text(std::uint64_t offset, std::size_t length) const {
    if (offset > bytes_.size() || bytes_.size() - offset < length) damaged("a name ends beyond the file");
    return {reinterpret_cast<const char*>(bytes_.data()) + offset, length};
  }
  std::uint64_t end_record() const;
  void widen(ZipEntry& e, std::uint64_t extra, std::size_t length) const;
  Bytes packed_bytes(const ZipEntry& e) const;

  Bytes bytes_;
  std::string_view name_;
};

// Where the record that ends the archive begins: before a comment of any length.
std::uint64_t ZipReader::end_record() const {
  if (bytes_.size() < kEndBytes) damaged("it is too short");
  const std::uint64_t last = bytes_.size() - kEndBytes, first = last > kMaxComment ? last - kMaxComment : 0;
  for (std::uint64_t i = last + 1; i-- > first;)
    if (at<std::uint32_t>(i) == kEndMagic) return i;
  damaged("the record at its end is missing");
}

// Takes sizes that do not fit 32 bits from the entry's zip64 field, where they stand in this order.
void ZipReader::widen(ZipEntry& e, std::uint64_t extra, std::size_t length) const {
  const std::uint64_t end = extra + length;
  while (extra + 4 <= end) {
    const auto id = at<std::uint16_t>(extra), size = at<std::uint16_t>(extra + 2);
    extra += 4;
    if (id == 1) {
      for (std::uint64_t* value : {&e.size, &e.packed, &e.offset})
        if (*value == kNarrow) {
          *value = at<std::uint64_t>(extra);
          extra += 8;
        }
      return;
    }
    extra += size;
  }
}

std::vector<ZipEntry> ZipReader::entries() const {
  const std::uint64_t end = end_record();
  std::uint64_t count = at<std::uint16_t>(end + 10), where = at<std::uint32_t>(end + 16);
  if (end >= kLocator64Bytes && at<std::uint32_t>(end - kLocator64Bytes) == kLocator64Magic) {
    const auto end64 = at<std::uint64_t>(end - kLocator64Bytes + 8);
    if (at<std::uint32_t>(end64) != kEnd64Magic) damaged("the zip64 record at its end is missing");
    count = at<std::uint64_t>(end64 + 32);
    where = at<std::uint64_t>(end64 + 48);
  }
  if (count > bytes_.size() / kCentralBytes) damaged(fmt::format("it claims {} entries", count));
  std::vector<ZipEntry> out;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (at<std::uint32_t>(where) != kCentralMagic) damaged("its list of entries is broken");
    ZipEntry e;
    const auto flags = at<std::uint16_t>(where + 8);
    e.method = at<std::uint16_t>(where + 10);
    e.crc = at<std::uint32_t>(where + 16);
    e.packed = at<std::uint32_t>(where + 20);
    e.size = at<std::uint32_t>(where + 24);
    e.offset = at<std::uint32_t>(where + 42);
    const std::size_t name = at<std::uint16_t>(where + 28), extra = at<std::uint16_t>(where + 30),
                      comment = at<std::uint16_t>(where + 32);
    e.name = text(where + kCentralBytes, name);
    if ((flags & 1) != 0) fail(ErrorKind::format, "{}: entry \"{}\" is encrypted", name_, e.name);
    widen(e, where + kCentralBytes + name, extra);
    out.push_back(std::move(e));
    where += kCentralBytes + name + extra + comment;
  }
  return out;
}

Bytes ZipReader::packed_bytes(const ZipEntry& e) const {
  if (at<std::uint32_t>(e.offset) != kLocalMagic)
    damaged(fmt::format("entry \"{}\" is not where it should be", e.name));
  const std::uint64_t begin =
      e.offset + kLocalBytes + at<std::uint16_t>(e.offset + 26) + at<std::uint16_t>(e.offset + 28);
  if (begin > bytes_.size() || bytes_.size() - begin < e.packed)
    damaged(fmt::format("entry \"{}\" claims {} bytes beyond the file's end", e.name, e.packed));
  return bytes_.subspan(begin, e.packed);
}

// All of `in`, one raw deflate stream, into exactly `out`; false when it is another size or broken.
bool inflate_raw(Bytes in, Buffer& out) {
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return false;
  constexpr std::size_t kMostAtOnce = std::numeric_limits<uInt>::max();
  std::size_t taken = 0, used = 0;
  std::byte spare{};
  int result = Z_OK;
  while (result == Z_OK) {
    const bool full = used == out.bytes();
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data() + taken));
    z.avail_in = static_cast<uInt>(std::min(in.size() - taken, kMostAtOnce));
    z.next_out = full ? reinterpret_cast<Bytef*>(&spare) : out.as_mutable<Bytef>() + used;
    z.avail_out = full ? 1 : static_cast<uInt>(std::min(out.bytes() - used, kMostAtOnce));
    const uInt in_before = z.avail_in, out_before = z.avail_out;
    result = inflate(&z, Z_NO_FLUSH);
    taken += in_before - z.avail_in;
    used += out_before - z.avail_out;
    if (used > out.bytes()) break;  // more than was claimed
  }
  inflateEnd(&z);
  return result == Z_STREAM_END && used == out.bytes() && taken == in.size();
}

Buffer ZipReader::content(const ZipEntry& e) const {
  const Bytes packed = packed_bytes(e);
  if (e.method != kStored && e.method != kDeflated)
    fail(ErrorKind::format, "{}: entry \"{}\" is compressed by method {}: expected stored (0) or deflate (8)", name_,
         e.name, e.method);
  if (e.method == kStored ? e.size != packed.size() : e.size / kDeflateRatio > packed.size())
    damaged(fmt::format("entry \"{}\" claims {} bytes in {}", e.name, e.size, packed.size()));
  Buffer out = Buffer::allocate(static_cast<std::size_t>(e.size));
  if (e.method == kStored && e.size != 0) std::memcpy(out.mutable_data(), packed.data(), packed.size());
  if (e.method == kDeflated && !inflate_raw(packed, out))
    damaged(fmt::format("entry \"{}\" does not expand to its {} bytes", e.name, e.size));
  const auto crc = static_cast<std::uint32_t>(::crc32_z(0, static_cast<const Bytef*>(out.data()), out.bytes()));
  if (crc != e.crc) damaged(fmt::format("entry \"{}\" has checksum {:08x}, recorded is {:08x}", e.name, crc, e.crc));
  return out;
}

// ---- Writing -------------------------------------------------------------------------------------------------------

template <class T> void put(std::string& to, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) to += static_cast<char>(value >> (8 * i));
}

std::string deflated(std::string_view in) {
  z_stream z{};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::bad_alloc();
  std::string out(deflateBound(&z, in.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
  z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);  // one call: the room is enough
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

// What the local header and the directory share, from "version needed" to the length of the extra field.
std::string common_fields(const ZipEntry& e) {
  std::string s;
  put<std::uint16_t>(s, 20);       // version 2.0
  put<std::uint16_t>(s, 1 << 11);  // names are UTF-8
  put<std::uint16_t>(s, static_cast<std::uint16_t>(e.method));
  put<std::uint32_t>(s, 0x00210000);  // the first day that DOS knew, so that equal arrays make equal files
  put<std::uint32_t>(s, e.crc);
  put<std::uint32_t>(s, static_cast<std::uint32_t>(e.packed));
  put<std::uint32_t>(s, static_cast<std::uint32_t>(e.size));
  put<std::uint16_t>(s, static_cast<std::uint16_t>(e.name.size()));
  put<std::uint16_t>(s, 0);
  return s;
}

std::string central_directory(const std::vector<ZipEntry>& entries, std::uint64_t offset) {
  std::string s;
  for (const ZipEntry& e : entries) {
    put<std::uint32_t>(s, kCentralMagic);
    put<std::uint16_t>(s, 20);
    s += common_fields(e);
    put<std::uint16_t>(s, 0);  // comment
    put<std::uint16_t>(s, 0);  // disk
    put<std::uint16_t>(s, 0);
    put<std::uint32_t>(s, 0);
    put<std::uint32_t>(s, static_cast<std::uint32_t>(e.offset));
    s += e.name;
  }
  const std::size_t bytes = s.size();
  const auto count = static_cast<std::uint16_t>(entries.size());
  put<std::uint32_t>(s, kEndMagic);
  put<std::uint32_t>(s, 0);
  put<std::uint16_t>(s, count);
  put<std::uint16_t>(s, count);
  put<std::uint32_t>(s, static_cast<std::uint32_t>(bytes));
  put<std::uint32_t>(s, static_cast<std::uint32_t>(offset));
  put<std::uint16_t>(s, 0);
  return s;
}

void check_writable(const std::string& path, std::span<const std::pair<std::string, Array>> arrays) {
  std::set<std::string_view> names;
  std::uint64_t bytes = 0;
  for (const auto& [name, array] : arrays) {
    if (!names.insert(name).second) fail(ErrorKind::value, "{}: the array name \"{}\" is given twice", path, name);
    if (name.size() > 1024) fail(ErrorKind::value, "{}: an array name of {} bytes is too long", path, name.size());
    bytes += array.bytes() + name.size() * 2 + 1024;
  }
  if (bytes > kNarrow || arrays.size() >= 0xffff)
    fail(ErrorKind::value, "{}: {} arrays of {} bytes exceed what a plain zip holds (4 GiB): write safetensors", path,
         arrays.size(), bytes);
}
}  // namespace

std::vector<std::pair<std::string, Array>> parse_npz(Bytes bytes, std::string_view name, const ReadLimits& limits) {
  const ZipReader zip(bytes, name);
  std::vector<std::pair<std::string, Array>> out;
  std::set<std::string> names;
  std::uint64_t total = 0;
  for (const ZipEntry& e : zip.entries()) {
    total += e.size;
    if (e.size > limits.max_bytes || total > limits.max_bytes)
      fail(ErrorKind::format, "{}: its arrays exceed the limit of {} bytes", name, limits.max_bytes);
    const std::string where = fmt::format("{}: {}", name, e.name);
    const Buffer content = zip.content(e);
    std::string key = e.name.ends_with(".npy") ? e.name.substr(0, e.name.size() - 4) : e.name;
    if (!names.insert(key).second) fail(ErrorKind::format, "{}: the array name \"{}\" occurs twice", name, key);
    out.emplace_back(std::move(key), parse_npy(bytes_of(content), where));
  }
  return out;
}

std::vector<std::pair<std::string, Array>> read_npz(const std::string& path, const ReadLimits& limits) {
  return parse_npz(bytes_of(read_file(path, limits)), path, limits);
}

void write_npz(const std::string& path, std::span<const std::pair<std::string, Array>> arrays, bool compress) {
  check_writable(path, arrays);
  AtomicWriter out(path);
  std::vector<ZipEntry> entries;
  std::uint64_t at = 0;
  for (const auto& [name, array] : arrays) {
    const std::string plain = npy_text(array);
    ZipEntry e;
    e.name = name + ".npy";
    e.crc = static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(plain.data()), plain.size()));
    e.size = plain.size();
    e.method = compress ? kDeflated : kStored;
    e.offset = at;
    const std::string packed = compress ? deflated(plain) : std::string();
    const std::string& body = compress ? packed : plain;
    e.packed = body.size();
    std::string header;
    put<std::uint32_t>(header, kLocalMagic);
    header += common_fields(e) + e.name;
    out.write(header);
    out.write(body);
    at += header.size() + body.size();
    entries.push_back(std::move(e));
  }
  out.write(central_directory(entries, at));
  out.commit();
}

}  // namespace bp::io

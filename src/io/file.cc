// Reading whole files, gzip with a bound, and writing so that a crash or a full disk leaves the old file.
#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <system_error>

namespace bp::io {

namespace {
constexpr std::size_t kChunk = std::size_t{1} << 20;
constexpr std::size_t kMaxCall = std::size_t{1} << 30;  // Linux moves at most 2^31 bytes a call

const char* remedy(int error) {
  switch (error) {
    case ENOSPC: return "; free some space or write elsewhere";
    case EDQUOT: return "; delete files of this user or raise the quota";
    case EFBIG: return "; raise the limit on file sizes (ulimit -f) or write elsewhere";
    case EACCES:
    case EPERM: return "; check the permissions of the file and its folder";
    case EROFS: return "; write to another folder";
    case ENOENT: return "; check the path";
    case ENOTDIR: return "; a part of the path is a file, not a folder";
    case EISDIR: return "; a file was expected";
    case EMFILE:
    case ENFILE: return "; close files or raise the limit on open files (ulimit -n)";
    default: return "";
  }
}

// Doubling growth; `used` bytes are kept.
void grow(Buffer& buffer, std::size_t used, std::uint64_t max_bytes) {
  const std::uint64_t wanted = std::max<std::uint64_t>(kChunk, std::uint64_t{buffer.bytes()} * 2);
  Buffer bigger = Buffer::allocate(static_cast<std::size_t>(std::min(wanted, max_bytes)));
  std::memcpy(bigger.mutable_data(), buffer.data(), used);
  buffer = std::move(bigger);
}

[[noreturn]] void fail_too_large(std::string_view name, std::uint64_t max_bytes) {
  fail(ErrorKind::format, "{}: the content exceeds the limit of {} bytes", name, max_bytes);
}

// Gives back what a guess left over: by a copy when that is a lot, otherwise by a view of the front.
Buffer shrunk(Buffer buffer, std::size_t used) {
  if (used == buffer.bytes()) return buffer;
  if (used >= buffer.bytes() / 4 * 3) {
    auto keep = std::make_shared<Buffer>(std::move(buffer));
    return Buffer::wrap(keep->mutable_data(), used, keep);
  }
  Buffer exact = Buffer::allocate(used);
  if (used != 0) std::memcpy(exact.mutable_data(), buffer.data(), used);
  return exact;
}

// One byte more than the limit may be asked for, to notice what lies beyond it.
Buffer read_stream(const InputFile& file, std::uint64_t max_bytes) {
  Buffer buffer = Buffer::allocate(0);
  std::size_t used = 0;
  for (;;) {
    if (used > max_bytes) fail_too_large(file.path(), max_bytes);
    if (used == buffer.bytes()) grow(buffer, used, max_bytes + 1);
    const std::size_t n = file.read_some(buffer.as_mutable<std::byte>() + used, buffer.bytes() - used);
    if (n == 0) return shrunk(std::move(buffer), used);
    used += n;
  }
}

class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&stream, 15 + 16) != Z_OK) fail(ErrorKind::io, "zlib cannot start decompressing");
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream stream{};
};
}  // namespace

void fail_io(std::string_view action, std::string_view path, int error) {
  fail(ErrorKind::io, "cannot {} {}: {}{}", action, path, std::generic_category().message(error), remedy(error));
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) fail_io("open", path_, errno);
  struct stat info {};
  const bool known = ::fstat(file_, &info) == 0;
  const int error = known ? EISDIR : errno;
  if (!known || S_ISDIR(info.st_mode)) {
    ::close(file_);
    fail_io("read", path_, error);
  }
  regular_ = S_ISREG(info.st_mode);
  size_ = regular_ ? static_cast<std::uint64_t>(info.st_size) : 0;
}

InputFile::~InputFile() { ::close(file_); }

void InputFile::read_at(std::uint64_t offset, void* to, std::size_t bytes) const {
  auto* out = static_cast<std::byte*>(to);
  while (bytes != 0) {
    const ssize_t n = ::pread(file_, out, std::min(bytes, kMaxCall), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("read", path_, errno);
    if (n == 0) fail(ErrorKind::format, "{}: ends at byte {}, {} more were expected", path_, offset, bytes);
    out += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
}

std::size_t InputFile::read_some(void* to, std::size_t bytes) const {
  for (;;) {
    const ssize_t n = ::read(file_, to, std::min(bytes, kMaxCall));
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINTR) fail_io("read", path_, errno);
  }
}

std::uint64_t claimed_elements(const Shape& shape) noexcept {
  std::uint64_t count = 1;
  bool none = false;
  for (std::int64_t n : shape) {
    none = none || n == 0;
    if (n == 0) continue;
    if (static_cast<std::uint64_t>(n) > (std::uint64_t{1} << 46) / count) return ~std::uint64_t{0};
    count *= static_cast<std::uint64_t>(n);
  }
  return none ? 0 : count;
}

bool is_gzip(Bytes bytes) noexcept {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

Buffer inflate_gzip(Bytes bytes, std::string_view name, std::uint64_t max_bytes) {
  Inflater inflater;
  z_stream& z = inflater.stream;
  // The last four bytes claim the size; deflate cannot expand by more than 1032.
  const std::uint64_t claimed = bytes.size() < 18 ? 0 : load<std::uint32_t>(bytes.data() + bytes.size() - 4, false);
  const std::uint64_t plausible = std::uint64_t{bytes.size()} * 1032;
  Buffer out = Buffer::allocate(static_cast<std::size_t>(std::min({claimed + 1, plausible, max_bytes + 1})));
  std::size_t used = 0, taken = 0;
  for (;;) {
    if (used > max_bytes) fail_too_large(name, max_bytes);
    if (used == out.bytes()) grow(out, used, max_bytes + 1);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + taken));
    z.avail_in = static_cast<uInt>(std::min(bytes.size() - taken, kMaxCall));
    z.next_out = out.as_mutable<Bytef>() + used;
    z.avail_out = static_cast<uInt>(std::min(out.bytes() - used, kMaxCall));
    const uInt in_before = z.avail_in, out_before = z.avail_out;
    const int result = inflate(&z, Z_NO_FLUSH);
    taken += in_before - z.avail_in;
    used += out_before - z.avail_out;
    if (result == Z_STREAM_END) {
      if (taken == bytes.size()) break;
      if (!is_gzip(bytes.subspan(taken)))
        fail(ErrorKind::format, "{}: {} bytes of garbage follow the gzip data", name, bytes.size() - taken);
      inflateReset(&z);
    } else if (result == Z_BUF_ERROR || (result == Z_OK && taken == bytes.size() && z.avail_out != 0)) {
      fail(ErrorKind::format, "{}: the gzip data are truncated after {} bytes", name, bytes.size());
    } else if (result != Z_OK) {
      fail(ErrorKind::format, "{}: the gzip data are corrupt near byte {}: {}", name, taken,
           z.msg != nullptr ? z.msg : "invalid stream");
    }
  }
  if (used > max_bytes) fail_too_large(name, max_bytes);
  return shrunk(std::move(out), used);
}

Buffer read_file(const std::string& path, const ReadLimits& limits) {
  const InputFile file(path);
  const std::uint64_t max_bytes = std::min(limits.max_bytes, std::uint64_t{1} << 45);
  Buffer content;
  if (file.regular() && file.size() != 0) {
    if (file.size() > max_bytes) fail_too_large(path, max_bytes);
    content = Buffer::allocate(static_cast<std::size_t>(file.size()));
    file.read_at(0, content.mutable_data(), content.bytes());
  } else {
    content = read_stream(file, max_bytes);  // pipes, devices, and /proc, whose files claim no size
  }
  return is_gzip(bytes_of(content)) ? inflate_gzip(bytes_of(content), path, max_bytes) : content;
}

// ---- AtomicWriter ------------------------------------------------------------------------------------------------

AtomicWriter::AtomicWriter(std::string path) : path_(std::move(path)), target_(path_) {
  static std::atomic<unsigned> count{0};
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) fail_io("write", path_, EISDIR);
  if (exists && !S_ISREG(info.st_mode)) {
    file_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (file_ < 0) fail_io("write", path_, errno);
    return;
  }
  if (exists) {  // rename would replace a symbolic link instead of what it points to
    if (char* real = ::realpath(path_.c_str(), nullptr)) {
      target_ = real;
      std::free(real);
    }
  }
  std::string name = fmt::format("{}.tmp.{}.{}", target_, ::getpid(), count++);
  file_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) fail_io("write", path_, errno);
  temporary_ = std::move(name);
  if (exists) (void)::fchmod(file_, info.st_mode & 07777);  // a failure leaves the default mode, which is harmless
}

AtomicWriter::~AtomicWriter() { discard(); }

void AtomicWriter::discard() noexcept {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicWriter::give_up(const char* action, int error) {
  discard();
  fail_io(action, path_, error);
}

void AtomicWriter::put(const void* data, std::size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  while (bytes != 0) {
    const ssize_t n = ::write(file_, from, std::min(bytes, kMaxCall));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) give_up("write", errno);
    from += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

void AtomicWriter::flush() {
  put(pending_.data(), pending_.size());
  pending_.clear();
}

void AtomicWriter::write(const void* data, std::size_t bytes) {
  if (file_ < 0) fail(ErrorKind::state, "{}: written after commit() or after a failure", path_);
  if (pending_.size() + bytes > kChunk) flush();
  if (bytes > kChunk)
    put(data, bytes);
  else if (bytes != 0)
    pending_.append(static_cast<const char*>(data), bytes);
}

void AtomicWriter::commit() {
  if (file_ < 0) fail(ErrorKind::state, "{}: committed twice or after a failure", path_);
  flush();
  const bool direct = temporary_.empty();
  if (!direct && ::fsync(file_) != 0) give_up("write", errno);
  const int closed = ::close(file_);
  file_ = -1;
  if (closed != 0 && errno != EINTR) give_up("write", errno);
  if (direct) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) give_up("replace", errno);
  temporary_.clear();
  const auto slash = target_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : target_.substr(0, slash + 1);
  const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return;  // a folder that may be written but not read: the rename stands, only its sync is lost
  const int error = ::fsync(handle) == 0 ? 0 : errno;
  ::close(handle);
  if (error != 0 && error != EINVAL) fail_io("sync the folder of", path_, error);  // EINVAL: no folder sync here
}

void write_file(const std::string& path, std::string_view content) {
  AtomicWriter out(path);
  out.write(content);
  out.commit();
}

}  // namespace bp::io

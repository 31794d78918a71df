// Rows of NPY and IDX files, read where they are wanted.
#include "io/array_file.h"

#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace bp::io {

namespace {
constexpr std::size_t kHead = std::size_t{1} << 20;  // a header is at most so long

Buffer read_head(const InputFile& file) {
  if (!file.regular())
    fail(ErrorKind::format, "{}: is a pipe or device: only a file can be read row by row", file.path());
  Buffer head = Buffer::allocate(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), kHead)));
  file.read_at(0, head.mutable_data(), head.bytes());
  if (is_gzip(bytes_of(head)))
    fail(ErrorKind::format, "{}: is compressed by gzip, which cannot be read row by row: decompress it (gunzip)",
         file.path());
  return head;
}

Stored layout_of(const InputFile& file) {
  const Buffer head = read_head(file);
  const Bytes bytes = bytes_of(head);
  const bool npy = !bytes.empty() && bytes[0] == std::byte{0x93};
  Stored stored = npy ? npy_layout(bytes, file.size(), file.path()) : idx_layout(bytes, file.size(), file.path());
  if (stored.shape.rank() == 0) fail(ErrorKind::format, "{}: holds one number, not rows", file.path());
  if (stored.by_columns)
    fail(ErrorKind::format,
         "{}: lies in Fortran order, in which a row is scattered over the file: save numpy.ascontiguousarray(x)",
         file.path());
  return stored;
}
}  // namespace

void check_claim(const Stored& s, std::uint64_t size, std::string_view name) {
  const std::uint64_t present = size - s.offset;
  if (present % s.size != 0 || claimed_elements(s.shape) != present / s.size)
    fail(ErrorKind::format, "{}: the header claims values of {} bytes in shape {}, but {} bytes follow", name, s.size,
         s.shape, present);
}

namespace {
struct Run {
  std::int64_t first, count;  // neighbouring rows
};
}  // namespace

struct ArrayFile::Impl {
  explicit Impl(const std::string& path) : file(path), stored(layout_of(file)) {
    std::uint64_t elements = 1;
    for (int i = 1; i < stored.shape.rank(); ++i) elements *= static_cast<std::uint64_t>(stored.shape[i]);
    row_bytes = elements * stored.size;
    // Rows are wanted from all over the file: what lies behind one is of no use.
    (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_RANDOM);
  }
  Shape rows_of(std::int64_t n) const {
    Shape shape = stored.shape;
    shape[0] = n;
    return shape;
  }
  std::uint64_t place(std::int64_t row) const { return stored.offset + static_cast<std::uint64_t>(row) * row_bytes; }
  void read_run(const Run& run, std::byte* to) const;
  Array read(const std::vector<Run>& runs, std::int64_t n) const;

  InputFile file;
  Stored stored;
  std::uint64_t row_bytes = 0;  // as stored
};

// As they are stored.
void ArrayFile::Impl::read_run(const Run& run, std::byte* to) const {
  try {
    file.read_at(place(run.first), to, static_cast<std::size_t>(static_cast<std::uint64_t>(run.count) * row_bytes));
  } catch (const Error& e) { fail(e.kind(), "{} (row {} of {})", e.what(), run.first, stored.shape[0]); }
}

ArrayFile::ArrayFile(const std::string& path) : impl_(std::make_shared<const Impl>(path)) {}
const std::string& ArrayFile::path() const noexcept { return impl_->file.path(); }
DType ArrayFile::dtype() const noexcept { return impl_->stored.dtype; }
const Shape& ArrayFile::shape() const noexcept { return impl_->stored.shape; }
std::uint64_t ArrayFile::file_bytes() const noexcept { return impl_->file.size(); }

Array ArrayFile::Impl::read(const std::vector<Run>& runs, std::int64_t n) const {
  const auto bytes = static_cast<std::size_t>(row_bytes);
  const Shape shape = rows_of(n);
  Array out;
  Buffer raw;
  if (stored.plain)
    out = Array::empty(stored.dtype, shape);
  else
    raw = Buffer::allocate(static_cast<std::size_t>(n) * bytes);
  auto* to = stored.plain ? out.buffer.as_mutable<std::byte>() : raw.as_mutable<std::byte>();
  for (const Run& run : runs)
    if (bytes != 0 && runs.size() > 1)
      (void)::posix_fadvise(file.descriptor(), static_cast<off_t>(place(run.first)),
                            static_cast<off_t>(static_cast<std::uint64_t>(run.count) * row_bytes), POSIX_FADV_WILLNEED);
  for (const Run& run : runs) {
    if (bytes != 0) read_run(run, to);
    to += static_cast<std::size_t>(run.count) * bytes;
  }
  return stored.plain ? out : stored.decode(raw.as<std::byte>(), shape);
}

Array ArrayFile::read(std::span<const std::int64_t> rows) const {
  std::vector<Run> runs;
  for (const std::int64_t r : rows) {
    check_row(r);
    if (!runs.empty() && runs.back().first + runs.back().count == r)
      ++runs.back().count;
    else
      runs.push_back({r, 1});
  }
  return impl_->read(runs, static_cast<std::int64_t>(rows.size()));
}

Array ArrayFile::read(std::int64_t first, std::int64_t n) const {
  if (n <= 0) return impl_->read({}, 0);
  check_row(first);
  check_row(first + n - 1);
  return impl_->read({{first, n}}, n);
}

void ArrayFile::check_row(std::int64_t row) const {
  if (row < 0 || row >= rows()) fail(ErrorKind::value, "{}: row {} of {}", path(), row, rows());
}

}  // namespace bp::io

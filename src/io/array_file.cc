// Rows of NPY and IDX files, read where they are wanted.
#include "io/array_file.h"

#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
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
  return array_layout(bytes, file.size(), file.path());
}
}  // namespace

namespace {
template <class From, class To> Stored raw_numbers(DType dtype) {
  Stored stored{
      .type = {}, .size = sizeof(From), .dtype = dtype, .plain = std::is_same_v<From, To> && sizeof(From) == 1};
  stored.decode = [](const std::byte* from, const Shape& shape) {
    Array out = Array::empty(dtype_of<To>, shape);
    To* to = out.mutable_data<To>();
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      to[i] = static_cast<To>(load<From>(from + static_cast<std::size_t>(i) * sizeof(From), false));
    return out;
  };
  return stored;
}

Stored raw_layout(std::string_view type, std::uint64_t skip, std::uint64_t size, std::string_view name) {
  Stored stored;
  if (type == "u8")
    stored = raw_numbers<std::uint8_t, std::uint8_t>(DType::u8);
  else if (type == "u16")
    stored = raw_numbers<std::uint16_t, std::int32_t>(DType::i32);
  else if (type == "u32")
    stored = raw_numbers<std::uint32_t, std::int64_t>(DType::i64);
  else if (type == "i32")
    stored = raw_numbers<std::int32_t, std::int32_t>(DType::i32);
  else
    fail(ErrorKind::value, "{}: numbers of type \"{}\": expected u8, u16, u32 or i32", name, type);
  if (skip > size || (size - skip) % stored.size != 0)
    fail(ErrorKind::format, "{}: {} bytes, a header of {} among them, are no whole numbers of {} bytes", name, size,
         skip, stored.size);
  stored.offset = skip;
  stored.shape = {static_cast<std::int64_t>((size - skip) / stored.size)};
  return stored;
}
}  // namespace

Stored array_layout(Bytes head, std::uint64_t size, std::string_view name) {
  const bool npy = !head.empty() && head[0] == std::byte{0x93};
  Stored stored = npy ? npy_layout(head, size, name) : idx_layout(head, size, name);
  if (stored.shape.rank() == 0) fail(ErrorKind::format, "{}: holds one number, not rows", name);
  if (stored.by_columns)
    fail(ErrorKind::format,
         "{}: lies in Fortran order, in which a row is scattered over the file: save numpy.ascontiguousarray(x)", name);
  return stored;
}

void check_claim(const Stored& s, std::uint64_t size, std::string_view name) {
  if (size == kUnknownSize) {
    if (claimed_elements(s.shape) == ~std::uint64_t{0})
      fail(ErrorKind::format, "{}: the header claims the shape {}, which is too large", name, s.shape);
    return;
  }
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
  explicit Impl(const std::string& path, const std::function<Stored(const InputFile&)>& layout = layout_of)
      : file(path), stored(layout(file)) {
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
  void expect(const Run& run) const noexcept;

  InputFile file;
  Stored stored;
  std::uint64_t row_bytes = 0;  // as stored
};

void ArrayFile::Impl::expect(const Run& run) const noexcept {
  if (row_bytes == 0 || run.count <= 0) return;
  (void)::posix_fadvise(file.descriptor(), static_cast<off_t>(place(run.first)),
                        static_cast<off_t>(static_cast<std::uint64_t>(run.count) * row_bytes), POSIX_FADV_WILLNEED);
}

// As they are stored.
void ArrayFile::Impl::read_run(const Run& run, std::byte* to) const {
  try {
    file.read_at(place(run.first), to, static_cast<std::size_t>(static_cast<std::uint64_t>(run.count) * row_bytes));
  } catch (const Error& e) { fail(e.kind(), "{} (row {} of {})", e.what(), run.first, stored.shape[0]); }
}

ArrayFile::ArrayFile(const std::string& path) : impl_(std::make_shared<const Impl>(path)) {}

ArrayFile ArrayFile::raw(const std::string& path, std::string_view type, std::uint64_t skip) {
  return ArrayFile(std::make_shared<const Impl>(
      path, [&](const InputFile& file) { return raw_layout(type, skip, file.size(), path); }));
}

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
  if (runs.size() > 1)
    for (const Run& run : runs) expect(run);
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

void ArrayFile::expect(std::int64_t first, std::int64_t n) const noexcept { impl_->expect({first, n}); }

void ArrayFile::check_row(std::int64_t row) const {
  if (row < 0 || row >= rows()) fail(ErrorKind::value, "{}: row {} of {}", path(), row, rows());
}

}  // namespace bp::io

// File formats: IDX, CSV, NPY, NPZ, safetensors, SVG line charts, and files written so that they survive a crash.
// Readers never trust a file: a size claimed by a header is checked against the bytes that are there before memory is
// taken. Every reader throws Error(io) when the file cannot be read and Error(format) when its content is wrong,
// naming the path and the place. parse_* read from memory; `name` stands for the path in messages.
//
//   io::write_npy("a.npy", Array::from(std::vector<float>{1, 2, 3, 4}, {2, 2}));
//   const Array a = io::read_npy("a.npy");
//   assert(a.shape == Shape({2, 2}) && a.values<float>()[3] == 4);
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bp/array.h"

namespace bp::io {

using Bytes = std::span<const std::byte>;  // a file's content

// ---- Files -----------------------------------------------------------------------------------------------------

// How much a reader takes.
struct ReadLimits {
  std::uint64_t max_bytes = std::uint64_t{16} << 30;  // of content, after decompression
};

// The whole file. gzip content (by its magic number, not its name) is decompressed; several members are joined.
Buffer read_file(const std::string& path, const ReadLimits& limits = {});

// Writes `path` whole or not at all: into a temporary file of the same folder, synced, renamed by commit(). Without
// commit() (an exception on the way) the temporary file disappears and an old file stays as it was. A path that is a
// device or a pipe is written directly. Every failure throws Error(io) naming the path, the reason and the remedy.
class AtomicWriter {
 public:
  // Opens the temporary file; throws Error(io).
  explicit AtomicWriter(std::string path);
  ~AtomicWriter();
  AtomicWriter(const AtomicWriter&) = delete;
  AtomicWriter& operator=(const AtomicWriter&) = delete;

  // The next `bytes` bytes, or characters.
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // syncs and renames; nothing may be written after it

 private:
  void flush();
  void put(const void* data, std::size_t bytes);
  void discard() noexcept;
  [[noreturn]] void give_up(const char* action, int error);

  std::string path_;       // as the user wrote it, for messages
  std::string target_;     // symbolic links resolved
  std::string temporary_;  // empty when written directly
  std::string pending_;
  int file_ = -1;
};

// `content` by an AtomicWriter.
void write_file(const std::string& path, std::string_view content);

// ---- IDX (yann.lecun.com/exdb/mnist: big-endian sizes and values) ------------------------------------------------

// u8, i32, f32, f64 as they are; int8 and int16 become i32. Plain or gzip.
Array read_idx(const std::string& path, const ReadLimits& limits = {});
// As read_idx(), from memory.
Array parse_idx(Bytes bytes, std::string_view name);
// u8, i32, f32, f64; other dtypes throw Error(dtype).
void write_idx(const std::string& path, const Array& array);

// ---- NPY (NumPy's format, versions 1 to 3) -----------------------------------------------------------------------

// C or Fortran order, either byte order. f2 becomes f32; i1, i2, u2 become i32; u4 becomes i64, as does u8 when its
// values fit. Complex numbers, strings, objects and records are refused.
Array read_npy(const std::string& path, const ReadLimits& limits = {});
// As read_npy(), from memory.
Array parse_npy(Bytes bytes, std::string_view name);
// Version 1, little-endian, C order; bf16, which NumPy lacks, is written as f32.
void write_npy(const std::string& path, const Array& array);

// ---- NPZ (NumPy's archive of NPY files: a zip, stored or deflated) -----------------------------------------------

// Names and arrays, in the order of the archive's directory. Checksums are verified; encrypted entries and other
// methods than deflate are refused.
std::vector<std::pair<std::string, Array>> read_npz(const std::string& path, const ReadLimits& limits = {});
// As read_npz(), from memory.
std::vector<std::pair<std::string, Array>> parse_npz(Bytes bytes, std::string_view name, const ReadLimits& limits = {});
// Equal arrays make equal files. Throws Error(value) for a name given twice and for more than 4 GiB. compress: as
// numpy.savez_compressed, else as numpy.savez.
void write_npz(const std::string& path, std::span<const std::pair<std::string, Array>> arrays, bool compress = false);

// ---- Rows of an array file --------------------------------------------------------------------------------------

// An NPY (C order) or IDX file, told by its first bytes, that stays on disk and is read row by row. The values are
// those of read_npy() and read_idx(). Reads do not map the file: nothing of it stays in the process, and a file that is
// shortened or a disk that fails is an Error naming the path, not a signal.
class ArrayFile {
 public:
  // Throws as read_npy() and read_idx() do; Error(format), with the remedy, for gzip, Fortran order or a scalar.
  explicit ArrayFile(const std::string& path);
  // A file without a header that is understood: numbers of `type` ("u8", "u16", "u32" or "i32", little-endian) from
  // byte `skip` on, [n]. u16 becomes i32, u32 becomes i64. Throws Error(value) for another type, Error(format) when the
  // bytes are no whole numbers.
  static ArrayFile raw(const std::string& path, std::string_view type, std::uint64_t skip = 0);

  const std::string& path() const noexcept;                  // as it was given
  DType dtype() const noexcept;                              // of the values read
  const Shape& shape() const noexcept;                       // [rows, ..]
  std::int64_t rows() const noexcept { return shape()[0]; }  // the first dimension
  std::uint64_t file_bytes() const noexcept;                 // size of the file

  // Rows in the order given: [n, ..]. From any thread; neighbours are read together, and the system is told of all of
  // them before the first is waited for. Throws Error(value) for a row outside [0, rows()), Error(io) or Error(format)
  // naming the path and the row when reading fails.
  Array read(std::span<const std::int64_t> rows) const;
  // Rows [first, first + n).
  Array read(std::int64_t first, std::int64_t n) const;
  // Tells the system that these rows will be read soon.
  void expect(std::int64_t first, std::int64_t n) const noexcept;

 private:
  void check_row(std::int64_t row) const;
  struct Impl;
  explicit ArrayFile(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

// ---- CSV (RFC 4180, with a header) -------------------------------------------------------------------------------

// What a field without a value does.
enum class Missing {
  error,    // throw, naming line and column
  nan,      // numeric columns: NaN. Categorical columns still throw
  drop_row  // leave the row out
};

struct CsvOptions {
  char delimiter = ',';                    // between fields
  DType dtype = DType::f32;                // of numeric columns: f32 or f64
  std::vector<std::string> categorical{};  // columns whose text becomes an id
  // Categories whose ids are fixed beforehand (those of the training file): another value throws.
  std::map<std::string, std::vector<std::string>> categories{};
  std::vector<std::string> columns{};                         // read only these, in this order; empty: all
  Missing missing = Missing::error;                           // what a field of missing_values does
  std::vector<std::string> missing_values = {"", "NA", "?"};  // fields that mean "no value"
  bool allow_non_finite = false;                              // accept "nan" and "inf" as values
};

// A column as read_csv() makes it.
struct Column {
  std::string name;                     // from the header
  Array values;                         // [N]: CsvOptions::dtype, or i64 ids when categorical
  std::vector<std::string> categories;  // the text of id k; sorted (as numbers when all are integers)
};

// A CSV file in memory.
struct Table {
  std::vector<Column> columns;  // all of equal length
  std::int64_t rows() const noexcept { return columns.empty() ? 0 : columns.front().values.rows(); }  // of each column
  // Throws Error(value) naming the nearest column when there is none of this name.
  const Column& column(std::string_view name) const;
  // [N, names.size()] of `dtype`; ids count as numbers.
  Array matrix(std::span<const std::string> names, DType dtype = DType::f32) const;
  // As matrix(), but a categorical column becomes one of 0 and 1 for each category, in their order.
  Array one_hot(std::span<const std::string> names, DType dtype = DType::f32) const;
};

// Fields may be quoted, with "" for a quote and line breaks inside; lines end with LF or CRLF; blank lines are
// skipped; spaces around numbers are ignored. Numbers are read the same in every locale. Plain or gzip.
Table read_csv(const std::string& path, const CsvOptions& options = {}, const ReadLimits& limits = {});
// As read_csv(), from memory.
Table parse_csv(Bytes bytes, std::string_view name, const CsvOptions& options = {});
// Numbers are written in their shortest form that reads back the same; categorical columns as text.
void write_csv(const std::string& path, const Table& table, char delimiter = ',');

// A CSV file that stays on disk and is read row by row. It is passed over once, to count its rows, to note where every
// k-th begins (k grows with the file: at most 2^20 places are kept, 16 MiB) and to find categories that are not given.
// Rows are numbered without those that Missing::drop_row leaves out.
class CsvFile {
 public:
  // Throws as read_csv() does, but fields that are not numbers are found by read(); Error(format), with the remedy, for
  // gzip, and for a record of more than 16 MiB.
  explicit CsvFile(const std::string& path, const CsvOptions& options = {});

  const std::string& path() const noexcept;   // as it was given
  std::int64_t rows() const noexcept;         // without those that were left out
  std::uint64_t file_bytes() const noexcept;  // size of the file
  // As given, with the columns and categories that were found.
  const CsvOptions& options() const noexcept;

  // Rows in the order given, as read_csv() reads them. From any thread. Throws Error(value) for a row outside
  // [0, rows()), and as read_csv() does, naming the line.
  Table read(std::span<const std::int64_t> rows) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// A CSV file that grows by a row an epoch; every row is on disk when append() returns.
class HistoryWriter {
 public:
  // Starts the file anew, or, to resume, keeps the first `keep_rows` rows of an existing file, whose header must be
  // the same and which must have that many rows. Throws Error(format) otherwise.
  HistoryWriter(std::string path, std::vector<std::string> columns, std::int64_t keep_rows = 0);
  ~HistoryWriter();
  HistoryWriter(const HistoryWriter&) = delete;
  HistoryWriter& operator=(const HistoryWriter&) = delete;

  // One value a column; NaN leaves the field empty.
  void append(std::span<const double> row);

 private:
  std::string path_;
  std::size_t width_;
  int file_ = -1;
};

// ---- safetensors (github.com/huggingface/safetensors) ------------------------------------------------------------

// A safetensors file in memory.
struct SafeTensors {
  std::vector<std::pair<std::string, Array>> tensors;       // in the order of the file's data
  std::map<std::string, std::string> metadata;              // the "__metadata__" of the file
  const Array* find(std::string_view name) const noexcept;  // nullptr when absent
};

// How a safetensors file is read.
struct SafeTensorsOptions {
  // Tensors share pages of the mapped file instead of being copied. The file must not be shortened meanwhile.
  bool map = false;
  // Verify the checksum that write_safetensors left.
  bool verify = true;
};

// F64 F32 BF16 I64 I32 U8 BOOL as they are; F16 becomes f32; other dtypes are refused. Offsets must tile the data
// exactly: no overlap, no hole.
SafeTensors read_safetensors(const std::string& path, const SafeTensorsOptions& options = {});
// As read_safetensors(), from memory: copied, the checksum verified.
SafeTensors parse_safetensors(Bytes bytes, std::string_view name);
// Deterministic: widest dtype first, then by name, so that every tensor is aligned to its own size; the data begin at
// a multiple of 8. A CRC-32 over names, dtypes, shapes, metadata and data is added to the metadata as "bp.crc32" (and
// taken out again by the readers). Written atomically. Throws Error(value) for a duplicate or reserved name.
void write_safetensors(const std::string& path, std::span<const std::pair<std::string, Array>> tensors,
                       const std::map<std::string, std::string>& metadata = {});

// ---- SVG line chart ----------------------------------------------------------------------------------------------

// A line of a chart.
struct Series {
  std::string name;  // in the legend
  std::vector<double> x,
      y;  // equally long; a point that is not finite (or not positive on a log axis), or beyond 1e250, is a gap
};

// What is around the lines of a chart.
struct ChartOptions {
  std::string title{}, x_label{}, y_label{};  // none where empty
  bool log_x = false, log_y = false;          // logarithmic axes
  int width = 760, height = 460;              // pixels
  // Within a page that defines the CSS variables --ink, --muted and --grid: text and lines in these colours, no
  // background.
  bool themed = false;
};

// The chart as text.
std::string line_chart_svg(std::span<const Series> series, const ChartOptions& options);
// The chart as a file. Written atomically.
void write_line_chart(const std::string& path, std::span<const Series> series, const ChartOptions& options);

}  // namespace bp::io

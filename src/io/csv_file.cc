// CSV files read row by row: a pass that notes where records begin, and readings from there.
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/csv_scan.h"

namespace bp::io {

namespace csv {

namespace {
bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }
}  // namespace

RecordReader::RecordReader(Refill refill, std::string_view name, std::size_t window, std::uint64_t offset,
                           std::int64_t line)
    : refill_(std::move(refill)),
      name_(name),
      window_(std::max<std::size_t>(window, 64)),
      offset_(offset),
      line_(line) {}

// More bytes behind what is there, which moves to the front of the window, or stays in a larger one.
bool RecordReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(window_.data(), window_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == window_.size()) {
    if (window_.size() >= kLongest)
      fail(ErrorKind::format, "{}: line {}: a record of more than {} MiB: is a quote not closed?", name_, line_,
           kLongest >> 20);
    window_.resize(std::min(2 * window_.size(), kLongest));
  }
  const std::size_t n = refill_(window_.data() + end_, window_.size() - end_);
  at_end_ = n == 0;
  end_ += n;
  return !at_end_;
}

// Bytes of the next record with its line end. Quotes come in pairs, doubled ones too, so line breaks between them are
// told by their number; what quotes are doing in other places the tokenizer looks at.
std::size_t RecordReader::end_of_record() {
  bool quoted = false;
  breaks_ = 0;
  for (std::size_t i = 0;; ++i) {
    if (begin_ + i == end_ && !fill()) return i;
    const char c = window_[begin_ + i];
    if (c == '"') quoted = !quoted;
    if (c != '\n' && c != '\r') continue;
    if (c == '\n' || !quoted) ++breaks_;
    if (quoted) continue;
    if (c == '\r' && (begin_ + i + 1 < end_ || fill()) && window_[begin_ + i + 1] == '\n') ++i;
    return i + 1;
  }
}

bool RecordReader::next_line(Record& record) {
  const std::size_t n = end_of_record();
  if (n == 0) return false;
  record = {{window_.data() + begin_, n}, offset_, line_};
  begin_ += n;
  offset_ += n;
  line_ += breaks_;
  return true;
}

bool RecordReader::next(Record& record) {
  do {
    if (!next_line(record)) return false;
    if (record.offset == 0 && record.text.starts_with("\xef\xbb\xbf")) record.text.remove_prefix(3);
  } while (is_blank(record.text));
  return true;
}

}  // namespace csv

namespace {
constexpr std::size_t kMostPlaces = std::size_t{1} << 20;

csv::Refill from_range(const InputFile& file, std::uint64_t begin, std::uint64_t end) {
  return [&file, begin, end](char* to, std::size_t n) mutable {
    n = static_cast<std::size_t>(std::min<std::uint64_t>(n, end - begin));
    if (n != 0) file.read_at(begin, to, n);
    begin += n;
    return n;
  };
}
}  // namespace

struct CsvFile::Impl {
  struct Place {
    std::uint64_t offset;
    std::int64_t line;
  };
  Impl(const std::string& path, const CsvOptions& o);
  void index();
  void note(const csv::Record& record);
  std::uint64_t end_of_block(std::size_t block) const {
    return block + 1 < places.size() ? places[block + 1].offset : file.size();
  }
  class Cursor;

  InputFile file;
  CsvOptions options;
  std::vector<std::string> header;
  std::vector<Place> places;  // of rows 0, stride, 2 stride, ...
  std::int64_t rows = 0, stride = 1;
};

CsvFile::Impl::Impl(const std::string& path, const CsvOptions& o) : file(path), options(o) {
  csv::check_options(options);
  if (!file.regular()) fail(ErrorKind::format, "{}: is a pipe or device: only a file can be read row by row", path);
  std::byte magic[2] = {};
  if (file.size() >= 2) file.read_at(0, magic, 2);
  if (is_gzip(magic))
    fail(ErrorKind::format, "{}: is compressed by gzip, which cannot be read row by row: decompress it (gunzip)", path);
  index();
  (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_RANDOM);
}

// The place of row number `rows`. When the table is full, every other place goes.
void CsvFile::Impl::note(const csv::Record& record) {
  if (rows % stride == 0) {
    if (places.size() == kMostPlaces) {
      for (std::size_t i = 0; i < kMostPlaces / 2; ++i) places[i] = places[2 * i];
      places.resize(kMostPlaces / 2);
      stride *= 2;
    }
    if (rows % stride == 0) places.push_back({record.offset, record.line});
  }
  ++rows;
}

void CsvFile::Impl::index() {
  constexpr std::size_t kWindow = std::size_t{1} << 20;
  (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_SEQUENTIAL);
  const auto window = static_cast<std::size_t>(std::min<std::uint64_t>(file.size() + 1, kWindow));
  csv::RecordReader records(from_range(file, 0, file.size()), file.path(), window);
  csv::Scan scan(options);
  scan.pass(records, file.path(), [&](const csv::Record& record) { note(record); });
  if (rows == 0) csv::fail_without_rows(file.path(), scan.dropped());
  header = scan.header();
  options = scan.finish();
}

// Reads rows one after another; of a block that was begun it reads on.
class CsvFile::Impl::Cursor {
 public:
  explicit Cursor(const Impl& f)
      : f_(f), tokens_({}, f.file.path(), f.options.delimiter), table_(f.header, f.file.path(), f.options) {}

  void take(std::int64_t row) {
    const std::int64_t block = row / f_.stride;
    if (!records_ || row < next_ || block != block_) open(block);
    while (next_ <= row) {
      if (!records_->next(record_)) lost(row);
      if (next_ < row && f_.options.missing != Missing::drop_row) {
        ++next_;  // needs no look at its fields
        continue;
      }
      tokens_.restart(record_.text, record_.line);
      tokens_.next(fields_);
      next_ += next_ < row ? table_.accepts(fields_, record_.line) : table_.add(fields_, record_.line);
    }
  }
  Table finish() { return table_.finish(); }

 private:
  void open(std::int64_t block) {
    const auto b = static_cast<std::size_t>(block);
    const Place& place = f_.places[b];
    const std::uint64_t end = f_.end_of_block(b);
    const auto window = static_cast<std::size_t>(std::min<std::uint64_t>(end - place.offset, std::size_t{1} << 20));
    records_.emplace(from_range(f_.file, place.offset, end), f_.file.path(), window, place.offset, place.line);
    block_ = block;
    next_ = block * f_.stride;
  }
  [[noreturn]] void lost(std::int64_t row) const {
    fail(ErrorKind::format, "{}: row {} is no longer where it was: the file was changed while it was in use",
         f_.file.path(), row);
  }
  const Impl& f_;
  csv::Tokenizer tokens_;
  csv::TableBuilder table_;
  std::optional<csv::RecordReader> records_;
  csv::Record record_;
  std::vector<csv::Field> fields_;
  std::int64_t block_ = -1, next_ = 0;
};

CsvFile::CsvFile(const std::string& path, const CsvOptions& options)
    : impl_(std::make_shared<const Impl>(path, options)) {}
const std::string& CsvFile::path() const noexcept { return impl_->file.path(); }
std::int64_t CsvFile::rows() const noexcept { return impl_->rows; }
std::uint64_t CsvFile::file_bytes() const noexcept { return impl_->file.size(); }
const CsvOptions& CsvFile::options() const noexcept { return impl_->options; }

Table CsvFile::read(std::span<const std::int64_t> rows) const {
  const Impl& f = *impl_;
  for (const std::int64_t row : rows) {
    if (row < 0 || row >= f.rows) fail(ErrorKind::value, "{}: row {} of {}", path(), row, f.rows);
    const auto block = static_cast<std::size_t>(row / f.stride);
    const std::uint64_t from = f.places[block].offset;
    (void)::posix_fadvise(f.file.descriptor(), static_cast<off_t>(from),
                          static_cast<off_t>(f.end_of_block(block) - from), POSIX_FADV_WILLNEED);
  }
  Impl::Cursor cursor(f);
  for (const std::int64_t row : rows) cursor.take(row);
  return cursor.finish();
}

}  // namespace bp::io

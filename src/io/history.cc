// HistoryWriter: a CSV file of numbers that grows by a row an epoch and survives a crash or a full disk between rows.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "io/file.h"

namespace bp::io {

namespace {
std::string header_line(const std::vector<std::string>& columns) {
  std::string line;
  for (const std::string& c : columns) {
    if (c.empty() || c.find_first_of(",\"\r\n") != std::string::npos)
      fail(ErrorKind::value, "[history] \"{}\" cannot be a column: no commas, quotes or line breaks, not empty", c);
    if (!line.empty()) line += ',';
    line += c;
  }
  line += '\n';
  return line;
}

// The header and the first `keep` whole rows of an existing file.
std::string kept_lines(const std::string& path, const std::string& header, std::int64_t keep) {
  const Buffer old = read_file(path);
  const std::string_view text(old.as<char>(), old.bytes());
  if (!text.starts_with(header))
    fail(ErrorKind::format, "{}: its header is not \"{}\": write the history of another run to another file", path,
         std::string_view(header).substr(0, header.size() - 1));
  std::size_t end = header.size();
  for (std::int64_t i = 0; i < keep; ++i) {
    const auto line = text.find('\n', end);
    if (line == std::string_view::npos) fail(ErrorKind::format, "{}: has {} rows, {} were expected", path, i, keep);
    end = line + 1;
  }
  return std::string(text.substr(0, end));
}
}  // namespace

HistoryWriter::HistoryWriter(std::string path, std::vector<std::string> columns, std::int64_t keep_rows)
    : path_(std::move(path)), width_(columns.size()) {
  if (columns.empty() || keep_rows < 0) fail(ErrorKind::value, "[history] needs columns, and no negative row count");
  const std::string header = header_line(columns);
  write_file(path_, keep_rows == 0 ? header : kept_lines(path_, header, keep_rows));
  file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file_ < 0) fail_io("write", path_, errno);
}

HistoryWriter::~HistoryWriter() { ::close(file_); }

void HistoryWriter::append(std::span<const double> row) {
  if (row.size() != width_) fail(ErrorKind::value, "{}: a row of {} values for {} columns", path_, row.size(), width_);
  std::string line;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i != 0) line += ',';
    if (!std::isnan(row[i])) line += fmt::format("{}", row[i]);
  }
  line += '\n';
  const off_t before = ::lseek(file_, 0, SEEK_END);
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = ::write(file_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      if (done != 0 && before >= 0) (void)!::ftruncate(file_, before);  // no torn row stays
      fail_io("write", path_, error);
    }
    done += static_cast<std::size_t>(n);
  }
  if (::fdatasync(file_) != 0 && errno != EINVAL && errno != EROFS) fail_io("write", path_, errno);
}

}  // namespace bp::io

// Reading forward through gzip.
#include "io/forward.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace bp::io {

ForwardFile::ForwardFile(const std::string& path) : path_(path) {
  { const InputFile checked(path); }  // says what is wrong with folders and missing files
  file_ = ::gzopen(path.c_str(), "rbe");
  if (file_ == nullptr) fail_io("open", path, errno);
  ::gzbuffer(file_, 1u << 17);
}

ForwardFile::~ForwardFile() { ::gzclose_r(file_); }

std::size_t ForwardFile::read_some(void* to, std::size_t bytes) {
  const int n = ::gzread(file_, to, static_cast<unsigned>(std::min<std::size_t>(bytes, INT_MAX)));
  int error = Z_OK;
  const char* why = ::gzerror(file_, &error);
  if (error == Z_ERRNO) fail_io("read", path_, errno);
  if (n < 0 || (error != Z_OK && error != Z_STREAM_END))
    fail(ErrorKind::format, "{}: the gzip data are corrupt or end early: {}", path_, why);
  return static_cast<std::size_t>(n);
}

ForwardArray::ForwardArray(const std::string& path) : file_(path) {
  constexpr std::size_t kLongestRow = std::size_t{256} << 20;
  read_head();
  stored_ = array_layout({reinterpret_cast<const std::byte*>(head_.data()), head_.size()}, kUnknownSize, path);
  used_ = static_cast<std::size_t>(stored_.offset);
  Shape row = stored_.shape;
  row.erase(0);
  const std::uint64_t elements = claimed_elements(row);
  if (elements > kLongestRow / stored_.size)
    fail(ErrorKind::format, "{}: the header claims rows {}: more than {} MiB each", path, row, kLongestRow >> 20);
  row_bytes_ = static_cast<std::size_t>(elements) * stored_.size;
}

void ForwardArray::read_head() {
  constexpr std::size_t kFirst = std::size_t{1} << 16;
  head_.resize(kFirst);
  std::size_t used = 0;
  while (used < kFirst) {
    const std::size_t n = file_.read_some(head_.data() + used, kFirst - used);
    if (n == 0) break;
    used += n;
  }
  head_.resize(used);
}

bool ForwardArray::next(std::string& to) {
  if (row_ == rows()) return false;
  const std::size_t at = to.size(), from_head = std::min(row_bytes_, head_.size() - used_);
  to.append(head_, used_, from_head);
  used_ += from_head;
  to.resize(at + row_bytes_);
  for (std::size_t have = from_head; have < row_bytes_;) {
    const std::size_t n = file_.read_some(to.data() + at + have, row_bytes_ - have);
    if (n == 0)
      fail(ErrorKind::format, "{}: ends in row {} of the {} that its header claims", file_.path(), row_, rows());
    have += n;
  }
  ++row_;
  return true;
}

}  // namespace bp::io

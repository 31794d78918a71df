// Files that are read from front to back only, plain or gzip, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "io/array_file.h"

struct gzFile_s;  // of zlib

namespace bp::io {

class ForwardFile {
 public:
  explicit ForwardFile(const std::string& path);  // throws Error(io)
  ~ForwardFile();
  ForwardFile(const ForwardFile&) = delete;
  ForwardFile& operator=(const ForwardFile&) = delete;

  const std::string& path() const noexcept { return path_; }
  // Up to so many bytes, decompressed; 0 at the end. Throws Error(format) when they are corrupt or end early.
  std::size_t read_some(void* to, std::size_t bytes);

 private:
  std::string path_;
  gzFile_s* file_;
};

// The rows of an NPY (C order) or IDX file, one after another, as they are stored.
class ForwardArray {
 public:
  // Throws as ArrayFile does, but for gzip; Error(format) for rows of more than 256 MiB.
  explicit ForwardArray(const std::string& path);

  const Stored& stored() const noexcept { return stored_; }
  std::int64_t rows() const noexcept { return stored_.shape[0]; }
  std::size_t row_bytes() const noexcept { return row_bytes_; }
  // Appends the next row; false at the end. Throws Error(format) naming the row when the file ends before the rows that
  // its header claims.
  bool next(std::string& to);

 private:
  void read_head();
  ForwardFile file_;
  std::string head_;  // what was read to understand the header, from `used_` on values
  std::size_t used_ = 0, row_bytes_ = 0;
  Stored stored_;
  std::int64_t row_ = 0;
};

}  // namespace bp::io

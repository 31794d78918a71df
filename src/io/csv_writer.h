// A CSV file written table by table. For io::write_csv and for predictions of more rows than memory holds.
#pragma once

#include <string>
#include <vector>

#include "bp/io.h"

namespace bp::io {

// Whole or not at all, as AtomicWriter: nothing is left behind without commit().
class CsvWriter {
 public:
  explicit CsvWriter(const std::string& path, char delimiter = ',') : out_(path), delimiter_(delimiter) {}
  // The rows of `table`, below those of the tables before; the header is the first table's. Throws Error(shape) for a
  // column that is not [rows], Error(value) for other columns than the first table's, or an id without a category.
  void append(const Table& table);
  void commit() { out_.commit(); }

 private:
  void begin(const Table& table);
  void check(const Table& table) const;

  AtomicWriter out_;
  char delimiter_;
  bool begun_ = false;
  std::vector<std::string> names_;
};

}  // namespace bp::io

// The records of a CSV file in order, found without splitting them into fields, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace bp::io::csv {

struct Record {
  std::string_view text;  // with its line end; lives until the next one is read
  std::uint64_t offset = 0;
  std::int64_t line = 0;  // where it begins, from 1
};

// Where bytes come from: fills `to` with up to `n` of them; 0 at the end.
using Refill = std::function<std::size_t(char* to, std::size_t n)>;

class RecordReader {
 public:
  static constexpr std::size_t kLongest = std::size_t{16} << 20;  // bytes of a record
  RecordReader(Refill refill, std::string_view name, std::size_t window, std::uint64_t offset = 0,
               std::int64_t line = 1);

  // False at the end. Blank lines, and a byte order mark at offset 0, are skipped.
  bool next(Record& record);

 private:
  bool next_line(Record& record);
  std::size_t end_of_record();
  bool fill();
  Refill refill_;
  std::string_view name_;
  std::vector<char> window_;
  std::size_t begin_ = 0, end_ = 0;  // what is read of the window and not yet handed out
  std::uint64_t offset_;             // of begin_
  std::int64_t line_;
  std::int64_t breaks_ = 0;  // line ends in the record that is being looked for
  bool at_end_ = false;
};

}  // namespace bp::io::csv

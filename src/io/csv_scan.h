// A pass over CSV files that counts their rows and finds the categories that are not given. Used where rows are read
// one by one afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/csv_records.h"
#include "io/csv_table.h"

namespace bp::io::csv {

class Scan {
 public:
  // `options` must outlive it.
  explicit Scan(const CsvOptions& options) : options_(options), tokens_({}, {}, options.delimiter) {}

  // Calls kept(record) for each row that is not dropped. All files must have the header of the first.
  template <class F> void pass(RecordReader& records, std::string_view name, F&& kept) {
    Record record;
    if (!records.next(record)) fail(ErrorKind::format, "{}: the file is empty: expected a header line", name);
    read_header(record, name);
    const bool split =
        options_.missing == Missing::drop_row || options_.categorical.size() > options_.categories.size();
    while (records.next(record)) {
      if (split && !accepts(record)) {
        ++dropped_;
        continue;
      }
      kept(record);
    }
  }
  const std::vector<std::string>& header() const noexcept { return header_; }
  std::int64_t dropped() const noexcept { return dropped_; }

  // The options with the columns and categories that were found.
  CsvOptions finish() {
    CsvOptions found = options_;
    found.columns.clear();
    for (Column& column : found_->finish().columns) {
      found.columns.push_back(column.name);
      if (!column.categories.empty()) found.categories[column.name] = std::move(column.categories);
    }
    found.categorical.clear();
    return found;
  }

 private:
  void read_header(const Record& record, std::string_view name) {
    tokens_.restart(record.text, record.line, name);
    tokens_.next(fields_);
    std::vector<std::string> names = header_names(fields_);
    if (!found_) {
      header_ = std::move(names);
      found_.emplace(header_, name, options_);
    } else if (names != header_) {
      fail(ErrorKind::format, "{}: the header differs from that of the first file: expected the same columns", name);
    }
    found_->set_name(name);
  }
  bool accepts(const Record& record) {
    tokens_.restart(record.text, record.line);
    tokens_.next(fields_);
    return found_->note(fields_, record.line);
  }
  const CsvOptions& options_;
  Tokenizer tokens_;
  std::vector<Field> fields_;
  std::vector<std::string> header_;
  std::optional<TableBuilder> found_;
  std::int64_t dropped_ = 0;
};

}  // namespace bp::io::csv

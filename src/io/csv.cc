// CSV tables: reading and writing them whole.
#include <algorithm>
#include <set>

#include "io/csv_table.h"
#include "io/csv_writer.h"

namespace bp::io {

namespace {
using csv::trimmed;

// Quoted wherever a reader would otherwise split, trim or take the text for a missing value.
std::string quoted_where_needed(const std::string& text, char delimiter) {
  const bool special = text.find_first_of("\"\r\n") != std::string::npos || text.find(delimiter) != std::string::npos;
  const bool blank = trimmed(text).size() != text.size();
  const CsvOptions defaults;
  const auto& missing = defaults.missing_values;
  if (!special && !blank && std::find(missing.begin(), missing.end(), text) == missing.end()) return text;
  std::string out(1, '"');
  for (char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
  return out;
}

std::string cell(const Column& c, std::int64_t row, char delimiter) {
  const auto i = static_cast<std::size_t>(row);
  if (c.categories.empty())
    return dispatch(c.values.dtype, [&](auto zero) {
      using T = decltype(zero);
      const T v = c.values.data<T>()[i];
      if constexpr (std::is_same_v<T, bool>)
        return std::string(v ? "1" : "0");
      else if constexpr (std::is_same_v<T, bfloat16>)
        return fmt::format("{}", static_cast<float>(v));
      else
        return fmt::format("{}", v);
    });
  const std::int64_t id = c.values.data<std::int64_t>()[i];
  if (id < 0 || id >= static_cast<std::int64_t>(c.categories.size()))
    fail(ErrorKind::value, "[write_csv] column \"{}\", row {}: id {} has no category; there are {}", c.name, row, id,
         c.categories.size());
  return quoted_where_needed(c.categories[static_cast<std::size_t>(id)], delimiter);
}
}  // namespace

Table parse_csv(Bytes bytes, std::string_view name, const CsvOptions& options) {
  csv::check_options(options);
  csv::Tokenizer tokens({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name, options.delimiter);
  std::vector<csv::Field> fields;
  if (!tokens.next(fields)) fail(ErrorKind::format, "{}: the file is empty: expected a header line", name);
  csv::TableBuilder table(csv::header_names(fields), name, options);
  std::int64_t dropped = 0;
  while (tokens.next(fields)) dropped += !table.add(fields, tokens.line());
  if (table.rows() == 0) csv::fail_without_rows(name, dropped);
  return table.finish();
}

Table read_csv(const std::string& path, const CsvOptions& options, const ReadLimits& limits) {
  return parse_csv(bytes_of(read_file(path, limits)), path, options);
}

const Column& Table::column(std::string_view name) const {
  for (const Column& c : columns)
    if (c.name == name) return c;
  std::vector<std::string> names;
  for (const Column& c : columns) names.push_back(c.name);
  fail(ErrorKind::value, "there is no column \"{}\"; did you mean \"{}\"?", name, nearest_name(name, names));
}

Array Table::matrix(std::span<const std::string> names, DType dtype) const {
  const auto width = static_cast<std::int64_t>(names.size());
  Array out = Array::empty(dtype, {rows(), width});
  const Column* next = columns.data();  // names mostly come in the order of the columns
  for (std::int64_t j = 0; j < width; ++j) {
    const std::string& name = names[static_cast<std::size_t>(j)];
    const Column& c = next != columns.data() + columns.size() && next->name == name ? *next : column(name);
    next = &c + 1;
    const Array values = convert(c.values, dtype);
    dispatch(dtype, [&](auto zero) {
      using T = decltype(zero);
      const T* from = values.data<T>();
      T* to = out.mutable_data<T>() + j;
      for (std::int64_t i = 0; i < rows(); ++i) to[i * width] = from[i];
    });
  }
  return out;
}

Array Table::one_hot(std::span<const std::string> names, DType dtype) const {
  Table wide;
  std::vector<std::string> all;
  for (const std::string& name : names) {
    const Column& c = column(name);
    const auto categories = static_cast<std::int64_t>(c.categories.size());
    for (std::int64_t k = 0; k < std::max<std::int64_t>(1, categories); ++k) {
      Column part{std::to_string(all.size()), c.values, {}};
      if (categories > 0) {
        part.values = Array::empty(DType::u8, {rows()});
        for (std::int64_t i = 0; i < rows(); ++i)
          part.values.mutable_data<std::uint8_t>()[i] = c.values.data<std::int64_t>()[i] == k;
      }
      all.push_back(part.name);
      wide.columns.push_back(std::move(part));
    }
  }
  return wide.matrix(all, dtype);
}

void CsvWriter::check(const Table& table) const {
  for (const Column& c : table.columns)
    if (c.values.shape != Shape{table.rows()})
      fail(ErrorKind::shape, "[write_csv] column \"{}\" has shape {}, expected [{}]", c.name, c.values.shape,
           table.rows());
  for (std::size_t i = 0; begun_ && i < std::max(names_.size(), table.columns.size()); ++i)
    if (i >= names_.size() || i >= table.columns.size() || table.columns[i].name != names_[i])
      fail(ErrorKind::value, "[write_csv] column {}: expected {}, got {}", i, i < names_.size() ? names_[i] : "no more",
           i < table.columns.size() ? table.columns[i].name : "none");
}

void CsvWriter::begin(const Table& table) {
  begun_ = true;
  std::string line;
  for (const Column& c : table.columns) {
    names_.push_back(c.name);
    if (names_.size() > 1) line += delimiter_;
    line += quoted_where_needed(c.name, delimiter_);
  }
  out_.write(line + "\n");
}

void CsvWriter::append(const Table& table) {
  check(table);
  if (!begun_) begin(table);
  for (std::int64_t i = 0; i < table.rows(); ++i) {
    for (const Column& c : table.columns) {
      if (&c != &table.columns.front()) out_.write(&delimiter_, 1);
      out_.write(cell(c, i, delimiter_));
    }
    out_.write("\n");
  }
}

void write_csv(const std::string& path, const Table& table, char delimiter) {
  CsvWriter out(path, delimiter);
  out.append(table);
  out.commit();
}

}  // namespace bp::io

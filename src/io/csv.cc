// CSV tables: a tokenizer after RFC 4180, columns of numbers or categories built from its records, and the writer.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/nearest.h"
#include "io/file.h"

namespace bp::io {

namespace {
struct Field {
  std::string_view text;
  bool quoted = false;
};

std::string_view trimmed(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

// Splits text into records. The fields of a record live until the next one is read.
class Tokenizer {
 public:
  Tokenizer(std::string_view text, std::string_view name, char delimiter)
      : text_(text), name_(name), delimiter_(delimiter) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
  }

  // False at the end. Blank lines are skipped.
  bool next(std::vector<Field>& fields) {
    do {
      if (at_ == text_.size()) return false;
      fields.clear();
      unescaped_.clear();
      line_ = next_line_;
      while (read_field(fields)) {}
    } while (fields.size() == 1 && !fields[0].quoted && trimmed(fields[0].text).empty());
    return true;
  }
  std::int64_t line() const noexcept { return line_; }  // where the last record begins, from 1

 private:
  // Reads one field and what ends it; true when a delimiter did.
  bool read_field(std::vector<Field>& fields) {
    if (at_ < text_.size() && text_[at_] == '"') {
      fields.push_back({quoted(fields.size() + 1), true});
    } else {
      const std::size_t start = at_;
      while (at_ < text_.size() && text_[at_] != delimiter_ && text_[at_] != '\n' && text_[at_] != '\r') {
        if (text_[at_] == '"') error(fields.size() + 1, "a quote inside a field that does not begin with one");
        if (text_[at_] == '\0') error(fields.size() + 1, "a zero byte: this is no text file");
        ++at_;
      }
      fields.push_back({text_.substr(start, at_ - start), false});
    }
    if (at_ == text_.size()) return false;
    const char c = text_[at_++];
    if (c == delimiter_) return true;
    if (c == '\r' && at_ < text_.size() && text_[at_] == '\n') ++at_;
    ++next_line_;
    return false;
  }

  std::string_view quoted(std::size_t column) {
    const std::size_t start = ++at_;
    bool doubled = false;
    for (;; ++at_) {
      if (at_ == text_.size()) error(column, "a quoted field is not closed");
      if (text_[at_] == '\n') ++next_line_;
      if (text_[at_] != '"') continue;
      if (at_ + 1 == text_.size() || text_[at_ + 1] != '"') break;
      doubled = true;
      ++at_;
    }
    std::string_view body = text_.substr(start, at_ - start);
    ++at_;
    if (at_ < text_.size() && text_[at_] != delimiter_ && text_[at_] != '\n' && text_[at_] != '\r')
      error(column, "text behind a closing quote");
    return doubled ? undouble(body) : body;
  }

  std::string_view undouble(std::string_view body) {
    std::string& s = unescaped_.emplace_back();
    for (std::size_t i = 0; i < body.size(); ++i) {
      s += body[i];
      if (body[i] == '"') ++i;
    }
    return s;
  }

  [[noreturn]] void error(std::size_t column, std::string_view what) const {
    fail(ErrorKind::format, "{}: line {}, field {}: {}", name_, line_, column, what);
  }

  std::string_view text_, name_;
  char delimiter_;
  std::size_t at_ = 0;
  std::int64_t line_ = 0, next_line_ = 1;
  std::deque<std::string> unescaped_;
};

// from_chars reports a result too small for T like one too large; tell them apart by the spelling.
bool underflows(std::string_view s) {
  const auto e = s.find_first_of("eE");
  if (e != std::string_view::npos) return e + 1 < s.size() && s[e + 1] == '-';
  return s.starts_with("0.") || s.starts_with(".") || s.starts_with("-0.") || s.starts_with("-.");
}

enum class Number { valid, malformed, too_large, not_finite };

template <class T> Number parse_number(std::string_view s, T& value) {
  if (s.starts_with('+') && !s.starts_with("+-")) s.remove_prefix(1);
  const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), value);
  if (s.empty() || code == std::errc::invalid_argument || end != s.data() + s.size()) return Number::malformed;
  if (code == std::errc::result_out_of_range) {
    if (!underflows(s)) return Number::too_large;
    value = s.starts_with('-') ? T(-0.0) : T(0);
    return Number::valid;
  }
  return std::isfinite(value) ? Number::valid : Number::not_finite;
}

// Ids in order of appearance; sorted at the end.
class Categories {
 public:
  explicit Categories(const std::vector<std::string>* fixed) : fixed_(fixed != nullptr) {
    if (fixed_)
      for (const std::string& s : *fixed) ids_.emplace(s, static_cast<std::int64_t>(ids_.size()));
    if (fixed_) names_ = *fixed;
  }
  // None when the categories are fixed and do not include this one.
  std::optional<std::int64_t> id(std::string_view text) {
    const auto [it, added] = ids_.try_emplace(std::string(text), static_cast<std::int64_t>(names_.size()));
    if (added && fixed_) {
      ids_.erase(it);
      return std::nullopt;
    }
    if (added) names_.emplace_back(text);
    return it->second;
  }
  const std::vector<std::string>& names() const noexcept { return names_; }

  // Sorts the names, as numbers when all are integers, and renames the ids. Fixed categories keep theirs.
  void sort(std::vector<std::int64_t>& ids) {
    if (fixed_) return;
    std::vector<std::pair<std::int64_t, std::string>> keyed;
    bool integers = true;
    for (const std::string& s : names_) {
      std::int64_t n = 0;
      const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), n);
      integers = integers && code == std::errc{} && end == s.data() + s.size();
      keyed.emplace_back(n, s);
    }
    if (!integers)
      for (auto& k : keyed) k.first = 0;
    std::sort(keyed.begin(), keyed.end());
    std::vector<std::int64_t> renamed(names_.size());
    for (std::size_t i = 0; i < keyed.size(); ++i) {
      renamed[static_cast<std::size_t>(ids_.at(keyed[i].second))] = static_cast<std::int64_t>(i);
      names_[i] = keyed[i].second;
    }
    for (std::int64_t& id : ids) id = renamed[static_cast<std::size_t>(id)];
  }

 private:
  bool fixed_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::vector<std::string> names_;
};

struct Builder {
  std::string name;
  std::size_t field = 0;  // position in a record
  bool categorical = false;
  Categories categories{nullptr};
  std::vector<std::int64_t> ids;
  std::vector<float> floats;
  std::vector<double> doubles;
};

class TableReader {
 public:
  TableReader(std::string_view text, std::string_view name, const CsvOptions& options)
      : tokens_(text, name, options.delimiter), name_(name), options_(options) {}

  Table read() {
    read_header();
    std::vector<Field> fields;
    std::int64_t dropped = 0;
    while (tokens_.next(fields)) {
      if (fields.size() != width_)
        fail(ErrorKind::format, "{}: line {} has {} fields, the header has {}", name_, tokens_.line(), fields.size(),
             width_);
      if (options_.missing == Missing::drop_row && any_missing(fields)) {
        ++dropped;
        continue;
      }
      for (Builder& b : builders_) add(b, fields[b.field]);
      ++rows_;
    }
    if (rows_ == 0)
      fail(ErrorKind::format, "{}: no rows follow the header{}", name_,
           dropped == 0 ? "" : fmt::format(" ({} with missing values were dropped)", dropped));
    return finish();
  }

 private:
  void read_header() {
    std::vector<Field> fields;
    if (!tokens_.next(fields)) fail(ErrorKind::format, "{}: the file is empty: expected a header line", name_);
    width_ = fields.size();
    std::vector<std::string> names;
    std::set<std::string_view> seen;
    for (const Field& f : fields) names.emplace_back(f.quoted ? f.text : trimmed(f.text));
    for (const std::string& n : names)
      if (!n.empty() && !seen.insert(n).second)
        fail(ErrorKind::format, "{}: the header names the column \"{}\" twice", name_, n);
    for (const std::string& n : options_.categorical) index_of(names, n);
    for (const auto& [n, categories] : options_.categories) index_of(names, n);
    for (std::size_t i = 0; i < names.size() && options_.columns.empty(); ++i) add_column(names, i);
    for (const std::string& n : options_.columns) add_column(names, index_of(names, n));
  }

  std::size_t index_of(const std::vector<std::string>& names, const std::string& n) const {
    const auto it = std::find(names.begin(), names.end(), n);
    if (it == names.end())
      fail(ErrorKind::value, "{}: there is no column \"{}\"; did you mean \"{}\"?", name_, n, nearest_name(n, names));
    return static_cast<std::size_t>(it - names.begin());
  }

  void add_column(const std::vector<std::string>& names, std::size_t i) {
    if (names[i].empty())
      fail(
          ErrorKind::format,
          "{}: column {} has no name in the header: name it, or select columns (an unnamed first column is often a row "
          "number)",
          name_, i + 1);
    Builder& b = builders_.emplace_back();
    b.name = names[i];
    b.field = i;
    const auto fixed = options_.categories.find(b.name);
    const auto& listed = options_.categorical;
    b.categorical = fixed != options_.categories.end() || std::count(listed.begin(), listed.end(), b.name) != 0;
    if (fixed != options_.categories.end()) b.categories = Categories(&fixed->second);
  }

  bool is_missing(const Builder& b, const Field& f) const {
    if (f.quoted && b.categorical) return false;
    const auto& list = options_.missing_values;
    return std::find(list.begin(), list.end(), trimmed(f.text)) != list.end();
  }

  bool any_missing(const std::vector<Field>& fields) const {
    return std::any_of(builders_.begin(), builders_.end(),
                       [&](const Builder& b) { return is_missing(b, fields[b.field]); });
  }

  void add(Builder& b, const Field& f) {
    const bool missing = is_missing(b, f);
    if (missing && (options_.missing == Missing::error || b.categorical))
      fail_at(b, fmt::format("the value is missing (\"{}\")", trimmed(f.text)));
    if (b.categorical) {
      const std::string_view text = f.quoted ? f.text : trimmed(f.text);
      const auto id = b.categories.id(text);
      if (!id)
        fail_at(b, fmt::format("unknown category \"{}\"; did you mean \"{}\"?", text,
                               nearest_name(text, b.categories.names())));
      b.ids.push_back(*id);
    } else if (options_.dtype == DType::f64) {
      b.doubles.push_back(missing ? std::nan("") : number<double>(b, f));
    } else {
      b.floats.push_back(missing ? std::nanf("") : number<float>(b, f));
    }
  }

  template <class T> T number(const Builder& b, const Field& f) const {
    T value{};
    const std::string_view text = trimmed(f.text);
    switch (parse_number(text, value)) {
      case Number::valid: break;
      case Number::malformed:
        fail_at(b, fmt::format("\"{}\" is not a number; list the column as categorical if it holds names",
                               text.substr(0, 80)));
      case Number::too_large:
        fail_at(b, fmt::format("{} is too large for {}", text.substr(0, 80), name_of(options_.dtype)));
      case Number::not_finite:
        if (!options_.allow_non_finite) fail_at(b, fmt::format("{} is not a finite number", text.substr(0, 80)));
    }
    return value;
  }

  [[noreturn]] void fail_at(const Builder& b, std::string_view what) const {
    fail(ErrorKind::format, "{}: line {}, column \"{}\": {}", name_, tokens_.line(), b.name, what);
  }

  Table finish() {
    Table table;
    const Shape shape{rows_};
    for (Builder& b : builders_) {
      Column& c = table.columns.emplace_back();
      c.name = std::move(b.name);
      if (b.categorical) {
        b.categories.sort(b.ids);
        c.values = Array::from(b.ids, shape);
        c.categories = b.categories.names();
      } else if (options_.dtype == DType::f64) {
        c.values = Array::from(b.doubles, shape);
      } else {
        c.values = Array::from(b.floats, shape);
      }
    }
    return table;
  }

  Tokenizer tokens_;
  std::string_view name_;
  const CsvOptions& options_;
  std::size_t width_ = 0;
  std::int64_t rows_ = 0;
  std::vector<Builder> builders_;
};

void check_options(const CsvOptions& options) {
  if (options.dtype != DType::f32 && options.dtype != DType::f64)
    fail(ErrorKind::dtype, "[csv] numeric columns are f32 or f64, not {}", name_of(options.dtype));
  const char d = options.delimiter;
  if (d == '"' || d == '\n' || d == '\r' || d == '\0')
    fail(ErrorKind::value, "[csv] a quote, line break or zero byte cannot be the delimiter");
  for (const auto& [column, names] : options.categories) {
    const std::set<std::string> unique(names.begin(), names.end());
    if (unique.size() != names.size()) fail(ErrorKind::value, "[csv] the categories of \"{}\" repeat a name", column);
  }
}

// Quoted wherever a reader would otherwise split, trim or take the text for a missing value.
std::string escaped(const std::string& text, char delimiter) {
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
  return escaped(c.categories[static_cast<std::size_t>(id)], delimiter);
}
}  // namespace

Table parse_csv(Bytes bytes, std::string_view name, const CsvOptions& options) {
  check_options(options);
  return TableReader({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name, options).read();
}

Table read_csv(const std::string& path, const CsvOptions& options, const ReadLimits& limits) {
  return parse_csv(bytes_of(read_file(path, limits)), path, options);
}

const Column& Table::column(std::string_view name) const {
  std::vector<std::string> names;
  for (const Column& c : columns) {
    if (c.name == name) return c;
    names.push_back(c.name);
  }
  fail(ErrorKind::value, "there is no column \"{}\"; did you mean \"{}\"?", name, nearest_name(name, names));
}

Array Table::matrix(std::span<const std::string> names, DType dtype) const {
  const auto width = static_cast<std::int64_t>(names.size());
  Array out = Array::empty(dtype, {rows(), width});
  for (std::int64_t j = 0; j < width; ++j) {
    const Array values = convert(column(names[static_cast<std::size_t>(j)]).values, dtype);
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

void write_csv(const std::string& path, const Table& table, char delimiter) {
  for (const Column& c : table.columns)
    if (c.values.shape != Shape{table.rows()})
      fail(ErrorKind::shape, "[write_csv] column \"{}\" has shape {}, expected [{}]", c.name, c.values.shape,
           table.rows());
  AtomicWriter out(path);
  const auto separate = [&](const Column& c) {
    if (&c != &table.columns.front()) out.write(&delimiter, 1);
  };
  for (const Column& c : table.columns) {
    separate(c);
    out.write(escaped(c.name, delimiter));
  }
  out.write("\n");
  for (std::int64_t i = 0; i < table.rows(); ++i) {
    for (const Column& c : table.columns) {
      separate(c);
      out.write(cell(c, i, delimiter));
    }
    out.write("\n");
  }
  out.commit();
}

}  // namespace bp::io

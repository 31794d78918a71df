// CSV records: a tokenizer after RFC 4180, and columns of numbers or categories built from what it finds. Used by
// csv.cc, which reads whole files, and csv_file.cc, which reads them row by row.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/nearest.h"
#include "io/file.h"

namespace bp::io::csv {

struct Field {
  std::string_view text;
  bool quoted = false;
};

inline std::string_view trimmed(std::string_view s) {
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
  // Goes on with another text, which begins at a line, of the same file or another.
  void restart(std::string_view text, std::int64_t line, std::string_view name) {
    name_ = name;
    restart(text, line);
  }
  void restart(std::string_view text, std::int64_t line) {
    text_ = text;
    at_ = 0;
    next_line_ = line;
  }

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
inline bool underflows(std::string_view s) {
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

// Ids in order of appearance; sorted at the end. Fixed ones are shared by copies.
class Categories {
 public:
  explicit Categories(const std::vector<std::string>* fixed)
      : fixed_(fixed != nullptr), known_(std::make_shared<Known>()) {
    if (!fixed_) return;
    known_->names = *fixed;
    for (const std::string& s : *fixed) known_->ids.emplace(s, static_cast<std::int64_t>(known_->ids.size()));
  }
  // None when the categories are fixed and do not include this one.
  std::optional<std::int64_t> id(std::string_view text) {
    std::string key(text);
    if (const auto found = known_->ids.find(key); found != known_->ids.end()) return found->second;
    if (fixed_) return std::nullopt;
    const auto id = static_cast<std::int64_t>(known_->names.size());
    known_->names.push_back(key);
    known_->ids.emplace(std::move(key), id);
    return id;
  }
  const std::vector<std::string>& names() const noexcept { return known_->names; }

  // Sorts the names, as numbers when all are integers, and renames the ids. Fixed categories keep theirs.
  void sort(std::vector<std::int64_t>& ids) {
    if (fixed_) return;
    std::vector<std::string>& names = known_->names;
    std::vector<std::pair<std::int64_t, std::string>> keyed;
    bool integers = true;
    for (const std::string& s : names) {
      std::int64_t n = 0;
      const auto [end, code] = std::from_chars(s.data(), s.data() + s.size(), n);
      integers = integers && code == std::errc{} && end == s.data() + s.size();
      keyed.emplace_back(n, s);
    }
    if (!integers)
      for (auto& k : keyed) k.first = 0;
    std::sort(keyed.begin(), keyed.end());
    std::vector<std::int64_t> renamed(names.size());
    for (std::size_t i = 0; i < keyed.size(); ++i) {
      renamed[static_cast<std::size_t>(known_->ids.at(keyed[i].second))] = static_cast<std::int64_t>(i);
      names[i] = keyed[i].second;
    }
    for (std::int64_t& id : ids) id = renamed[static_cast<std::size_t>(id)];
  }

 private:
  struct Known {
    std::unordered_map<std::string, std::int64_t> ids;
    std::vector<std::string> names;
  };
  bool fixed_;
  std::shared_ptr<Known> known_;
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

inline std::vector<std::string> header_names(const std::vector<Field>& fields) {
  std::vector<std::string> names;
  for (const Field& f : fields) names.emplace_back(f.quoted ? f.text : trimmed(f.text));
  return names;
}

[[noreturn]] inline void fail_without_rows(std::string_view name, std::int64_t dropped) {
  fail(ErrorKind::format, "{}: no rows follow the header{}", name,
       dropped == 0 ? "" : fmt::format(" ({} with missing values were dropped)", dropped));
}

// Columns from records, as the options say. `name` and `options` must outlive it.
class TableBuilder {
 public:
  TableBuilder(const std::vector<std::string>& header, std::string_view name, const CsvOptions& options)
      : name_(name), options_(options), width_(header.size()) {
    std::unordered_map<std::string_view, std::size_t> places;
    for (std::size_t i = 0; i < header.size(); ++i)
      if (!places.emplace(header[i], i).second && !header[i].empty())
        fail(ErrorKind::format, "{}: the header names the column \"{}\" twice", name_, header[i]);
    const auto place = [&](const std::string& n) {
      const auto found = places.find(n);
      if (found == places.end())
        fail(ErrorKind::value, "{}: there is no column \"{}\"; did you mean \"{}\"?", name_, n,
             nearest_name(n, header));
      return found->second;
    };
    for (const std::string& n : options_.categorical) place(n);
    for (const auto& [n, categories] : options_.categories) place(n);
    for (std::size_t i = 0; i < header.size() && options_.columns.empty(); ++i) add_column(header, i);
    for (const std::string& n : options_.columns) add_column(header, place(n));
  }

  std::int64_t rows() const noexcept { return rows_; }
  void set_name(std::string_view name) { name_ = name; }  // of the file that records now come from

  // False when the record is left out, for a missing value. Throws Error(format) for one of another width.
  bool accepts(const std::vector<Field>& fields, std::int64_t line) {
    line_ = line;
    if (fields.size() != width_)
      fail(ErrorKind::format, "{}: line {} has {} fields, the header has {}", name_, line, fields.size(), width_);
    return options_.missing != Missing::drop_row || !any_missing(fields);
  }
  // accepts(), and adds the values then.
  bool add(const std::vector<Field>& fields, std::int64_t line) {
    if (!accepts(fields, line)) return false;
    for (Builder& b : builders_) add(b, fields[b.field]);
    ++rows_;
    return true;
  }
  // As add(), but only the categories are looked at, and no values are kept.
  bool note(const std::vector<Field>& fields, std::int64_t line) {
    if (!accepts(fields, line)) return false;
    for (Builder& b : builders_)
      if (b.categorical) {
        add(b, fields[b.field]);
        b.ids.clear();
      }
    return true;
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

 private:
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
    fail(ErrorKind::format, "{}: line {}, column \"{}\": {}", name_, line_, b.name, what);
  }

  std::string_view name_;
  const CsvOptions& options_;
  std::size_t width_;
  std::int64_t rows_ = 0, line_ = 0;
  std::vector<Builder> builders_;
};

inline void check_options(const CsvOptions& options) {
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

}  // namespace bp::io::csv

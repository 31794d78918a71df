// Checking a table against the rules of its group.
#include "train/config_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/nearest.h"

namespace bp::train {

namespace {

std::string joined(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

bool is_number(const Node& n) { return n.kind == Node::Kind::integer || n.kind == Node::Kind::number; }

// One, or a non-empty list, of what `fits`.
template <class F> bool one_or_list(const Node& n, F&& fits) {
  if (n.kind != Node::Kind::array) return fits(n);
  return !n.items.empty() && std::all_of(n.items.begin(), n.items.end(), fits);
}

// 1000000, "512 MiB", "1.5GB".
std::optional<std::size_t> bytes_of(const Node& n) {
  constexpr double kMost = 1e18;
  if (n.kind == Node::Kind::integer && n.integer >= 0) return static_cast<std::size_t>(n.integer);
  if (n.kind != Node::Kind::text) return std::nullopt;
  const char* begin = n.text.c_str();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  while (*end == ' ') ++end;
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  for (const auto& [unit, size] : kUnits)
    if (end != begin && unit == end && number >= 0 && number * size <= kMost)
      return static_cast<std::size_t>(number * size);
  return std::nullopt;
}

bool right_kind(const KeyRule& rule, const Node& n) {
  using Kind = Node::Kind;
  const auto integer = [&](const Node& x) { return x.kind == Kind::integer && rule.range.contains(x.number); };
  const auto number = [&](const Node& x) { return is_number(x) && rule.range.contains(x.number); };
  const auto text = [](const Node& x) { return x.kind == Kind::text; };
  switch (rule.kind) {
    case KeyKind::boolean: return n.kind == Kind::boolean;
    case KeyKind::integer: return integer(n);
    case KeyKind::number: return number(n);
    case KeyKind::text: return text(n);
    case KeyKind::bytes: return bytes_of(n).has_value();
    case KeyKind::integers: return one_or_list(n, integer);
    case KeyKind::numbers: return one_or_list(n, number);
    case KeyKind::texts: return n.kind == Kind::array && std::all_of(n.items.begin(), n.items.end(), text);
    case KeyKind::padding: return (text(n) && n.text == "same") || one_or_list(n, integer);
    case KeyKind::files: return text(n) || n.kind == Kind::table;
    case KeyKind::table: return n.kind == Kind::table;
    case KeyKind::layers:
    case KeyKind::steps:
      return n.kind == Kind::array &&
             std::all_of(n.items.begin(), n.items.end(), [](const Node& x) { return x.kind == Kind::table; });
  }
  return false;
}

bool is_choice(std::string_view choices, std::string_view word) {
  return (" " + std::string(choices) + " ").find(" " + std::string(word) + " ") != std::string::npos;
}

}  // namespace

Node& subtable(Node& parent, std::string_view key) {
  Node* n = parent.find(key);
  if (n == nullptr) n = &parent.set(key, Node{.where = parent.where});
  if (n->kind != Node::Kind::table)
    fail(ErrorKind::config, "{}: {}: expected a table [{}], got {}", n->where, key, key, n->str());
  return *n;
}

Section::Section(Node& table, std::string path, std::string_view group, std::string_view default_type)
    : table_(table), path_(std::move(path)), group_(group) {
  const std::string_view type_key = group == "data" ? "format" : "type";
  if (!types_of(group).empty()) read_type(type_key, default_type);
  check_keys(type_key);
}

void Section::read_type(std::string_view type_key, std::string_view default_type) {
  const std::vector<std::string> known = types_of(group_);
  const Node* n = table_.find(type_key);
  if (n == nullptr && !default_type.empty()) n = &table_.set(type_key, Node::of(std::string(default_type)));
  if (n == nullptr)
    fail(ErrorKind::config, "{}: {}: the key \"{}\" is missing: expected one of {}", table_.where, path_, type_key,
         fmt::join(known, ", "));
  if (n->kind != Node::Kind::text)
    fail(ErrorKind::config, "{}: {}: expected text, one of {}, got {}", n->where, joined(path_, type_key),
         fmt::join(known, ", "), n->str());
  if (std::find(known.begin(), known.end(), n->text) == known.end())
    fail(ErrorKind::config, "{}: {}: there is no \"{}\": did you mean \"{}\"? Known: {}", n->where,
         joined(path_, type_key), n->text, nearest_name(n->text, known), fmt::join(known, ", "));
  type_ = n->text;
}

void Section::check_keys(std::string_view type_key) const {
  std::vector<std::string> known = keys_of(group_, type_);
  if (!type_.empty()) known.emplace_back(type_key);
  if (group_.empty())
    for (const char* section : {"data", "model", "loss", "optimizer", "schedule", "train", "tune"})
      known.emplace_back(section);
  for (const auto& [key, value] : table_.entries) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string of = type_.empty() ? std::string() : fmt::format(" of {} \"{}\"", type_key, type_);
    fail(ErrorKind::config, "{}: unknown key \"{}\"{}: did you mean \"{}\"? Known: {}", value.where, joined(path_, key),
         of, nearest_name(key, known), fmt::join(known, ", "));
  }
}

void Section::check(const KeyRule& rule, const Node& n) const {
  if (right_kind(rule, n) && (rule.choices.empty() || is_choice(rule.choices, n.text))) return;
  fail(ErrorKind::config, "{}: {}: expected {}, got {}", n.where, joined(path_, rule.key), expected_of(rule), n.str());
}

Node* Section::value(std::string_view key) {
  const KeyRule* rule = find_key(group_, type_, key);
  if (rule == nullptr) fail(ErrorKind::config, "{}: {}: no such key", table_.where, joined(path_, key));
  Node* n = table_.find(key);
  if (n == nullptr) {
    if (rule->fallback == kRequired)
      fail(ErrorKind::config, "{}: {}: the key \"{}\" is missing: expected {}", table_.where,
           path_.empty() ? "top of the file" : path_, key, expected_of(*rule));
    if (rule->fallback == kAbsent) return nullptr;
    Node fallback = parse_toml("value = " + std::string(rule->fallback), "default").entries[0].second;
    fallback.where = table_.where;
    n = &table_.set(key, std::move(fallback));
  }
  check(*rule, *n);
  return n;
}

std::size_t Section::bytes(std::string_view key) { return *bytes_of(*value(key)); }

std::vector<std::int64_t> Section::integers(std::string_view key) {
  const Node* n = value(key);
  std::vector<std::int64_t> out;
  if (n == nullptr) return out;
  if (n->kind != Node::Kind::array) return {n->integer};
  for (const Node& item : n->items) out.push_back(item.integer);
  return out;
}

std::vector<double> Section::numbers(std::string_view key) {
  const Node* n = value(key);
  std::vector<double> out;
  if (n == nullptr) return out;
  if (n->kind != Node::Kind::array) return {n->number};
  for (const Node& item : n->items) out.push_back(item.number);
  return out;
}

std::vector<std::string> Section::texts(std::string_view key) {
  std::vector<std::string> out;
  if (const Node* n = value(key))
    for (const Node& item : n->items) out.push_back(item.text);
  return out;
}

void Section::wrong(std::string_view key, const std::string& what) const {
  const Node* n = table_.find(key);
  fail(ErrorKind::config, "{}: {}: {}", n == nullptr ? table_.where : n->where, joined(path_, key), what);
}

}  // namespace bp::train

// Parsing by toml++, overriding from the command line, writing.
#include "train/toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "bp/io.h"

namespace bp::train {

namespace {

Node converted(const toml::node& from, const std::string& name);

Node converted_table(const toml::table& table, const std::string& name) {
  std::vector<std::pair<toml::source_position, std::pair<std::string, Node>>> entries;
  for (const auto& [key, value] : table)
    entries.push_back({key.source().begin, {std::string(key.str()), converted(value, name)}});
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Node n;
  for (auto& [position, entry] : entries) n.entries.push_back(std::move(entry));
  return n;
}

Node converted(const toml::node& from, const std::string& name) {
  Node n;
  if (const auto* table = from.as_table()) {
    n = converted_table(*table, name);
  } else if (const auto* array = from.as_array()) {
    n.kind = Node::Kind::array;
    for (const toml::node& item : *array) n.items.push_back(converted(item, name));
  } else if (const auto* text = from.as_string()) {
    n = Node::of(text->get());
  } else if (const auto* integer = from.as_integer()) {
    n = Node::of(std::int64_t{integer->get()});
  } else if (const auto* number = from.as_floating_point()) {
    n = Node::of(number->get());
  } else if (const auto* boolean = from.as_boolean()) {
    n = Node::of(boolean->get());
  } else {
    n.kind = Node::Kind::other;
  }
  n.where = fmt::format("{}:{}", name, from.source().begin.line);
  return n;
}

void mark(Node& n, const std::string& where) {
  n.where = where;
  n.command_line = true;
  for (Node& item : n.items) mark(item, where);
  for (auto& [key, value] : n.entries) mark(value, where);
}

Node value_of(const std::string& text, const std::string& where) {
  Node n;
  try {
    n = std::move(parse_toml("value = " + text, where).entries.at(0).second);
  } catch (const Error&) { n = Node::of(text); }
  mark(n, where);
  return n;
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string key_text(const std::string& key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return (std::isalnum(c) != 0 && c < 0x80) || c == '_' || c == '-';
  });
  return bare ? key : in_quotes(key);
}

std::string number_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  const std::string text = fmt::format("{}", x);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string inline_text(const Node& n) {
  switch (n.kind) {
    case Node::Kind::boolean: return n.boolean ? "true" : "false";
    case Node::Kind::integer: return std::to_string(n.integer);
    case Node::Kind::number: return number_text(n.number);
    case Node::Kind::text: return in_quotes(n.text);
    case Node::Kind::other: return "a date or time";
    case Node::Kind::array: {
      std::string out = "[";
      for (std::size_t i = 0; i < n.items.size(); ++i) out += (i == 0 ? "" : ", ") + inline_text(n.items[i]);
      return out + "]";
    }
    case Node::Kind::table: {
      std::string out = "{ ";
      for (std::size_t i = 0; i < n.entries.size(); ++i)
        out += (i == 0 ? "" : ", ") + key_text(n.entries[i].first) + " = " + inline_text(n.entries[i].second);
      return out + " }";
    }
  }
  return {};
}

// Lists of tables get a line each: the layers of a model.
std::string value_text(const Node& n) {
  if (n.kind != Node::Kind::array || n.items.empty() || n.items[0].kind != Node::Kind::table) return inline_text(n);
  std::string out = "[\n";
  for (const Node& item : n.items) out += "  " + inline_text(item) + ",\n";
  return out + "]";
}

void write_values(std::string& out, const Node& table, bool tables_too) {
  for (const auto& [key, value] : table.entries)
    if (tables_too || value.kind != Node::Kind::table) out += key_text(key) + " = " + value_text(value) + "\n";
}

}  // namespace

Node Node::of(bool value) {
  Node n;
  n.kind = Kind::boolean;
  n.boolean = value;
  return n;
}
Node Node::of(std::int64_t value) {
  Node n;
  n.kind = Kind::integer;
  n.integer = value;
  n.number = static_cast<double>(value);
  return n;
}
Node Node::of(double value) {
  Node n;
  n.kind = Kind::number;
  n.number = value;
  return n;
}
Node Node::of(std::string value) {
  Node n;
  n.kind = Kind::text;
  n.text = std::move(value);
  return n;
}

const Node* Node::find(std::string_view key) const noexcept {
  for (const auto& [name, value] : entries)
    if (name == key) return &value;
  return nullptr;
}
Node* Node::find(std::string_view key) noexcept {
  for (auto& [name, value] : entries)
    if (name == key) return &value;
  return nullptr;
}
Node& Node::set(std::string_view key, Node value) {
  if (Node* old = find(key)) return *old = std::move(value);
  return entries.emplace_back(key, std::move(value)).second;
}

std::string Node::str() const {
  const std::string line = inline_text(*this);
  return line.size() <= 60 ? line : line.substr(0, 57) + "...";
}

Node parse_toml(std::string_view text, const std::string& name) {
  try {
    const toml::table table = toml::parse(text, name);
    Node root = converted(table, name);
    root.where = name;
    return root;
  } catch (const toml::parse_error& e) {
    fail(ErrorKind::config, "{}:{}:{}: not TOML: {}", name, e.source().begin.line, e.source().begin.column,
         e.description());
  }
}

Node read_toml(const std::string& path) {
  const Buffer content = io::read_file(path, {.max_bytes = std::uint64_t{16} << 20});
  return parse_toml({content.as<char>(), content.bytes()}, path);
}

void override_key(Node& root, const std::string& assignment) {
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(ErrorKind::config, "--set: expected KEY=VALUE, as in optimizer.lr=0.01, got \"{}\"", assignment);
  const std::string path = assignment.substr(0, equals), where = "--set " + path;
  Node* at = &root;
  std::size_t begin = 0;
  while (true) {
    const auto dot = path.find('.', begin);
    const std::string key = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
    Node* next = nullptr;
    if (at->kind == Node::Kind::array) {
      const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      if (!digits || std::stoul(key) >= at->items.size())
        fail(ErrorKind::config, "{}: \"{}\" is not a position in a list of {}", where, key, at->items.size());
      next = &at->items[std::stoul(key)];
    } else if (at->kind == Node::Kind::table) {
      if (key.empty()) fail(ErrorKind::config, "{}: a name between the dots is empty", where);
      next = at->find(key);
      if (next == nullptr) next = &at->set(key, Node{.where = where, .command_line = true});
    } else {
      fail(ErrorKind::config, "{}: \"{}\" is below a value, {}, not a table", where, key, at->str());
    }
    if (dot == std::string::npos) {
      *next = value_of(assignment.substr(equals + 1), where);
      return;
    }
    at = next;
    begin = dot + 1;
  }
}

std::string to_toml(const Node& root) {
  std::string out;
  write_values(out, root, false);
  for (const auto& [key, value] : root.entries) {
    if (value.kind != Node::Kind::table) continue;
    out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", key_text(key));
    write_values(out, value, true);
  }
  return out;
}

}  // namespace bp::train

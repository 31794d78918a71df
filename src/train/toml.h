// A TOML document as a tree that remembers where each value came from and keeps the order of the file. Read by the
// configuration (train/config.h); the parser behind it is toml++, which only toml.cc includes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bp::train {

struct Node {
  enum class Kind { boolean, integer, number, text, array, table, other };  // other: dates and times

  Kind kind = Kind::table;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;  // of an integer too
  std::string text = {};
  std::vector<Node> items = {};
  std::vector<std::pair<std::string, Node>> entries = {};
  std::string where = {};     // "net.toml:12", "--set optimizer.lr"
  bool command_line = false;  // given by --set: a path is then relative to the working directory

  static Node of(bool value);
  static Node of(std::int64_t value);
  static Node of(double value);
  static Node of(std::string value);
  static Node of(const char* value) { return of(std::string(value)); }
  template <class T> static Node list(const std::vector<T>& values) {
    Node n;
    n.kind = Kind::array;
    for (const T& v : values) n.items.push_back(of(v));
    return n;
  }

  const Node* find(std::string_view key) const noexcept;
  Node* find(std::string_view key) noexcept;
  Node& set(std::string_view key, Node value);  // replaces or appends
  std::string str() const;                      // as TOML on one line; long ones shortened, for messages
};

// Throws Error(config) "name:line:column: ..." for text that is not TOML.
Node parse_toml(std::string_view text, const std::string& name);
Node read_toml(const std::string& path);  // Error(io) when it cannot be read

// Applies "model.layers.0.units=64": tables on the way are made, a list is entered by position. The value is TOML; a
// bare word counts as text. Throws Error(config).
void override_key(Node& root, const std::string& assignment);

// Reads back as the same tree. Tables of the first level become [sections].
std::string to_toml(const Node& root);

}  // namespace bp::train

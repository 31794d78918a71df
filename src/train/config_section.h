// A table of the configuration, read by the rules of config_keys.h. Used by config*.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/config_keys.h"
#include "train/toml.h"

namespace bp::train {

// Keys that are read and absent get their default, also in the tree, which so becomes the effective configuration.
// Everything that does not fit throws Error(config) "net.toml:12: optimizer.lr: expected a number >= 0, got -1".
class Section {
 public:
  // `path` opens messages ("optimizer", "model.layers[2]"). Unknown keys and types are found here. A group with types
  // reads its type from `type_key`; `default_type` where the key may be absent.
  Section(Node& table, std::string path, std::string_view group, std::string_view default_type = {});

  const std::string& type() const noexcept { return type_; }
  const std::string& path() const noexcept { return path_; }
  const std::string& where() const noexcept { return table_.where; }
  bool has(std::string_view key) const { return table_.find(key) != nullptr; }

  bool boolean(std::string_view key) { return value(key)->boolean; }
  std::int64_t integer(std::string_view key) { return value(key)->integer; }
  double number(std::string_view key) { return value(key)->number; }
  std::string text(std::string_view key) { return value(key)->text; }
  std::size_t bytes(std::string_view key);
  std::vector<std::int64_t> integers(std::string_view key);
  std::vector<double> numbers(std::string_view key);
  std::vector<std::string> texts(std::string_view key);
  // The checked value, or nullptr when the key is absent and has no default.
  Node* value(std::string_view key);

  // Records a value that was found out, not given.
  void record(std::string_view key, Node value) { table_.set(key, std::move(value)); }
  [[noreturn]] void wrong(std::string_view key, const std::string& what) const;

 private:
  void read_type(std::string_view type_key, std::string_view default_type);
  void check_keys(std::string_view type_key) const;
  void check(const KeyRule& rule, const Node& n) const;
  Node& table_;
  std::string path_, group_, type_;
};

// A table of `parent`, made when it is absent. Throws Error(config) when it is something else.
Node& subtable(Node& parent, std::string_view key);

}  // namespace bp::train

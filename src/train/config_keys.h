// Every key of a configuration file: its type, default, range and meaning, in one table. The reader (config_section.h)
// checks files against it, and docs/config.md is written from it.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bp::train {

enum class KeyKind {
  boolean,
  integer,
  number,
  text,
  bytes,     // an integer, or text as "512 MiB"
  integers,  // one or a list
  numbers,   // one or a list
  texts,     // a list
  padding,   // integers, or "same"
  files,     // a path, or { inputs, targets }
  table,
  layers,  // a list of tables
  steps    // a list of tables
};

struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;
  bool contains(double x) const noexcept {
    return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high) && x - x == 0;
  }
  std::string str() const;  // " >= 0", " in [0, 1)"; empty for any
};

struct KeyRule {
  std::string_view group;  // "", "data", "augment", "model", "layer", "loss", "optimizer", "schedule", "train", "tune"
  std::string_view types;  // which types of the group have it, separated by blanks; empty: all
  std::string_view key;
  KeyKind kind;
  std::string_view fallback;  // as TOML; kRequired or kAbsent
  Range range;                // of numbers and of each number of a list
  std::string_view choices;   // of text, separated by blanks; empty: any
  std::string_view help;
};
inline constexpr std::string_view kRequired = "", kAbsent = "-";

// A value of "type" (of "format" in [data]).
struct TypeRow {
  std::string_view group, type, help;
};

std::span<const KeyRule> keys();
std::span<const TypeRow> types();

std::vector<std::string> types_of(std::string_view group);
// The row of a key, or nullptr.
const KeyRule* find_key(std::string_view group, std::string_view type, std::string_view key);
std::vector<std::string> keys_of(std::string_view group, std::string_view type);

// "a number >= 0", "one of \"a\", \"b\"".
std::string expected_of(const KeyRule& key);

// docs/config.md.
std::string config_reference();

}  // namespace bp::train

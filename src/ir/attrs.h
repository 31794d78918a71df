// Attrs: the compile-time arguments of an op (axis, stride, dtype, ...): a small sorted map, hashable and printable.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "bp/dtype.h"
#include "bp/shape.h"

namespace bp::ir {

// An argument that is more than plain data: a user's custom op, the body of a loop. Compared by identity unless it
// knows better.
struct Opaque {
  Opaque() = default;
  Opaque(const Opaque&) = delete;
  Opaque& operator=(const Opaque&) = delete;
  virtual ~Opaque() = default;
  // What is compared: a wrapper made anew for each use answers with the address of what it wraps.
  virtual const void* identity() const noexcept { return this; }
  virtual std::size_t hash() const noexcept { return std::hash<const void*>{}(identity()); }
  virtual bool equals(const Opaque& other) const noexcept { return identity() == other.identity(); }
  virtual std::string str() const { return "<opaque>"; }
};

// A class of its own for AttrValue's sake: a variant of standard containers and plain data only cannot be without a
// value, libstdc++ holds, and destroys a value that is not there when the copy of a container throws (GCC 12).
struct Ints : std::vector<std::int64_t> {
  using vector::vector;
  Ints(std::vector<std::int64_t> v) noexcept : vector(std::move(v)) {}
};
using AttrValue = std::variant<bool, std::int64_t, double, DType, std::string, Ints, std::shared_ptr<const Opaque>>;

class Attrs {
 public:
  struct Entry {
    const char* name;  // a string literal
    AttrValue value;
  };
  Attrs() = default;
  Attrs(std::initializer_list<Entry> entries);

  bool has(std::string_view name) const noexcept;
  bool flag(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  DType dtype(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  const Ints& ints(std::string_view name) const;
  Shape shape(std::string_view name) const;  // stored as Ints
  const std::shared_ptr<const Opaque>& opaque(std::string_view name) const;

  void set(const char* name, AttrValue value);
  const std::vector<Entry>& entries() const noexcept { return entries_; }
  bool empty() const noexcept { return entries_.empty(); }
  std::size_t hash() const noexcept;
  friend bool operator==(const Attrs& a, const Attrs& b) noexcept;
  std::string str() const;  // "axis=1, keep=true"

 private:
  const AttrValue* find(std::string_view name) const noexcept;
  std::vector<Entry> entries_;  // sorted by name
};

inline Ints to_ints(const Shape& s) { return Ints(s.begin(), s.end()); }

}  // namespace bp::ir

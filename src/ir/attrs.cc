// Attrs: lookup, hashing and printing.
#include "ir/attrs.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "base/hash.h"

namespace bp::ir {

Attrs::Attrs(std::initializer_list<Entry> entries) : entries_(entries) {
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return std::strcmp(a.name, b.name) < 0; });
}

const AttrValue* Attrs::find(std::string_view name) const noexcept {
  for (const Entry& e : entries_)
    if (name == e.name) return &e.value;
  return nullptr;
}

bool Attrs::has(std::string_view name) const noexcept { return find(name) != nullptr; }

namespace {
template <class T> const T& require(const AttrValue* value) {
  assert(value != nullptr && std::holds_alternative<T>(*value));
  return std::get<T>(*value);
}
}  // namespace

bool Attrs::flag(std::string_view name) const { return require<bool>(find(name)); }
std::int64_t Attrs::integer(std::string_view name) const { return require<std::int64_t>(find(name)); }
double Attrs::real(std::string_view name) const { return require<double>(find(name)); }
DType Attrs::dtype(std::string_view name) const { return require<DType>(find(name)); }
const std::string& Attrs::text(std::string_view name) const { return require<std::string>(find(name)); }
const Ints& Attrs::ints(std::string_view name) const { return require<Ints>(find(name)); }
Shape Attrs::shape(std::string_view name) const { return Shape(std::span<const std::int64_t>(ints(name))); }
const std::shared_ptr<const Opaque>& Attrs::opaque(std::string_view name) const {
  return require<std::shared_ptr<const Opaque>>(find(name));
}

void Attrs::set(const char* name, AttrValue value) {
  auto at =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return std::strcmp(e.name, name) >= 0; });
  if (at != entries_.end() && std::strcmp(at->name, name) == 0)
    at->value = std::move(value);
  else
    entries_.insert(at, Entry{name, std::move(value)});
}

namespace {
bool same(const std::shared_ptr<const Opaque>& a, const std::shared_ptr<const Opaque>& b) noexcept {
  return a == b || (a && b && a->equals(*b));
}

struct Hasher {
  std::size_t operator()(bool v) const { return v ? 1 : 2; }
  std::size_t operator()(std::int64_t v) const { return static_cast<std::size_t>(v); }
  std::size_t operator()(double v) const { return std::bit_cast<std::uint64_t>(v); }
  std::size_t operator()(DType v) const { return static_cast<std::size_t>(v); }
  std::size_t operator()(const std::string& v) const { return std::hash<std::string>{}(v); }
  std::size_t operator()(const Ints& v) const {
    std::size_t h = v.size();
    for (auto i : v) h = hash_combine(h, static_cast<std::size_t>(i));
    return h;
  }
  std::size_t operator()(const std::shared_ptr<const Opaque>& v) const { return v ? v->hash() : 0; }
};

// NaN equals NaN and 0.0 differs from -0.0: two attributes are equal when they mean the same program.
bool same(double a, double b) { return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }

struct Printer {
  std::string operator()(bool v) const { return v ? "true" : "false"; }
  std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
  std::string operator()(double v) const { return fmt::format("{}", v); }
  std::string operator()(DType v) const { return std::string(name_of(v)); }
  std::string operator()(const std::string& v) const { return fmt::format("\"{}\"", v); }
  std::string operator()(const Ints& v) const { return fmt::format("[{}]", fmt::join(v, ", ")); }
  std::string operator()(const std::shared_ptr<const Opaque>& v) const { return v ? v->str() : "none"; }
};
}  // namespace

std::size_t Attrs::hash() const noexcept {
  std::size_t h = entries_.size();
  for (const Entry& e : entries_) {
    h = hash_combine(h, std::hash<std::string_view>{}(e.name));
    h = hash_combine(h, std::visit(Hasher{}, e.value));
  }
  return h;
}

bool operator==(const Attrs& a, const Attrs& b) noexcept {
  if (a.entries_.size() != b.entries_.size()) return false;
  for (std::size_t i = 0; i < a.entries_.size(); ++i) {
    const auto &x = a.entries_[i], &y = b.entries_[i];
    if (std::strcmp(x.name, y.name) != 0) return false;
    if (const double* p = std::get_if<double>(&x.value), *q = std::get_if<double>(&y.value); p && q) {
      if (!same(*p, *q)) return false;
    } else if (const auto* v = std::get_if<std::shared_ptr<const Opaque>>(&x.value),
               *w = std::get_if<std::shared_ptr<const Opaque>>(&y.value);
               v && w) {
      if (!same(*v, *w)) return false;
    } else if (x.value != y.value) {
      return false;
    }
  }
  return true;
}

std::string Attrs::str() const {
  std::string out;
  for (const Entry& e : entries_) {
    if (!out.empty()) out += ", ";
    out += fmt::format("{}={}", e.name, std::visit(Printer{}, e.value));
  }
  return out;
}

}  // namespace bp::ir

// The interned tree of scopes.
#include "ir/scope.h"

#include <deque>
#include <mutex>
#include <unordered_map>

namespace bp::ir {

namespace {
struct Table {
  std::mutex mutex;
  std::deque<std::string> paths{std::string()};  // a deque: references stay valid
  std::unordered_map<std::string, ScopeId> ids;
};
Table& table() {
  static Table t;
  return t;
}
}  // namespace

ScopeId scope_child(ScopeId parent, std::string_view name) {
  if (name.empty()) return parent;
  Table& t = table();
  std::lock_guard lock(t.mutex);
  const std::string& up = t.paths[parent];
  std::string path = up.empty() ? std::string(name) : up + "/" + std::string(name);
  auto [at, fresh] = t.ids.try_emplace(path, static_cast<ScopeId>(t.paths.size()));
  if (fresh) t.paths.push_back(std::move(path));
  return at->second;
}

const std::string& scope_path(ScopeId id) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  return t.paths[id];
}

}  // namespace bp::ir

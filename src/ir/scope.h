// Scopes: the tree of names (layers and compositions) under which nodes are recorded. Interned for the life of the
// process.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bp::ir {

using ScopeId = std::uint32_t;  // 0 is the root

ScopeId scope_child(ScopeId parent, std::string_view name);
const std::string& scope_path(ScopeId id);  // "block1.conv2/layer_norm"; "" for the root

}  // namespace bp::ir

// The op table.
#include "ir/op.h"

namespace bp::ir {

namespace {
constexpr const OpDef* kTable[] = {
#define BP_OP(name) &op_##name,
#include "ir/ops.def"
#undef BP_OP
};
}  // namespace

const OpDef& op_def(OpId id) noexcept { return *kTable[static_cast<std::size_t>(id)]; }

}  // namespace bp::ir

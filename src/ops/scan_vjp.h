// The gradient of scan, and what scan's files share.
#pragma once

#include <memory>
#include <vector>

#include "ir/body.h"
#include "ir/op.h"

namespace bp::ops {

ir::Attrs scan_attrs(std::shared_ptr<const ir::Opaque> body, std::int64_t length, std::size_t invariants,
                     std::size_t carries, bool reverse, bool checkpoint);

std::vector<Tensor> vjp_scan(const ir::VjpArgs& v);

}  // namespace bp::ops

// How a user's functions travel as attributes of the ops custom and custom_vjp. Included by custom.cc and
// grad/custom_vjp.cc.
#pragma once

#include <memory>
#include <utility>

#include "bp/grad.h"
#include "bp/ops.h"
#include "ir/attrs.h"

namespace bp::ops {

// Attribute "op" of custom: equal for equal CustomOp objects, so that executables are found again.
struct CustomOpHolder final : ir::Opaque {
  explicit CustomOpHolder(std::shared_ptr<const CustomOp> o) : op(std::move(o)) {}
  const void* identity() const noexcept override { return op.get(); }
  std::shared_ptr<const CustomOp> op;
};

// Attribute "backward" of custom_vjp.
struct BackwardHolder final : ir::Opaque {
  explicit BackwardHolder(Backward b) : backward(std::move(b)) {}
  Backward backward;
};

}  // namespace bp::ops

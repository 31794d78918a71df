// docs/ops.md from the op table.
#include "ops/table.h"

#include "base/error.h"
#include "bp/dtype.h"
#include "ir/op.h"

namespace bp::ops {

namespace {
constexpr DType kDTypes[] = {DType::boolean, DType::u8, DType::i32, DType::i64, DType::bf16, DType::f32, DType::f64};

constexpr const char* kOpening = R"(# Operations

Made from the op table (`src/ir/ops.def` and the definitions in `src/ops`); after a change run
`BP_UPDATE_DOCS=1 build/tests/test_ops --gtest_filter=OpsPage.*`. Compositions (softmax, gelu, losses, ...) are documented
in `include/bp/ops.h`.

## Broadcasting

NumPy's: shapes are aligned at the right, missing dimensions count as 1, and sizes must be equal or 1. The result has
the larger size; a size of 1 meeting 0 gives 0.

| a | b | result |
|---|---|---|
| `[]` | `[3]` | `[3]` |
| `[4, 1]` | `[3]` | `[4, 3]` |
| `[2, 1, 5]` | `[4, 1]` | `[2, 4, 5]` |
| `[0]` | `[1]` | `[0]` |
| `[2, 0]` | `[1, 1]` | `[2, 0]` |
| `[2]` | `[3]` | error |
| `[0]` | `[2]` | error |
| `[2, 3]` | `[2]` | error |

The gradient of a broadcast sums over the dimensions that it added or stretched.

## Promotion

Two operands meet in this dtype. An integer meeting a float takes the float's dtype, whatever their widths.

)";

constexpr const char* kAfterMatrix = R"(
- `add`, `sub`, `mul`, `maximum`, `minimum`, `remainder` and both sides of `select` compute in that dtype. Integers wrap
  modulo 2^bits; `bool + bool` is or, `bool * bool` is and, `bool - bool` is an error.
- `div`, `pow`, `exp` and the other functions of real numbers turn integers and booleans into f32 first.
- Comparisons compare in that dtype and give bool. `logical_*` and the condition of `select` read numbers as `x != 0`.
- A C++ number beside a tensor is weak: it takes the tensor's dtype. Beside integers or booleans that cannot hold it a
  whole number gives i64, a fractional one f32.
- bf16 computes in f32 and rounds the result.

## The table

Gradient: *yes*, by a rule written in these ops; *zero*, flat almost everywhere; *none*, asking for it is an error.

| op | class | gradient | meaning |
|---|---|---|---|
)";

std::string promotion_matrix() {
  std::string head = "| |", rule = "|---|", rows;
  for (DType b : kDTypes) {
    head += fmt::format(" {} |", name_of(b));
    rule += "---|";
    rows += fmt::format("| **{}** |", name_of(b));
    for (DType a : kDTypes) rows += fmt::format(" {} |", name_of(promote(a, b)));
    rows += "\n";
  }
  return head + "\n" + rule + "\n" + rows;
}

const char* class_name(ir::OpClass c) {
  switch (c) {
    case ir::OpClass::leaf: return "leaf";
    case ir::OpClass::elementwise: return "elementwise";
    case ir::OpClass::view: return "view";
    case ir::OpClass::movement: return "movement";
    case ir::OpClass::reduction: return "reduction";
    case ir::OpClass::product: return "product";
    case ir::OpClass::other: break;
  }
  return "other";
}

const char* gradient_of(const ir::OpDef& op) {
  if ((op.flags & ir::kZeroGradient) != 0) return "zero";
  if ((op.flags & ir::kNotDifferentiable) != 0) return "none";
  return op.vjp != nullptr ? "yes" : "";
}
}  // namespace

std::string ops_markdown() {
  std::string page = kOpening + promotion_matrix() + kAfterMatrix;
  for (std::size_t id = 0; id < static_cast<std::size_t>(ir::OpId::count); ++id) {
    const ir::OpDef& op = ir::op_def(static_cast<ir::OpId>(id));
    page += fmt::format("| `{}` | {} | {} | {} |\n", op.name, class_name(op.cls), gradient_of(op), op.doc);
  }
  return page;
}

}  // namespace bp::ops

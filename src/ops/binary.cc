// Elementwise arithmetic, comparisons and logic of two operands.
#include <cmath>

#include "ops/common.h"

namespace bp {
namespace ir {
using namespace ops;

const OpDef op_add{.name = "add",
                   .cls = OpClass::elementwise,
                   .flags = kCommutative,
                   .infer = [](const InferArgs& a) { return same_pair(a, "add"); },
                   .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
                     return {v.d(), v.d()};
                   },
                   .reference = [](const KernelArgs& k) { map_binary(k, [](auto a, auto b) { return a + b; }); },
                   .doc = "a + b"};

const OpDef op_mul{.name = "mul",
                   .cls = OpClass::elementwise,
                   .flags = kCommutative,
                   .infer = [](const InferArgs& a) { return same_pair(a, "mul"); },
                   .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
                     return {v.needed[0] ? v.d() * v.in[1] : Tensor(), v.needed[1] ? v.d() * v.in[0] : Tensor()};
                   },
                   .reference = [](const KernelArgs& k) { map_binary(k, [](auto a, auto b) { return a * b; }); },
                   .doc = "a * b"};

}  // namespace ir

using namespace ops;

namespace {
Tensor binary(OpId op, const Tensor& a, const Tensor& b) {
  auto [x, y] = meet(a, b, ir::name_of(op));
  return record1(op, {x, y});
}
}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary(OpId::add, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary(OpId::mul, a, b); }

}  // namespace bp

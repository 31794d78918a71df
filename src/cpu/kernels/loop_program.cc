// Building, checking and printing LoopPrograms.
#include "cpu/kernels/loop_program.h"

#include <fmt/format.h>

#include <cassert>
#include <iterator>
#include <limits>

namespace bp::cpu {

namespace {
constexpr const char* kNames[] = {
    "load",      "constant",    "column_index", "row_index",  "random",    "neg",     "abs",        "sign",
    "exp",       "expm1",       "log",          "log1p",      "sqrt",      "rsqrt",   "reciprocal", "sin",
    "cos",       "tanh",        "sigmoid",      "erf",        "floor",     "ceil",    "round",      "trunc",
    "is_finite", "logical_not", "to_bf16",      "to_f32",     "add",       "sub",     "mul",        "div",
    "pow",       "max",         "min",          "remainder",  "eq",        "ne",      "lt",         "le",
    "gt",        "ge",          "logical_and",  "logical_or", "select",    "row_sum", "row_max",    "row_min",
    "row_prod",  "store",       "column_sum",   "column_max", "column_min"};
static_assert(std::size(kNames) == static_cast<std::size_t>(LoopOp::column_min) + 1);

int push(LoopProgram& p, LoopInstr i) {
  p.instrs.push_back(i);
  return static_cast<int>(p.instrs.size()) - 1;
}

int arity(LoopOp op) noexcept {
  if (op <= LoopOp::random) return 0;
  if (op <= LoopOp::to_f32) return 1;
  if (op <= LoopOp::logical_or) return 2;
  return op == LoopOp::select ? 3 : 1;
}
}  // namespace

const char* name_of(LoopOp op) noexcept { return kNames[static_cast<std::size_t>(op)]; }

double start_of(LoopOp op) noexcept {
  switch (op) {
    case LoopOp::row_max:
    case LoopOp::column_max: return -std::numeric_limits<double>::infinity();
    case LoopOp::row_min:
    case LoopOp::column_min: return std::numeric_limits<double>::infinity();
    case LoopOp::row_prod: return 1;
    default: return 0;
  }
}

LoopAccess LoopAccess::full(std::int64_t rows, std::int64_t cols) {
  LoopAccess a;
  a.digit(rows, cols).col_stride = 1;
  return a;
}
LoopAccess LoopAccess::per_row(std::int64_t rows) {
  LoopAccess a;
  a.digit(rows, 1);
  return a;
}
LoopAccess LoopAccess::per_column() {
  LoopAccess a;
  a.col_stride = 1;
  return a;
}
LoopAccess LoopAccess::scalar() { return {}; }
LoopAccess LoopAccess::repeated(std::int64_t rows, std::int64_t div, std::int64_t mod, std::int64_t row_stride,
                                std::int64_t col_stride) {
  LoopAccess a;
  a.digit((rows + div * mod - 1) / (div * mod), 0).digit(mod, row_stride).digit(div, 0).col_stride = col_stride;
  return a;
}
LoopAccess& LoopAccess::digit(std::int64_t n, std::int64_t step) {
  assert(rank < kMaxRank);
  size[static_cast<std::size_t>(rank)] = n;
  stride[static_cast<std::size_t>(rank)] = step;
  ++rank;
  return *this;
}

std::int64_t LoopAccess::offset(std::int64_t r, std::int64_t c) const noexcept {
  std::int64_t at = c * col_stride;
  for (auto k = static_cast<std::size_t>(rank); k-- > 0;) {
    if (k == 0) return at + r * stride[0];  // the outermost digit is not reduced
    at += r % size[k] * stride[k];
    r /= size[k];
  }
  return at;
}

bool LoopAccess::varies_with_row() const noexcept {
  for (std::size_t k = 0; k < static_cast<std::size_t>(rank); ++k)
    if (stride[k] != 0 && size[k] > 1) return true;
  return false;
}

int LoopProgram::input(DType dtype, LoopAccess access, std::int64_t base) {
  operands.push_back({dtype, access, false, -1, base});
  return static_cast<int>(operands.size()) - 1;
}
int LoopProgram::output(DType dtype, LoopAccess access, int in_place_of, std::int64_t base) {
  operands.push_back({dtype, access, true, in_place_of, base});
  return static_cast<int>(operands.size()) - 1;
}
int LoopProgram::load(int operand) { return push(*this, {.op = LoopOp::load, .operand = operand}); }
int LoopProgram::constant(double value) { return push(*this, {.op = LoopOp::constant, .imm = value}); }
int LoopProgram::column_index() { return push(*this, {.op = LoopOp::column_index}); }
int LoopProgram::row_index() { return push(*this, {.op = LoopOp::row_index}); }
int LoopProgram::random(int key_operand, std::uint64_t place, int width) {
  return push(*this, {.op = LoopOp::random, .operand = key_operand, .imm = static_cast<double>(width), .place = place});
}
int LoopProgram::unary(LoopOp op, int a) { return push(*this, {.op = op, .a = a}); }
int LoopProgram::binary(LoopOp op, int a, int b) { return push(*this, {.op = op, .a = a, .b = b}); }
int LoopProgram::select(int cond, int then_value, int else_value) {
  return push(*this, {.op = LoopOp::select, .a = cond, .b = then_value, .c = else_value});
}
int LoopProgram::reduce(LoopOp op, int a) { return push(*this, {.op = op, .a = a}); }
void LoopProgram::store(int operand, int a) { push(*this, {.op = LoopOp::store, .a = a, .operand = operand}); }
void LoopProgram::column(LoopOp op, int operand, int a) { push(*this, {.op = op, .a = a, .operand = operand}); }

void LoopProgram::check() const {
  assert(rows >= 0 && cols >= 0);
  assert(compute == f32 || compute == f64);
  for (std::size_t i = 0; i < instrs.size(); ++i) {
    const LoopInstr& in = instrs[i];
    [[maybe_unused]] const int n = arity(in.op);
    [[maybe_unused]] const auto valid = [&](int v) {
      return v >= 0 && static_cast<std::size_t>(v) < i && instrs[static_cast<std::size_t>(v)].op < LoopOp::store;
    };
    assert(n < 1 || valid(in.a));
    assert(n < 2 || valid(in.b));
    assert(n < 3 || valid(in.c));
    const bool reads = in.op == LoopOp::load || in.op == LoopOp::random, writes = in.op >= LoopOp::store;
    if (!reads && !writes) continue;
    assert(in.operand >= 0 && static_cast<std::size_t>(in.operand) < operands.size());
    [[maybe_unused]] const LoopOperand& o = operands[static_cast<std::size_t>(in.operand)];
    assert(o.output == writes);
    assert(in.op != LoopOp::random || (o.dtype == i64 && in.imm >= 1 && in.imm <= 24));
    assert(in.op <= LoopOp::store || !o.access.varies_with_row());
  }
}

std::string LoopProgram::str() const {
  std::string s = fmt::format("loop [{}, {}] {}\n", rows, cols, bp::name_of(compute));
  for (std::size_t i = 0; i < instrs.size(); ++i) {
    const LoopInstr& in = instrs[i];
    s += fmt::format("  %{} = {}", i, name_of(in.op));
    for (int v : {in.a, in.b, in.c})
      if (v >= 0) s += fmt::format(" %{}", v);
    if (in.operand >= 0)
      s += fmt::format(" ${}:{}", in.operand, bp::name_of(operands[static_cast<std::size_t>(in.operand)].dtype));
    if (in.op == LoopOp::constant || in.op == LoopOp::random) s += fmt::format(" {}", in.imm);
    s += '\n';
  }
  return s;
}

}  // namespace bp::cpu

// Variable: cells of state, inside and outside a trace.
#include "bp/variable.h"

#include "base/error.h"
#include "trace/node.h"

namespace bp {

using detail::Cell;
using detail::thread_state;

namespace {
// A leaf of the cell's own: nobody else holds the node, so a step may write its memory in place.
Tensor own_leaf(const std::shared_ptr<Cell>& cell, Buffer buffer) {
  Tensor leaf = detail::make_leaf(std::move(buffer), cell->type);
  leaf.node()->tracked = true;
  leaf.node()->cell = cell;
  return leaf;
}

void check_type(const Cell& cell, const Tensor& value) {
  if (value.node()->region != 0)
    fail(ErrorKind::trace,
         "[assign] {}: the value belongs to the body of a scan or cond: return it from the body and assign it after",
         cell.name.empty() ? "variable" : cell.name);
  if (value.type() == cell.type) return;
  fail(value.dtype() != cell.type.dtype ? ErrorKind::dtype : ErrorKind::shape, "[assign] {}: expected {}, got {}",
       cell.name.empty() ? "variable" : cell.name, cell.type.str(), value.type().str());
}

void store(const std::shared_ptr<Cell>& cell, const Tensor& value) {
  cell->value = own_leaf(cell, value.buffer());
  ++cell->version;
}
}  // namespace

Variable::Variable(const Tensor& initial, bool trainable) : cell_(std::make_shared<Cell>()) {
  if ((initial.node()->trace != 0 || initial.node()->region != 0) && !initial.node()->evaluated())
    fail(ErrorKind::trace,
         "[variable] a Variable cannot be created from a traced value: create it outside compile and outside scan");
  cell_->type = initial.type();
  cell_->trainable = trainable;
  cell_->value = own_leaf(cell_, initial.buffer());
}

Variable::Variable(const Variable& other) {
  if (!other.cell_) return;
  const Cell& from = *other.cell_;
  cell_ = std::make_shared<Cell>();
  cell_->type = from.type;
  cell_->name = from.name;
  cell_->trainable = from.trainable;
  cell_->version = from.version;
  cell_->value = own_leaf(cell_, from.value.buffer());  // memory is shared until one of the two is written
}

Variable& Variable::operator=(const Variable& other) {
  if (this != &other) *this = Variable(other);
  return *this;
}

Variable Variable::alias() const { return Variable(cell_); }

namespace {
Cell& require(const std::shared_ptr<Cell>& cell) {
  if (!cell) fail(ErrorKind::state, "[variable] this Variable is undefined");
  return *cell;
}
}  // namespace

Tensor Variable::get() const {
  require(cell_);
  if (auto* trace = thread_state().trace) return trace->state(cell_).current;
  return cell_->value;
}

void Variable::set(const Tensor& value) {
  Variable self = alias();
  assign(std::span(&self, 1), std::span(&value, 1));
}

void Variable::set(double value) {
  Cell& cell = require(cell_);
  Buffer buffer = Buffer::allocate(cell.type.bytes());
  dispatch(cell.type.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* p = buffer.as_mutable<T>();
    const T v = static_cast<T>(value);
    for (std::int64_t i = 0; i < cell.type.shape.numel(); ++i) p[i] = v;
  });
  set(detail::make_leaf(std::move(buffer), cell.type));
}

const Type& Variable::type() const { return require(cell_).type; }
const std::string& Variable::name() const { return require(cell_).name; }
void Variable::set_name(std::string name) { require(cell_).name = std::move(name); }
bool Variable::trainable() const { return require(cell_).trainable; }
void Variable::set_trainable(bool trainable) { require(cell_).trainable = trainable; }
std::uint64_t Variable::version() const { return require(cell_).version; }

void assign(std::span<Variable> variables, std::span<const Tensor> values) {
  if (variables.size() != values.size())
    fail(ErrorKind::state, "[assign] {} variables but {} values", variables.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) check_type(require(variables[i].cell()), values[i]);
  if (auto* trace = thread_state().trace) {
    for (std::size_t i = 0; i < values.size(); ++i) trace->state(variables[i].cell()).current = values[i];
    return;
  }
  evaluate(values);
  for (std::size_t i = 0; i < values.size(); ++i) store(variables[i].cell(), values[i]);
}

void commit_if(const Tensor& condition, std::span<const Variable> always) {
  auto* trace = thread_state().trace;
  if (trace == nullptr) fail(ErrorKind::state, "[commit_if] outside compile: what was assigned cannot be taken back");
  if (condition.dtype() != DType::boolean)
    fail(ErrorKind::dtype, "[commit_if] expected one boolean, got {}", condition.type().str());
  if (condition.numel() != 1)
    fail(ErrorKind::shape, "[commit_if] expected one boolean, got {}", condition.type().str());
  if (condition.node()->region != 0)
    fail(ErrorKind::trace, "[commit_if] the condition belongs to the body of a scan or cond: return it from the body");
  auto& commit = trace->commits.emplace_back();
  commit.condition = condition;
  for (const Variable& v : always) commit.always.push_back(v.cell());
}

}  // namespace bp

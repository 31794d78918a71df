// Variable: a shared cell of state (a parameter, an optimizer moment, a learning rate, a counter, a random key).
//
//   Variable count(scalar(0), false);
//   auto step = compile([&](Tensor x) { count.set(count.get() + sum(x)); });
//   step(ones({3}));
//   assert(count.get().item() == 3);
#pragma once

#include <memory>
#include <string>

#include "bp/tensor.h"

namespace bp {

namespace detail {
struct Cell;
}

// A cell of state that is read and assigned. Both keep program order, also while `compile` traces: a read after an
// assignment sees the new value. If tracing throws, nothing is assigned. Copying a Variable copies its state (a new
// cell); moving keeps its identity; alias() shares it.
class Variable {
 public:
  Variable() = default;
  // `trainable` marks a parameter: nn::parameters() lists it. The value is evaluated at once.
  explicit Variable(const Tensor& initial, bool trainable = true);
  Variable(const Variable& other);
  Variable& operator=(const Variable& other);  // the other's state in a new cell
  Variable(Variable&&) noexcept = default;
  Variable& operator=(Variable&&) noexcept = default;

  bool defined() const noexcept { return cell_ != nullptr; }  // false only of Variable()
  // Another handle on the same cell (weight tying, optimizers).
  Variable alias() const;
  bool same_cell(const Variable& other) const noexcept { return cell_ == other.cell_; }  // whether both are one state

  // The current value. Inside compile: symbolic.
  Tensor get() const;
  operator Tensor() const { return get(); }  // get()
  // Assigns. Throws Error(shape / dtype) when the type differs, naming the variable. Outside compile evaluates at once.
  void set(const Tensor& value);
  void set(double value);  // fills; no retrace of compiled steps

  const Type& type() const;                            // does not change, whatever is assigned
  const Shape& shape() const { return type().shape; }  // sizes of the dimensions
  DType dtype() const { return type().dtype; }         // of the elements
  const std::string& name() const;                     // its path in the model, or what set_name() said; for messages
  void set_name(std::string name);                     // for messages and profiles
  bool trainable() const;                              // whether nn::parameters() lists it
  void set_trainable(bool trainable);                  // freezes or thaws a parameter
  // Number of the latest assignment; grows by one with each.
  std::uint64_t version() const;

  const std::shared_ptr<detail::Cell>& cell() const noexcept { return cell_; }  // for the library's own use
  // For the library's own use.
  explicit Variable(std::shared_ptr<detail::Cell> cell) noexcept : cell_(std::move(cell)) {}

 private:
  std::shared_ptr<detail::Cell> cell_;
};

// Assigns many at once: all values are computed first (in one executable), then all assigned; on an exception none is.
void assign(std::span<Variable> variables, std::span<const Tensor> values);

// Inside compile: unless `condition` (one boolean) is true, every Variable ends the step with the value it had before,
// as if the step had not happened (parameters, moments, running statistics, counters); but those in `always` are
// assigned in any case. Error(state) outside compile, where assignments have happened already; Error(dtype / shape) for
// a condition that is not one boolean.
void commit_if(const Tensor& condition, std::span<const Variable> always = {});

}  // namespace bp

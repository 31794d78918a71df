// Tensor: an immutable value, an output of a node in a graph that is evaluated when somebody looks.
//
//   const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
//   const Tensor y = sum(x * x, {1});                               // recorded
//   assert(y.to_vector<float>() == (std::vector<float>{14, 77}));  // computed
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "bp/buffer.h"
#include "bp/dtype.h"
#include "bp/shape.h"

namespace bp {

// What is known of a tensor before it is computed.
struct Type {
  DType dtype = DType::f32;  // of the elements
  Shape shape;               // sizes of the dimensions
  // Of all elements.
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(shape.numel()) * size_of(dtype); }
  std::string str() const;  // "f32[64, 784]"
  friend bool operator==(const Type&, const Type&) = default;
};

namespace detail {
struct Node;
}

// An immutable value, computed or not yet. Copies are cheap (a reference). All memory is row-major and contiguous;
// images are [N, H, W, C]. Outside `compile` an operation only records itself; data(), item() or an optimizer update
// computes what they need. Inside `compile` a Tensor is symbolic: reading it throws Error(trace).
class Tensor {
 public:
  Tensor() = default;  // undefined: only assignment and defined() are allowed

  // A tensor over existing memory. `buffer` must hold exactly numel * size_of(dtype) bytes.
  static Tensor from_buffer(Buffer buffer, DType dtype, const Shape& shape);
  // Copies `values` (row-major); throws Error(shape) when their number is not shape.numel().
  template <class T> static Tensor from(std::span<const T> values, const Shape& shape) {
    return copy_of(values.data(), values.size(), dtype_of<T>, shape);
  }
  template <class T> static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }
  template <class T> static Tensor from(std::initializer_list<T> values, const Shape& shape) {
    return from(std::span<const T>(values.begin(), values.size()), shape);
  }
  template <class T> static Tensor from(std::initializer_list<T> values) {
    return from(values, Shape{static_cast<std::int64_t>(values.size())});
  }

  bool defined() const noexcept { return node_ != nullptr; }  // false only of Tensor()
  const Type& type() const;                                   // without computing anything
  const Shape& shape() const { return type().shape; }         // sizes of the dimensions
  DType dtype() const { return type().dtype; }                // of the elements
  int rank() const { return shape().rank(); }                 // dimensions
  std::int64_t numel() const { return shape().numel(); }      // elements
  std::int64_t size(int axis) const;                          // negative axes count from the end

  // The elements, row-major; evaluates. Throws Error(dtype) when T is not the tensor's element type. The span lives as
  // long as this Tensor or a copy of it.
  template <class T> std::span<const T> data(std::source_location where = std::source_location::current()) const {
    return {static_cast<const T*>(raw(dtype_of<T>, where)), static_cast<std::size_t>(numel())};
  }
  // The elements converted to T.
  template <class T> std::vector<T> to_vector(std::source_location where = std::source_location::current()) const;
  // The single element of a tensor of one element, converted; evaluates. Throws Error(shape) for more than one.
  template <class T = double> T item(std::source_location where = std::source_location::current()) const {
    return static_cast<T>(item_as_double(where));
  }
  // The memory; evaluates.
  Buffer buffer(std::source_location where = std::source_location::current()) const;
  std::string str() const;  // evaluates; at most a few elements of each dimension

  // Internal: the node behind the value.
  Tensor(std::shared_ptr<detail::Node> node, std::uint32_t output) : node_(std::move(node)), output_(output) {}
  const std::shared_ptr<detail::Node>& node() const noexcept { return node_; }  // shared by its outputs
  std::uint32_t output() const noexcept { return output_; }                     // which output of the node

 private:
  static Tensor copy_of(const void* data, std::size_t count, DType dtype, const Shape& shape);
  const void* raw(DType expected, std::source_location where) const;
  double item_as_double(std::source_location where) const;

  std::shared_ptr<detail::Node> node_;
  std::uint32_t output_ = 0;
};

// Computes all `tensors` in one executable. Nothing happens to those that already have values.
void evaluate(std::span<const Tensor> tensors);
inline void evaluate(std::initializer_list<Tensor> tensors) { evaluate(std::span(tensors.begin(), tensors.size())); }

// Marks `x` as something to differentiate by, so that what is computed from it keeps its history when it is evaluated.
// Needed only when values are read (item(), data()) before grad() is called; Variables are marked by themselves.
Tensor watch(const Tensor& x);

// Train or evaluation: an option of the call (compile's, or ModeScope), not of a module.
enum class Mode { eval, train };
// Of this thread: that of the innermost ModeScope or compiled step; eval outside of both.
Mode current_mode() noexcept;
// Sets current_mode() of this thread while it lives.
class ModeScope {
 public:
  explicit ModeScope(Mode mode) noexcept;  // what layers see until the scope ends
  ~ModeScope();
  ModeScope(const ModeScope&) = delete;
  ModeScope& operator=(const ModeScope&) = delete;

 private:
  Mode before_;
};

// Names the operations recorded while it lives: layers by their path ("block1.conv2"), compositions by their name
// ("layer_norm"). Errors, profiles and exports show it.
class Scope {
 public:
  explicit Scope(std::string_view name);  // inside of those that are open
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::uint32_t before_;
};

}  // namespace bp

// Array: a plain array in host memory, row-major. What readers return and loaders hand out; the core turns it into a
// Tensor and back without copying (dtype, shape and Buffer move over as they are).
//
//   Array a = Array::zeros(f32, {2, 3});
//   a.mutable_data<float>()[5] = 1;
//   assert(sum(a).item() == 1);
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "bp/buffer.h"
#include "bp/dtype.h"
#include "bp/shape.h"

namespace bp {

class Tensor;

// dtype, shape and memory, all of them open to whoever holds it.
struct Array {
  DType dtype = DType::f32;  // of the elements
  Shape shape{0};            // row-major; an Array that is made without values has none
  Buffer buffer;             // at least numel() * size_of(dtype) bytes; copies of an Array share it

  // Uninitialised memory. Throws Error(shape) when the bytes of `shape` overflow 2^46.
  static Array empty(DType dtype, const Shape& shape);
  static Array zeros(DType dtype, const Shape& shape);  // Filled with zeros; throws as empty()
  // A copy of `values`; throws Error(shape) when they do not fill `shape` exactly.
  template <class T> static Array from(std::span<const T> values, const Shape& shape) {
    return copy_of(dtype_of<T>, shape, values.data(), values.size());
  }
  template <class Container> static Array from(const Container& values, const Shape& shape) {
    return from(std::span<const typename Container::value_type>(values), shape);
  }

  std::int64_t numel() const noexcept { return shape.numel(); }                                      // elements
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(numel()) * size_of(dtype); }  // of all elements
  // The first dimension, by convention the samples; 1 for a scalar.
  std::int64_t rows() const noexcept { return shape.rank() == 0 ? 1 : shape[0]; }
  // Bytes of one row: of everything behind the first dimension.
  std::size_t row_bytes() const noexcept;

  // The elements. T must be the C++ type of `dtype` (dtype_of<T> == dtype), else Error(dtype).
  template <class T> const T* data() const {
    require(dtype_of<T>);
    return buffer.as<T>();
  }
  // The elements, to write to: the copies of an Array that share the buffer see it. Throws as data().
  template <class T> T* mutable_data() {
    require(dtype_of<T>);
    return buffer.as_mutable<T>();
  }
  // The elements as a span; throws as data().
  template <class T> std::span<const T> values() const { return {data<T>(), static_cast<std::size_t>(numel())}; }

  // The Tensor of the same values, over the same memory where the buffer holds nothing else: what a loader hands out
  // goes straight into a compiled step.
  operator Tensor() const;

  // The same memory under another shape of equally many elements; throws Error(shape) otherwise.
  Array reshaped(const Shape& to) const;

 private:
  static Array copy_of(DType dtype, const Shape& shape, const void* values, std::size_t count);
  void require(DType wanted) const;
};

// Bytes of an array, in full 64-bit arithmetic; throws Error(shape), opened by `where`, past 2^46.
std::size_t checked_bytes(DType dtype, const Shape& shape, const char* where);

// The values as another dtype. Floats become integers by truncation towards zero; a value that the integer type cannot
// hold (or NaN) throws Error(value) naming its row. Anything but zero becomes true. No copy when `to` is a.dtype.
Array convert(const Array& a, DType to);

}  // namespace bp

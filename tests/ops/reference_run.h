// Runs an op's type rule and reference kernel directly, without graph or executable. For tests of single kernels.
#pragma once

#include <random>
#include <vector>

#include "ir/op.h"

namespace bp::test {

inline std::vector<Tensor> run_reference(ir::OpId op, const std::vector<Tensor>& in, const ir::Attrs& attrs) {
  std::vector<Type> types;
  std::vector<ir::View> inputs, outputs;
  for (const Tensor& t : in) {
    types.push_back(t.type());
    inputs.push_back({t.buffer().mutable_data(), t.type()});
  }
  std::vector<Tensor> results;
  for (const Type& t : ir::op_def(op).infer({types, attrs})) {
    const Buffer buffer = Buffer::allocate(t.bytes());
    outputs.push_back({buffer.mutable_data(), t});
    results.push_back(Tensor::from_buffer(buffer, t.dtype, t.shape));
  }
  ir::op_def(op).reference({inputs, outputs, attrs});
  return results;
}

// Numbers in [-1, 1), the same for the same seed.
inline std::vector<double> random_values(std::int64_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<double> out(static_cast<std::size_t>(n));
  for (double& v : out) v = static_cast<double>(engine()) / 2147483648.0 - 1.0;
  return out;
}

inline Tensor random_tensor(const Shape& shape, unsigned seed, DType dtype = f64) {
  const std::vector<double> values = random_values(shape.numel(), seed);
  const Buffer buffer = Buffer::allocate(values.size() * size_of(dtype));
  dispatch(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < values.size(); ++i)
      buffer.as_mutable<T>()[i] =
          is_float(dtype) ? T(static_cast<float>(values[i])) : T(static_cast<float>(values[i] * 10));
  });
  return Tensor::from_buffer(buffer, dtype, shape);
}

}  // namespace bp::test

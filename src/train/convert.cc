// Arrays as Tensors and back, sharing the memory.
#include "bp/train.h"

namespace bp {

Tensor to_tensor(const Array& array) {
  if (array.buffer.bytes() == array.bytes()) return Tensor::from_buffer(array.buffer, array.dtype, array.shape);
  auto keep = std::make_shared<Buffer>(array.buffer);
  return Tensor::from_buffer(Buffer::wrap(keep->mutable_data(), array.bytes(), keep), array.dtype, array.shape);
}

Array to_array(const Tensor& tensor) { return {tensor.dtype(), tensor.shape(), tensor.buffer()}; }

}  // namespace bp

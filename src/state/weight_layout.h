// How the weights of Linear and Conv layers lie: here [k.., in, out], in PyTorch and ONNX [out, in, k..].
#pragma once

#include "bp/array.h"

namespace bp {

Array to_pytorch(const Array& a);    // [k.., in, out] to [out, in, k..]
Array from_pytorch(const Array& a);  // and back

}  // namespace bp

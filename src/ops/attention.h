// What the kernels of attention agree on with its scalar kernels.
#pragma once

namespace bp::ops {

// What stands for the logarithm of a softmax's sum where a query sees no key: exp(score - this) is 0 for every score.
inline constexpr double kNothingSeen = 1e30;

}  // namespace bp::ops

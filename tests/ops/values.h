// What the tests of ops name alike: infinity, NaN, the elements of a tensor.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "bp/tensor.h"

namespace bp {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline std::vector<double> reals(const Tensor& x) { return x.to_vector<double>(); }
inline std::vector<std::int64_t> ints(const Tensor& x) { return x.to_vector<std::int64_t>(); }

}  // namespace bp

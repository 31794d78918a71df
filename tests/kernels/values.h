// Random operands for the tests of this room.
#pragma once

#include <cstdint>
#include <vector>

#include "bp/rng.h"

namespace bp::cpu {

// n values in [-1, 1).
template <class T> std::vector<T> random_values(Rng& rng, std::int64_t n) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (T& x : v) x = static_cast<T>(rng.uniform() * 2 - 1);
  return v;
}

}  // namespace bp::cpu

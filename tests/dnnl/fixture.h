// What the tests of this room share: aligned memory, deterministic data, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "bp/buffer.h"
#include "bp/dtype.h"

namespace bp::cpu::test {

// Values in [-1, 1), reproducible, different for each seed.
template <class T = float> std::vector<T> values(std::int64_t count, unsigned seed) {
  std::vector<T> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) {
    unsigned h = (static_cast<unsigned>(i) + 1) * 2654435761u ^ (seed + 1) * 2246822519u;
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    v[i] = static_cast<T>(static_cast<double>((h ^ h >> 16) >> 8) / 8388608.0 - 1.0);
  }
  return v;
}

// Largest |got − want| over the rounding of a sum of `terms` products of values up to 1.
inline double worst(const std::vector<float>& got, const std::vector<double>& want) {
  EXPECT_EQ(got.size(), want.size());
  double w = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - want[i]);
    w = std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(w, d);
  }
  return w;
}

inline double tolerance(std::int64_t terms) { return 2e-6 + 2e-6 * std::sqrt(static_cast<double>(terms)); }

}  // namespace bp::cpu::test

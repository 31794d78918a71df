// PyTorch's values (scripts/make_torch_optim_expectations.py) and comparison with them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bp/bp.h"
#include "message_of.h"

namespace bp::test {

inline const nlohmann::json& torch_values() {
  static const nlohmann::json values = nlohmann::json::parse(std::ifstream(BP_TEST_DATA "/torch_optim.json"));
  return values;
}

inline Shape shape_of(const nlohmann::json& sizes) {
  Shape shape;
  for (const std::int64_t n : sizes) shape.push_back(n);
  return shape;
}

using Doubles = std::vector<double>;

// Every element within `tolerance` of max(1, |expected|).
inline void expect_close(const Doubles& got, const Doubles& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << what << ", element " << i;
}

}  // namespace bp::test

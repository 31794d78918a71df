// What the tests of configurations share: a good one, and how it is read.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "classifier.h"
#include "train/config.h"
#include "train/config_section.h"

namespace bp::train_test {

using namespace train;
using ::testing::HasSubstr;

inline constexpr const char* kGood = R"(name = "net"
seed = 7

[data]
format = "npy"
train = { inputs = "x.npy", targets = "y.npy" }

[model]
input = [8, 8, 3]
layers = [
  { type = "conv2d", filters = 4, kernel = 3, padding = "same" },
  { type = "relu" },
  { type = "flatten" },
  { type = "linear", units = 5 },
]

[loss]
type = "cross_entropy"

[optimizer]
type = "sgd"
lr = 0.1
)";

inline Config parse(const std::string& text, const std::vector<std::string>& set = {}) {
  Node root = parse_toml(text, "net.toml");
  for (const std::string& s : set) override_key(root, s);
  return parse_config(std::move(root), "/data", "net");
}

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

}  // namespace bp::train_test

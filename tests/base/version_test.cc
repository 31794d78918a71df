// The version: the string and the numbers agree, and the linked library is the one whose headers were read.
#include "bp/version.h"

#include <gtest/gtest.h>

#include <string>

namespace bp {
namespace {

TEST(Version, StringAndNumbersAgree) {
  const std::string numbers = std::to_string(BP_VERSION_MAJOR) + "." + std::to_string(BP_VERSION_MINOR) + "." +
                              std::to_string(BP_VERSION_PATCH);
  EXPECT_EQ(numbers, BP_VERSION_STRING);
  EXPECT_EQ(numbers, version());
}

}  // namespace
}  // namespace bp

// The first example: it compiles, trains and prints what its header says.
#include <fstream>

#include "state/expectations.h"

#define main quickstart_main
#include "../../examples/quickstart.cpp"
#undef main

namespace bp {
namespace {

TEST(Quickstart, PrintsWhatItsHeaderSays) {
  std::ifstream source(BP_TEST_DATA "/../../examples/quickstart.cpp");
  std::string expected;
  bool inside = false;
  for (std::string line; std::getline(source, line) && line.starts_with("//");) {
    if (inside) expected += line.substr(5) + "\n";
    inside = inside || line.starts_with("// Expected output");
  }
  ASSERT_FALSE(expected.empty());
  ::testing::internal::CaptureStdout();
  quickstart_main();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), expected);
}

}  // namespace
}  // namespace bp

// docs/ops.md is what the op table says, and every op has its line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "ir/op.h"
#include "ops/table.h"

namespace bp {
namespace {

const std::string kPage = BP_TEST_DATA "/../../docs/ops.md";

TEST(OpsPage, IsMadeFromTheOpTable) {
  if (std::getenv("BP_UPDATE_DOCS") != nullptr) std::ofstream(kPage) << ops::ops_markdown();
  std::ifstream file(kPage);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, ops::ops_markdown()) << "run with BP_UPDATE_DOCS=1 to write " << kPage;
}

TEST(OpsPage, EveryOpIsDocumented) {
  for (std::size_t id = 0; id < static_cast<std::size_t>(ir::OpId::count); ++id) {
    const ir::OpDef& op = ir::op_def(static_cast<ir::OpId>(id));
    const std::string doc = op.doc;
    EXPECT_FALSE(doc.empty()) << op.name;
    for (std::size_t i = 0; i < doc.size(); ++i)
      EXPECT_TRUE(doc[i] != '|' || (i > 0 && doc[i - 1] == '\\')) << op.name << ": a | splits the table's cell";
  }
}

}  // namespace
}  // namespace bp

// The op table as a page. Written to docs/ops.md and held equal to it by tests/ops/docs_test.cc.
#pragma once

#include <string>

namespace bp::ops {

// Broadcasting, promotion (a matrix of all dtypes) and every op of ops.def with class, gradient and formula.
std::string ops_markdown();

}  // namespace bp::ops

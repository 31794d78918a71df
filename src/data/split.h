// Which rows are held out for validation. Used by the sources that can be split.
#pragma once

#include <cstdint>
#include <vector>

#include "bp/rng.h"

namespace bp::data {

struct SplitRows {
  std::vector<std::int64_t> larger, smaller;  // ascending
};
// A random partition that depends only on (n, key). Throws Error(value) as ArrayDataset::split() does.
SplitRows split_rows(std::int64_t n, double fraction, Key key);
// How many of n rows `fraction` holds out, at least one; throws as split_rows().
std::int64_t held_out_of(std::int64_t n, double fraction);

}  // namespace bp::data

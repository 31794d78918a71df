// Where blocks of ids begin: what TextBlocks and TokenBlocks share, so that the same plan gives the same blocks from
// memory and from disk.
#pragma once

#include <cstdint>
#include <string>

#include "bp/text.h"

namespace bp::data {

// Blocks an epoch, of `symbols` ids in all. Throws Error(value), opened by `name`, as the constructor of TextBlocks.
std::int64_t count_blocks(std::int64_t symbols, std::int64_t context, BlockPlan plan, const std::string& name);
// The first id of block `row` of `count`.
std::int64_t start_of_block(std::int64_t row, std::int64_t count, std::int64_t symbols, std::int64_t context,
                            std::int64_t stride, Key key, const std::string& name);

}  // namespace bp::data

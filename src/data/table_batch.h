// Tables as batches: which columns are inputs, and the values of some rows. Used by the sources of CSV files.
#pragma once

#include <string>
#include <vector>

#include "bp/data.h"
#include "bp/io.h"

namespace bp::data {

// All but the target. Throws Error(value) naming the nearest column when there is no such target, Error(format), opened
// by `path`, when no column is left.
std::vector<std::string> input_columns(const io::Table& table, const std::string& target, const std::string& path);
Batch batch_of(const io::Table& table, const std::vector<std::string>& inputs, const std::string& target, bool one_hot,
               DType dtype);

}  // namespace bp::data

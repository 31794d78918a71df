// From files to datasets: the usual layouts, read by bp/io.h and checked.
//
//   io::write_file("birds.csv", "wing,kind\n180,a\n210,b\n190,a\n");
//   const data::ArrayDataset birds = data::load_csv("birds.csv", "kind", {.categorical = {"kind"}});
//   assert(birds.size() == 3 && birds.classes()[1] == "b");
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bp/data.h"
#include "bp/io.h"

namespace bp::data {

// MNIST's layout. images: IDX u8 [N, H, W] or [N, H, W, C]; labels: IDX [N]. The dataset has inputs u8 [N, H, W, C] and
// targets i64 [N]. Throws Error(format) when the files do not belong together, Error(value) for a label outside
// [0, classes) where `classes` is given.
ArrayDataset load_idx_pair(const std::string& images, const std::string& labels,
                           std::optional<std::int64_t> classes = std::nullopt);

// A table. inputs: [N, columns other than the target]; targets: i64 ids [N] and class names when `target` is among
// options.categorical, otherwise [N, 1] of options.dtype; none when `target` is empty.
ArrayDataset load_csv(const std::string& path, const std::string& target, const io::CsvOptions& options = {});

}  // namespace bp::data

// Samples of image data as pictures again: for event files and reports.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/config.h"

namespace bp::train {

// Row `row` of a batch's inputs as u8 [height, width, 1 or 3], mean and deviation undone; nothing when the inputs are
// no images. IDX rows of a square number of values are square images. Values beyond [0, 1] are stretched into it.
std::optional<Array> picture_of(const Config& config, const Array& x, std::int64_t row);

// Pictures of one size side by side, `columns` in a row, a pixel apart.
Array grid_of(const std::vector<Array>& pictures, std::int64_t columns);

}  // namespace bp::train

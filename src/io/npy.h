// The bytes of an NPY file, for whoever puts one into another file.
#pragma once

#include <string>

#include "bp/array.h"

namespace bp::io {

std::string npy_text(const Array& array);

}  // namespace bp::io

// The version of the library. The one place it is written: CMake reads it from here.
#pragma once

#define BP_VERSION_MAJOR 0
#define BP_VERSION_MINOR 1
#define BP_VERSION_PATCH 0
#define BP_VERSION_STRING "0.1.0"

namespace bp {

// "major.minor.patch" of the library that was linked; BP_VERSION_STRING is that of the headers.
const char* version() noexcept;

}  // namespace bp

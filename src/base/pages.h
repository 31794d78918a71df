// Memory for what is large, lives long and is walked through again and again: the arena of an executable.
#pragma once

#include <cstddef>

#include "bp/buffer.h"

namespace bp {

// Bytes behind the end of a Buffer's memory that vector loads may read, never use.
inline constexpr std::size_t kReadableBehind = 64;

// As Buffer::allocate, but from 4 MiB on in pages of 2 MiB where the system grants them: fewer misses when addresses
// are translated, and no luck in where pages of 4 KiB meet in a cache that is indexed by physical addresses. The system
// gets the memory back with the buffer.
Buffer allocate_pages(std::size_t bytes);

}  // namespace bp

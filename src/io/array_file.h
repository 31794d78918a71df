// How the values of a file lie on disk: what the headers of NPY and IDX say. Used by their readers and by ArrayFile.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "io/file.h"

namespace bp::io {

struct Stored {
  std::string type;          // as the header tells it, with the byte order
  std::uint64_t offset = 0;  // of the first value in the file
  Shape shape = {};
  std::size_t size = 0;      // bytes of a stored element
  DType dtype = DType::f32;  // after reading
  bool plain = false;        // values lie in the file as in an Array
  bool by_columns = false;   // Fortran order: a row is scattered over the file
  // Values of `shape`, which lie at `from`.
  std::function<Array(const std::byte* from, const Shape& shape)> decode = {};
};

// A size that is not known before the end, of what is compressed.
inline constexpr std::uint64_t kUnknownSize = ~std::uint64_t{0};

// From the first bytes of a file of `size` bytes, at least its header. Throws Error(format), opened by `name`.
Stored npy_layout(Bytes head, std::uint64_t size, std::string_view name);
Stored idx_layout(Bytes head, std::uint64_t size, std::string_view name);

Stored array_layout(Bytes head, std::uint64_t size, std::string_view name);  // whichever it is

// The values that the header claims against the bytes that follow it: Error(format) when they differ.
void check_claim(const Stored& stored, std::uint64_t size, std::string_view name);

}  // namespace bp::io

// What convolutions and pools share: the geometry of windows sliding over channels-last tensors, its type rules, and
// reference loops over (output position, window position) pairs. Included by conv.cc, pool.cc and adaptive_pool.cc
// only.
#pragma once

#include <string>
#include <vector>

#include "ops/common.h"

namespace bp::ops {

// Window position t of output position o covers input position o * stride + t * dilation - low, in each dimension.
struct Windows {
  Ints in, out, window, stride, dilation, low;
  std::int64_t batch = 0;

  std::int64_t taps() const { return product(window); }
  std::int64_t out_rows() const { return batch * product(out); }
  // The row (batch and position) of x under window position `tap` of row `y_row` of y, both row-major; -1 outside x.
  std::int64_t source(std::int64_t y_row, std::int64_t tap) const;
  static std::int64_t product(const Ints& sizes);
};

// `attrs` has stride, padding_low and dilation; x and y are [N, s.., C].
Windows windows_of(const Attrs& attrs, const Ints& window, const Shape& x, const Shape& y);

// floor((in + low + high - dilation * (window - 1) - 1) / stride) + 1 for each dimension, by the attributes stride,
// padding_low, padding_high and dilation. Throws Error(shape) when a window does not fit the padded input.
Ints output_sizes(const Attrs& attrs, const Ints& in, const Ints& window, const char* op);

// x must be [N, s.., C]; `operand` is what the message calls it.
void check_channels_last(const Shape& x, const char* op, const char* operand);
// And the attributes must have an entry for each of its spatial dimensions, of a sensible sign.
void check_windows(const Attrs& attrs, const Ints& window, const Shape& x, const char* op, const char* operand);

Ints spatial_of(const Shape& x);                                                                   // [N, s.., C] -> s..
Shape channels_last(std::int64_t batch, const Ints& spatial, std::int64_t channels);               // the inverse
std::string layout(int spatial, const std::string& channels);                                      // "[N, H, W, 16]"
Ints one_each(const std::vector<std::int64_t>& v, int spatial, const char* op, const char* what);  // {2} -> {2, 2}

Attrs with(Attrs attrs, const char* name, ir::AttrValue value);
Attrs without(const Attrs& attrs, std::string_view name);

// Reference kernels compute in f64, whatever the storage.
std::vector<double> to_doubles(const ir::View& v);
void store(const std::vector<double>& values, const ir::View& v);

}  // namespace bp::ops

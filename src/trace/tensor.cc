// Tensor: construction, reading, printing.
#include "bp/tensor.h"

#include <cstring>

#include "base/error.h"
#include "bp/array.h"
#include "trace/node.h"

namespace bp {

std::string Type::str() const { return fmt::format("{}{}", name_of(dtype), shape.str()); }

Tensor Tensor::from_buffer(Buffer buffer, DType dtype, const Shape& shape) {
  const Type type{dtype, shape};
  if (!buffer || buffer.bytes() != type.bytes())
    fail(ErrorKind::shape, "[tensor] a {} needs {} bytes, got {}", type.str(), type.bytes(), buffer.bytes());
  return detail::make_leaf(std::move(buffer), type);
}

Tensor Tensor::copy_of(const void* data, std::size_t count, DType dtype, const Shape& shape) {
  if (count != static_cast<std::size_t>(shape.numel()))
    fail(ErrorKind::shape, "[tensor] shape {} holds {} elements, got {}", shape, shape.numel(), count);
  Buffer buffer = Buffer::allocate(count * size_of(dtype));
  if (buffer.bytes() != 0) std::memcpy(buffer.mutable_data(), data, buffer.bytes());
  return detail::make_leaf(std::move(buffer), {dtype, shape});
}

Array::operator Tensor() const {
  if (buffer.bytes() == bytes()) return Tensor::from_buffer(buffer, dtype, shape);
  Buffer own = Buffer::allocate(bytes());
  if (bytes() != 0) std::memcpy(own.mutable_data(), buffer.data(), bytes());
  return Tensor::from_buffer(std::move(own), dtype, shape);
}

const Type& Tensor::type() const {
  if (!node_) fail(ErrorKind::value, "[tensor] this Tensor is undefined");
  return node_->types[output_];
}

std::int64_t Tensor::size(int axis) const { return shape()[normalize_axis(axis, rank(), "size")]; }

Buffer Tensor::buffer(std::source_location where) const {
  const Type& t = type();  // refuses an undefined tensor
  if (!node_->evaluated()) {
    if (node_->region != 0)
      fail(ErrorKind::trace,
           "{}:{}: a {} was read inside the body of a scan or cond: it has no value of its own. Use select or where "
           "instead of branching on it, or return it from the body",
           where.file_name(), where.line(), t.str());
    if (node_->trace != 0)
      fail(ErrorKind::trace,
           "{}:{}: a {} was read while it is being traced by compile: it has no value yet. Use select or where instead "
           "of "
           "branching on it, return it from the function, or keep it in a Variable",
           where.file_name(), where.line(), t.str());
    evaluate(std::span(this, 1));
  }
  return node_->values[output_];
}

const void* Tensor::raw(DType expected, std::source_location where) const {
  if (type().dtype != expected)
    fail(ErrorKind::dtype, "[tensor] the elements are {}, read as {}", name_of(type().dtype), name_of(expected));
  return buffer(where).data();
}

double Tensor::item_as_double(std::source_location where) const {
  if (numel() != 1) fail(ErrorKind::shape, "[item] expected a tensor of one element, got {}", type().str());
  const Buffer b = buffer(where);
  return dispatch(dtype(), [&](auto zero) { return static_cast<double>(*b.as<decltype(zero)>()); });
}

template <class T> std::vector<T> Tensor::to_vector(std::source_location where) const {
  const Buffer b = buffer(where);
  const auto n = static_cast<std::size_t>(numel());
  std::vector<T> out(n);
  dispatch(dtype(), [&](auto zero) {
    const auto* p = b.as<decltype(zero)>();
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<T>(p[i]);
  });
  return out;
}
template std::vector<double> Tensor::to_vector(std::source_location) const;
template std::vector<float> Tensor::to_vector(std::source_location) const;
template std::vector<std::int64_t> Tensor::to_vector(std::source_location) const;
template std::vector<std::int32_t> Tensor::to_vector(std::source_location) const;
template std::vector<std::uint8_t> Tensor::to_vector(std::source_location) const;

namespace {
// Prints one dimension: its first and last three entries.
void print(std::string& out, const Tensor& t, const Buffer& b, int axis, std::int64_t offset) {
  if (axis == t.rank()) {
    out += dispatch(t.dtype(), [&](auto zero) {
      return fmt::format("{:.6g}", static_cast<double>(b.as<decltype(zero)>()[offset]));
    });
    return;
  }
  const std::int64_t n = t.shape()[axis], stride = row_major_strides(t.shape())[axis];
  out += "[";
  for (std::int64_t i = 0; i < n; ++i) {
    if (i != 0) out += ", ";
    if (n > 8 && i == 3) {
      out += "..., ";
      i = n - 3;
    }
    print(out, t, b, axis + 1, offset + i * stride);
  }
  out += "]";
}
}  // namespace

std::string Tensor::str() const {
  if (!defined()) return "undefined";
  std::string out = type().str() + " ";
  print(out, *this, buffer(), 0, 0);
  return out;
}

Tensor watch(const Tensor& x) {
  if (x.node()->trace == 0) {
    Tensor leaf = detail::make_leaf(x.buffer(), x.type());
    leaf.node()->tracked = true;
    return leaf;
  }
  return x;
}

}  // namespace bp

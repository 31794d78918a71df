// Movement to steps: every op that only renames places is one or more strided copies.
#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "cpu/kernels/strided_copy.h"
#include "cpu/lower/lowering.h"

namespace bp::cpu {

namespace {

using ir::Ints;
using ir::OpId;

// One input of the step copied into a part of its output.
struct Part {
  StridedCopy copy;
  std::size_t input = 0;
  std::int64_t from = 0, to = 0;  // of the first element, in bytes
};

// The output is filled first where parts do not cover it.
class CopyParts final : public Kernel {
 public:
  CopyParts(std::vector<Part> parts, std::size_t inputs, std::int64_t count, std::size_t element)
      : parts_(std::move(parts)), inputs_(inputs), count_(count), element_(element) {}
  void fill_with(const void* value) {
    fills_ = true;
    std::memcpy(value_, value, element_);
  }

  void run(void* const* args, void*, int threads) const override {
    void* out = args[inputs_];
    if (fills_) fill_elements(out, value_, count_, element_, threads);
    for (const Part& p : parts_)
      p.copy.run(static_cast<const char*>(args[p.input]) + p.from, static_cast<char*>(out) + p.to, threads);
  }
  int preferred_threads() const override {
    int threads = 1;
    for (const Part& p : parts_) threads = std::max(threads, p.copy.preferred_threads(kManyThreads));
    return threads;
  }

 private:
  std::vector<Part> parts_;
  std::size_t inputs_;
  std::int64_t count_;
  std::size_t element_;
  bool fills_ = false;
  alignas(8) unsigned char value_[8] = {};
};

// Strides and first elements, in elements; the box of elements that is copied.
struct Walk {
  Ints sizes, from, to;
  std::int64_t from_base = 0, to_base = 0;
};

Ints strides_of(const Shape& s) { return ir::to_ints(row_major_strides(s)); }

Walk identity(const Shape& in, const Shape& out) { return {ir::to_ints(in), strides_of(in), strides_of(out)}; }

Walk transpose_walk(const ir::Attrs& attrs, const Shape& in, const Shape& out) {
  Walk w{ir::to_ints(out), {}, strides_of(out)};
  const Ints strides = strides_of(in);
  for (auto axis : attrs.ints("permutation")) w.from.push_back(strides[static_cast<std::size_t>(axis)]);
  return w;
}

Walk broadcast_walk(const Shape& in, const Shape& out) {
  Walk w{ir::to_ints(out), Ints(static_cast<std::size_t>(out.rank()), 0), strides_of(out)};
  const Ints strides = strides_of(in);
  const auto extra = static_cast<std::size_t>(out.rank() - in.rank());  // new leading dimensions
  for (std::size_t d = 0; d < strides.size(); ++d)
    if (in[static_cast<int>(d)] != 1) w.from[d + extra] = strides[d];
  return w;
}

Walk slice_walk(const ir::Attrs& attrs, const Shape& in, const Shape& out) {
  Walk w{ir::to_ints(out), strides_of(in), strides_of(out)};
  for (std::size_t d = 0; d < w.sizes.size(); ++d) {
    w.from_base += attrs.ints("start")[d] * w.from[d];
    w.from[d] *= attrs.ints("step")[d];
  }
  return w;
}

Walk reverse_walk(const ir::Attrs& attrs, const Shape& shape) {
  Walk w = identity(shape, shape);
  for (auto axis : attrs.ints("axes")) {
    auto& stride = w.from[static_cast<std::size_t>(axis)];
    w.from_base += stride * (shape[static_cast<int>(axis)] - 1);
    stride = -stride;
  }
  return w;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

// The input elements that cropping leaves, at their places.
Walk pad_walk(const ir::Attrs& attrs, const Shape& in, const Shape& out) {
  Walk w = identity(in, out);
  for (std::size_t d = 0; d < w.sizes.size(); ++d) {
    const std::int64_t low = attrs.ints("low")[d], step = attrs.ints("interior")[d] + 1;
    const std::int64_t first = std::max<std::int64_t>(ceil_div(-low, step), 0);
    const std::int64_t last = std::min(ceil_div(out[static_cast<int>(d)] - low, step), w.sizes[d]);
    w.sizes[d] = std::max<std::int64_t>(last - first, 0);
    w.from_base += first * w.from[d];
    w.to_base += (low + first * step) * w.to[d];
    w.to[d] *= step;
  }
  return w;
}

Part part_of(const Walk& w, std::size_t element, std::size_t input = 0) {
  const auto bytes = static_cast<std::int64_t>(element);
  return {StridedCopy(w.sizes, w.from, w.to, element), input, w.from_base * bytes, w.to_base * bytes};
}

std::vector<Part> concatenate_parts(const ir::Graph& g, const ir::Node& n) {
  const auto axis = static_cast<int>(n.attrs.integer("axis"));
  const Shape& out = n.types[0].shape;
  std::vector<Part> parts;
  std::int64_t base = 0;
  for (std::size_t i = 0; i < n.inputs.size(); ++i) {
    const Shape& in = g.type(n.inputs[i]).shape;
    Walk w = identity(in, out);
    w.to_base = base;
    base += in[axis] * w.to[static_cast<std::size_t>(axis)];
    parts.push_back(part_of(w, size_of(n.types[0].dtype), i));
  }
  return parts;
}

std::optional<std::vector<Part>> parts_of(const ir::Graph& g, const ir::Node& n) {
  if (n.op == OpId::full) return std::vector<Part>{};
  if (n.op == OpId::concatenate) return concatenate_parts(g, n);
  if (n.inputs.size() != 1) return std::nullopt;
  const Shape &in = g.type(n.inputs[0]).shape, &out = n.types[0].shape;
  const std::size_t element = size_of(n.types[0].dtype);
  switch (n.op) {
    case OpId::transpose: return std::vector{part_of(transpose_walk(n.attrs, in, out), element)};
    case OpId::broadcast: return std::vector{part_of(broadcast_walk(in, out), element)};
    case OpId::slice: return std::vector{part_of(slice_walk(n.attrs, in, out), element)};
    case OpId::reverse: return std::vector{part_of(reverse_walk(n.attrs, in), element)};
    case OpId::pad: return std::vector{part_of(pad_walk(n.attrs, in, out), element)};
    default: return std::nullopt;
  }
}

}  // namespace

bool lower_movement(Lowering& l, const passes::Group& group) {
  if (group.nodes.size() != 1) return false;
  const ir::NodeId id = group.nodes[0];
  const ir::Node& n = l.graph().nodes[id];
  std::optional<std::vector<Part>> parts = parts_of(l.graph(), n);
  if (!parts) return false;
  const Type& out = n.types[0];
  auto kernel = std::make_unique<CopyParts>(std::move(*parts), n.inputs.size(), out.shape.numel(), size_of(out.dtype));
  if (n.op == OpId::full || n.op == OpId::pad) {
    dispatch(out.dtype, [&](auto zero) {
      const auto value = static_cast<decltype(zero)>(n.attrs.real("value"));
      kernel->fill_with(&value);
    });
  }
  l.emit_node(id, std::move(kernel));
  return true;
}

}  // namespace bp::cpu

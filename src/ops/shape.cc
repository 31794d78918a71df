// Ops that rename elements: reshape, transpose, broadcast, reverse, and the builders made of them (flatten, squeeze,
// unsqueeze). slice.cc and concatenate.cc hold the ops that select and join.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

const OpDef op_reshape{.name = "reshape",
                       .cls = OpClass::view,
                       .flags = kNone,
                       .infer = [](const InferArgs& a) -> std::vector<Type> {
                         const Shape to = a.attrs.shape("shape");
                         if (to.numel() != a.in[0].shape.numel())
                           fail(ErrorKind::shape, "[reshape] {} has {} elements, {} would need {}", a.in[0].shape,
                                a.in[0].shape.numel(), to, to.numel());
                         return {{a.in[0].dtype, to}};
                       },
                       .vjp = [](const VjpArgs& v) -> std::vector<Tensor> { return {reshape(v.d(), v.in[0].shape())}; },
                       .reference =
                           [](const KernelArgs& k) {
                             if (k.in[0].type.bytes() != 0)
                               std::memcpy(k.out[0].data, k.in[0].data, k.in[0].type.bytes());
                           },
                       .flops = no_flops,
                       .doc = "The same elements in row-major order under another shape."};

namespace {
std::vector<Type> infer_transpose(const InferArgs& a) {
  const Shape& in = a.in[0].shape;
  const Ints& p = a.attrs.ints("permutation");
  Ints sorted = p;
  std::sort(sorted.begin(), sorted.end());
  bool good = static_cast<int>(p.size()) == in.rank();
  for (std::size_t i = 0; i < sorted.size(); ++i) good = good && sorted[i] == static_cast<std::int64_t>(i);
  if (!good)
    fail(ErrorKind::shape, "[transpose] expected a permutation of the {} axes of {}, got [{}]", in.rank(), in,
         fmt::join(p, ", "));
  Shape out = in;
  for (int i = 0; i < in.rank(); ++i) out[i] = in[static_cast<int>(p[static_cast<std::size_t>(i)])];
  return {{a.in[0].dtype, out}};
}

void reference_transpose(const KernelArgs& k) {
  const Ints& p = k.attrs.ints("permutation");
  const Strides strides = strides_of(k.in[0].type.shape);
  Place from;
  for (std::size_t i = 0; i < p.size(); ++i) from.strides[i] = strides[static_cast<std::size_t>(p[i])];
  const Shape& out = k.out[0].type.shape;
  copy_box(out, k.in[0], from, k.out[0], {0, strides_of(out)});
}

std::vector<Tensor> vjp_transpose(const VjpArgs& v) {
  const Ints& p = v.attrs.ints("permutation");
  Axes inverse(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) inverse[static_cast<std::size_t>(p[i])] = static_cast<int>(i);
  return {transpose(v.d(), inverse)};
}

std::vector<Type> infer_broadcast(const InferArgs& a) {
  const Shape to = a.attrs.shape("shape");
  if (!(broadcast_shapes(a.in[0].shape, to, "broadcast") == to))
    fail(ErrorKind::shape, "[broadcast] expected a shape that broadcasts to {}, got {}", to, a.in[0].shape);
  return {{a.in[0].dtype, to}};
}

void reference_broadcast(const KernelArgs& k) {
  const Shape &in = k.in[0].type.shape, &out = k.out[0].type.shape;
  const Strides strides = strides_of(in);
  const auto extra = static_cast<std::size_t>(out.rank() - in.rank());
  Place from;
  for (std::size_t d = 0; d < static_cast<std::size_t>(in.rank()); ++d)
    if (in[static_cast<int>(d)] != 1) from.strides[d + extra] = strides[d];
  copy_box(out, k.in[0], from, k.out[0], {0, strides_of(out)});
}

std::vector<Type> infer_reverse(const InferArgs& a) {
  for (auto axis : a.attrs.ints("axes"))
    if (axis < 0 || axis >= a.in[0].shape.rank())
      fail(ErrorKind::shape, "[reverse] expected axes of {}, got {}", a.in[0].shape, axis);
  return {a.in[0]};
}

void reference_reverse(const KernelArgs& k) {
  const Shape& shape = k.in[0].type.shape;
  if (shape.numel() == 0) return;
  Place from{0, strides_of(shape)};
  for (auto axis : k.attrs.ints("axes")) {
    auto& stride = from.strides[static_cast<std::size_t>(axis)];
    from.base += stride * (shape[static_cast<int>(axis)] - 1);
    stride = -stride;
  }
  copy_box(shape, k.in[0], from, k.out[0], {0, strides_of(shape)});
}
}  // namespace

const OpDef op_transpose{.name = "transpose",
                         .cls = OpClass::movement,
                         .flags = kNone,
                         .infer = infer_transpose,
                         .vjp = vjp_transpose,
                         .reference = reference_transpose,
                         .flops = no_flops,
                         .doc = "Permutes the axes: out.shape[i] = x.shape[permutation[i]]."};

const OpDef op_broadcast{
    .name = "broadcast",
    .cls = OpClass::movement,
    .flags = kNone,
    .infer = infer_broadcast,
    .vjp = [](const VjpArgs& v) -> std::vector<Tensor> { return {sum_to(v.d(), v.in[0].shape())}; },
    .reference = reference_broadcast,
    .flops = no_flops,
    .doc = "Repeats along new leading axes and axes of size 1 (NumPy's broadcasting) up to `shape`."};

const OpDef op_reverse{.name = "reverse",
                       .cls = OpClass::movement,
                       .flags = kNone,
                       .infer = infer_reverse,
                       .vjp = [](const VjpArgs& v) -> std::vector<Tensor> {
                         const Ints& axes = v.attrs.ints("axes");
                         return {reverse(v.d(), Axes(axes.begin(), axes.end()))};
                       },
                       .reference = reference_reverse,
                       .flops = no_flops,
                       .doc = "out[.., i, ..] = x[.., n - 1 - i, ..] along each of `axes`."};

}  // namespace ir

using namespace ops;

Tensor reshape(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return record1(OpId::reshape, {x}, {{"shape", ir::to_ints(shape)}});
}

Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> dims) {
  const Ints wanted(dims);
  const auto open = std::find(wanted.begin(), wanted.end(), -1);
  if (open == wanted.end()) return reshape(x, Shape(std::span<const std::int64_t>(wanted)));
  std::int64_t known = 1;
  for (const auto& n : wanted)
    if (&n != &*open) known *= n;
  if (known <= 0 || x.numel() % known != 0 || std::count(wanted.begin(), wanted.end(), -1) != 1)
    fail(ErrorKind::shape, "[reshape] expected one -1 that {} elements of {} can fill, got [{}]", x.numel(), x.shape(),
         fmt::join(wanted, ", "));
  Ints filled = wanted;
  filled[static_cast<std::size_t>(open - wanted.begin())] = x.numel() / known;
  return reshape(x, Shape(std::span<const std::int64_t>(filled)));
}

Tensor flatten(const Tensor& x, int from_axis) {
  const int from = normalize_axis(from_axis, x.rank(), "flatten");
  Shape out;
  for (int d = 0; d < from; ++d) out.push_back(x.shape()[d]);
  std::int64_t rest = 1;
  for (int d = from; d < x.rank(); ++d) rest *= x.shape()[d];
  out.push_back(rest);
  return reshape(x, out);
}

Tensor squeeze(const Tensor& x, int axis) {
  const int a = normalize_axis(axis, x.rank(), "squeeze");
  if (x.shape()[a] != 1)
    fail(ErrorKind::shape, "[squeeze] expected axis {} of {} to have size 1, got {}", axis, x.shape(), x.shape()[a]);
  Shape out = x.shape();
  out.erase(a);
  return reshape(x, out);
}

Tensor unsqueeze(const Tensor& x, int axis) {
  Shape out = x.shape();
  out.insert(normalize_axis(axis, x.rank() + 1, "unsqueeze"), 1);
  return reshape(x, out);
}

Tensor transpose(const Tensor& x, const Axes& permutation) {
  Ints p;
  bool identity = static_cast<int>(permutation.size()) == x.rank();
  for (std::size_t i = 0; i < permutation.size(); ++i) {
    p.push_back(normalize_axis(permutation[i], x.rank(), "transpose"));
    identity = identity && p.back() == static_cast<std::int64_t>(i);
  }
  if (identity) return x;
  return record1(OpId::transpose, {x}, {{"permutation", p}});
}

Tensor transpose(const Tensor& x) {
  if (x.rank() < 2) fail(ErrorKind::shape, "[transpose] expected at least two dimensions, got {}", x.shape());
  Axes p(static_cast<std::size_t>(x.rank()));
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = static_cast<int>(i);
  std::swap(p[p.size() - 1], p[p.size() - 2]);
  return transpose(x, p);
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  return record1(OpId::broadcast, {x}, {{"shape", ir::to_ints(shape)}});
}

Tensor reverse(const Tensor& x, const Axes& axes) {
  if (axes.empty()) return x;
  return record1(OpId::reverse, {x}, {{"axes", normalize_axes(axes, x.rank(), "reverse")}});
}

}  // namespace bp

// Joining and cutting along an axis: concatenate, and the builders stack, split and tile.
#include <algorithm>

#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {
std::vector<Type> infer_concatenate(const InferArgs& a) {
  if (a.in.empty()) fail(ErrorKind::shape, "[concatenate] expected at least one tensor, got none");
  const int axis = normalize_axis(static_cast<int>(a.attrs.integer("axis")), a.in[0].shape.rank(), "concatenate");
  Type out = a.in[0];
  for (std::size_t i = 1; i < a.in.size(); ++i) {
    const Type& t = a.in[i];
    bool fits = t.shape.rank() == out.shape.rank() && t.dtype == out.dtype;
    for (int d = 0; fits && d < out.shape.rank(); ++d) fits = d == axis || t.shape[d] == out.shape[d];
    if (!fits)
      fail(ErrorKind::shape, "[concatenate] expected tensors that differ along axis {} only, got {} and (number {}) {}",
           axis, a.in[0].str(), i, t.str());
    out.shape[axis] += t.shape[axis];
  }
  return {out};
}

void reference_concatenate(const KernelArgs& k) {
  const int axis = static_cast<int>(k.attrs.integer("axis"));
  Place to{0, strides_of(k.out[0].type.shape)};
  for (const View& in : k.in) {
    copy_box(in.type.shape, in, {0, strides_of(in.type.shape)}, k.out[0], to);
    to.base += in.type.shape[axis] * to.strides[static_cast<std::size_t>(axis)];
  }
}

std::vector<Tensor> vjp_concatenate(const VjpArgs& v) {
  const int axis = static_cast<int>(v.attrs.integer("axis"));
  std::vector<Tensor> out(v.in.size());
  std::int64_t at = 0;
  for (std::size_t i = 0; i < v.in.size(); ++i) {
    const std::int64_t n = v.in[i].shape()[axis];
    if (v.needed[i]) out[i] = slice(v.d(), axis, at, at + n);
    at += n;
  }
  return out;
}
}  // namespace

const OpDef op_concatenate{.name = "concatenate",
                           .cls = OpClass::movement,
                           .flags = kNone,
                           .infer = infer_concatenate,
                           .vjp = vjp_concatenate,
                           .reference = reference_concatenate,
                           .flops = no_flops,
                           .doc = "Joins tensors of equal dtype along `axis`; all other sizes are equal."};

}  // namespace ir

using namespace ops;

Tensor concatenate(const std::vector<Tensor>& parts, int axis) {
  if (parts.empty()) fail(ErrorKind::shape, "[concatenate] expected at least one tensor, got none");
  DType dtype = parts[0].dtype();
  for (const Tensor& p : parts) dtype = promote(dtype, p.dtype());
  std::vector<Tensor> same;
  for (const Tensor& p : parts) same.push_back(cast(p, dtype));
  const std::int64_t a = normalize_axis(axis, parts[0].rank(), "concatenate");
  return same.size() == 1 ? same[0] : record1(OpId::concatenate, std::move(same), {{"axis", a}});
}

Tensor stack(const std::vector<Tensor>& parts, int axis) {
  if (parts.empty()) fail(ErrorKind::shape, "[stack] expected at least one tensor, got none");
  const int a = normalize_axis(axis, parts[0].rank() + 1, "stack");
  std::vector<Tensor> rows;
  for (const Tensor& p : parts) {
    if (!(p.shape() == parts[0].shape()))
      fail(ErrorKind::shape, "[stack] expected tensors of one shape, got {} and {}", parts[0].shape(), p.shape());
    rows.push_back(unsqueeze(p, a));
  }
  return concatenate(rows, a);
}

std::vector<Tensor> split(const Tensor& x, int parts, int axis) {
  const int a = normalize_axis(axis, x.rank(), "split");
  if (parts < 1 || x.shape()[a] % parts != 0)
    fail(ErrorKind::shape, "[split] expected a number of parts that divides {} (axis {} of {}), got {}", x.shape()[a],
         axis, x.shape(), parts);
  const std::int64_t n = x.shape()[a] / parts;
  std::vector<Tensor> out;
  for (std::int64_t i = 0; i < parts; ++i) out.push_back(slice(x, a, i * n, (i + 1) * n));
  return out;
}

// One axis at a time as [outer, 1, n * inner] -> [outer, repeats, n * inner], so that the rank never grows beyond
// three.
Tensor tile(const Tensor& x, const std::vector<std::int64_t>& repeats) {
  Shape shape = x.shape();
  Ints times = repeats;
  while (shape.rank() < static_cast<int>(times.size())) shape.insert(0, 1);
  while (static_cast<int>(times.size()) < shape.rank()) times.insert(times.begin(), 1);
  Tensor out = reshape(x, shape);
  for (int d = 0; d < shape.rank(); ++d) {
    const std::int64_t r = times[static_cast<std::size_t>(d)];
    if (r < 0) fail(ErrorKind::shape, "[tile] expected repeats >= 0, got {} for axis {} of {}", r, d, x.shape());
    if (r == 1) continue;
    const AxisView v(shape, d);
    shape[d] *= r;
    out = reshape(broadcast_to(reshape(out, Shape{v.outer, 1, v.n * v.inner}), {v.outer, r, v.n * v.inner}), shape);
  }
  return out;
}

}  // namespace bp

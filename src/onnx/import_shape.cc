// ONNX's operators on shapes, indices and constants.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "onnx/importer.h"

namespace bp::onnx {

// One function an operator, or a family; a struct, so that their names are its own.
struct ShapeImport {
  static Tensors identity(const Call& c) { return {c.at(0)}; }

  static Tensors shape(const Call& c) {
    const Shape& s = c.at(0).shape();
    const auto place = [&](std::int64_t i) { return std::clamp<std::int64_t>(i < 0 ? i + s.rank() : i, 0, s.rank()); };
    const std::int64_t from = place(c.integer("start", 0)), to = std::max(from, place(c.integer("end", s.rank())));
    return {integers_tensor(Ints64(s.begin() + from, s.begin() + to))};
  }
  static Tensors size(const Call& c) { return {Tensor::from(std::vector<std::int64_t>{c.at(0).numel()}, Shape{})}; }

  static Tensors constant(const Call& c) {
    if (const auto* a = c.find("value")) return {constant_tensor(a->t)};
    if (const auto* a = c.find("value_float")) return {Tensor::from(std::vector<float>{a->f}, Shape{})};
    if (const auto* a = c.find("value_int")) return {Tensor::from(std::vector<std::int64_t>{a->i}, Shape{})};
    if (const auto* a = c.find("value_ints")) return {integers_tensor(a->ints)};
    if (const auto* a = c.find("value_floats"))
      return {Tensor::from(a->floats, Shape{static_cast<std::int64_t>(a->floats.size())})};
    c.refuse("only constants of numbers are supported");
  }
  static Tensors constant_of_shape(const Call& c) {
    const auto* value = c.find("value");
    const Tensor v = value != nullptr ? reshape(constant_tensor(value->t), Shape{}) : zeros({}, f32);
    return {broadcast_to(v, shape_from(c.values(0)))};
  }
  static Tensors eye_like(const Call& c) {
    const Tensor& x = c.at(0);
    if (x.rank() != 2) c.refuse(fmt::format("expected a matrix, got {}", x.shape()));
    const DType t = c.find("dtype") != nullptr
                        ? proto::dtype_of_elem(static_cast<int>(c.integer("dtype")), "[onnx] EyeLike")
                        : x.dtype();
    const Tensor diagonal = iota(x.shape(), 1) - iota(x.shape(), 0);
    return {cast(equal(diagonal, static_cast<double>(c.integer("k", 0))), t)};
  }
  static Tensors range(const Call& c) {
    const Tensor& start = c.at(0);
    const double from = c.values<double>(0).at(0), to = c.values<double>(1).at(0), step = c.values<double>(2).at(0);
    const double steps = std::ceil((to - from) / step);
    if (!(std::abs(steps) < 1e9)) c.refuse(fmt::format("a range of {} elements", steps));
    const Tensor i = arange(std::max<std::int64_t>(0, static_cast<std::int64_t>(steps)), f64);
    return {cast(from + i * step, start.dtype())};
  }

  static Tensors cast_to(const Call& c) {
    return {cast(c.at(0), proto::dtype_of_elem(static_cast<int>(c.integer("to")), "[onnx] Cast"))};
  }
  static Tensors cast_like(const Call& c) { return {cast(c.at(0), c.at(1).dtype())}; }

  // ---- rearranging -------------------------------------------------------------------------------------------------

  static Tensors reshape_to(const Call& c) {
    const Tensor& x = c.at(0);
    Ints64 to = c.integers_at(1, "shape");
    const bool zeros_stay = c.integer("allowzero", 0) != 0;
    std::int64_t product = 1, unknown = -1;
    for (std::size_t d = 0; d < to.size(); ++d) {
      if (to[d] == 0 && !zeros_stay) {
        if (static_cast<int>(d) >= x.rank())
          c.refuse("a size of 0 takes over a dimension that the input does not have");
        to[d] = x.shape()[static_cast<int>(d)];
      }
      if (to[d] < -1 || to[d] > (std::int64_t{1} << 46) ||
          product > (std::int64_t{1} << 46) / std::max<std::int64_t>(1, to[d]))
        c.refuse(fmt::format("the sizes {} make no shape", fmt::join(to, ", ")));
      if (to[d] == -1)
        unknown = static_cast<std::int64_t>(d);
      else
        product *= to[d];
    }
    if (unknown >= 0) to[static_cast<std::size_t>(unknown)] = product == 0 ? 0 : x.numel() / product;
    return {reshape(x, shape_from(to))};
  }
  static Tensors flatten(const Call& c) {
    const Tensor& x = c.at(0);
    const std::int64_t given = c.integer("axis", 1), axis = given < 0 ? given + x.rank() : given;
    if (axis < 0 || axis > x.rank()) c.refuse(fmt::format("the axis {} is out of range for rank {}", given, x.rank()));
    std::int64_t rows = 1;
    for (int d = 0; d < axis; ++d) rows *= x.shape()[d];
    return {reshape(x, Shape{rows, rows == 0 ? 0 : x.numel() / rows})};
  }
  static Tensors squeeze(const Call& c) {
    const Tensor& x = c.at(0);
    std::vector<bool> drop(static_cast<std::size_t>(x.rank()), false);
    const Ints64 axes = c.integers_at(1, "axes");
    for (const std::int64_t a : axes) drop[static_cast<std::size_t>(c.axis(a, x.rank()))] = true;
    Shape out;
    for (int d = 0; d < x.rank(); ++d) {
      const bool gone = axes.empty() ? x.shape()[d] == 1 : drop[static_cast<std::size_t>(d)];
      if (gone && x.shape()[d] != 1) c.refuse(fmt::format("axis {} of {} is no 1", d, x.shape()));
      if (!gone) out.push_back(x.shape()[d]);
    }
    return {reshape(x, out)};
  }
  static Tensors unsqueeze(const Call& c) {
    const Tensor& x = c.at(0);
    const Ints64 axes = c.integers_at(1, "axes");
    const int rank = x.rank() + static_cast<int>(axes.size());
    std::vector<bool> added(static_cast<std::size_t>(rank), false);
    for (const std::int64_t a : axes) added[static_cast<std::size_t>(c.axis(a, rank))] = true;
    Shape out;
    int next = 0;
    for (int d = 0; d < rank; ++d) {
      if (!added[static_cast<std::size_t>(d)] && next == x.rank()) c.refuse("an axis is given twice");
      out.push_back(added[static_cast<std::size_t>(d)] ? 1 : x.shape()[next++]);
    }
    return {reshape(x, out)};
  }
  static Tensors transpose_to(const Call& c) {
    Axes p;
    for (int d = c.at(0).rank(); d-- > 0;) p.push_back(d);
    const Ints64 given = c.integers("perm");
    if (!given.empty()) p.assign(given.begin(), given.end());
    return {transpose(c.at(0), p)};
  }
  static Tensors expand(const Call& c) {
    const Shape to = shape_from(c.values(1));
    return {broadcast_to(c.at(0), broadcast_shapes(c.at(0).shape(), to, "onnx Expand"))};
  }
  static Tensors concat(const Call& c) { return {concatenate(c.in, c.axis(c.integer("axis", 1), c.at(0).rank()))}; }
  static Tensors split(const Call& c) {
    const Tensor& x = c.at(0);
    const int axis = c.axis(c.integer("axis", 0), x.rank());
    const auto parts = std::max<std::int64_t>(1, static_cast<std::int64_t>(c.node.outputs.size()));
    Ints64 sizes = c.integers_at(1, "split");
    if (sizes.empty()) sizes.assign(static_cast<std::size_t>(parts), x.size(axis) / parts);
    Tensors out;
    std::int64_t at = 0;
    for (const std::int64_t n : sizes) {
      if (n < 0 || n > x.size(axis) - at)
        c.refuse(fmt::format("parts of {} for a size of {}", fmt::join(sizes, ", "), x.size(axis)));
      out.push_back(slice(x, axis, at, at + n));
      at += n;
    }
    return out;
  }
  static Tensors tile_to(const Call& c) { return {tile(c.at(0), c.values(1))}; }

  static Tensors slice_to(const Call& c) {
    Tensor x = c.at(0);
    const Ints64 starts = c.integers_at(1, "starts"), ends = c.integers_at(2, "ends");
    Ints64 axes = c.integers_at(3, "axes"), steps = c.has(4) ? c.values(4) : Ints64(starts.size(), 1);
    if (axes.empty()) {
      axes.resize(starts.size());
      std::iota(axes.begin(), axes.end(), 0);
    }
    if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
      c.refuse("starts, ends, axes and steps are not equally many");
    for (std::size_t i = 0; i < starts.size(); ++i)
      x = sliced(c, x, c.axis(axes[i], x.rank()), starts[i], ends[i], steps[i]);
    return {x};
  }
  static Tensor sliced(const Call& c, const Tensor& x, int axis, std::int64_t start, std::int64_t end,
                       std::int64_t step) {
    const std::int64_t n = x.size(axis);
    if (step == 0 || step == INT64_MIN) c.refuse(fmt::format("a step of {}", step));
    const auto from_end = [n](std::int64_t i) { return i < 0 ? std::max(i, -n - 1) + n : i; };
    if (step > 0) {
      const std::int64_t a = std::clamp<std::int64_t>(from_end(start), 0, n),
                         b = std::clamp<std::int64_t>(from_end(end), a, n);
      return slice(x, axis, a, b, step);
    }
    // Backwards: from start down to, not including, end.
    const std::int64_t a = std::clamp<std::int64_t>(from_end(start), -1, n - 1),
                       b = std::clamp<std::int64_t>(from_end(end), -1, a);
    return slice(reverse(x, {axis}), axis, n - 1 - a, n - 1 - b, -step);
  }

  static Tensors pad_to(const Call& c) {
    const Tensor& x = c.at(0);
    const Ints64 pads = c.integers_at(1, "pads");
    const auto rank = static_cast<std::size_t>(x.rank());
    if (pads.size() != 2 * rank) c.refuse(fmt::format("expected {} pads, got {}", 2 * rank, pads.size()));
    const std::string mode = c.text("mode", "constant");
    const Ints64 low(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(rank)),
        high(pads.begin() + static_cast<std::ptrdiff_t>(rank), pads.end());
    if (mode == "constant") return {pad(x, low, high, c.has(2) ? c.values<double>(2).at(0) : c.number("value", 0))};
    if (mode != "edge" && mode != "reflect") c.refuse(fmt::format("the mode \"{}\" is not supported", mode));
    Tensor y = x;
    for (std::size_t d = 0; d < rank; ++d)
      if (low[d] != 0 || high[d] != 0)
        y = gather(y, integers_tensor(mirrored(c, x.shape()[static_cast<int>(d)], low[d], high[d], mode == "edge")),
                   static_cast<int>(d));
    return {y};
  }
  static Ints64 mirrored(const Call& c, std::int64_t n, std::int64_t low, std::int64_t high, bool edge) {
    if (too_large(low) || too_large(high)) c.refuse(fmt::format("pads of {} and {}", low, high));
    if (n == 0) c.refuse("nothing can be continued from an empty dimension");
    Ints64 out;
    for (std::int64_t i = -low; i < n + high; ++i) {
      const std::int64_t period = std::max<std::int64_t>(1, 2 * (n - 1)), at = ((i % period) + period) % period;
      out.push_back(edge ? std::clamp<std::int64_t>(i, 0, n - 1) : std::min(at, period - at));
    }
    if (n == 1) std::fill(out.begin(), out.end(), 0);
    return out;
  }

  static std::int64_t block_size(const Call& c) {
    const std::int64_t b = c.integer("blocksize");
    if (c.at(0).rank() != 4 || b < 1 || b > 4096)
      c.refuse(fmt::format("a block of {} for an input {}", b, c.at(0).shape()));
    return b;
  }
  static Tensors depth_to_space(const Call& c) {
    const Tensor& x = c.at(0);
    const std::int64_t b = block_size(c), n = x.size(0), depth = x.size(1) / (b * b), h = x.size(2), w = x.size(3);
    const Tensor y = c.text("mode", "DCR") == "DCR"
                         ? transpose(reshape(x, Shape{n, b, b, depth, h, w}), {0, 3, 4, 1, 5, 2})
                         : transpose(reshape(x, Shape{n, depth, b, b, h, w}), {0, 1, 4, 2, 5, 3});
    return {reshape(y, Shape{n, depth, h * b, w * b})};
  }
  static Tensors space_to_depth(const Call& c) {
    const Tensor& x = c.at(0);
    const std::int64_t b = block_size(c), n = x.size(0), depth = x.size(1), h = x.size(2) / b, w = x.size(3) / b;
    const Tensor y = transpose(reshape(x, Shape{n, depth, h, b, w, b}), {0, 3, 5, 1, 2, 4});
    return {reshape(y, Shape{n, depth * b * b, h, w})};
  }
  static Tensors trilu(const Call& c) {
    const Tensor& x = c.at(0);
    const double k = c.has(1) ? static_cast<double>(c.values(1).at(0)) : 0;
    const Tensor diagonal = iota(x.shape(), x.rank() - 1) - iota(x.shape(), x.rank() - 2);
    return {select(c.integer("upper", 1) != 0 ? diagonal >= k : diagonal <= k, x, zeros_like(x))};
  }

  // ---- indices -----------------------------------------------------------------------------------------------------

  // Negative indices count from the end.
  static Tensor wrapped(const Tensor& indices, std::int64_t n) {
    const Tensor i = cast(indices, i64);
    return select(i < 0.0, i + static_cast<double>(n), i);
  }
  static Tensors gather_at(const Call& c) {
    const int axis = c.axis(c.integer("axis", 0), c.at(0).rank());
    return {gather(c.at(0), wrapped(c.at(1), c.at(0).size(axis)), axis)};
  }
  static Tensors gather_elements(const Call& c) {
    const Tensor& x = c.at(0);
    const int axis = c.axis(c.integer("axis", 0), x.rank());
    if (c.at(1).rank() != x.rank()) c.refuse(fmt::format("indices {} beside an input {}", c.at(1).shape(), x.shape()));
    return {take_along(cropped(x, c.at(1).shape(), axis), wrapped(c.at(1), x.size(axis)), axis)};
  }
  static Tensor cropped(Tensor x, const Shape& to, int axis) {
    for (int d = 0; d < x.rank(); ++d)
      if (d != axis && to[d] != x.shape()[d]) x = slice(x, d, 0, to[d]);
    return x;
  }
  static void require_tuples(const Call& c, int rank, int batch) {
    const Tensor& indices = c.at(1);
    if (indices.rank() < 1 || batch < 0 || indices.rank() <= batch || indices.size(-1) + batch > rank ||
        indices.size(-1) < 1)
      c.refuse(fmt::format("indices {} do not fit an input {}", indices.shape(), c.at(0).shape()));
  }
  // Row-major positions of the tuples along the last axis, among the first k axes from `from` on; i64[..].
  static Tensor positions(const Tensor& indices, const Shape& shape, int from) {
    const int last = indices.rank() - 1;
    Tensor at;
    for (std::int64_t k = 0; k < indices.size(last); ++k) {
      const std::int64_t n = shape[from + static_cast<int>(k)];
      const Tensor i = wrapped(bp::squeeze(slice(indices, last, k, k + 1), last), n);
      at = at.defined() ? at * static_cast<double>(n) + i : i;
    }
    return at;
  }
  static Tensors gather_nd(const Call& c) {
    const Tensor &x = c.at(0), &indices = c.at(1);
    const auto batch = static_cast<int>(c.integer("batch_dims", 0));
    require_tuples(c, x.rank(), batch);
    const auto depth = static_cast<int>(indices.size(-1));
    Tensor at = positions(indices, x.shape(), batch);
    std::int64_t outer = 1, inner = 1;
    for (int d = 0; d < batch; ++d) outer *= x.shape()[d];
    for (int d = batch; d < batch + depth; ++d) inner *= x.shape()[d];
    Shape flat{outer * inner}, out = at.shape();
    for (int d = batch + depth; d < x.rank(); ++d) flat.push_back(x.shape()[d]), out.push_back(x.shape()[d]);
    if (batch > 0) {
      at = reshape(at, Shape{outer, at.numel() / std::max<std::int64_t>(1, outer)});
      at = at + iota(at.shape(), 0) * static_cast<double>(inner);
    }
    return {reshape(gather(reshape(x, flat), reshape(at, {-1}), 0), out)};
  }

  // x with rows replaced, or added to: through what lies at each place, counted.
  static Tensors scatter_nd(const Call& c) {
    const Tensor &x = c.at(0), &indices = c.at(1), &updates = c.at(2);
    require_tuples(c, x.rank(), 0);
    const auto depth = static_cast<int>(indices.size(-1));
    std::int64_t rows = 1, width = 1;
    for (int d = 0; d < x.rank(); ++d) (d < depth ? rows : width) *= x.shape()[d];
    const Tensor at = reshape(positions(indices, x.shape(), 0), {-1});
    const Tensor flat = reshape(x, Shape{rows, width}), u = reshape(updates, Shape{at.numel(), width});
    return {reshape(scattered(c, flat, at, u), x.shape())};
  }
  static Tensors scatter_elements(const Call& c) {
    const Tensor &x = c.at(0), &indices = c.at(1), &updates = c.at(2);
    const int axis = c.axis(c.integer("axis", 0), x.rank());
    Tensor at = zeros(indices.shape(), i64);
    for (int d = 0; d < x.rank(); ++d) {
      const Tensor place = d == axis ? wrapped(indices, x.size(d)) : iota(indices.shape(), d);
      at = at * static_cast<double>(x.size(d)) + place;
    }
    const Tensor column = reshape(updates, Shape{updates.numel(), 1});
    return {reshape(scattered(c, reshape(x, Shape{x.numel(), 1}), reshape(at, {-1}), column), x.shape())};
  }
  // x [R, W], at i64[K], updates [K, W].
  static Tensor scattered(const Call& c, const Tensor& x, const Tensor& at, const Tensor& updates) {
    const std::string how = c.text("reduction", "none");
    if (how == "add") return x + scatter_add(x.shape(), at, updates);
    if (how != "none") c.refuse(fmt::format("the reduction \"{}\" is not supported", how));
    const Tensor count = scatter_add({x.size(0)}, at, ones(at.shape(), f32));
    const Tensor number = x.dtype() == DType::boolean ? cast(updates, i32) : updates;
    const Tensor written = cast(scatter_add(x.shape(), at, number), x.dtype());
    return select(reshape(count, Shape{x.size(0), 1}) > 0.0, written, x);
  }
  static Tensors one_hot_of(const Call& c) {
    const Tensor& indices = c.at(0);
    const auto depth = static_cast<std::int64_t>(c.values<double>(1).at(0));
    if (depth < 0 || depth > (1 << 30)) c.refuse(fmt::format("a depth of {}", depth));
    const int rank = indices.rank() + 1, axis = c.axis(c.integer("axis", -1), rank);
    Shape shape = indices.shape();
    shape.insert(axis, depth);
    const Tensor at = broadcast_to(bp::unsqueeze(wrapped(indices, depth), axis), shape);
    const Tensor off = slice(c.at(2), 0, 0, 1), on = slice(c.at(2), 0, 1, 2);
    return {select(equal(iota(shape, axis), at), on, off)};
  }
  static Tensors top_k_of(const Call& c) {
    const Tensor& x = c.at(0);
    const int axis = c.axis(c.integer("axis", -1), x.rank());
    const std::int64_t k = c.has(1) ? c.values(1).at(0) : c.integer("k");
    const auto [values, places] = sort(x, axis, c.integer("largest", 1) != 0);
    return {slice(values, axis, 0, k), slice(places, axis, 0, k)};
  }

  // ---- whose size depends on values
  // ----------------------------------------------------------------------------------

  static Tensors non_zero(const Call& c) {
    const Tensor& x = c.at(0);
    const std::vector<double> v = c.values<double>(0);
    std::vector<Ints64> rows(static_cast<std::size_t>(x.rank()));
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      if (v[static_cast<std::size_t>(i)] == 0) continue;
      std::int64_t rest = i;
      for (int d = x.rank(); d-- > 0;) {
        rows[static_cast<std::size_t>(d)].push_back(rest % x.shape()[d]);
        rest /= x.shape()[d];
      }
    }
    Ints64 all;
    for (const Ints64& row : rows) all.insert(all.end(), row.begin(), row.end());
    const auto n = static_cast<std::int64_t>(rows.empty() ? 0 : rows[0].size());
    return {Tensor::from(all, Shape{x.rank(), n})};
  }
  static Tensors compress(const Call& c) {
    const std::vector<double> keep = c.values<double>(1);
    Ints64 places;
    for (std::size_t i = 0; i < keep.size(); ++i)
      if (keep[i] != 0) places.push_back(static_cast<std::int64_t>(i));
    if (c.find("axis") == nullptr) return {gather(reshape(c.at(0), {-1}), integers_tensor(places), 0)};
    return {gather(c.at(0), integers_tensor(places), c.axis(c.integer("axis"), c.at(0).rank()))};
  }
};

const Builders& shape_builders() {
  using S = ShapeImport;
  static const Builders kTable{
      {"Cast", S::cast_to},
      {"CastLike", S::cast_like},
      {"Compress", S::compress},
      {"Concat", S::concat},
      {"Constant", S::constant},
      {"ConstantOfShape", S::constant_of_shape},
      {"DepthToSpace", S::depth_to_space},
      {"Expand", S::expand},
      {"EyeLike", S::eye_like},
      {"Flatten", S::flatten},
      {"Gather", S::gather_at},
      {"GatherElements", S::gather_elements},
      {"GatherND", S::gather_nd},
      {"Identity", S::identity},
      {"NonZero", S::non_zero},
      {"OneHot", S::one_hot_of},
      {"Pad", S::pad_to},
      {"Range", S::range},
      {"Reshape", S::reshape_to},
      {"Scatter", S::scatter_elements},
      {"ScatterElements", S::scatter_elements},
      {"ScatterND", S::scatter_nd},
      {"Shape", S::shape},
      {"Size", S::size},
      {"Slice", S::slice_to},
      {"SpaceToDepth", S::space_to_depth},
      {"Split", S::split},
      {"Squeeze", S::squeeze},
      {"Tile", S::tile_to},
      {"TopK", S::top_k_of},
      {"Transpose", S::transpose_to},
      {"Trilu", S::trilu},
      {"Unsqueeze", S::unsqueeze},
  };
  return kTable;
}

}  // namespace bp::onnx

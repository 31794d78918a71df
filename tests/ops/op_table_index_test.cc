// Rows of the op table: gather, take_along and their transposes.
#include <algorithm>

#include "op_table.h"

namespace bp::test {
namespace {

Input indices(const Shape& shape, std::int64_t n, DType dtype = i64) {
  return {shape, dtype, 0, static_cast<double>(n)};
}

Values gathered(std::span<const Input> in, std::span<const Values> v) {
  const auto inner = static_cast<std::size_t>(in[0].shape.numel() / std::max<std::int64_t>(in[0].shape[0], 1));
  Values out;
  for (double i : v[1])
    for (std::size_t j = 0; j < inner; ++j) out.push_back(v[0][static_cast<std::size_t>(i) * inner + j]);
  return out;
}

// Along axis 1 of two dimensions.
Values taken(std::span<const Input> in, std::span<const Values> v) {
  const auto n = static_cast<std::size_t>(in[0].shape[1]), m = static_cast<std::size_t>(in[1].shape[1]);
  Values out;
  for (std::size_t i = 0; i < v[1].size(); ++i) out.push_back(v[0][i / m * n + static_cast<std::size_t>(v[1][i])]);
  return out;
}

Values added(std::span<const Input> in, std::span<const Values> v) {
  const auto count = static_cast<std::size_t>(in[1].shape.numel());
  const std::size_t inner = v[0].size() / count;
  Values out(4 * inner);
  for (std::size_t c = 0; c < count; ++c)
    for (std::size_t j = 0; j < inner; ++j) out[static_cast<std::size_t>(v[1][c]) * inner + j] += v[0][c * inner + j];
  return out;
}

// Into rows of 6, along axis 1 of two dimensions.
Values added_along(std::span<const Input> in, std::span<const Values> v) {
  const auto m = static_cast<std::size_t>(in[0].shape[1]);
  Values out(static_cast<std::size_t>(in[0].shape[0]) * 6);
  for (std::size_t i = 0; i < v[0].size(); ++i) out[i / m * 6 + static_cast<std::size_t>(v[1][i])] += v[0][i];
  return out;
}

OpRow with_large(OpRow row, std::vector<Input> operands) {
  row.large = {std::move(operands)};
  row.atol32 = 1e-4;  // f32 sums of both signs
  return row;
}

const AddRows index_rows({
    with_large({"gather",
                [](std::span<const Tensor> x) { return one(gather(x[0], x[1])); },
                {{{{5, 3}}, indices({7}, 5)},
                 {{{5, 3}}, indices({2, 2}, 5, i32)},
                 {{{4}}, indices({}, 4)},
                 {{{4, 1, 2}}, indices({0}, 4)},
                 {{{1, 33}}, indices({3}, 1)}},
                gathered},
               {{{500, 65}}, indices({3001}, 500)}),
    {"gather",
     [](std::span<const Tensor> x) { return one(square(gather(x[0], x[1], 1))); },
     {{{{2, 5, 3}}, indices({7}, 5)}, {{{2, 5}}, indices({2, 3}, 5)}, {{{2, 5, 2}}, indices({}, 5)}}},
    {"gather",
     [](std::span<const Tensor> x) { return one(square(gather(x[0], x[1], -1))); },
     {{{{2, 3, 5}}, indices({2, 2}, 5, i32)}}},
    with_large({"take_along",
                [](std::span<const Tensor> x) { return one(take_along(x[0], x[1], 1)); },
                {{{{3, 5}}, indices({3, 2}, 5)}, {{{2, 3}}, indices({2, 7}, 3, i32)}, {{{2, 3}}, indices({2, 0}, 3)}},
                taken},
               {{{257, 65}}, indices({257, 129}, 65)}),
    {"take_along",
     [](std::span<const Tensor> x) { return one(square(take_along(x[0], x[1], 0))); },
     {{{{5, 2, 3}}, indices({4, 2, 3}, 5)}, {{{5}}, indices({1}, 5)}}},
    with_large({"scatter_add",
                [](std::span<const Tensor> x) {
                  Shape shape{4};
                  for (int d = x[1].rank(); d < x[0].rank(); ++d) shape.push_back(x[0].shape()[d]);
                  return one(scatter_add(shape, x[1], x[0]));
                },
                {{{{7, 3}}, indices({7}, 4)}, {{{2, 3}}, indices({2, 3}, 4, i32)}, {{{2, 2, 5}}, indices({2, 2}, 4)}},
                added},
               {{{3001, 33}}, indices({3001}, 4)}),
    {"scatter_add",
     [](std::span<const Tensor> x) {
       return one(square(scatter_add({3, 2}, x[1], x[0])));
     },
     {{{{5, 2}}, indices({5}, 3)}, {{{0, 2}}, indices({0}, 3)}}},
    {"scatter_along",
     [](std::span<const Tensor> x) { return one(scatter_along(x[0], x[1], 1, 6)); },
     {{{{3, 5}}, indices({3, 5}, 6)}, {{{2, 9}}, indices({2, 9}, 6, i32)}, {{{2, 0}}, indices({2, 0}, 6)}},
     added_along},
    {"scatter_along",
     [](std::span<const Tensor> x) { return one(square(scatter_along(x[0], x[1], 0, 4))); },
     {{{{5, 2, 3}}, indices({5, 2, 3}, 4)}}},
});

}  // namespace
}  // namespace bp::test

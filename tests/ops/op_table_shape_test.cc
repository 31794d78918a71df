// Rows of the op table: the shape ops. Their values are in shape_test.cc; here are gradients and executables.
#include "op_table.h"

namespace bp::test {
namespace {

OpRow shape_row(std::string name, std::function<Tensor(const Tensor&)> f, std::vector<Shape> shapes) {
  OpRow r{std::move(name), [f = std::move(f)](std::span<const Tensor> x) { return std::vector<Tensor>{f(x[0])}; }, {}};
  for (const Shape& s : shapes) r.cases.push_back({{s}});
  return r;
}

Tensor joined(std::span<const Tensor> x, int axis) { return concatenate({x.begin(), x.end()}, axis); }

// The executable also moves operands beyond one tile and one thread.
std::vector<OpRow> also_beyond_a_tile(std::vector<OpRow> rows) {
  for (OpRow& r : rows)
    if (r.name == "transpose" || r.name == "pad" || r.name == "reverse" || r.name == "flatten")
      r.large = {{{r.cases[0][0].shape.rank() == 3   ? Shape{65, 33, 17}
                   : r.cases[0][0].shape.rank() == 2 ? Shape{257, 129}
                                                     : Shape{5003}}}};
  return rows;
}

const AddRows shape_rows(also_beyond_a_tile({
    shape_row("reshape",
              [](const Tensor& x) {
                return sin(reshape(x, {-1, 3}));
              },
              {{6}, {2, 3, 5}, {0, 3}, {3, 1}}),
    shape_row("transpose",
              [](const Tensor& x) {
                return transpose(x, {2, 0, 1});
              },
              {{2, 3, 5}, {1, 7, 1}, {2, 0, 3}}),
    shape_row("transpose", [](const Tensor& x) { return square(transpose(x)); }, {{2, 3}, {4, 17, 33}, {1, 1}}),
    shape_row("broadcast",
              [](const Tensor& x) {
                return broadcast_to(x, {2, 3, 5});
              },
              {{}, {5}, {1}, {3, 1}, {2, 1, 5}, {1, 3, 1}, {2, 3, 1}}),
    shape_row("broadcast",
              [](const Tensor& x) {
                return broadcast_to(x, {0, 3});
              },
              {{}, {3}, {0, 1}, {1, 3}}),
    shape_row("slice",
              [](const Tensor& x) {
                return slice(x, {0, 1}, {1, 0}, {6, -1}, {2, 3});
              },
              {{7, 9}, {2, 2}, {7, 0}}),
    shape_row("slice", [](const Tensor& x) { return square(slice(x, -1, 2, 4)); }, {{5}, {2, 3, 4}, {1}}),
    shape_row("pad",
              [](const Tensor& x) {
                return pad(x, {2, 0}, {1, 3}, 0.5);
              },
              {{2, 3}, {1, 1}, {0, 2}}),
    shape_row("pad",
              [](const Tensor& x) {
                return pad(x, {-1, 1}, {2, -2}, 1, {2, 1});
              },
              {{3, 4}, {5, 2}, {1, 3}}),
    shape_row("pad", [](const Tensor& x) { return square(pad(x, {-2}, {-1})); }, {{5}, {3}}),
    {"concatenate",
     [](std::span<const Tensor> x) { return std::vector<Tensor>{joined(x, 1)}; },
     {{{{2, 3}}, {{2, 1}}, {{2, 5}}}, {{{1, 2}}, {{1, 0}}}, {{{3, 1}}}, {{{0, 2}}, {{0, 3}}}}},
    {"concatenate",
     [](std::span<const Tensor> x) { return std::vector<Tensor>{square(joined(x, 0))}; },
     {{{{2, 3}}, {{1, 3}}}, {{{5}}, {{4}}, {{2}}}}},
    shape_row("reverse",
              [](const Tensor& x) {
                return square(reverse(x, {0, -1}));
              },
              {{2, 3, 4}, {5, 1}, {1, 7}, {3, 0}}),
    shape_row("flatten", [](const Tensor& x) { return square(flatten(x)); }, {{2, 3, 4}, {2, 3}}),
    shape_row("squeeze", [](const Tensor& x) { return square(squeeze(unsqueeze(x, 1), 1)); }, {{2, 3}, {4}}),
    shape_row("tile",
              [](const Tensor& x) {
                return tile(x, {2, 1, 3});
              },
              {{2, 3}, {2, 1, 2}, {}, {2, 0}}),
    {"stack",
     [](std::span<const Tensor> x) {
       return std::vector<Tensor>{stack({x[0], square(x[1])}, 1)};
     },
     {{{{2, 3}}, {{2, 3}}}, {{{4}}, {{4}}}}},
    {"split", [](std::span<const Tensor> x) { return split(x[0], 3, 0); }, {{{{6, 2}}}, {{{3}}}}},
}));

}  // namespace
}  // namespace bp::test

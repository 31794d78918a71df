// Rows of the op table: pools, squared so that their second gradient is not zero. Values are compared with PyTorch's in
// torch_conv_test.cc.
#include "op_table.h"

namespace bp::test {
namespace {

using Pool = Tensor (*)(const Tensor&, const PoolOptions&);

OpRow pool_row(const std::string& name, Pool pool, const PoolOptions& options, std::vector<Shape> shapes,
               std::vector<std::string> covers = {}) {
  OpRow row{name,
            [=](std::span<const Tensor> x) {
              const Tensor y = pool(x[0], options);
              return std::vector<Tensor>{y * y};
            },
            {}};
  for (const Shape& s : shapes) row.cases.push_back({{s}});
  row.covers = std::move(covers);
  return row;
}

// The options' window stands for the sizes.
template <Tensor (*f)(const Tensor&, const std::vector<std::int64_t>&)>
Tensor adapted(const Tensor& x, const PoolOptions& o) {
  return f(x, o.window);
}

const AddRows pool_rows({
    pool_row("max_pool", bp::max_pool, {}, {{2, 6, 3}, {2, 4, 5, 3}, {1, 4, 2, 3, 2}, {0, 4, 4, 2}, {1, 2, 2, 1}},
             {"max_pool_grad", "max_pool_take"}),
    pool_row("max_pool_overlapping", bp::max_pool, {.window = {3}, .stride = {2}, .padding = {1}},
             {{1, 7, 2}, {1, 5, 6, 2}, {1, 3, 4, 3, 1}}),
    pool_row("max_pool_dilated", bp::max_pool, {.window = {3, 2}, .stride = {1}, .padding = {1}, .dilation = {2, 3}},
             {{1, 6, 5, 2}}),
    pool_row("max_pool_large_window", bp::max_pool, {.window = {16, 17}, .stride = {2}}, {{1, 18, 17, 1}}),
    pool_row("avg_pool", bp::avg_pool, {}, {{2, 6, 3}, {2, 4, 5, 3}, {1, 4, 2, 3, 2}, {0, 4, 4, 2}, {1, 2, 2, 1}},
             {"avg_pool_grad"}),
    pool_row("avg_pool_padded", bp::avg_pool, {.window = {3}, .stride = {2}, .padding = {1}},
             {{1, 7, 2}, {1, 5, 6, 2}}),
    pool_row("avg_pool_without_padding", bp::avg_pool,
             {.window = {3}, .stride = {2}, .padding = {1}, .count_include_pad = false},
             {{1, 7, 2}, {1, 5, 6, 2}, {1, 3, 4, 3, 1}}),
    pool_row("adaptive_max_pool", adapted<bp::adaptive_max_pool>, {.window = {3}},
             {{2, 7, 3}, {1, 5, 6, 2}, {0, 4, 4, 2}, {1, 2, 3, 2}}),
    pool_row("adaptive_avg_pool", adapted<bp::adaptive_avg_pool>, {.window = {2}},
             {{2, 7, 3}, {1, 5, 6, 2}, {0, 4, 4, 2}, {1, 3, 2, 5, 1}}),
});

}  // namespace
}  // namespace bp::test

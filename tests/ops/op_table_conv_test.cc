// Rows of the op table: convolutions. Values are compared with PyTorch's in torch_conv_test.cc.
#include "op_table.h"

namespace bp::test {
namespace {

OpRow conv_row(const std::string& name, const ConvOptions& options, std::vector<std::vector<Input>> cases) {
  OpRow row{name, [options](std::span<const Tensor> x) { return std::vector<Tensor>{conv(x[0], x[1], options)}; },
            std::move(cases)};
  row.rtol = 1e-11;
  row.atol32 = row.grad_atol32 = 1e-4;
  return row;
}

OpRow plain_row() {
  OpRow row = conv_row("conv", {},
                       {{{{2, 5, 2}}, {{3, 2, 3}}},
                        {{{2, 4, 3, 2}}, {{3, 2, 2, 3}}},
                        {{{1, 3, 2, 3, 1}}, {{2, 1, 2, 1, 2}}},
                        {{{2, 2, 2, 5}}, {{1, 1, 5, 3}}},
                        {{{0, 4, 4, 2}}, {{3, 3, 2, 3}}}});
  row.covers = {"conv_input_grad", "conv_weight_grad"};
  return row;
}

OpRow transpose_row() {
  OpRow row{"conv_transpose",
            [](std::span<const Tensor> x) {
              return std::vector<Tensor>{conv_transpose(x[0], x[1], {6, 5}, {.stride = {2}, .padding = {1}})};
            },
            {{{{1, 3, 3, 2}}, {{3, 3, 3, 2}}}, {{{0, 3, 3, 2}}, {{3, 3, 3, 2}}}}};
  row.rtol = 1e-11;
  row.atol32 = row.grad_atol32 = 1e-4;
  return row;
}

const AddRows conv_rows({
    plain_row(),
    transpose_row(),
    conv_row("conv_strided", {.stride = {2}, .padding = {1}},
             {{{{2, 6, 2}}, {{3, 2, 2}}}, {{{1, 5, 6, 2}}, {{3, 3, 2, 2}}}, {{{1, 3, 4, 3, 1}}, {{3, 2, 3, 1, 2}}}}),
    conv_row("conv_dilated", {.padding = {2, 1}, .dilation = {2, 3}}, {{{{1, 5, 6, 2}}, {{3, 2, 2, 2}}}}),
    conv_row("conv_uneven_padding", {.padding = {1, 0}, .padding_high = {0, 2}}, {{{{1, 4, 3, 2}}, {{3, 2, 2, 2}}}}),
    conv_row("conv_same", {.stride = {2}, .same = true},
             {{{{1, 5, 1}}, {{2, 1, 2}}}, {{{1, 7, 4, 1}}, {{3, 3, 1, 2}}}, {{{1, 5, 5, 1}}, {{1, 1, 1, 1}}}}),
    conv_row("conv_groups", {.padding = {1}, .groups = 2},
             {{{{1, 3, 3, 4}}, {{3, 3, 2, 6}}}, {{{2, 4, 2}}, {{2, 1, 2}}}}),
    conv_row("conv_depthwise", {.stride = {2}, .padding = {1}, .groups = 3},
             {{{{1, 4, 5, 3}}, {{3, 3, 1, 3}}}, {{{1, 4, 4, 3}}, {{2, 2, 1, 6}}}}),
});

}  // namespace
}  // namespace bp::test

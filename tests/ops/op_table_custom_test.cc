// Rows of the op table: the user's own operations.
#include "op_table.h"

namespace bp::test {
namespace {

// Two outputs: a * b elementwise, and the sum of a.
std::shared_ptr<const CustomOp> product_and_sum() {
  CustomOp op;
  op.name = "product_and_sum";
  op.infer = [](std::span<const Type> in) { return std::vector<Type>{in[0], {in[0].dtype, Shape{}}}; };
  op.forward = [](std::span<const void* const> in, std::span<void* const> out, std::span<const Type> types) {
    dispatch(types[0].dtype, [&](auto zero) {
      using T = decltype(zero);
      const T *a = static_cast<const T*>(in[0]), *b = static_cast<const T*>(in[1]);
      double total = 0;
      for (std::int64_t i = 0; i < types[0].shape.numel(); ++i) {
        static_cast<T*>(out[0])[i] = static_cast<T>(static_cast<double>(a[i]) * static_cast<double>(b[i]));
        total += static_cast<double>(a[i]);
      }
      *static_cast<T*>(out[1]) = static_cast<T>(total);
    });
  };
  op.vjp = [](std::span<const Tensor> in, std::span<const Tensor>, std::span<const Tensor> d) {
    return std::vector<Tensor>{d[0] * in[1] + d[1], d[0] * in[0]};
  };
  return std::make_shared<const CustomOp>(std::move(op));
}

OpRow custom_row() {
  return {"custom",
          [op = product_and_sum()](std::span<const Tensor> x) {
            return custom_op(op, {x[0], x[1]});
          },
          {{{{2, 3}}, {{2, 3}}}, {{{}}, {{}}}, {{{0}}, {{0}}}},
          elementwise([](double a, double b) { return a * b; })};
}

// The right gradient given by hand: d(x exp x) = (1 + x) exp x, from the input; and by way of the output.
OpRow custom_vjp_row() {
  const Function f = [](std::span<const Tensor> x) { return std::vector<Tensor>{x[0] * exp(x[0])}; };
  const Backward backward = [](std::span<const Tensor> x, std::span<const Tensor> y, std::span<const Tensor> d) {
    return std::vector<Tensor>{d[0] * (exp(x[0]) + y[0])};
  };
  return {"custom_vjp",
          [=](std::span<const Tensor> x) { return custom_vjp(f, backward, x); },
          {{{{7}}}, {{{2, 3}}}, {{{0}}}},
          elementwise([](double x) { return x * std::exp(x); })};
}

const AddRows custom_rows({custom_row(), custom_vjp_row()});

}  // namespace
}  // namespace bp::test

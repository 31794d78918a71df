// The op matmul: its type rule and reference kernel against a sum written out index by index.
#include <gtest/gtest.h>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "message_of.h"
#include "ops/reference_run.h"
#include "trace/node.h"

namespace bp {
namespace {

using ir::Attrs;
using ir::OpId;
using test::random_tensor;
using test::run_reference;

Attrs flags(bool ta, bool tb) { return {{"transpose_a", ta}, {"transpose_b", tb}}; }

Shape with_matrix(const Shape& batch, std::int64_t rows, std::int64_t cols) {
  Shape s = batch;
  s.push_back(rows);
  s.push_back(cols);
  return s;
}

// The offset of the matrix that belongs to output batch `index`, broadcasting.
std::int64_t matrix_at(const Shape& shape, const Shape& out, std::int64_t index) {
  const Shape strides = row_major_strides(shape);
  std::int64_t at = 0;
  for (int i = 1; i + 2 <= out.rank(); ++i) {
    const int o = out.rank() - 2 - i, s = shape.rank() - 2 - i;
    if (s >= 0 && shape[s] != 1) at += index % out[o] * strides[s];
    index /= out[o];
  }
  return at;
}

void check(const Shape& batch_a, const Shape& batch_b, std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb,
           DType dtype) {
  const Tensor a = random_tensor(ta ? with_matrix(batch_a, k, m) : with_matrix(batch_a, m, k), 1, dtype);
  const Tensor b = random_tensor(tb ? with_matrix(batch_b, n, k) : with_matrix(batch_b, k, n), 2, dtype);
  const Tensor y = run_reference(OpId::matmul, {a, b}, flags(ta, tb))[0];
  EXPECT_EQ(y.shape(), with_matrix(broadcast_shapes(batch_a, batch_b, ""), m, n));
  const auto av = a.to_vector<double>(), bv = b.to_vector<double>(), yv = y.to_vector<double>();
  const double tolerance = dtype == bf16 ? 1e-2 : dtype == f32 ? 1e-6 : 1e-13;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const std::int64_t r = i / n % m, c = i % n, batch = i / (n * m);
    const std::int64_t oa = matrix_at(a.shape(), y.shape(), batch), ob = matrix_at(b.shape(), y.shape(), batch);
    double expected = 0;
    for (std::int64_t p = 0; p < k; ++p)
      expected += av[static_cast<std::size_t>(oa + (ta ? p * m + r : r * k + p))] *
                  bv[static_cast<std::size_t>(ob + (tb ? c * k + p : p * n + c))];
    ASSERT_NEAR(yv[static_cast<std::size_t>(i)], expected, tolerance * (1 + std::abs(expected))) << "element " << i;
  }
}

TEST(Matmul, MatchesTheSumForEveryTransposeAndBroadcast) {
  struct Product {
    Shape batch_a, batch_b;
    std::int64_t m, n, k;
  };
  const Product cases[] = {{{}, {}, 3, 4, 5},      {{}, {}, 1, 1, 1},  {{}, {}, 17, 1, 33}, {{2, 3}, {2, 3}, 3, 4, 5},
                           {{2, 1}, {3}, 3, 2, 7}, {{}, {4}, 2, 3, 4}, {{4}, {}, 2, 3, 4},  {{1, 5}, {2, 1}, 2, 2, 2},
                           {{0}, {1}, 2, 3, 4},    {{}, {}, 2, 3, 0},  {{}, {}, 0, 3, 4}};
  for (const Product& c : cases)
    for (const DType t : {f64, f32, bf16, i64, i32})
      for (int f = 0; f < 4; ++f) check(c.batch_a, c.batch_b, c.m, c.n, c.k, (f & 1) != 0, (f & 2) != 0, t);
}

TEST(Matmul, NarrowIntegersAccumulateIn64Bits) {
  const Tensor a = Tensor::from<std::int32_t>({2000000000, 2000000000, 1}, {1, 3});
  const Tensor b = Tensor::from<std::int32_t>({2, -2, 7}, {3, 1});
  EXPECT_EQ(run_reference(OpId::matmul, {a, b}, flags(false, false))[0].data<std::int32_t>()[0], 7);
}

TEST(Matmul, ErrorsNameExpectedAndReceived) {
  const auto message = [](const Shape& a, const Shape& b, bool ta, bool tb, DType tb_type = f32) {
    return error_of([&] {
      run_reference(OpId::matmul, {random_tensor(a, 1, f32), random_tensor(b, 2, tb_type)}, flags(ta, tb));
    });
  };
  EXPECT_EQ(message({64, 784}, {32, 10}, false, false),
            "shape: [matmul] expected b [.., 784, n], got [32, 10]: a is [64, 784]");
  EXPECT_EQ(message({784, 64}, {10, 32}, true, true),
            "shape: [matmul] expected b [.., n, 784], got [10, 32]: a is [784, 64], transposed");
  EXPECT_EQ(message({4}, {4, 2}, false, false),
            "shape: [matmul] expected operands of rank 2 or more, got [4] and [4, 2]");
  EXPECT_EQ(message({2, 2}, {2, 2}, false, false, f64),
            "dtype: [matmul] expected two operands of one numeric dtype, got f32[2, 2] and f64[2, 2]");
  EXPECT_NE(message({2, 2, 2}, {3, 2, 2}, false, false).find("leading dimensions"), std::string::npos);
}

// The products recorded below a tensor.
std::vector<ir::Node> products_below(const Tensor& t) {
  std::vector<ir::Node> out;
  for (const ir::Node& n : detail::capture(std::span(&t, 1), {}, {}, 0).graph.nodes)
    if (n.op == OpId::matmul) out.push_back(n);
  return out;
}

TEST(Matmul, ABatchTimesOneMatrixIsOneProductAndSoAreItsGradients) {
  const Tensor x = watch(random_tensor({4, 5, 3}, 1)), w = watch(random_tensor({3, 2}, 2));
  const Tensor y = matmul(x, w), dy = random_tensor({4, 5, 2}, 3);
  EXPECT_EQ(y.shape(), (Shape{4, 5, 2}));
  const std::vector<Tensor> d = vjp(std::vector{y}, std::vector{x, w}, std::vector{dy});
  for (const Tensor& t : {y, d[0], d[1]}) {
    const std::vector<ir::Node> found = products_below(t);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].types[0].shape.rank(), 2) << found[0].types[0].str();
  }
  const Tensor rows = reshape(x, {20, 3});
  EXPECT_EQ(d[1].to_vector<double>(), matmul(rows, reshape(dy, {20, 2}), true).to_vector<double>());
  EXPECT_EQ(y.to_vector<double>(), matmul(rows, w).to_vector<double>());
}

TEST(Matmul, GradientsHoldNoTransposes) {
  for (int f = 0; f < 4; ++f) {
    const bool ta = (f & 1) != 0, tb = (f & 2) != 0;
    const Tensor a = watch(random_tensor(ta ? Shape{2, 4, 3} : Shape{2, 3, 4}, 1));
    const Tensor b = watch(random_tensor(tb ? Shape{2, 5, 4} : Shape{2, 4, 5}, 2));
    const std::vector<Tensor> d = grad(sum(square(matmul(a, b, ta, tb))), std::vector{a, b});
    for (const ir::Node& n : detail::capture(d, {}, {}, 0).graph.nodes) EXPECT_STRNE(ir::name_of(n.op), "transpose");
  }
}

TEST(Matmul, MixedDtypesMeetAndBooleansCount) {
  EXPECT_EQ(matmul(random_tensor({2, 3}, 1, f32), random_tensor({3, 2}, 2, f64)).dtype(), f64);
  EXPECT_EQ(matmul(random_tensor({2, 3}, 1, i32), random_tensor({3, 2}, 2, bf16)).dtype(), bf16);
  const Tensor yes = full({2, 3}, 1, boolean);
  EXPECT_EQ(matmul(yes, yes, false, true).to_vector<std::int64_t>(), (std::vector<std::int64_t>{3, 3, 3, 3}));
  EXPECT_THROW(matmul(scalar(1), ones({2, 2})), Error);
}

}  // namespace
}  // namespace bp

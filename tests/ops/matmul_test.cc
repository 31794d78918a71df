// The op matmul: its type rule and reference kernel against a sum written out index by index.
#include <gtest/gtest.h>

#include "bp/error.h"
#include "ops/reference_run.h"

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
  struct Case {
    Shape batch_a, batch_b;
    std::int64_t m, n, k;
  };
  const Case cases[] = {{{}, {}, 3, 4, 5},      {{}, {}, 1, 1, 1},  {{}, {}, 17, 1, 33}, {{2, 3}, {2, 3}, 3, 4, 5},
                        {{2, 1}, {3}, 3, 2, 7}, {{}, {4}, 2, 3, 4}, {{4}, {}, 2, 3, 4},  {{1, 5}, {2, 1}, 2, 2, 2},
                        {{0}, {1}, 2, 3, 4},    {{}, {}, 2, 3, 0},  {{}, {}, 0, 3, 4}};
  for (const Case& c : cases)
    for (const DType t : {f64, f32, bf16, i64, i32})
      for (int f = 0; f < 4; ++f) check(c.batch_a, c.batch_b, c.m, c.n, c.k, (f & 1) != 0, (f & 2) != 0, t);
}

TEST(Matmul, NarrowIntegersAccumulateIn64Bits) {
  const Tensor a = Tensor::from<std::int32_t>({2000000000, 2000000000, 1}, {1, 3});
  const Tensor b = Tensor::from<std::int32_t>({2, -2, 7}, {3, 1});
  EXPECT_EQ(run_reference(OpId::matmul, {a, b}, flags(false, false))[0].data<std::int32_t>()[0], 7);
}

TEST(Matmul, ErrorsNameExpectedAndReceived) {
  const auto message = [](const Shape& a, const Shape& b, bool ta, bool tb, DType tb_type = f32) -> std::string {
    try {
      run_reference(OpId::matmul, {random_tensor(a, 1, f32), random_tensor(b, 2, tb_type)}, flags(ta, tb));
    } catch (const Error& e) { return std::string(name_of(e.kind())) + ": " + e.what(); }
    return "no error";
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

}  // namespace
}  // namespace bp

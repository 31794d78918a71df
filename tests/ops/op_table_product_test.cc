// Rows of the op table: matmul in every combination of transposes, broadcasts and ranks.
#include "op_table.h"

namespace bp::test {
namespace {

// sum over p of a[.., i, p] b[.., p, j] for operands of rank 2 or more.
Formula product(bool ta, bool tb) {
  return [ta, tb](std::span<const Input> in, std::span<const Values> v) {
    const Shape &a = in[0].shape, &b = in[1].shape;
    const auto batch = [](const Shape& s) { return Shape(s.dims().first(static_cast<std::size_t>(s.rank() - 2))); };
    const std::int64_t m = a[a.rank() - (ta ? 1 : 2)], k = a[a.rank() - (ta ? 2 : 1)], n = b[b.rank() - (tb ? 2 : 1)];
    const Shape out = broadcast_shapes(batch(a), batch(b), "formula");
    Values y;
    for (std::int64_t q = 0; q < out.numel(); ++q) {
      const std::int64_t first_a = source_index(q, out, batch(a)) * m * k,
                         first_b = source_index(q, out, batch(b)) * k * n;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double s = 0;
          for (std::int64_t p = 0; p < k; ++p)
            s += v[0][static_cast<std::size_t>(first_a + (ta ? p * m + i : i * k + p))] *
                 v[1][static_cast<std::size_t>(first_b + (tb ? j * k + p : p * n + j))];
          y.push_back(s);
        }
    }
    return y;
  };
}

Shape matrix(const Shape& batch, std::int64_t rows, std::int64_t cols) {
  Shape s = batch;
  s.push_back(rows);
  s.push_back(cols);
  return s;
}

OpRow matmul_row(bool ta, bool tb) {
  OpRow row{"matmul",
            [ta, tb](std::span<const Tensor> x) { return std::vector<Tensor>{matmul(x[0], x[1], ta, tb)}; },
            {},
            product(ta, tb)};
  row.rtol = 1e-11;
  row.atol32 = row.grad_atol32 = 1e-4;
  struct Product {
    Shape a, b;
    std::int64_t m, n, k;
  };
  const Product cases[] = {{{}, {}, 3, 4, 5},      {{}, {}, 1, 1, 1},  {{}, {}, 17, 1, 9}, {{2}, {2}, 3, 2, 4},
                           {{2, 1}, {3}, 2, 3, 2}, {{}, {3}, 2, 3, 4}, {{3}, {}, 2, 3, 4}, {{2, 2}, {1}, 2, 1, 3},
                           {{0}, {1}, 2, 3, 4},    {{}, {}, 2, 3, 0},  {{}, {}, 0, 3, 4}};
  for (const Product& c : cases)
    row.cases.push_back(
        {{ta ? matrix(c.a, c.k, c.m) : matrix(c.a, c.m, c.k)}, {tb ? matrix(c.b, c.n, c.k) : matrix(c.b, c.k, c.n)}});
  return row;
}

// Rank-1 operands: [k] is a row on the left and a column on the right.
OpRow vector_row() {
  return {"matmul_vectors",
          [](std::span<const Tensor> x) { return std::vector<Tensor>{matmul(x[0], x[1])}; },
          {{{{5}}, {{5}}},
           {{{5}}, {{5, 3}}},
           {{{3, 5}}, {{5}}},
           {{{2, 3, 5}}, {{5}}},
           {{{5}}, {{2, 5, 3}}},
           {{{0}}, {{0}}}}};
}

const AddRows product_rows({matmul_row(false, false), matmul_row(true, false), matmul_row(false, true),
                            matmul_row(true, true), vector_row()});

}  // namespace
}  // namespace bp::test

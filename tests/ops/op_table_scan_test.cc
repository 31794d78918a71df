// Rows of the op table: loops and branches.
#include "bp/scan.h"
#include "op_table.h"

namespace bp::test {
namespace {

using Tensors = std::span<const Tensor>;

// h = tanh(x W + h U); the last h and all of them.
std::vector<Tensor> recurrent(Tensors t, const ScanOptions& options) {
  const Scanned out = scan(
      [&](Tensors c, Tensors x) -> Scanned {
        const Tensor h = tanh(matmul(x[0], t[2]) + matmul(c[0], t[3]));
        return {{h}, {h}};
      },
      {t[1]}, {t[0]}, options);
  return {out.ys[0], out.carry[0]};
}

Values recurrent_formula(std::span<const Input> in, std::span<const Values> v) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::size_t time = size(in[0].shape[0]), batch = size(in[0].shape[1]), width = size(in[0].shape[2]),
                    hidden = size(in[1].shape[1]);
  Values h = v[1], out;
  for (std::size_t t = 0; t < time; ++t) {
    Values next(h.size());
    for (std::size_t b = 0; b < batch; ++b)
      for (std::size_t j = 0; j < hidden; ++j) {
        double z = 0;
        for (std::size_t i = 0; i < width; ++i) z += v[0][(t * batch + b) * width + i] * v[2][i * hidden + j];
        for (std::size_t i = 0; i < hidden; ++i) z += h[b * hidden + i] * v[3][i * hidden + j];
        next[b * hidden + j] = std::tanh(z);
      }
    h = next;
    out.insert(out.end(), h.begin(), h.end());
  }
  return out;
}

OpRow scan_row(std::int64_t segment) {
  const auto sizes = [](std::int64_t time, std::int64_t batch, std::int64_t in, std::int64_t hidden,
                        double weight = 0.5) {
    return std::vector<Input>{{{time, batch, in}, f64, -1, 1},
                              {{batch, hidden}, f64, -1, 1},
                              {{in, hidden}, f64, -weight, weight},
                              {{hidden, hidden}, f64, -weight, weight}};
  };
  OpRow row{"scan",
            [=](Tensors t) { return recurrent(t, {.segment = segment}); },
            {sizes(3, 2, 3, 4), sizes(1, 1, 1, 1), sizes(4, 3, 1, 2), sizes(0, 2, 3, 3), sizes(2, 0, 3, 3)},
            recurrent_formula};
  row.large = {sizes(9, 17, 33, 65, 0.15)};
  row.rtol32 = row.atol32 = 1e-5;  // nine products one after another
  row.grad_rtol32 = row.grad_atol32 = 1e-4;
  return row;
}

OpRow cond_row() {
  const auto f = [](Tensors t) {
    return cond(
        sum(t[0]) > 0.0, [&](Tensors x) { return std::vector<Tensor>{sin(x[0]) * t[1]}; },
        [](Tensors x) { return std::vector<Tensor>{x[0] * x[0]}; }, {t[0]});
  };
  const Formula expected = [](std::span<const Input>, std::span<const Values> v) {
    double total = 0;
    for (double x : v[0]) total += x;
    Values out;
    for (std::size_t i = 0; i < v[0].size(); ++i)
      out.push_back(total > 0 ? std::sin(v[0][i]) * v[1][i] : v[0][i] * v[0][i]);
    return out;
  };
  return {"cond",
          f,
          {{{{5}, f64, 1, 2}, {{5}}}, {{{5}, f64, -2, -1}, {{5}}}, {{{0}}, {{0}}}, {{{2, 3}, f64, 1, 2}, {{2, 3}}}},
          expected};
}

const AddRows scan_rows({scan_row(0), scan_row(2), cond_row()});

}  // namespace
}  // namespace bp::test

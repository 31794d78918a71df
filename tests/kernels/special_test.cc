// Every element-wise and reducing loop instruction over special values (NaN, infinities, zeros of both signs, denormal
// numbers, the ends of the range) against the scalar reference, at sizes that end in a vector's tail. ctest runs these
// tests once for every instruction set that the machine offers, see tests/CMakeLists.txt.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "base/isa.h"
#include "bp/error.h"
#include "cpu/kernels/loop_program.h"
#include "cpu/kernels/loop_tiles.h"
#include "cpu/kernels/matmul_micro.h"
#include "kernels/space.h"

namespace bp::cpu {
namespace {

template <class T> std::vector<T> special_values() {
  using L = std::numeric_limits<T>;
  std::vector<T> v;
  // Ends of exp, expm1, tanh, sigmoid and erf in f32 and f64, of the range reduction of sin and cos, of i32.
  const double magnitudes[] = {0.0, 1e-10, 0.1,  0.5,   0.9277, 1,    1.5,   2,         2.5,  3.9,  4.1,
                               9.5, 18.8,  37,   80,    87.5,   88.8, 103.5, 104.5,     105,  700,  709.9,
                               745, 747,   1000, 38999, 4e4,    1e6,  1e9,   2147484e3, 1e18, 1e30, 3e38};
  for (double m : magnitudes)
    for (double s : {1.0, -1.0}) v.push_back(static_cast<T>(s * m));
  for (T m : {L::infinity(), L::quiet_NaN(), L::max(), L::min(), L::denorm_min(), L::min() / 3, L::epsilon()}) {
    v.push_back(m);
    v.push_back(-m);
  }
  return v;
}

// Within tolerance of what is expected, relatively; at the denormal end by a few of their steps; NaN for NaN alone.
template <class T> bool agrees(T got, T want, double tolerance) {
  if (std::isnan(got) || std::isnan(want)) return std::isnan(got) && std::isnan(want);
  if (got == want) return true;
  if (std::isinf(got) || std::isinf(want)) return false;
  const auto error = std::fabs(static_cast<long double>(got) - static_cast<long double>(want));
  return error <= tolerance * std::fabs(static_cast<long double>(want)) + 4 * std::numeric_limits<T>::denorm_min();
}

template <class T> constexpr double kTolerance = sizeof(T) == 4 ? 5e-7 : 1e-15;

// An exponential beyond the range of T may end a step of rounding early.
template <class T> bool at_the_end(T got, T want) {
  return (std::isinf(got) && want > std::numeric_limits<T>::max() * T(0.99999)) ||
         (std::isinf(want) && got > std::numeric_limits<T>::max() * T(0.99999));
}

// Runs p over `inputs` (each of rows x cols, or as its access says) into outputs of `sizes`, and the reference beside
// it.
template <class T> struct Runs { std::vector<std::vector<T>> got, want; };
template <class T>
Runs<T> run_both(const LoopProgram& p, const std::vector<std::vector<T>>& inputs,
                 const std::vector<std::size_t>& sizes) {
  Runs<T> r;
  for (std::size_t n : sizes) r.got.emplace_back(n, T(-77)), r.want.emplace_back(n, T(-77));
  const CompiledLoop loop(p);
  std::vector<std::byte> memory(loop.workspace_bytes(1) + 64);
  void* workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  std::vector<void*> fast, slow;
  for (const auto& x : inputs) {
    fast.push_back(const_cast<T*>(x.data()));
    slow.push_back(const_cast<T*>(x.data()));
  }
  for (auto& y : r.got) fast.push_back(y.data());
  for (auto& y : r.want) slow.push_back(y.data());
  loop.run(fast.data(), 1, workspace);
  reference_run(p, slow.data());
  return r;
}

template <class T> void check_unary(LoopOp op) {
  const std::vector<T> all = special_values<T>();
  // From the end of the list backwards, so that every value stands in a whole vector in one run and in a tail in
  // another.
  for (std::size_t n : {all.size(), all.size() - 1, all.size() - 3, all.size() - 8, std::size_t{1}, std::size_t{3}}) {
    const std::vector<T> x(all.end() - static_cast<std::ptrdiff_t>(n), all.end());
    LoopProgram p = space(1, static_cast<std::int64_t>(n), dtype_of<T>);
    const auto full = LoopAccess::full(1, p.cols);
    const int in = p.input(dtype_of<T>, full), out = p.output(dtype_of<T>, full);
    p.store(out, p.unary(op, p.load(in)));
    const Runs<T> r = run_both<T>(p, {x}, {n});
    for (std::size_t i = 0; i < n; ++i)
      EXPECT_TRUE(agrees(r.got[0][i], r.want[0][i], kTolerance<T>) || at_the_end(r.got[0][i], r.want[0][i]))
          << name_of(op) << "(" << x[i] << ") = " << r.got[0][i] << ", expected " << r.want[0][i] << " (" << i << " of "
          << n << ", " << name_of(dtype_of<T>) << ")";
  }
}

TEST(Special, UnaryInstructions) {
  for (int op = static_cast<int>(LoopOp::neg); op <= static_cast<int>(LoopOp::to_f32); ++op) {
    check_unary<float>(static_cast<LoopOp>(op));
    check_unary<double>(static_cast<LoopOp>(op));
  }
}

template <class T> void check_binary(LoopOp op) {
  const std::vector<T> all = special_values<T>();
  const std::size_t n = all.size();
  for (int form = 0; form < 3; ++form) {  // every pair: tile and tile, tile and scalar of the row, scalar and tile
    LoopProgram p = space(static_cast<std::int64_t>(n), static_cast<std::int64_t>(n), dtype_of<T>);
    const auto full = LoopAccess::full(p.rows, p.cols), row = LoopAccess::per_row(p.rows);
    const LoopAccess x_access = form == 2 ? row : full, y_access = form == 1 ? row : full;
    const int x = p.input(dtype_of<T>, x_access), y = p.input(dtype_of<T>, y_access), z = p.output(dtype_of<T>, full);
    p.store(z, p.binary(op, p.load(x), p.load(y)));
    std::vector<T> rows, columns;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) rows.push_back(all[i]), columns.push_back(all[j]);
    const std::vector<T>&a = form == 1 ? columns : form == 2 ? all : rows, &b = form == 1 ? all : columns;
    const Runs<T> r = run_both<T>(p, {a, b}, {n * n});
    for (std::size_t i = 0; i < n * n; ++i)
      ASSERT_TRUE(agrees(r.got[0][i], r.want[0][i], kTolerance<T>))
          << name_of(op) << " form " << form << " of " << rows[i] << " and " << columns[i] << " = " << r.got[0][i]
          << ", expected " << r.want[0][i] << " (" << name_of(dtype_of<T>) << ")";
  }
}

TEST(Special, BinaryInstructions) {
  for (int op = static_cast<int>(LoopOp::add); op <= static_cast<int>(LoopOp::logical_or); ++op) {
    check_binary<float>(static_cast<LoopOp>(op));
    check_binary<double>(static_cast<LoopOp>(op));
  }
}

template <class T> void check_reductions(std::size_t cols, const std::vector<T>& values, std::size_t place) {
  constexpr LoopOp kRow[] = {LoopOp::row_sum, LoopOp::row_max, LoopOp::row_min, LoopOp::row_prod};
  constexpr LoopOp kColumn[] = {LoopOp::column_sum, LoopOp::column_max, LoopOp::column_min};
  const std::size_t rows = values.size();
  LoopProgram p = space(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols), dtype_of<T>);
  const auto row = LoopAccess::per_row(p.rows), column = LoopAccess::per_column();
  const int x = p.load(p.input(dtype_of<T>, LoopAccess::full(p.rows, p.cols)));
  std::vector<std::size_t> sizes;
  for (LoopOp op : kRow) p.store(p.output(dtype_of<T>, row), p.reduce(op, x)), sizes.push_back(rows);
  for (LoopOp op : kColumn) p.column(op, p.output(dtype_of<T>, column), x), sizes.push_back(cols);
  std::vector<T> input(rows * cols);
  for (std::size_t i = 0; i < input.size(); ++i) input[i] = i % 3 == 0 ? T(2) : T(1);
  for (std::size_t r = 0; r < rows; ++r) input[r * cols + place] = values[r];
  const Runs<T> got = run_both<T>(p, {input}, sizes);
  for (std::size_t k = 0; k < sizes.size(); ++k)
    for (std::size_t i = 0; i < sizes[k]; ++i)
      ASSERT_TRUE(agrees(got.got[k][i], got.want[k][i], 10 * kTolerance<T>))
          << "reduction " << k << " element " << i << " = " << got.got[k][i] << ", expected " << got.want[k][i] << " ("
          << cols << " columns, value at " << place << ", " << name_of(dtype_of<T>) << ")";
}

TEST(Special, Reductions) {
  for (std::size_t cols : {1, 2, 3, 5, 8, 17, 33, 70})
    for (std::size_t place = 0; place < cols; place += place < 36 ? 1 : 7) {
      const float inf = std::numeric_limits<float>::infinity();
      check_reductions<float>(cols, {0.f, -0.f, inf, 3.f, 1e-40f}, place);
      check_reductions<float>(cols, {-inf, 2.f}, place);
      check_reductions<float>(cols, {1.f, std::nanf(""), -4.f, std::nanf("")}, place);
      check_reductions<double>(cols, {0, -0.0, static_cast<double>(inf), 3, 1e-310}, place);
      check_reductions<double>(cols, {1, std::nan(""), -4, std::nan("")}, place);
    }
}

// What the compiler of loops makes of chains, not of single instructions: macro-instructions of the tile tables.
template <class T> void check_macros() {
  const std::vector<T> x = special_values<T>();
  const std::size_t n = x.size();
  const TileTable& table = tile_table(dtype_of<T>);
  std::vector<T> y(n), other(n, T(2)), zero(n, T(0));
  const T two = 2, nan = std::numeric_limits<T>::quiet_NaN();
  table.at(TileOp::add_relu, 0)(y.data(), x.data(), zero.data(), nullptr, 1, n);
  for (std::size_t i = 0; i < n; ++i) EXPECT_TRUE(agrees<T>(y[i], x[i] < 0 ? T(0) : x[i], 0)) << "add_relu " << x[i];
  table.at(TileOp::relu_mask, 0)(y.data(), x.data(), other.data(), nullptr, 1, n);
  for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(y[i], x[i] > 0 ? two : T(0)) << "relu_mask " << x[i];
  table.at(TileOp::exp_sub, 0)(y.data(), x.data(), zero.data(), nullptr, 1, n);
  for (std::size_t i = 0; i < n; ++i) {
    const T want = static_cast<T>(std::exp(static_cast<long double>(x[i])));
    EXPECT_TRUE(agrees(y[i], want, kTolerance<T>) || at_the_end(y[i], want)) << "exp_sub " << x[i] << " = " << y[i];
  }
  table.at(TileOp::exp_sub, 2)(y.data(), x.data(), &nan, nullptr, 1, n);
  for (std::size_t i = 0; i < n; ++i) EXPECT_TRUE(std::isnan(y[i])) << "exp_sub " << x[i] << ", NaN";
}
TEST(Special, MacroInstructions) {
  check_macros<float>();
  check_macros<double>();
}

// The instruction set is the one that was asked for: lanes of the table's vectors.
TEST(Special, HeldToTheInstructionSetAskedFor) {
  const std::int64_t lanes = micro_table(f32).lanes;
  EXPECT_LE(lanes, max_isa() <= Isa::sse4 ? 4 : max_isa() == Isa::avx2 ? 8 : 16);
  EXPECT_EQ(parse_isa("base"), Isa::base);
  EXPECT_EQ(parse_isa("avx512"), Isa::avx512);
  EXPECT_THROW(parse_isa("AVX2"), Error);
  EXPECT_THROW(parse_isa(""), Error);
}

}  // namespace
}  // namespace bp::cpu

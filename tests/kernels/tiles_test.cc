// The transcendental tile instructions against the C library in wider precision: worst error in ULP, bounded and
// written down here. Random bits and conversions are covered by loops_test.cc.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <ios>
#include <vector>

#include "bp/rng.h"
#include "cpu/kernels/loop_tiles.h"

namespace bp::cpu {
namespace {

struct Function {
  LoopOp op;
  long double (*exact)(long double);
  double lo, hi;            // sampled uniformly, and log-uniformly towards zero
  double f32_ulp, f64_ulp;  // bounds
};

long double exact_sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }

// Worst errors measured with AVX2 over these samples stand in the bounds, rounded up.
const Function kFunctions[] = {
    {LoopOp::exp, std::exp, -87, 88, 2, 2},   {LoopOp::expm1, std::expm1, -30, 88, 4, 4},
    {LoopOp::log, std::log, 0, 1e6, 2, 2},    {LoopOp::log1p, std::log1p, -0.9999, 1e6, 4, 4},
    {LoopOp::sin, std::sin, -100, 100, 4, 4}, {LoopOp::cos, std::cos, -100, 100, 4, 4},
    {LoopOp::tanh, std::tanh, -10, 10, 4, 4}, {LoopOp::sigmoid, exact_sigmoid, -80, 80, 4, 4},
    {LoopOp::erf, std::erf, -6, 6, 2, 4},
};

template <class T> double worst_ulp(const Function& f, double& at) {
  const std::size_t n = 200000;
  std::vector<T> x(n), y(n);
  Rng rng(Key(3));
  for (std::size_t i = 0; i < n; ++i) {
    double v = f.lo + (f.hi - f.lo) * rng.uniform();
    if (i % 2) v *= std::exp2(-30 * rng.uniform());
    x[i] = static_cast<T>(v);
  }
  tile_table(dtype_of<T>).at(tile_op(f.op), 0)(y.data(), x.data(), nullptr, nullptr, 1, n);
  double worst = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const long double want = f.exact(static_cast<long double>(x[i]));
    const T rounded = std::fabs(static_cast<T>(want));
    // An error below the smallest normal number is not counted in its ULPs: those are denormals'.
    const double ulp = std::max<double>(std::nextafter(rounded, std::numeric_limits<T>::infinity()) - rounded,
                                        std::numeric_limits<T>::min());
    const double error = static_cast<double>(std::fabs(static_cast<long double>(y[i]) - want)) / ulp;
    if (error > worst) worst = error, at = static_cast<double>(x[i]);
  }
  return worst;
}

// Whole vectors and what is left behind them round as bfloat16 does: ties, NaN, infinities and denormals among them.
TEST(Tiles, Bf16RoundsAsTheType) {
  std::vector<float> x;
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(std::bit_cast<float>(high << 16 | low));
  for (std::size_t n : {x.size(), x.size() - 5, std::size_t{3}}) {
    std::vector<bfloat16> y(n);
    std::vector<float> back(n), in_place(n);
    store_converter(f32, bf16)(y.data(), x.data(), n);
    load_converter(bf16, f32)(back.data(), y.data(), n);
    tile_table(f32).at(tile_op(LoopOp::to_bf16), 0)(in_place.data(), x.data(), nullptr, nullptr, 1, n);
    for (std::size_t i = 0; i < n; ++i) {
      const bfloat16 want(x[i]);
      ASSERT_EQ(y[i].bits, want.bits) << std::hex << std::bit_cast<std::uint32_t>(x[i]);
      const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(want));
      ASSERT_EQ(std::bit_cast<std::uint32_t>(back[i]), bits);
      ASSERT_EQ(std::bit_cast<std::uint32_t>(in_place[i]), bits);
    }
  }
}

TEST(Tiles, WorstUlp) {
  for (const Function& f : kFunctions) {
    double at32 = 0, at64 = 0;
    const double w32 = worst_ulp<float>(f, at32), w64 = worst_ulp<double>(f, at64);
    RecordProperty(name_of(f.op), std::to_string(w32) + " / " + std::to_string(w64));
    std::printf("%-8s f32 %.2f ULP at %g, f64 %.2f ULP at %g\n", name_of(f.op), w32, at32, w64, at64);
    EXPECT_LE(w32, f.f32_ulp) << name_of(f.op) << " f32 at " << at32;
    EXPECT_LE(w64, f.f64_ulp) << name_of(f.op) << " f64 at " << at64;
  }
}

}  // namespace
}  // namespace bp::cpu

// MatmulKernel against the scalar reference: transposes, odd and zero sizes, leading dimensions, epilogues, methods.
#include <gtest/gtest.h>

#include <cmath>

#include "cpu/kernels/machine_code.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/packed_product.h"
#include "cpu/kernels/share.h"
#include "kernels/values.h"

namespace bp::cpu {
namespace {

template <class T> void check_matmul_as(MatmulSpec s, int threads) {
  s.dtype = dtype_of<T>;
  Rng rng(Key(7));
  const std::int64_t lda = s.lda ? s.lda : s.transpose_a ? s.m : s.k, ldb = s.ldb ? s.ldb : s.transpose_b ? s.k : s.n;
  const std::int64_t ldc = s.ldc ? s.ldc : s.n, ldr = s.ldr ? s.ldr : s.n;
  const auto a = random_values<T>(rng, (s.transpose_a ? s.k : s.m) * lda + 1);
  const auto b = random_values<T>(rng, (s.transpose_b ? s.n : s.k) * ldb + 1);
  const auto bias = random_values<T>(rng, s.n + 1), residual = random_values<T>(rng, s.m * ldr + 1);
  auto want = random_values<T>(rng, s.m * ldc + 16), got = want;
  reference_matmul(s, a.data(), b.data(), bias.data(), residual.data(), want.data());
  const MatmulKernel kernel(s);
  std::vector<double> memory(kernel.workspace_bytes(threads) / 8 + 16);
  void* workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  const auto start = got;
  kernel.run(a.data(), b.data(), bias.data(), residual.data(), got.data(), workspace, threads);
  const double tolerance = (sizeof(T) == 4 ? 1e-6 : 1e-15) * (4 + std::sqrt(static_cast<double>(s.k)) * 4);
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool inside = static_cast<std::int64_t>(i) % std::max<std::int64_t>(ldc, 1) < s.n &&
                        static_cast<std::int64_t>(i) / std::max<std::int64_t>(ldc, 1) < s.m;
    if (!inside)
      ASSERT_EQ(got[i], start[i]) << "outside C, " << i;
    else
      ASSERT_NEAR(got[i], want[i], tolerance) << "element " << i << " method " << static_cast<int>(kernel.method());
  }
  auto again = start;
  kernel.run(a.data(), b.data(), bias.data(), residual.data(), again.data(), workspace, 1);
  ASSERT_EQ(again, got) << "threads change the result";
  if (!s.residual || ldr != ldc) return;
  auto shared = residual;
  shared.resize(got.size());
  if (s.accumulate) return;
  kernel.run(a.data(), b.data(), bias.data(), shared.data(), shared.data(), workspace, 1);
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < s.n; ++j)
      ASSERT_EQ(shared[static_cast<std::size_t>(i * ldc + j)], got[static_cast<std::size_t>(i * ldc + j)])
          << "C aliases the residual";
}

void check_matmul(const MatmulSpec& s, int threads = 1) {
  SCOPED_TRACE(testing::Message() << s.m << " x " << s.n << " x " << s.k << " ta " << s.transpose_a << " tb "
                                  << s.transpose_b << " accumulate " << s.accumulate << " bias " << s.bias
                                  << " residual " << s.residual << " activation " << static_cast<int>(s.activation)
                                  << " threads " << threads);
  check_matmul_as<float>(s, threads);
  check_matmul_as<double>(s, threads);
}

TEST(Matmul, SmallSizesAllTransposes) {
  for (std::int64_t m : {0, 1, 2, 7, 33})
    for (std::int64_t n : {0, 1, 2, 7, 16, 33})
      for (std::int64_t k : {0, 1, 2, 16, 37})
        for (int t = 0; t < 4; ++t) {
          check_matmul({.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = (t & 2) != 0});
          check_matmul({.m = m,
                        .n = n,
                        .k = k,
                        .transpose_a = (t & 1) != 0,
                        .transpose_b = (t & 2) != 0,
                        .accumulate = true,
                        .bias = true,
                        .activation = Activation::relu,
                        .residual = true});
          if (testing::Test::HasFatalFailure()) return;
        }
}

TEST(Matmul, EpiloguesAndLeadingDimensions) {
  for (auto [m, n, k] : {std::array<std::int64_t, 3>{13, 19, 23}, {1, 40, 50}, {40, 1, 50}, {80, 70, 90}})
    for (int t = 0; t < 4; ++t)
      for (Activation act : {Activation::none, Activation::relu, Activation::tanh, Activation::sigmoid})
        for (int e : {0, 3, 4, 7}) {
          MatmulSpec s{.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = (t & 2) != 0};
          s.accumulate = e & 1, s.bias = e & 2, s.residual = e & 4, s.activation = act;
          check_matmul(s);
          s.lda = (s.transpose_a ? m : k) + 3, s.ldb = (s.transpose_b ? k : n) + 5, s.ldc = n + 2, s.ldr = n + 2;
          check_matmul(s);
          if (testing::Test::HasFatalFailure()) return;
        }
}

TEST(Matmul, BlockedSizes) {
  for (auto [m, n, k] : {std::array<std::int64_t, 3>{65, 64, 64},
                         {129, 157, 300},
                         {150, 33, 700},
                         {12, 300, 513},
                         {31, 1, 9000},
                         {1, 5000, 65}})
    for (int t = 0; t < 4; ++t) {
      MatmulSpec s{.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = (t & 2) != 0};
      check_matmul(s, 2);
      s.accumulate = s.bias = s.residual = true;
      s.activation = Activation::tanh;
      check_matmul(s, 2);
      if (testing::Test::HasFatalFailure()) return;
    }
}

// Machine code, where the processor has it: whole and partial tiles, all ways of reading A and B, more than one block
// of k and of columns, parts of C in a grid of threads.
TEST(Matmul, ManyColumns) {
  for (auto [m, n, k] :
       {std::array<std::int64_t, 3>{29, 64, 900}, {57, 513, 65}, {15, 815, 330}, {300, 33, 161}, {14, 47, 2200}})
    for (int t = 0; t < 4; ++t)
      for (int e = 0; e < 6; ++e) {
        MatmulSpec s{.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = (t & 2) != 0};
        s.bias = e % 2 == 1;
        s.accumulate = e == 2 || e == 3;
        s.residual = e == 4 || e == 5;
        if (e < 2) s.activation = Activation::relu;
        if (e == 3) s.lda = up_to(s.transpose_a ? m : k, 512), s.ldb = (s.transpose_b ? k : n) + 3, s.ldc = n + 1;
        if (e == 4) s.ldr = n + 5;
        check_matmul_as<float>(s, 1 + e);
        if (testing::Test::HasFatalFailure()) return;
      }
}

// A B that is packed before, where the processor has machine code for it.
void check_packed(const MatmulSpec& s, int threads) {
  SCOPED_TRACE(testing::Message() << s.m << " x " << s.n << " x " << s.k << " tb " << s.transpose_b << " bias "
                                  << s.bias << " residual " << s.residual << " threads " << threads);
  Rng rng(Key(8));
  const std::int64_t lda = s.lda ? s.lda : s.k, ldb = s.ldb ? s.ldb : s.transpose_b ? s.k : s.n;
  const auto a = random_values<float>(rng, s.m * lda), b = random_values<float>(rng, (s.transpose_b ? s.n : s.k) * ldb);
  const auto bias = random_values<float>(rng, s.n), residual = random_values<float>(rng, s.m * s.n);
  auto want = random_values<float>(rng, s.m * s.n), got = want;
  reference_matmul(s, a.data(), b.data(), bias.data(), residual.data(), want.data());
  const PackedProduct product(s, threads);
  const auto aligned = [](std::vector<float>& memory, std::size_t bytes) {
    memory.assign(bytes / sizeof(float) + 16, std::nanf(""));
    return reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  };
  std::vector<float> packed_memory, workspace_memory;
  float* const packed = aligned(packed_memory, product.pack_bytes());
  float* const workspace = aligned(workspace_memory, product.thread_bytes() * static_cast<std::size_t>(threads));
  product.run_pack(b.data(), packed);
  product.run({a.data(), packed, bias.data(), residual.data(), got.data()}, workspace, threads);
  const double tolerance = 1e-6 * (4 + std::sqrt(static_cast<double>(s.k)) * 4);
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << "element " << i;
  auto again = residual;  // C may alias the residual
  product.run({a.data(), packed, bias.data(), s.residual ? again.data() : residual.data(), again.data()}, workspace, 1);
  if (s.accumulate) return;
  ASSERT_EQ(again, got);
}

TEST(Matmul, PackedBefore) {
  if (!machine_code_wanted()) GTEST_SKIP() << "no machine code here";
  for (auto [m, n, k] : {std::array<std::int64_t, 3>{1, 33, 7},
                         {14, 32, 64},
                         {15, 815, 130},
                         {16, 256, 512},
                         {31, 47, 1},
                         {64, 100, 700}})
    for (int e = 0; e < 8; ++e) {
      MatmulSpec s{.m = m, .n = n, .k = k, .transpose_b = e % 2 == 1};
      s.bias = e % 4 > 1;
      s.residual = e > 3;
      s.accumulate = e == 2;
      if (e == 3) s.activation = Activation::relu;
      if (e == 1) s.lda = up_to(k, 512), s.ldb = k + 3;
      ASSERT_TRUE(PackedProduct::takes(s));
      check_packed(s, 1 + e % 3);
      if (testing::Test::HasFatalFailure()) return;
    }
}

TEST(Matmul, CodeTakesLargeProducts) {
  MatmulSpec s{.m = 64, .n = 512, .k = 64, .activation = Activation::relu};
  EXPECT_EQ(MatmulKernel(s).method() == MatmulKernel::Method::code, machine_code_wanted());
  s.activation = Activation::tanh;
  EXPECT_EQ(MatmulKernel(s).method(), MatmulKernel::Method::blocked);
}

TEST(Matmul, NanReachesTheResult) {
  const MatmulKernel kernel({.m = 3, .n = 5, .k = 4, .bias = true, .activation = Activation::relu});
  std::vector<float> a(12, 1.f), b(20, 1.f), bias(5, 0.f), c(15);
  a[0] = std::nanf("");
  kernel.run(a.data(), b.data(), bias.data(), nullptr, c.data(), nullptr, 1);
  EXPECT_TRUE(std::isnan(c[0]));
  EXPECT_EQ(c[5], 4.f);
}

}  // namespace
}  // namespace bp::cpu

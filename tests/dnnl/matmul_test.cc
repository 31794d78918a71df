// DnnlMatmul against a scalar product in f64: shapes, strides, batches, packing, epilogues, and which kernels are
// chosen.
#include "cpu/dnnl/matmul.h"

#include <cstring>

#include "bp/error.h"
#include "cpu/dnnl/internal.h"
#include "dnnl/fixture.h"

namespace bp::cpu {
namespace {

using test::tolerance;
using test::values;
using test::worst;

std::int64_t extent(const DnnlMatmulSpec& s, const DnnlMatmulSpec::Strides& m, std::int64_t rows, std::int64_t cols) {
  std::int64_t last = (rows - 1) * m.row + (cols - 1) * m.col;
  for (std::size_t i = 0; i < s.batch.size(); ++i) last += (s.batch[i] - 1) * m.batch[i];
  return std::max<std::int64_t>(last + 1, 0);
}

double activate(Epilogue::Activation a, double x) {
  switch (a) {
    case Epilogue::Activation::relu: return std::max(x, 0.0);
    case Epilogue::Activation::tanh: return std::tanh(x);
    case Epilogue::Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Epilogue::Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case Epilogue::Activation::gelu_erf: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Epilogue::Activation::none: break;
  }
  return x;
}

struct Operands {
  std::vector<float> a, b, c, bias, residual;
  explicit Operands(const DnnlMatmulSpec& s)
      : a(values(extent(s, s.a, s.m, s.k), 1)),
        b(values(extent(s, s.b, s.k, s.n), 2)),
        c(values(extent(s, s.c, s.m, s.n), 3)),
        bias(values(s.n, 4)),
        residual(values(extent(s, s.c, s.m, s.n), 5)) {}
};

std::vector<double> matmul_reference(const DnnlMatmulSpec& s, const Operands& o) {
  std::vector<double> c(o.c.begin(), o.c.end());
  std::int64_t batches = 1;
  for (auto b : s.batch) batches *= b;
  for (std::int64_t t = 0; t < batches; ++t) {
    std::int64_t at[3] = {0, 0, 0}, rest = t;
    for (std::size_t d = s.batch.size(); d-- > 0; rest /= s.batch[d]) {
      at[0] += rest % s.batch[d] * s.a.batch[d];
      at[1] += rest % s.batch[d] * s.b.batch[d];
      at[2] += rest % s.batch[d] * s.c.batch[d];
    }
    for (std::int64_t i = 0; i < s.m; ++i)
      for (std::int64_t j = 0; j < s.n; ++j) {
        const auto out = static_cast<std::size_t>(at[2] + i * s.c.row + j);
        double sum = 0;
        for (std::int64_t p = 0; p < s.k; ++p)
          sum += static_cast<double>(o.a[static_cast<std::size_t>(at[0] + i * s.a.row + p * s.a.col)]) *
                 static_cast<double>(o.b[static_cast<std::size_t>(at[1] + p * s.b.row + j * s.b.col)]);
        if (s.epilogue.bias) sum += static_cast<double>(o.bias[static_cast<std::size_t>(j)]);
        if (s.epilogue.residual) sum += static_cast<double>(o.residual[out]);
        if (s.epilogue.accumulate) sum += static_cast<double>(o.c[out]);
        c[out] = activate(s.epilogue.activation, sum);
      }
  }
  return c;
}

std::vector<float> run_matmul(const DnnlMatmulSpec& s, const Operands& o, const DnnlMatmul& mm) {
  std::vector<float> c = o.c;
  Buffer packed = Buffer::allocate(mm.pack_bytes()), scratch = Buffer::allocate(mm.scratchpad_bytes());
  if (mm.pack_bytes() > 0) mm.run_pack(o.b.data(), packed.mutable_data());
  DnnlMatmul::Args args;
  args.a = o.a.data();
  args.b = mm.pack_bytes() > 0 ? packed.data() : o.b.data();
  args.c = c.data();
  if (s.epilogue.bias) args.bias = o.bias.data();
  if (s.epilogue.residual) args.residual = o.residual.data();
  args.scratchpad = scratch.mutable_data();
  mm.run(args);
  return c;
}

void check_matmul(const DnnlMatmulSpec& s, MatmulPlan plan = MatmulPlan::automatic, int threads = 2) {
  const Operands o(s);
  const DnnlMatmul mm(s, threads, plan);
  EXPECT_EQ(mm.impl_name().find("ref"), std::string::npos) << mm.impl_name();
  const double slack = s.epilogue.activation == Epilogue::Activation::none ? 0 : 4e-6;
  EXPECT_LT(worst(run_matmul(s, o, mm), matmul_reference(s, o)), tolerance(s.k) + slack)
      << s.m << "x" << s.n << "x" << s.k << " plan " << static_cast<int>(mm.plan()) << " " << mm.impl_name();
}

TEST(DnnlMatmul, OddSizesTransposesAndPlans) {
  for (std::int64_t m : {1, 2, 7, 33, 129})
    for (std::int64_t n : {1, 8, 13, 65})
      for (std::int64_t k : {1, 5, 64, 131})
        for (int t = 0; t < 4; ++t)
          for (MatmulPlan plan : {MatmulPlan::automatic, MatmulPlan::packed, MatmulPlan::convolution})
            check_matmul(dense_matmul({}, m, n, k, t & 1, t & 2), plan, 1);
}

TEST(DnnlMatmul, CaseShapesUseFastKernels) {
  struct {
    std::int64_t m, n, k;
    bool ta, tb;
  } shapes[] = {{64, 512, 784, false, false},  {784, 512, 64, true, false},  {64, 512, 256, false, true},
                {64, 10, 256, false, false},   {256, 10, 64, true, false},   {64, 256, 10, false, true},
                {32, 1024, 256, false, false}, {512, 192, 768, false, true}, {192, 512, 333, true, false}};
  for (const auto& s : shapes) check_matmul(dense_matmul({}, s.m, s.n, s.k, s.ta, s.tb));
}

TEST(DnnlMatmul, PackingFollowsStrideAndReuse) {
  if (!detail::has_avx2() || detail::has_avx512()) GTEST_SKIP() << "the plans of AVX2";
  DnnlMatmulSpec reused = dense_matmul({}, 32, 1024, 256);
  reused.runs_per_pack = 64;
  const DnnlMatmul few(dense_matmul({}, 64, 512, 784), 1), some(dense_matmul({}, 192, 512, 784), 1);
  const DnnlMatmul many(dense_matmul({}, 512, 528, 784), 1), columns(dense_matmul({}, 512, 512, 784, true), 1);
  const DnnlMatmul harmless(dense_matmul({}, 64, 528, 784), 1);
  EXPECT_EQ(DnnlMatmul(reused, 1).plan(), MatmulPlan::convolution);
  EXPECT_EQ(few.plan(), MatmulPlan::convolution);
  EXPECT_EQ(some.plan(), MatmulPlan::packed);
  EXPECT_EQ(many.plan(), MatmulPlan::convolution);
  EXPECT_EQ(columns.plan(), MatmulPlan::packed);  // a convolution reads rows of A
  EXPECT_EQ(harmless.plan(), MatmulPlan::plain);
  EXPECT_EQ(few.pack_bytes(), std::size_t{784} * 512 * 4);
  EXPECT_EQ(some.pack_bytes(), std::size_t{784} * 528 * 4);
  EXPECT_EQ(harmless.pack_bytes(), 0u);
}

TEST(DnnlMatmul, ReluKeepsNaN) {
  DnnlMatmulSpec s = dense_matmul({}, 4, 8, 4);
  s.epilogue.activation = Epilogue::Activation::relu;
  Operands o(s);
  o.a[5] = std::numeric_limits<float>::quiet_NaN();
  for (MatmulPlan plan : {MatmulPlan::plain, MatmulPlan::convolution})
    for (std::size_t i = 0; i < 32; ++i)
      EXPECT_EQ(std::isnan(run_matmul(s, o, DnnlMatmul(s, 1, plan))[i]), i / 8 == 1) << i;
}

TEST(DnnlMatmul, Epilogues) {
  for (Epilogue::Activation act :
       {Epilogue::Activation::none, Epilogue::Activation::relu, Epilogue::Activation::tanh,
        Epilogue::Activation::sigmoid, Epilogue::Activation::gelu_tanh, Epilogue::Activation::gelu_erf})
    for (int bits = 0; bits < 8; ++bits)
      for (MatmulPlan plan : {MatmulPlan::plain, MatmulPlan::convolution}) {
        if ((bits & 6) == 6) continue;  // residual and old value together: not asked for
        DnnlMatmulSpec s = dense_matmul({}, 37, 24, 50);
        s.epilogue = {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, act};
        check_matmul(s, plan);
      }
}

TEST(DnnlMatmul, BatchesBroadcastAndStrides) {
  check_matmul(dense_matmul({5}, 9, 11, 13));
  check_matmul(dense_matmul({2, 3}, 9, 11, 13, true, false));
  check_matmul(dense_matmul({2, 3}, 9, 11, 13, false, true));
  DnnlMatmulSpec shared_b = dense_matmul({2, 3}, 9, 16, 13);
  shared_b.b.batch = {0, 0};
  check_matmul(shared_b);
  DnnlMatmulSpec shared_a = dense_matmul({4, 3}, 9, 16, 13);
  shared_a.a.batch = {9 * 13, 0};
  check_matmul(shared_a);
  // Attention heads read in place: [batch, time, head, dim], scores[b, h] = q[b, :, h, :] · k[b, :, h, :]^T.
  DnnlMatmulSpec heads = dense_matmul({2, 3}, 10, 10, 8, false, true);
  heads.a = {24, 1, {240, 8}};
  heads.b = {1, 24, {240, 8}};
  check_matmul(heads);
  DnnlMatmulSpec slice = dense_matmul({}, 9, 16, 13);  // rows of a wider matrix on every side
  slice.a.row = 20, slice.b.row = 31, slice.c.row = 40;
  for (bool bias : {false, true}) {
    slice.epilogue.bias = bias;
    check_matmul(slice);
  }
}

TEST(DnnlMatmul, EmptySizes) {
  for (auto [m, n, k] : {std::array<std::int64_t, 3>{0, 4, 5}, {4, 0, 5}, {4, 5, 0}, {0, 0, 0}}) {
    DnnlMatmulSpec s = dense_matmul({}, m, n, k);
    s.epilogue.bias = true;
    s.epilogue.activation = Epilogue::Activation::relu;
    check_matmul(s);
  }
  check_matmul(dense_matmul({0}, 3, 4, 5));
  check_matmul(dense_matmul({2}, 3, 4, 0));
}

TEST(DnnlMatmul, ThreadsFollowTheWork) {
  EXPECT_EQ(DnnlMatmul(dense_matmul({}, 16, 16, 16), 8).threads(), 1);
  EXPECT_EQ(DnnlMatmul(dense_matmul({}, 256, 256, 256), 2).threads(), 2);
}

TEST(DnnlMatmul, RefusesWhatItCannotDo) {
  EXPECT_THROW(DnnlMatmul(dense_matmul({}, 4, 4, 4, false, false, f64), 1), Error);
  DnnlMatmulSpec bad = dense_matmul({}, 4, 4, 4);
  bad.a.col = 2;
  EXPECT_THROW(DnnlMatmul(bad, 1), Error);
  DnnlMatmulSpec batch = dense_matmul({2}, 4, 4, 4);
  batch.a.batch.clear();
  EXPECT_THROW(DnnlMatmul(batch, 1), Error);
}

TEST(DnnlMatmul, BFloat16WhereTheProcessorHasIt) {
  if (!dnnl_supports(bf16)) {
    EXPECT_THROW(DnnlMatmul(dense_matmul({}, 4, 4, 4, false, false, bf16), 1), Error);
    return;
  }
  DnnlMatmulSpec s = dense_matmul({}, 33, 48, 65);
  s.in = bf16;
  const Operands o(s);
  std::vector<bfloat16> a(o.a.size()), b(o.b.size());
  Operands rounded = o;
  for (std::size_t i = 0; i < a.size(); ++i) rounded.a[i] = a[i] = bfloat16(o.a[i]);
  for (std::size_t i = 0; i < b.size(); ++i) rounded.b[i] = b[i] = bfloat16(o.b[i]);
  for (MatmulPlan plan : {MatmulPlan::plain, MatmulPlan::packed}) {
    const DnnlMatmul mm(s, 2, plan);
    std::vector<float> c = o.c;
    Buffer packed = Buffer::allocate(mm.pack_bytes()), scratch = Buffer::allocate(mm.scratchpad_bytes());
    if (mm.pack_bytes() > 0) mm.run_pack(b.data(), packed.mutable_data());
    DnnlMatmul::Args args;
    args.a = a.data();
    args.b = mm.pack_bytes() > 0 ? packed.data() : b.data();
    args.c = c.data();
    args.scratchpad = scratch.mutable_data();
    mm.run(args);
    EXPECT_LT(worst(c, matmul_reference(s, rounded)), tolerance(s.k)) << mm.impl_name();
  }
}

}  // namespace
}  // namespace bp::cpu

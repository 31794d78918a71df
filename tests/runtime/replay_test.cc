// What a replay promises: no allocation, states kept when the loss is not finite, NaN found by op and layer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <new>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"

namespace {
std::size_t allocations = 0;
}  // namespace

// Counts every allocation of this program by new. Arenas and results come from aligned_alloc, each with a control block
// counted here. Not inlined: g++ would warn of free() on what new returned.
[[gnu::noinline]] void* operator new(std::size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(n);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace bp {
namespace {

TEST(Replay, AllocatesNothing) {
  Variable w(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3})), b(Tensor::from<float>({0, 0, 0}));
  auto step = compile([&](Tensor x) {
    const Tensor y = tanh(matmul(x, w) + b);
    const Tensor loss = sum(y * y);
    w.set(w - 0.01 * grad(loss, w));
    b.set(b - 0.01 * grad(loss, b));
    return loss;
  });
  const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  for (int i = 0; i < 3; ++i) step(x).item();
  const std::size_t before = allocations;
  double total = 0;
  for (int i = 0; i < 100; ++i) total += step(x).item();
  EXPECT_EQ(allocations - before, 0u);
  EXPECT_GT(total, 0);
}

TEST(Replay, AGuardedStepKeepsTheStateWhenTheLossIsNotFinite) {
  Variable w(Tensor::from<double>({2}));
  auto step = compile(
      [&](Tensor x) {
        const Tensor loss = sum(log(w * x));
        w.set(w - 0.5 * grad(loss, w));
        return loss;
      },
      {.guard = true});
  step(Tensor::from<double>({1}));
  EXPECT_DOUBLE_EQ(w.get().item(), 1.75);
  EXPECT_TRUE(std::isnan(step(Tensor::from<double>({-1})).item()));
  EXPECT_DOUBLE_EQ(w.get().item(), 1.75);
}

TEST(Replay, LabelsOutOfRangeAreToldBeforeAnythingRuns) {
  Variable w(Tensor::from<double>({1, 2, 3, 4, 5, 6}, {2, 3}));
  auto step = compile([&](Tensor x, Tensor ids) {
    const Scope layer("head");
    const Tensor loss = cross_entropy(matmul(x, w), ids);
    w.set(w - grad(loss, w));
    return loss;
  });
  const Tensor x = Tensor::from<double>({1, 2, 3, 4}, {2, 2}), before = w.get();
  try {
    step(x, Tensor::from<std::int64_t>({2, 12}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::value);
    EXPECT_NE(std::string(e.what()).find("index 12 at position 1 is outside [0, 3)"), std::string::npos) << e.what();
  }
  EXPECT_EQ(w.get().to_vector<double>(), before.to_vector<double>());
}

TEST(Replay, DiagnoseNamesTheOperationAndTheLayer) {
  Variable w(Tensor::from<double>({2}));
  auto step = compile([&](Tensor x) {
    const Scope layer("block1.head");
    return sum(log(w * x));
  });
  EXPECT_EQ(step.diagnose(Tensor::from<double>({1})), "");
  const std::string found = step.diagnose(Tensor::from<double>({-1}));
  EXPECT_NE(found.find("[log] block1.head"), std::string::npos) << found;
}

TEST(Replay, ReportsItsPlanBeforeItRuns) {
  auto step = compile([&](Tensor x) { return sum(exp(x) * 2.0); });
  const ExecutableInfo info = step.prepare({Type{f32, {1000, 10}}});
  EXPECT_GE(info.planned_peak_bytes, 40000u);
  EXPECT_GT(info.flops, 0);
  EXPECT_NE(step.explain().find("after simplify"), std::string::npos);
  EXPECT_NE(step.explain().find("= f32["), std::string::npos);  // the graph itself
}

TEST(Replay, UnknownPassesAreRefused) {
  auto step = compile([&](Tensor x) { return x + x; }, {.disable_passes = {"simplfy"}});
  EXPECT_THROW(step(Tensor::from<double>({1})), Error);
}

}  // namespace
}  // namespace bp

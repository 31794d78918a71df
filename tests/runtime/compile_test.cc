// Evaluation, compile, Variables in and out of a trace, constant memory.
#include <gtest/gtest.h>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"

namespace bp {
namespace {

TEST(Evaluate, ComputesWhatIsAskedFor) {
  const Tensor x = Tensor::from<float>({1, 2, 3});
  const Tensor y = x * x + x;
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2, 6, 12}));
}

TEST(Evaluate, LongChainsNeitherOverflowNorGrow) {
  Tensor total = Tensor::from<double>({0});
  const Tensor one = Tensor::from<double>({1});
  for (int i = 0; i < 200000; ++i) total = total + one;
  EXPECT_EQ(total.item(), 200000);
}

TEST(Grad, OfAProductInEagerMode) {
  Variable w(Tensor::from<double>({3}));
  const Tensor x = Tensor::from<double>({2});
  const Tensor loss = reshape(w * x * w, Shape{});
  EXPECT_EQ(loss.item(), 18);  // read before grad: the history of a Variable survives
  EXPECT_EQ(grad(loss, w).item(), 12);
  EXPECT_EQ(grad(grad(reshape(w * w * w, Shape{}), w.get()) + 0.0, w.get()).item(), 18);
}

TEST(Grad, AfterReleaseIsAnError) {
  const Tensor x = Tensor::from<double>({2});
  const Tensor loss = reshape(x * x, Shape{});
  loss.item();
  EXPECT_THROW(grad(loss, x), Error);
  const Tensor marked = watch(x);
  const Tensor loss2 = reshape(marked * marked, Shape{});
  loss2.item();
  EXPECT_EQ(grad(loss2, marked).item(), 4);
}

TEST(Grad, OfAStaleVariableIsAnError) {
  Variable w(Tensor::from<double>({3}));
  const Tensor loss = reshape(w * w, Shape{});
  w.set(5.0);
  EXPECT_THROW(grad(loss, w), Error);
}

TEST(Compile, ReadsAndWritesVariables) {
  Variable w(Tensor::from<double>({3}));
  Variable lr(Tensor::from<double>({0.5}));
  auto step = compile([&](Tensor x) {
    Tensor loss = reshape(w * w * x, Shape{});
    w.set(w + grad(loss, w) * lr);
    return loss;
  });
  const Tensor one = Tensor::from<double>({1});
  EXPECT_EQ(step(one).item(), 9);
  EXPECT_EQ(w.get().item(), 6);
  EXPECT_EQ(step(one).item(), 36);
  EXPECT_EQ(w.get().item(), 12);
  lr.set(0.0);
  EXPECT_EQ(step(one).item(), 144);
  EXPECT_EQ(w.get().item(), 12);
  EXPECT_EQ(step.traces(), 1);
}

TEST(Compile, SnapshotsAreNeverOverwritten) {
  Variable w(Tensor::from<double>({1}));
  auto step = compile([&] { w.set(w + w); });
  const Tensor before = w.get();
  step();
  step();
  EXPECT_EQ(before.item(), 1);
  EXPECT_EQ(w.get().item(), 4);
}

TEST(Compile, SwapsStates) {
  Variable a(Tensor::from<double>({1})), b(Tensor::from<double>({2}));
  auto step = compile([&] {
    const Tensor old = a;
    a.set(b.get());
    b.set(old + old);
  });
  step();
  EXPECT_EQ(a.get().item(), 2);
  EXPECT_EQ(b.get().item(), 2);
  step();
  EXPECT_EQ(a.get().item(), 2);
  EXPECT_EQ(b.get().item(), 4);
}

TEST(Compile, AnExceptionWhileTracingChangesNothing) {
  Variable w(Tensor::from<double>({1}));
  auto step = compile([&](Tensor x) {
    w.set(w + w);
    return w * x.item();
  });
  try {
    step(Tensor::from<double>({1}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::trace);
    EXPECT_NE(std::string(e.what()).find("compile_test.cc"), std::string::npos) << e.what();
  }
  EXPECT_EQ(w.get().item(), 1);
}

TEST(Compile, LeakedValuesAreRefused) {
  Tensor leaked;
  auto step = compile([&](Tensor x) { return leaked = x * x; });
  step(Tensor::from<double>({1}));
  EXPECT_THROW(leaked.item(), Error);
  EXPECT_THROW(leaked + leaked, Error);
}

TEST(Compile, RecompilesForNewShapesOnly) {
  auto step = compile([&](Tensor x) { return x + x; });
  step(Tensor::from<double>({1, 2}));
  step(Tensor::from<double>({1, 2}));
  step(Tensor::from<double>({1, 2, 3}));
  step(Tensor::from<double>({1, 2}));
  EXPECT_EQ(step.traces(), 2);
}

TEST(Compile, ResultsStayValidWhileHeld) {
  auto step = compile([&](Tensor x) { return x + x; });
  const Tensor a = step(Tensor::from<double>({1}));
  const Tensor b = step(Tensor::from<double>({2}));
  EXPECT_EQ(a.item(), 2);
  EXPECT_EQ(b.item(), 4);
}

TEST(Variable, CopiesAreDeepAndMovesKeepIdentity) {
  Variable a(Tensor::from<double>({1}));
  Variable copy = a;
  copy.set(5.0);
  EXPECT_EQ(a.get().item(), 1);
  Variable moved = std::move(a);
  EXPECT_EQ(moved.get().item(), 1);
}

}  // namespace
}  // namespace bp

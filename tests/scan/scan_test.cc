// scan and cond: values against loops unrolled by hand, gradients against finite differences, errors.
#include "bp/scan.h"

#include <gtest/gtest.h>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/ops.h"
#include "bp/variable.h"

namespace bp {
namespace {

Tensor noise(const Shape& shape, std::uint64_t seed, DType dtype = f64) {
  return random_uniform(random_state(Key(seed)), shape, dtype) * 2 - 1;
}

// h = tanh(x W + h U + b), y = h * h.
struct Cell {
  Tensor w, u, b;
  Scanned operator()(std::span<const Tensor> carry, std::span<const Tensor> x) const {
    const Tensor h = tanh(matmul(x[0], w) + matmul(carry[0], u) + b);
    return {{h}, {h * h}};
  }
};

struct Sequence {
  std::int64_t time = 7, batch = 3, in = 4, hidden = 5;
  std::vector<Tensor> tensors() const {
    return {noise({time, batch, in}, 1), noise({batch, hidden}, 2), noise({in, hidden}, 3), noise({hidden, hidden}, 4),
            noise({hidden}, 5)};
  }
  static std::vector<Tensor> looped(std::span<const Tensor> t, const ScanOptions& options = {}) {
    const Scanned out = scan(Cell{t[2], t[3], t[4]}, {t[1]}, {t[0]}, options);
    return {out.carry[0], out.ys[0]};
  }
  static std::vector<Tensor> unrolled(std::span<const Tensor> t, bool reversed = false) {
    const Cell cell{t[2], t[3], t[4]};
    const std::int64_t n = t[0].shape()[0];
    Tensor h = t[1];
    std::vector<Tensor> ys(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t at = reversed ? n - 1 - i : i;
      const Tensor x[] = {squeeze(slice(t[0], 0, at, at + 1), 0)};
      const Scanned step = cell(std::span(&h, 1), x);
      h = step.carry[0];
      ys[static_cast<std::size_t>(at)] = step.ys[0];
    }
    return {h, stack(ys, 0)};
  }
};

void expect_near(const Tensor& a, const Tensor& b, double tolerance) {
  ASSERT_EQ(a.shape(), b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance) << i;
}

// Loss over all results, so that every cotangent is present; its gradients by all inputs.
std::vector<Tensor> loss_and_grads(const std::vector<Tensor>& results, std::span<const Tensor> xs) {
  Tensor loss = scalar(0, f64);
  double weight = 1;
  for (const Tensor& r : results) loss = loss + sum(sin(r * (weight += 0.5)));
  std::vector<Tensor> out = grad(loss, xs);
  out.insert(out.begin(), loss);
  return out;
}

TEST(Scan, EqualsTheUnrolledLoop) {
  for (const bool reverse : {false, true}) {
    const auto t = Sequence{}.tensors();
    std::vector<Tensor> x;
    for (const Tensor& v : t) x.push_back(watch(v));
    const auto a = loss_and_grads(Sequence::looped(x, {.reverse = reverse}), x);
    const auto b = loss_and_grads(Sequence::unrolled(x, reverse), x);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) expect_near(a[i], b[i], 1e-12);
  }
}

TEST(Scan, GradientsOfBothOrdersAgreeWithFiniteDifferences) {
  const Sequence s{3, 2, 2, 3};
  for (const std::int64_t segment : {0, 2}) {
    const auto f = [&](std::span<const Tensor> t) { return Sequence::looped(t, {.segment = segment}); };
    const GradcheckResult r = gradcheck(f, s.tensors(), {.second_order = true});
    EXPECT_TRUE(r.ok) << segment << ": " << r.str();
  }
}

TEST(Scan, CheckpointedSegmentsGiveTheSameBits) {
  for (const bool reverse : {false, true})
    for (const std::int64_t segment :
         {std::int64_t{1}, std::int64_t{3}, std::int64_t{7}, std::int64_t{50}, ScanOptions::kSqrt}) {
      const auto t = Sequence{}.tensors();
      std::vector<Tensor> x;
      for (const Tensor& v : t) x.push_back(watch(v));
      const auto a = loss_and_grads(Sequence::looped(x, {.reverse = reverse, .segment = segment}), x);
      const auto b = loss_and_grads(Sequence::looped(x, {.reverse = reverse}), x);
      for (std::size_t i = 0; i < a.size(); ++i) expect_near(a[i], b[i], 1e-13);
    }
}

TEST(Scan, SeveralCarriesIntegersMasksAndOutputsThatAreCarries) {
  // A running sum that stops at each row's length; the step counts in i64.
  const Tensor x = noise({6, 4}, 9), lengths = Tensor::from<std::int64_t>({6, 0, 3, 1});
  const auto f = [&](std::span<const Tensor> in) {
    const Scanned out = scan(
        [&](std::span<const Tensor> c, std::span<const Tensor> s) -> Scanned {
          const Tensor next = select(less(c[0], lengths), c[1] + s[0] * c[1], c[1]);
          return {{c[0] + 1, next}, {c[1], next, cast(c[0], f64)}};
        },
        {zeros({4}, i64), in[1]}, {in[0]});
    return std::vector<Tensor>{out.carry[1], out.ys[0], out.ys[1], out.carry[0], out.ys[2]};
  };
  const Tensor start = noise({4}, 10);
  const std::vector<Tensor> in{x, start};
  const auto out = f(in);
  const auto xs = x.to_vector<double>(), c0 = start.to_vector<double>(), got = out[0].to_vector<double>();
  const std::vector<std::int64_t> n{6, 0, 3, 1};
  for (std::size_t j = 0; j < 4; ++j) {
    double c = c0[j];
    for (std::size_t i = 0; i < static_cast<std::size_t>(n[j]); ++i) c += xs[i * 4 + j] * c;
    EXPECT_NEAR(got[j], c, 1e-13) << j;
  }
  EXPECT_EQ(out[3].to_vector<std::int64_t>(), (std::vector<std::int64_t>{6, 6, 6, 6}));
  const GradcheckResult r = gradcheck(
      [&](std::span<const Tensor> t) {
        auto o = f(t);
        return std::vector<Tensor>{o[0], o[1], o[2]};
      },
      in, {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
}

TEST(Scan, LoopsInLoops) {
  const auto f = [](std::span<const Tensor> t) {
    const Scanned out = scan(
        [&](std::span<const Tensor> c, std::span<const Tensor> x) -> Scanned {
          const Scanned inner = scan(
              [&](std::span<const Tensor> d, std::span<const Tensor> y) -> Scanned {
                return {{sin(d[0] * y[0] + c[0] * t[1])}, {d[0] * c[0]}};
              },
              {x[0]}, {t[2]});
          return {{c[0] + inner.carry[0] * 0.5}, {sum(inner.ys[0], {0})}};
        },
        {t[0]}, {t[3]});
    return std::vector<Tensor>{out.carry[0], out.ys[0]};
  };
  const GradcheckResult r =
      gradcheck(f, {noise({3}, 1), noise({3}, 2), noise({2, 3}, 3), noise({4, 3}, 4)}, {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
}

TEST(Scan, ZeroIterationsAndOne) {
  const Sequence s{0, 3, 4, 5};
  const auto t = s.tensors();
  const auto out = Sequence::looped(t);
  expect_near(out[0], t[1], 0);
  EXPECT_EQ(out[1].shape(), (Shape{0, 3, 5}));
  std::vector<Tensor> x;
  for (const Tensor& v : t) x.push_back(watch(v));
  const auto g = loss_and_grads(Sequence::looped(x), x);
  expect_near(g[3], zeros({4, 5}, f64), 0);
  const auto one = Sequence{1, 3, 4, 5}.tensors();
  expect_near(Sequence::looped(one)[0], Sequence::unrolled(one)[0], 1e-14);
}

TEST(Scan, WithoutSlicesCountsByLength) {
  const Scanned out = scan(
      [](std::span<const Tensor> c, std::span<const Tensor>) -> Scanned {
        return {{c[0] * 2}, {}};
      },
      {scalar(1, f64)}, {}, {.length = 10});
  EXPECT_EQ(out.carry[0].item(), 1024);
}

TEST(Scan, RandomDrawsDifferByIterationAndRepeat) {
  const Tensor state = random_state(Key(3));
  const auto draw = [&] {
    return scan(
               [&](std::span<const Tensor>, std::span<const Tensor>) -> Scanned {
                 return {{}, {random_uniform(state, {8}, f64)}};
               },
               {}, {}, {.length = 5})
        .ys[0]
        .to_vector<double>();
  };
  const auto a = draw();
  EXPECT_EQ(a, draw());
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_NE(std::vector<double>(a.begin() + 8 * i, a.begin() + 8 * i + 8),
                std::vector<double>(a.begin() + 8 * j, a.begin() + 8 * j + 8));
}

TEST(Scan, WorksInsideACompiledStepWithVariables) {
  Variable u(noise({5, 5}, 4));
  const auto t = Sequence{}.tensors();
  auto step = compile([&](const Tensor& x) {
    const Tensor loss = mean(scan(Cell{t[2], u, t[4]}, {t[1]}, {x}).ys[0]);
    u.set(u.get() - grad(loss, u) * 0.1);
    return loss;
  });
  const double first = step(t[0]).item();
  double last = first;
  for (int i = 0; i < 20; ++i) last = step(t[0]).item();
  EXPECT_LT(last, first);
}

TEST(Scan, RefusesWhatItCannotDo) {
  const auto t = Sequence{}.tensors();
  const auto expect = [](ErrorKind kind, const char* text, const std::function<void()>& f) {
    try {
      f();
      ADD_FAILURE() << "nothing was thrown: " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), kind) << e.what();
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
  };
  using Span = std::span<const Tensor>;
  expect(ErrorKind::shape, "carry 0 must keep its type", [&] {
    scan([](Span c, Span) -> Scanned { return {{reshape(c[0], {-1})}, {}}; }, {t[1]}, {t[0]});
  });
  expect(ErrorKind::dtype, "carry 0 must keep its type", [&] {
    scan([](Span c, Span) -> Scanned { return {{cast(c[0], f32)}, {}}; }, {t[1]}, {t[0]});
  });
  expect(ErrorKind::value, "1 carries where 2", [&] {
    scan([](Span c, Span) -> Scanned { return {{c[0]}, {}}; }, {t[1], t[1]}, {t[0]});
  });
  expect(ErrorKind::shape, "7 slices", [&] {
    scan([](Span c, Span) -> Scanned { return {{c[0]}, {}}; }, {t[1]}, {t[0], zeros({6, 2})});
  });
  expect(ErrorKind::value, "length must be given", [&] {
    scan([](Span c, Span) -> Scanned { return {{c[0]}, {}}; }, {t[1]}, {});
  });
  expect(ErrorKind::trace, "read inside the body", [&] {
    scan([](Span c, Span) -> Scanned { return {{c[0] * sum(c[0]).item()}, {}}; }, {t[1]}, {t[0]});
  });
  Variable v(zeros({3, 5}, f64));
  expect(ErrorKind::trace, "assign it after", [&] {
    scan(
        [&](Span c, Span) -> Scanned {
          v.set(c[0]);
          return {{c[0]}, {}};
        },
        {t[1]}, {t[0]});
  });
  Tensor kept;
  scan(
      [&](Span c, Span) -> Scanned {
        kept = c[0] * 2;
        return {{c[0]}, {}};
      },
      {t[1]}, {t[0]});
  expect(ErrorKind::trace, "body of a scan or cond that has ended", [&] { kept + 1; });
  expect(ErrorKind::trace, "no value of its own", [&] { kept.to_vector<double>(); });
}

TEST(Scan, DiagnosisNamesTheOperationAndTheIteration) {
  auto step = compile([](const Tensor& x) {
    const Scope scope("decoder");
    return scan(
               [](std::span<const Tensor> c, std::span<const Tensor> s) -> Scanned {
                 return {{log(c[0] - s[0])}, {}};
               },
               {scalar(5, f64)}, {x})
        .carry[0];
  });
  const std::string found = step.diagnose(Tensor::from({1.0, 0.5, 9.0, 1.0}));
  EXPECT_NE(found.find("[log] decoder: the first operation to give"), std::string::npos) << found;
  EXPECT_NE(found.find("in iteration 2 of 4"), std::string::npos) << found;
}

TEST(Scan, IdsOutOfRangeInsideALoopAreAnErrorBeforeItRuns) {
  const Tensor table = noise({5, 2}, 1);
  auto step = compile([&](const Tensor& ids) {
    return scan(
               [&](std::span<const Tensor> c, std::span<const Tensor> s) -> Scanned {
                 const Scope scope("embed");
                 return {{c[0] + gather(table, s[0])}, {}};
               },
               {zeros({3, 2}, f64)}, {ids})
        .carry[0];
  });
  step(Tensor::from<std::int64_t>({0, 1, 2, 3, 4, 0}, {2, 3}));
  try {
    step(Tensor::from<std::int64_t>({0, 1, 2, 3, 5, 0}, {2, 3}));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) { EXPECT_STREQ(e.what(), "[embed] index 5 at position 4 is outside [0, 5)"); }
}

TEST(Cond, TakesOneBranchForwardAndBackward) {
  const auto f = [](std::span<const Tensor> t) {
    return cond(
        sum(t[0]) > 0.0,
        [&](std::span<const Tensor> x) {
          return std::vector<Tensor>{sin(x[0]) * t[1], x[1]};
        },
        [&](std::span<const Tensor> x) {
          return std::vector<Tensor>{x[0] * x[1], exp(x[1])};
        },
        {t[0], t[1]});
  };
  for (const double shift : {2.0, -2.0}) {
    const Tensor a = noise({4}, 1) + shift, b = noise({4}, 2);
    const std::vector<Tensor> in{a, b};
    const auto out = f(in);
    expect_near(out[0], shift > 0 ? sin(a) * b : a * b, 1e-15);
    expect_near(out[1], shift > 0 ? b : exp(b), 1e-15);
    const GradcheckResult r = gradcheck(f, in, {.second_order = true});
    EXPECT_TRUE(r.ok) << r.str();
  }
  EXPECT_THROW(cond(
                   scalar(1), [](std::span<const Tensor> x) { return std::vector<Tensor>{x[0]}; },
                   [](std::span<const Tensor> x) { return std::vector<Tensor>{x[0]}; }, {scalar(1)}),
               Error);
}

// A reshape made before the loop may be what somebody differentiates by: it does not vanish in the body.
TEST(Scan, GradientByAReshapedValueFromOutside) {
  const Tensor w = watch(noise({2, 3}, 1)), x = noise({4, 3}, 2);
  const Tensor flat = reshape(w, {6});
  const Tensor y = scan(
                       [&](std::span<const Tensor> c, std::span<const Tensor> s) -> Scanned {
                         return {{c[0] + sum(reshape(flat, {2, 3}) * s[0])}, {}};
                       },
                       {scalar(0, f64)}, {x})
                       .carry[0];
  const Tensor sums = sum(x, {0});
  expect_near(grad(y, flat), concatenate({sums, sums}, 0), 1e-14);
}

TEST(Cond, InsideALoop) {
  const auto f = [](std::span<const Tensor> t) {
    return scan(
               [&](std::span<const Tensor> c, std::span<const Tensor> x) -> Scanned {
                 const auto next = cond(
                     sum(c[0]) > 0.0, [](std::span<const Tensor> o) { return std::vector<Tensor>{o[0] - o[1] * o[1]}; },
                     [](std::span<const Tensor> o) { return std::vector<Tensor>{o[0] + exp(o[1])}; }, {c[0], x[0]});
                 return {next, {next[0]}};
               },
               {t[0]}, {t[1]})
        .ys;
  };
  const GradcheckResult r = gradcheck(f, {noise({3}, 1), noise({6, 3}, 2)}, {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
}

}  // namespace
}  // namespace bp

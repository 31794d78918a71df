// The checker is itself checked: rules broken on purpose must fail, right ones pass.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"

namespace bp {
namespace {

using Tensors = std::vector<Tensor>;
using testing::HasSubstr;

const Tensor kX = Tensor::from({0.3, -1.2, 0.8, 2.1, -0.4}), kY = Tensor::from({1.5, 0.2, -0.7, 0.9, 1.1});

// x^2 y with the cotangents that `backward` makes of (x, y, d).
Function square_times(std::function<Tensors(const Tensor&, const Tensor&, const Tensor&)> backward) {
  return [backward](std::span<const Tensor> xs) {
    return custom_vjp([](std::span<const Tensor> in) { return Tensors{in[0] * in[0] * in[1]}; },
                      [backward](std::span<const Tensor> in, std::span<const Tensor>, std::span<const Tensor> d) {
                        return backward(in[0], in[1], d[0]);
                      },
                      xs);
  };
}

GradcheckResult check(std::function<Tensors(const Tensor&, const Tensor&, const Tensor&)> backward,
                      bool second_order = false) {
  return gradcheck(square_times(std::move(backward)), {kX, kY}, {.second_order = second_order});
}

TEST(Gradcheck, PassesARightRule) {
  const auto right = [](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * x * y, d * x * x};
  };
  const GradcheckResult r = check(right, true);
  EXPECT_TRUE(r.ok) << r.str();
  EXPECT_LT(r.worst, 0.1);
}

TEST(Gradcheck, FindsAWrongFactor) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 1.0001 * 2 * x * y, d * x * x};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 0);
  EXPECT_NEAR(r.analytic / r.numeric, 1.0001, 1e-6);
}

TEST(Gradcheck, FindsAWrongSign) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * x * y, -(d * x * x)};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 1);
  EXPECT_NEAR(r.analytic, -r.numeric, 1e-6);
}

TEST(Gradcheck, FindsAMissingTerm) {
  // The product rule forgotten: x^2 y through one of its two factors only.
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * x * y, d * x * x};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 0);
  EXPECT_NEAR(2 * r.analytic, r.numeric, 1e-6);
}

TEST(Gradcheck, FindsAnInputThatGetsNothing) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * x * y, Tensor()};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 1);
  EXPECT_EQ(r.analytic, 0);
}

TEST(Gradcheck, FindsTheOneElementThatIsWrong) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * x * y, d * x * x * Tensor::from({1.0, 1.0, 1.0, 1.01, 1.0})};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 1);
  EXPECT_EQ(r.element, 3);
  EXPECT_THAT(r.str(),
              testing::AllOf(HasSubstr("input 1, element 3"), HasSubstr("analytic"), HasSubstr("first order")));
}

TEST(Gradcheck, FindsElementsInTheWrongOrder) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{reverse(d * 2 * x * y, {0}), d * x * x};
  });
  EXPECT_FALSE(r.ok);
}

TEST(Gradcheck, FindsARuleThatForgetsTheCotangent) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor&) {
    return Tensors{2 * x * y, x * x};
  });
  EXPECT_FALSE(r.ok);
}

TEST(Gradcheck, FindsANaNGradient) {
  const GradcheckResult r = check([](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * x * y * log(zeros_like(x) - 1), d * x * x};
  });
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.input, 0);
}

TEST(Gradcheck, FindsASecondOrderThatIsWrong) {
  // Right in the first order, but the rule hides from its own gradient that it depends on x.
  const auto rule = [](const Tensor& x, const Tensor& y, const Tensor& d) {
    return Tensors{d * 2 * stop_gradient(x) * y, d * x * x};
  };
  EXPECT_TRUE(check(rule).ok);
  const GradcheckResult r = check(rule, true);
  EXPECT_FALSE(r.ok);
  EXPECT_EQ(r.order, 2);
  EXPECT_THAT(r.str(), HasSubstr("second order"));
}

TEST(Gradcheck, ManyOutputsAndIntegerInputs) {
  const Function f = [](std::span<const Tensor> x) {
    return Tensors{x[0] * x[1], sin(x[0]), x[1] + 1};  // the last has no gradient to check
  };
  const GradcheckResult r = gradcheck(f, {kX, Tensor::from({1, 2, 3, 4, 5})}, {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
  EXPECT_EQ(r.input, 0);
}

TEST(Gradcheck, NothingToCheckIsRight) {
  const GradcheckResult r =
      gradcheck([](const Tensor& x) { return exp(x); }, zeros({0, 3}, f64), {.second_order = true});
  EXPECT_TRUE(r.ok);
  EXPECT_EQ(r.element, -1);
  EXPECT_EQ(r.str(), "no elements to check");
}

TEST(Gradcheck, OneFunctionOfALargeValue) {
  const auto r = gradcheck([](const Tensor& x) { return square(x); }, Tensor::from({1e6, -3e5}));
  EXPECT_TRUE(r.ok) << r.str();
}

TEST(Gradcheck, RefusesWhatProvesNothing) {
  const auto kind = [](auto f) {
    try {
      f();
    } catch (const Error& e) { return e.kind(); }
    return ErrorKind::interrupted;
  };
  const auto same = [](const Tensor& x) { return x * 2; };
  EXPECT_EQ(kind([&] { gradcheck(same, ones({2}, f32)); }), ErrorKind::dtype);
  EXPECT_EQ(kind([&] { gradcheck(same, ones({2}, i64)); }), ErrorKind::dtype);
  EXPECT_EQ(kind([&] { gradcheck([](const Tensor& x) { return cast(x, f32); }, ones({2}, f64)); }), ErrorKind::dtype);
  EXPECT_EQ(kind([&] { gradcheck(same, ones({2}, f64), {.eps = 0}); }), ErrorKind::value);
}

}  // namespace
}  // namespace bp

// custom_op and custom_vjp: misuse, exceptions, and what of them reaches the engine.
#include <gtest/gtest.h>

#include <stdexcept>

#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "message_of.h"
#include "trace/node.h"

namespace bp {
namespace {

CustomOp twice() {
  CustomOp op;
  op.name = "twice";
  op.infer = [](std::span<const Type> in) { return std::vector<Type>{in[0]}; };
  op.forward = [](std::span<const void* const> in, std::span<void* const> out, std::span<const Type> types) {
    for (std::int64_t i = 0; i < types[0].shape.numel(); ++i)
      static_cast<double*>(out[0])[i] = 2 * static_cast<const double*>(in[0])[i];
  };
  return op;
}

Tensor apply(CustomOp op, const Tensor& x) {
  return custom_op(std::make_shared<const CustomOp>(std::move(op)), {x})[0];
}

Tensor three() { return watch(Tensor::from<double>({1, 2, 3})); }

TEST(Custom, RunsTheUsersFunction) {
  EXPECT_EQ(apply(twice(), three()).to_vector<double>(), (std::vector<double>{2, 4, 6}));
}

TEST(Custom, WithoutVjpAGradientThrowsNamingIt) {
  const Tensor x = three();
  EXPECT_EQ(error_of([&] { grad(sum(apply(twice(), x)), x); }),
            "gradient: [custom] twice has no gradient: give its CustomOp a vjp");
}

TEST(Custom, MisuseIsExplained) {
  EXPECT_EQ(error_of([] { custom_op(nullptr, {}); }), "value: [custom] the CustomOp is null");
  CustomOp op = twice();
  op.forward = nullptr;
  EXPECT_EQ(error_of([&] { apply(op, three()); }), "value: [custom] twice: a CustomOp needs both infer and forward");
  op = twice();
  op.infer = [](std::span<const Type>) { return std::vector<Type>{}; };
  EXPECT_EQ(error_of([&] { apply(op, three()); }), "value: [custom] twice: infer returned no outputs");
  const Tensor x = three();
  op = twice();
  op.vjp = [](auto, auto, auto) { return std::vector<Tensor>{}; };
  EXPECT_EQ(error_of([&] { grad(sum(apply(op, x)), x); }),
            "gradient: [custom] twice: its vjp: expected a cotangent for each of 1 inputs, got 0");
  op.vjp = [](auto, auto, auto d) { return std::vector<Tensor>{sum(d[0])}; };
  EXPECT_EQ(error_of([&] { grad(sum(apply(op, x)), x); }),
            "gradient: [custom] twice: its vjp: expected the cotangent of input 0 to be f64[3], got f64[]");
}

TEST(Custom, ExceptionsOfTheUserPassAsTheyAre) {
  struct Mine : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  CustomOp op = twice();
  op.forward = [](auto, auto, auto) { throw Mine("out of fuel"); };
  const Tensor y = apply(op, three());
  EXPECT_THROW((void)y.item<double>(), Error);  // three elements
  EXPECT_THROW((void)sum(y).item(), Mine);
  EXPECT_THROW((void)sum(y).item(), Mine);  // and again: nothing was half evaluated
  op = twice();
  op.infer = [](std::span<const Type>) -> std::vector<Type> { throw Mine("no such type"); };
  EXPECT_THROW(apply(op, three()), Mine);
}

TEST(Custom, EveryFloatingOutputHasACotangent) {
  CustomOp op = twice();
  op.infer = [](std::span<const Type> in) { return std::vector<Type>{in[0], in[0]}; };
  op.forward = [](auto, auto, auto) {};
  std::vector<bool> defined;
  op.vjp = [&](std::span<const Tensor>, std::span<const Tensor>, std::span<const Tensor> d) {
    for (const Tensor& t : d) defined.push_back(t.defined());
    return std::vector<Tensor>{d[0] + d[1]};
  };
  const Tensor x = three();
  grad(sum(custom_op(std::make_shared<const CustomOp>(op), {x})[1]), x);
  EXPECT_EQ(defined, (std::vector<bool>{true, true}));
}

TEST(Custom, GraphsAreEqualWhenTheirCustomOpsAreTheSameObject) {
  const auto graph = [](const std::shared_ptr<const CustomOp>& op) {
    const Tensor y = custom_op(op, {three()})[0];
    return detail::capture(std::span(&y, 1), {}, {}, 0).graph;
  };
  const auto a = std::make_shared<const CustomOp>(twice()), b = std::make_shared<const CustomOp>(twice());
  EXPECT_TRUE(graph(a).same_structure(graph(a)));
  EXPECT_EQ(graph(a).hash(), graph(a).hash());
  EXPECT_FALSE(graph(a).same_structure(graph(b)));
}

TEST(CustomVjp, TheUsersGradientReplacesTheFunctions) {
  const Tensor x = three();
  const auto straight_through = [](std::span<const Tensor>, std::span<const Tensor>, std::span<const Tensor> d) {
    return std::vector<Tensor>{d[0] * 10};
  };
  const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{round(in[0] * 0.6)}; };
  const Tensor y = custom_vjp(f, straight_through, std::vector{x})[0];
  EXPECT_EQ(y.to_vector<double>(), (std::vector<double>{1, 1, 2}));
  EXPECT_EQ(grad(sum(y), x).to_vector<double>(), (std::vector<double>{10, 10, 10}));
}

TEST(CustomVjp, ArgumentsAndResultsArePassedInOrder) {
  const Tensor a = three(), b = watch(Tensor::from<double>({4, 5, 6}));
  const auto backward = [](std::span<const Tensor> in, std::span<const Tensor> out, std::span<const Tensor> d) {
    EXPECT_EQ(in.size(), 2u);
    EXPECT_EQ(out.size(), 2u);
    return std::vector<Tensor>{out[0] * d[0], out[1] * d[1]};
  };
  const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] + in[1], in[0] * in[1]}; };
  const std::vector<Tensor> y = custom_vjp(f, backward, std::vector{a, b});
  const std::vector<Tensor> d = grad(sum(y[0]) + 2.0 * sum(y[1]), std::vector{a, b});
  EXPECT_EQ(d[0].to_vector<double>(), (std::vector<double>{5, 7, 9}));
  EXPECT_EQ(d[1].to_vector<double>(), (std::vector<double>{8, 20, 36}));
}

TEST(CustomVjp, MisuseIsExplained) {
  const Tensor x = three();
  const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] * 2.0}; };
  EXPECT_EQ(error_of([&] { custom_vjp(f, nullptr, std::vector{x}); }),
            "value: [custom_vjp] needs both a function and its backward");
  const auto none = [](auto, auto, auto) { return std::vector<Tensor>{}; };
  EXPECT_EQ(error_of([&] { grad(sum(custom_vjp(f, none, std::vector{x})[0]), x); }),
            "gradient: [custom_vjp] expected a cotangent for each of 1 inputs, got 0");
}

// Executables do not keep what a backward captured.
TEST(CustomVjp, TheBackwardIsLetGoWithTheTensors) {
  auto captured = std::make_shared<int>(7);
  const std::weak_ptr<int> alive = captured;
  {
    const Tensor x = three();
    const auto f = [](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] * 2.0}; };
    const auto backward = [captured](auto, auto, std::span<const Tensor> d) { return std::vector<Tensor>{d[0]}; };
    const Tensor y = custom_vjp(f, backward, std::vector{x})[0];
    EXPECT_EQ(grad(sum(y), x).to_vector<double>(), (std::vector<double>{1, 1, 1}));
    EXPECT_EQ(y.to_vector<double>(), (std::vector<double>{2, 4, 6}));
  }
  captured.reset();
  EXPECT_TRUE(alive.expired());
}

}  // namespace
}  // namespace bp

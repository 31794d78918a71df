// What simplify folds, cancels and merges, and that it never changes a result.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "bp/ops.h"
#include "ops/interpret.h"
#include "passes/pipeline.h"
#include "trace/node.h"

namespace bp {
namespace {

struct Traced {
  ir::Graph before, after;
};

// f as a graph of one argument, before and after the pass; both must give the same on `x`.
template <class F> Traced simplified(F f, const Tensor& x) {
  const Tensor in = detail::make_placeholder(x.type(), 0);
  const Tensor out = f(in);
  Traced t;
  t.before = detail::capture(std::span(&out, 1), std::span(&in, 1), {}, 0).graph;
  t.after = passes::simplify(t.before);
  t.after.verify();
  std::vector<const void*> data;
  for (const ir::Input& i : t.before.inputs)
    data.push_back(i.kind == ir::InputKind::constant ? i.constant.data() : x.buffer().data());
  const Buffer a = ops::interpret(t.before, data)[0], b = ops::interpret(t.after, data)[0];
  EXPECT_EQ(a.bytes(), b.bytes());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.bytes()), 0);
  return t;
}

std::size_t count(const ir::Graph& g, ir::OpId op) {
  std::size_t n = 0;
  for (const ir::Node& node : g.nodes) n += node.op == op;
  return n;
}

const Tensor kX = Tensor::from<float>({1, -2, 3, 4, 5, -6}, {2, 3});

TEST(Simplify, MergesEqualNodes) {
  const Traced t = simplified([](const Tensor& x) { return exp(x) + exp(x); }, kX);
  EXPECT_EQ(count(t.before, ir::OpId::exp), 2u);
  EXPECT_EQ(count(t.after, ir::OpId::exp), 1u);
}

TEST(Simplify, AxesThatAreApartAreReducedOneAfterTheOther) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, {2, 2, 2, 2});
  const Traced t = simplified([](const Tensor& v) { return max(v, {0, 2}) + sum(v, {1, 3}); }, x);  // exact numbers
  EXPECT_EQ(count(t.before, ir::OpId::reduce_sum), 1u);
  EXPECT_EQ(count(t.after, ir::OpId::reduce_sum), 2u);
  EXPECT_EQ(count(t.after, ir::OpId::reduce_max), 2u);
  // A size of 1 between them separates nothing.
  const Traced one = simplified([](const Tensor& v) { return sum(reshape(v, {4, 1, 4}), {0, 2}); }, x);
  EXPECT_EQ(count(one.after, ir::OpId::reduce_sum), 1u);
}

TEST(Simplify, FoldsUniformConstants) {
  const Traced t = simplified([](const Tensor& x) { return x * (full({}, 2) * full({}, 3) + 1.0); }, kX);
  EXPECT_EQ(count(t.after, ir::OpId::mul), 1u);
  EXPECT_EQ(count(t.after, ir::OpId::add), 0u);
}

TEST(Simplify, CancelsInversePairs) {
  const Traced t = simplified([](const Tensor& x) { return neg(neg(transpose(transpose(x)))) * 1.0 + 0.0; }, kX);
  EXPECT_EQ(t.after.nodes.size(), 1u);
}

TEST(Simplify, TransposesBecomeFlagsOfProducts) {
  const Traced t = simplified([](const Tensor& x) { return matmul(transpose(x), x); }, kX);
  EXPECT_EQ(count(t.after, ir::OpId::transpose), 0u);
}

// An embedding read time first: the indices are transposed, not the slices; so are those that its gradient goes to.
TEST(Simplify, TransposedGathersGatherInThatOrder) {
  const Tensor ids = Tensor::from<std::int64_t>({0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1}, {3, 2, 2});
  const auto biggest = [](const ir::Graph& g) {
    std::int64_t n = 0;
    for (const ir::Node& node : g.nodes)
      if (node.op == ir::OpId::transpose) n = std::max(n, node.types[0].shape.numel());
    return n;
  };
  const auto gathered = [&](const Tensor& x) { return transpose(gather(x, ids), {2, 0, 1, 3}); };
  const Traced there = simplified(gathered, kX);
  EXPECT_EQ(biggest(there.before), 36);
  EXPECT_EQ(biggest(there.after), 12);
  const Tensor updates = cast(reshape(arange(36), {2, 3, 2, 3}), f32);
  const Traced back = simplified(
      [&](const Tensor& x) {
        return scatter_add({2, 3}, ids, transpose(x, {1, 2, 0, 3}));
      },
      updates);
  EXPECT_EQ(biggest(back.before), 36);
  EXPECT_EQ(biggest(back.after), 12);
  // Slices that are themselves turned stay as they are.
  const Traced turned = simplified([&](const Tensor& x) { return transpose(gather(x, ids), {2, 0, 3, 1}); }, kX);
  EXPECT_EQ(biggest(turned.after), 36);
}

TEST(Simplify, KeepsCastsThatLose) {
  const Traced t = simplified([](const Tensor& x) { return cast(cast(x * 0.3, i32), f32); }, kX);
  EXPECT_EQ(count(t.after, ir::OpId::cast), 2u);
  const Traced wide = simplified([](const Tensor& x) { return cast(cast(x, f64), f32); }, kX);
  EXPECT_EQ(count(wide.after, ir::OpId::cast), 0u);
}

// Not bit for bit: one rounding where there were many.
TEST(Simplify, FactorsLeaveSums) {
  const Tensor rows = Tensor::from<float>({2, -3}, {2, 1}), columns = Tensor::from<float>({1, 2, 4}, {3});
  const auto products_over_all = [](const ir::Graph& g) {
    std::size_t n = 0;
    for (const ir::Node& node : g.nodes) n += node.op == ir::OpId::mul && node.types[0].shape == Shape{2, 3};
    return n;
  };
  // These inputs and their products are small integers: exact in any order.
  EXPECT_EQ(products_over_all(simplified([&](const Tensor& x) { return sum(x * columns, {0}); }, kX).after), 0u);
  EXPECT_EQ(products_over_all(simplified([&](const Tensor& x) { return sum(rows * x, {1}); }, kX).after), 0u);
  EXPECT_EQ(products_over_all(simplified([&](const Tensor& x) { return sum(-(x * 2.0), {0, 1}); }, kX).after), 0u);
  EXPECT_EQ(products_over_all(simplified([&](const Tensor& x) { return sum(x * columns, {1}); }, kX).after), 1u);
  EXPECT_EQ(products_over_all(simplified([&](const Tensor& x) { return sum(x * rows, {0, 1}); }, kX).after), 1u);
}

TEST(Simplify, AMeanIsComputedOnce) {
  const Traced t = simplified([](const Tensor& x) { return (x - mean(x, {0})) * (x - mean(x, {0}, true)); }, kX);
  EXPECT_EQ(count(t.after, ir::OpId::reduce_sum), 1u);
  EXPECT_EQ(count(t.after, ir::OpId::sub), 1u);
}

TEST(Simplify, DropsWhatNobodyNeeds) {
  const Traced t = simplified(
      [](const Tensor& x) {
        const Tensor unused = exp(x);
        return x + 1.0;
      },
      kX);
  EXPECT_EQ(count(t.after, ir::OpId::exp), 0u);
}

}  // namespace
}  // namespace bp

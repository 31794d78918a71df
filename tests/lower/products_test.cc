// Lowered products, movement and pools against the reference executable, and which kernels they become.
#include <gtest/gtest.h>

#include <cmath>

#include "bp/grad.h"
#include "bp/ops.h"
#include "runtime/backend.h"
#include "trace/node.h"

namespace bp {
namespace {

Tensor random(const Shape& shape, DType dtype, unsigned seed) {
  std::vector<double> v(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) {
    unsigned h = (static_cast<unsigned>(i) + 1) * 2654435761u ^ (seed + 1) * 2246822519u;
    h = (h ^ h >> 16) * 0x85EBCA6Bu;
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    v[i] = static_cast<double>((h ^ h >> 16) >> 8) / 8388608.0 - 1.0;
  }
  const Tensor t = cast(Tensor::from(v, shape), dtype);
  t.to_vector<double>();  // a leaf
  return t;
}

struct Ran {
  std::vector<std::vector<double>> outputs;
  std::string steps;
};

Ran run(const std::vector<Tensor>& roots, bool reference, int threads) {
  ir::Graph g = detail::capture(roots, {}, {}, 0).graph;
  std::vector<Buffer> keep;
  std::vector<const void*> inputs;
  for (ir::Input& i : g.inputs) {
    keep.push_back(i.constant);
    inputs.push_back(i.constant.data());
  }
  const auto built = runtime::build(g, {.threads = threads, .reference = reference});
  std::vector<Buffer> buffers;
  std::vector<void*> outputs;
  for (const Tensor& t : roots) {
    buffers.push_back(Buffer::allocate(t.type().bytes()));
    outputs.push_back(buffers.back().mutable_data());
  }
  built.executable->run(inputs, outputs);
  Ran r;
  for (std::size_t i = 0; i < roots.size(); ++i)
    r.outputs.push_back(Tensor::from_buffer(buffers[i], roots[i].dtype(), roots[i].shape()).to_vector<double>());
  r.steps = built.executable->str();
  return r;
}

// Runs the roots by the fast kernels, on one and two threads, and by the reference; returns the steps' names.
std::string compare(const std::vector<Tensor>& roots, double tolerance, bool all_fast = true) {
  const Ran want = run(roots, true, 1);
  std::string steps;
  for (int threads : {1, 2}) {
    const Ran got = run(roots, false, threads);
    steps = got.steps;
    for (std::size_t i = 0; i < roots.size(); ++i)
      for (std::size_t j = 0; j < want.outputs[i].size(); ++j) {
        const double w = want.outputs[i][j], v = got.outputs[i][j];
        if (std::isnan(w) && std::isnan(v)) continue;
        EXPECT_LE(std::abs(v - w), tolerance * (1 + std::abs(w))) << "output " << i << " element " << j << "\n"
                                                                  << steps;
        if (!(std::abs(v - w) <= tolerance * (1 + std::abs(w)))) return steps;
      }
  }
  if (all_fast) { EXPECT_EQ(steps.find("reference"), std::string::npos) << steps; }
  return steps;
}

double tolerance(DType t) { return t == f64 ? 1e-12 : 2e-5; }

TEST(LowerMatmul, ShapesTransposesAndBatches) {
  for (DType t : {f32, f64})
    for (int flags = 0; flags < 4; ++flags)
      for (const auto& [m, n, k] :
           {std::array<std::int64_t, 3>{3, 5, 7}, {64, 10, 33}, {40, 512, 70}, {1, 300, 40}, {130, 1, 90}}) {
        const bool ta = flags & 1, tb = flags & 2;
        const Tensor a = random(ta ? Shape{k, m} : Shape{m, k}, t, 1), b = random(tb ? Shape{n, k} : Shape{k, n}, t, 2);
        compare({matmul(a, b, ta, tb)}, tolerance(t));
        const Tensor as = random(ta ? Shape{2, 3, k, m} : Shape{2, 3, m, k}, t, 1);
        const Tensor bs = random(tb ? Shape{3, n, k} : Shape{3, k, n}, t, 2);
        const Tensor b1 = random(tb ? Shape{2, 1, n, k} : Shape{2, 1, k, n}, t, 3);
        compare({matmul(as, bs, ta, tb), matmul(as, b1, ta, tb), matmul(as, b, ta, tb)}, tolerance(t));
      }
}

TEST(LowerMatmul, EmptySizes) {
  for (DType t : {f32, f64})
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{0, 4, 5}, {4, 0, 5}, {4, 5, 0}}) {
      const Tensor a = random({m, k}, t, 1), b = random({k, n}, t, 2);
      compare({relu(matmul(a, b) + random({n}, t, 3))}, tolerance(t), false);
    }
}

TEST(LowerMatmul, EpiloguesJoinTheProduct) {
  for (DType t : {f32, f64})
    for (std::int64_t m : {8, 96}) {
      const Tensor a = random({m, 70}, t, 1), b = random({70, 48}, t, 2), bias = random({48}, t, 3),
                   r = random({m, 48}, t, 4);
      for (const Tensor& y : {matmul(a, b) + bias, relu(matmul(a, b) + bias), tanh(bias + matmul(a, b)),
                              matmul(a, b) + r, r + (matmul(a, b) + bias), sigmoid(matmul(a, b))}) {
        const std::string steps = compare({y}, tolerance(t));
        EXPECT_EQ(steps.find("relu\n"), std::string::npos);
        EXPECT_LE(std::count(steps.begin(), steps.end(), '\n'), 3) << steps;  // pack, product, the arena's line
      }
      const Tensor x3 = random({4, m / 4, 70}, t, 5);
      compare({relu(matmul(x3, b) + bias)}, tolerance(t));
      if (t == f32) compare({relu(matmul(a, b) + bias + r)}, tolerance(t), m != 8);
    }
}

TEST(LowerMatmul, SharedIntermediatesStayOutside) {
  const Tensor a = random({40, 70}, f32, 1), b = random({70, 48}, f32, 2), bias = random({48}, f32, 3);
  const Tensor product = matmul(a, b), sum = product + bias;
  compare({product, sum, relu(sum)}, tolerance(f32), false);
  compare({product + product}, tolerance(f32), false);
  compare({matmul(a, b) + matmul(a, random({70, 48}, f32, 4))}, tolerance(f32), false);
}

TEST(LowerConv, ForwardAndGradients) {
  for (DType t : {f32, f64})
    for (std::int64_t groups : {1, 2})
      for (std::int64_t stride : {1, 2}) {
        const ConvOptions o{.stride = {stride}, .padding = {1}, .groups = groups};
        const Tensor x1 = random({2, 9, 8}, t, 1), w1 = random({3, 8 / groups, 16}, t, 2);
        const Tensor x2 = random({2, 9, 7, 8}, t, 1), w2 = random({3, 3, 8 / groups, 16}, t, 2);
        const Tensor x3 = random({2, 5, 4, 6, 8}, t, 1), w3 = random({3, 2, 3, 8 / groups, 16}, t, 2);
        for (const auto& [x, w] : {std::pair{x1, w1}, {x2, w2}, {x3, w3}}) {
          const Tensor xw = watch(x), ww = watch(w), y = conv(xw, ww, o);
          const Tensor loss = sum(y * random(y.shape(), t, 5));
          const std::vector<Tensor> grads = grad(loss, std::vector<Tensor>{xw, ww});
          compare({y}, tolerance(t));
          compare({y, grads[0], grads[1]}, 5 * tolerance(t), false);
        }
      }
}

TEST(LowerConv, BiasAndReluJoin) {
  for (DType t : {f32, f64}) {
    const Tensor x = random({2, 9, 7, 3}, t, 1), w = random({3, 3, 3, 16}, t, 2), bias = random({16}, t, 3);
    const std::string steps = compare({relu(conv(x, w) + bias)}, tolerance(t));
    EXPECT_NE(steps.find("+ bias, relu"), std::string::npos) << steps;
  }
}

TEST(LowerProducts, BFloat16IsF32BetweenRoundings) {
  const Tensor a = random({20, 40}, bf16, 1), b = random({40, 24}, bf16, 2);
  compare({matmul(a, b)}, 1e-2);
  const Tensor x = watch(random({2, 6, 7, 8}, bf16, 1)), w = watch(random({3, 3, 8, 16}, bf16, 2)), y = conv(x, w);
  const std::vector<Tensor> grads = grad(sum(y * random(y.shape(), bf16, 5)), std::vector<Tensor>{x, w});
  const std::string steps = compare({y, grads[0], grads[1]}, 2e-2, false);
  EXPECT_EQ(steps.find("reference conv"), std::string::npos) << steps;
}

TEST(LowerMovement, EveryOp) {
  for (DType t : {f64, f32, u8, boolean}) {
    const Tensor x = cast(random({3, 4, 5}, f32, 1) * 3.0, t);
    x.to_vector<double>();
    compare({transpose(x, {2, 0, 1}), transpose(x, {1, 0, 2}), slice(x, Axes{1, 2}, {1, 0}, {4, 5}, {2, 3}),
             pad(x, {1, 0, -1}, {0, 2, 1}, 1.0, {0, 1, 2}), concatenate({x, x, x}, 1), reverse(x, {0, 2}),
             broadcast_to(slice(x, 1, 0, 1), {2, 3, 4, 5}), slice(x, 0, 1, 1)},
            0);
  }
}

TEST(LowerPools, ForwardAndGradients) {
  for (DType t : {f32, f64})
    for (std::int64_t stride : {1, 2, 3}) {
      const Tensor x = random({2, 9, 7, 12}, t, 1), xw = watch(x);
      const PoolOptions o{.window = {2, 3}, .stride = {stride}, .padding = {1}};
      for (const Tensor& y : {max_pool(xw, o), avg_pool(xw, o)})
        compare({y, grad(sum(y * random(y.shape(), t, 2)), xw)}, tolerance(t), false);
    }
}

TEST(LowerPools, ReluMaskMovesBehindThePool) {
  for (std::int64_t stride : {1, 2}) {  // windows that overlap, too
    const Tensor x = watch(random({2, 6, 8, 5}, f32, 1));
    const Tensor y = max_pool(relu(x), PoolOptions{.window = {2}, .stride = {stride}});
    const Tensor dx = grad(sum(y * random(y.shape(), f32, 2)), x), db = sum(dx, {0, 1, 2});
    compare({y, dx, db}, 1e-5, false);
    const auto built = runtime::build(detail::capture(std::vector<Tensor>{dx, db}, {}, {}, 0).graph, {});
    for (const ir::Node& n : built.graph.nodes)
      if (n.op == ir::OpId::select || n.op == ir::OpId::reduce_sum) {
        EXPECT_EQ(built.graph.type(n.inputs.back()).shape, y.shape()) << built.graph.str();
      }
  }
}

TEST(LowerIndexing, GathersAndScatters) {
  for (DType t : {f32, f64, i64})
    for (DType index : {i32, i64}) {
      const Tensor x = cast(random({4, 7, 5}, f32, 1) * 9.0, t), where = cast(random({6}, f64, 2) * 9.0, index);
      const Tensor along = cast(random({4, 3, 5}, f64, 3) * 9.0, index),
                   updates = cast(random({6, 5}, f32, 4) * 9.0, t);
      evaluate(std::vector<Tensor>{x, updates});  // indices that are computed are not checked, and may lie outside
      const std::string steps =
          compare({gather(x, where, 0), gather(x, where, 1), gather(x, where, 2), take_along(x, along, 1),
                   scatter_add({7, 5}, where, updates), scatter_along(take_along(x, along, 1), along, 1, 7)},
                  tolerance(t), false);
      for (const char* op : {"reference gather", "reference take", "reference scatter"})
        EXPECT_EQ(steps.find(op), std::string::npos) << steps;
    }
}

}  // namespace
}  // namespace bp

// Mixed precision: which values become bf16, that numbers stay within what bf16 rounds, and that what must be f32 is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bp/attention.h"
#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "bp/rng.h"
#include "bp/scan.h"
#include "cpu/exec/executable.h"
#include "ir/body.h"
#include "message_of.h"
#include "ops/interpret.h"
#include "passes/pipeline.h"
#include "trace/node.h"

namespace bp {
namespace {

using ir::Graph;
using ir::Node;
using ir::OpId;

Tensor numbers(const Shape& shape, std::uint64_t seed) {
  Rng rng{Key(seed)};
  std::vector<float> v(static_cast<std::size_t>(shape.numel()));
  for (float& x : v) x = static_cast<float>(2 * rng.uniform() - 1);
  return Tensor::from(v, shape);
}

// What is behind `ys` as a graph of the arguments `xs`.
Graph graph_of(const std::vector<Tensor>& ys, const std::vector<Tensor>& xs) {
  return detail::capture(ys, xs, {}, 0).graph;
}
Tensor argument(const Shape& shape, DType t = f32) { return detail::make_placeholder({t, shape}, 0); }

template <class F> void each(const Graph& g, F f) {
  for (const Node& n : g.nodes) f(n);
}
bool is_product_op(const Node& n) { return ir::op_def(n.op).cls == ir::OpClass::product; }

TEST(Precision, ProductsReadBf16AndWeightGradientsAreF32) {
  const Tensor x = argument({64, 32}), w = argument({32, 48}), v = argument({48, 8});
  const Tensor loss = sum(square(matmul(relu(matmul(x, w)), v)));
  const std::vector<Tensor> grads = grad(loss, std::vector<Tensor>{w, v});
  const Graph g = passes::lower_precision(passes::simplify(graph_of({loss, grads[0], grads[1]}, {x, w, v})));
  g.verify();
  int products = 0;
  each(g, [&](const Node& n) {
    if (!is_product_op(n)) return;
    ++products;
    for (ir::Value in : n.inputs) EXPECT_EQ(g.type(in).dtype, bf16);
  });
  EXPECT_EQ(products, 5);  // two forward, two weight gradients, one input gradient
  for (std::size_t k = 1; k < 3; ++k) {
    const Node& n = g.nodes[g.outputs[k].value.node];
    EXPECT_TRUE(is_product_op(n));  // no cast after it: it was never rounded
    EXPECT_EQ(n.types[0].dtype, f32);
  }
}

TEST(Precision, WhatTheBackwardPassKeepsIsBf16) {
  // Three normalised, rectified convolutions: all that crosses from forward to backward is as large as an image.
  const Tensor x = argument({4, 16, 16, 8});
  const auto norm = [](const Tensor& y) {
    const Tensor m = mean(y, {0, 1, 2}), centred = y - m;
    return centred * rsqrt(mean(square(centred), {0, 1, 2}) + 1e-5);
  };
  std::vector<Tensor> w;
  for (int i = 0; i < 3; ++i) w.push_back(argument({3, 3, 8, 8}));
  Tensor y = x;
  for (const Tensor& k : w) y = relu(norm(conv(y, k, {.padding = {1}})));
  const Tensor loss = sum(square(y));
  std::vector<Tensor> roots = grad(loss, w), arguments = w;
  arguments.push_back(x);
  const auto given = [](const Graph& g, ir::NodeId n) {  // arguments, or those as bf16
    const Node& node = g.nodes[n];
    return node.op == OpId::input || (node.op == OpId::cast && g.nodes[node.inputs[0].node].op == OpId::input);
  };
  const auto kept = [&](bool mixed) {  // bytes that a backward group reads and a forward group wrote
    passes::Optimised o =
        passes::run_pipeline(graph_of(roots, arguments), {.precision = mixed ? bf16 : f32, .recompute_bytes = 0});
    std::vector<bool> read(o.graph.nodes.size(), false);
    for (const passes::Group& group : o.partition.groups)
      for (ir::NodeId n : group.nodes)
        for (ir::Value in : o.graph.nodes[n].inputs)
          if (o.graph.nodes[n].backward && o.partition.group_of[in.node] != o.partition.group_of[n])
            read[in.node] = true;
    std::size_t bytes = 0;
    for (ir::NodeId n = 0; n < read.size(); ++n)
      if (read[n] && !o.graph.nodes[n].backward && !given(o.graph, n)) bytes += o.graph.nodes[n].types[0].bytes();
    return bytes;
  };
  EXPECT_LT(static_cast<double>(kept(true)), 0.55 * static_cast<double>(kept(false)));
}

TEST(Precision, StatisticsLossesAndStatesStayF32) {
  const Tensor x = argument({16, 8}), w = argument({8, 10}), m = argument({8, 10});
  const Tensor logits = matmul(x, w);
  const Tensor loss = cross_entropy(logits, arange(16) - arange(16));
  const Tensor g = grad(loss, w);
  const Tensor moment = 0.9 * m + 0.1 * g, next = w - 0.1 * moment;
  const Graph graph = passes::lower_precision(passes::simplify(graph_of({loss, next, moment}, {x, w, m})));
  for (const ir::Output& o : graph.outputs) EXPECT_EQ(graph.type(o.value).dtype, f32);
  each(graph, [&](const Node& n) {
    if (ir::op_def(n.op).cls == ir::OpClass::reduction || n.op == OpId::exp || n.op == OpId::log) {
      EXPECT_EQ(n.types[0].dtype, f32);
      EXPECT_EQ(graph.type(n.inputs[0]).dtype, f32);
    }
  });
  // The state's new value adds f32 numbers: neither it nor the moment has been through bf16.
  const ir::NodeId end = graph.outputs[1].value.node;
  for (ir::Value in : graph.nodes[end].inputs) EXPECT_NE(graph.nodes[in.node].op, OpId::cast);
}

// What a product reads is one number for all its readers; but a result that the caller asked for is as it was.
TEST(Precision, EveryReaderSeesTheRoundedValue) {
  const Tensor x = numbers({5, 8}, 1), w = numbers({8, 3}, 2), a = argument(x.shape()), b = argument(w.shape());
  const std::vector<const void*> in{x.buffer().data(), w.buffer().data()};
  const auto run = [&](const std::vector<Tensor>& roots) {
    return ops::interpret(passes::lower_precision(passes::simplify(graph_of(roots, {a, b}))), in);
  };
  const Tensor h = exp(a), product = matmul(h, b);
  const Buffer twice = run({product, h * 2.0})[1], itself = run({product, h})[1];
  int differ = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    const float exact = std::exp(x.buffer().as<float>()[i]), rounded = static_cast<float>(bfloat16(exact));
    EXPECT_EQ(twice.as<float>()[i], 2 * rounded);
    EXPECT_NEAR(itself.as<float>()[i], exact, 4e-7);
    differ += rounded != exact;
  }
  EXPECT_GT(differ, 30);
}

TEST(Precision, OtherDtypesAreLeftAlone) {
  const Tensor x = argument({4, 4}, f64), y = argument({4, 4}, i64), z = argument({4, 4}, bf16);
  const Graph g = graph_of({matmul(x, x), matmul(y, y), matmul(z, z)}, {x, y, z});
  EXPECT_TRUE(passes::lower_precision(g).same_structure(passes::simplify(g)));
}

TEST(Precision, MovementsMoveBf16) {
  const Tensor x = argument({4, 6}), w = argument({6, 8}), v = argument({4, 5});
  const Tensor moved = transpose(reshape(slice(matmul(x, w), 1, 2, 6), {4, 4}));
  const Graph g = passes::lower_precision(passes::simplify(graph_of({matmul(moved, v)}, {x, w, v})));
  int moves = 0;
  each(g, [&](const Node& n) {
    if (n.op != OpId::slice && n.op != OpId::transpose) return;
    ++moves;
    EXPECT_EQ(n.types[0].dtype, bf16);
  });
  EXPECT_GE(moves, 1);
}

TEST(Precision, ALoopCarriesF32AndStacksWhatProductsRead) {
  const Tensor w = argument({16, 16}), xs = argument({12, 4, 16}), h0 = argument({4, 16});
  const Scanned out = scan(
      [&](std::span<const Tensor> carry, std::span<const Tensor> x) {
        const Tensor h = tanh(matmul(carry[0], w) + x[0]);
        return Scanned{{h}, {h}};
      },
      {h0}, {xs});
  const Tensor loss = sum(square(matmul(out.ys[0], w)));
  const Tensor g = grad(loss, w);
  passes::Optimised o = passes::run_pipeline(graph_of({loss, g}, {w, xs, h0}), {.precision = bf16});
  int loops = 0;
  bool narrow_stack = false;
  each(o.graph, [&](const Node& n) {
    if (n.op != OpId::scan) return;
    ++loops;
    const ir::ScanLayout layout(n.attrs);
    for (std::size_t i = layout.invariants; i < layout.first_slice(); ++i)
      EXPECT_EQ(o.graph.type(n.inputs[i]).dtype, f32);
    for (std::size_t i = 0; i < layout.invariants; ++i) {
      if (o.graph.type(n.inputs[i]).shape == Shape{16, 16}) { EXPECT_EQ(o.graph.type(n.inputs[i]).dtype, bf16); }
    }
    for (std::size_t k = layout.carries; k < n.types.size(); ++k) narrow_stack |= n.types[k].dtype == bf16;
    each(ir::body_of(n.attrs), [&](const Node& inner) {
      if (is_product_op(inner)) { EXPECT_EQ(ir::body_of(n.attrs).type(inner.inputs[0]).dtype, bf16); }
    });
  });
  EXPECT_EQ(loops, 2);
  EXPECT_TRUE(narrow_stack);
}

// The fast executable against the interpreter on the very graph that the pass made: same roundings, other order of
// sums. `loose`: how far from it numbers may be, as part of the largest.
void compare(const Graph& g, const std::vector<Tensor>& arguments, double loose) {
  std::vector<const void*> in;
  for (const ir::Input& i : g.inputs)
    in.push_back(i.kind == ir::InputKind::constant ? i.constant.data() : arguments[in.size()].buffer().data());
  const passes::Optimised o = passes::run_pipeline(g, {.precision = bf16});
  const std::vector<Buffer> want = ops::interpret(passes::lower_precision(passes::simplify(g)), in),
                            exact = ops::interpret(g, in);
  for (int threads : {1, 2}) {
    cpu::Executable fast(o.graph, o.partition, {}, {.threads = threads});
    std::vector<Buffer> got;
    std::vector<void*> out;
    for (const Buffer& one : want)
      got.push_back(Buffer::allocate(one.bytes())), out.push_back(got.back().mutable_data());
    fast.run(in, out);
    for (std::size_t r = 0; r < got.size(); ++r) {
      const auto n = static_cast<std::size_t>(g.type(g.outputs[r].value).shape.numel());
      const auto values = [&](const Buffer& one) { return static_cast<const float*>(one.data()); };
      double scale = 0, rounded = 0;
      for (std::size_t i = 0; i < n; ++i) scale = std::max(scale, std::fabs(double{values(exact[r])[i]}));
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(values(got[r])[i], values(want[r])[i], loose * scale) << "root " << r << " element " << i;
        if (testing::Test::HasFailure()) return;
        rounded = std::max(rounded, std::fabs(double{values(got[r])[i]} - values(exact[r])[i]));
      }
      EXPECT_LT(rounded, 0.03 * scale) << "root " << r;  // bf16 keeps 8 bits
      EXPECT_GT(rounded, 1e-6 * scale) << "root " << r;  // and something was rounded
    }
  }
}

TEST(Precision, FastKernelsAgreeWithTheReference) {
  const Tensor x = numbers({2, 9, 7, 5}, 1), k = numbers({3, 3, 5, 6}, 2), w = numbers({6, 11}, 3),
               b = numbers({11}, 4);
  const auto [a, c, d, e] =
      std::tuple(argument(x.shape()), argument(k.shape()), argument(w.shape()), argument(b.shape()));
  const Tensor hidden = relu(conv(a, c, {.stride = {2}, .padding = {1}}));
  const Tensor y = tanh(matmul(hidden, d) + e);
  std::vector<Tensor> roots = grad(sum(y * y * y), std::vector<Tensor>{a, c, d, e});
  roots.push_back(y);
  const Graph g = graph_of(roots, {a, c, d, e});
  // Bias and activation are still done before the product is stored.
  const passes::Optimised o = passes::run_pipeline(g, {.precision = bf16});
  EXPECT_EQ(std::count_if(o.partition.groups.begin(), o.partition.groups.end(),
                          [](const passes::Group& group) { return group.kind == passes::Group::Kind::product; }),
            2);
  // A sum in another order may fall to the other side of a rounding to bf16: 2^-8 of one number.
  compare(g, {x, k, w, b}, 1.0 / 256);
}

// Attention between two products: its operands and results are bf16, nothing is cast or moved between.
struct AttentionCase {
  std::int64_t batch, tokens, heads, key_heads, depth;
  AttentionOptions options;
  std::int64_t beside = 0;  // columns of the product before those of q, and behind those of v
};
Graph attention_graph(const AttentionCase& c, std::vector<Tensor>& values) {
  const std::int64_t n = 24, width = (c.heads + 2 * c.key_heads) * c.depth + 2 * c.beside;
  values = {numbers({c.batch, c.tokens, n}, 1), numbers({n, width}, 2), numbers({c.heads * c.depth, 16}, 3)};
  const std::vector<Tensor> x{argument(values[0].shape()), argument(values[1].shape()), argument(values[2].shape())};
  const Tensor packed = matmul(x[0], x[1]);
  const auto part = [&](std::int64_t from, std::int64_t heads) {
    return reshape(slice(packed, 2, c.beside + from * c.depth, c.beside + (from + heads) * c.depth),
                   {c.batch, c.tokens, heads, c.depth});
  };
  const Tensor y =
      attention(part(0, c.heads), part(c.heads, c.key_heads), part(c.heads + c.key_heads, c.key_heads), c.options);
  const Tensor z = matmul(reshape(y, {c.batch, c.tokens, c.heads * c.depth}), x[2]);
  std::vector<Tensor> roots = grad(mean(z * z * z), x);
  roots.push_back(z);
  return graph_of(roots, x);
}

TEST(Precision, AttentionReadsAndWritesBf16) {
  std::vector<Tensor> values;
  const Graph g = attention_graph({2, 40, 2, 2, 32, {.causal = true}}, values);
  const passes::Optimised o = passes::run_pipeline(g, {.precision = bf16});
  int attentions = 0;
  each(o.graph, [&](const Node& n) {
    if (n.op != OpId::attention && n.op != OpId::attention_grad) return;
    ++attentions;
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(o.graph.type(n.inputs[i]).dtype, bf16);
    EXPECT_EQ(n.types[0].dtype, bf16);
    if (n.op == OpId::attention) { EXPECT_EQ(n.types[1].dtype, f32); }
  });
  EXPECT_EQ(attentions, 2);
  const cpu::Executable fast(o.graph, o.partition, {}, {.threads = 1});
  for (const cpu::Step& s : fast.program().steps) {
    EXPECT_NE(s.info.name, "slice");
    EXPECT_NE(s.info.name, "concatenate");
  }
}

// Odd sizes, several tiles, both ways of sharing out the backward pass, masks. The fast kernels round weights to bf16
// as well, the reference does not.
TEST(Precision, AttentionOfBf16AgreesWithItsReference) {
  const Tensor lengths = Tensor::from<std::int64_t>({67, 30}, {2}), state = random_state(Key(5));
  for (const AttentionCase& c :
       {AttentionCase{2, 71, 8, 8, 32, {.causal = true}}, AttentionCase{1, 70, 2, 2, 32, {.causal = true}, 1},
        AttentionCase{1, 131, 2, 1, 5, {.causal = true}}, AttentionCase{2, 67, 2, 1, 17, {.key_lengths = lengths}},
        AttentionCase{1, 66, 16, 16, 3, {}},
        AttentionCase{1, 130, 2, 2, 6, {.causal = true, .query_offset = scalar(-5, i64)}},
        AttentionCase{1, 70, 2, 2, 6, {.causal = true, .mask = numbers({70, 70}, 9)}},
        AttentionCase{1, 70, 2, 2, 6, {.dropout = 0.2, .random_state = state, .random_place = 3}}}) {
    std::vector<Tensor> values;
    const Graph g = attention_graph(c, values);
    SCOPED_TRACE(c.tokens * 1000 + c.depth);
    compare(g, values, 1.0 / 100);
  }
}

TEST(Precision, UpdatesSmallerThanBf16ResolvesAreKept) {
  // Each step moves a weight of about 1 by 2e-4: bf16 weights would stand still.
  Variable w(full({8, 8}, 1.0));
  auto step = compile(
      [&](const Tensor& x) {
        const Tensor loss = mean(matmul(x, w));
        w.set(w.get() - 1e-3 * grad(loss, w));
        return loss;
      },
      {.mode = Mode::train, .precision = bf16});
  const Tensor x = full({8, 8}, 1.0);
  for (int i = 0; i < 10; ++i) step(x);
  // d loss / d w = 8 / 64
  for (double v : w.get().to_vector<double>()) EXPECT_NEAR(v, 1 - 10 * 1e-3 / 8, 1e-6);
}

TEST(Precision, OnlyF32AndBf16AreAsked) {
  const auto make = [](DType t) { return compile([](const Tensor& x) { return x; }, {.precision = t}); };
  EXPECT_THAT(message_of(ErrorKind::config, [&] { make(f64); }), testing::HasSubstr("expected f32 or bf16, got f64"));
  EXPECT_THAT(message_of(ErrorKind::config, [&] { make(i32); }), testing::HasSubstr("expected f32 or bf16, got i32"));
}

}  // namespace
}  // namespace bp

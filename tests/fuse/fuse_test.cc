// Fused executables against the reference interpreter: fixed programs whose grouping is known, and random graphs.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "bp/attention.h"
#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"
#include "bp/ops.h"
#include "bp/rng.h"
#include "cpu/exec/executable.h"
#include "ops/interpret.h"
#include "passes/pipeline.h"
#include "trace/node.h"

namespace bp {
namespace {

Tensor random_tensor(const Shape& shape, DType dtype, std::uint64_t seed, double low = -2, double high = 2) {
  Rng rng{Key(seed)};
  std::vector<double> v(static_cast<std::size_t>(shape.numel()));
  for (double& x : v) x = low + (high - low) * rng.uniform();
  const Tensor t = Tensor::from(v, shape);
  return watch(Tensor::from_buffer(cast(t, dtype).buffer(), dtype, shape));
}

using Tensors = std::vector<Tensor>;
Tensors pull(const Tensors& ys, const Tensors& xs, const Tensors& ds) { return vjp(ys, xs, ds); }

struct Fused {
  passes::Optimised optimised;
  std::size_t loops = 0, steps = 0;
};

// Runs what is behind `ys` fused and by the interpreter; returns how it was grouped.
Fused check(const std::vector<Tensor>& ys, double tolerance, int threads = 1) {
  detail::Captured c = detail::capture(ys, {}, {}, 0);
  std::vector<const void*> inputs;
  for (const ir::Input& i : c.graph.inputs) inputs.push_back(i.constant.data());
  const std::vector<Buffer> want = ops::interpret(c.graph, inputs);
  Fused f{passes::run_pipeline(c.graph, {.disable = {}, .recompute_bytes = 0, .keep_text = true})};
  f.optimised.graph.verify();
  passes::verify(f.optimised.graph, f.optimised.partition);
  for (const passes::Group& g : f.optimised.partition.groups) f.loops += g.kind == passes::Group::Kind::loop;
  cpu::Executable executable(f.optimised.graph, f.optimised.partition, {}, {.threads = threads});
  f.steps = executable.program().steps.size();
  std::vector<Buffer> got;
  std::vector<void*> outputs;
  for (const Buffer& b : want) got.push_back(Buffer::allocate(b.bytes())), outputs.push_back(got.back().mutable_data());
  executable.run(inputs, outputs);
  for (std::size_t k = 0; k < ys.size(); ++k) {
    const auto a = Tensor::from_buffer(got[k], ys[k].dtype(), ys[k].shape()).to_vector<double>();
    const auto b = Tensor::from_buffer(want[k], ys[k].dtype(), ys[k].shape()).to_vector<double>();
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
      EXPECT_LE(std::fabs(a[i] - b[i]), tolerance * (1 + std::fabs(b[i])))
          << "output " << k << " element " << i << ": got " << a[i] << ", expected " << b[i] << "\n"
          << f.optimised.passes.back().text << executable.str();
      if (testing::Test::HasFailure()) return f;
    }
  }
  return f;
}

double tolerance_of(DType t) { return t == f64 ? 1e-11 : t == f32 ? 2e-5 : 3e-2; }

TEST(Fuse, AChainIsOneLoop) {
  for (DType t : {f32, f64}) {
    const Tensor x = random_tensor({33, 17}, t, 1), b = random_tensor({17}, t, 2), s = random_tensor({}, t, 3);
    const Fused f = check({relu(x * s + b) * exp(-x) + 0.5}, tolerance_of(t));
    EXPECT_EQ(f.steps, 1u);
  }
}

TEST(Fuse, SoftmaxAndItsGradientAreOneLoopEach) {
  for (DType t : {f32, f64})
    for (Shape shape : {Shape{5, 10}, Shape{64, 96}, Shape{3, 4, 50}, Shape{2, 3000}}) {
      const Tensor x = random_tensor(shape, t, 1), d = random_tensor(shape, t, 2);
      EXPECT_EQ(check({softmax(x)}, tolerance_of(t)).steps, 1u);
      EXPECT_EQ(check({log_softmax(x)}, tolerance_of(t)).steps, 1u);
      const Tensor y = softmax(x);
      EXPECT_LE(check({pull({y}, {x}, {d})[0], y}, tolerance_of(t)).steps, 2u);
    }
}

TEST(Fuse, CrossEntropyBothWays) {
  for (DType t : {f32, f64}) {
    const Tensor x = random_tensor({32, 10}, t, 1);
    std::vector<std::int64_t> ids;
    for (int i = 0; i < 32; ++i) ids.push_back(i * 7 % 10);
    const Tensor labels = Tensor::from(ids, Shape{32});
    const Tensor loss = cross_entropy(x, labels);
    check({loss, grad(loss, x)}, tolerance_of(t));
  }
}

TEST(Fuse, LayerNormAndBatchNormBothWays) {
  for (DType t : {f32, f64})
    for (const Axes& axes : {Axes{-1}, Axes{0, 1}}) {
      const Tensor x = random_tensor({6, 5, 48}, t, 1), gain = random_tensor({48}, t, 2),
                   bias = random_tensor({48}, t, 3);
      const Tensor centred = x - mean(x, axes, true);
      const Tensor y = centred * rsqrt(mean(centred * centred, axes, true) + 1e-5) * gain + bias;
      const Tensor d = random_tensor({6, 5, 48}, t, 4);
      const std::vector<Tensor> g = pull({y}, {x, gain, bias}, {d});
      check({y, g[0], g[1], g[2]}, tolerance_of(t) * 10);
    }
}

// A loop reads long slices where they lie: gates of an LSTM, halves of a gated unit, slices of slices, later rows.
TEST(Fuse, LoopsReadSlicesInPlace) {
  for (DType t : {f32, f64, bf16}) {
    const Tensor x = random_tensor({6, 8, 160}, t, 1), d = random_tensor({6, 8, 40}, t, 2);
    const auto quarter = [&](int k) { return slice(x, {0, 1, 2}, {0, 0, 40 * k}, {6, 8, 40 * (k + 1)}); };
    EXPECT_EQ(check({sigmoid(quarter(0)) * tanh(quarter(1)) + quarter(3) * d}, tolerance_of(t)).steps, 1u);
    const Tensor inner = slice(slice(x, {0, 1, 2}, {1, 0, 32}, {6, 8, 160}), {0, 1, 2}, {1, 3, 48}, {5, 8, 88});
    EXPECT_EQ(check({exp(inner) - slice(d, {0, 1, 2}, {1, 2, 0}, {5, 7, 40})}, tolerance_of(t)).steps, 1u);
    EXPECT_EQ(check({exp(slice(x, {0, 1, 2}, {0, 0, 0}, {6, 8, 160}, {2, 3, 1}))}, tolerance_of(t)).steps, 1u);
    EXPECT_EQ(check({sum(abs(quarter(2)), {2})}, tolerance_of(t) * 10).steps, 1u);
    check({reshape(quarter(1), {48, 40}) * reshape(d, {48, 40})}, tolerance_of(t));  // by axes that are no more
  }
}

// What a loop cannot read in place: its own values elsewhere, a broadcast of which it would want a part, backwards.
TEST(Fuse, OtherSlicesAreMoved) {
  for (DType t : {f32, f64}) {
    const Tensor x = random_tensor({12, 64}, t, 1), row = random_tensor({64}, t, 2);
    const Tensor y = exp(x);
    check({slice(y, {0, 1}, {0, 0}, {12, 32}) * slice(y, {0, 1}, {0, 32}, {12, 64}), y}, tolerance_of(t));
    check({slice(y, {0, 1}, {6, 0}, {12, 64}) + slice(x, {0, 1}, {0, 0}, {6, 64})}, tolerance_of(t));
    check({tanh(slice(broadcast_to(row, {12, 64}), {0, 1}, {3, 16}, {9, 64}))}, tolerance_of(t));
    check({tanh(reverse(slice(x, {0, 1}, {0, 16}, {12, 64}), {1}))}, tolerance_of(t));
    check({exp(slice(x, {0, 1}, {0, 60}, {12, 64})), slice(x, {0, 1}, {0, 16}, {12, 64})}, tolerance_of(t));
    const Tensor w = random_tensor({32, 8}, t, 3), half = slice(x, {0, 1}, {0, 32}, {12, 64});
    check({matmul(half, w), exp(half)}, tolerance_of(t) * 10);
  }
}

// q, k and v that are parts of one product's result, and their gradients that make its gradient: nothing is moved.
TEST(Fuse, AttentionReadsSlicesAndWritesItsGradientsInPlace) {
  for (DType t : {f32, f64}) {
    const Tensor x = random_tensor({3, 70, 256}, t, 1), d = random_tensor({3, 70, 4, 32}, t, 2);
    const auto heads = [&](std::int64_t from, std::int64_t n) {
      return reshape(slice(x, 2, from, from + 32 * n), {3, 70, n, 32});
    };
    for (const auto& [q, k, v] : {std::array<std::int64_t, 3>{0, 128, 192}, {128, 64, 0}}) {
      const Tensor y = attention(heads(q, 4), heads(k, 2), heads(v, 2), {.causal = true});
      EXPECT_EQ(check({y}, tolerance_of(t)).steps, 1u);
      EXPECT_EQ(check({y, pull({y}, {x}, {d})[0]}, tolerance_of(t) * 10).steps, 2u);
    }
    // Heads outside, their three parts inside.
    const Tensor packed = random_tensor({3, 70, 2, 96}, t, 3), e = slice(d, 2, 0, 2);
    const auto part = [&](std::int64_t i) { return slice(packed, 3, 32 * i, 32 * (i + 1)); };
    const Tensor z = attention(part(2), part(1), part(0));
    EXPECT_EQ(check({z}, tolerance_of(t)).steps, 1u);
    EXPECT_EQ(check({z, pull({z}, {packed}, {e * 1.0})[0]}, tolerance_of(t) * 10).steps, 3u);
  }
}

// A loop writes the parts of a concatenate where they belong, along any axis, whatever else reads them.
TEST(Fuse, LoopsWriteThePartsOfAConcatenate) {
  for (DType t : {f32, f64, bf16}) {
    const Tensor x = random_tensor({5, 7, 40}, t, 1), s = random_tensor({40}, t, 2);
    const Tensor a = tanh(x * s), b = sigmoid(x) - 1.0, c = a * b;
    for (int axis : {0, 1, 2}) {
      SCOPED_TRACE(axis);
      EXPECT_EQ(check({concatenate({b, a, c, a}, axis)}, tolerance_of(t)).steps, 1u);
      EXPECT_EQ(check({concatenate({b, a}, axis), a, concatenate({c, b}, 1)}, tolerance_of(t), 2).steps, 1u);
    }
    const auto flat = [](const Tensor& y) { return reshape(y, {35, 40}); };
    EXPECT_EQ(check({concatenate({flat(a), flat(c)}, 1)}, tolerance_of(t)).steps, 1u);
    EXPECT_EQ(check({concatenate({flat(b), flat(c)}, 1), flat(b) + 1.0}, tolerance_of(t)).steps, 1u);
  }
}

// Parts that are no values of one loop over all elements, and rows too short to be written one by one.
TEST(Fuse, OtherConcatenatesAreMoved) {
  for (DType t : {f32, f64}) {
    const Tensor x = random_tensor({12, 64}, t, 1), row = random_tensor({64}, t, 2), y = exp(x);
    EXPECT_EQ(check({concatenate({y, x}, 1)}, tolerance_of(t)).steps, 2u);
    check({concatenate({y, cumsum(y, 0)}, 1)}, tolerance_of(t));
    check({concatenate({y, sum(y, {1}, true)}, 1)}, tolerance_of(t) * 10);
    check({concatenate({sum(y, {0}), tanh(row)}, 0), y}, tolerance_of(t) * 10);
    check({concatenate({y, broadcast_to(row, {12, 64})}, 0)}, tolerance_of(t));
    const auto narrow = [](const Tensor& z) { return reshape(z, {96, 8}); };
    EXPECT_EQ(check({concatenate({narrow(y), narrow(y * 2.0)}, 1)}, tolerance_of(t)).steps, 2u);
    check({reshape(concatenate({reshape(y, {768}), reshape(tanh(x), {768})}, 0), {2, 768}) * 2.0}, tolerance_of(t));
    const Tensor z = concatenate({y, y * x}, 1);  // read by what could have been the same loop
    check({slice(z, 1, 0, 64) + y, sum(z)}, tolerance_of(t) * 10);
  }
}

// A state made anew of parts of itself that do not lie where they are written: those may not be overwritten yet.
TEST(Fuse, AConcatenateThatUpdatesAState) {
  Variable w(random_tensor({6, 256}, f32, 1));
  auto step = compile([&](Tensor x) {
    w.set(concatenate({slice(w.get(), 1, 64, 192) * x, slice(w.get(), 1, 0, 128) + x}, 1));
    return x;
  });
  const std::vector<double> old = w.get().to_vector<double>();
  step(full({6, 128}, 2.0));
  const std::vector<double> now = w.get().to_vector<double>();
  for (std::size_t i = 0; i < now.size(); ++i) {
    const double want = i % 256 < 128 ? 2 * old[i + 64] : static_cast<float>(old[i - 128] + 2);
    ASSERT_EQ(now[i], want) << i;
  }
}

// Slices of tokens and heads, slices that others read too, operands that are the same, gradients of which one is read
// alone or twice.
TEST(Fuse, AttentionBesideOtherReaders) {
  const Tensor x = random_tensor({3, 20, 192}, f32, 1), d = random_tensor({3, 20, 2, 32}, f32, 2);
  const auto part = [&](int i) { return slice(x, 2, 64 * i, 64 * (i + 1)); };
  const auto heads = [&](const Tensor& y) { return reshape(y, {3, 20, 2, 32}); };
  const Tensor q = heads(part(0)), k = heads(part(1)), v = heads(part(2)), y = attention(q, k, v);
  check({y, part(1), exp(part(2))}, 2e-5);
  check({y, pull({y}, {x}, {d})[0], pull({y}, {k}, {d})[0]}, 2e-4);
  check({pull({y}, {q}, {d})[0]}, 2e-4);
  const Tensor same = attention(q, q, k);
  check({same, pull({same}, {x}, {d})[0]}, 2e-4);
  const Tensor later = slice(x, 1, 4, 20, 3), whole = reshape(later, {3, 6, 6, 32});
  const Tensor z = attention(slice(whole, 2, 0, 4), slice(whole, 2, 2, 4), slice(whole, 2, 4, 6), {.causal = true});
  check({z, pull({z}, {x}, {random_tensor({3, 6, 4, 32}, f32, 3)})[0]}, 2e-4);
  const Tensor spread = broadcast_to(slice(x, 1, 2, 3), {3, 20, 192});
  const Tensor u = attention(q, heads(slice(spread, 2, 0, 64)), heads(slice(spread, 2, 64, 128)));
  check({u, pull({u}, {x}, {d})[0]}, 2e-4);
}

TEST(Fuse, ColumnSumsJoinTheirProducers) {
  const Tensor x = random_tensor({300, 40}, f32, 1), d = random_tensor({300, 40}, f32, 2);
  const Tensor masked = select(x > 0.0, d, zeros_like(d));
  const Fused f = check({masked, sum(masked, {0}), sum(masked * x, {0})}, 1e-4);
  EXPECT_EQ(f.steps, 1u);
}

TEST(Fuse, MiddleReductionsStayCorrect) {
  const Tensor x = random_tensor({4, 5, 6, 7}, f64, 1);
  for (const Axes& axes : {Axes{1}, Axes{2}, Axes{0, 2}, Axes{1, 3}, Axes{0, 1, 2, 3}, Axes{0, 3}})
    check({exp(x) / sum(exp(x), axes, true), max(x * x, axes)}, 1e-11);
}

TEST(Fuse, GroupsThatWouldDependOnEachOtherStayApart) {
  // The scale needs both sums; both updates need the scale.
  const Tensor a = random_tensor({40, 30}, f32, 1), b = random_tensor({700}, f32, 2);
  const Tensor scale = minimum(1.0 / sqrt(sum(a * a) + sum(b * b)), 1.0);
  check({a * scale, b * scale}, 1e-4);
  // A product between two elementwise ends.
  const Tensor x = random_tensor({16, 16}, f64, 3), e = exp(x);
  check({matmul(e, e) + e, sum(e, {1})}, 1e-11);
}

TEST(Fuse, DtypesAndRandomBits) {
  const Tensor x = random_tensor({37, 20}, bf16, 1), state = Tensor::from<std::int64_t>({5, 9});
  check({cast(cast(x, f32) * 2.0 + 1.0, bf16), x * x, sum(cast(x, f32), {0})}, tolerance_of(bf16));
  const Tensor keep = random_bernoulli(state, {37, 20}, 0.7, 11);
  const Tensor y = select(keep, cast(x, f32) / 0.7, zeros_like(cast(x, f32)));
  EXPECT_EQ(check({y, sum(keep)}, 1e-6).loops >= 1, true);
  check({random_uniform(state, {5, 3}, f32, 1), random_normal(state, {1001}, f64, 2)}, 1e-5);
  const Tensor labels = cast(floor(random_tensor({37}, f32, 5, 0, 20)), i64);
  check({mean(cast(equal(argmax(cast(x, f32)), labels), f32)), one_hot(labels, 20)}, 1e-6);
  check({cast(random_tensor({9, 9}, f64, 6), f32) * 2.0, cast(random_tensor({9}, f32, 7), f64) + 1.0}, 1e-6);
}

TEST(Fuse, EmptyAndSingleElementTensors) {
  for (Shape shape : {Shape{0, 4}, Shape{4, 0}, Shape{1, 1}, Shape{}, Shape{1, 5, 1}, Shape{5, 1}}) {
    const Tensor x = random_tensor(shape, f32, 1);
    check({exp(x) * 2.0 + x, sum(exp(x)), broadcast_to(x, broadcast_shapes(shape, Shape{5, 1, 1}, "test"))}, 1e-5);
  }
}

TEST(Fuse, StatesAreOverwrittenInPlace) {
  Variable w(random_tensor({50, 20}, f32, 1)), m(zeros({50, 20})), b(random_tensor({20}, f32, 3)),
      t(Tensor::from<float>({0}));
  const auto body = [&](Tensor x) {
    const Tensor y = tanh(x * w.get() + b.get());
    const Tensor loss = sum(y * y);
    const std::vector<Tensor> g = grad(loss, std::vector<Tensor>{w.get(), b.get()});
    m.set(m.get() * 0.9 + g[0] * 0.1);
    w.set(w.get() - m.get() * 0.01);
    b.set(b.get() - g[1] * (0.01 / (t.get() + 1.0)));
    t.set(t.get() + 1.0);
    return loss;
  };
  const Tensor x = random_tensor({50, 20}, f32, 2);
  std::vector<std::vector<double>> seen[2];
  const Tensor w0 = w.get(), m0 = m.get(), b0 = b.get(), t0 = t.get();
  for (int plain = 0; plain < 2; ++plain) {
    w.set(w0), m.set(m0), b.set(b0), t.set(t0);
    CompileOptions options;
    if (plain) options.disable_passes = {"fuse"};
    auto step = compile(body, options);
    for (int i = 0; i < 5; ++i) seen[plain].push_back({step(x).item()});
    for (const Variable& v : {w, m, b, t}) seen[plain].push_back(v.get().to_vector<double>());
  }
  for (std::size_t i = 0; i < seen[0].size(); ++i)
    for (std::size_t k = 0; k < seen[0][i].size(); ++k)
      ASSERT_NEAR(seen[0][i][k], seen[1][i][k], 1e-4 * (1 + std::fabs(seen[1][i][k]))) << i << " " << k;
}

// The new value is recorded before another reader of the old one: it has to wait, or a copy is kept.
TEST(Fuse, AStateIsOverwrittenAfterItsLastReader) {
  Variable w(random_tensor({40, 40}, f32, 1));
  auto step = compile([&](Tensor x) {
    const Tensor old = w.get();
    w.set(old * 0.5);
    return cumsum(matmul(x, old), 0);
  });
  const Tensor x = random_tensor({40, 40}, f32, 2);
  const std::vector<double> want = cumsum(matmul(x, w.get()), 0).to_vector<double>();
  const std::vector<double> got = step(x).to_vector<double>();
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << i;
  EXPECT_EQ(step.explain().find("  copy"), std::string::npos) << step.explain();
}

// Bytes that the loops of a fused graph write.
std::int64_t written(const passes::Optimised& o) {
  std::int64_t bytes = 0;
  const auto results = passes::all_group_results(o.graph, o.partition);
  for (std::size_t k = 0; k < results.size(); ++k)
    if (o.partition.groups[k].kind == passes::Group::Kind::loop)
      for (const ir::Value v : results[k]) bytes += static_cast<std::int64_t>(o.graph.type(v).bytes());
  return bytes;
}
std::int64_t written(const std::vector<Tensor>& ys, std::vector<std::string> disable) {
  const detail::Captured c = detail::capture(ys, {}, {}, 0);
  return written(passes::run_pipeline(c.graph, {.disable = std::move(disable), .recompute_bytes = 0}));
}

TEST(Recompute, TheGradientOfGeluNeedsItsInputOnly) {
  const Shape shape{64, 96};
  const std::int64_t bytes = shape.numel() * 4;
  const Tensor x = random_tensor(shape, f32, 1), w = random_tensor({96, 96}, f32, 2);
  const Tensor up = matmul(x, w), y = matmul(gelu_tanh(up), w);
  const std::vector<Tensor> ys{grad(mean(y * y), x)};
  check(ys, 1e-4);
  EXPECT_LT(written(ys, {}), 3 * bytes + 64);  // gelu(up), the gradients by y and by up
  EXPECT_GE(written(ys, {"recompute"}), 5 * bytes);
}

TEST(Recompute, BatchNormWithReluKeepsNoMask) {
  const Shape shape{512, 16};
  const std::int64_t bytes = shape.numel() * 4;
  const Tensor x = random_tensor(shape, f32, 1), w = random_tensor({16, 16}, f32, 2),
               gain = random_tensor({16}, f32, 3);
  const Tensor h = matmul(x, w), centred = h - mean(h, {0});
  const Tensor y = matmul(relu(centred * (rsqrt(mean(centred * centred, {0}) + 1e-5) * gain)), w);
  const std::vector<Tensor> ys{grad(mean(y * y), x)};
  check(ys, 1e-3);
  EXPECT_LT(written(ys, {}), 3 * bytes + 1024);  // the rectified values, the gradients by y and h; numbers a channel
  EXPECT_GT(written(ys, {"recompute"}), 4 * bytes);
}

TEST(Recompute, ReadsNoMoreThanItSaves) {
  // The sum of two products would have to be read as two.
  const Tensor a = random_tensor({64, 64}, f32, 1), b = random_tensor({64, 64}, f32, 2);
  const Tensor s = cumsum(a, 0) + cumsum(b, 0);
  const std::vector<Tensor> ys{cumsum(exp(s), 0) * s};
  check(ys, 1e-3);
  EXPECT_EQ(written(ys, {}), written(ys, {"recompute"}));
}

// Random graphs over a few shapes that broadcast against each other.
TEST(Fuse, RandomGraphs) {
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    Rng rng(Key(seed).fold("graphs"));
    const DType t = rng.below(2) ? f32 : f64;
    const Shape bases[] = {{6, 5}, {4, 3, 8}, {40, 16}, {3, 600}, {2, 3, 4, 5}, {64}, {300, 2}};
    const Shape base = bases[rng.below(7)];
    std::vector<Tensor> pool{random_tensor(base, t, seed), random_tensor(base, t, seed + 1000),
                             random_tensor({}, t, seed + 2000), random_tensor({base[base.rank() - 1]}, t, seed + 3000)};
    const auto any = [&] { return pool[rng.below(pool.size())]; };
    const auto tame = [](const Tensor& x) { return maximum(minimum(x, 3.0), -3.0); };
    const int length = 4 + static_cast<int>(rng.below(20));
    for (int i = 0; i < length; ++i) {
      Tensor y;
      const Tensor x = any();
      switch (rng.below(14)) {
        case 0: y = exp(tame(x)); break;
        case 1: y = tanh(x); break;
        case 2: y = sigmoid(x) * 2.0 - 1.0; break;
        case 3: y = relu(x); break;
        case 4:
        case 5:
        case 6:
        case 7: {
          const Tensor z = any();
          try {
            y = rng.below(2) ? x + z : x * z;
          } catch (const Error&) { continue; }
          break;
        }
        case 8: {
          if (x.shape().rank() == 0) continue;
          const int axis = static_cast<int>(rng.below(static_cast<std::uint64_t>(x.shape().rank())));
          y = rng.below(2) ? mean(x, {axis}, true) : max(x, {axis}, true);
          break;
        }
        case 9:
          y = rng.below(2) ? mean(x) : mean(x, x.shape().rank() > 1 ? Axes{0, x.shape().rank() - 1} : Axes{}, true);
          break;
        case 10: y = reshape(x, {-1}); break;
        case 11: y = x.rank() == 0 ? x * 0.5 : cumsum(x, 0) * 0.25; break;  // no loop: what it reads is stored
        case 12:
          if (x.rank() == 0) continue;
          y = concatenate({sigmoid(x), x * 0.5}, static_cast<int>(rng.below(static_cast<std::uint64_t>(x.rank()))));
          break;
        default:
          if (x.shape().numel() != base.numel()) continue;
          y = x.shape() == base ? softmax(x) : reshape(x, base);
      }
      pool.push_back(rng.below(3) ? y : tame(y));
    }
    std::vector<Tensor> ys;
    for (std::size_t i = pool.size() - std::min<std::size_t>(3, pool.size()); i < pool.size(); ++i)
      ys.push_back(tame(pool[i]));
    Tensor loss = mean(ys[0]);
    for (std::size_t i = 1; i < ys.size(); ++i) loss = loss + mean(ys[i]);
    ys.push_back(loss);
    if (rng.below(2)) ys.push_back(grad(loss, pool[0]));
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    check(ys, tolerance_of(t) * 10, seed % 4 == 0 ? 2 : 1);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace bp

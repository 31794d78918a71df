// Loops whose samples are independent run over the rows of the batch side by side: which they are, and that values do
// not change.
#include <gtest/gtest.h>

#include <functional>

#include "bp/compile.h"
#include "bp/ops.h"
#include "bp/profile.h"
#include "bp/recurrent.h"
#include "bp/scan.h"
#include "ir/body.h"
#include "passes/batch_rows.h"
#include "passes/pipeline.h"
#include "trace/node.h"

namespace bp {
namespace {

Tensor waves(const Shape& shape, double phase, DType dtype = f64) {
  return cast(sin(cast(reshape(arange(shape.numel()), shape), f64) * 0.7 + phase), dtype);
}

// The batch axes of all loops of a graph, after the passes.
std::vector<std::optional<passes::BatchAxis>> batches(const std::vector<Tensor>& roots) {
  const passes::Optimised o = passes::run_pipeline(detail::capture(roots, {}, {}, 0).graph, {});
  std::vector<std::optional<passes::BatchAxis>> out;
  for (const ir::Node& n : o.graph.nodes) {
    if (n.op != ir::OpId::scan) continue;
    const ir::Graph& body = ir::body_of(n.attrs);
    out.push_back(passes::find_batch(body, ir::ScanLayout(n.attrs)));
    if (out.back())
      for (std::int64_t rows : {std::int64_t{1}, out.back()->rows}) passes::with_rows(body, *out.back(), rows).verify();
  }
  return out;
}

using CellOf = std::function<Scanned(std::span<const Tensor>, std::span<const Tensor>)>;

// The loop of a cell over x [time, 6, 4] with a carry [6, 4].
std::vector<std::optional<passes::BatchAxis>> batches_of(const CellOf& cell, const Tensor& carry = waves({6, 4}, 0.1)) {
  const Scanned s = scan(cell, {watch(carry)}, {watch(waves({5, 6, 4}, 0.2))});
  std::vector<Tensor> roots = s.carry;
  roots.insert(roots.end(), s.ys.begin(), s.ys.end());
  return batches(roots);
}
bool is_split(const CellOf& cell, const Tensor& carry = waves({6, 4}, 0.1)) {
  const auto found = batches_of(cell, carry);
  return found.size() == 1 && found[0].has_value() && found[0]->rows == 6;
}

TEST(BatchOfALoop, RecurrentLayersHaveOneBothWays) {
  nn::LSTM lstm(4, 5, {.layers = 2});
  nn::GRU gru(4, 5, {.bidirectional = true});
  nn::init(lstm, Key(1), f64);
  nn::init(gru, Key(2), f64);
  const Tensor x = watch(waves({3, 7, 4}, 0));
  nn::RecurrentStart start;
  start.lengths = Tensor::from<std::int64_t>({7, 2, 5}, {3});
  for (const Tensor& y : {lstm(x), gru(x), lstm(x, start).y, gru(x, start).y}) {
    const Tensor loss = sum(y * y);
    std::vector<Tensor> roots = grad(loss, nn::parameters(lstm));
    if (!roots[0].defined()) roots = grad(loss, nn::parameters(gru));
    roots.push_back(grad(loss, x));
    const auto found = batches(roots);
    ASSERT_GE(found.size(), 2u);
    for (const auto& b : found) {
      ASSERT_TRUE(b.has_value());
      EXPECT_EQ(b->rows, 3);
    }
  }
}

TEST(BatchOfALoop, OpsThatKeepSamplesApart) {
  const Tensor w = watch(waves({4, 4}, 0.3)), each = watch(waves({6, 4}, 0.4)), table = watch(waves({9, 4}, 0.5));
  using In = std::span<const Tensor>;
  EXPECT_TRUE(is_split([&](In c, In x) { return Scanned{{tanh(matmul(c[0], w) + x[0])}, {c[0]}}; }));
  // An invariant with a row for each sample, a constant, a mean over units.
  EXPECT_TRUE(is_split([&](In c, In x) { return Scanned{{c[0] * each + x[0] * 0.5}, {mean(c[0], {1}, true)}}; }));
  EXPECT_TRUE(is_split(
      [&](In c, In x) {
        return Scanned{{concatenate({slice(c[0], 1, 2, 4), x[0]}, 1)}, {}};
      },
      waves({6, 6}, 0.1)));
  EXPECT_TRUE(is_split([&](In c, In x) {
    const Tensor heads = transpose(reshape(c[0], {6, 2, 2}), {0, 2, 1});
    return Scanned{{reshape(matmul(heads, heads, false, true), {6, 4}) + x[0]}, {}};
  }));
  EXPECT_TRUE(is_split([&](In c, In x) {
    return Scanned{{gather(table, cast(sum(x[0], {1}) > 0.0, i64)) + c[0]}, {reverse(c[0], {1})}};
  }));
}

TEST(BatchOfALoop, SamplesThatMeetAreNotSplit) {
  const Tensor w = watch(waves({4, 4}, 0.3)), mix = watch(waves({6, 6}, 0.4));
  using In = std::span<const Tensor>;
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] - mean(c[0], {0}, true) + x[0]}, {}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{matmul(mix, c[0]) + x[0]}, {}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{matmul(c[0], w) + x[0]}, {sum(c[0])}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] + x[0]}, {matmul(c[0], x[0], true, false)}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{reverse(c[0], {0}) + x[0]}, {}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) {
    return Scanned{{concatenate({slice(c[0], 0, 1, 6), slice(c[0], 0, 0, 1)}, 0) + x[0]}, {}};
  }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] + x[0]}, {transpose(c[0], {1, 0})}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) {
    return Scanned{{reshape(reshape(c[0], {4, 6}) * 2.0, {6, 4}) + x[0]}, {}};
  }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{cumsum(c[0], 0) + x[0]}, {}}; }));
  // A carry of all samples together.
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] + sum(x[0])}, {}}; }, waves({1}, 0.1)));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] + x[0]}, {w * 2.0}}; }));  // the same for all samples
  // As many units as samples, where shapes alone would not tell.
  const Tensor square = waves({6, 6}, 0), wide = watch(waves({4, 6}, 0.5));
  EXPECT_TRUE(is_split([&](In c, In x) { return Scanned{{matmul(c[0], mix) + matmul(x[0], wide)}, {}}; }, square));
  EXPECT_FALSE(is_split(
      [&](In c, In x) {
        return Scanned{{matmul(c[0], mix, true, false) + matmul(x[0], wide)}, {}};
      },
      square));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{c[0] + matmul(x[0], wide)}, {sum(c[0], {0})}}; }, square));
  EXPECT_FALSE(is_split(
      [&](In c, In x) {
        return Scanned{{transpose(c[0], {1, 0}) + matmul(x[0], wide)}, {}};
      },
      square));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{pad(c[0], {1, 0}, {-1, 0}) + x[0]}, {}}; }));
  EXPECT_FALSE(is_split([&](In c, In x) { return Scanned{{matmul(c[0], c[0]) + matmul(x[0], wide)}, {}}; }, square));
}

// Outputs and gradients of a layer, with so many threads.
template <class Layer>
std::vector<std::vector<double>> results(Layer& layer, const Shape& shape, DType dtype, int threads,
                                         const std::vector<std::int64_t>& lengths, std::string* plan = nullptr) {
  nn::RecurrentStart start;
  if (!lengths.empty()) start.lengths = Tensor::from(lengths, {shape[0]});
  const std::vector<Variable> parameters = nn::parameters(layer);
  auto step = compile(
      [&](const Tensor& x) {
        const nn::RecurrentResult r = layer(x, start);
        const Tensor loss = sum(r.y * waves(r.y.shape(), 1, dtype)) + sum(r.h * 0.3);
        std::vector<Tensor> out = grad(loss, parameters);
        out.push_back(grad(loss, x));
        out.push_back(r.y);
        out.push_back(r.h);
        return out;
      },
      {.threads = threads});
  std::vector<std::vector<double>> out;
  for (const Tensor& t : step(waves(shape, 0.5, dtype))) out.push_back(cast(t, f64).to_vector<double>());
  if (plan) *plan = step.explain();
  return out;
}

void expect_equal(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b,
                  double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size());
    for (std::size_t j = 0; j < a[i].size(); ++j)
      ASSERT_NEAR(a[i][j], b[i][j], tolerance * std::max(1.0, std::abs(b[i][j]))) << i << ", element " << j;
  }
}

TEST(LoopsSideBySide, GiveTheValuesOfOneThread) {
  for (DType dtype : {f32, f64})
    for (std::int64_t batch : {8, 13, 33}) {
      SCOPED_TRACE(batch);
      nn::LSTM lstm(5, 24, {.layers = 2});
      nn::GRU gru(5, 24, {.bidirectional = true});
      nn::init(lstm, Key(1), dtype);
      nn::init(gru, Key(2), dtype);
      std::vector<std::int64_t> lengths;
      for (std::int64_t i = 0; i < batch; ++i) lengths.push_back(1 + i * 5 % 9);
      const Shape shape{batch, 9, 5};
      const double tolerance = dtype == f32 ? 2e-5 : 1e-12;
      std::string plan;
      const auto one = results(lstm, shape, dtype, 1, {}, &plan);
      EXPECT_EQ(plan.find("side by side"), std::string::npos);
      expect_equal(results(lstm, shape, dtype, 2, {}, &plan), one, tolerance);
      EXPECT_NE(plan.find("2 side by side"), std::string::npos) << plan;
      expect_equal(results(lstm, shape, dtype, 3, {}), one, tolerance);
      expect_equal(results(gru, shape, dtype, 2, lengths, &plan), results(gru, shape, dtype, 1, lengths), tolerance);
      EXPECT_NE(plan.find("2 side by side"), std::string::npos) << plan;
    }
}

// Every kind of carry (kept, stacked before, stacked after), both directions, and operands with and without rows, some
// of which are first computed with.
TEST(LoopsSideBySide, CarriesAndStacksOfAllKinds) {
  const Tensor w = waves({32, 16}, 0.3), each = waves({12, 16}, 0.4), scale = waves({40}, 0.6);
  for (bool reverse : {false, true}) {
    const auto run = [&](int threads, std::string* plan) {
      auto step = compile(
          [&](const Tensor& x, const Tensor& rows, const Tensor& factor) {
            const Scanned s = scan(
                [&](std::span<const Tensor> c, std::span<const Tensor> in) -> Scanned {
                  const Tensor one = slice(rows, 1, 3, 4), s = sum(c[0], {1}, true) * one;
                  const Tensor wide = concatenate({c[0], broadcast_to(one, {12, 16})}, 1);
                  const Tensor a = tanh(matmul(wide, w) + in[0] * in[1]), b = c[1] * 0.5 + a * rows + s * 0.1;
                  return {{a, b, c[2] + b}, {a, c[1], a * b}};
                },
                {each, each * 2.0, each * 3.0}, {x, factor}, {.reverse = reverse});
            std::vector<Tensor> out = s.carry;
            out.insert(out.end(), s.ys.begin(), s.ys.end());
            return out;
          },
          {.threads = threads});
      std::vector<std::vector<double>> out;
      for (const Tensor& t : step(waves({40, 12, 16}, 0.7), each, scale)) out.push_back(t.to_vector<double>());
      if (plan) *plan = step.explain();
      return out;
    };
    std::string plan;
    const auto split = run(2, &plan);
    EXPECT_NE(plan.find("2 side by side"), std::string::npos) << plan;
    expect_equal(split, run(1, nullptr), 1e-12);
  }
}

// Where rows divide evenly: kernels of other numbers of rows may want them packed otherwise.
TEST(LoopsSideBySide, ShareThePackedWeights) {
  nn::LSTM lstm(8, 128);
  nn::init(lstm, Key(1));
  const double bytes = 128 * 512 * sizeof(float);
  const auto profile = [&](int threads) {
    auto step = compile([&](const Tensor& x) { return lstm(x); }, {.threads = threads});
    const Profile p = step.profile_steps(2, waves({32, 16, 8}, 0.2, f32));
    return std::pair(p, static_cast<double>(step.info().planned_peak_bytes));
  };
  const auto packed = [&](const Profile& p) {
    double moved = 0;
    for (const ProfileStep& s : p.steps)
      if (s.depth == 1 && s.name == "pack") {
        moved += s.bytes;
        EXPECT_EQ(s.threads, 2);
      }
    return moved;
  };
  const auto [split, split_bytes] = profile(2);
  EXPECT_GE(packed(split), 2 * bytes);  // read and written
  EXPECT_LT(packed(split), 3 * bytes);
  EXPECT_LT(split_bytes, profile(1).second + bytes);
}

TEST(LoopsSideBySide, ProfilesCountAllRows) {
  nn::LSTM lstm(8, 32);
  nn::init(lstm, Key(1));
  const auto flops_of = [&](int threads) {
    auto step = compile([&](const Tensor& x) { return lstm(x); }, {.threads = threads});
    double flops = 0;
    for (const ProfileStep& s : step.profile_steps(2, waves({16, 12, 8}, 0.2, f32)).steps)
      if (s.depth == 1 && s.name.find("matmul") != std::string::npos) {
        flops += s.flops;
        EXPECT_EQ(s.threads, threads);
      }
    return flops;
  };
  EXPECT_EQ(flops_of(2), 2.0 * 16 * 32 * 128 * 12);
  EXPECT_EQ(flops_of(1), flops_of(2));
}

}  // namespace
}  // namespace bp

// Cost: the memory of a long loop and of a deep network, with and without gradient checkpointing.
#include <algorithm>
#include <chrono>

#include "bp/compile.h"
#include "bp/ops.h"
#include "bp/recurrent.h"
#include "bp/scan.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
constexpr std::int64_t kSequences = 32, kUnits = 64, kDeepBatch = 256, kDeepWidth = 32;

struct Reader {
  nn::LSTM lstm;
  nn::Linear head{kUnits, 10};
  Reader(std::int64_t pixels, std::int64_t segment) : lstm(pixels, kUnits, {.last = true, .segment = segment}) {}
  Tensor operator()(const Tensor& x) const { return head(lstm(x)); }
  BP_FIELDS(Reader, lstm, head)
};

// `layers` residual layers h + tanh(h W) of kDeepWidth units in one loop over the stacked weights.
struct Deep {
  nn::Linear in{784, kDeepWidth}, head{kDeepWidth, 10};
  Variable weights;  // [layers, kDeepWidth, kDeepWidth]
  std::int64_t segment;
  Deep(std::int64_t layers, std::int64_t every, Key key)
      : weights(init::normal(0, 0.01)(Shape{layers, kDeepWidth, kDeepWidth}, key)), segment(every) {}
  Tensor operator()(const Tensor& x) const {
    const ScanBody body = [](std::span<const Tensor> h, std::span<const Tensor> w) {
      return Scanned{{h[0] + tanh(matmul(h[0], w[0]))}, {}};
    };
    return head(scan(body, {tanh(in(x))}, {weights.get()}, {.segment = segment}).carry[0]);
  }
  BP_FIELDS(Deep, in, head, weights, segment)
};

constexpr double kMiB = 1024.0 * 1024.0;

template <class M> auto step_of(M& model, optim::SGD& optimizer) {
  return compile(
      [&](const Tensor& x, const Tensor& y) {
        const Tensor loss = cross_entropy(model(x), y);
        optimizer.update(grad(loss, model));
        return loss;
      },
      {.mode = Mode::train, .threads = 1});
}

// What a train step of `model` takes, planned without running it.
template <class M> double planned(M& model, const Shape& x) {
  optim::SGD optimizer(model, {.lr = 0.002});
  auto step = step_of(model, optimizer);
  return static_cast<double>(step.prepare({Type{f32, x}, Type{i64, {x[0]}}}).planned_peak_bytes) / kMiB;
}

// A few updates: {memory in MiB, fastest update in ms, last loss}.
template <class M> std::vector<double> run_updates(M& model, const data::Batch& batch, int updates) {
  optim::SGD optimizer(model, {.lr = 0.002});
  auto step = step_of(model, optimizer);
  double loss = 0, best = 1e9;
  for (int i = 0; i < updates; ++i) {
    const auto start = std::chrono::steady_clock::now();
    loss = step(batch.x, batch.y).item();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) best = std::min(best, seconds);  // the first one compiles
  }
  return {static_cast<double>(step.info().planned_peak_bytes) / kMiB, 1000 * best, loss};
}

// Of 1/4, 1/2 and all of `most` iterations; `made(n)` is the model of n of them, `shape(n)` its input's.
template <class Made, class ShapeOf>
void put_memory(Outcome& o, std::int64_t most, const Made& made, const ShapeOf& shape) {
  for (const std::int64_t n : {most / 4, most / 2, most}) {
    auto model = made(n);
    nn::init(model, Key(1));
    o.x.push_back(static_cast<double>(n));
    o.y.push_back(planned(model, shape(n)));
  }
}

Outcome loop(std::int64_t segment, const Lab& lab, Key key) {
  const std::int64_t steps = lab.size(392, 196), pixels = 784 / steps;
  Reader model(pixels, segment);
  nn::init(model, key);
  Outcome o;
  o.figures = run_updates(model, lab.train({steps, pixels}, kSequences).all(), lab.size(10, 3));
  put_memory(
      o, steps, [&](std::int64_t) { return Reader(pixels, segment); },
      [&](std::int64_t n) {
        return Shape{kSequences, n, pixels};
      });
  return o;
}

Outcome deep(std::int64_t segment, const Lab& lab, Key key) {
  const std::int64_t layers = lab.size(400, 200);
  Deep model(layers, segment, key.fold("layers"));
  nn::init(model, key);
  Outcome o;
  o.figures = run_updates(model, lab.train({784}, kDeepBatch).all(), lab.size(10, 3));
  put_memory(
      o, layers, [&](std::int64_t n) { return Deep(n, segment, key); },
      [&](std::int64_t) {
        return Shape{kDeepBatch, 784};
      });
  return o;
}
}  // namespace

Cure cost() {
  Cure c;
  c.name = "cost";
  c.title = "Memory of long loops and deep networks";
  c.trouble =
      "The backward pass needs the values of the forward pass, so that a loop over T steps, or T layers, keeps T "
      "times what one of them computes: memory grows like T.";
  c.remedy =
      "Gradient checkpointing keeps the state at every sqrt(T)-th step only and computes the steps between once more "
      "in the backward pass: memory like 2 sqrt(T), for one forward pass more (Griewank and Walther 2000; Chen et al. "
      "2016). In bp it is one option, `segment`, of `scan` and of the recurrent layers. The losses are the same.";
  c.setting =
      "Fashion-MNIST: an LSTM of 64 units over 392 steps of 2 pixels, 32 images at a time; a network of 400 residual "
      "layers of 32 units, h + tanh(h W), as a loop over its stacked weights, 256 images at a time. Memory is what "
      "the step plans before it runs; the time is the fastest of ten updates on one thread; the loss is that of the "
      "tenth.";
  c.columns = {{"planned memory, MiB", 3}, {"update, ms", 3}, {"loss", 6}};
  c.bounds = {{0, 12, 8}};
  c.chart = {.title = "Planned memory of a train step", .x_label = "steps or layers", .y_label = "MiB"};
  const auto setup = [](const char* name, bool fails, auto f, std::int64_t segment) {
    return Setup{name, fails, [=](const Lab& lab, Key key) { return f(segment, lab, key); }};
  };
  c.setups = {setup("LSTM", true, loop, 0), setup("LSTM, checkpoints", false, loop, ScanOptions::kSqrt),
              setup("deep", true, deep, 0), setup("deep, checkpoints", false, deep, ScanOptions::kSqrt)};
  return c;
}

}  // namespace bp::doctor

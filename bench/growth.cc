// How a training step grows: time, planned peak and compile time of an MLP, a CNN or a GPT of any size, or the compile
// time of a graph of so many nodes. Prints one JSON line; scripts/performance draws them.
// usage: growth --kind mlp|cnn|gpt [--batch 8] [--depth 2] [--width 64] [--length 32] [--threads 1] [--seconds 0.5]
//        growth --kind graph [--nodes 50000]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "cases.h"

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Sizes {
  std::int64_t batch, depth, width, length;
};

struct Work {
  bp::nn::Sequential model;
  bp::Tensor x, t;
};

// `length` inputs, `depth` hidden layers.
Work mlp(const Sizes& s) {
  Work w;
  std::int64_t in = s.length;
  for (std::int64_t i = 0; i < s.depth; ++i, in = s.width) w.model.add(bp::nn::Linear(in, s.width)).add(bp::nn::ReLU());
  w.model.add(bp::nn::Linear(in, 10));
  w.x = bench::uniform_tensor(0, {s.batch, s.length}, bp::f32);
  w.t = bench::class_tensor(1, {s.batch}, 10);
  return w;
}

// Images of length x length; `depth` convolutions of 3 x 3 with batch norm, and a pool over everything.
Work cnn(const Sizes& s) {
  Work w;
  std::int64_t in = 3;
  for (std::int64_t i = 0; i < s.depth; ++i, in = s.width)
    w.model.add(bp::nn::Conv2d(in, s.width, 3, {.padding = 1, .bias = false}))
        .add(bp::nn::BatchNorm(s.width))
        .add(bp::nn::ReLU());
  w.model.add(bp::nn::GlobalAvgPool()).add(bp::nn::Linear(in, 10));
  w.x = bench::image_tensor(0, {s.batch, s.length, s.length, 3}, bp::f32);
  w.t = bench::class_tensor(1, {s.batch}, 10);
  return w;
}

Work gpt(const Sizes& s) {
  Work w;
  w.model.add(bp::nn::GPT(96, s.length,
                          {.layers = s.depth, .heads = std::max<std::int64_t>(1, s.width / 32), .width = s.width}));
  w.x = bench::class_tensor(0, {s.batch, s.length}, 96);
  w.t = bench::class_tensor(1, {s.batch, s.length}, 96);
  return w;
}

void measure(const std::string& kind, const Sizes& s, int threads, double seconds) {
  Work w = kind == "mlp" ? mlp(s) : kind == "cnn" ? cnn(s) : gpt(s);
  bp::nn::init(w.model, bp::Key(0));
  bp::optim::Adam optimizer(bp::nn::parameters(w.model), bp::optim::AdamOptions{.lr = 1e-6});
  auto step = bp::compile(
      [&](const bp::Tensor& x, const bp::Tensor& t) {
        const bp::Tensor loss = bp::cross_entropy(w.model(x), t);
        optimizer.update(bp::grad(loss, optimizer.parameters()));
        return loss;
      },
      {.mode = bp::Mode::train, .threads = threads});
  const auto begin = Clock::now();
  step(w.x, w.t).item();
  const double first = since(begin);
  std::vector<double> times;
  for (const auto start = Clock::now(); times.size() < 3 || since(start) < seconds;) {
    const auto a = Clock::now();
    step(w.x, w.t).item();
    times.push_back(since(a) * 1e6);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  const bp::ExecutableInfo info = step.info();
  fmt::print(
      "{{\"kind\":\"{}\",\"batch\":{},\"depth\":{},\"width\":{},\"length\":{},\"threads\":{},\"step_us\":{:.2f},"
      "\"params\":{},\"planned_bytes\":{},\"flops\":{:.0f},\"nodes\":{},\"first_step_seconds\":{:.4f},"
      "\"compile_seconds\":{:.4f}}}\n",
      kind, s.batch, s.depth, s.width, s.length, threads, times[times.size() / 2], bp::nn::parameter_count(w.model),
      info.planned_peak_bytes, info.flops, info.nodes, first, info.compile_seconds);
}

// A chain of matrices and vectors with branches that stay alive, of about so many nodes, without a gradient.
void measure_graph(std::int64_t nodes) {
  auto step = bp::compile(
      [&](const bp::Tensor& x) {
        bp::Tensor y = x, kept = x;
        for (std::int64_t i = 0; i + 4 < nodes; i += 4) {
          y = bp::tanh(bp::matmul(y, x) + kept);
          if (i % 64 == 0) kept = y;
          y = y * 0.5;
        }
        return bp::sum(y + kept);
      },
      {.threads = 1});
  const auto begin = Clock::now();
  const bp::ExecutableInfo info = step.prepare({bp::Type{bp::f32, {8, 8}}});
  fmt::print(
      "{{\"kind\":\"graph\",\"nodes\":{},\"steps\":{},\"compile_seconds\":{:.4f},\"trace_and_compile_seconds\":{:.4f}}}"
      "\n",
      nodes, info.steps, info.compile_seconds, since(begin));
}

}  // namespace

int main(int argc, char** argv) try {
  const auto number = [&](const char* name, const char* otherwise) {
    return std::stol(bench::option(argc, argv, name, otherwise));
  };
  const std::string kind = bench::option(argc, argv, "kind", "mlp");
  if (kind == "graph") {
    measure_graph(number("nodes", "50000"));
  } else if (kind == "mlp" || kind == "cnn" || kind == "gpt") {
    measure(kind, {number("batch", "8"), number("depth", "2"), number("width", "64"), number("length", "32")},
            static_cast<int>(number("threads", "1")), std::stod(bench::option(argc, argv, "seconds", "0.5")));
  } else {
    throw std::runtime_error("unknown kind " + kind + ": expected mlp, cnn, gpt or graph");
  }
  return 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "growth: {}\n", e.what());
  return 1;
}

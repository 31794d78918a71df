// Saddles: plain descent against momentum and Adam on a surface, and against orthogonal initialisation on a network
// that starts on a plateau.
#include "bp/compile.h"
#include "bp/ops.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
using OptimizerOf = std::function<std::unique_ptr<optim::Optimizer>(std::span<const Variable>)>;

struct Surface {
  std::function<Tensor(const Tensor& x, const Tensor& y)> f;
  std::function<double(Rng&)> x, y;  // the start
  double low;                        // of the way down: counted until f is below
  int updates;
};

// A saddle at the origin, minima of -1 at (0, +-sqrt 2).
Surface saddle_surface() {
  return {[](const Tensor& x, const Tensor& y) { return square(x) - square(y) + square(square(y)) / 4; },
          [](Rng&) { return 1.0; },
          [](Rng& rng) { return (1 + rng.uniform()) * 1e-6 * (rng.uniform() < 0.5 ? -1 : 1); }, -0.5, 100};
}

// A bowl with ripples: poor minima beside the one of 0 at the origin.
Surface rippled_surface() {
  return {[](const Tensor& x, const Tensor& y) { return (square(x) + 1 - cos(3 * x)) / 10 + square(y); },
          [](Rng& rng) { return 2.5 + 2 * rng.uniform(); }, [](Rng&) { return 1.0; }, 0.1, 200};
}

Outcome descend(const Surface& surface, const OptimizerOf& make, Key key) {
  Rng rng(key.fold("start"));
  std::vector<Variable> at;
  at.emplace_back(scalar(surface.x(rng), f64));
  at.emplace_back(scalar(surface.y(rng), f64));
  const auto optimizer = make(at);
  auto step = compile(
      [&] {
        const Tensor f = surface.f(at[0], at[1]);
        optimizer->update(grad(f, at));
        return f;
      },
      {.threads = 1});
  Outcome o;
  int left = surface.updates;
  for (int i = 0; i < surface.updates; ++i) {
    o.x.push_back(i);
    o.y.push_back(step().item());
    if (o.y.back() < surface.low && left == surface.updates) left = i;
  }
  o.figures = {o.y.back(), static_cast<double>(left)};
  return o;
}

// The three that walk down a surface, all with the same rate.
std::vector<Setup> descents(const Surface& surface) {
  const auto setup = [&](const char* name, bool fails, OptimizerOf make) {
    return Setup{name, fails, [=, make = std::move(make)](const Lab&, Key key) { return descend(surface, make, key); }};
  };
  constexpr double kRate = 0.05;
  return {
      setup("plain descent", true,
            [](auto p) { return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = kRate}); }),
      setup("momentum", false,
            [](auto p) { return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = kRate, .momentum = 0.9}); }),
      setup("Adam", false, [](auto p) { return std::make_unique<optim::Adam>(p, optim::AdamOptions{.lr = kRate}); })};
}

constexpr double kTiny = 0.05;

Outcome learn(const Initializer& weights, const OptimizerOf& make, const Lab& lab, Key key) {
  nn::Sequential net = dense({784, 32, 32, 32, 32, 10}, weights, layer<nn::Tanh>());
  nn::init(net, key.fold("weights"));
  const std::vector<Variable> parameters = nn::parameters(net);
  const auto optimizer = make(parameters);
  const History h = train(net, *optimizer, lab.train({784}, lab.size(4000, 2000)),
                          {.epochs = lab.size(5, 10), .key = key.fold("batches")});
  Outcome o;
  o.figures = {score(net, lab.test({784}, lab.size(4000, 1000))).accuracy, h.final_loss()};
  put_curve(o, h.losses);
  return o;
}
}  // namespace

Cure saddle() {
  Cure c;
  c.name = "saddle";
  c.title = "Saddles";
  c.trouble =
      "At a saddle the gradient is zero though there is a way down, and near it the gradient is tiny: plain descent, "
      "p -= lr g, leaves along a direction of curvature -k only by a factor 1 + lr k an update. In many dimensions "
      "saddles are far more common than poor minima (Dauphin et al. 2014).";
  c.remedy =
      "Momentum, b = m b + g, adds up gradients that keep their sign and leaves sooner (Polyak 1964). Adam divides by "
      "the gradient's own size, so that a tiny gradient makes as long a step as a large one (Kingma and Ba 2015).";
  c.setting =
      "f(x, y) = x^2 - y^2 + y^4/4 from x = 1 and y within 2e-6 of the ridge, a different start for each seed; 100 "
      "updates with rate 0.05, momentum 0.9. The minimum is -1.";
  c.columns = {{"f after 100 updates"}, {"updates until f < -0.5", 0}};
  c.bounds = {{0, -0.1, -0.9}};
  c.chart = {.title = "Descent from beside a saddle", .x_label = "update", .y_label = "f"};
  c.setups = descents(saddle_surface());
  return c;
}

Cure minimum() {
  Cure c;
  c.name = "minimum";
  c.title = "Poor minima";
  c.trouble =
      "Plain descent stops at the first point where the gradient is zero, also in a shallow dip on the side of a deep "
      "valley.";
  c.remedy =
      "Momentum carries through dips that are small beside the way it came down (Polyak 1964). Adam remembers for "
      "about ten updates too, and its steps do not shrink with the gradient; in deeper dips it stays as well.";
  c.setting =
      "f(x, y) = (x^2 + 1 - cos 3x) / 10 + y^2 from x between 2.5 and 4.5 and y = 1, a different start for each seed; "
      "200 updates with rate 0.05, momentum 0.9. The minimum is 0, at the origin; the next ones are at x = +-1.9.";
  c.columns = {{"f after 200 updates"}, {"updates until f < 0.1", 0}};
  c.bounds = {{0, 0.3, 0.05}};
  c.chart = {.title = "Descent into a rippled bowl", .x_label = "update", .y_label = "f"};
  c.setups = descents(rippled_surface());
  return c;
}

Cure plateau() {
  Cure c;
  c.name = "plateau";
  c.title = "Plateaus of a network";
  c.trouble =
      "Weights that are all tiny are a saddle of a deep network: with k layers of size e the output is of order e^k "
      "and each gradient of order e^(k-1), so the loss stays at log 10 for a long time before it falls (Saxe, "
      "McClelland and Ganguli 2014).";
  c.remedy =
      "Momentum and Adam leave sooner, as on a surface. Orthogonal weights, W^T W = I, are not near the saddle at "
      "all: they keep the length of signals and gradients through any number of layers (Saxe et al. 2014).";
  c.setting =
      "Fashion-MNIST, 4,000 images, four hidden tanh layers of 32, weights from N(0, 0.05^2), 5 epochs of batches of "
      "64 with rate 0.01 (Adam 0.001).";
  c.columns = {{"test accuracy, %"}, {"final loss"}};
  c.bounds = {{1, 2.2, 1.8}};
  c.chart = {.title = "Training loss", .x_label = "update", .y_label = "cross entropy"};
  const auto setup = [](const char* name, bool fails, const Initializer& weights, OptimizerOf make) {
    return Setup{name, fails,
                 [=, make = std::move(make)](const Lab& lab, Key key) { return learn(weights, make, lab, key); }};
  };
  const OptimizerOf sgd = [](auto p) { return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = 0.01}); };
  c.setups = {
      setup("SGD, tiny weights", true, init::normal(0, kTiny), sgd),
      setup("momentum 0.9, tiny weights", false, init::normal(0, kTiny),
            [](auto p) { return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = 0.01, .momentum = 0.9}); }),
      setup("Adam, tiny weights", false, init::normal(0, kTiny),
            [](auto p) { return std::make_unique<optim::Adam>(p, optim::AdamOptions{.lr = 0.001}); }),
      setup("SGD, orthogonal weights", false, init::orthogonal(), sgd)};
  return c;
}

}  // namespace bp::doctor

// Exploding gradients: a ReLU network over 98 time steps whose recurrent matrix stretches, against clipping and Adam.
#include <algorithm>

#include "bp/ops.h"
#include "bp/recurrent.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
constexpr std::int64_t kSteps = 98, kPixels = 8, kHidden = 32;
constexpr double kRadius = 1.04;

// kRadius times the identity: where nothing else happens a ReLU network keeps what it has read, and stretches it.
Initializer stretching() {
  return {"stretching", [](std::span<double> out, const Shape& shape, Fans, Key) {
            std::fill(out.begin(), out.end(), 0.0);
            for (std::int64_t i = 0; i < shape[0]; ++i) out[static_cast<std::size_t>(i * shape[1] + i)] = kRadius;
          }};
}

nn::Sequential network() {
  return nn::Sequential(nn::ReluRNN(kPixels, kHidden,
                                    {.last = true,
                                     .weight_init = init::normal(0, 0.03),
                                     .recurrent_init = stretching(),
                                     .bias_init = init::zeros()}),
                        nn::Linear(kHidden, 10, {.weight_init = init::glorot_normal()}));
}

using OptimizerFor = std::function<std::unique_ptr<optim::Optimizer>(nn::Sequential&)>;

Outcome run_exploding(const OptimizerFor& make, const Lab& lab, Key key) {
  nn::Sequential net = network();
  nn::init(net, key.fold("weights"));
  const auto optimizer = make(net);
  const History h = train(net, *optimizer, lab.train({kSteps, kPixels}, lab.size(4000, 2000)),
                          {.epochs = lab.size(6, 6), .key = key.fold("batches")});
  const Score s = score(net, lab.test({kSteps, kPixels}, lab.size(4000, 1000)));
  Outcome o;
  o.figures = {s.accuracy, h.final_loss(), static_cast<double>(h.losses.size()), h.largest_norm};
  put_curve(o, h.losses);
  return o;
}
}  // namespace

Cure exploding() {
  Cure c;
  c.name = "exploding";
  c.title = "Exploding gradients";
  c.trouble =
      "Through T time steps the gradient is multiplied T times by the same matrix: dL/dh_t = (W_hh^T)^(T-t) .. "
      "dL/dh_T. Where its spectral radius is above 1 that grows like radius^T, and one step of plain descent throws "
      "the weights so far that the next loss overflows (Bengio, Simard and Frasconi 1994).";
  c.remedy =
      "Clipping by norm, g min(1, c / |g|), keeps the direction and bounds the step (Pascanu, Mikolov and Bengio "
      "2013). Adam divides by sqrt(v), so that its step is about the rate whatever the size of the gradient (Kingma "
      "and Ba 2015), as long as its square does not overflow.";
  c.setting =
      "Fashion-MNIST, 4,000 images read as sequences of 98 steps of 8 pixels, a ReLU RNN of 32 units whose recurrent "
      "matrix is 1.04 times the identity (1.04^98 = 47), 6 epochs of batches of 64. SGD with rate 0.02, without and "
      "with clipping at 1; Adam with rate 0.0005, not clipped.";
  c.columns = {{"test accuracy, %"}, {"final loss"}, {"updates done", 0}, {"largest gradient norm", 2}};
  c.bounds = {{1, 2.25, 2.1}};
  c.chart = {.title = "Training loss", .x_label = "update", .y_label = "cross entropy", .log_y = true};
  const auto setup = [](const char* name, bool fails, OptimizerFor make) {
    return Setup{name, fails,
                 [make = std::move(make)](const Lab& lab, Key key) { return run_exploding(make, lab, key); }};
  };
  c.setups = {
      setup("SGD", true, [](auto& net) { return std::make_unique<optim::SGD>(net, optim::SGDOptions{.lr = 0.02}); }),
      setup("SGD, clipped by norm", false,
            [](auto& net) { return std::make_unique<optim::SGD>(net, optim::SGDOptions{.lr = 0.02, .clip_norm = 1}); }),
      setup("Adam", false,
            [](auto& net) { return std::make_unique<optim::Adam>(net, optim::AdamOptions{.lr = 5e-4}); })};
  return c;
}

}  // namespace bp::doctor

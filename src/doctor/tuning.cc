// Tuning: fixed rates that are too small or too large against a schedule and a search with a validation split.
#include <cmath>

#include "bp/ops.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
constexpr int kBatch = 50;

struct Trial {
  nn::Sequential net = dense({784, 64, 64, 10}, init::glorot_normal(), layer<nn::Tanh>());
  History history;
};

Trial trial(const data::ArrayDataset& data, int epochs, const Schedule& rate, Key key) {
  Trial t;
  nn::init(t.net, key.fold("weights"));
  optim::SGD optimizer(t.net, {.lr = 0});
  t.history =
      train(t.net, optimizer, data, {.epochs = epochs, .batch = kBatch, .key = key.fold("batches"), .rate = rate});
  return t;
}

// The rate of the best of `trials` short runs, by validation accuracy; rates are log-uniform in [low, high].
double searched(const data::ArrayDataset& data, const data::ArrayDataset& validation, int trials, int epochs, Key key) {
  constexpr double kLow = 1e-4, kHigh = 10;
  Rng rng(key.fold("search"));
  double best = 0, best_accuracy = -1;
  for (int i = 0; i < trials; ++i) {
    const double rate = kLow * std::pow(kHigh / kLow, rng.uniform());
    const Trial t = trial(data, epochs, schedule::constant(rate), key);
    const double accuracy = t.history.finite ? score(t.net, validation).accuracy : 0;
    if (accuracy > best_accuracy) {
      best_accuracy = accuracy;
      best = rate;
    }
  }
  return best;
}

Outcome run_tuning(double rate, bool cosine, bool search, const Lab& lab, Key key) {
  const auto [data, validation] = lab.train({784}, lab.size(5000, 2500)).split(0.2, key.fold("split"));
  const int epochs = lab.size(10, 6);
  if (search) rate = searched(data, validation, lab.size(12, 8), 1, key);
  const std::int64_t updates = epochs * (data.size() / kBatch);
  const Schedule schedule = cosine ? schedule::warmup(schedule::cosine(rate, updates - updates / 5), updates / 5, 0.01)
                                   : schedule::constant(rate);
  const Trial t = trial(data, epochs, schedule, key);
  Outcome o;
  o.figures = {score(t.net, lab.test({784}, lab.size(4000, 1000))).accuracy, rate, t.history.final_loss()};
  put_curve(o, t.history.losses);
  return o;
}
}  // namespace

Cure tuning() {
  Cure c;
  c.name = "tuning";
  c.title = "The learning rate";
  c.trouble =
      "Descent with a fixed rate converges only for rates below 2 / (largest curvature), and at a pace of rate times "
      "the smallest: a rate too small does not get anywhere, one too large bounces or diverges (LeCun et al. 1998).";
  c.remedy =
      "A schedule starts low, where the curvature is large, and ends low, where the noise of the batches would keep "
      "the loss up (Goyal et al. 2017; Loshchilov and Hutter 2017). A random search over the logarithm of the rate, "
      "judged on images kept aside, finds the scale (Bergstra and Bengio 2012).";
  c.setting =
      "Fashion-MNIST, 4,000 images to train on and 1,000 to choose by, two hidden tanh layers of 64, SGD, 10 epochs "
      "of batches of 50. The schedule rises for a fifth of the updates and falls as a cosine; the search makes 12 "
      "trials of one epoch with rates from 0.0001 to 10.";
  c.columns = {{"test accuracy, %"}, {"rate", 2}, {"final loss"}};
  c.bounds = {{2, 1, 0.8}};
  c.chart = {.title = "Training loss", .x_label = "update", .y_label = "cross entropy", .log_y = true};
  const auto setup = [](const char* name, bool fails, double rate, bool cosine, bool search) {
    return Setup{name, fails, [=](const Lab& lab, Key key) { return run_tuning(rate, cosine, search, lab, key); }};
  };
  c.setups = {setup("fixed, too small", true, 3e-4, false, false), setup("fixed, too large", true, 1.5, false, false),
              setup("as large, warm-up and cosine", false, 1.5, true, false),
              setup("searched, fixed", false, 0, false, true), setup("searched, cosine", false, 0, true, true)};
  return c;
}

}  // namespace bp::doctor

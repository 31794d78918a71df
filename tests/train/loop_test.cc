// What the loop can do beside epochs: accumulated gradients, averages of weights, limits, watched metrics, rollbacks,
// callbacks. Each also when the run stops and goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "classifier.h"

namespace bp {
namespace {

using namespace train_test;
using ::testing::HasSubstr;

// A small network on the line, in f64 where sums must agree beyond rounding.
struct Small {
  nn::Sequential model;
  std::unique_ptr<optim::Adam> adam;
  data::DataLoader loader;
  explicit Small(std::int64_t batch, bool normed = false, std::int64_t rows = 96)
      : model(normed ? nn::Sequential{nn::Linear{2, 8}, nn::BatchNorm{8}, nn::Tanh{}, nn::Linear{8, 1}}
                     : nn::Sequential{nn::Linear{2, 8}, nn::Tanh{}, nn::Linear{8, 1}}),
        loader(line(rows), {.batch_size = batch, .key = Key{2}, .drop_last = false, .threads = 0}) {
    nn::init(model, Key{1});
    adam = std::make_unique<optim::Adam>(model, optim::AdamOptions{.lr = 1e-2});
  }
  train::Trainer trainer(Options o) {
    o.task = Task::regression;
    o.threads = 1;
    return train::Trainer(model, mse, *adam, std::move(o));
  }
  std::vector<double> weights() const {
    std::vector<double> all;
    for (const Variable& v : nn::parameters(model))
      for (const double x : v.get().to_vector<double>()) all.push_back(x);
    return all;
  }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

TEST(Accumulate, IsALargerBatch) {
  Small large(32), parts(8);
  const train::Result a = large.trainer({.epochs = 5}).fit(large.loader);
  const train::Result b = parts.trainer({.epochs = 5, .accumulate = 4}).fit(parts.loader);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(parts.adam->step.get().item(), 15);
  EXPECT_LT(distance(large.weights(), parts.weights()), 1e-5);
  Small other(8);
  other.trainer({.epochs = 5}).fit(other.loader);
  EXPECT_GT(distance(large.weights(), other.weights()), 1e-3);
}

// 96 rows: 12 batches of 8, in groups of 5, 5 and 2.
TEST(Accumulate, TheLastUpdateOfAnEpochTakesWhatIsLeft) {
  Small c(8);
  std::vector<std::int64_t> steps;
  c.trainer({.epochs = 1, .accumulate = 5, .on_step = [&](const train::Progress& p) { steps.push_back(p.step); }})
      .fit(c.loader);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3}));
}

// Two batches of 8 in a group that could hold five are a batch of 16: by SGD, for Adam would not see a factor.
TEST(Accumulate, APartialGroupIsAveragedOverItsOwnBatches) {
  const auto trained = [](std::int64_t batch, std::int64_t accumulate) {
    Small c(batch, false, 16);
    optim::SGD sgd(c.model, {.lr = 0.1});
    train::Trainer t(c.model, mse, sgd, {.epochs = 3, .task = Task::regression, .accumulate = accumulate});
    EXPECT_EQ(t.fit(c.loader).steps, 3);
    return c.weights();
  };
  EXPECT_LT(distance(trained(16, 1), trained(8, 5)), 1e-6);
}

TEST(Accumulate, StopsAndGoesOnBetweenUpdates) {
  const std::string folder = empty_folder("accumulate");
  Small whole(8), part(8), c(8);
  whole.trainer({.epochs = 2, .accumulate = 5}).fit(whole.loader);
  std::int64_t batches = 0;
  Options o{.epochs = 2, .accumulate = 5, .checkpoint = {.folder = folder}};
  o.on_step = [&](const train::Progress&) { ++batches; };
  o.interrupted = [&] { return batches >= 7; };
  EXPECT_EQ(part.trainer(o).fit(part.loader).stop, Stop::interrupted);
  EXPECT_EQ(batches, 10);
  train::Trainer t = c.trainer({.epochs = 2, .accumulate = 5});
  t.resume(folder);
  t.fit(c.loader);
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

// The average by hand, from the weights after each update.
TEST(Averages, ExponentialByHand) {
  Small c(32);
  std::vector<double> expected = c.weights();
  std::int64_t t = 0;
  train::Trainer trainer =
      c.trainer({.epochs = 3, .ema = 0.5, .on_step = [&](const train::Progress&) {
                   ++t;
                   const double d = std::min(0.5, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t)));
                   const std::vector<double> w = c.weights();
                   for (std::size_t i = 0; i < w.size(); ++i) expected[i] += (1 - d) * (w[i] - expected[i]);
                 }});
  trainer.fit(c.loader);
  EXPECT_EQ(t, 9);
  EXPECT_LT(distance(c.weights(), expected), 1e-6);
}

// Training goes its own way: what a later fit continues from are its weights.
TEST(Averages, DoNotChangeTraining) {
  Small plain(32), averaged(32);
  plain.trainer({.epochs = 4}).fit(plain.loader);
  std::vector<double> raw;
  const train::Result r =
      averaged.trainer({.epochs = 4, .ema = 0.9, .on_step = [&](const train::Progress&) { raw = averaged.weights(); }})
          .fit(averaged.loader);
  EXPECT_EQ(raw, plain.weights());
  EXPECT_GT(distance(averaged.weights(), raw), 1e-4);
  EXPECT_EQ(r.steps, 12);
}

TEST(Averages, ValidationSeesThem) {
  Small c(32);
  data::DataLoader held(line(40), {.batch_size = 40, .shuffle = false});
  train::Trainer t = c.trainer({.epochs = 3, .ema = 0.9});
  const train::Result r = t.fit(c.loader, &held);
  EXPECT_EQ(t.evaluate(held).loss, r.history.back().validation->loss);  // the model holds the average now
}

TEST(Averages, StochasticByHandAndStatisticsAnew) {
  Small c(16, true);
  std::vector<double> sum;
  train::Trainer t = c.trainer({.epochs = 5, .swa_from = 3, .on_epoch = [&](const train::Epoch& e) {
                                  const std::vector<double> w = c.weights();
                                  sum.resize(w.size());
                                  for (std::size_t i = 0; i < w.size() && e.epoch >= 3; ++i) sum[i] += w[i] / 3;
                                }});
  t.fit(c.loader);
  EXPECT_LT(distance(c.weights(), sum), 1e-6);
  // The running mean is that of the averaged first layer over the data.
  const data::Batch all = line(96).all();
  const Tensor h = mean(matmul(to_tensor(all.x), nn::parameters(c.model)[0]) + nn::parameters(c.model)[1], {0});
  for (const nn::NamedVariable& v : nn::state(c.model)) {
    if (!v.name.ends_with("running_mean")) continue;
    EXPECT_LT(distance(v.variable.get().to_vector<double>(), h.to_vector<double>()), 0.02);
  }
}

TEST(Averages, StopAndGoOn) {
  for (const bool stochastic : {false, true}) {
    const std::string folder = empty_folder("averages");
    const auto options = [&](const std::string& kept) {
      Options o{.epochs = 4, .checkpoint = {.folder = kept}};
      (stochastic ? void(o.swa_from = 2) : void(o.ema = 0.9));
      return o;
    };
    Small whole(16, true), part(16, true), c(16, true);
    whole.trainer(options("")).fit(whole.loader);
    Options o = options(folder);
    std::int64_t step = 0;
    o.on_step = [&](const train::Progress& p) { step = p.step; };
    o.interrupted = [&] { return step == 15; };
    part.trainer(o).fit(part.loader);
    train::Trainer t = c.trainer(options(folder));
    t.resume(folder);
    t.fit(c.loader);
    EXPECT_EQ(bits(c.model), bits(whole.model)) << stochastic;
  }
}

TEST(Limits, OfStepsTimeAndTarget) {
  Small steps(32), time(32), target(32);
  const train::Result a = steps.trainer({.epochs = 10, .max_steps = 7}).fit(steps.loader);
  EXPECT_EQ(a.stop, Stop::max_steps);
  EXPECT_EQ(a.steps, 7);
  EXPECT_EQ(a.history.size(), 2u);
  EXPECT_EQ(time.trainer({.epochs = 1'000'000, .max_seconds = 0.05}).fit(time.loader).stop, Stop::max_seconds);
  const train::Result c = target.trainer({.epochs = 1000, .watch = "r2", .target = 0.9}).fit(target.loader);
  EXPECT_EQ(c.stop, Stop::target);
  ASSERT_GE(c.history.size(), 2u);
  EXPECT_GE(c.history.back().train.r2, 0.9);
  EXPECT_LT(c.history[c.history.size() - 2].train.r2, 0.9);
}

TEST(Limits, ALimitedRunGoesOn) {
  const std::string folder = empty_folder("limited");
  Small whole(32), part(32), c(32);
  whole.trainer({.epochs = 4}).fit(whole.loader);
  part.trainer({.epochs = 4, .max_steps = 7, .checkpoint = {.folder = folder}}).fit(part.loader);
  train::Trainer t = c.trainer({.epochs = 4});
  t.resume(folder);
  t.fit(c.loader);
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

TEST(Watch, LargerIsBetterWhereItIs) {
  Classifier c(0);  // nothing is learned
  data::DataLoader held(images().take(100), {.batch_size = 50, .shuffle = false});
  const train::Result r = c.trainer({.epochs = 20, .watch = "f1", .patience = 2}).fit(c.loader, &held);
  EXPECT_EQ(r.stop, Stop::early_stopping);
  EXPECT_EQ(r.history.size(), 3u);
  Classifier d;
  int spoilt = 0;
  const std::string best = scratch("best_accuracy.safetensors");
  const train::Result s = d.trainer({.epochs = 4,
                                     .watch = "accuracy",
                                     .best_model = best,
                                     .on_epoch =
                                         [&](const train::Epoch&) {
                                           if (++spoilt == 2) nn::parameters(d.model)[0].set(0.0);
                                         }})
                              .fit(d.loader, &held);
  EXPECT_GT(s.history[1].validation->accuracy, s.history[0].validation->accuracy);
  load_state(best, d.model);
  train::Trainer t = d.trainer({.top_k = 3});
  const train::Metrics m = t.evaluate(held);
  EXPECT_EQ(m.accuracy, s.history[1].validation->accuracy);
  EXPECT_GE(m.top_k, m.accuracy);
  EXPECT_DOUBLE_EQ(m.perplexity, std::exp(m.loss));
  metrics::ConfusionMatrix confusion(10);
  t.evaluate(held, confusion);
  EXPECT_EQ(confusion.counts().total(), 100);
  EXPECT_DOUBLE_EQ(confusion.counts().accuracy(), m.accuracy);
  EXPECT_DOUBLE_EQ(confusion.counts().macro().f1, m.f1);
}

TEST(Watch, AMetricThatIsNotThereIsNamed) {
  Small c(32);
  for (const char* name : {"accuracy", "auc"}) {
    train::Trainer t = c.trainer({.epochs = 1, .watch = name});
    EXPECT_THAT(message_of([&] { t.fit(c.loader); }, ErrorKind::value), HasSubstr("loss, mae, rmse, r2"));
  }
  Classifier d;
  train::Trainer t = d.trainer({.watch = "f1"});
  EXPECT_THAT(message_of([&] { t.fit(d.loader); }, ErrorKind::value), HasSubstr("without validation"));
}

TEST(FindRate, TellsWhereTheLossFallsAndChangesNothing) {
  Classifier c(1e-3);
  const auto before = bits(c.model);
  c.loader.next();
  const data::LoaderState place = c.loader.state();
  train::Trainer t = c.trainer({});
  const train::RateSearch s = t.find_rate(c.loader, {.low = 1e-6, .high = 10, .steps = 60});
  EXPECT_GT(s.suggestion, 1e-4);
  EXPECT_LT(s.suggestion, 0.3);
  ASSERT_GT(s.rates.size(), 10u);
  EXPECT_DOUBLE_EQ(s.rates[0], 1e-6);
  EXPECT_NEAR(s.rates[1] / s.rates[0], std::pow(1e7, 1.0 / 59), 1e-9);
  EXPECT_EQ(bits(c.model), before);
  EXPECT_EQ(c.optimizer.step.get().item(), 0);
  EXPECT_EQ(c.optimizer.lr.get().item(), 1e-3);
  EXPECT_EQ(c.loader.state(), place);
  message_of([&] { t.find_rate(c.loader, {.low = 1, .high = 0.1}); }, ErrorKind::value);
  message_of([&] { t.find_rate(c.loader, {.steps = 2}); }, ErrorKind::value);
}

TEST(FindRate, SuggestsNothingWhereTheLossNeverFalls) {
  Classifier c(1e-3);
  train::Trainer t = c.trainer({});
  EXPECT_EQ(t.find_rate(c.loader, {.low = 1e3, .high = 1e9, .steps = 20}).suggestion, 0);
}

// By the plan: one row more would take more than allowed.
TEST(LargestBatch, FitsAndOneMoreDoesNot) {
  Classifier c;
  train::Trainer t = c.trainer({});
  const Type x{f32, {64, 28, 28, 1}}, y{i64, {64}};
  const auto peak = [&](std::int64_t rows) {
    return t.step_info({f32, {rows, 28, 28, 1}}, {i64, {rows}}).planned_peak_bytes;
  };
  for (const std::int64_t rows : {1, 37, 64, 100}) {
    const std::int64_t found = t.largest_batch(x, y, peak(rows));
    EXPECT_GE(found, rows);
    EXPECT_LE(peak(found), peak(rows));
    EXPECT_GT(peak(found + 1), peak(rows));
  }
  EXPECT_EQ(t.largest_batch(x, y, 1000), 0);
  EXPECT_EQ(t.largest_batch(x, y, peak(1000), 20), 20);
}

// A rate that is far too large at first: with rollbacks it is halved until the run survives.
TEST(Rollback, LowersTheRateUntilTheRunSurvives) {
  const auto run = [](int rollbacks, std::vector<std::string>* warnings) {
    nn::Sequential model{nn::Linear{2, 1}};
    nn::init(model, Key{1});
    optim::SGD sgd(model, {.lr = 8});
    data::DataLoader loader(line(64), {.batch_size = 16, .threads = 0});
    Options o{.epochs = 60, .task = Task::regression, .max_loss = 1e4, .rollbacks = rollbacks, .rollback_factor = 0.25};
    if (warnings != nullptr) o.on_warning = [=](const std::string& w) { warnings->push_back(w); };
    train::Trainer t(model, mse, sgd, o);
    const train::Result r = t.fit(loader);
    return std::tuple(r, sgd.lr.get().item(), bits(model));
  };
  std::vector<std::string> warnings;
  const auto [r, lr, first] = run(5, &warnings);
  EXPECT_EQ(r.steps, 240);
  EXPECT_GE(r.rollbacks, 1);
  EXPECT_EQ(static_cast<int>(warnings.size()), r.rollbacks);
  EXPECT_DOUBLE_EQ(lr, 8 * std::pow(0.25, r.rollbacks));
  EXPECT_LT(r.history.back().train.loss, 1e-3);
  EXPECT_THAT(warnings[0], HasSubstr("above max_loss 10000"));
  EXPECT_EQ(std::get<2>(run(5, nullptr)), first);
  EXPECT_THAT(message_of([&] { run(0, nullptr); }, ErrorKind::diverged), HasSubstr("max_loss"));
}

TEST(Rollback, GoesBackToTheLastEpochAndScalesSchedules) {
  Small c(32);
  int spoilt = 0;
  std::vector<double> at_epoch;
  std::vector<train::Progress> seen;
  Options o{.epochs = 3, .schedule = schedule::constant(1e-2), .rollbacks = 1, .rollback_factor = 0.1};
  o.on_epoch = [&](const train::Epoch& e) {
    if (e.epoch == 2) at_epoch = c.weights();
  };
  o.on_step = [&](const train::Progress& p) {
    if (p.step == 7 && spoilt++ == 0) nn::parameters(c.model)[0].set(NAN);
    if (p.step == 7 && spoilt == 2) { EXPECT_LT(distance(at_epoch, c.weights()), 0.01); }
    seen.push_back(p);
  };
  const train::Result r = c.trainer(o).fit(c.loader);
  EXPECT_EQ(r.rollbacks, 1);
  EXPECT_EQ(r.steps, 9);
  EXPECT_DOUBLE_EQ(r.history[1].lr, 1e-2);
  EXPECT_DOUBLE_EQ(r.history[2].lr, 1e-3);
  EXPECT_EQ(seen.size(), 10u);  // step 7 twice
}

// Gradients of the batches before the bad one are forgotten: with the rate as it was, nothing remains of the rollback.
TEST(Rollback, WithinAGroupOfBatches) {
  Small plain(8), spoilt(8);
  plain.trainer({.epochs = 2, .accumulate = 3}).fit(plain.loader);
  int batches = 0;
  Options o{.epochs = 2, .accumulate = 3, .rollbacks = 1, .rollback_factor = 1};
  o.on_step = [&](const train::Progress&) {
    if (++batches == 5) nn::parameters(spoilt.model)[0].set(NAN);
  };
  EXPECT_EQ(spoilt.trainer(o).fit(spoilt.loader).rollbacks, 1);
  EXPECT_EQ(bits(spoilt.model), bits(plain.model));
}

struct Counter final : train::Callback {
  int steps = 0, epochs = 0, begins = 0, ends = 0, stop_at = -1;
  void on_begin(const std::vector<train::Epoch>& history) override {
    begins += 1 + 100 * static_cast<int>(history.size());
  }
  void on_step(const train::Progress&) override { ++steps; }
  void on_epoch(const train::Epoch&) override { ++epochs; }
  void on_end(const train::Result&) override { ++ends; }
  bool wants_to_stop() override { return steps == stop_at; }
  std::string name() const override { return "counter"; }
  std::string state() const override { return std::to_string(steps) + " " + std::to_string(epochs); }
  void restore(const std::string& state) override {
    std::size_t end = 0;
    steps = std::stoi(state, &end);
    epochs = std::stoi(state.substr(end));
  }
};

TEST(Callbacks, FollowTheRunStopItAndAreResumed) {
  const std::string folder = empty_folder("callback");
  Small part(32), c(32);
  const auto first = std::make_shared<Counter>(), second = std::make_shared<Counter>();
  first->stop_at = 4;
  EXPECT_EQ(part.trainer({.epochs = 3, .checkpoint = {.folder = folder}, .callbacks = {first}}).fit(part.loader).stop,
            Stop::interrupted);
  EXPECT_EQ(first->begins, 1);
  EXPECT_EQ(first->ends, 1);
  EXPECT_EQ(first->epochs, 1);
  train::Trainer t = c.trainer({.epochs = 3, .callbacks = {second}});
  t.resume(folder);
  t.fit(c.loader);
  EXPECT_EQ(second->begins, 101);
  EXPECT_EQ(second->steps, 9);
  EXPECT_EQ(second->epochs, 3);
}

TEST(Loop, RefusesOptionsOutOfRange) {
  Small c(32);
  const auto refused = [&](Options o, const char* part) {
    EXPECT_THAT(message_of([&] { c.trainer(std::move(o)); }, ErrorKind::value), HasSubstr(part));
  };
  refused({.accumulate = 0}, "accumulate");
  refused({.max_steps = -1}, "max_steps");
  refused({.ema = 1}, "ema");
  refused({.ema = 0.9, .swa_from = 2}, "swa_from");
  refused({.swa_from = 2, .best_model = "x"}, "swa_from");
  refused({.max_loss = NAN}, "max_loss");
  refused({.rollback_factor = 0}, "rollback_factor");
  refused({.checkpoint = {.keep_last = 0}}, "keep_last");
  refused({.watch = "f2"}, "f2");
}

}  // namespace
}  // namespace bp

// The Trainer on a slice of Fashion-MNIST and on small regressions: it learns, repeats itself bit for bit, resumes
// exactly, stops when it should, and says what went wrong.
#include "bp/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "bp/augment.h"
#include "bp/io.h"
#include "classifier.h"

namespace bp {
namespace {

using namespace train_test;

using ::testing::HasSubstr;

TEST(Trainer, LearnsImages) {
  Classifier c;
  train::Trainer t = c.trainer({.epochs = 6});
  const train::Result r = t.fit(c.loader);
  ASSERT_EQ(r.history.size(), 6u);
  EXPECT_EQ(r.stop, Stop::epochs);
  EXPECT_EQ(r.steps, 6 * 8);
  EXPECT_LT(r.history.back().train.loss, 0.6 * r.history.front().train.loss);
  data::DataLoader test(images().subset(std::vector<std::int64_t>{600, 601, 602, 603, 604, 605, 606}),
                        {.batch_size = 4, .shuffle = false});
  const train::Metrics once = t.evaluate(test), again = t.evaluate(test);
  EXPECT_EQ(once.samples, 7);
  EXPECT_EQ(once.loss, again.loss);
  EXPECT_GT(once.accuracy, 0.3);
}

TEST(Trainer, RepeatsItselfBitForBit) {
  Classifier a, b;
  const auto first = a.trainer({.epochs = 2}).fit(a.loader), second = b.trainer({.epochs = 2}).fit(b.loader);
  EXPECT_EQ(first.history.back().train.loss, second.history.back().train.loss);
  EXPECT_EQ(bits(a.model), bits(b.model));
}

TEST(Trainer, MixedPrecisionLearnsTheSame) {
  const auto last = [](DType precision) {
    Classifier c;
    const train::Result r = c.trainer({.epochs = 4, .precision = precision}).fit(c.loader);
    for (const Variable& v : nn::parameters(c.model)) EXPECT_EQ(v.dtype(), f32) << v.name();
    return r.history.back().train.loss;
  };
  const double exact = last(f32), mixed = last(bf16);
  EXPECT_NE(mixed, exact);
  EXPECT_NEAR(mixed, exact, 0.05 * exact);
}

// Stops after `steps` steps, goes on in a new process' stead, and compares with a run that was never stopped.
void resumes_exactly(std::int64_t steps, const std::shared_ptr<const data::Source>& source = first_images()) {
  const auto options = [](const std::string& checkpoint) {
    return Options{
        .epochs = 3, .schedule = schedule::cosine(3e-3, 24), .patience = 2, .checkpoint = {.folder = checkpoint}};
  };
  Classifier whole(3e-3, source);
  const train::Result expected = whole.trainer(options("")).fit(whole.loader);

  const std::string path = empty_folder("resume");
  {
    Classifier c(3e-3, source, 2);
    Options o = options(path);
    std::int64_t done = 0;
    o.on_step = [&](const train::Progress& p) { done = p.step; };
    o.interrupted = [&] { return done == steps; };
    EXPECT_EQ(c.trainer(o).fit(c.loader).stop, Stop::interrupted);
  }
  Classifier c(1.0, source, 3);  // another rate: the checkpoint's counts
  nn::init(c.model, Key{77});
  train::Trainer t = c.trainer(options(path));
  t.resume(path);
  const train::Result r = t.fit(c.loader);
  EXPECT_EQ(r.steps, expected.steps);
  ASSERT_EQ(r.history.size(), expected.history.size());
  for (std::size_t i = 0; i < r.history.size(); ++i) {
    EXPECT_EQ(r.history[i].train.loss, expected.history[i].train.loss);
    EXPECT_EQ(r.history[i].train.accuracy, expected.history[i].train.accuracy);
    EXPECT_EQ(r.history[i].lr, expected.history[i].lr);
  }
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

TEST(Trainer, ResumesInTheMiddleOfAnEpoch) { resumes_exactly(11); }
TEST(Trainer, ResumesAtTheEndOfAnEpoch) { resumes_exactly(16); }
TEST(Trainer, ResumesAfterTheFirstStep) { resumes_exactly(1); }
TEST(Trainer, ResumesAmongAugmentedImages) {
  using namespace augment;
  resumes_exactly(11, augmented(first_images(), {flip(), shift(2), rotate(10), noise(0.05), cutmix(1, 10, 0.5)}));
}

// Targets are probabilities in training, ids in validation.
TEST(Trainer, LearnsFromMixedImages) {
  Classifier c(3e-3, augment::augmented(first_images(), {augment::mixup(0.2, 10)}));
  data::DataLoader validation(images().take(1024), {.batch_size = 256, .shuffle = false});
  const train::Result r = c.trainer({.epochs = 6}).fit(c.loader, &validation);
  EXPECT_GT(r.history.back().train.accuracy, 0.5);
  EXPECT_GT(r.history.back().validation->accuracy, 0.55);
  EXPECT_LT(r.history.back().validation->loss, r.history.back().train.loss);
}

TEST(Trainer, MoreEpochsLaterAreTheSameAsAtOnce) {
  Classifier whole, part;
  whole.trainer({.epochs = 3}).fit(whole.loader);
  const std::string path = empty_folder("more");
  part.trainer({.epochs = 2, .checkpoint = {.folder = path}}).fit(part.loader);
  Classifier c;
  train::Trainer t = c.trainer({.epochs = 3});
  t.resume(path);
  EXPECT_EQ(t.history().size(), 2u);
  EXPECT_EQ(t.fit(c.loader).steps, 24);
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

TEST(Trainer, GoesOnAfterAnInterruptionWithoutAFile) {
  Classifier whole, c;
  whole.trainer({.epochs = 2}).fit(whole.loader);
  bool stop = true;
  train::Trainer t = c.trainer({.epochs = 2, .interrupted = [&] { return std::exchange(stop, false); }});
  EXPECT_EQ(t.fit(c.loader).stop, Stop::interrupted);
  EXPECT_EQ(t.fit(c.loader).stop, Stop::epochs);
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

TEST(Trainer, AnEpochThatWasInterruptedDuringValidationIsNotTrainedAgain) {
  Classifier whole, c;
  data::DataLoader validation(images().take(200), {.batch_size = 50, .shuffle = false});
  whole.trainer({.epochs = 1}).fit(whole.loader, &validation);
  std::int64_t asked = 0;
  train::Trainer t = c.trainer({.epochs = 1, .interrupted = [&] { return ++asked == 10; }});
  EXPECT_EQ(t.fit(c.loader, &validation).stop, Stop::interrupted);
  const train::Result r = t.fit(c.loader, &validation);
  EXPECT_EQ(r.steps, 8);
  EXPECT_EQ(bits(c.model), bits(whole.model));
}

TEST(Trainer, StopsEarlyAndKeepsTheBestModel) {
  Classifier c(0);  // nothing is learned: the first epoch stays the best
  const std::string best = scratch("best.safetensors");
  const train::Result r = c.trainer({.epochs = 50, .patience = 3, .min_delta = 1, .best_model = best}).fit(c.loader);
  EXPECT_EQ(r.stop, Stop::early_stopping);
  EXPECT_EQ(r.history.size(), 4u);
  EXPECT_TRUE(std::filesystem::exists(best));
  EXPECT_NO_THROW(load_state(best, c.model));
}

TEST(Trainer, ConvergesOnALine) {
  nn::Sequential model{nn::Linear{2, 1}};
  nn::init(model, Key{1});
  optim::SGD sgd(model, {.lr = 0.1});
  data::DataLoader loader(line(64), {.batch_size = 16});
  train::Trainer t(model, mse, sgd, {.epochs = 1000, .task = Task::regression, .tolerance = 1e-3});
  const train::Result r = t.fit(loader);
  EXPECT_EQ(r.stop, Stop::converged);
  data::DataLoader test(line(50), {.batch_size = 16, .shuffle = false});
  const train::Metrics m = t.evaluate(test);
  EXPECT_EQ(m.samples, 50);
  EXPECT_NEAR(m.r2, 1, 1e-6);
  EXPECT_NEAR(m.rmse, std::sqrt(m.loss), 1e-6);
  EXPECT_LE(m.mae, m.rmse);
  EXPECT_TRUE(std::isnan(m.accuracy));
}

TEST(Trainer, MetricsOfRegressionByHand) {
  nn::Sequential model{nn::Identity{}};
  nn::Sequential other{nn::Linear{1, 1}};  // the optimizer needs something
  nn::init(other, Key{1});
  optim::SGD sgd(other, {});
  const std::vector<float> x{1, 2, 3}, y{2, 2, 5};
  data::DataLoader loader(data::ArrayDataset(Array::from(x, {3, 1}), Array::from(y, {3, 1})),
                          {.batch_size = 2, .shuffle = false});
  const train::Metrics m = train::Trainer(model, mse, sgd, {.task = Task::regression}).evaluate(loader);
  EXPECT_DOUBLE_EQ(m.mae, 1);
  EXPECT_DOUBLE_EQ(m.rmse, std::sqrt(5.0 / 3));
  EXPECT_DOUBLE_EQ(m.r2, 1 - 5.0 / 6);
  EXPECT_NEAR(m.loss, 5.0 / 3, 1e-6);
}

TEST(Trainer, MetricsOfBinaryLabels) {
  nn::Sequential model{nn::Identity{}}, other{nn::Linear{1, 1}};
  nn::init(other, Key{1});
  optim::SGD sgd(other, {});
  const std::vector<float> z{-1, 2, 3, -4}, y{0, 1, 0, 0};
  data::DataLoader loader(data::ArrayDataset(Array::from(z, {4, 1}), Array::from(y, {4, 1})),
                          {.batch_size = 3, .shuffle = false});
  train::Trainer t(model, [](const Tensor& o, const Tensor& target) { return binary_cross_entropy(o, target); }, sgd,
                   {.task = Task::binary});
  EXPECT_DOUBLE_EQ(t.evaluate(loader).accuracy, 0.75);
}

TEST(Trainer, ReduceOnPlateauLowersTheRateAndResumes) {
  Classifier c(0.0);
  const std::string folder = empty_folder("plateau");
  const auto options = [&](std::int64_t epochs) {
    return Options{.epochs = epochs,
                   .reduce_on_plateau = ReduceOnPlateauOptions{.factor = 0.5, .patience = 0, .eps = 0},
                   .checkpoint = {.folder = folder}};
  };
  nn::Sequential model{nn::Linear{2, 1}};
  nn::init(model, Key{1});
  optim::SGD sgd(model, {.lr = 1e-12});
  data::DataLoader loader(line(32), {.batch_size = 16});
  train::Trainer(model, mse, sgd,
                 [&] {
                   auto o = options(3);
                   o.task = Task::regression;
                   return o;
                 }())
      .fit(loader);
  EXPECT_DOUBLE_EQ(sgd.lr.get().item(), 0.5e-12);
  optim::SGD fresh(model, {.lr = 1e-12});
  auto o = options(4);
  o.task = Task::regression;
  train::Trainer t(model, mse, fresh, o);
  t.resume(folder);
  t.fit(loader);
  EXPECT_DOUBLE_EQ(fresh.lr.get().item(), 0.25e-12);
  EXPECT_EQ(t.history().size(), 4u);
}

TEST(Trainer, ALossThatBecomesNaNStopsNamesTheLayerAndKeepsTheCheckpoint) {
  struct Log final : nn::Activation<Log> {
    Tensor apply(const Tensor& x) const { return log(x); }
    const char* kind() const noexcept override { return "log"; }
  };
  nn::Sequential model{nn::Linear{2, 1}};
  model.add("logarithm", Log{});
  nn::init(model, Key{1});
  std::vector<float> x, y(64, 0.0f);
  for (int i = 0; i < 64; ++i) {
    x.push_back(1);
    x.push_back(1);
  }
  Array inputs = Array::from(x, {64, 2});
  optim::SGD sgd(model, {.lr = 1e-4});
  const Variable weight = nn::parameters(model)[0].alias(), bias = nn::parameters(model)[1].alias();
  Variable(weight.alias()).set(1.0);
  const std::string path = empty_folder("good");
  data::DataLoader loader(data::ArrayDataset(inputs, Array::from(y, {64, 1})), {.batch_size = 16});
  train::Trainer t(
      model, mse, sgd,
      {.epochs = 5, .task = Task::regression, .checkpoint = {.folder = path}, .on_step = [&](const train::Progress& p) {
         if (p.step == 6) Variable(weight.alias()).set(-3.0);
       }});
  const std::string message = message_of([&] { t.fit(loader); }, ErrorKind::diverged);
  EXPECT_THAT(message, HasSubstr("[log] logarithm"));
  EXPECT_THAT(message, HasSubstr("step 6 (epoch 2, batch 2)"));
  EXPECT_THAT(message, HasSubstr(path + "/step-000000004.safetensors"));
  EXPECT_EQ(weight.get().to_vector<double>(), (std::vector<double>{-3, -3})) << "the bad step changed the model";
  load_state(train::newest_checkpoint(path), model, &sgd);
  EXPECT_EQ(sgd.step.get().item(), 4);
  EXPECT_GT(bias.get().item() + weight.get().to_vector<double>()[0], 0);
}

struct Sqrt final : nn::Activation<Sqrt> {
  Tensor apply(const Tensor& x) const { return sqrt(x); }
  const char* kind() const noexcept override { return "sqrt"; }
};

TEST(Trainer, AGradientThatIsNotFiniteUnderAFiniteLoss) {
  for (const bool check : {false, true}) {
    nn::Sequential model{nn::Linear{2, 1}};
    model.add("root", Sqrt{});
    nn::init(model, Key{1});
    const std::vector<Variable> parameters = nn::parameters(model);
    parameters[0].alias().set(0.0);  // sqrt(0) = 0, but its slope is infinite
    optim::SGD sgd(model, {.lr = 1e-4});
    const std::vector<float> x(64, 1.0f), y(32, 1.0f);
    data::DataLoader loader(data::ArrayDataset(Array::from(x, {32, 2}), Array::from(y, {32, 1})), {.batch_size = 16});
    train::Trainer t(model, mse, sgd, {.epochs = 2, .task = Task::regression, .check_gradients = check});
    const std::string message = message_of([&] { t.fit(loader); }, ErrorKind::diverged);
    if (check) {
      EXPECT_THAT(message, HasSubstr("root (backward)"));
      EXPECT_EQ(parameters[0].get().to_vector<double>()[0], 0) << "the bad step changed the model";
    } else {
      EXPECT_THAT(message, HasSubstr("0.weight holds"));
      EXPECT_THAT(message, HasSubstr("check_gradients"));
    }
  }
}

TEST(Trainer, AParameterThatIsNotFiniteAtTheEndOfAnEpochIsNotSaved) {
  nn::Sequential model{nn::Linear{2, 1}};
  model.add("root", Sqrt{});
  nn::init(model, Key{1});
  nn::parameters(model)[0].set(0.0);
  optim::SGD sgd(model, {.lr = 1e-4});
  const std::vector<float> x(32, 1.0f), y(16, 1.0f);
  data::DataLoader loader(data::ArrayDataset(Array::from(x, {16, 2}), Array::from(y, {16, 1})), {.batch_size = 16});
  const std::string path = empty_folder("never");
  train::Trainer t(model, mse, sgd, {.task = Task::regression, .checkpoint = {.folder = path}});
  EXPECT_THAT(message_of([&] { t.fit(loader); }, ErrorKind::diverged), HasSubstr("no longer finite"));
  EXPECT_EQ(train::newest_checkpoint(path), "");
}

TEST(Trainer, NaNInTheDataIsNamed) {
  std::vector<float> x(64, 1.0f), y(32, 0.0f);
  x[9] = NAN;
  nn::Sequential model{nn::Linear{2, 1}};
  nn::init(model, Key{1});
  optim::SGD sgd(model, {});
  data::DataLoader loader(data::ArrayDataset(Array::from(x, {32, 2}), Array::from(y, {32, 1})), {.batch_size = 16});
  train::Trainer t(model, mse, sgd, {.task = Task::regression});
  EXPECT_THAT(message_of([&] { t.fit(loader); }, ErrorKind::diverged), HasSubstr("argument 0 holds nan"));
}

TEST(Trainer, AValidationLossThatIsNotFiniteStopsTheRun) {
  nn::Sequential model{nn::Linear{2, 1}};
  nn::init(model, Key{1});
  optim::SGD sgd(model, {.lr = 1e-3});
  std::vector<float> x(64, 1.0f), y(32, 0.0f);
  x[9] = NAN;
  data::DataLoader loader(line(64), {.batch_size = 16});
  data::DataLoader validation(data::ArrayDataset(Array::from(x, {32, 2}), Array::from(y, {32, 1})), {.batch_size = 16});
  const std::string path = empty_folder("validation");
  int warnings = 0;
  train::Trainer t(model, mse, sgd,
                   {.epochs = 3,
                    .task = Task::regression,
                    .rollbacks = 2,
                    .checkpoint = {.folder = path},
                    .on_warning = [&](const std::string&) { ++warnings; }});
  EXPECT_THAT(message_of([&] { t.fit(loader, &validation); }, ErrorKind::diverged),
              testing::AllOf(HasSubstr("the validation loss became"), HasSubstr("validation data")));
  EXPECT_EQ(warnings, 2);
  EXPECT_EQ(train::newest_checkpoint(path), "");
}

TEST(Trainer, ExplodingTrainingStops) {
  nn::Sequential model{nn::Linear{2, 1}};
  nn::init(model, Key{1});
  optim::SGD sgd(model, {.lr = 1e20});
  data::DataLoader loader(line(64), {.batch_size = 16});
  train::Trainer t(model, mse, sgd, {.epochs = 3, .task = Task::regression});
  EXPECT_THAT(message_of([&] { t.fit(loader); }, ErrorKind::diverged), HasSubstr("smaller learning rate"));
}

TEST(Trainer, LabelsOutOfRangeAreFoundBeforeTheFirstStep) {
  Classifier c;
  std::vector<std::int64_t> ids(20, 3);
  ids[17] = 10;
  const std::vector<float> x(20 * 784, 0.5f);
  data::DataLoader loader(data::ArrayDataset(Array::from(x, {20, 28, 28, 1}), Array::from(ids, {20})),
                          {.batch_size = 5});
  train::Trainer t = c.trainer({});
  const std::string message = message_of([&] { t.fit(loader); }, ErrorKind::value);
  EXPECT_THAT(message, HasSubstr("row 17 has class 10"));
  EXPECT_THAT(message, HasSubstr("0 to 9"));
  EXPECT_EQ(c.optimizer.step.get().item(), 0);
}

TEST(Trainer, RefusesOptionsOutOfRange) {
  Classifier c;
  message_of([&] { c.trainer({.epochs = 0}); }, ErrorKind::value);
  message_of([&] { c.trainer({.patience = -1}); }, ErrorKind::value);
  message_of([&] { c.trainer({.min_delta = NAN}); }, ErrorKind::value);
  message_of([&] { c.trainer({.tolerance = -1}); }, ErrorKind::value);
  message_of([&] { c.trainer({.schedule = schedule::constant(1), .reduce_on_plateau = ReduceOnPlateauOptions{}}); },
             ErrorKind::value);
}

TEST(Trainer, RefusesAForeignOrDamagedCheckpoint) {
  Classifier c;
  train::Trainer t = c.trainer({.epochs = 1});
  const std::string path = scratch("foreign.safetensors");
  save_state(path, c.model);
  EXPECT_THAT(message_of([&] { t.resume(path); }, ErrorKind::format), HasSubstr("no state of a run"));
  for (const char* text :
       {"bp.run 1\n", "bp.run 2\n1 2 x", "bp.run 2\n0 0 0 0 0 0\n1 1 1 1 1 1\n0 0 0 0\n1 2 3 4 5 6 7 8\n99999"}) {
    save_state(path, c.model, &c.optimizer, {{"train.run", text}});
    EXPECT_THAT(message_of([&] { t.resume(path); }, ErrorKind::format), HasSubstr(path));
  }
}

TEST(Trainer, ReportsProgress) {
  Classifier c;
  std::vector<train::Progress> seen;
  std::vector<train::Epoch> epochs;
  train::Trainer t = c.trainer({.epochs = 2,
                                .on_step = [&](const train::Progress& p) { seen.push_back(p); },
                                .on_epoch = [&](const train::Epoch& e) { epochs.push_back(e); }});
  t.fit(c.loader);
  ASSERT_EQ(seen.size(), 16u);
  EXPECT_EQ(seen[9].epoch, 1);
  EXPECT_EQ(seen[9].batch, 2);
  EXPECT_EQ(seen[9].batches, 8);
  EXPECT_EQ(seen[9].step, 10);
  EXPECT_EQ(seen[9].running.samples, 128);
  EXPECT_GT(seen[9].samples_per_second, 0);
  EXPECT_NEAR(seen.back().seconds_left, 0, 1e-9);
  ASSERT_EQ(epochs.size(), 2u);
  EXPECT_EQ(epochs[1].epoch, 2);
  EXPECT_EQ(epochs[1].train.samples, 512);
}

TEST(Trainer, SaysWhatAStepCosts) {
  Classifier c;
  const ExecutableInfo info = c.trainer({}).step_info({f32, {64, 28, 28, 1}}, {i64, {64}});
  EXPECT_GT(info.planned_peak_bytes, 3u * 784 * 16 * 4);
  EXPECT_GT(info.flops, 2.0 * 64 * 784 * 16);
}

TEST(Trainer, KeepsToItsMemoryBudget) {
  Classifier c;
  const std::pair<Type, Type> batch{{f32, {64, 28, 28, 1}}, {i64, {64}}};
  const std::size_t whole = c.trainer({}).step_info(batch.first, batch.second).planned_peak_bytes;
  EXPECT_EQ(c.trainer({.memory_budget = whole}).step_info(batch.first, batch.second).planned_peak_bytes, whole);
  const std::string message =
      message_of([&] { c.trainer({.memory_budget = 1000}).step_info(batch.first, batch.second); }, ErrorKind::config);
  EXPECT_THAT(message, HasSubstr("[compile] memory_budget: expected at least"));
}

TEST(Arrays, BecomeTensorsAndBackWithoutACopy) {
  const Array a = Array::from(std::vector<float>{1, 2, 3, 4}, {2, 2});
  EXPECT_EQ(to_tensor(a).buffer().data(), a.buffer.data());
  Array part = a;
  part.shape = {1, 2};  // a buffer larger than its array
  const Tensor t = to_tensor(part);
  EXPECT_EQ(t.buffer().data(), a.buffer.data());
  EXPECT_EQ(t.buffer().bytes(), 8u);
  const Array back = to_array(t * 2.0);
  EXPECT_EQ(back.values<float>()[1], 4);
}

}  // namespace
}  // namespace bp

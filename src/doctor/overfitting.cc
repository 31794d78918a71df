// Overfitting: a network with more weights than 1,000 images can hold down, against L2, dropout and augmentation.
#include "bp/augment.h"
#include "bp/ops.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
constexpr int kImages = 50;

struct Means {
  double l2 = 0, dropout = 0;
  bool augment = false;
};

Outcome run_overfitting(const Means& means, const Lab& lab, Key key) {
  nn::Sequential net;
  net.add(nn::Flatten());
  if (means.dropout > 0) net.add(nn::Dropout(means.dropout / 2));
  net.add(nn::Linear(784, 128)).add(nn::ReLU());
  if (means.dropout > 0) net.add(nn::Dropout(means.dropout));
  net.add(nn::Linear(128, 10));
  nn::init(net, key.fold("weights"));
  const data::ArrayDataset data = lab.train({28, 28, 1}, 1000), test = lab.test({28, 28, 1}, lab.size(4000, 2000));
  std::shared_ptr<const data::Source> source = std::make_shared<data::ArrayDataset>(data);
  if (means.augment) source = augment::augmented(source, {augment::flip(), augment::shift(2, augment::Border::edge)});
  optim::SGD optimizer(net, {.lr = 0.02, .momentum = 0.9, .weight_decay = means.l2});
  const int epochs = means.augment ? lab.size(80, 40) : 40;
  Outcome o;
  const auto follow = [&](int epoch) {
    if (epoch % 5 != 0 && epoch != 1) return;
    o.x.push_back(epoch);
    o.y.push_back(score(net, test).loss);
  };
  train(net, optimizer, source,
        {.epochs = epochs,
         .batch = kImages,
         .key = key.fold("batches"),
         .rate = schedule::cosine(0.02, epochs * data.size() / kImages),
         .after_epoch = follow});
  const Score seen = score(net, data), unseen = score(net, test);
  o.figures = {seen.accuracy, unseen.accuracy, seen.accuracy - unseen.accuracy, unseen.loss - seen.loss};
  return o;
}
}  // namespace

Cure overfitting() {
  Cure c;
  c.name = "overfitting";
  c.title = "Overfitting";
  c.trouble =
      "A network with 100,000 weights can learn 1,000 images by heart: the loss on them goes to zero while that on "
      "other images grows. The gap between the two is what it has learnt of these images only.";
  c.remedy =
      "L2 adds wd |w|^2 / 2 to the loss, so that a weight must earn its size (Krogh and Hertz 1992). Dropout leaves "
      "out units at random and so trains an average of many networks (Srivastava et al. 2014). Augmentation shows "
      "each image mirrored and shifted, so that there are no two equal ones to learn by heart (Simard et al. 2003).";
  c.setting =
      "Fashion-MNIST, 1,000 images, one hidden layer of 128, SGD with momentum 0.9 and a rate that falls from 0.02 as "
      "a cosine, 40 epochs of batches of 50. L2: 0.02; dropout: 0.5, and half of it on the input; augmentation: flips "
      "and shifts by up to 2 pixels, with 80 epochs, since there is more to learn. The training accuracy is that on "
      "the images as they are.";
  c.columns = {{"training accuracy, %"}, {"test accuracy, %"}, {"gap, points"}, {"gap of the losses"}};
  c.bounds = {{3, 0.65, 0.55}, {1, 70, 76}};
  c.chart = {.title = "Loss on test images", .x_label = "epoch", .y_label = "cross entropy"};
  const auto setup = [](const char* name, bool fails, Means means) {
    return Setup{name, fails, [means](const Lab& lab, Key key) { return run_overfitting(means, lab, key); }};
  };
  c.setups = {setup("none", true, {}), setup("L2", false, {.l2 = 0.02}), setup("dropout", false, {.dropout = 0.5}),
              setup("augmentation", false, {.augment = true})};
  return c;
}

}  // namespace bp::doctor

// A first network: it learns to tell ten made-up 28 x 28 images apart (a bright bar whose height is the class, in
// noise), with a compiled train step, a loader and a learning rate that changes on the way.
//
//   g++ -std=c++20 quickstart.cpp with the flags of find_package(bp), see examples/consumer; runs a few seconds
//
// Expected output:
//   epoch 0: the loss falls
//   epoch 1: the loss falls
//   epoch 2: the loss falls
//   accuracy on new images: above 95%
#include <cstdio>

#include "bp/bp.h"

using namespace bp;

struct Net {
  nn::Conv2d conv1{1, 32, 3, {.padding = 1}};
  nn::BatchNorm bn1{32};
  nn::Linear head{6272, 10};
  Tensor operator()(Tensor x) const { return head(flatten(max_pool(relu(bn1(conv1(x))), 2))); }
  BP_FIELDS(Net, conv1, bn1, head)  // names parameters; a forgotten field does not compile
};

// n images [28, 28, 1] and their classes: row 2 + 2 * class is bright.
data::ArrayDataset bars(std::int64_t n, Key key) {
  Array x = Array::empty(f32, {n, 28, 28, 1}), y = Array::empty(i64, {n});
  Rng rng(key);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto label = static_cast<std::int64_t>(rng.below(10));
    y.mutable_data<std::int64_t>()[i] = label;
    for (std::int64_t p = 0; p < 28 * 28; ++p)
      x.mutable_data<float>()[i * 28 * 28 + p] =
          static_cast<float>(rng.uniform() + (p / 28 == 2 + 2 * label ? 2 : 0));
  }
  return data::ArrayDataset(x, y);
}

int main() {
  Net model;
  nn::init(model, Key{42});
  optim::Adam opt(model, {.lr = 1e-3});
  auto step = compile(
      [&](Tensor x, Tensor y) {  // forward, backward and update are one graph: traced once, replayed
        Tensor loss = cross_entropy(model(x), y);
        opt.update(grad(loss, model));
        return loss;
      },
      {.mode = Mode::train});

  data::DataLoader loader(bars(384, Key{1}), {.batch_size = 64, .key = Key{2}});
  double before = 100;
  for (int epoch = 0; epoch < 3; ++epoch) {
    double total = 0;
    for (auto& [x, y] : loader) total += step(x, y).item();
    std::printf("epoch %d: the loss %s\n", epoch, total < before ? "falls" : "rises");
    before = total;
    if (epoch == 1) opt.lr.set(3e-4);  // a Variable: no retrace
  }

  auto predict = compile([&](Tensor x) { return argmax(model(x)); });
  const data::Batch test = bars(200, Key{3}).all();
  const double accuracy = mean(equal(predict(test.x), Tensor(test.y))).item();
  std::printf("accuracy on new images: %s 95%%\n", accuracy > 0.95 ? "above" : "below");
  return 0;
}

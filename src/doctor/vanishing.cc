// Vanishing gradients: twenty layers of sigmoids against ReLU with He's initialisation, batch norm and residuals.
#include "bp/compile.h"
#include "bp/ops.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
constexpr int kLayers = 20, kWidth = 64;

using Activation = std::function<std::unique_ptr<nn::Layer>()>;

// kLayers of kWidth, each with `activation`, perhaps a batch norm before it.
nn::Sequential plain(const Initializer& weights, const Activation& activation, bool norm) {
  nn::Sequential net;
  for (int i = 0; i < kLayers; ++i) {
    net.add(nn::Linear(i == 0 ? 784 : kWidth, kWidth, {.weight_init = weights}));
    if (norm) net.add(nn::BatchNorm(kWidth));
    net.push("", activation());
  }
  return net.add(nn::Linear(kWidth, 10, {.weight_init = weights}));
}

// The first layer, then pairs of layers, each added to what came before it.
nn::Sequential residual() {
  const Initializer weights = init::glorot_normal();
  nn::Sequential net(nn::Linear(784, kWidth, {.weight_init = weights}), nn::Sigmoid());
  for (int i = 1; i + 1 < kLayers; i += 2)
    net.add(nn::Residual(nn::Sequential(nn::Linear(kWidth, kWidth, {.weight_init = weights}), nn::Sigmoid(),
                                        nn::Linear(kWidth, kWidth, {.weight_init = weights}))));
  net.add(nn::Linear(kWidth, kWidth, {.weight_init = weights})).add(nn::Sigmoid());
  return net.add(nn::Linear(kWidth, 10, {.weight_init = weights}));
}

// |d loss / d W| of each layer's weight, from the input on.
std::vector<double> gradient_norms(const nn::Sequential& net, const data::ArrayDataset& data) {
  nn::Sequential copy = net;  // its running statistics may move
  auto step = compile(
      [&](const Tensor& x, const Tensor& y) {
        std::vector<Tensor> norms;
        for (const Tensor& g : grad(cross_entropy(copy(x), y), copy))
          if (g.rank() == 2) norms.push_back(norm(g));
        return norms;
      },
      {.mode = Mode::train, .threads = 1});
  const data::Batch batch = data.all();
  std::vector<double> out;
  for (const Tensor& n : step(batch.x, batch.y)) out.push_back(n.item());
  return out;
}

Outcome run_vanishing(nn::Sequential net, const Lab& lab, Key key) {
  nn::init(net, key.fold("weights"));
  const data::ArrayDataset data = lab.train({784}, lab.size(4000, 2000));
  const std::vector<double> norms = gradient_norms(net, data.take(256));
  optim::Adam optimizer(net, {.lr = 1e-3});
  train(net, optimizer, data, {.epochs = lab.size(8, 6), .key = key.fold("batches")});
  Outcome o;
  o.figures = {score(net, lab.test({784}, lab.size(4000, 1000))).accuracy, norms.front(), norms[norms.size() - 2]};
  for (std::size_t i = 0; i < norms.size(); ++i) o.x.push_back(static_cast<double>(i + 1));
  o.y = norms;
  return o;
}
}  // namespace

Cure vanishing() {
  Cure c;
  c.name = "vanishing";
  c.title = "Vanishing gradients";
  c.trouble =
      "The gradient of layer l is a product of all the layers behind it, dL/dh_l = W_{l+1}^T diag(s'(z_{l+1})) .. "
      "dL/dh_L, and the sigmoid's slope s' is at most 1/4. Twenty layers shrink it by about 4^20: the first layers "
      "get no signal and do not learn (Hochreiter 1991; Glorot and Bengio 2010).";
  c.remedy =
      "ReLU has slope 1 where it is active, and weights of variance 2 / fan_in keep the size of the signal (He et al. "
      "2015). Batch normalisation, (z - mean) / sqrt(var + eps) in each layer, undoes the shrinking also for sigmoids "
      "(Ioffe and Szegedy 2015). A residual h + f(h) has a path of slope 1 around every block (He et al. 2016).";
  c.setting =
      "Fashion-MNIST, 4,000 images, 20 hidden layers of 64, Adam with rate 0.001, 8 epochs of batches of 64. The "
      "norms are those of the weights' gradients before the first update.";
  c.columns = {{"test accuracy, %"}, {"gradient norm, layer 1", 2}, {"gradient norm, layer 20", 2}};
  c.bounds = {{0, 20, 60}};
  c.chart = {
      .title = "Gradient norm of each layer before training", .x_label = "layer", .y_label = "norm", .log_y = true};
  const auto setup = [](const char* name, bool fails, std::function<nn::Sequential()> make) {
    return Setup{name, fails,
                 [make = std::move(make)](const Lab& lab, Key key) { return run_vanishing(make(), lab, key); }};
  };
  c.setups = {
      setup("sigmoid", true, [] { return plain(init::glorot_normal(), layer<nn::Sigmoid>(), false); }),
      setup("ReLU, He", false, [] { return plain(init::he_normal(), layer<nn::ReLU>(), false); }),
      setup("sigmoid, batch norm", false, [] { return plain(init::glorot_normal(), layer<nn::Sigmoid>(), true); }),
      setup("sigmoid, residual", false, [] { return residual(); })};
  return c;
}

}  // namespace bp::doctor

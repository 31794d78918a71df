// Numbers: naive against stable formulas at large logits, and pure bf16 against bf16 with f32 master weights.
#include "bp/compile.h"
#include "bp/ops.h"
#include "doctor/experiments.h"
#include "doctor/training.h"

namespace bp::doctor {

namespace {
// The cross entropy as a textbook writes it: softmax, then the logarithm, of p + eps.
Loss naive(double eps) {
  return [eps](const Tensor& z, const Tensor& y) {
    const Tensor e = exp(z), p = e / sum(e, {-1}, true);
    return -mean(sum(one_hot(y, 10) * log(eps > 0 ? p + eps : p), {-1}));
  };
}

// The loss of an image of class 1 whose logit of class 0 is s and the others 0, for s up to 200.
void put_loss_curve(Outcome& o, const Loss& loss) {
  auto f = compile([&](const Tensor& s) {
    return loss(pad(reshape(s, {1, 1}), {0, 0}, {0, 9}), Tensor::from<std::int64_t>({1}));
  });
  for (int s = 0; s <= 200; s += 4) {
    o.x.push_back(s);
    o.y.push_back(f(scalar(s)).item());
  }
}

Outcome run_logits(const Loss& loss, const Lab& lab, Key key) {
  nn::Sequential net = dense({784, 64, 10}, init::he_normal(), layer<nn::ReLU>());
  nn::init(net, key.fold("weights"));
  optim::Adam optimizer(net, {.lr = 3e-4});
  const Model on_bytes = [&](const Tensor& x) { return net(cast(x, f32)); };
  const History h = train(net, optimizer, lab.train_bytes({784}, lab.size(4000, 2000)),
                          {.epochs = lab.size(5, 5), .key = key.fold("batches"), .loss = loss, .model = on_bytes});
  Outcome o;
  o.figures = {score(net, lab.test_bytes({784}, lab.size(4000, 1000)), on_bytes).accuracy,
               static_cast<double>(h.losses.size()), h.final_loss()};
  put_loss_curve(o, loss);
  return o;
}

enum class Numbers { f32_alone, bf16_alone, bf16_products };

// net, a chain of Linear and ReLU, with products in bf16 of weights kept as they are.
Tensor in_bf16(const nn::Sequential& net, Tensor x) {
  x = cast(x, bf16);
  for (std::size_t i = 0; i < net.size(); ++i) {
    const auto* linear = dynamic_cast<const nn::Linear*>(&net[i]);
    x = linear ? matmul(x, cast(linear->weight, bf16)) + cast(linear->bias, bf16) : net[i](x);
  }
  return cast(x, f32);
}

Outcome run_precision(Numbers numbers, const Lab& lab, Key key) {
  nn::Sequential net = dense({784, 64, 10}, init::he_normal(), layer<nn::ReLU>());
  nn::init(net, key.fold("weights"), numbers == Numbers::bf16_alone ? bf16 : f32);
  optim::Adam optimizer(net, {.lr = 4e-5});
  const Model model = [&](const Tensor& x) { return numbers == Numbers::f32_alone ? net(x) : in_bf16(net, x); };
  const History h = train(net, optimizer, lab.train({784}, lab.size(4000, 2000)),
                          {.epochs = lab.size(6, 10), .batch = 50, .key = key.fold("batches"), .model = model});
  Outcome o;
  o.figures = {score(net, lab.test({784}, lab.size(4000, 1000)), model).accuracy, h.final_loss()};
  put_curve(o, h.losses);
  return o;
}
}  // namespace

Cure logits() {
  Cure c;
  c.name = "logits";
  c.title = "Overflow at large logits";
  c.trouble =
      "p_i = exp(z_i) / sum_j exp(z_j) overflows in f32 once a logit passes 88.7: inf / inf is NaN. And where p_i "
      "rounds to 0, log p_i is -inf. A small number added to p changes the second, not the first.";
  c.remedy =
      "log p_i = z_i - m - log sum_j exp(z_j - m), m = max_j z_j: no exponent is above 0 and the sum is at least 1, "
      "so that nothing overflows and nothing is lost (Blanchard, Higham and Higham 2021). cross_entropy takes logits "
      "for this reason.";
  c.setting =
      "Fashion-MNIST, 4,000 images as bytes 0 to 255, so that the logits are in the hundreds; one hidden layer of 64, "
      "Adam with rate 0.0003, 5 epochs of batches of 64. The plot is the loss of one image whose wrong logit is "
      "given, the others being 0: a line that ends is NaN or infinite from there on.";
  c.columns = {{"test accuracy, %"}, {"updates done", 0}, {"final loss"}};
  c.bounds = {{0, 20, 50}};
  c.chart = {.title = "Loss of a wrong logit", .x_label = "logit", .y_label = "cross entropy"};
  const auto setup = [](const char* name, bool fails, Loss loss) {
    return Setup{name, fails, [loss = std::move(loss)](const Lab& lab, Key key) { return run_logits(loss, lab, key); }};
  };
  c.setups = {setup("softmax, log", true, naive(0)), setup("softmax, log(p + 1e-7)", true, naive(1e-7)),
              setup("log-softmax", false, [](const Tensor& z, const Tensor& y) { return cross_entropy(z, y); })};
  return c;
}

Cure precision() {
  Cure c;
  c.name = "precision";
  c.title = "Updates lost in bf16";
  c.trouble =
      "bf16 keeps 8 bits of a number: w + d rounds back to w where |d| is below |w| / 512 or so. Updates are smaller "
      "than that most of the time, and weights kept in bf16 stand still although every gradient is right.";
  c.remedy =
      "Keep the weights in f32 and round them for the products only (Micikevicius et al. 2018): the updates add up "
      "where they are kept. In bp: `matmul(x, cast(w, bf16))` with an f32 Variable w.";
  c.setting = "Fashion-MNIST, 4,000 images, one hidden layer of 64, Adam with rate 0.00004, 6 epochs of batches of 50.";
  c.columns = {{"test accuracy, %"}, {"final loss"}};
  c.bounds = {{0, 55, 65}};
  c.chart = {.title = "Training loss", .x_label = "update", .y_label = "cross entropy"};
  const auto setup = [](const char* name, bool fails, Numbers numbers) {
    return Setup{name, fails, [numbers](const Lab& lab, Key key) { return run_precision(numbers, lab, key); }};
  };
  c.setups = {setup("bf16 weights", true, Numbers::bf16_alone),
              setup("bf16 products, f32 weights", false, Numbers::bf16_products),
              setup("f32", false, Numbers::f32_alone)};
  return c;
}

}  // namespace bp::doctor

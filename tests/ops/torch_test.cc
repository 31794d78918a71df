// Compositions, reductions and losses against PyTorch: values and gradients in f64 (tests/data/torch_ops.json, written
// by scripts/make_torch_expectations.py).
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "bp/grad.h"
#include "bp/ops.h"

namespace bp {
namespace {

using Json = nlohmann::json;
using Values = std::vector<double>;
using F = std::function<Tensor(const std::vector<Tensor>&)>;

// Functions of one tensor, under PyTorch's arguments.
std::map<std::string, F> functions() {
  std::map<std::string, F> all;
  const auto unary = [&](const char* name, std::function<Tensor(const Tensor&)> f) {
    all[name] = [f = std::move(f)](const std::vector<Tensor>& x) { return f(x[0]); };
  };
  unary("softplus", softplus);
  unary("gelu", gelu);
  unary("gelu_tanh", gelu_tanh);
  unary("silu", silu);
  unary("elu", [](const Tensor& x) { return elu(x, 1.3); });
  unary("leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.2); });
  unary("clip", [](const Tensor& x) { return clip(x, -1, 0.5); });
  unary("softmax", [](const Tensor& x) { return softmax(x); });
  unary("log_softmax", [](const Tensor& x) { return log_softmax(x); });
  unary("logsumexp", [](const Tensor& x) { return logsumexp(x, {-1}); });
  unary("var", [](const Tensor& x) { return var(x, {1}, false, 1); });
  unary("norm", [](const Tensor& x) { return norm(x, {1}); });
  unary("cumsum", [](const Tensor& x) { return cumsum(x, 1); });
  unary("prod", [](const Tensor& x) { return prod(x, {1}); });
  unary("max", [](const Tensor& x) { return max(x, {1}); });
  unary("sort", [](const Tensor& x) { return sort(x, 1).first; });
  unary("top_k", [](const Tensor& x) { return top_k(x, 2, 1).first; });
  all["gather"] = [](const std::vector<Tensor>& x) { return gather(x[0], x[1]); };
  all["take_along"] = [](const std::vector<Tensor>& x) { return take_along(x[0], x[1], 1); };
  all["einsum_bqhd"] = [](const std::vector<Tensor>& x) { return einsum("bqhd,bkhd->bhqk", x); };
  all["einsum_chain"] = [](const std::vector<Tensor>& x) { return einsum("ij,jk,kl->il", x); };
  const std::map<std::string, Reduction> reductions{
      {"mean", Reduction::mean}, {"sum", Reduction::sum}, {"none", Reduction::none}};
  for (const auto& [word, r] : reductions) {
    const auto loss = [&, word = word](const char* name, std::function<Tensor(const Tensor&, const Tensor&)> f) {
      all[std::string(name) + "_" + word] = [f = std::move(f)](const std::vector<Tensor>& x) { return f(x[0], x[1]); };
    };
    loss("squared_error", [r = r](const Tensor& y, const Tensor& t) { return squared_error(y, t, r); });
    loss("l1_loss", [r = r](const Tensor& y, const Tensor& t) { return l1_loss(y, t, r); });
    loss("huber_loss", [r = r](const Tensor& y, const Tensor& t) { return huber_loss(y, t, 0.7, r); });
    loss("binary_cross_entropy", [r = r](const Tensor& y, const Tensor& t) { return binary_cross_entropy(y, t, r); });
    loss("kl_divergence", [r = r](const Tensor& y, const Tensor& t) { return kl_divergence(y, t, r); });
    for (double smoothing : {0.0, 0.1})
      for (bool weighted : {false, true})
        all["cross_entropy_" + word + (smoothing == 0 ? "_0.0" : "_0.1") + (weighted ? "_weighted" : "_plain")] =
            [r = r, smoothing, weighted](const std::vector<Tensor>& x) {
              CrossEntropyOptions o{.label_smoothing = smoothing, .reduction = r};
              if (weighted) o.class_weights = Tensor::from({0.5, 2.0, 1.25, 0.1});
              return cross_entropy(x[0], x[1], o);
            };
  }
  return all;
}

Shape sizes_of(const Json& j) { return Shape(std::span<const std::int64_t>(j.get<std::vector<std::int64_t>>())); }

Tensor input(const Json& j) {
  const Shape shape = sizes_of(j["shape"]);
  if (j["dtype"] == "i64") return Tensor::from(j["data"].get<std::vector<std::int64_t>>(), shape);
  return watch(Tensor::from(j["data"].get<Values>(), shape));
}

void expect_torch(const Values& got, const Values& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-15 + 4e-14 * std::fabs(want[i])) << what << ", element " << i;
}

TEST(Torch, ValuesAndGradients) {
  std::ifstream file(std::string(BP_TEST_DATA) + "/torch_ops.json");
  const Json all = Json::parse(file);
  const std::map<std::string, F> fs = functions();
  EXPECT_GE(all["cases"].size(), 70u);
  for (const Json& c : all["cases"]) {
    const std::string name = c["name"];
    ASSERT_TRUE(fs.count(name)) << "no function for the case " << name;
    std::vector<Tensor> xs, floats;
    for (const Json& j : c["inputs"]) xs.push_back(input(j));
    for (const Tensor& x : xs)
      if (is_float(x.dtype())) floats.push_back(x);
    const Tensor y = fs.at(name)(xs);
    ASSERT_EQ(y.shape(), sizes_of(c["shape"])) << name;
    expect_torch(y.to_vector<double>(), c["value"].get<Values>(), name);
    const std::vector<Tensor> g =
        vjp(std::vector{y}, floats, std::vector{Tensor::from(c["cotangent"].get<Values>(), y.shape())});
    for (std::size_t i = 0, k = 0; i < xs.size(); ++i) {
      if (!is_float(xs[i].dtype())) continue;
      expect_torch(g[k++].to_vector<double>(), c["grads"][i].get<Values>(), name + ", gradient " + std::to_string(i));
    }
  }
}

}  // namespace
}  // namespace bp

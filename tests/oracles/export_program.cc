// What the oracle export_ops.py runs: small functions of every kind, exported, with arguments and results.
// usage: oracle_export DIR     writes DIR/NAME.onnx, NAME.in0.npy, .., NAME.out0.npy, ..
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "bp/attention.h"
#include "bp/bp.h"
#include "bp/io.h"
#include "bp/onnx.h"

namespace {

using namespace bp;
using Tensors = std::vector<Tensor>;
using In = std::span<const Tensor>;

struct Exported {
  std::string name;
  Tensors in;
  std::function<Tensors(In)> f;
};

// Values, not a graph that draws them: also inside of what is exported.
std::vector<float> values(const Shape& shape, std::uint64_t seed, double low, double high) {
  std::vector<float> out(static_cast<std::size_t>(shape.numel()));
  std::uint64_t state = 0x9E3779B97F4A7C15ull * (seed + 1);
  for (float& v : out) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    v = static_cast<float>(low + (high - low) * static_cast<double>(state >> 40) / 16777216.0);
  }
  return out;
}
Tensor random(const Shape& shape, std::uint64_t seed, double low = -1, double high = 1) {
  return Tensor::from(values(shape, seed, low, high), shape);
}
Tensor ids(const Shape& shape, std::int64_t n, std::uint64_t seed) {
  const std::vector<float> drawn = values(shape, seed, 0, static_cast<double>(n) - 1e-3);
  return Tensor::from(std::vector<std::int64_t>(drawn.begin(), drawn.end()), shape);
}

template <class F> Exported unary(const char* name, F f, double low = -2, double high = 2) {
  return {name, {random({3, 5}, 7, low, high)}, [f](In x) -> Tensors { return {f(x[0])}; }};
}
template <class F> Exported binary(const char* name, F f, double low = 0.5) {
  return {name, {random({3, 1, 4}, 1, low, 2), random({3, 5, 1}, 2, low, 2)}, [f](In x) -> Tensors {
            return {f(x[0], x[1])};
          }};
}

std::vector<Exported> elementwise() {
  return {unary("abs", [](const Tensor& x) { return bp::abs(x); }),
          unary("sign", sign),
          unary("exp", exp),
          unary("expm1", expm1),
          unary("log", log, 0.1),
          unary("log1p", log1p, -0.5),
          unary("sqrt", sqrt, 0),
          unary("rsqrt", rsqrt, 0.1),
          unary("sin", sin),
          unary("cos", cos),
          unary("tanh", tanh),
          unary("erf", erf),
          unary("floor", floor),
          unary("ceil", ceil),
          unary("round", round),
          unary("gelu", gelu),
          unary("mish", mish),
          unary("selu", selu),
          unary("softsign", softsign),
          unary("hard_swish", hard_swish),
          unary("soft_shrink", [](const Tensor& x) { return soft_shrink(x); }),
          unary("finite", [](const Tensor& x) { return isfinite(log(x)); }),
          unary("not", [](const Tensor& x) { return logical_not(x > 0.0); }),
          unary("casts", [](const Tensor& x) { return cast(cast(x * 3.0, i32), f64) + cast(x > 0.0, f64); }),
          unary("booleans", [](const Tensor& x) { return (x > 0.0) + (x < -1.0); }),
          binary("sub", sub),
          binary("div", [](const Tensor& a, const Tensor& b) { return a / b; }),
          binary("pow", [](const Tensor& a, const Tensor& b) { return pow(a, b); }),
          binary("maximum", [](const Tensor& a, const Tensor& b) { return maximum(a, b); }),
          binary("remainder", remainder, -2),
          binary("not_equal", not_equal),
          binary("less_equal", less_equal),
          binary(
              "select", [](const Tensor& a, const Tensor& b) { return select(a > b, a, -b); }, -1),
          {"integer_remainder", {ids({4, 3}, 9, 1) - 4.0, ids({4, 3}, 4, 2) + 1.0}, [](In x) -> Tensors {
             return {remainder(x[0], x[1]), x[0] + x[1], maximum(x[0], x[1])};
           }}};
}

std::vector<Exported> shapes() {
  const Tensor x = random({3, 4, 6}, 3);
  return {{"merge_batch",
           {x},
           [](In v) -> Tensors {
             return {reshape(v[0], {-1, 6}), reshape(v[0], {v[0].size(0), 24})};
           }},
          {"halves",
           {x},
           [](In v) -> Tensors {
             return {slice(v[0], Axes{1, 2}, {1, 0}, {4, 6}, {2, 3}), reverse(v[0], {0, 2})};
           }},
          {"padding",
           {x},
           [](In v) -> Tensors {
             return {pad(v[0], {0, 1, -2}, {0, 2, 1}, 1.5, {0, 2, 0}), pad(v[0] > 0.0, {0, 1, 0}, {0, 0, 1})};
           }},
          {"joined",
           {x},
           [](In v) -> Tensors {
             return {concatenate({v[0], exp(v[0]), v[0]}, 1), tile(v[0], {1, 2, 3}), stack({v[0], v[0]}, 0)};
           }},
          {"batch_numbers",
           {x},
           [](In v) -> Tensors {
             const std::int64_t n = v[0].size(0);
             return {cast(iota({n, 2}, 0), f32) + iota({n, 2}, 1, f32), zeros({n, 3}), broadcast_to(v[0], {2, n, 4, 6}),
                     concatenate({v[0], zeros({n, 1, 6})}, 1)};
           }},
          {"transposes",
           {x},
           [](In v) -> Tensors {
             return {transpose(v[0], {2, 0, 1}), transpose(v[0]) * 2.0};
           }},
          {"first_of_batch", {x}, [](In v) -> Tensors {
             return {slice(v[0], 0, 0, 1), slice(v[0], 0, v[0].size(0) - 1, v[0].size(0))};
           }}};
}

std::vector<Exported> reductions() {
  const Tensor x = random({3, 4, 6}, 4);
  return {{"sums",
           {x},
           [](In v) -> Tensors {
             return {sum(v[0]), mean(v[0], {1}), var(v[0], {0, 2}), sum(v[0] > 0.0, {1})};
           }},
          {"extremes",
           {x},
           [](In v) -> Tensors {
             return {max(v[0], {1}), min(v[0], {-1}, true), prod(v[0], {2}), max(v[0] > 0.9, {1, 2})};
           }},
          {"places",
           {x},
           [](In v) -> Tensors {
             return {argmax(v[0], 1), argmin(v[0]), cumsum(v[0], 1), cumsum(v[0], 2, true)};
           }},
          {"orders",
           {x},
           [](In v) -> Tensors {
             const auto [a, i] = sort(v[0], 1);
             const auto [b, j] = top_k(v[0], 3);
             return {a, i, b, j};
           }},
          {"soft",
           {x},
           [](In v) -> Tensors {
             return {softmax(v[0]), log_softmax(v[0], 1), logsumexp(v[0], {1, 2}), norm(v[0], {1})};
           }},
          {"losses", {random({6, 5}, 1), ids({6}, 5, 2)}, [](In v) -> Tensors {
             return {cross_entropy(v[0], v[1]), cross_entropy(v[0], v[1], {.reduction = Reduction::none})};
           }}};
}

std::vector<Exported> indexing() {
  const Tensor x = random({5, 4, 3}, 5);
  return {{"gathers",
           {x, ids({5, 2}, 4, 6)},
           [](In v) -> Tensors {
             return {gather(v[0], v[1], 1), gather(slice(v[0], 0, 0, 1), zeros({2}, i64), 0)};
           }},
          {"along",
           {x, ids({5, 2, 3}, 4, 6)},
           [](In v) -> Tensors {
             return {take_along(v[0], v[1], 1), scatter_along(exp(cast(v[1], f32)), v[1], 1, 4)};
           }},
          {"scatter",
           {ids({5}, 4, 6), random({5, 3}, 7)},
           [](In v) -> Tensors {
             return {scatter_add({4, 3}, v[0], v[1])};
           }},
          {"hot", {ids({5}, 4, 6)}, [](In v) -> Tensors { return {one_hot(v[0], 4)}; }},
          {"products", {random({3, 4, 5}, 1), random({3, 6, 5}, 2)}, [](In v) -> Tensors {
             return {matmul(v[0], v[1], false, true), matmul(v[0], v[0], true, false),
                     einsum("bik,bjk->bji", {v[0], v[1]}), matmul(v[0], random({5, 2}, 3))};
           }}};
}

template <class M> std::shared_ptr<M> initialised(M model) {
  const auto out = std::make_shared<M>(std::move(model));
  nn::init(*out, Key{1});
  return out;
}

std::vector<Exported> windows() {
  const Tensor image = random({2, 9, 8, 4}, 1), line = random({2, 11, 4}, 2), block = random({2, 5, 6, 4, 2}, 3);
  return {{"conv",
           {image},
           [](In v) -> Tensors {
             return {conv(v[0], random({3, 2, 4, 6}, 4), {.stride = {2, 1}, .padding = {1, 0}, .padding_high = {2, 1}}),
                     conv(v[0], random({3, 3, 2, 6}, 5), {.padding = {2}, .dilation = {2}, .groups = 2}),
                     conv(v[0], random({3, 3, 4, 2}, 6), {.stride = {2}, .same = true})};
           }},
          {"conv_1d_3d",
           {line, block},
           [](In v) -> Tensors {
             return {conv(v[0], random({3, 4, 5}, 4)), conv(v[1], random({2, 3, 2, 2, 3}, 5))};
           }},
          {"conv_of_values",
           {image, random({2, 3, 3, 4}, 8)},
           [](In v) -> Tensors {
             return {conv(v[0], reshape(slice(v[1], 0, 0, 1), {3, 3, 4, 1}))};
           }},
          {"transposed",
           {image},
           [](In v) -> Tensors {
             return {conv_transpose(v[0], random({3, 3, 2, 4}, 4), {18, 16}, {.stride = {2}, .padding = {1}}),
                     conv_transpose(v[0], random({2, 2, 1, 4}, 5), {10, 9}, {.groups = 2})};
           }},
          {"pools",
           {image, line},
           [](In v) -> Tensors {
             return {max_pool(v[0], PoolOptions{.window = {3, 2}, .stride = {2}, .padding = {1}}),
                     avg_pool(v[0], PoolOptions{.window = {3}, .stride = {2}, .padding = {1}}),
                     avg_pool(v[0], PoolOptions{.window = {3}, .padding = {1}, .count_include_pad = false}),
                     max_pool(v[1], 2), adaptive_avg_pool(v[0], {3, 5})};
           }},
          {"channels",
           {image},
           [](In v) -> Tensors {  // what stays channels first between two windows, and what cannot
             const Tensor y = conv(v[0], random({3, 3, 4, 4}, 4)), gate = sigmoid(mean(y, {1, 2}, true));
             const Tensor z = relu(y * random({4}, 5) + random({7, 6, 4}, 6)) * gate;
             return {max_pool(z, 2), transpose(z, {0, 3, 1, 2}), sum(z, {1}), softmax(y),
                     z + slice(v[0], Axes{1, 2}, {0, 0}, {7, 6})};
           }},
          {"norms",
           {image},
           [batch = initialised(nn::BatchNorm(4)), group = initialised(nn::GroupNorm(2, 4))](In v) -> Tensors {
             return {(*batch)(v[0]), (*group)(conv(v[0], random({1, 1, 4, 4}, 9)))};
           }}};
}

std::vector<Exported> loops() {
  const Tensor x = random({3, 5, 4}, 1);
  const Tensor q = random({2, 5, 4, 6}, 2), k = random({2, 7, 2, 6}, 3), v4 = random({2, 7, 2, 3}, 4);
  return {{"reversed_scan",
           {x},
           [](In v) -> Tensors {
             const Tensor w = random({4, 4}, 5);
             const Scanned s = scan(
                 [&](In c, In t) -> Scanned {
                   return {{tanh(matmul(c[0], w) + t[0])}, {c[0] * 2.0, t[0] + c[0]}};
                 },
                 {zeros({v[0].size(0), 4})}, {transpose(v[0], {1, 0, 2})}, {.reverse = true});
             return {s.carry[0], s.ys[0], s.ys[1]};
           }},
          {"counted_scan",
           {x},
           [](In v) -> Tensors {
             const Scanned s = scan(
                 [&](In c, In) -> Scanned {
                   return {{c[0] * 0.5 + v[0]}, {sum(c[0], {1, 2})}};
                 },
                 {v[0]}, {}, {.length = 4});
             return {s.carry[0], s.ys[0]};
           }},
          {"cond",
           {x},
           [](In v) -> Tensors {
             const Tensor w = random({4, 4}, 5);
             return cond(
                 sum(v[0]) > 0.0,
                 [&](In a) -> Tensors {
                   return {matmul(a[0], w), a[0]};
                 },
                 [&](In a) -> Tensors {
                   return {a[0] + v[0], a[0]};
                 },
                 {v[0] * 2.0});
           }},
          {"gru",
           {x},
           [gru = initialised(nn::GRU(4, 3, {.layers = 2, .bidirectional = true}))](In v) -> Tensors {
             return {(*gru)(v[0])};
           }},
          {"attention",
           {q, k, v4},
           [](In v) -> Tensors {
             return {attention(v[0], v[1], v[2], {.causal = true}),
                     attention(v[0], v[1], v[2], {.mask = random({4, 5, 7}, 6)})};
           }},
          {"attention_lengths", {q, k, v4, ids({2}, 7, 9)}, [](In v) -> Tensors {
             return {attention(v[0], v[1], v[2], {.key_lengths = v[3]})};
           }}};
}

void write(const std::string& dir, const Exported& x) {
  std::vector<Type> types;
  for (const Tensor& t : x.in) types.push_back(t.type());
  const std::string base = dir + "/" + x.name;
  onnx::detail::export_function(base + ".onnx", x.f, {}, types, {});
  const auto save = [&](const Tensors& tensors, const char* what) {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      io::write_npy(base + "." + what + std::to_string(i) + ".npy",
                    {tensors[i].dtype(), tensors[i].shape(), tensors[i].buffer()});
  };
  save(x.in, "in");
  save(x.f(x.in), "out");
}

}  // namespace

int main(int argc, char** argv) {
  std::string name;
  try {
    if (argc != 2) return 2;
    for (const auto& group : {elementwise(), shapes(), reductions(), indexing(), windows(), loops()})
      for (const Exported& x : group) {
        name = x.name;
        write(argv[1], x);
      }
    return 0;
  } catch (const std::exception& e) { std::fprintf(stderr, "oracle_export: %s: %s\n", name.c_str(), e.what()); }
  return 1;
}

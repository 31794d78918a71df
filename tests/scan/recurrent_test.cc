// RNN, GRU and LSTM against PyTorch (tests/data/torch_recurrent.json, written by scripts/make_torch_recurrent.py), and
// what they promise besides.
#include "bp/recurrent.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bp/compile.h"
#include "bp/error.h"
#include "bp/grad.h"

namespace bp {
namespace {

using Json = nlohmann::json;
using Values = std::vector<double>;

// The script's formula.
Values made_values(std::int64_t n, double k) {
  Values v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(0.5 * std::sin(0.7 * static_cast<double>(i) + k));
  return v;
}
Tensor made_tensor(const Shape& shape, double k) { return Tensor::from(made_values(shape.numel(), k), shape); }

// A weight in our layout from PyTorch's [out, in], and a gradient back.
Values transposed(const Values& v, const Shape& from) {
  if (from.rank() != 2) return v;
  Values out;
  for (std::int64_t j = 0; j < from[1]; ++j)
    for (std::int64_t i = 0; i < from[0]; ++i) out.push_back(v[static_cast<std::size_t>(i * from[1] + j)]);
  return out;
}
Shape reversed(const Shape& s) { return s.rank() == 2 ? Shape{s[1], s[0]} : s; }

void expect_json(const Tensor& got, const Json& want, const std::string& what, double tolerance = 1e-9) {
  const auto a = got.to_vector<double>();
  const auto b = want.get<Values>();
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << what << ", element " << i;
}

template <class Layer> void compare(const Json& all, const Json& c) {
  SCOPED_TRACE(c["kind"].get<std::string>() + " layers " + std::to_string(c["layers"].get<int>()));
  const std::int64_t n = all["n"], t = all["t"], in = all["in"], hidden = all["hidden"];
  Layer layer(in, hidden, {.layers = c["layers"], .bidirectional = c["both"]});
  nn::init(layer, Key(1), f64);
  std::vector<Variable> parameters = nn::parameters(layer);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const Shape ours = parameters[k].shape(), theirs = reversed(ours);
    parameters[k].set(Tensor::from(transposed(made_values(theirs.numel(), static_cast<double>(k)), theirs), ours));
  }
  const Shape state{c["layers"].get<std::int64_t>() * layer.directions(), n, hidden};
  const Tensor x = watch(made_tensor({n, t, in}, 50)), h = watch(made_tensor(state, 60)),
               cell = watch(made_tensor(state, 70));
  const bool lstm = c.contains("c"), start = c["start"];
  nn::RecurrentStart from;
  if (start) {
    from.h = h;
    if (lstm) from.c = cell;
  }
  if (c["lengths"].get<bool>()) from.lengths = Tensor::from(all["row_lengths"].get<std::vector<std::int64_t>>(), {n});
  const nn::RecurrentResult out = layer(x, from);
  Tensor loss = sum(out.y * made_tensor(out.y.shape(), 80)) + sum(out.h * made_tensor(state, 90));
  if (lstm) loss = loss + sum(out.c * made_tensor(state, 91));
  const std::vector<Tensor> grads = grad(loss, parameters);
  expect_json(out.y, c["y"], "y");
  expect_json(out.h, c["h"], "h");
  if (lstm) expect_json(out.c, c["c"], "c");
  expect_json(grad(loss, x), c["dx"], "dx");
  if (start) expect_json(grad(loss, h), c["dh"], "dh");
  if (start && lstm) expect_json(grad(loss, cell), c["dc"], "dc");
  for (std::size_t k = 0; k < grads.size(); ++k)
    expect_json(grads[k], Json(transposed(c["grads"][k].get<Values>(), reversed(grads[k].shape()))),
                "gradient " + std::to_string(k));
}

TEST(Recurrent, EqualsPyTorchInValuesAndGradients) {
  std::ifstream file(BP_TEST_DATA "/torch_recurrent.json");
  const Json all = Json::parse(file);
  for (const Json& c : all["cases"]) {
    const std::string kind = c["kind"];
    if (kind == "rnn") compare<nn::RNN>(all, c);
    if (kind == "rnn_relu") compare<nn::ReluRNN>(all, c);
    if (kind == "gru") compare<nn::GRU>(all, c);
    if (kind == "lstm") compare<nn::LSTM>(all, c);
  }
  EXPECT_EQ(all["cases"].size(), 16u);
}

template <class Layer> class RecurrentKinds : public testing::Test {};
using Kinds = testing::Types<nn::RNN, nn::GRU, nn::LSTM>;
TYPED_TEST_SUITE(RecurrentKinds, Kinds);

TYPED_TEST(RecurrentKinds, GradientsOfBothOrders) {
  TypeParam layer(2, 3, {.layers = 2, .bidirectional = true, .segment = 2});
  nn::init(layer, Key(3), f64);
  const Tensor lengths = Tensor::from<std::int64_t>({3, 0});
  const GradcheckResult r = gradcheck(
      [&](std::span<const Tensor> x) {
        const auto out = layer(x[0], {.h = x[1], .lengths = lengths});
        return std::vector<Tensor>{out.y, out.h};
      },
      {made_tensor({2, 3, 2}, 1), made_tensor({4, 2, 3}, 2)}, {.second_order = true});
  EXPECT_TRUE(r.ok) << r.str();
}

TYPED_TEST(RecurrentKinds, PaddingChangesNothing) {
  TypeParam layer(2, 3, {.bidirectional = true});
  nn::init(layer, Key(3), f64);
  const Tensor x = made_tensor({1, 3, 2}, 1), padded = concatenate({x, made_tensor({1, 2, 2}, 9)}, 1);
  const auto whole = layer(x, {}), part = layer(padded, {.lengths = Tensor::from<std::int64_t>({3})});
  expect_json(slice(part.y, 1, 0, 3), Json(whole.y.template to_vector<double>()), "y", 0);
  expect_json(slice(part.y, 1, 3, 5), Json(Values(12, 0.0)), "y beyond the end", 0);
  expect_json(part.h, Json(whole.h.template to_vector<double>()), "h", 0);
  // Nothing at all: the state stays where it began.
  const auto none = layer(padded, {.h = made_tensor({2, 1, 3}, 4), .lengths = Tensor::from<std::int64_t>({0})});
  expect_json(none.h, Json(made_values(6, 4)), "h of an empty sequence", 0);
}

TYPED_TEST(RecurrentKinds, LastStateAndShapes) {
  TypeParam layer(2, 3, {.layers = 2, .bidirectional = true, .last = true}), all(2, 3, {.layers = 2});
  nn::init(layer, Key(3), f64);
  const Tensor x = made_tensor({4, 5, 2}, 1);
  EXPECT_EQ(layer(x).shape(), (Shape{4, 6}));
  EXPECT_EQ(layer.output_shape({4, 5, 2}), (Shape{4, 6}));
  EXPECT_EQ(all.output_shape({4, 5, 2}), (Shape{4, 5, 3}));
  const auto out = layer(x, {});
  expect_json(slice(layer(x), 1, 0, 3), Json(slice(out.h, 0, 2, 3).template to_vector<double>()), "forward", 0);
  expect_json(slice(layer(x), 1, 3, 6), Json(slice(out.h, 0, 3, 4).template to_vector<double>()), "backward", 0);
}

TEST(RecurrentErrors, NameLayerExpectedAndReceived) {
  const auto text = [](const std::function<void()>& f) -> std::string {
    try {
      f();
    } catch (const Error& e) { return e.what(); }
    return "nothing was thrown";
  };
  nn::LSTM lstm(2, 3);
  EXPECT_EQ(text([&] {
              lstm(made_tensor({1, 4, 2}, 0));
            }),
            "[lstm] the parameters have no values yet: call nn::init(model, Key{seed}) or load_state");
  nn::init(lstm, Key(1), f64);
  EXPECT_EQ(text([&] { lstm(made_tensor({1, 4, 3}, 0)); }), "[lstm] expected input [N, T, 2], got [1, 4, 3]");
  EXPECT_EQ(text([&] {
              lstm(zeros({1, 0, 2}, f64));
            }),
            "[lstm] expected at least one time step along axis 1, got [1, 0, 2]");
  EXPECT_EQ(text([&] {
              lstm(made_tensor({1, 4, 2}, 0), {.h = made_tensor({1, 2, 3}, 0)});
            }),
            "[lstm] expected an initial state [1, 1, 3] (layers * directions, N, hidden), got [1, 2, 3]");
  EXPECT_EQ(text([&] {
              lstm(made_tensor({1, 4, 2}, 0), {.lengths = made_tensor({1}, 0)});
            }),
            "[lstm] lengths: expected integers, got f64[1]");
  EXPECT_EQ(text([] { nn::GRU(2, 0); }), "[gru] hidden size: expected 1 or more, got 0");
  EXPECT_EQ(text([] { nn::GRU(2, 2, {.dropout = 1.5}); }), "[dropout] p: expected 0 <= p < 1, got 1.5");
}

TEST(Recurrent, DropoutActsBetweenLayersInTrainModeOnly) {
  nn::GRU layer(2, 8, {.layers = 2, .dropout = 0.5});
  nn::init(layer, Key(3), f64);
  const Tensor x = made_tensor({2, 3, 2}, 1);
  const auto once = [&](Mode mode) {
    const ModeScope scope(mode);
    return layer(x).to_vector<double>();
  };
  EXPECT_EQ(once(Mode::eval), once(Mode::eval));
  EXPECT_NE(once(Mode::train), once(Mode::eval));
  EXPECT_NE(once(Mode::train), once(Mode::train));
}

}  // namespace
}  // namespace bp

// Recurrent layers over scan.
#include "bp/recurrent.h"

#include <cmath>

#include "bp/scan.h"
#include "state/layer_support.h"

namespace bp::nn {

namespace {

using Tensors = std::span<const Tensor>;

Tensor gate(const Tensor& z, std::int64_t number, std::int64_t hidden) {
  return slice(z, 1, number * hidden, (number + 1) * hidden);
}

Tensor affine(const Tensor& x, const Variable& weight, const Variable& bias) {
  const Tensor y = matmul(x, weight);
  return bias.defined() ? y + bias.get() : y;
}

// One step: (h[, c]) to (h'[, c']).
template <RecurrentKind K>
std::vector<Tensor> cell(const Tensor& x, Tensors state, const RecurrentWeights& w, std::int64_t hidden) {
  const Tensor& h = state[0];
  const Tensor from_x = affine(x, w.weight_ih, w.bias_ih), from_h = affine(h, w.weight_hh, w.bias_hh);
  if constexpr (K == RecurrentKind::rnn) return {tanh(from_x + from_h)};
  if constexpr (K == RecurrentKind::rnn_relu) return {relu(from_x + from_h)};
  if constexpr (K == RecurrentKind::gru) {
    const auto both = [&](std::int64_t i) { return sigmoid(gate(from_x, i, hidden) + gate(from_h, i, hidden)); };
    const Tensor r = both(0), z = both(1);
    const Tensor n = tanh(gate(from_x, 2, hidden) + r * gate(from_h, 2, hidden));
    return {(1 - z) * n + z * h};
  }
  if constexpr (K == RecurrentKind::lstm) {
    const Tensor z = from_x + from_h;
    const Tensor i = sigmoid(gate(z, 0, hidden)), f = sigmoid(gate(z, 1, hidden)), g = tanh(gate(z, 2, hidden)),
                 o = sigmoid(gate(z, 3, hidden));
    const Tensor c = f * state[1] + i * g;
    return {o * tanh(c), c};
  }
  return {};
}

// Time first: [N, T, ..] <-> [T, N, ..].
Tensor swap_time(const Tensor& x) { return transpose(x, {1, 0, 2}); }

// [T, N, 1]: whether a step is within its sequence.
Tensor step_mask(const Tensor& lengths, std::int64_t steps) {
  return less(iota({steps, 1, 1}, 0), reshape(cast(lengths, DType::i64), {1, -1, 1}));
}

}  // namespace

// The weights of one layer in one direction, run over a sequence.
template <RecurrentKind K> struct Recurrent<K>::Direction {
  const Recurrent& layer;
  const RecurrentWeights& weights;
  bool reverse;

  // x, mask: time first. Returns the outputs, time first, and the last state.
  Scanned operator()(const Tensor& x, const std::vector<Tensor>& start, const Tensor& mask) const {
    std::vector<Tensor> slices{x};
    if (mask.defined()) slices.push_back(mask);
    return scan(
        [&](Tensors state, Tensors now) -> Scanned {
          std::vector<Tensor> next = cell<K>(now[0], state, weights, layer.hidden_);
          if (!mask.defined()) return {next, {next[0]}};
          const Tensor y = select(now[1], next[0], zeros({}, next[0].dtype()));
          for (std::size_t k = 0; k < next.size(); ++k) next[k] = select(now[1], next[k], state[k]);
          return {next, {y}};
        },
        start, slices, {.reverse = reverse, .segment = layer.options_.segment});
  }
};

template <RecurrentKind K>
Recurrent<K>::Recurrent(std::int64_t in, std::int64_t hidden, RecurrentOptions options)
    : in_(in), hidden_(hidden), options_(std::move(options)) {
  const char* name = Recurrent::kind();
  require_size(name, "input size", in);
  require_size(name, "hidden size", hidden);
  require_size(name, "layers", options_.layers);
  if (options_.segment < ScanOptions::kSqrt)
    fail(ErrorKind::value, "[{}] segment: expected 0 or more steps, or ScanOptions::kSqrt, got {}", name,
         options_.segment);
  for (std::int64_t l = 0; l < options_.layers; ++l) {
    for (std::int64_t d = 0; d < directions(); ++d) {
      RecurrentWeights w;
      w.weight_ih = parameter({l == 0 ? in : hidden * directions(), kGates * hidden});
      w.weight_hh = parameter({hidden, kGates * hidden});
      if (options_.bias) {
        w.bias_ih = parameter({kGates * hidden});
        w.bias_hh = parameter({kGates * hidden});
      }
      weights.push_back(std::move(w));
    }
    if (l + 1 < options_.layers) dropouts_.emplace_back(options_.dropout);
  }
  if (dropouts_.empty()) Dropout check(options_.dropout);  // refuses a rate out of range
}

template <RecurrentKind K> Shape Recurrent<K>::output_shape(const Shape& in) const {
  if (in.rank() != 3 || in.back() != in_) shape_error(*this, fmt::format("input [N, T, {}]", in_), in);
  if (in[1] < 1) shape_error(*this, "at least one time step along axis 1", in);
  if (options_.last) return {in[0], hidden_ * directions()};
  return {in[0], in[1], hidden_ * directions()};
}

template <RecurrentKind K> void Recurrent<K>::check(const Tensor& x, const RecurrentStart& start) const {
  output_shape(x.shape());
  require_values(*this, weights[0].weight_ih);
  const Shape state{options_.layers * directions(), x.shape()[0], hidden_};
  for (const Tensor* t : {&start.h, &start.c})
    if (t->defined() && !(t->shape() == state))
      shape_error(*this, fmt::format("an initial state {} (layers * directions, N, hidden)", state), t->shape());
  if (start.c.defined() && K != RecurrentKind::lstm)
    fail(ErrorKind::value, "{} an initial cell state is an LSTM's", prefix(*this));
  if (!start.lengths.defined()) return;
  if (!is_integer(start.lengths.dtype()))
    fail(ErrorKind::dtype, "{} lengths: expected integers, got {}", prefix(*this), start.lengths.type().str());
  if (!(start.lengths.shape() == Shape{x.shape()[0]}))
    shape_error(*this, fmt::format("lengths {}", Shape{x.shape()[0]}), start.lengths.shape());
}

template <RecurrentKind K>
Tensor Recurrent<K>::start_of(const Tensor& given, std::size_t index, const Tensor& x) const {
  if (!given.defined()) return zeros({x.shape()[0], hidden_}, x.dtype());
  const auto i = static_cast<std::int64_t>(index);
  return reshape(slice(given, 0, i, i + 1), {x.shape()[0], hidden_});
}

template <RecurrentKind K>
RecurrentResult Recurrent<K>::operator()(const Tensor& x, const RecurrentStart& start) const {
  check(x, start);
  const Scope scope(this->scope_name());
  const Tensor mask = start.lengths.defined() ? step_mask(start.lengths, x.shape()[1]) : Tensor();
  Tensor y = swap_time(x);
  std::vector<Tensor> h, c;
  for (std::size_t i = 0; i < weights.size();) {
    std::vector<Tensor> outputs;
    for (const bool reverse : {false, true}) {
      if (reverse && !options_.bidirectional) break;
      std::vector<Tensor> state{start_of(start.h, i, x)};
      if (K == RecurrentKind::lstm) state.push_back(start_of(start.c, i, x));
      const Scanned out = Direction{*this, weights[i], reverse}(y, state, mask);
      outputs.push_back(out.ys[0]);
      h.push_back(out.carry[0]);
      if (K == RecurrentKind::lstm) c.push_back(out.carry[1]);
      ++i;
    }
    y = concatenate(outputs, 2);
    const std::size_t layer = h.size() / static_cast<std::size_t>(directions()) - 1;
    if (layer < dropouts_.size()) y = dropouts_[layer](y);
  }
  return {swap_time(y), stack(h, 0), K == RecurrentKind::lstm ? stack(c, 0) : Tensor()};
}

template <RecurrentKind K> Tensor Recurrent<K>::operator()(const Tensor& x) const {
  const RecurrentResult out = (*this)(x, RecurrentStart{});
  if (!options_.last) return out.y;
  const std::int64_t all = out.h.shape()[0], top = all - directions();
  return reshape(transpose(slice(out.h, 0, top, all), {1, 0, 2}), {x.shape()[0], hidden_ * directions()});
}

template <RecurrentKind K> std::string Recurrent<K>::describe() const {
  std::string text = fmt::format("{}({} -> {}", Recurrent::kind(), in_, hidden_);
  if (options_.layers != 1) text += fmt::format(", {} layers", options_.layers);
  if (options_.bidirectional) text += ", both directions";
  if (options_.dropout != 0) text += fmt::format(", dropout {}", options_.dropout);
  if (!options_.bias) text += ", no bias";
  if (options_.last) text += ", last state";
  return text + ")";
}

template <RecurrentKind K> void Recurrent<K>::visit(const std::string& path, Visitor& visitor) {
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto d = static_cast<std::size_t>(directions());
    const std::string suffix = fmt::format("_l{}{}", i / d, i % d == 1 ? "_reverse" : "");
    RecurrentWeights& w = weights[i];
    visitor.on_variable(join_path(path, "weight_ih" + suffix), w.weight_ih, true);
    visitor.on_variable(join_path(path, "weight_hh" + suffix), w.weight_hh, true);
    if (!w.bias_ih.defined()) continue;
    visitor.on_variable(join_path(path, "bias_ih" + suffix), w.bias_ih, false);
    visitor.on_variable(join_path(path, "bias_hh" + suffix), w.bias_hh, false);
  }
  if (options_.dropout != 0)
    for (std::size_t i = 0; i < dropouts_.size(); ++i)
      detail::walk_layer(join_path(path, fmt::format("dropout_l{}", i)), dropouts_[i], visitor);
}

template <RecurrentKind K> void Recurrent<K>::init(Key key) {
  const double bound = 1 / std::sqrt(static_cast<double>(hidden_));
  const Initializer usual = init::uniform(-bound, bound);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    RecurrentWeights& w = weights[i];
    const Key own = key.fold(std::to_string(i));
    const auto set = [&](Variable& v, const std::optional<Initializer>& given, const char* name) {
      if (v.defined()) initialise(v, given.value_or(usual), fans_of(w.weight_ih.shape()), own.fold(name));
    };
    set(w.weight_ih, options_.weight_init, "weight_ih");
    set(w.weight_hh, options_.recurrent_init, "weight_hh");
    set(w.bias_ih, options_.bias_init, "bias_ih");
    set(w.bias_hh, options_.bias_init, "bias_hh");
  }
}

template class Recurrent<RecurrentKind::rnn>;
template class Recurrent<RecurrentKind::rnn_relu>;
template class Recurrent<RecurrentKind::gru>;
template class Recurrent<RecurrentKind::lstm>;

}  // namespace bp::nn

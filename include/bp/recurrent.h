// Recurrent layers, batch first: x [N, T, in] -> y [N, T, hidden * directions]. The loop over time is one scan
// (bp/scan.h): x W_ih of all steps is one product before it, and each weight's gradient one product after it.
//
//   nn::LSTM lstm(8, 32, {.layers = 2});
//   nn::init(lstm, Key{42});
//   assert(lstm(zeros({4, 20, 8})).shape() == Shape({4, 20, 32}));
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bp/layers.h"

namespace bp::nn {

// The equations and the order of the gates are PyTorch's; weights are stored [in, gates * hidden].
//   rnn   h' = tanh(x W_ih + b_ih + h W_hh + b_hh)                   (Elman 1990); rnn_relu: relu instead of tanh
//   gru   r, z = sigmoid(x W_ih + b_ih + h W_hh + b_hh), n = tanh(x W_in + b_in + r * (h W_hn + b_hn)),
//         h' = (1 - z) * n + z * h                                    (Cho et al. 2014); gates in the order r, z, n
//   lstm  i, f, o = sigmoid(..), g = tanh(..) of x W_ih + b_ih + h W_hh + b_hh, c' = f * c + i * g, h' = o * tanh(c')
//                                                                     (Hochreiter and Schmidhuber 1997, forget gates of
//                                                                     Gers et al. 2000); gates in the order i, f, g, o
enum class RecurrentKind { rnn, rnn_relu, gru, lstm };

// How a recurrent layer is made.
struct RecurrentOptions {
  std::int64_t layers = 1;     // one above another
  bool bidirectional = false;  // a second set of weights reads from the end; outputs are concatenated
  double dropout = 0;          // on the outputs of every layer but the last, in train mode
  bool bias = true;            // with biases
  bool last = false;           // operator() returns the last state [N, hidden * directions] instead of all outputs
  std::int64_t segment = 0;    // gradient checkpointing over time: ScanOptions::segment
  // Unset: U(+-1 / sqrt(hidden)), as PyTorch's.
  std::optional<Initializer> weight_init = std::nullopt, recurrent_init = std::nullopt, bias_init = std::nullopt;
};

// Where a sequence starts and how long it is; everything may be left out.
struct RecurrentStart {
  Tensor h = {}, c = {};  // [layers * directions, N, hidden]; zeros. c: of an LSTM only
  Tensor lengths =
      {};  // integers [N]: of each sequence of a padded batch, 0 to T. Beyond it y is 0 and the state stays
};

// All that the layer computed.
struct RecurrentResult {
  Tensor y;     // [N, T, hidden * directions]
  Tensor h, c;  // [layers * directions, N, hidden]; c: of an LSTM only
};

// Of one layer in one direction.
struct RecurrentWeights {
  Variable weight_ih, weight_hh;  // [in, gates * hidden], [hidden, gates * hidden]
  Variable bias_ih, bias_hh;      // [gates * hidden], undefined without bias
};

// Throws Error(shape) for another rank or width, or no time step at all; Error(value) for options out of range.
template <RecurrentKind K> class Recurrent final : public LayerOf<Recurrent<K>> {
 public:
  // Columns of blocks in a weight.
  static constexpr std::int64_t kGates = K == RecurrentKind::lstm ? 4 : K == RecurrentKind::gru ? 3 : 1;

  // Throws Error(value) for sizes below 1 and options out of range.
  Recurrent(std::int64_t in, std::int64_t hidden, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
  // From a given state, or with padded sequences.
  RecurrentResult operator()(const Tensor& x, const RecurrentStart& start) const;
  Shape output_shape(const Shape& in) const override;
  const char* kind() const noexcept override {
    return K == RecurrentKind::lstm  ? "lstm"
           : K == RecurrentKind::gru ? "gru"
           : K == RecurrentKind::rnn ? "rnn"
                                     : "rnn_relu";
  }
  std::string describe() const override;
  void visit(const std::string& path, Visitor& visitor) override;
  void init(Key key) override;
  std::int64_t directions() const noexcept { return options_.bidirectional ? 2 : 1; }  // 1 or 2

  std::vector<RecurrentWeights> weights;  // layer by layer, forward before backward

 private:
  struct Direction;  // one layer in one direction
  void check(const Tensor& x, const RecurrentStart& start) const;
  Tensor start_of(const Tensor& given, std::size_t index, const Tensor& x) const;

  std::int64_t in_, hidden_;
  RecurrentOptions options_;
  std::vector<Dropout> dropouts_;  // after each layer but the last
};

using RNN = Recurrent<RecurrentKind::rnn>;           // Elman's, with tanh
using ReluRNN = Recurrent<RecurrentKind::rnn_relu>;  // Elman's, with relu
using GRU = Recurrent<RecurrentKind::gru>;           // gated recurrent units
using LSTM = Recurrent<RecurrentKind::lstm>;         // long short-term memory
extern template class Recurrent<RecurrentKind::rnn>;
extern template class Recurrent<RecurrentKind::rnn_relu>;
extern template class Recurrent<RecurrentKind::gru>;
extern template class Recurrent<RecurrentKind::lstm>;

}  // namespace bp::nn

// Recurrent layers, batch first: x [N, T, in] -> y [N, T, hidden * directions]. The loop over time is one scan
// (bp/scan.h): x W_ih of all steps is one product before it, and each weight's gradient one product after it.
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

struct RecurrentOptions {
  std::int64_t layers = 1;
  bool bidirectional = false;  // a second set of weights reads from the end; outputs are concatenated
  double dropout = 0;          // on the outputs of every layer but the last, in train mode
  bool bias = true;
  bool last = false;         // operator() returns the last state [N, hidden * directions] instead of all outputs
  std::int64_t segment = 0;  // gradient checkpointing over time: ScanOptions::segment
  // Unset: U(+-1 / sqrt(hidden)), as PyTorch's.
  std::optional<Initializer> weight_init = std::nullopt, recurrent_init = std::nullopt, bias_init = std::nullopt;
};

// Where a sequence starts and how long it is; everything may be left out.
struct RecurrentStart {
  Tensor h = {}, c = {};  // [layers * directions, N, hidden]; zeros. c: of an LSTM only
  Tensor lengths =
      {};  // integers [N]: of each sequence of a padded batch, 0 to T. Beyond it y is 0 and the state stays
};

struct RecurrentResult {
  Tensor y;     // [N, T, hidden * directions]
  Tensor h, c;  // [layers * directions, N, hidden]; c: of an LSTM only
};

struct RecurrentWeights {
  Variable weight_ih, weight_hh;  // [in, gates * hidden], [hidden, gates * hidden]
  Variable bias_ih, bias_hh;      // [gates * hidden], undefined without bias
};

// Throws Error(shape) for another rank or width, or no time step at all; Error(value) for options out of range.
template <RecurrentKind K> class Recurrent final : public LayerOf<Recurrent<K>> {
 public:
  static constexpr std::int64_t kGates = K == RecurrentKind::lstm ? 4 : K == RecurrentKind::gru ? 3 : 1;

  Recurrent(std::int64_t in, std::int64_t hidden, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
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
  std::int64_t directions() const noexcept { return options_.bidirectional ? 2 : 1; }

  std::vector<RecurrentWeights> weights;  // layer by layer, forward before backward

 private:
  struct Direction;  // one layer in one direction
  void check(const Tensor& x, const RecurrentStart& start) const;
  Tensor start_of(const Tensor& given, std::size_t index, const Tensor& x) const;

  std::int64_t in_, hidden_;
  RecurrentOptions options_;
  std::vector<Dropout> dropouts_;  // after each layer but the last
};

using RNN = Recurrent<RecurrentKind::rnn>;
using ReluRNN = Recurrent<RecurrentKind::rnn_relu>;
using GRU = Recurrent<RecurrentKind::gru>;
using LSTM = Recurrent<RecurrentKind::lstm>;
extern template class Recurrent<RecurrentKind::rnn>;
extern template class Recurrent<RecurrentKind::rnn_relu>;
extern template class Recurrent<RecurrentKind::gru>;
extern template class Recurrent<RecurrentKind::lstm>;

}  // namespace bp::nn

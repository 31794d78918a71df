// Initialisers: how parameters get their first values. Layers take them as options; nn::init applies them.
//
// fan_in and fan_out follow the library's layouts, whose last two dimensions are input and output channels:
// a weight [k1.., in, out] has fan_in = k1 * .. * in and fan_out = k1 * .. * out (for grouped convolutions `in` is that
// of one group, as in PyTorch). Values are drawn in f64 by Philox from the key alone, then rounded to the dtype: the
// same key gives the same values on every machine.
//
//   nn::Linear layer(64, 10, {.weight_init = init::glorot_uniform(), .bias_init = init::constant(0.1)});
//   nn::init(layer, Key{42});
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "bp/rng.h"
#include "bp/tensor.h"

namespace bp {

// How many inputs and outputs an element of a layer's result depends on, the taps of a kernel counted.
struct Fans {
  double in = 1;   // fan_in
  double out = 1;  // fan_out
};

// Of a weight of rank 2 or more. Throws Error(shape) for fewer dimensions: there a fan has no meaning.
Fans fans_of(const Shape& weight);

// A way to draw first values: a function with a name, copied freely.
class Initializer {
 public:
  // Fills `out` (row-major, shape.numel() values).
  using Fill = std::function<void(std::span<double> out, const Shape& shape, Fans fans, Key key)>;
  Initializer(std::string name, Fill fill) : name_(std::move(name)), fill_(std::move(fill)) {}  // name: for listings

  // Values for a Variable of this shape: the same key gives the same ones. `fans` where they do not follow from the
  // shape.
  Tensor operator()(const Shape& shape, Fans fans, Key key, DType dtype = f32) const;
  Tensor operator()(const Shape& shape, Key key, DType dtype = f32) const {
    return (*this)(shape, shape.rank() >= 2 ? fans_of(shape) : Fans{}, key, dtype);
  }
  const std::string& name() const noexcept { return name_; }  // "he_normal"

 private:
  std::string name_;
  Fill fill_;
};

namespace init {

// Which fan He's variance is divided by.
enum class FanMode { in, out, average };

// Every function throws Error(value) when a parameter is out of its domain (negative deviation, empty interval, NaN).
Initializer constant(double value);
Initializer zeros();                             // all 0
Initializer ones();                              // all 1
Initializer uniform(double low, double high);    // U[low, high)
Initializer normal(double mean, double stddev);  // N(mean, stddev^2)
// N(mean, stddev^2) conditioned on [low, high], by rejection-free inversion: x = mean + stddev * Phi^-1(u).
Initializer truncated_normal(double mean = 0, double stddev = 1, double low = -2, double high = 2);

// The scale family: Var = gain^2 * scale / fan. uniform: U(+-sqrt(3 Var)); normal: N(0, Var).
// Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010, eq. 16:
// Var = gain^2 * 2 / (fan_in + fan_out).
Initializer glorot_uniform(double gain = 1);
// N(0, Var).
Initializer glorot_normal(double gain = 1);
// He et al., "Delving deep into rectifiers", ICCV 2015, eq. 10 and 14: Var = 2 / ((1 + slope^2) fan), `slope` being the
// negative slope of a leaky ReLU (0: ReLU).
Initializer he_uniform(double slope = 0, FanMode mode = FanMode::in);
// N(0, Var).
Initializer he_normal(double slope = 0, FanMode mode = FanMode::in);
// LeCun et al., "Efficient BackProp", 1998, section 4.6: Var = 1 / fan_in.
Initializer lecun_uniform();
// N(0, Var).
Initializer lecun_normal();
// What torch.nn.Linear and ConvNd do to weight and bias alike: U(+-1 / sqrt(fan_in)), that is he_uniform(sqrt(5)).
Initializer pytorch_default();
// Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014: the
// weight seen as a matrix [all but the last, last] gets orthonormal columns (rows, if it is wider than high), uniformly
// distributed (Householder QR of a normal matrix in f64, signs by the diagonal of R; Mezzadri 2007), times gain.
Initializer orthogonal(double gain = 1);

// "he_normal", "glorot_uniform", "lecun_normal", "orthogonal", "pytorch", "zeros", ...: the spelling of model files.
// Throws Error(value) listing them.
Initializer from_name(std::string_view name);

}  // namespace init
}  // namespace bp

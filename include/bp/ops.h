// The operations on Tensors. Every one is differentiable unless it says otherwise; gradients are graphs of the same
// operations.
//
// Broadcasting is NumPy's: shapes are aligned at the right, sizes must be equal or 1.
// Promotion: operands meet in promote(a, b) (bp/dtype.h). A C++ number is weak: it takes the tensor's dtype, except
// that a fractional number meeting integers gives f32 and a whole one that they cannot hold gives i64. Division, pow,
// exp and the like turn integers and booleans into f32. Integers wrap; bool + bool is or, bool * bool is and. Axes may
// be negative. Shape errors throw Error(shape), dtype errors Error(dtype), naming the op and the layer.
//
//   const Tensor x = iota({2, 3}, 1, f32);  // 0 1 2, twice
//   const Tensor y = where(x > 1, x, -x) + 1;
//   assert(y.to_vector<float>() == (std::vector<float>{1, 0, 3, 1, 0, 3}));
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "bp/rng.h"
#include "bp/tensor.h"

namespace bp {

using Axes = std::vector<int>;  // dimensions; negative ones count from the end

// ---- constants --------------------------------------------------------------------------------------------------
Tensor full(const Shape& shape, double value, DType dtype = f32);  // every element is `value`
Tensor zeros(const Shape& shape, DType dtype = f32);               // all 0
Tensor ones(const Shape& shape, DType dtype = f32);                // all 1
Tensor scalar(double value, DType dtype = f32);                    // rank 0
Tensor zeros_like(const Tensor& x);                                // all 0, of x's shape and dtype
Tensor ones_like(const Tensor& x);                                 // all 1, of x's shape and dtype
Tensor iota(const Shape& shape, int axis, DType dtype = i64);      // out[..., i, ...] = i along `axis`
Tensor arange(std::int64_t n, DType dtype = i64);                  // [n]: 0, 1, .., n - 1

// ---- random numbers: Philox4x32-10 on (seed, counter, place) -------------------------------------------------------
// `state` is i64[2] = (seed, counter). `place` tells draws of the same state apart. Equal arguments give equal numbers,
// on every thread count. Not differentiable by `state`.
Tensor random_bits(const Tensor& state, const Shape& shape, int width,
                   std::uint64_t place = 0);  // i32 in [0, 2^width), width <= 31
Tensor random_uniform(const Tensor& state, const Shape& shape, DType dtype = f32,
                      std::uint64_t place = 0);  // in [0, 1), 24 bits
Tensor random_normal(const Tensor& state, const Shape& shape, DType dtype = f32,
                     std::uint64_t place = 0);  // N(0, 1), by Box and Muller
Tensor random_bernoulli(const Tensor& state, const Shape& shape, double p,
                        std::uint64_t place = 0);  // bool, true with probability p
Tensor random_state(Key key);                      // the i64[2] for a key, counter 0

// ---- elementwise, one operand --------------------------------------------------------------------------------------
Tensor neg(const Tensor& x);                // -x
Tensor abs(const Tensor& x);                // |x|; gradient at 0: 0
Tensor sign(const Tensor& x);               // -1, 0 or 1; zero gradient
Tensor exp(const Tensor& x);                // e^x
Tensor expm1(const Tensor& x);              // e^x - 1, exact near 0
Tensor log(const Tensor& x);                // natural; -inf at 0, NaN below
Tensor log1p(const Tensor& x);              // log(1 + x), exact near 0
Tensor sqrt(const Tensor& x);               // NaN below 0
Tensor rsqrt(const Tensor& x);              // 1 / sqrt(x)
Tensor reciprocal(const Tensor& x);         // 1 / x
Tensor square(const Tensor& x);             // x * x
Tensor sin(const Tensor& x);                // of radians
Tensor cos(const Tensor& x);                // of radians
Tensor tanh(const Tensor& x);               // the hyperbolic tangent
Tensor sigmoid(const Tensor& x);            // 1 / (1 + exp(-x)), without overflow
Tensor erf(const Tensor& x);                // 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x
Tensor floor(const Tensor& x);              // the integer below; floor, ceil, round: zero gradient
Tensor ceil(const Tensor& x);               // the integer above
Tensor round(const Tensor& x);              // the nearest integer, to even at halves
Tensor isfinite(const Tensor& x);           // bool: neither NaN nor infinite
Tensor logical_not(const Tensor& x);        // bool: x == 0
Tensor relu(const Tensor& x);               // max(x, 0); gradient at 0: 0; NaN stays NaN
Tensor cast(const Tensor& x, DType dtype);  // float to integer truncates and saturates; to bool: != 0
Tensor stop_gradient(const Tensor& x);      // x, with a gradient of zero

// ---- elementwise, two operands -------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);         // a + b
Tensor sub(const Tensor& a, const Tensor& b);         // a - b
Tensor mul(const Tensor& a, const Tensor& b);         // a * b
Tensor div(const Tensor& a, const Tensor& b);         // a / b; of integers f32
Tensor pow(const Tensor& a, const Tensor& b);         // a^b
Tensor pow(const Tensor& a, double b);                // a^b
Tensor maximum(const Tensor& a, const Tensor& b);     // the larger; NaN propagates; where equal the gradient is halved
Tensor minimum(const Tensor& a, const Tensor& b);     // the smaller, as maximum
Tensor remainder(const Tensor& a, const Tensor& b);   // a - b * floor(a / b): the sign of b, as NumPy's %
Tensor equal(const Tensor& a, const Tensor& b);       // a == b; comparisons give bool
Tensor not_equal(const Tensor& a, const Tensor& b);   // not equal(a, b); true beside NaN
Tensor less(const Tensor& a, const Tensor& b);        // a < b
Tensor less_equal(const Tensor& a, const Tensor& b);  // a <= b
Tensor greater(const Tensor& a, const Tensor& b);     // a > b
Tensor greater_equal(const Tensor& a, const Tensor& b);  // a >= b
Tensor logical_and(const Tensor& a, const Tensor& b);    // a != 0 and b != 0
Tensor logical_or(const Tensor& a, const Tensor& b);     // a != 0 or b != 0
// condition ? a : b, elementwise; all three broadcast. No NaN leaks from the side not taken, in the value or the
// gradient's mask.
Tensor select(const Tensor& condition, const Tensor& a, const Tensor& b);
// select(condition, a, b).
inline Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) { return select(condition, a, b); }

// A scalar of x's dtype (beside integers: f32 when v is fractional, i64 when they cannot hold v): what a C++ number
// becomes beside a tensor.
Tensor weak_scalar(double v, const Tensor& beside);

#define BP_BINARY_OPERATOR(op, fn)                                                          \
  inline Tensor operator op(const Tensor& a, const Tensor& b) { return fn(a, b); }          \
  inline Tensor operator op(const Tensor& a, double b) { return fn(a, weak_scalar(b, a)); } \
  inline Tensor operator op(double a, const Tensor& b) { return fn(weak_scalar(a, b), b); }
BP_BINARY_OPERATOR(+, add)
BP_BINARY_OPERATOR(-, sub)
BP_BINARY_OPERATOR(*, mul)
BP_BINARY_OPERATOR(/, div)
BP_BINARY_OPERATOR(<, less)
BP_BINARY_OPERATOR(<=, less_equal)
BP_BINARY_OPERATOR(>, greater)
BP_BINARY_OPERATOR(>=, greater_equal)
#undef BP_BINARY_OPERATOR
inline Tensor operator-(const Tensor& x) { return neg(x); }                      // neg(x)
inline Tensor& operator+=(Tensor& a, const Tensor& b) { return a = add(a, b); }  // a = a + b
inline Tensor& operator-=(Tensor& a, const Tensor& b) { return a = sub(a, b); }  // a = a - b
inline Tensor& operator*=(Tensor& a, const Tensor& b) { return a = mul(a, b); }  // a = a * b
// With a number for a tensor.
inline Tensor maximum(const Tensor& a, double b) { return maximum(a, weak_scalar(b, a)); }
// With a number for a tensor.
inline Tensor minimum(const Tensor& a, double b) { return minimum(a, weak_scalar(b, a)); }
// With a number for a tensor.
inline Tensor equal(const Tensor& a, double b) { return equal(a, weak_scalar(b, a)); }

// ---- shape ------------------------------------------------------------------------------------------------------
// The same elements, row-major; Error(shape) when their number differs.
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> dims);  // one dim may be -1
Tensor flatten(const Tensor& x, int from_axis = 1);                         // [N, a, b, c] -> [N, a*b*c]
Tensor squeeze(const Tensor& x, int axis);                                  // takes out an axis of size 1
Tensor unsqueeze(const Tensor& x, int axis);                 // puts in an axis of size 1, which becomes number `axis`
Tensor transpose(const Tensor& x, const Axes& permutation);  // out.shape[i] = x.shape[permutation[i]]
Tensor transpose(const Tensor& x);                           // swaps the last two axes
Tensor broadcast_to(const Tensor& x, const Shape& shape);    // repeats axes of size 1, and new ones in front
Tensor slice(const Tensor& x, const Axes& axes, const std::vector<std::int64_t>& start,
             const std::vector<std::int64_t>& stop,
             const std::vector<std::int64_t>& step =
                 {});  // NumPy's x[start:stop:step], step >= 1; negative indices count from the end
Tensor slice(const Tensor& x, int axis, std::int64_t start, std::int64_t stop, std::int64_t step = 1);
Tensor pad(const Tensor& x, const std::vector<std::int64_t>& low, const std::vector<std::int64_t>& high,
           double value = 0,
           const std::vector<std::int64_t>& interior = {});  // one entry an axis; interior: elements between neighbours
Tensor concatenate(const std::vector<Tensor>& parts, int axis);  // shapes are equal but along `axis`
Tensor stack(const std::vector<Tensor>& parts, int axis);        // shapes are equal; a new axis
// Equal parts; Error(shape) when the size is no multiple.
std::vector<Tensor> split(const Tensor& x, int parts, int axis);
Tensor tile(const Tensor& x, const std::vector<std::int64_t>& repeats);  // one entry an axis
Tensor reverse(const Tensor& x, const Axes& axes);                       // the elements of these axes backwards

// ---- reductions: `axes` empty means all; keep leaves size-1 dimensions ------------------------------------------
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep = false);   // integers and booleans add up in i64
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keep = false);  // integers give f32
Tensor var(const Tensor& x, const Axes& axes = {}, bool keep = false, int correction = 0);  // two-pass
Tensor max(const Tensor& x, const Axes& axes = {},
           bool keep = false);  // ties share the gradient equally; NaN propagates
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep = false);   // as max
Tensor prod(const Tensor& x, const Axes& axes = {}, bool keep = false);  // gradient right also where elements are 0
Tensor argmax(const Tensor& x, int axis = -1);  // i64; the first among equals; not differentiable
Tensor argmin(const Tensor& x, int axis = -1);  // as argmax
// Sums up to each element; reversed: from each element on.
Tensor cumsum(const Tensor& x, int axis, bool reversed = false);
Tensor norm(const Tensor& x, const Axes& axes = {}, bool keep = false);       // Euclidean; gradient at 0 is 0
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keep = false);  // log(sum(exp(x))), without overflow
// Ascending (or descending) along `axis`, stable: values and their i64 positions. NaN counts as largest.
std::pair<Tensor, Tensor> sort(const Tensor& x, int axis = -1, bool descending = false);
std::pair<Tensor, Tensor> top_k(const Tensor& x, int k, int axis = -1);  // the k largest, largest first

// ---- products ---------------------------------------------------------------------------------------------------
// [.., m, k] x [.., k, n] -> [.., m, n]; leading dimensions broadcast. transpose_a: a is [.., k, m]; transpose_b: b is
// [.., n, k]. Rank-1 operands as in NumPy: [k] is a row on the left and a column on the right, and that dimension
// vanishes.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);
Tensor einsum(const char* equation,
              const std::vector<Tensor>& operands);  // "bij,bjk->bik"; no repeated index in one operand

// ---- convolution and pooling: channels last ---------------------------------------------------------------------
// One entry a spatial dimension; a single entry counts for all.
struct ConvOptions {
  std::vector<std::int64_t> stride = {1};       // of the window
  std::vector<std::int64_t> padding = {0};      // both sides
  std::vector<std::int64_t> padding_high = {};  // when not empty: the padding behind, `padding` being the one before
  bool same = false;  // output size = ceil(input / stride), the odd element of padding behind (as TensorFlow and JAX)
  std::vector<std::int64_t> dilation = {1};  // distance of the kernel's taps
  std::int64_t groups = 1;                   // of channels that do not see each other
};
// Cross-correlation (as in every deep-learning library): x [N, s1.., C] * w [k1.., C / groups, O] -> [N, o1.., O],
// o = floor((s + low + high - dilation * (k - 1) - 1) / stride) + 1. One to three spatial dimensions.
Tensor conv(const Tensor& x, const Tensor& w, const ConvOptions& options = {});
// The transpose of conv (its gradient by x): y [N, o1.., O], w [k1.., C / groups, O] -> [N, s1.., C] with s1.. =
// `spatial`.
Tensor conv_transpose(const Tensor& y, const Tensor& w, const std::vector<std::int64_t>& spatial,
                      const ConvOptions& options = {});

// The window of a pool. One entry a spatial dimension; a single entry counts for all.
struct PoolOptions {
  std::vector<std::int64_t> window = {2};    // positions in it
  std::vector<std::int64_t> stride = {};     // empty: the window
  std::vector<std::int64_t> padding = {0};   // both sides, less than the window
  std::vector<std::int64_t> dilation = {1};  // max_pool only
  bool count_include_pad = true;             // avg_pool only: whether padding counts in the divisor
};
Tensor max_pool(const Tensor& x,
                const PoolOptions& options);  // x [N, s1.., C]; padding is -inf; the first maximum takes the gradient
Tensor avg_pool(const Tensor& x, const PoolOptions& options);  // means over windows; x [N, s1.., C]
// A square window, as wide as its stride.
inline Tensor max_pool(const Tensor& x, std::int64_t window) { return max_pool(x, PoolOptions{.window = {window}}); }
// A square window, as wide as its stride.
inline Tensor avg_pool(const Tensor& x, std::int64_t window) { return avg_pool(x, PoolOptions{.window = {window}}); }
// Pools to given spatial sizes, x [N, s1.., C] -> [N, o1.., C]: window i of a dimension spans
// [floor(i s / o), ceil((i + 1) s / o)), as PyTorch's. Throws Error(shape) for a dimension of x without elements.
Tensor adaptive_max_pool(const Tensor& x, const std::vector<std::int64_t>& sizes);
// The same with means.
Tensor adaptive_avg_pool(const Tensor& x, const std::vector<std::int64_t>& sizes);

// ---- indexing ---------------------------------------------------------------------------------------------------
// Indices are i32 or i64 in [0, n). Out of range: gather and take_along give NaN (0 for integers), scatters ignore the
// entry.
// When the indices are an argument of a compiled step they are checked before it runs: Error(value) with position and
// value.
Tensor gather(const Tensor& x, const Tensor& indices,
              int axis = 0);  // whole slices: out.shape = x[:axis] + indices + x[axis+1:]
Tensor take_along(const Tensor& x, const Tensor& indices, int axis);  // indices.shape = x.shape except along axis
// out = zeros(shape) with out[indices[i]] += updates[i], slices along axis 0: updates.shape = indices.shape +
// shape[1:]. Deterministic.
Tensor scatter_add(const Shape& shape, const Tensor& indices, const Tensor& updates);
// The transpose of take_along: zeros of updates.shape with size n along axis, out[.., indices[.., j, ..], ..] +=
// updates[.., j, ..].
Tensor scatter_along(const Tensor& updates, const Tensor& indices, int axis, std::int64_t n);
Tensor one_hot(const Tensor& indices, std::int64_t classes,
               DType dtype = f32);  // [..] -> [.., classes]; a row of zeros when out of range

// ---- compositions with stable formulas --------------------------------------------------------------------------
Tensor softmax(const Tensor& x, int axis = -1);         // exp(x) / sum of exp(x) along `axis`
Tensor log_softmax(const Tensor& x, int axis = -1);     // log of it, without overflow
Tensor clip(const Tensor& x, double low, double high);  // min(max(x, low), high); no gradient where it cuts

// ---- activations: compositions, with PyTorch's formulas; at a kink the gradient is PyTorch's too ----------------
Tensor softplus(const Tensor& x);                         // log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
Tensor log_sigmoid(const Tensor& x);                      // -softplus(-x)
Tensor gelu(const Tensor& x);                             // x * Phi(x), by erf
Tensor gelu_tanh(const Tensor& x);                        // Hendrycks and Gimpel 2016, the tanh approximation
Tensor silu(const Tensor& x);                             // x * sigmoid(x)
Tensor mish(const Tensor& x);                             // x * tanh(softplus(x)); Misra 2019
Tensor softsign(const Tensor& x);                         // x / (1 + |x|)
Tensor leaky_relu(const Tensor& x, double slope = 0.01);  // x > 0 ? x : slope * x
Tensor prelu(const Tensor& x, const Tensor& slope);       // x > 0 ? x : slope * x; slope broadcasts: [], [1] or [C]
Tensor elu(const Tensor& x, double alpha = 1);            // x > 0 ? x : alpha (exp(x) - 1)
Tensor celu(const Tensor& x, double alpha = 1);           // x > 0 ? x : alpha (exp(x / alpha) - 1), alpha > 0
Tensor selu(const Tensor& x);                             // 1.0507.. * elu(x, 1.6732..); Klambauer et al. 2017
Tensor relu6(const Tensor& x);                            // min(max(x, 0), 6)
Tensor hard_tanh(const Tensor& x, double low = -1, double high = 1);  // min(max(x, low), high)
Tensor hard_sigmoid(const Tensor& x);                                 // relu6(x + 3) / 6
Tensor hard_swish(const Tensor& x);                                   // x * hard_sigmoid(x)
Tensor hard_shrink(const Tensor& x, double lambda = 0.5);             // |x| > lambda ? x : 0
Tensor soft_shrink(const Tensor& x, double lambda = 0.5);             // sign(x) max(|x| - lambda, 0)
Tensor tanh_shrink(const Tensor& x);                                  // x - tanh(x)
// Gated linear units: x = [a, b] along `axis`, whose size must be even; the result is a * f(b). Dauphin et al. 2017,
// Shazeer 2020.
Tensor glu(const Tensor& x, int axis = -1);     // f = sigmoid
Tensor geglu(const Tensor& x, int axis = -1);   // f = gelu
Tensor swiglu(const Tensor& x, int axis = -1);  // f = silu
Tensor reglu(const Tensor& x, int axis = -1);   // f = relu

// ---- losses: reduced to a scalar by the mean unless said otherwise ----------------------------------------------
// What a loss becomes: the mean or sum over its elements, or all of them.
enum class Reduction { mean, sum, none };
Tensor squared_error(const Tensor& y, const Tensor& target, Reduction r = Reduction::mean);  // (y - t)^2
Tensor half_squared_error(const Tensor& y, const Tensor& target,
                          Reduction r = Reduction::mean);  // 1/2 |y - t|^2 summed over all but axis 0
Tensor l1_loss(const Tensor& y, const Tensor& target, Reduction r = Reduction::mean);  // the mean of |y - t|
// e^2 / 2 for |e| <= delta, else delta (|e| - delta / 2); Huber 1964.
Tensor huber_loss(const Tensor& y, const Tensor& target, double delta = 1, Reduction r = Reduction::mean);
// What cross_entropy() alters.
struct CrossEntropyOptions {
  double label_smoothing = 0;             // targets become (1 - s) p + s / classes
  Tensor class_weights = {};              // [classes]; the mean is weighted, as PyTorch's
  Reduction reduction = Reduction::mean;  // over rows
};
// -sum(p * log_softmax(logits)), for logits [.., classes] and a target of integer ids [..] or probabilities
// [.., classes]. An id outside [0, classes) gives NaN; when the ids are an argument of a compiled step, Error(value)
// before it runs.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});
// target in [0, 1], same shape. max(z, 0) - z t + log1p(exp(-|z|)).
Tensor binary_cross_entropy(const Tensor& logits, const Tensor& target, Reduction r = Reduction::mean);
// sum p (log p - log q) over the last axis, from log-probabilities log_q; p = 0 contributes 0. Mean over the rest.
Tensor kl_divergence(const Tensor& log_q, const Tensor& p, Reduction r = Reduction::mean);

// ---- the user's own operation -----------------------------------------------------------------------------------
// Plain C++ over row-major memory. `forward` fills out[] from in[]; `vjp` builds the inputs' cotangents out of Tensors
// (so it can be differentiated again); without it a gradient throws Error(gradient).
struct CustomOp {
  std::string name;                                               // for messages
  std::function<std::vector<Type>(std::span<const Type>)> infer;  // types of the outputs from those of the inputs
  // The values of the outputs.
  std::function<void(std::span<const void* const> in, std::span<void* const> out, std::span<const Type> in_types)>
      forward;
  // A cotangent for each input.
  std::function<std::vector<Tensor>(std::span<const Tensor> in, std::span<const Tensor> out,
                                    std::span<const Tensor> cotangent)>
      vjp;
};
// Applies it; as many outputs as `infer` tells.
std::vector<Tensor> custom_op(std::shared_ptr<const CustomOp> op, const std::vector<Tensor>& inputs);

}  // namespace bp

// The operations on Tensors. Every one is differentiable unless it says otherwise; gradients are graphs of the same
// operations.
//
// Broadcasting is NumPy's: shapes are aligned at the right, sizes must be equal or 1.
// Promotion: operands meet in promote(a, b) (bp/dtype.h). A C++ number is weak: it takes the tensor's dtype, except
// that a fractional number meeting integers gives f32 and a whole one that they cannot hold gives i64. Division, pow,
// exp and the like turn integers and booleans into f32. Integers wrap; bool + bool is or, bool * bool is and. Axes may
// be negative. Shape errors throw Error(shape), dtype errors Error(dtype), naming the op and the layer.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "bp/rng.h"
#include "bp/tensor.h"

namespace bp {

using Axes = std::vector<int>;

// ---- constants --------------------------------------------------------------------------------------------------
Tensor full(const Shape& shape, double value, DType dtype = f32);
Tensor zeros(const Shape& shape, DType dtype = f32);
Tensor ones(const Shape& shape, DType dtype = f32);
Tensor scalar(double value, DType dtype = f32);
Tensor zeros_like(const Tensor& x);
Tensor ones_like(const Tensor& x);
Tensor iota(const Shape& shape, int axis, DType dtype = i64);  // out[..., i, ...] = i along `axis`
Tensor arange(std::int64_t n, DType dtype = i64);

// ---- random numbers: Philox4x32-10 on (seed, counter, place) -------------------------------------------------------
// `state` is i64[2] = (seed, counter). `place` tells draws of the same state apart. Equal arguments give equal numbers,
// on every thread count. Not differentiable by `state`.
Tensor random_bits(const Tensor& state, const Shape& shape, int width,
                   std::uint64_t place = 0);  // i32 in [0, 2^width), width <= 31
Tensor random_uniform(const Tensor& state, const Shape& shape, DType dtype = f32,
                      std::uint64_t place = 0);  // [0, 1), 24 bits
Tensor random_normal(const Tensor& state, const Shape& shape, DType dtype = f32,
                     std::uint64_t place = 0);  // Box-Muller
Tensor random_bernoulli(const Tensor& state, const Shape& shape, double p,
                        std::uint64_t place = 0);  // bool, true with probability p
Tensor random_state(Key key);                      // the i64[2] for a key, counter 0

// ---- elementwise, one operand --------------------------------------------------------------------------------------
Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);   // gradient at 0: 0
Tensor sign(const Tensor& x);  // zero gradient
Tensor exp(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);       // 1 / sqrt(x)
Tensor reciprocal(const Tensor& x);  // 1 / x
Tensor square(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);  // 1 / (1 + exp(-x)), without overflow
Tensor erf(const Tensor& x);
Tensor floor(const Tensor& x);  // floor, ceil, round: zero gradient; round goes to even
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);
Tensor isfinite(const Tensor& x);  // bool
Tensor logical_not(const Tensor& x);
Tensor relu(const Tensor& x);               // max(x, 0); gradient at 0: 0; NaN stays NaN
Tensor cast(const Tensor& x, DType dtype);  // float to integer truncates and saturates; to bool: != 0
Tensor stop_gradient(const Tensor& x);      // x, with a gradient of zero

// ---- elementwise, two operands -------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);  // of integers: f32
Tensor pow(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& a, double b);
Tensor maximum(const Tensor& a, const Tensor& b);  // NaN propagates; where equal the gradient is halved
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor remainder(const Tensor& a, const Tensor& b);  // a - b * floor(a / b): the sign of b, as NumPy's %
Tensor equal(const Tensor& a, const Tensor& b);      // comparisons give bool
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
// condition ? a : b, elementwise; all three broadcast. No NaN leaks from the side not taken, in the value or the
// gradient's mask.
Tensor select(const Tensor& condition, const Tensor& a, const Tensor& b);
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
inline Tensor operator-(const Tensor& x) { return neg(x); }
inline Tensor& operator+=(Tensor& a, const Tensor& b) { return a = add(a, b); }
inline Tensor& operator-=(Tensor& a, const Tensor& b) { return a = sub(a, b); }
inline Tensor& operator*=(Tensor& a, const Tensor& b) { return a = mul(a, b); }
inline Tensor maximum(const Tensor& a, double b) { return maximum(a, weak_scalar(b, a)); }
inline Tensor minimum(const Tensor& a, double b) { return minimum(a, weak_scalar(b, a)); }
inline Tensor equal(const Tensor& a, double b) { return equal(a, weak_scalar(b, a)); }

// ---- shape
// -----------------------------------------------------------------------------------------------------------
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> dims);  // one dim may be -1
Tensor flatten(const Tensor& x, int from_axis = 1);                         // [N, a, b, c] -> [N, a*b*c]
Tensor squeeze(const Tensor& x, int axis);
Tensor unsqueeze(const Tensor& x, int axis);
Tensor transpose(const Tensor& x, const Axes& permutation);  // out.shape[i] = x.shape[permutation[i]]
Tensor transpose(const Tensor& x);                           // swaps the last two axes
Tensor broadcast_to(const Tensor& x, const Shape& shape);
Tensor slice(const Tensor& x, const Axes& axes, const std::vector<std::int64_t>& start,
             const std::vector<std::int64_t>& stop,
             const std::vector<std::int64_t>& step =
                 {});  // NumPy's x[start:stop:step], step >= 1; negative indices count from the end
Tensor slice(const Tensor& x, int axis, std::int64_t start, std::int64_t stop, std::int64_t step = 1);
Tensor pad(const Tensor& x, const std::vector<std::int64_t>& low, const std::vector<std::int64_t>& high,
           double value = 0,
           const std::vector<std::int64_t>& interior = {});  // one entry an axis; interior: elements between neighbours
Tensor concatenate(const std::vector<Tensor>& parts, int axis);
Tensor stack(const std::vector<Tensor>& parts, int axis);
std::vector<Tensor> split(const Tensor& x, int parts, int axis);
Tensor tile(const Tensor& x, const std::vector<std::int64_t>& repeats);
Tensor reverse(const Tensor& x, const Axes& axes);

// ---- reductions: `axes` empty means all; keep leaves size-1 dimensions
// -------------------------------------------------
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep = false);  // integers and booleans accumulate in i64
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keep = false);
Tensor var(const Tensor& x, const Axes& axes = {}, bool keep = false, int correction = 0);  // two-pass
Tensor max(const Tensor& x, const Axes& axes = {},
           bool keep = false);  // ties share the gradient equally; NaN propagates
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep = false);
Tensor prod(const Tensor& x, const Axes& axes = {}, bool keep = false);  // gradient right also where elements are 0
Tensor argmax(const Tensor& x, int axis = -1);  // i64; the first among equals; not differentiable
Tensor argmin(const Tensor& x, int axis = -1);
Tensor cumsum(const Tensor& x, int axis, bool reversed = false);
Tensor norm(const Tensor& x, const Axes& axes = {}, bool keep = false);  // Euclidean; gradient at 0 is 0
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keep = false);
// Ascending (or descending) along `axis`, stable: values and their i64 positions. NaN counts as largest.
std::pair<Tensor, Tensor> sort(const Tensor& x, int axis = -1, bool descending = false);
std::pair<Tensor, Tensor> top_k(const Tensor& x, int k, int axis = -1);  // the k largest, largest first

// ---- products
// --------------------------------------------------------------------------------------------------------
// [.., m, k] x [.., k, n] -> [.., m, n]; leading dimensions broadcast. transpose_a: a is [.., k, m]; transpose_b: b is
// [.., n, k]. Rank-1 operands as in NumPy: [k] is a row on the left and a column on the right, and that dimension
// vanishes.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false);
Tensor einsum(const char* equation,
              const std::vector<Tensor>& operands);  // "bij,bjk->bik"; no repeated index in one operand

// ---- convolution and pooling: channels last
// ---------------------------------------------------------------------------- One entry a spatial dimension; a single
// entry counts for all.
struct ConvOptions {
  std::vector<std::int64_t> stride = {1};
  std::vector<std::int64_t> padding = {0};      // both sides
  std::vector<std::int64_t> padding_high = {};  // when not empty: the padding behind, `padding` being the one before
  bool same = false;  // output size = ceil(input / stride), the odd element of padding behind (as TensorFlow and JAX)
  std::vector<std::int64_t> dilation = {1};
  std::int64_t groups = 1;
};
// Cross-correlation (as in every deep-learning library): x [N, s1.., C] * w [k1.., C / groups, O] -> [N, o1.., O],
// o = floor((s + low + high - dilation * (k - 1) - 1) / stride) + 1. One to three spatial dimensions.
Tensor conv(const Tensor& x, const Tensor& w, const ConvOptions& options = {});
// The transpose of conv (its gradient by x): y [N, o1.., O], w [k1.., C / groups, O] -> [N, s1.., C] with s1.. =
// `spatial`.
Tensor conv_transpose(const Tensor& y, const Tensor& w, const std::vector<std::int64_t>& spatial,
                      const ConvOptions& options = {});

struct PoolOptions {
  std::vector<std::int64_t> window = {2};
  std::vector<std::int64_t> stride = {};  // empty: the window
  std::vector<std::int64_t> padding = {0};
  std::vector<std::int64_t> dilation = {1};  // max_pool only
  bool count_include_pad = true;             // avg_pool only: whether padding counts in the divisor
};
Tensor max_pool(const Tensor& x,
                const PoolOptions& options);  // x [N, s1.., C]; padding is -inf; the first maximum takes the gradient
Tensor avg_pool(const Tensor& x, const PoolOptions& options);
inline Tensor max_pool(const Tensor& x, std::int64_t window) { return max_pool(x, PoolOptions{.window = {window}}); }
inline Tensor avg_pool(const Tensor& x, std::int64_t window) { return avg_pool(x, PoolOptions{.window = {window}}); }
// Pools to given spatial sizes, x [N, s1.., C] -> [N, o1.., C]: window i of a dimension spans
// [floor(i s / o), ceil((i + 1) s / o)), as PyTorch's. Throws Error(shape) for a dimension of x without elements.
Tensor adaptive_max_pool(const Tensor& x, const std::vector<std::int64_t>& sizes);
Tensor adaptive_avg_pool(const Tensor& x, const std::vector<std::int64_t>& sizes);

// ---- indexing
// ---------------------------------------------------------------------------------------------------------- Indices
// are i32 or i64 in [0, n). Out of range: gather and take_along give NaN (0 for integers), scatters ignore the entry.
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

// ---- compositions with stable formulas
// ---------------------------------------------------------------------------------
Tensor softmax(const Tensor& x, int axis = -1);
Tensor log_softmax(const Tensor& x, int axis = -1);
Tensor clip(const Tensor& x, double low, double high);

// ---- activations: compositions, with PyTorch's formulas; at a kink the gradient is PyTorch's too
// -------------------------------------------------------------------------------------------------------
Tensor softplus(const Tensor& x);     // log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
Tensor log_sigmoid(const Tensor& x);  // -softplus(-x)
Tensor gelu(const Tensor& x);         // x * Phi(x), by erf
Tensor gelu_tanh(const Tensor& x);    // Hendrycks and Gimpel 2016, the tanh approximation
Tensor silu(const Tensor& x);         // x * sigmoid(x)
Tensor mish(const Tensor& x);         // x * tanh(softplus(x)); Misra 2019
Tensor softsign(const Tensor& x);     // x / (1 + |x|)
Tensor leaky_relu(const Tensor& x, double slope = 0.01);
Tensor prelu(const Tensor& x, const Tensor& slope);  // x > 0 ? x : slope * x; slope broadcasts: [], [1] or [C]
Tensor elu(const Tensor& x, double alpha = 1);       // x > 0 ? x : alpha (exp(x) - 1)
Tensor celu(const Tensor& x, double alpha = 1);      // x > 0 ? x : alpha (exp(x / alpha) - 1), alpha > 0
Tensor selu(const Tensor& x);                        // 1.0507.. * elu(x, 1.6732..); Klambauer et al. 2017
Tensor relu6(const Tensor& x);                       // min(max(x, 0), 6)
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

// ---- losses: reduced to a scalar by the mean unless said otherwise
// -------------------------------------------------------
enum class Reduction { mean, sum, none };
Tensor squared_error(const Tensor& y, const Tensor& target, Reduction r = Reduction::mean);  // (y - t)^2
Tensor half_squared_error(const Tensor& y, const Tensor& target,
                          Reduction r = Reduction::mean);  // 1/2 |y - t|^2 summed over all but axis 0
Tensor l1_loss(const Tensor& y, const Tensor& target, Reduction r = Reduction::mean);
Tensor huber_loss(const Tensor& y, const Tensor& target, double delta = 1, Reduction r = Reduction::mean);
struct CrossEntropyOptions {
  double label_smoothing = 0;
  Tensor class_weights = {};  // [classes]; the mean is weighted, as PyTorch's
  Reduction reduction = Reduction::mean;
};
// An id outside [0, classes) gives NaN; when the ids are an argument of a compiled step, Error(value) before it runs.
// logits [.., classes]; target: integer ids [..] or probabilities [.., classes]. -sum(p * log_softmax(logits)).
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});
// target in [0, 1], same shape. max(z, 0) - z t + log1p(exp(-|z|)).
Tensor binary_cross_entropy(const Tensor& logits, const Tensor& target, Reduction r = Reduction::mean);
// sum p (log p - log q) over the last axis, from log-probabilities log_q; p = 0 contributes 0. Mean over the rest.
Tensor kl_divergence(const Tensor& log_q, const Tensor& p, Reduction r = Reduction::mean);

// ---- the user's own operation
// ------------------------------------------------------------------------------------------- Plain C++ over row-major
// memory. `forward` fills out[] from in[]; `vjp` builds the inputs' cotangents out of Tensors (so it can be
// differentiated again); without it a gradient throws Error(gradient).
struct CustomOp {
  std::string name;
  std::function<std::vector<Type>(std::span<const Type>)> infer;
  std::function<void(std::span<const void* const> in, std::span<void* const> out, std::span<const Type> in_types)>
      forward;
  std::function<std::vector<Tensor>(std::span<const Tensor> in, std::span<const Tensor> out,
                                    std::span<const Tensor> cotangent)>
      vjp;
};
std::vector<Tensor> custom_op(std::shared_ptr<const CustomOp> op, const std::vector<Tensor>& inputs);

}  // namespace bp

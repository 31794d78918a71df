// Gradients: reverse mode (vjp), forward mode (jvp, by two reverse walks), and what is made of them. All results are
// Tensors computed by ordinary operations, so every one can be differentiated again.
//
//   const Variable w(Tensor::from<float>({1, 2, 3}));
//   const Tensor loss = sum(w * w);
//   assert(grad(loss, w).to_vector<float>() == (std::vector<float>{2, 4, 6}));
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bp/tensor.h"
#include "bp/variable.h"

namespace bp {

// d loss / d x for each x. `loss` must be a float scalar. An x that the loss does not depend on gets zeros; one that it
// depends on only through operations without a gradient (argmax, comparisons) is an Error(gradient) naming the
// operation and its layer. A Variable stands for its current value.
std::vector<Tensor> grad(const Tensor& loss, std::span<const Tensor> xs);
std::vector<Tensor> grad(const Tensor& loss, std::span<const Variable> xs);
Tensor grad(const Tensor& loss, const Tensor& x);
Tensor grad(const Tensor& loss, const Variable& x);
inline std::vector<Tensor> grad(const Tensor& loss, const std::vector<Tensor>& xs) {
  return grad(loss, std::span<const Tensor>(xs));
}
inline std::vector<Tensor> grad(const Tensor& loss, const std::vector<Variable>& xs) {
  return grad(loss, std::span<const Variable>(xs));
}

using Function = std::function<std::vector<Tensor>(std::span<const Tensor>)>;  // any number in, any number out

// sum_k cotangents[k]^T d ys[k] / d xs[i], for values already computed.
std::vector<Tensor> vjp(std::span<const Tensor> ys, std::span<const Tensor> xs, std::span<const Tensor> cotangents);

// A scalar and its gradients.
struct ValueAndGrad {
  Tensor value;               // f(xs)
  std::vector<Tensor> grads;  // one for each of xs
};
// f(xs) and its gradients by xs, in one walk. Throws as grad().
ValueAndGrad value_and_grad(const std::function<Tensor(std::span<const Tensor>)>& f, std::span<const Tensor> xs);
// Directional derivative: (f(x), J v). The double-VJP: J v = d/du (J^T u . v).
std::pair<std::vector<Tensor>, std::vector<Tensor>> jvp(const Function& f, std::span<const Tensor> xs,
                                                        std::span<const Tensor> vs);
// H v for a scalar f: the gradient of (grad f . v).
std::vector<Tensor> hvp(const std::function<Tensor(std::span<const Tensor>)>& f, std::span<const Tensor> xs,
                        std::span<const Tensor> vs);
// d f(x)[i] / d x[j]: shape f(x).shape + x.shape. One reverse walk an output element.
Tensor jacobian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x);
Tensor hessian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x);  // f scalar: x.shape + x.shape

// f with a gradient of the user's: backward(inputs, outputs, cotangents) returns the inputs' cotangents.
using Backward =
    std::function<std::vector<Tensor>(std::span<const Tensor>, std::span<const Tensor>, std::span<const Tensor>)>;
// Records f(xs) with `backward` as its gradient. Throws Error(shape) when the gradient is asked for and a cotangent
// does not fit its input.
std::vector<Tensor> custom_vjp(const Function& f, const Backward& backward, std::span<const Tensor> xs);

// ---- the yardstick: finite differences --------------------------------------------------------------------------
// How gradcheck() measures, and what it lets pass.
struct GradcheckOptions {
  double eps = 1e-6;          // step of the central difference (f(x + eps) - f(x - eps)) / 2 eps, scaled by max(1, |x|)
  double rtol = 1e-5;         // |analytic - numeric| <= atol + rtol * max(|analytic|, |numeric|)
  double atol = 1e-7;         // for gradients near zero
  bool second_order = false;  // also checks the gradient of a random projection of the gradient
  std::uint64_t seed = 0;     // of the projection
};
// The worst element that gradcheck() met.
struct GradcheckResult {
  bool ok = true;                    // every element within the tolerance
  double worst = 0;                  // largest |a - n| / (atol + rtol max(|a|, |n|))
  int input = -1;                    // where it was
  std::int64_t element = -1;         // which of its elements
  int order = 1;                     // 2: in the gradient of the gradient
  double analytic = 0, numeric = 0;  // both derivatives there
  std::string str() const;           // "input 0, element 17: analytic 1.25, numeric 2.5 (...)"
};
// Compares the reverse-mode gradient of a fixed random projection of f's outputs with central differences, element by
// element. Inputs and floating outputs must be f64 (throws Error(dtype): f32 differences prove nothing); integer inputs
// are passed through, inputs without elements agree. NaN or infinity on either side is a failure.
GradcheckResult gradcheck(const Function& f, const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});
GradcheckResult gradcheck(const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
                          const GradcheckOptions& options = {});

}  // namespace bp

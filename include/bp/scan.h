// Loops and branches inside a graph. A loop over time is one operation whose body is recorded once: compile time and
// the size of the graph do not grow with the number of iterations, and gradients of any order pass through it.
//
//   const auto body = [](std::span<const Tensor> x, std::span<const Tensor> u) -> Scanned {
//     const Tensor next = 0.5 * x[0] + u[0];
//     return {{next}, {next}};
//   };
//   const Scanned all = scan(body, {scalar(0)}, {ones({3})});
//   assert(all.ys[0].to_vector<float>() == (std::vector<float>{1, 1.5, 1.75}));
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "bp/grad.h"
#include "bp/tensor.h"

namespace bp {

// What one iteration returns, and what the whole loop returns: carries, then outputs.
struct Scanned {
  std::vector<Tensor> carry;  // of the next iteration
  std::vector<Tensor> ys;     // stacked by the loop
};

// One iteration: the carries and the slices of this iteration (the xs without axis 0) to new carries and outputs.
using ScanBody = std::function<Scanned(std::span<const Tensor> carry, std::span<const Tensor> x)>;

// How a loop runs.
struct ScanOptions {
  bool reverse = false;      // from the last slice to the first; ys stay aligned with xs
  std::int64_t length = -1;  // the number of iterations; needed when xs is empty
  // Gradient checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost"). 0: the values that the
  // gradient needs are kept for every iteration. n > 0: only the carries at every n-th iteration are kept, and each
  // segment is computed again in the backward pass. kSqrt: segments of about sqrt(length).
  std::int64_t segment = 0;
  static constexpr std::int64_t kSqrt = -1;  // for `segment`
};

// carry = init; for i in 0 .. length - 1: (carry, y[i]) = body(carry, xs[i]). Returns the last carries and the stacked
// y [length, ..]. xs: tensors [length, ..]. Zero iterations return init and empty ys.
//
// The body is called once, with symbols: reading a value in it throws Error(trace) (use select), and so does assigning
// a Variable a value of the body (carry it out and assign it after). Values from outside (parameters, masks) are simply
// used; random draws differ from iteration to iteration. Carries must keep their types: Error(shape / dtype).
//
// What the engine does by itself: products of slices with values from outside (x W) leave the loop and become one large
// product, and so do sums of products over the iterations (the gradients of weights).
Scanned scan(const ScanBody& body, const std::vector<Tensor>& init, const std::vector<Tensor>& xs,
             const ScanOptions& options = {});

// predicate (one boolean) ? then(operands) : otherwise(operands). Only the branch taken computes what depends on the
// operands; both are recorded and must return the same types. The gradient takes the same branch. For elementwise
// choices use select.
std::vector<Tensor> cond(const Tensor& predicate, const Function& then, const Function& otherwise,
                         const std::vector<Tensor>& operands);

}  // namespace bp

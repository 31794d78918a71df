// OpDef: what the engine knows of an op. One definition an op, in src/ops; the table is made from ops.def.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bp/tensor.h"
#include "ir/attrs.h"

namespace bp::ir {

enum class OpId : std::uint8_t {
#define BP_OP(name) name,
#include "ir/ops.def"
#undef BP_OP
  count
};

// How an op moves through the passes.
enum class OpClass : std::uint8_t {
  leaf,         // no inputs: input, full, iota (random_bits reads its key, yet has no shape to follow: leaf too)
  elementwise,  // out[i] = f(in0[i], in1[i], ...); all shapes equal
  view,         // same memory, other shape (reshape)
  movement,     // broadcast, transpose, slice, pad, concatenate, reverse
  reduction,    // reduce_*: attrs "axes" (sorted Ints); the reduced dimensions vanish
  product,      // matmul and convolutions
  other,        // everything else: its own kernel
};

enum OpFlags : std::uint32_t {
  kNone = 0,
  kCommutative = 1,
  kZeroGradient = 2,       // piecewise constant: the gradient is zero almost everywhere (floor, sign)
  kNotDifferentiable = 4,  // asking for a gradient through it is an Error(gradient)
  kImpure = 8,             // never folded or merged (custom ops)
};

// A row-major block of memory with its type: what reference kernels read and write.
struct View {
  void* data = nullptr;
  Type type;
  template <class T> T* as() const noexcept { return static_cast<T*>(data); }
};

struct InferArgs {
  std::span<const Type> in;
  const Attrs& attrs;
};

// A vector-Jacobian product: given the cotangents of the outputs, those of the inputs, written with the ops of
// bp/ops.h.
struct VjpArgs {
  std::span<const Tensor> in;
  std::span<const Tensor> out;
  std::span<const Tensor> cotangent;  // one an output; undefined where nothing flows back
  const Attrs& attrs;
  std::span<const bool> needed;  // one an input: whether its cotangent is used; others may stay undefined
  const Tensor& d() const { return cotangent[0]; }
};

struct KernelArgs {
  std::span<const View> in;
  std::span<const View> out;
  const Attrs& attrs;
};

struct OpDef {
  const char* name;
  OpClass cls;
  std::uint32_t flags;
  std::vector<Type> (*infer)(const InferArgs&);  // the type rule; throws Error
  std::vector<Tensor> (*vjp)(const VjpArgs&);    // one cotangent an input (undefined = none); null: see flags
  void (*reference)(const KernelArgs&);          // the scalar kernel: every dtype the type rule accepts
  double (*flops)(std::span<const Type> in, std::span<const Type> out,
                  const Attrs&) = nullptr;  // null: one an output element
  const char* doc = "";                     // one line for docs/ops.md: formula and shapes
};

const OpDef& op_def(OpId id) noexcept;
inline const char* name_of(OpId id) noexcept { return op_def(id).name; }

#define BP_OP(name) extern const OpDef op_##name;
#include "ir/ops.def"
#undef BP_OP

}  // namespace bp::ir

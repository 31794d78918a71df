// Products to steps: matmul and the three convolutions, with their epilogues. Chooses among oneDNN, our own products
// and the scalar kernel, and plans the packing of weights as steps of their own.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "cpu/dnnl/conv.h"
#include "cpu/dnnl/matmul.h"
#include "cpu/kernels/block_product.h"
#include "cpu/kernels/conv_direct.h"
#include "cpu/kernels/im2col.h"
#include "cpu/kernels/loop_tiles.h"
#include "cpu/kernels/matmul.h"
#include "cpu/kernels/packed_product.h"
#include "cpu/kernels/share.h"
#include "cpu/lower/lowering.h"
#include "passes/epilogue.h"

namespace bp::cpu {

namespace {

using ir::Attrs;
using ir::OpId;
using passes::ProductChain;

// f32, a matrix of a batch: below this our own product is done first (Zen 3, with bias and relu: 16x16x16 0.85 us
// against 1.95, 64x64x64 6.9 against 9.9, 96x96x96 20 against 27, 128x128x128 52 against 53; a batch of 128x128x32 at
// 75 GFLOP/s against 54). Fewer columns than a vector are the exception: 64x10x256 takes 23 us against 15.
constexpr double kOwnFlops = 2.0 * 96 * 96 * 96;
// A long sum in one chain of f32 additions loses digits; our own product adds up blocks of the sum. The gradient norms
// of the mlp case stray 4.2e-8 from f64 with its 64x256x512 done by us, 8.7e-8 by oneDNN, for 0.1 ms of a 1.7 ms step.
constexpr std::int64_t kLongSum = 512;
constexpr double kOwnLongFlops = 2.0 * 64 * 256 * 512;
constexpr std::int64_t kNarrow = 16;
constexpr double kOwnNarrowFlops = 2.0 * 32 * 32 * 32;
// f32 of many columns in machine code (Zen 4, two threads, operands from memory): 256x1024x2048 of transposed A at 208
// GFLOP/s for oneDNN's 195, 2048x1024x256 at 220 for 214, 2048x768x192 at 216 for 206, 784x512x64 at 200 for 172; from
// the second cache 64x512x784 at 217 for 180. With fewer columns A is not walked often enough to pay for its way:
// 2048x192x768 at 210 for 217.
constexpr std::int64_t kWide = 512, kWideRows = 56;
// f32 of few rows and a B that a loop reads so often is packed for machine code (Zen 4, one thread, us with the
// residual in memory, as in an LSTM): 16x1024x256 77 for oneDNN's 86, 16x512x128 20 for 24, 16x64x64 1.2 for 1.6,
// 4x128x32 0.3 for 0.7; without a residual 16x1024x256 73 for 74, 16x256x1024 75 for 75.
constexpr std::int64_t kManyRuns = 4;

// ---- kernels ----

// args: first, second, [bias], [residual], then what is written.
struct Arguments {
  bool bias = false, residual = false;
  std::size_t bias_at() const { return 2; }
  std::size_t residual_at() const { return bias ? 3 : 2; }
  std::size_t out_at() const { return 2 + (bias ? 1u : 0u) + (residual ? 1u : 0u); }
};

class DnnlMatmulKernel final : public Kernel {
 public:
  DnnlMatmulKernel(std::shared_ptr<const DnnlMatmul> product, Arguments arguments)
      : product_(std::move(product)), at_(arguments) {}
  void run(void* const* args, void* workspace, int) const override {
    DnnlMatmul::Args a;
    a.a = args[0];
    a.b = args[1];
    if (at_.bias) a.bias = static_cast<const float*>(args[at_.bias_at()]);
    if (at_.residual) a.residual = args[at_.residual_at()];
    a.c = args[at_.out_at()];
    a.scratchpad = workspace;
    product_->run(a);
  }
  std::size_t workspace_bytes(int) const override { return product_->scratchpad_bytes(); }
  int preferred_threads() const override { return product_->threads(); }

 private:
  std::shared_ptr<const DnnlMatmul> product_;
  Arguments at_;
};

// args: weights, packed weights; or packed gradient, gradient.
template <class Product> class PackKernel final : public Kernel {
 public:
  PackKernel(std::shared_ptr<const Product> product, int threads) : product_(std::move(product)), threads_(threads) {}
  void run(void* const* args, void*, int) const override { product_->run_pack(args[0], args[1]); }
  int preferred_threads() const override { return threads_; }

 private:
  std::shared_ptr<const Product> product_;
  int threads_;
};

// Our own product for each matrix of a batch.
class OwnMatmulKernel final : public Kernel {
 public:
  struct Offsets {  // of a matrix, in bytes
    std::size_t a, b, c;
  };
  OwnMatmulKernel(const MatmulSpec& spec, std::vector<Offsets> batch, Arguments arguments)
      : product_(spec), batch_(std::move(batch)), at_(arguments) {}

  void run(void* const* args, void* workspace, int threads) const override {
    if (batch_.size() == 1) return run_one(args, batch_[0], workspace, threads);
    const std::size_t each = workspace_one();
    share(static_cast<std::int64_t>(batch_.size()), threads, [&](std::int64_t begin, std::int64_t end) {
      void* mine =
          static_cast<char*>(workspace) + each * static_cast<std::size_t>(threads > 1 ? omp_get_thread_num() : 0);
      for (std::int64_t i = begin; i < end; ++i) run_one(args, batch_[static_cast<std::size_t>(i)], mine, 1);
    });
  }
  std::size_t workspace_bytes(int threads) const override {
    return batch_.size() == 1 ? product_.workspace_bytes(threads) : workspace_one() * static_cast<std::size_t>(threads);
  }
  int preferred_threads() const override {
    constexpr int kMany = 1024;
    if (batch_.size() == 1) return product_.useful_threads(kMany);
    constexpr double kFlopsPerThread = 2e5;
    const MatmulSpec& s = product_.spec();
    const double flops = 2.0 * static_cast<double>(batch_.size()) * static_cast<double>(s.m) *
                         static_cast<double>(s.n) * static_cast<double>(s.k);
    return static_cast<int>(
        std::clamp(flops / kFlopsPerThread, 1.0, std::min(1024.0, static_cast<double>(batch_.size()))));
  }

 private:
  std::size_t workspace_one() const { return (product_.workspace_bytes(1) + 63) / 64 * 64; }
  void run_one(void* const* args, const Offsets& o, void* workspace, int threads) const {
    const auto at = [&](std::size_t i, std::size_t offset) { return static_cast<char*>(args[i]) + offset; };
    product_.run(at(0, o.a), at(1, o.b), at_.bias ? args[at_.bias_at()] : nullptr,
                 at_.residual ? at(at_.residual_at(), o.c) : nullptr, at(at_.out_at(), o.c), workspace, threads);
  }

  MatmulKernel product_;
  std::vector<Offsets> batch_;
  Arguments at_;
};

// A product with a B that a step before has packed.
class PackedProductKernel final : public Kernel {
 public:
  PackedProductKernel(std::shared_ptr<const PackedProduct> product, Arguments arguments)
      : product_(std::move(product)), at_(arguments) {}
  void run(void* const* args, void* workspace, int threads) const override {
    const auto read = [&](bool has, std::size_t i) { return has ? static_cast<const float*>(args[i]) : nullptr; };
    product_->run({read(true, 0), read(true, 1), read(at_.bias, at_.bias_at()), read(at_.residual, at_.residual_at()),
                   static_cast<float*>(args[at_.out_at()])},
                  workspace, threads);
  }
  std::size_t workspace_bytes(int threads) const override {
    return product_->thread_bytes() * static_cast<std::size_t>(threads);
  }
  int preferred_threads() const override { return product_->useful_threads(); }

 private:
  std::shared_ptr<const PackedProduct> product_;
  Arguments at_;
};

class DnnlConvKernel final : public Kernel {
 public:
  DnnlConvKernel(std::shared_ptr<const DnnlConv> conv, ConvKind kind, Arguments arguments)
      : conv_(std::move(conv)), kind_(kind), at_(arguments) {}
  void run(void* const* args, void* workspace, int) const override {
    DnnlConv::Args a;
    a.x = args[0];
    a.dy = args[kind_ == ConvKind::weight_grad ? 1 : 0];
    a.w = args[1];
    if (at_.bias) a.bias = static_cast<const float*>(args[at_.bias_at()]);
    if (at_.residual) a.residual = args[at_.residual_at()];
    a.out = args[at_.out_at()];
    a.scratchpad = workspace;
    conv_->run(a);
  }
  std::size_t workspace_bytes(int) const override { return conv_->scratchpad_bytes(); }
  int preferred_threads() const override { return conv_->threads(); }

 private:
  std::shared_ptr<const DnnlConv> conv_;
  ConvKind kind_;
  Arguments at_;
};

// Our own convolutions: DirectConv, Im2colConv.
template <class Conv> class OwnConvKernel final : public Kernel {
 public:
  OwnConvKernel(const ConvSpec& spec, ConvKind kind, Arguments arguments) : conv_(spec, kind), at_(arguments) {}
  void run(void* const* args, void* workspace, int threads) const override {
    conv_.run(args[0], args[1], at_.bias ? args[at_.bias_at()] : nullptr,
              at_.residual ? args[at_.residual_at()] : nullptr, args[at_.out_at()], workspace, threads);
  }
  std::size_t workspace_bytes(int threads) const override { return conv_.workspace_bytes(threads); }
  int preferred_threads() const override { return conv_.preferred_threads(); }

 private:
  Conv conv_;
  Arguments at_;
};

// args: from, to.
class ConvertKernel final : public Kernel {
 public:
  ConvertKernel(std::int64_t count, bool widen)
      : count_(count),
        from_(widen ? bf16 : f32),
        to_(widen ? f32 : bf16),
        convert_(widen ? load_converter(bf16, f32) : store_converter(f32, bf16)) {}
  void run(void* const* args, void*, int threads) const override {
    share(count_, threads, [&](std::int64_t begin, std::int64_t end) {
      convert_(static_cast<char*>(args[1]) + static_cast<std::size_t>(begin) * size_of(to_),
               static_cast<const char*>(args[0]) + static_cast<std::size_t>(begin) * size_of(from_),
               static_cast<std::size_t>(end - begin));
    });
  }
  int preferred_threads() const override { return static_cast<int>(std::clamp<std::int64_t>(count_ / 16384, 1, 1024)); }

 private:
  std::int64_t count_;
  DType from_, to_;
  ConvertFn convert_;
};

void emit_convert(Lowering& l, ir::NodeId node, std::int64_t count, bool widen, BufferId from, BufferId to) {
  StepInfo info = l.info_of(node);
  info.name = widen ? "bf16 to f32" : "f32 to bf16";
  info.flops = 0;
  l.emit(std::make_unique<ConvertKernel>(count, widen), {from}, {to}, std::move(info));
}

// ---- what a product reads and writes ----

Arguments arguments_of(const ProductChain& c) { return {c.has_bias, c.has_residual}; }

std::string epilogue_name(const ProductChain& c) {
  std::string out;
  if (c.has_bias) out += " + bias";
  if (c.has_residual) out += " + residual";
  if (c.activation != OpId::input) out += fmt::format(", {}", ir::name_of(c.activation));
  return out;
}

// Where the two factors and the result lie, and their dtypes: of the graph, or widened copies.
struct Operands {
  BufferId first, second, out;
  DType dtype, result;
};

Operands operands_of(Lowering& l, const ProductChain& c) {
  const ir::Node& n = l.graph().nodes[c.product];
  return {l.buffer(n.inputs[0]), l.buffer(n.inputs[1]), l.buffer(c.result), l.graph().type(n.inputs[0]).dtype,
          n.types[0].dtype};
}

// First, second, bias, residual.
std::vector<BufferId> reads_of(Lowering& l, const ProductChain& c, const Operands& o) {
  std::vector<BufferId> reads{o.first, o.second};
  if (c.has_bias) reads.push_back(l.buffer(c.bias));
  if (c.has_residual) reads.push_back(l.buffer(c.residual));
  return reads;
}

template <class Product>
void emit_pack(Lowering& l, const std::shared_ptr<const Product>& product, ir::NodeId node, BufferId from, BufferId to,
               const char* name, int threads) {
  StepInfo info = l.info_of(node);
  info.name = name;
  info.flops = 0;
  l.emit(std::make_unique<PackKernel<Product>>(product, threads), {from}, {to}, std::move(info));
}

// ---- matmul ----

struct MatmulDims {
  std::vector<std::int64_t> batch;
  std::vector<std::int64_t> batch_a, batch_b;  // strides in matrices; 0 repeats
  std::int64_t m = 0, n = 0, k = 0;
  bool ta = false, tb = false;
};

// Strides, in matrices, of an operand's leading dimensions within those of the output.
std::vector<std::int64_t> batch_strides(const Shape& operand, const Shape& out) {
  std::vector<std::int64_t> strides(static_cast<std::size_t>(out.rank() - 2), 0);
  std::int64_t stride = 1;
  for (int d = operand.rank() - 3, o = out.rank() - 3; d >= 0; --d, --o) {
    if (operand[d] != 1) strides[static_cast<std::size_t>(o)] = stride;
    stride *= operand[d];
  }
  return strides;
}

MatmulDims matmul_dims(const ir::Graph& g, ir::NodeId n) {
  const ir::Node& node = g.nodes[n];
  const Shape &a = g.type(node.inputs[0]).shape, &b = g.type(node.inputs[1]).shape, &c = node.types[0].shape;
  MatmulDims d;
  d.ta = node.attrs.flag("transpose_a");
  d.tb = node.attrs.flag("transpose_b");
  d.m = c[c.rank() - 2];
  d.n = c.back();
  d.k = d.ta ? a[a.rank() - 2] : a.back();
  for (int i = 0; i < c.rank() - 2; ++i) d.batch.push_back(c[i]);
  d.batch_a = batch_strides(a, c);
  d.batch_b = batch_strides(b, c);
  return d;
}

double matmul_flops(const MatmulDims& d) {
  double flops = 2.0 * static_cast<double>(d.m) * static_cast<double>(d.n) * static_cast<double>(d.k);
  for (std::int64_t b : d.batch) flops *= static_cast<double>(b);
  return flops;
}

std::int64_t batch_count(const MatmulDims& d) {
  std::int64_t n = 1;
  for (std::int64_t b : d.batch) n *= b;
  return n;
}

MatmulSpec own_spec(const ProductChain& c, const Operands& o, const MatmulDims& d) {
  MatmulSpec s;
  s.m = d.m, s.n = d.n, s.k = d.k;
  s.transpose_a = d.ta, s.transpose_b = d.tb;
  s.bias = c.has_bias;
  s.residual = c.has_residual;
  s.dtype = o.dtype;
  if (c.activation == OpId::relu) s.activation = Activation::relu;
  if (c.activation == OpId::tanh) s.activation = Activation::tanh;
  if (c.activation == OpId::sigmoid) s.activation = Activation::sigmoid;
  return s;
}

bool lower_own_matmul(Lowering& l, const ProductChain& c, const Operands& o, const MatmulDims& d, StepInfo info) {
  const bool activated = c.activation != OpId::input;
  if (activated && c.has_residual) return false;  // our kernel adds a residual after the activation
  const MatmulSpec s = own_spec(c, o, d);
  std::vector<OwnMatmulKernel::Offsets> offsets;
  for (std::int64_t i = 0, count = batch_count(d); i < count; ++i) {
    std::int64_t a = 0, b = 0, rest = i;
    for (std::size_t j = d.batch.size(); j-- > 0; rest /= d.batch[j]) {
      a += rest % d.batch[j] * d.batch_a[j];
      b += rest % d.batch[j] * d.batch_b[j];
    }
    const auto bytes = [&](std::int64_t matrix, std::int64_t rows, std::int64_t cols) {
      return static_cast<std::size_t>(matrix * rows * cols) * size_of(s.dtype);
    };
    offsets.push_back({bytes(a, d.m, d.k), bytes(b, d.k, d.n), bytes(i, d.m, d.n)});
  }
  if (offsets.empty()) return false;
  l.emit(std::make_unique<OwnMatmulKernel>(s, std::move(offsets), arguments_of(c)), reads_of(l, c, o), {o.out},
         std::move(info));
  return true;
}

Epilogue epilogue_of(const ProductChain& c) {
  Epilogue e;
  e.bias = c.has_bias;
  e.residual = c.has_residual;
  if (c.activation == OpId::relu) e.activation = Epilogue::Activation::relu;
  if (c.activation == OpId::tanh) e.activation = Epilogue::Activation::tanh;
  if (c.activation == OpId::sigmoid) e.activation = Epilogue::Activation::sigmoid;
  return e;
}

bool lower_dnnl_matmul(Lowering& l, const ProductChain& c, Operands o, const MatmulDims& d, StepInfo info) {
  DnnlMatmulSpec s = dense_matmul(d.batch, d.m, d.n, d.k, d.ta, d.tb, o.dtype);
  s.out = o.result;
  for (std::size_t i = 0; i < d.batch.size(); ++i) {
    s.a.batch[i] = d.batch_a[i] * d.m * d.k;
    s.b.batch[i] = d.batch_b[i] * d.k * d.n;
  }
  s.epilogue = epilogue_of(c);
  s.runs_per_pack = l.runs_of(o.second);
  s.pack_threads = l.threads_of(l.lasting(o.second));
  const auto product = std::make_shared<const DnnlMatmul>(s, l.options().threads);
  if (product->pack_bytes() > 0) {
    const BufferId packed = l.temporary(product->pack_bytes());
    emit_pack<DnnlMatmul>(l, product, c.product, o.second, packed, "pack", product->pack_threads());
    o.second = packed;
  }
  l.emit(std::make_unique<DnnlMatmulKernel>(product, arguments_of(c)), reads_of(l, c, o), {o.out}, std::move(info));
  return true;
}

void lower_packed_matmul(Lowering& l, const ProductChain& c, Operands o, const MatmulDims& d, StepInfo info) {
  const auto product = std::make_shared<const PackedProduct>(own_spec(c, o, d), l.threads_of(l.lasting(o.second)));
  const BufferId packed = l.temporary(product->pack_bytes());
  emit_pack<PackedProduct>(l, product, c.product, o.second, packed, "pack", product->pack_threads());
  o.second = packed;
  l.emit(std::make_unique<PackedProductKernel>(product, arguments_of(c)), reads_of(l, c, o), {o.out}, std::move(info));
}

bool lower_matmul(Lowering& l, const ProductChain& c, const Operands& o) {
  const MatmulDims d = matmul_dims(l.graph(), c.product);
  const std::int64_t count = batch_count(d);
  StepInfo info = l.info_of(c.product);
  info.name =
      fmt::format("matmul {}{}x{}x{}{}", count > 1 ? fmt::format("{}x", count) : "", d.m, d.n, d.k, epilogue_name(c));
  if (o.dtype == f64) return lower_own_matmul(l, c, o, d, std::move(info));
  const double flops = matmul_flops(d) / static_cast<double>(std::max<std::int64_t>(count, 1));
  const bool small = flops <= (d.n < kNarrow ? kOwnNarrowFlops : kOwnFlops);
  const bool long_sum = !info.backward && d.k >= kLongSum && flops <= kOwnLongFlops;
  const bool repeats = count == 1 && l.runs_of(o.second) >= kManyRuns && PackedProduct::takes(own_spec(c, o, d));
  if (repeats) {
    lower_packed_matmul(l, c, o, d, std::move(info));
    return true;
  }
  const bool wide = count == 1 && d.n >= kWide && d.m >= kWideRows && l.runs_of(o.second) == 1 &&
                    BlockProduct::takes(own_spec(c, o, d));
  if (o.dtype == f32 && (small || long_sum || wide) && lower_own_matmul(l, c, o, d, info)) return true;
  return lower_dnnl_matmul(l, c, o, d, std::move(info));
}

// ---- convolutions ----

std::optional<ConvSpec> conv_spec(const ir::Graph& g, const ProductChain& c, ConvKind kind, DType dtype, DType result) {
  const ir::Node& node = g.nodes[c.product];
  const Attrs& attrs = node.attrs;
  const Shape& x = kind == ConvKind::input_grad ? node.types[0].shape : g.type(node.inputs[0]).shape;
  const Shape& y = kind == ConvKind::forward      ? node.types[0].shape
                   : kind == ConvKind::input_grad ? g.type(node.inputs[0]).shape
                                                  : g.type(node.inputs[1]).shape;
  const Shape& w = kind == ConvKind::weight_grad ? node.types[0].shape : g.type(node.inputs[1]).shape;
  ConvSpec s;
  s.spatial = x.rank() - 2;
  if (s.spatial > 3) return std::nullopt;
  s.batch = x[0];
  s.in_channels = x.back();
  s.out_channels = y.back();
  s.groups = attrs.integer("groups");
  s.dtype = dtype;
  s.result = result;
  for (int i = 0; i < s.spatial; ++i) {
    const auto at = static_cast<std::size_t>(i);
    s.in[at] = x[i + 1];
    s.kernel[at] = w[i];
    s.stride[at] = attrs.ints("stride")[at];
    s.dilation[at] = attrs.ints("dilation")[at];
    s.pad_low[at] = attrs.ints("padding_low")[at];
    s.pad_high[at] = attrs.ints("padding_high")[at];
    if (s.pad_low[at] < 0 || s.pad_high[at] < 0) return std::nullopt;
  }
  if (s.weight_size() == 0) return std::nullopt;
  s.epilogue = epilogue_of(c);
  return s;
}

void lower_dnnl_conv(Lowering& l, const ProductChain& c, Operands o, const ConvSpec& s, ConvKind kind, StepInfo info) {
  const auto conv = std::make_shared<const DnnlConv>(s, kind, l.options().threads);
  const bool packs = conv->pack_bytes() > 0, gradient = kind == ConvKind::weight_grad;
  const BufferId packed = packs ? l.temporary(conv->pack_bytes()) : 0;
  // oneDNN's weight gradient is f32 whatever the activations are.
  const bool narrows = gradient && o.result == bf16;
  const BufferId out = narrows ? l.temporary(static_cast<std::size_t>(s.weight_size()) * sizeof(float)) : o.out;
  if (packs && !gradient) {
    emit_pack<DnnlConv>(l, conv, c.product, o.second, packed, "pack", 1);
    o.second = packed;
  }
  l.emit(std::make_unique<DnnlConvKernel>(conv, kind, arguments_of(c)), reads_of(l, c, o),
         {packs && gradient ? packed : out}, std::move(info));
  if (packs && gradient) emit_pack<DnnlConv>(l, conv, c.product, packed, out, "unpack", 1);
  if (narrows) emit_convert(l, c.product, s.weight_size(), false, out, o.out);
}

bool lower_conv(Lowering& l, const ProductChain& c, const Operands& o, ConvKind kind) {
  const std::optional<ConvSpec> s = conv_spec(l.graph(), c, kind, o.dtype, o.result);
  if (!s) return false;
  StepInfo info = l.info_of(c.product);
  info.name +=
      fmt::format(" {} -> {}, {} taps{}", s->in_channels, s->out_channels, s->kernel_positions(), epilogue_name(c));
  const bool dnnl = dnnl_supports(s->dtype);
  if (dnnl ? DirectConv::beats_dnnl(*s, kind) : DirectConv::supports(*s, kind)) {
    l.emit(std::make_unique<OwnConvKernel<DirectConv>>(*s, kind, arguments_of(c)), reads_of(l, c, o), {o.out},
           std::move(info));
    return true;
  }
  if (dnnl) {
    lower_dnnl_conv(l, c, o, *s, kind, std::move(info));
    return true;
  }
  if (c.has_residual && c.activation != OpId::input) return false;
  l.emit(std::make_unique<OwnConvKernel<Im2colConv>>(*s, kind, arguments_of(c)), reads_of(l, c, o), {o.out},
         std::move(info));
  return true;
}

ConvKind kind_of(OpId op) {
  if (op == OpId::conv) return ConvKind::forward;
  return op == OpId::conv_input_grad ? ConvKind::input_grad : ConvKind::weight_grad;
}

bool lower_with(Lowering& l, const ProductChain& c, const Operands& o) {
  const OpId op = l.graph().nodes[c.product].op;
  return op == OpId::matmul ? lower_matmul(l, c, o) : lower_conv(l, c, o, kind_of(op));
}

// bf16 where the processor cannot multiply it: f32 between conversions, the result rounded once.
bool lower_widened(Lowering& l, const ProductChain& c) {
  const ir::Node& n = l.graph().nodes[c.product];
  const auto count = [](const Type& t) { return t.shape.numel(); };
  const auto widened = [&](ir::Value v) {
    const std::int64_t elements = count(l.graph().type(v));
    const BufferId wide = l.temporary(static_cast<std::size_t>(elements) * sizeof(float));
    emit_convert(l, c.product, elements, true, l.buffer(v), wide);
    return wide;
  };
  if (n.op != OpId::matmul && !conv_spec(l.graph(), c, kind_of(n.op), f32, f32)) return false;
  const bool narrows = n.types[0].dtype == bf16;
  Operands o{widened(n.inputs[0]), widened(n.inputs[1]), 0, f32, f32};
  o.out = narrows ? l.temporary(static_cast<std::size_t>(count(n.types[0])) * sizeof(float)) : l.buffer(c.result);
  if (!lower_with(l, c, o)) return false;
  if (narrows) emit_convert(l, c.product, count(n.types[0]), false, o.out, l.buffer(c.result));
  return true;
}

}  // namespace

bool lower_product(Lowering& l, const passes::Group& group) {
  const ir::Node& n = l.graph().nodes[group.nodes[0]];
  if (ir::op_def(n.op).cls != ir::OpClass::product) return false;
  const ProductChain c = passes::product_chain(l.graph(), group);
  const DType t = l.graph().type(n.inputs[0]).dtype;
  if (t == bf16 && !dnnl_supports(bf16)) return lower_widened(l, c);
  if (!is_float(t)) return false;
  return lower_with(l, c, operands_of(l, c));
}

}  // namespace bp::cpu

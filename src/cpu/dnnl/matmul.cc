// DnnlMatmul: chooses how oneDNN forms a product, packs B where that pays, attaches the epilogue.
#include "cpu/dnnl/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cpu/dnnl/internal.h"
#include "cpu/kernels/share.h"

namespace bp::cpu {

using namespace detail;

namespace {

// Zen 3, f32: a row stride of B that is a multiple of 2 KiB makes oneDNN's copy of B thrash the first-level cache. With
// rows 64 bytes longer, 64x512x784 takes 0.58 ms for 0.87, 32x1024x256 0.21 for 0.45, 256x1024x2048 14.4 for 28; the
// copy itself costs 0.06, 0.03 and 1.
constexpr std::int64_t kBadStride = 512;
constexpr std::int64_t kStridePad = 16;

// With up to this many rows of A the copy of B dominates gemm, and a 1x1 convolution on weights that are packed before
// is as fast or faster already for strides that are a multiple of 1 KiB: 32x1024x256 0.18 ms for 0.21 (padded rows),
// 64x256x512 0.17 for 0.19 (0.094 for 0.12 on two threads). Packing costs what the copy into longer rows costs.
constexpr std::int64_t kFewRows = 128;
constexpr std::int64_t kPoorStride = 256;
constexpr std::int64_t kManyRuns = 4;
constexpr std::int64_t kSmallB = 32 * 1024;  // elements: below, B stays in the cache whatever its stride

// With this many rows packing costs a percent, and the convolution is as fast as gemm or faster, above all for long
// rows of A and transposed B: 2048x192x768 T 85 GFLOP/s for 52 to 83, 2048x192x576 T 88 for 75, 512x512x512 T 97
// for 89.
constexpr std::int64_t kManyRows = 256, kLongRow = 96;

bool is_transposed(const DnnlMatmulSpec::Strides& s) { return s.col != 1; }

// Makes the strides of a rows x cols matrix canonical: one is 1, the other at least the contiguous size.
void normalise(DnnlMatmulSpec::Strides& s, std::int64_t rows, std::int64_t cols, const char* which) {
  if (rows <= 1 && cols <= 1) s = {std::max<std::int64_t>(cols, 1), 1, std::move(s.batch)};
  if (rows <= 1 && s.col == 1) s.row = std::max<std::int64_t>(cols, 1);
  if (rows <= 1 && s.col != 1) s.row = 1;
  if (cols <= 1 && s.row != 1) s.col = 1;
  if (cols <= 1 && s.row == 1) s.col = 1;
  const bool plain = s.col == 1 && s.row >= cols;
  const bool transposed = s.row == 1 && s.col >= rows;
  if (!plain && !transposed)
    fail(ErrorKind::shape, "[matmul] expected {} of {} x {} with one stride of 1, got strides {} and {}", which, rows,
         cols, s.row, s.col);
}

// Batch dimensions that only repeat B are more rows of A and C.
void merge_batch_into_rows(DnnlMatmulSpec& s) {
  while (!s.batch.empty()) {
    const std::int64_t size = s.batch.back();
    const bool rows_continue = s.a.batch.back() == s.m * s.a.row && s.c.batch.back() == s.m * s.c.row;
    if (size != 1 && !(s.b.batch.back() == 0 && rows_continue && !is_transposed(s.a))) return;
    s.m *= size;
    for (auto* strides : {&s.a, &s.b, &s.c}) strides->batch.pop_back();
    s.batch.pop_back();
  }
}

DnnlMatmulSpec canonical(DnnlMatmulSpec s) {
  dnnl_type(s.in);
  dnnl_type(s.out);
  if (!dnnl_supports(s.in) || !dnnl_supports(s.out))
    fail(ErrorKind::dtype, "[matmul] this processor has no fast {} x {} product", name_of(s.in), name_of(s.out));
  const std::size_t rank = s.batch.size();
  if (s.a.batch.size() != rank || s.b.batch.size() != rank || s.c.batch.size() != rank)
    fail(ErrorKind::shape, "[matmul] expected {} batch strides an operand, got {}, {} and {}", rank, s.a.batch.size(),
         s.b.batch.size(), s.c.batch.size());
  normalise(s.a, s.m, s.k, "A");
  normalise(s.b, s.k, s.n, "B");
  normalise(s.c, s.m, s.n, "C");
  if (s.c.col != 1) fail(ErrorKind::shape, "[matmul] expected C with rows of stride 1, got {}", s.c.col);
  merge_batch_into_rows(s);
  return s;
}

Desc desc_of(const DnnlMatmulSpec& s, const DnnlMatmulSpec::Strides& m, std::int64_t rows, std::int64_t cols,
             DType type) {
  Dims dims, strides;
  for (std::size_t i = 0; i < s.batch.size(); ++i) {
    dims.push_back(m.batch[i] == 0 ? 1 : s.batch[i]);
    strides.push_back(m.batch[i] == 0 ? rows * cols : m.batch[i]);
  }
  dims.insert(dims.end(), {rows, cols});
  strides.insert(strides.end(), {m.row, m.col});
  return Desc(dims, dnnl_type(type), strides);
}

std::int64_t batch_count(const DnnlMatmulSpec& s) {
  std::int64_t n = 1;
  for (std::int64_t b : s.batch) n *= b;
  return n;
}

// oneDNN's direct convolution of 1 x 1 exists for AVX2; below, a convolution would be a product again.
bool can_be_convolution(const DnnlMatmulSpec& s) {
  return has_avx2() && !has_avx512() && s.in == f32 && s.out == f32 && s.batch.empty() && s.a.col == 1 &&
         s.a.row == s.k && s.c.row == s.n && s.n >= 8;
}

MatmulPlan choose_plan(const DnnlMatmulSpec& s) {
  const bool reused = s.runs_per_pack >= kManyRuns;
  if (has_avx512()) return reused && s.batch.empty() ? MatmulPlan::packed : MatmulPlan::plain;
  const std::int64_t stride = is_transposed(s.b) ? s.b.col : s.b.row;
  const bool large = s.k * s.n >= kSmallB;
  if (!s.batch.empty()) return MatmulPlan::plain;
  const bool few = s.m <= kFewRows && can_be_convolution(s);
  if (few && (reused || (large && stride % kPoorStride == 0))) return MatmulPlan::convolution;
  if (s.m >= kManyRows && s.k >= kLongRow && can_be_convolution(s)) return MatmulPlan::convolution;
  const bool thrashes = large && stride % kBadStride == 0;
  return thrashes ? MatmulPlan::packed : MatmulPlan::plain;
}

float activate(Epilogue::Activation a, float x) {
  switch (a) {
    case Epilogue::Activation::relu: return std::max(x, 0.0f);
    case Epilogue::Activation::tanh: return std::tanh(x);
    case Epilogue::Activation::sigmoid: return 1.0f / (1.0f + std::exp(-x));
    case Epilogue::Activation::gelu_tanh:
      return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x)));
    case Epilogue::Activation::gelu_erf: return 0.5f * x * (1.0f + std::erf(x * 0.7071067812f));
    case Epilogue::Activation::none: break;
  }
  return x;
}

// A sum over k = 0 terms: C is the epilogue of zeros, which oneDNN would leave unwritten.
template <class T> void store_empty_sum(const DnnlMatmulSpec& s, const DnnlMatmul::Args& args) {
  const std::int64_t batches = batch_count(s);
  for (std::int64_t b = 0; b < batches; ++b) {
    std::int64_t offset = 0, rest = b;
    for (std::size_t d = s.batch.size(); d-- > 0; rest /= s.batch[d]) offset += rest % s.batch[d] * s.c.batch[d];
    for (std::int64_t i = 0; i < s.m * s.n; ++i) {
      const std::int64_t at = offset + i / s.n * s.c.row + i % s.n;
      float v = s.epilogue.bias ? args.bias[i % s.n] : 0.0f;
      if (s.epilogue.residual) v += static_cast<float>(static_cast<const T*>(args.residual)[at]);
      if (s.epilogue.accumulate) v += static_cast<float>(static_cast<T*>(args.c)[at]);
      static_cast<T*>(args.c)[at] = static_cast<T>(activate(s.epilogue.activation, v));
    }
  }
}

}  // namespace

DnnlMatmulSpec dense_matmul(std::vector<std::int64_t> batch, std::int64_t m, std::int64_t n, std::int64_t k,
                            bool trans_a, bool trans_b, DType dtype) {
  DnnlMatmulSpec s;
  s.m = m, s.n = n, s.k = k;
  s.in = s.out = dtype;
  s.a.row = trans_a ? 1 : k, s.a.col = trans_a ? m : 1;
  s.b.row = trans_b ? 1 : n, s.b.col = trans_b ? k : 1;
  s.c.row = n;
  std::int64_t count = 1;
  for (std::size_t i = batch.size(); i-- > 0; count *= batch[i]) {
    s.a.batch.insert(s.a.batch.begin(), count * m * k);
    s.b.batch.insert(s.b.batch.begin(), count * k * n);
    s.c.batch.insert(s.c.batch.begin(), count * m * n);
  }
  s.batch = std::move(batch);
  return s;
}

bool dnnl_supports(DType dtype) { return dtype == f32 || (dtype == bf16 && has_avx512()); }

namespace {

constexpr std::int64_t kBlock = 8;

// B [k, n] with rows of `stride` into blocks of 8 x 8, k innermost but one: [n / 8, k / 8, 8 k, 8 n], zeros beyond k
// and n. oneDNN's own reorder takes twice as long (0.12 ms for 784 x 512).
void pack_blocks(const float* b, std::int64_t stride, std::int64_t k, std::int64_t n, float* to, int threads) {
  const std::int64_t k_blocks = (k + kBlock - 1) / kBlock, n_blocks = (n + kBlock - 1) / kBlock;
  share(k_blocks, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t kb = begin; kb < end; ++kb)
      for (std::int64_t nb = 0; nb < n_blocks; ++nb) {
        float* block = to + (nb * k_blocks + kb) * kBlock * kBlock;
        const float* from = b + kb * kBlock * stride + nb * kBlock;
        const std::int64_t rows = std::min(kBlock, k - kb * kBlock), cols = std::min(kBlock, n - nb * kBlock);
        if (rows == kBlock && cols == kBlock) {
          for (std::int64_t r = 0; r < kBlock; ++r)
            std::memcpy(block + r * kBlock, from + r * stride, kBlock * sizeof(float));
          continue;
        }
        std::fill_n(block, kBlock * kBlock, 0.0f);
        for (std::int64_t r = 0; r < rows; ++r) std::copy_n(from + r * stride, cols, block + r * kBlock);
      }
  });
}

}  // namespace

struct DnnlMatmul::Impl {
  DnnlMatmulSpec spec;
  MatmulPlan plan = MatmulPlan::plain;
  int threads = 1, pack_threads = 1;
  bool copy_residual = false;  // C starts as the residual where oneDNN would run its scalar loops
  Primitive product;
  Reorder pack;
  bool pack_by_blocks = false;  // instead of `pack`
  std::size_t pack_bytes = 0;
  int a = -1, b = -1, c = -1, bias = -1, residual = -1;

  void create();
  void create_matmul(const Epilogue& epilogue);
  void create_convolution();
  void create_pack(const Desc& from, const Desc& to);
  void copy_residual_to(void* c_data, const void* from) const;
};

void DnnlMatmul::Impl::create_pack(const Desc& from, const Desc& to) {
  if (from == to) return;
  const ThreadScope scope(pack_threads);
  pack.create(from, to);
  pack_bytes = to.get_size();
}

void DnnlMatmul::Impl::create_matmul(const Epilogue& epilogue) {
  const Desc da = desc_of(spec, spec.a, spec.m, spec.k, spec.in);
  const Desc plain_b = desc_of(spec, spec.b, spec.k, spec.n, spec.in);
  const Desc dc = desc_of(spec, spec.c, spec.m, spec.n, spec.out);
  Desc db = plain_b;
  if (plan == MatmulPlan::packed && has_avx512())
    db = Desc(plain_b.dims(), plain_b.data_type(), Memory::format_tag::any);
  if (plan == MatmulPlan::packed && !has_avx512()) {
    DnnlMatmulSpec::Strides padded = spec.b;
    (is_transposed(spec.b) ? padded.col : padded.row) = (is_transposed(spec.b) ? spec.k : spec.n) + kStridePad;
    db = desc_of(spec, padded, spec.k, spec.n, spec.in);
  }
  Dims bias_dims(spec.batch.size() + 1, 1);
  bias_dims.push_back(spec.n);
  Dims bias_strides(spec.batch.size() + 1, spec.n);
  bias_strides.push_back(1);
  const Desc bias_desc(bias_dims, Memory::data_type::f32, bias_strides);
  dnnl::primitive_attr attr = user_scratchpad();
  const int residual_index = append_epilogue(attr, epilogue, dc);
  const auto pd = matmul_desc(da, db, epilogue.bias ? &bias_desc : nullptr, dc, attr);
  product = Primitive();
  product.create(pd);
  a = product.add(DNNL_ARG_SRC, da);
  b = product.add(DNNL_ARG_WEIGHTS, pd.weights_desc());
  c = product.add(DNNL_ARG_DST, dc);
  bias = epilogue.bias ? product.add(DNNL_ARG_BIAS, bias_desc) : -1;
  residual = epilogue.residual ? product.add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual_index) | DNNL_ARG_SRC_1, dc) : -1;
  if (!pack) create_pack(plain_b, pd.weights_desc());
}

// [m, k] · [k, n] as a convolution: one image of m x 1 pixels with k channels, n filters of 1 x 1.
void DnnlMatmul::Impl::create_convolution() {
  constexpr auto kF32 = Memory::data_type::f32;
  using Tag = Memory::format_tag;
  ConvDescs d;
  d.x = Desc({1, spec.k, spec.m, 1}, kF32, Tag::nhwc);
  d.w = Desc({spec.n, spec.k, 1, 1}, kF32, Tag::any);
  d.y = Desc({1, spec.n, spec.m, 1}, kF32, Tag::nhwc);
  d.bias = Desc({spec.n}, kF32, Tag::a);
  d.has_bias = spec.epilogue.bias;
  d.stride = {1, 1};
  d.dilation = d.pad_low = d.pad_high = {0, 0};
  dnnl::primitive_attr attr = user_scratchpad();
  const int residual_index = append_epilogue(attr, spec.epilogue, d.y);
  const auto pd = conv_forward_desc(d, attr);
  product.create(pd);
  a = product.add(DNNL_ARG_SRC, d.x);
  b = product.add(DNNL_ARG_WEIGHTS, pd.weights_desc());
  c = product.add(DNNL_ARG_DST, d.y);
  if (spec.epilogue.bias) bias = product.add(DNNL_ARG_BIAS, d.bias);
  if (spec.epilogue.residual)
    residual = product.add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual_index) | DNNL_ARG_SRC_1, d.y);
  const Desc packed = pd.weights_desc();
  pack_by_blocks = spec.b.col == 1 && packed == Desc({spec.n, spec.k, 1, 1}, kF32, Tag::OIhw8i8o);
  if (pack_by_blocks)
    pack_bytes = packed.get_size();
  else
    create_pack(Desc({spec.n, spec.k, 1, 1}, kF32, {spec.b.col, spec.b.row, 1, 1}), packed);
}

void DnnlMatmul::Impl::create() {
  const double flops = 2.0 * static_cast<double>(batch_count(spec)) * static_cast<double>(spec.m) *
                       static_cast<double>(spec.n) * static_cast<double>(spec.k);
  threads = threads_for_flops(flops, threads);
  const double b_bytes = static_cast<double>(spec.k * spec.n) * static_cast<double>(size_of(spec.in));
  pack_threads = spec.pack_threads > 0 ? threads_for_bytes(b_bytes, spec.pack_threads) : threads;
  if (flops == 0) return;
  const ThreadScope scope(threads);
  if (plan == MatmulPlan::convolution) return create_convolution();
  create_matmul(spec.epilogue);
  if (!spec.epilogue.residual || !is_reference(product.impl())) return;
  if (spec.epilogue.accumulate) return;
  Epilogue from_c = spec.epilogue;
  from_c.residual = false;
  from_c.accumulate = copy_residual = true;
  create_matmul(from_c);
}

void DnnlMatmul::Impl::copy_residual_to(void* c_data, const void* from) const {
  const auto row_bytes = static_cast<std::size_t>(spec.n) * size_of(spec.out);
  const std::int64_t batches = batch_count(spec);
  for (std::int64_t i = 0; i < batches; ++i) {
    std::int64_t offset = 0, rest = i;
    for (std::size_t d = spec.batch.size(); d-- > 0; rest /= spec.batch[d])
      offset += rest % spec.batch[d] * spec.c.batch[d];
    for (std::int64_t r = 0; r < spec.m; ++r) {
      const std::size_t at = static_cast<std::size_t>(offset + r * spec.c.row) * size_of(spec.out);
      std::memcpy(static_cast<char*>(c_data) + at, static_cast<const char*>(from) + at, row_bytes);
    }
  }
}

DnnlMatmul::DnnlMatmul(const DnnlMatmulSpec& spec, int threads, MatmulPlan plan) : impl_(std::make_unique<Impl>()) {
  impl_->spec = canonical(spec);
  impl_->threads = threads;
  impl_->plan = plan == MatmulPlan::automatic ? choose_plan(impl_->spec) : plan;
  if (impl_->plan == MatmulPlan::convolution && !can_be_convolution(impl_->spec)) impl_->plan = MatmulPlan::plain;
  try {
    impl_->create();
  } catch (const dnnl::error& e) {
    fail(ErrorKind::value, "[matmul] oneDNN refuses {} x {} x {}: {}", spec.m, spec.n, spec.k, e.what());
  }
}
DnnlMatmul::DnnlMatmul(DnnlMatmul&&) noexcept = default;
DnnlMatmul& DnnlMatmul::operator=(DnnlMatmul&&) noexcept = default;
DnnlMatmul::~DnnlMatmul() = default;

std::size_t DnnlMatmul::pack_bytes() const noexcept { return impl_->pack_bytes; }
std::size_t DnnlMatmul::scratchpad_bytes() const noexcept { return impl_->product.scratchpad_bytes(); }
int DnnlMatmul::threads() const noexcept { return impl_->threads; }
int DnnlMatmul::pack_threads() const noexcept { return impl_->pack_threads; }
MatmulPlan DnnlMatmul::plan() const noexcept { return impl_->plan; }
const std::string& DnnlMatmul::impl_name() const noexcept { return impl_->product.impl(); }

void DnnlMatmul::run_pack(const void* b, void* packed) const {
  if (impl_->pack_by_blocks) {
    const DnnlMatmulSpec& s = impl_->spec;
    return pack_blocks(static_cast<const float*>(b), s.b.row, s.k, s.n, static_cast<float*>(packed),
                       impl_->pack_threads);
  }
  if (!impl_->pack) return;
  const ThreadScope scope(impl_->pack_threads);
  impl_->pack.run(b, packed);
}

void DnnlMatmul::run(const Args& args) const {
  const Impl& m = *impl_;
  if (!m.product) {
    if (m.spec.out == f32) return store_empty_sum<float>(m.spec, args);
    return store_empty_sum<bfloat16>(m.spec, args);
  }
  const ThreadScope scope(m.threads);
  if (m.copy_residual && args.residual != args.c) m.copy_residual_to(args.c, args.residual);
  m.product.set(m.a, args.a);
  m.product.set(m.b, args.b);
  m.product.set(m.c, args.c);
  if (m.bias >= 0) m.product.set(m.bias, args.bias);
  if (m.residual >= 0) m.product.set(m.residual, args.residual);
  m.product.set_scratchpad(args.scratchpad);
  m.product.execute();
}

}  // namespace bp::cpu

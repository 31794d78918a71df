// DnnlConv: oneDNN's direct convolutions on channels-last tensors, with plain weights packed into the layout they ask
// for.
#include "cpu/dnnl/conv.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cpu/dnnl/internal.h"

namespace bp::cpu {

using namespace detail;

std::int64_t ConvSpec::out(int axis) const noexcept {
  const auto i = static_cast<std::size_t>(axis);
  const std::int64_t room = in[i] + pad_low[i] + pad_high[i] - ((kernel[i] - 1) * dilation[i] + 1);
  return room < 0 ? 0 : room / stride[i] + 1;
}

std::int64_t ConvSpec::out_positions() const noexcept {
  std::int64_t n = 1;
  for (int i = 0; i < spatial; ++i) n *= out(i);
  return n;
}

std::int64_t ConvSpec::in_positions() const noexcept {
  std::int64_t n = 1;
  for (int i = 0; i < spatial; ++i) n *= in[static_cast<std::size_t>(i)];
  return n;
}

std::int64_t ConvSpec::kernel_positions() const noexcept {
  std::int64_t n = 1;
  for (int i = 0; i < spatial; ++i) n *= kernel[static_cast<std::size_t>(i)];
  return n;
}

std::int64_t ConvSpec::weight_size() const noexcept {
  return groups == 0 ? 0 : kernel_positions() * (in_channels / groups) * out_channels;
}

double ConvSpec::flops() const noexcept {
  return 2.0 * static_cast<double>(batch) * static_cast<double>(out_positions()) * static_cast<double>(weight_size());
}

namespace {

// [n, spatial..., c] as oneDNN orders dimensions: n, c, spatial...
Desc activation_desc(const ConvSpec& s, std::int64_t channels, bool output, DType type) {
  Dims dims{s.batch, channels}, strides{0, 1};
  std::int64_t stride = channels;
  Dims spatial_strides(static_cast<std::size_t>(s.spatial));
  for (int i = s.spatial - 1; i >= 0; --i) {
    spatial_strides[static_cast<std::size_t>(i)] = stride;
    stride *= output ? s.out(i) : s.in[static_cast<std::size_t>(i)];
  }
  strides[0] = stride;
  for (int i = 0; i < s.spatial; ++i) dims.push_back(output ? s.out(i) : s.in[static_cast<std::size_t>(i)]);
  strides.insert(strides.end(), spatial_strides.begin(), spatial_strides.end());
  return Desc(dims, dnnl_type(type), strides);
}

// [spatial..., i, g, o] as oneDNN orders dimensions: (g), o, i, spatial...
Dims weight_dims(const ConvSpec& s) {
  Dims dims;
  if (s.groups > 1) dims.push_back(s.groups);
  dims.insert(dims.end(), {s.out_channels / s.groups, s.in_channels / s.groups});
  for (int i = 0; i < s.spatial; ++i) dims.push_back(s.kernel[static_cast<std::size_t>(i)]);
  return dims;
}

Desc plain_weight_desc(const ConvSpec& s, DType type) {
  Dims strides;
  if (s.groups > 1) strides.push_back(s.out_channels / s.groups);
  strides.insert(strides.end(), {1, s.out_channels});
  std::int64_t stride = s.out_channels * (s.in_channels / s.groups);
  Dims spatial_strides(static_cast<std::size_t>(s.spatial));
  for (int i = s.spatial - 1; i >= 0; --i) {
    spatial_strides[static_cast<std::size_t>(i)] = stride;
    stride *= s.kernel[static_cast<std::size_t>(i)];
  }
  strides.insert(strides.end(), spatial_strides.begin(), spatial_strides.end());
  return Desc(weight_dims(s), dnnl_type(type), strides);
}

ConvDescs describe(const ConvSpec& s, ConvKind kind, const Epilogue& epilogue) {
  ConvDescs d;
  d.x = activation_desc(s, s.in_channels, false, kind == ConvKind::input_grad ? s.result : s.dtype);
  d.y = activation_desc(s, s.out_channels, true, kind == ConvKind::forward ? s.result : s.dtype);
  const DType weight_type = kind == ConvKind::weight_grad ? f32 : s.dtype;
  d.w = Desc(weight_dims(s), dnnl_type(weight_type), Memory::format_tag::any);
  d.bias = Desc({s.out_channels}, Memory::data_type::f32, Memory::format_tag::a);
  d.has_bias = kind == ConvKind::forward && epilogue.bias;
  for (int axis = 0; axis < s.spatial; ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    d.stride.push_back(s.stride[i]);
    d.dilation.push_back(s.dilation[i] - 1);
    d.pad_low.push_back(s.pad_low[i]);
    // What the stride leaves over at the end is not padding: oneDNN wants the exact equation, negative values included.
    const std::int64_t reach = (s.out(axis) - 1) * s.stride[i] + (s.kernel[i] - 1) * s.dilation[i] + 1;
    d.pad_high.push_back(reach - s.in[i] - s.pad_low[i]);
  }
  return d;
}

ConvDescs forward_of(ConvSpec s) {
  s.result = s.dtype;
  return describe(s, ConvKind::forward, {});
}

void check(const ConvSpec& s) {
  if (!dnnl_supports(s.dtype))
    fail(ErrorKind::dtype, "[conv] this processor has no fast {} convolution", name_of(s.dtype));
  if (s.spatial < 1 || s.spatial > 3)
    fail(ErrorKind::shape, "[conv] expected 1 to 3 spatial dimensions, got {}", s.spatial);
  if (s.groups < 1 || s.in_channels % s.groups != 0 || s.out_channels % s.groups != 0)
    fail(ErrorKind::shape, "[conv] expected channels divisible by {} groups, got {} in and {} out", s.groups,
         s.in_channels, s.out_channels);
  if (s.weight_size() == 0) fail(ErrorKind::shape, "[conv] expected a kernel and channels of at least 1");
  for (std::size_t i = 0; i < static_cast<std::size_t>(s.spatial); ++i)
    if (s.pad_low[i] < 0 || s.pad_high[i] < 0)
      fail(ErrorKind::shape, "[conv] expected padding of at least 0, got {} and {}", s.pad_low[i], s.pad_high[i]);
}

}  // namespace

struct DnnlConv::Impl {
  ConvSpec spec;
  ConvKind kind = ConvKind::forward;
  int threads = 1;
  bool copy_residual = false;
  Primitive conv;
  Reorder pack;  // plain to packed; for weight_grad packed to plain
  std::size_t pack_bytes = 0;
  int first = -1, second = -1, out = -1, bias = -1, residual = -1;

  void create();
  void create_forward(const Epilogue& epilogue);
  void create_input_grad();
  void create_weight_grad();
  void create_pack(const Desc& packed);
  std::size_t out_bytes() const noexcept;
};

void DnnlConv::Impl::create_pack(const Desc& packed) {
  const bool gradient = kind == ConvKind::weight_grad;
  const Desc plain = plain_weight_desc(spec, gradient ? f32 : spec.dtype);
  pack_bytes = 0;
  if (packed == plain) return;
  pack = Reorder();
  if (gradient)
    pack.create(packed, plain);
  else
    pack.create(plain, packed);
  pack_bytes = packed.get_size();
}

void DnnlConv::Impl::create_forward(const Epilogue& epilogue) {
  const ConvDescs d = describe(spec, kind, epilogue);
  dnnl::primitive_attr attr = user_scratchpad();
  const int residual_index = append_epilogue(attr, epilogue, d.y);
  const auto pd = conv_forward_desc(d, attr);
  conv = Primitive();
  conv.create(pd);
  first = conv.add(DNNL_ARG_SRC, d.x);
  second = conv.add(DNNL_ARG_WEIGHTS, pd.weights_desc());
  out = conv.add(DNNL_ARG_DST, d.y);
  bias = epilogue.bias ? conv.add(DNNL_ARG_BIAS, d.bias) : -1;
  residual = epilogue.residual ? conv.add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual_index) | DNNL_ARG_SRC_1, d.y) : -1;
  create_pack(pd.weights_desc());
}

void DnnlConv::Impl::create_input_grad() {
  const ConvDescs d = describe(spec, kind, {});
  const auto pd = conv_input_grad_desc(d, forward_of(spec), user_scratchpad());
  conv.create(pd);
  first = conv.add(DNNL_ARG_DIFF_DST, d.y);
  second = conv.add(DNNL_ARG_WEIGHTS, pd.weights_desc());
  out = conv.add(DNNL_ARG_DIFF_SRC, d.x);
  create_pack(pd.weights_desc());
}

void DnnlConv::Impl::create_weight_grad() {
  const ConvDescs d = describe(spec, kind, {});
  const auto pd = conv_weight_grad_desc(d, forward_of(spec), user_scratchpad());
  conv.create(pd);
  first = conv.add(DNNL_ARG_SRC, d.x);
  second = conv.add(DNNL_ARG_DIFF_DST, d.y);
  out = conv.add(DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc());
  create_pack(pd.diff_weights_desc());
}

void DnnlConv::Impl::create() {
  const double flops = spec.flops();
  threads = threads_for_flops(flops, threads);
  if (flops == 0 || spec.in_positions() == 0) return;
  const ThreadScope scope(threads);
  if (kind == ConvKind::input_grad) return create_input_grad();
  if (kind == ConvKind::weight_grad) return create_weight_grad();
  create_forward(spec.epilogue);
  if (!spec.epilogue.residual || spec.epilogue.accumulate || !is_reference(conv.impl())) return;
  // oneDNN adds a residual in its scalar loops only: let y start as the residual instead.
  Epilogue from_y = spec.epilogue;
  from_y.residual = false;
  from_y.accumulate = copy_residual = true;
  create_forward(from_y);
}

std::size_t DnnlConv::Impl::out_bytes() const noexcept {
  const bool gradient = kind == ConvKind::weight_grad;
  const std::int64_t y = spec.batch * spec.out_positions() * spec.out_channels;
  const std::int64_t dx = spec.batch * spec.in_positions() * spec.in_channels;
  const std::int64_t count = gradient ? spec.weight_size() : kind == ConvKind::input_grad ? dx : y;
  return static_cast<std::size_t>(count) * (gradient ? sizeof(float) : size_of(spec.result));
}

DnnlConv::DnnlConv(const ConvSpec& spec, ConvKind kind, int threads) : impl_(std::make_unique<Impl>()) {
  check(spec);
  impl_->spec = spec;
  impl_->kind = kind;
  impl_->threads = threads;
  try {
    impl_->create();
  } catch (const dnnl::error& e) {
    fail(ErrorKind::value, "[conv] oneDNN refuses {} to {} channels: {}", spec.in_channels, spec.out_channels,
         e.what());
  }
}
DnnlConv::DnnlConv(DnnlConv&&) noexcept = default;
DnnlConv& DnnlConv::operator=(DnnlConv&&) noexcept = default;
DnnlConv::~DnnlConv() = default;

std::size_t DnnlConv::pack_bytes() const noexcept { return impl_->pack_bytes; }
std::size_t DnnlConv::scratchpad_bytes() const noexcept { return impl_->conv.scratchpad_bytes(); }
int DnnlConv::threads() const noexcept { return impl_->threads; }
const std::string& DnnlConv::impl_name() const noexcept { return impl_->conv.impl(); }

void DnnlConv::run_pack(const void* w, void* packed) const {
  if (!impl_->pack) return;
  const ThreadScope scope(1);  // a few kilobytes
  impl_->pack.run(w, packed);
}

void DnnlConv::run_unpack(const void* packed, float* dw) const { run_pack(packed, dw); }

void DnnlConv::run(const Args& args) const {
  const Impl& m = *impl_;
  if (!m.conv) {  // an empty sum
    if (m.out_bytes() != 0) std::memset(args.out, 0, m.out_bytes());
    return;
  }
  const ThreadScope scope(m.threads);
  if (m.copy_residual && args.residual != args.out) std::memcpy(args.out, args.residual, m.out_bytes());
  const bool forward = m.kind == ConvKind::forward;
  m.conv.set(m.first, m.kind == ConvKind::input_grad ? args.dy : args.x);
  m.conv.set(m.second, m.kind == ConvKind::weight_grad ? args.dy : args.w);
  m.conv.set(m.out, args.out);
  if (forward && m.bias >= 0) m.conv.set(m.bias, args.bias);
  if (forward && m.residual >= 0) m.conv.set(m.residual, args.residual);
  m.conv.set_scratchpad(args.scratchpad);
  m.conv.execute();
}

}  // namespace bp::cpu

// oneDNN's engine, prepared primitives and the calls that differ between oneDNN 2 and 3.
#include "cpu/dnnl/internal.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/isa.h"

namespace bp::cpu::detail {

namespace {
// Tells oneDNN of BP_MAX_ISA, once a process and before anything else is asked of it. SSE4.1 is the least it knows.
void limit_dnnl() {
  [[maybe_unused]] static const bool limited = [] {
    if (max_isa() == Isa::avx512) return false;
    const auto limit = max_isa() == Isa::avx2 ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41;
    if (dnnl::set_max_cpu_isa(limit) != dnnl::status::success)
      fail(ErrorKind::config, "[BP_MAX_ISA] oneDNN refuses the limit: it was used before bp, or built without limits");
    return true;
  }();
}
}  // namespace

const dnnl::engine& cpu_engine() {
  limit_dnnl();
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

namespace {
const dnnl::stream& cpu_stream() {
  static thread_local const dnnl::stream stream(cpu_engine());
  return stream;
}
}  // namespace

Memory::data_type dnnl_type(DType t) {
  switch (t) {
    case DType::f32: return Memory::data_type::f32;
    case DType::bf16: return Memory::data_type::bf16;
    default: fail(ErrorKind::dtype, "[dnnl] expected f32 or bf16, got {}", name_of(t));
  }
}

int threads_for_flops(double flops, int most) {
  // One thread gains nothing from a second below this: 64x10x256 takes 6.5 us on one thread and 6.8 on two, 64x64x128
  // 13 us and 9.
  constexpr double kFlopsPerThread = 5e5;
  return std::max(1, static_cast<int>(std::min<double>(most, std::ceil(flops / kFlopsPerThread))));
}

bool is_reference(const std::string& impl) { return impl.find("ref") != std::string::npos; }

namespace {
bool has(dnnl::cpu_isa isa) {
  limit_dnnl();
  const int all = static_cast<int>(isa);  // instruction sets are bit masks
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & all) == all;
}
}  // namespace

bool has_avx2() {
  static const bool value = has(dnnl::cpu_isa::avx2);
  return value;
}

bool has_avx512() {
  static const bool value = has(dnnl::cpu_isa::avx512_core);
  return value;
}

int Primitive::add(int argument, const Desc& desc) {
  memories_.emplace_back(desc, cpu_engine(), nullptr);
  pointers_.push_back(nullptr);
  args_.push_back({argument, memories_.back().get()});
  return static_cast<int>(args_.size()) - 1;
}

void Primitive::set(int slot, const void* data) const {
  const auto i = static_cast<std::size_t>(slot);
  if (pointers_[i] == data) return;  // setting a handle also zeroes the padding of a blocked layout
  pointers_[i] = data;
  memories_[i].set_data_handle(const_cast<void*>(data));
}

void Primitive::execute() const {
  const dnnl_status_t status =
      dnnl_primitive_execute(primitive_.get(), cpu_stream().get(), static_cast<int>(args_.size()), args_.data());
  if (status != dnnl_success)
    fail(ErrorKind::value, "[dnnl] {} failed with status {}", impl_, static_cast<int>(status));
}

void Reorder::create(const Desc& from, const Desc& to) {
  primitive_.create(dnnl::reorder::primitive_desc(cpu_engine(), from, cpu_engine(), to));
  from_ = primitive_.add(DNNL_ARG_FROM, from);
  to_ = primitive_.add(DNNL_ARG_TO, to);
}

void Reorder::run(const void* from, void* to) const {
  primitive_.set(from_, from);
  primitive_.set(to_, to);
  primitive_.execute();
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

namespace {

// The smallest denormal. While an executable runs denormals count as zero, so negative numbers become −0; otherwise at
// most 1e-45 times themselves.
constexpr float kReluSlope = std::numeric_limits<float>::denorm_min();

dnnl::algorithm algorithm_of(Epilogue::Activation a) {
  switch (a) {
    case Epilogue::Activation::relu: return dnnl::algorithm::eltwise_relu;
    case Epilogue::Activation::tanh: return dnnl::algorithm::eltwise_tanh;
    case Epilogue::Activation::sigmoid: return dnnl::algorithm::eltwise_logistic;
    case Epilogue::Activation::gelu_tanh: return dnnl::algorithm::eltwise_gelu_tanh;
    case Epilogue::Activation::gelu_erf: return dnnl::algorithm::eltwise_gelu_erf;
    case Epilogue::Activation::none: break;
  }
  return dnnl::algorithm::undef;
}

}  // namespace

int append_epilogue(dnnl::primitive_attr& attr, const Epilogue& epilogue, const Desc& residual) {
  dnnl::post_ops ops;
  int residual_index = -1;
  if (epilogue.accumulate) ops.append_sum(1.0f);
  if (epilogue.residual) {
    residual_index = ops.len();
    ops.append_binary(dnnl::algorithm::binary_add, residual);
  }
  if (epilogue.activation != Epilogue::Activation::none) {
    // oneDNN's plain relu turns NaN into 0, which would hide a diverged network: the leaky one multiplies.
    const float alpha = epilogue.activation == Epilogue::Activation::relu ? kReluSlope : 0.0f;
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(algorithm_of(epilogue.activation), alpha, 0.0f);
#else
    ops.append_eltwise(1.0f, algorithm_of(epilogue.activation), alpha, 0.0f);
#endif
  }
  attr.set_post_ops(ops);
  return residual_index;
}

namespace {
constexpr auto kDirect = dnnl::algorithm::convolution_direct;
constexpr auto kForward = dnnl::prop_kind::forward_training;
}  // namespace

#if DNNL_VERSION_MAJOR >= 3

dnnl::matmul::primitive_desc matmul_desc(const Desc& a, const Desc& b, const Desc* bias, const Desc& c,
                                         const dnnl::primitive_attr& attr) {
  return bias ? dnnl::matmul::primitive_desc(cpu_engine(), a, b, *bias, c, attr)
              : dnnl::matmul::primitive_desc(cpu_engine(), a, b, c, attr);
}

dnnl::convolution_forward::primitive_desc conv_forward_desc(const ConvDescs& d, const dnnl::primitive_attr& attr) {
  if (d.has_bias)
    return {cpu_engine(), kForward, kDirect, d.x, d.w, d.bias, d.y, d.stride, d.dilation, d.pad_low, d.pad_high, attr};
  return {cpu_engine(), kForward, kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low, d.pad_high, attr};
}

dnnl::convolution_backward_data::primitive_desc conv_input_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                     const dnnl::primitive_attr& attr) {
  const auto hint = conv_forward_desc(forward, dnnl::primitive_attr());
  return {cpu_engine(), kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low, d.pad_high, hint, attr};
}

dnnl::convolution_backward_weights::primitive_desc conv_weight_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                         const dnnl::primitive_attr& attr) {
  const auto hint = conv_forward_desc(forward, dnnl::primitive_attr());
  return {cpu_engine(), kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low, d.pad_high, hint, attr};
}

#else

dnnl::matmul::primitive_desc matmul_desc(const Desc& a, const Desc& b, const Desc* bias, const Desc& c,
                                         const dnnl::primitive_attr& attr) {
  const auto desc = bias ? dnnl::matmul::desc(a, b, *bias, c) : dnnl::matmul::desc(a, b, c);
  return {desc, attr, cpu_engine()};
}

dnnl::convolution_forward::primitive_desc conv_forward_desc(const ConvDescs& d, const dnnl::primitive_attr& attr) {
  using Conv = dnnl::convolution_forward::desc;
  const auto desc = d.has_bias
                        ? Conv(kForward, kDirect, d.x, d.w, d.bias, d.y, d.stride, d.dilation, d.pad_low, d.pad_high)
                        : Conv(kForward, kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low, d.pad_high);
  return {desc, attr, cpu_engine()};
}

dnnl::convolution_backward_data::primitive_desc conv_input_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                     const dnnl::primitive_attr& attr) {
  const auto hint = conv_forward_desc(forward, dnnl::primitive_attr());
  const dnnl::convolution_backward_data::desc desc(kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low, d.pad_high);
  return {desc, attr, cpu_engine(), hint};
}

dnnl::convolution_backward_weights::primitive_desc conv_weight_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                         const dnnl::primitive_attr& attr) {
  const auto hint = conv_forward_desc(forward, dnnl::primitive_attr());
  const dnnl::convolution_backward_weights::desc desc(kDirect, d.x, d.w, d.y, d.stride, d.dilation, d.pad_low,
                                                      d.pad_high);
  return {desc, attr, cpu_engine(), hint};
}

#endif

}  // namespace bp::cpu::detail

// What the wrappers of this room share: oneDNN's engine, a prepared primitive with its arguments, and the few calls
// that differ between oneDNN 2 and 3. Included by the .cc files of this room only.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "bp/dtype.h"
#include "cpu/dnnl/matmul.h"

namespace bp::cpu::detail {

using Memory = dnnl::memory;
using Desc = dnnl::memory::desc;
using Dims = dnnl::memory::dims;

const dnnl::engine& cpu_engine();
Memory::data_type dnnl_type(DType t);
// How many threads, at most `most`, a product is worth.
int threads_for_flops(double flops, int most);
bool is_reference(const std::string& impl);  // oneDNN's scalar loops
bool has_avx2();
bool has_avx512();

// oneDNN takes its number of threads from OpenMP's setting of the calling thread, when a primitive is created (scratch
// memory, partition) as when it runs: both happen under one of these.
class ThreadScope {
 public:
  explicit ThreadScope(int threads) : before_(omp_get_max_threads()), changed_(threads != before_) {
    if (changed_) omp_set_num_threads(threads);
  }
  ~ThreadScope() {
    if (changed_) omp_set_num_threads(before_);
  }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
  bool changed_;
};

// A primitive and its arguments, created once; run() only exchanges pointers.
class Primitive {
 public:
  Primitive() = default;
  template <class PrimitiveDesc> void create(const PrimitiveDesc& pd) {
    primitive_ = dnnl::primitive(pd.get());
    impl_ = pd.impl_info_str();
    scratchpad_bytes_ = pd.scratchpad_desc().get_size();
    if (scratchpad_bytes_ > 0) scratchpad_slot_ = add(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
  }
  // Returns the slot for set().
  int add(int argument, const Desc& desc);
  void set(int slot, const void* data) const;
  void set_scratchpad(void* data) const {
    if (scratchpad_slot_ >= 0) set(scratchpad_slot_, data);
  }
  void execute() const;

  explicit operator bool() const noexcept { return static_cast<bool>(primitive_); }
  const std::string& impl() const noexcept { return impl_; }
  std::size_t scratchpad_bytes() const noexcept { return scratchpad_bytes_; }

 private:
  dnnl::primitive primitive_;
  mutable std::vector<dnnl::memory> memories_;
  std::vector<dnnl_exec_arg_t> args_;
  mutable std::vector<const void*> pointers_;
  std::string impl_;
  std::size_t scratchpad_bytes_ = 0;
  int scratchpad_slot_ = -1;
};

// A prepared reorder from one layout to another.
class Reorder {
 public:
  void create(const Desc& from, const Desc& to);
  void run(const void* from, void* to) const;
  explicit operator bool() const noexcept { return static_cast<bool>(primitive_); }

 private:
  Primitive primitive_;
  int from_ = 0, to_ = 0;
};

// The epilogue as post-ops, in the order of the contract: old value, residual, activation. The bias is an argument.
// Returns the index of the residual's post-op, or -1.
int append_epilogue(dnnl::primitive_attr& attr, const Epilogue& epilogue, const Desc& residual);

dnnl::primitive_attr user_scratchpad();

// The descriptions whose construction differs between the versions.
dnnl::matmul::primitive_desc matmul_desc(const Desc& a, const Desc& b, const Desc* bias, const Desc& c,
                                         const dnnl::primitive_attr& attr);

struct ConvDescs {
  Desc x, w, y;
  Desc bias;
  bool has_bias = false;
  Dims stride, dilation, pad_low, pad_high;  // dilation counts gaps: 0 is dense
};
dnnl::convolution_forward::primitive_desc conv_forward_desc(const ConvDescs& d, const dnnl::primitive_attr& attr);
// `forward`: the convolution whose gradient it is. oneDNN wants to see it, and knows none whose operands have several
// types, as those of a gradient may.
dnnl::convolution_backward_data::primitive_desc conv_input_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                     const dnnl::primitive_attr& attr);
dnnl::convolution_backward_weights::primitive_desc conv_weight_grad_desc(const ConvDescs& d, const ConvDescs& forward,
                                                                         const dnnl::primitive_attr& attr);

}  // namespace bp::cpu::detail

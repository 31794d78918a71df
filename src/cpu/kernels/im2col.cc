// Convolutions by gathered windows: see im2col.h.
#include "cpu/kernels/im2col.h"

#include <algorithm>
#include <cstring>

#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

// forward: columns [P, TI] · w [TI, O]; input_grad: dy [P, O] · w^T -> columns; weight_grad: columns^T · dy.
MatmulSpec product_spec(const ConvSpec& s, ConvKind kind, bool accumulate) {
  const std::int64_t positions = s.out_positions(), width = s.kernel_positions() * (s.in_channels / s.groups);
  const std::int64_t out = s.out_channels / s.groups;
  MatmulSpec m;
  m.dtype = s.dtype;
  switch (kind) {
    case ConvKind::forward:
      m.m = positions, m.n = out, m.k = width;
      m.ldb = m.ldc = m.ldr = s.out_channels;
      m.bias = s.epilogue.bias;
      m.residual = s.epilogue.residual;
      if (s.epilogue.activation == Epilogue::Activation::relu) m.activation = Activation::relu;
      if (s.epilogue.activation == Epilogue::Activation::tanh) m.activation = Activation::tanh;
      if (s.epilogue.activation == Epilogue::Activation::sigmoid) m.activation = Activation::sigmoid;
      break;
    case ConvKind::input_grad:
      m.m = positions, m.n = width, m.k = out;
      m.lda = m.ldb = s.out_channels;
      m.transpose_b = true;
      break;
    case ConvKind::weight_grad:
      m.m = width, m.n = out, m.k = positions;
      m.ldb = m.ldc = s.out_channels;
      m.transpose_a = true;
      m.accumulate = accumulate;
      break;
  }
  return m;
}

}  // namespace

Im2colConv::Im2colConv(const ConvSpec& spec, ConvKind kind)
    : spec_(spec),
      kind_(kind),
      positions_(spec.out_positions()),
      taps_(spec.kernel_positions()),
      in_group_(spec.in_channels / spec.groups),
      out_group_(spec.out_channels / spec.groups),
      in_image_(spec.in_positions() * spec.in_channels),
      out_image_(spec.out_positions() * spec.out_channels),
      column_bytes_(whole_lines(static_cast<std::size_t>(positions_ * taps_ * in_group_) * size_of(spec.dtype))),
      product_(product_spec(spec, kind, false)),
      adding_(product_spec(spec, kind, true)) {}

std::size_t Im2colConv::workspace_bytes(int threads) const noexcept {
  if (kind_ == ConvKind::weight_grad)
    return column_bytes_ + whole_lines(std::max(product_.workspace_bytes(threads), adding_.workspace_bytes(threads)));
  return static_cast<std::size_t>(threads) * (column_bytes_ + whole_lines(product_.workspace_bytes(1)));
}

int Im2colConv::preferred_threads() const noexcept {
  constexpr double kFlopsPerThread = 2e5;
  constexpr double kMany = 1024;
  const double work = std::max(1.0, std::min(kMany, spec_.flops() / kFlopsPerThread));
  if (kind_ == ConvKind::weight_grad) return product_.useful_threads(static_cast<int>(work));
  return static_cast<int>(std::min(work, static_cast<double>(std::max<std::int64_t>(spec_.batch, 1))));
}

// Calls f(position · taps + tap, first element of the pixel) for the taps inside, f(.., -1) for those in the padding.
template <class F> void Im2colConv::each_window(F f) const {
  std::int64_t o[3], t[3];
  for (std::int64_t p = 0; p < positions_; ++p) {
    for (std::int64_t rest = p, d = spec_.spatial; d-- > 0; rest /= spec_.out(static_cast<int>(d)))
      o[d] = rest % spec_.out(static_cast<int>(d));
    std::fill_n(t, 3, 0);
    for (std::int64_t tap = 0; tap < taps_; ++tap) {
      std::int64_t pixel = 0;
      bool inside = true;
      for (int d = 0; d < spec_.spatial; ++d) {
        const auto i = static_cast<std::size_t>(d);
        const std::int64_t at = o[d] * spec_.stride[i] + t[d] * spec_.dilation[i] - spec_.pad_low[i];
        inside = inside && at >= 0 && at < spec_.in[i];
        pixel = pixel * spec_.in[i] + at;
      }
      f(p * taps_ + tap, inside ? pixel * spec_.in_channels : -1);
      for (int d = spec_.spatial; d-- > 0;) {
        if (++t[d] < spec_.kernel[static_cast<std::size_t>(d)]) break;
        t[d] = 0;
      }
    }
  }
}

template <class T> void Im2colConv::gather(const T* image, std::int64_t group, T* columns) const {
  each_window([&](std::int64_t cell, std::int64_t pixel) {
    T* to = columns + cell * in_group_;
    if (pixel < 0)
      std::fill_n(to, in_group_, T(0));
    else
      std::copy_n(image + pixel + group * in_group_, in_group_, to);
  });
}

template <class T> void Im2colConv::scatter(const T* columns, std::int64_t group, T* image) const {
  each_window([&](std::int64_t cell, std::int64_t pixel) {
    if (pixel < 0) return;
    const T* from = columns + cell * in_group_;
    T* to = image + pixel + group * in_group_;
    for (std::int64_t c = 0; c < in_group_; ++c) to[c] += from[c];
  });
}

template <class T>
void Im2colConv::run_image(std::int64_t n, const T* first, const T* second, const void* bias, const T* residual, T* out,
                           T* columns, void* product_space) const {
  if (kind_ == ConvKind::input_grad) std::fill_n(out + n * in_image_, in_image_, T(0));
  for (std::int64_t g = 0; g < spec_.groups; ++g) {
    const std::int64_t at = n * out_image_ + g * out_group_;  // of y or dy
    if (kind_ == ConvKind::forward) {
      gather(first + n * in_image_, g, columns);
      const T* b = bias ? static_cast<const T*>(bias) + g * out_group_ : nullptr;
      product_.run(columns, second + g * out_group_, b, residual ? residual + at : nullptr, out + at, product_space, 1);
    } else {
      product_.run(first + at, second + g * out_group_, nullptr, nullptr, columns, product_space, 1);
      scatter(columns, g, out + n * in_image_);
    }
  }
}

template <class T>
void Im2colConv::run_weight_grad(const T* x, const T* dy, T* dw, T* columns, void* space, int threads) const {
  if (spec_.batch == 0 || positions_ == 0) std::fill_n(dw, spec_.weight_size(), T(0));
  for (std::int64_t n = 0; n < spec_.batch; ++n)
    for (std::int64_t g = 0; g < spec_.groups; ++g) {
      gather(x + n * in_image_, g, columns);
      (n == 0 ? product_ : adding_)
          .run(columns, dy + n * out_image_ + g * out_group_, nullptr, nullptr, dw + g * out_group_, space, threads);
    }
}

template <class T>
void Im2colConv::run_as(const void* first, const void* second, const void* bias, const void* residual, void* out,
                        char* workspace, int threads) const {
  const auto *a = static_cast<const T*>(first), *b = static_cast<const T*>(second);
  const auto* r = static_cast<const T*>(residual);
  auto* to = static_cast<T*>(out);
  if (kind_ == ConvKind::weight_grad)
    return run_weight_grad(a, b, to, reinterpret_cast<T*>(workspace), workspace + column_bytes_, threads);
  const std::size_t each = column_bytes_ + whole_lines(product_.workspace_bytes(1));
  share(spec_.batch, threads, [&](std::int64_t begin, std::int64_t end) {
    char* mine = workspace + each * static_cast<std::size_t>(threads > 1 ? omp_get_thread_num() : 0);
    for (std::int64_t n = begin; n < end; ++n)
      run_image(n, a, b, bias, r, to, reinterpret_cast<T*>(mine), mine + column_bytes_);
  });
}

void Im2colConv::run(const void* first, const void* second, const void* bias, const void* residual, void* out,
                     void* workspace, int threads) const {
  char* space = static_cast<char*>(workspace);
  if (spec_.dtype == f64)
    run_as<double>(first, second, bias, residual, out, space, threads);
  else
    run_as<float>(first, second, bias, residual, out, space, threads);
}

}  // namespace bp::cpu

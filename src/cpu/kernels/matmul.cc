// Choosing and driving a matrix product: loops over register tiles, blocks and threads. The SIMD is in matmul_micro.cc.
#include "cpu/kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/kernels/block_product.h"
#include "cpu/kernels/matmul_micro.h"
#include "cpu/kernels/share.h"

namespace bp::cpu {

// The operands of a run, in the orientation of work_.
struct MatmulKernel::Call {
  const char *a, *b, *bias, *residual;
  char* c;
  std::int64_t a_row, a_k;  // element strides of op(A)
  std::int64_t b_k, b_col;  // and of op(B)
  std::int64_t bytes;       // of an element
  bool bias_is_one;
};

MatmulKernel::MatmulKernel(const MatmulSpec& spec) : spec_(spec), micro_(&micro_table(spec.dtype)) {
  assert(spec.dtype == f32 || spec.dtype == f64);
  if (spec_.lda == 0) spec_.lda = spec_.transpose_a ? spec_.m : spec_.k;
  if (spec_.ldb == 0) spec_.ldb = spec_.transpose_b ? spec_.k : spec_.n;
  if (spec_.ldc == 0) spec_.ldc = spec_.n;
  if (spec_.ldr == 0) spec_.ldr = spec_.n;
  choose();
}

MatmulKernel::~MatmulKernel() = default;

void MatmulKernel::choose() {
  work_ = spec_;
  const bool contiguous_column = spec_.n == 1 && spec_.ldc == 1 && (!spec_.residual || spec_.ldr == 1);
  if (contiguous_column && spec_.transpose_a && spec_.m > 1) {
    // C^T [1, m] = op(B)^T [1, k] A [k, m], whose rows are contiguous.
    swapped_ = true;
    work_.m = 1, work_.n = spec_.m;
    work_.lda = spec_.ldb, work_.transpose_a = !spec_.transpose_b;
    work_.ldb = spec_.lda, work_.transpose_b = false;
    work_.ldc = work_.ldr = spec_.m;
  }
  const auto& w = work_;
  if (BlockProduct::takes(w)) {
    method_ = Method::code;
    code_ = std::make_unique<const BlockProduct>(w);
    return;
  }
  const bool a_along_k = !w.transpose_a || (w.m == 1 && w.lda == 1);
  const bool b_along_k = w.transpose_b || (w.n == 1 && w.ldb == 1);
  const std::int64_t macs = w.m * w.n * w.k, lanes = micro_->lanes;
  if (a_along_k && b_along_k && (w.m == 1 || w.n == 1) && w.k >= 2 * lanes) {
    method_ = Method::dots;
  } else if (w.m >= 2 * kMicroRows && macs >= 112 * 112 * 112) {
    method_ = Method::blocked;
  } else {
    method_ = w.transpose_b ? Method::packed_b : Method::direct;
  }
  // A block of A stays in half of a 512 KB second-level cache, a panel of B in half of the first.
  kc_ = std::max<std::int64_t>(std::min<std::int64_t>(w.k, 256), 1);
  if (w.residual) kc_ = std::max<std::int64_t>(w.k, 1);  // C may be the residual: it cannot hold partial sums
  mc_ =
      std::max<std::int64_t>(196608 / (kc_ * static_cast<std::int64_t>(size_of(w.dtype))) / kMicroRows, 1) * kMicroRows;
  // At least four blocks of rows, so that threads share them.
  mc_ = std::min(mc_, up_to(std::max<std::int64_t>((w.m + 3) / 4, 1), kMicroRows));
  nc_ = std::min<std::int64_t>(up_to(std::max<std::int64_t>(w.n, 1), lanes * micro_->vectors),
                               4080 / (lanes * micro_->vectors) * lanes * micro_->vectors);
}

std::size_t MatmulKernel::workspace_bytes(int threads) const noexcept {
  const auto bytes = static_cast<std::int64_t>(size_of(work_.dtype));
  switch (method_) {
    case Method::direct:
    case Method::dots: return 0;
    case Method::code: return code_->workspace_bytes(threads);
    case Method::packed_b:
      return whole_lines(static_cast<std::size_t>(work_.k * up_to(work_.n, micro_->lanes) * bytes));
    case Method::blocked:
      return whole_lines(static_cast<std::size_t>(kc_ * nc_ * bytes)) +
             static_cast<std::size_t>(threads) * whole_lines(static_cast<std::size_t>(mc_ * kc_ * bytes));
  }
  return 0;
}

int MatmulKernel::useful_threads(int max_threads) const noexcept {
  constexpr std::int64_t kWorthOneThread = 100000;  // multiply-adds: some 5 us in f32
  const std::int64_t n = work_.m * work_.n * work_.k / kWorthOneThread;
  return static_cast<int>(std::clamp<std::int64_t>(n, 1, std::max(max_threads, 1)));
}

// Register tiles over rows [row_begin, row_end) and all columns; op(B) must be contiguous along the columns.
void MatmulKernel::run_tiles(const Call& call, std::int64_t row_begin, std::int64_t row_end) const {
  const std::int64_t width = micro_->lanes * micro_->vectors;
  TileProduct t;
  t.k = work_.k, t.a_row = call.a_row, t.a_k = call.a_k, t.ldb = call.b_k;
  t.out = {nullptr, work_.ldc, nullptr, call.bias_is_one, nullptr, work_.ldr, work_.activation, work_.accumulate};
  for (std::int64_t col = 0; col < work_.n; col += width) {
    const std::int64_t cols = std::min(width, work_.n - col);
    const std::int64_t vectors = (cols + micro_->lanes - 1) / micro_->lanes;
    t.tail = cols - (vectors - 1) * micro_->lanes;
    t.b = call.b + col * call.bytes;
    if (call.bias) t.out.bias = call.bias + (call.bias_is_one ? 0 : col) * call.bytes;
    // Tiles as equal as can be: a tile of one or two rows would wait for its few chains of additions.
    std::int64_t tiles = (row_end - row_begin + kMicroRows - 1) / kMicroRows;
    for (std::int64_t row = row_begin, rows = 0; row < row_end; row += rows, --tiles) {
      rows = (row_end - row + tiles - 1) / tiles;
      t.a = call.a + row * call.a_row * call.bytes;
      t.out.c = call.c + (row * work_.ldc + col) * call.bytes;
      if (call.residual) t.out.residual = call.residual + (row * work_.ldr + col) * call.bytes;
      micro_->direct[rows - 1][vectors - 1][t.tail != micro_->lanes](t);
    }
  }
}

// Elements [begin, end) of a C of one row or one column.
void MatmulKernel::run_dots(const Call& call, std::int64_t begin, std::int64_t end) const {
  const bool row = work_.m == 1;  // C is a row: the rows of B meet the one of A
  const std::int64_t c_step = row ? 1 : work_.ldc, r_step = row ? 1 : work_.ldr;
  TileEpilogue out{call.c + begin * c_step * call.bytes,
                   c_step,
                   nullptr,
                   !row || call.bias_is_one,
                   nullptr,
                   r_step,
                   work_.activation,
                   work_.accumulate};
  if (call.bias) out.bias = call.bias + (out.bias_is_one ? 0 : begin) * call.bytes;
  if (call.residual) out.residual = call.residual + begin * r_step * call.bytes;
  const char* rows = row ? call.b : call.a;
  const std::int64_t step = row ? work_.ldb : work_.lda;
  micro_->dots(end - begin, work_.k, rows + begin * step * call.bytes, step, row ? call.a : call.b, 1, out);
}

void MatmulKernel::pack_a(const Call& call, std::int64_t row, std::int64_t rows, std::int64_t p, std::int64_t depth,
                          char* out) const {
  for (std::int64_t r = 0; r < rows; r += kMicroRows, out += kMicroRows * depth * call.bytes) {
    const std::int64_t here = std::min(kMicroRows, rows - r);
    const char* from = call.a + ((row + r) * call.a_row + p * call.a_k) * call.bytes;
    if (call.a_k == 1) {
      micro_->transpose(from, call.a_row, here, depth, out, kMicroRows);
      continue;
    }
    micro_->copy_rows(from, call.a_k, depth, here, out, kMicroRows);
  }
}

void MatmulKernel::pack_b(const Call& call, std::int64_t col, std::int64_t cols, std::int64_t p, std::int64_t depth,
                          char* out) const {
  const std::int64_t width = micro_->lanes * micro_->vectors;
  const char* from = call.b + (p * call.b_k + col * call.b_col) * call.bytes;
  if (cols < width) std::memset(out, 0, static_cast<std::size_t>(width * depth * call.bytes));
  if (call.b_col != 1) return micro_->transpose(from, call.b_col, cols, depth, out, width);
  micro_->copy_rows(from, call.b_k, depth, cols, out, width);
}

// Goto's loops: a panel of B shared by all threads, blocks of A private to one; over k outermost, in order.
void MatmulKernel::run_blocked(const Call& call, char* workspace, int thread, int threads) const {
  const std::int64_t width = micro_->lanes * micro_->vectors;
  char* packed_b = workspace;
  char* packed_a = workspace + whole_lines(static_cast<std::size_t>(kc_ * nc_ * call.bytes)) +
                   static_cast<std::size_t>(thread) * whole_lines(static_cast<std::size_t>(mc_ * kc_ * call.bytes));
  const std::int64_t row_blocks = (work_.m + mc_ - 1) / mc_;
  // Rows that are contiguous along k are read where they are: transposing them would cost 1 ns an element, a fifth of
  // the product at 192 columns.
  const bool packs_a = call.a_k != 1;
  const auto& products = packs_a ? micro_->packed : micro_->direct;
  TileProduct t;
  t.a_row = call.a_row, t.a_k = call.a_k, t.ldb = width;
  for (std::int64_t jc = 0; jc < work_.n; jc += nc_) {
    const std::int64_t cols = std::min(nc_, work_.n - jc), panels = (cols + width - 1) / width;
    for (std::int64_t pc = 0; pc < work_.k; pc += kc_) {
      t.k = std::min(kc_, work_.k - pc);
      const bool first = pc == 0, last = pc + t.k == work_.k;
      for (std::int64_t j = panels * thread / threads; j < panels * (thread + 1) / threads; ++j)
        pack_b(call, jc + j * width, std::min(width, cols - j * width), pc, t.k,
               packed_b + j * width * t.k * call.bytes);
      if (threads > 1) {
#pragma omp barrier
      }
      for (std::int64_t block = row_blocks * thread / threads; block < row_blocks * (thread + 1) / threads; ++block) {
        const std::int64_t row = block * mc_, rows = std::min(mc_, work_.m - row);
        if (packs_a) pack_a(call, row, rows, pc, t.k, packed_a);
        for (std::int64_t j = 0; j < cols; j += width) {
          const std::int64_t here = std::min(width, cols - j), vectors = (here + micro_->lanes - 1) / micro_->lanes;
          t.tail = here - (vectors - 1) * micro_->lanes;
          t.b = packed_b + j * t.k * call.bytes;
          t.out = {nullptr,
                   work_.ldc,
                   nullptr,
                   call.bias_is_one,
                   nullptr,
                   work_.ldr,
                   last ? work_.activation : Activation::none,
                   !first || work_.accumulate};
          if (last && call.bias) t.out.bias = call.bias + (call.bias_is_one ? 0 : jc + j) * call.bytes;
          for (std::int64_t r = 0; r < rows; r += kMicroRows) {
            t.a = packs_a ? packed_a + r * t.k * call.bytes : call.a + ((row + r) * call.a_row + pc) * call.bytes;
            t.out.c = call.c + ((row + r) * work_.ldc + jc + j) * call.bytes;
            if (last && call.residual) t.out.residual = call.residual + ((row + r) * work_.ldr + jc + j) * call.bytes;
            products[std::min(kMicroRows, rows - r) - 1][vectors - 1][t.tail != micro_->lanes](t);
          }
        }
      }
      if (threads > 1) {
#pragma omp barrier
      }
    }
  }
}

void MatmulKernel::run(const void* a, const void* b, const void* bias, const void* residual, void* c, void* workspace,
                       int threads) const {
  if (work_.m == 0 || work_.n == 0) return;
  if (code_ != nullptr)
    return code_->run({static_cast<const float*>(a), static_cast<const float*>(b), static_cast<const float*>(bias),
                       static_cast<const float*>(residual), static_cast<float*>(c)},
                      workspace, threads);
  Call call{};
  call.a = static_cast<const char*>(swapped_ ? b : a);
  call.b = static_cast<const char*>(swapped_ ? a : b);
  call.bias = spec_.bias ? static_cast<const char*>(bias) : nullptr;
  call.residual = spec_.residual ? static_cast<const char*>(residual) : nullptr;
  call.c = static_cast<char*>(c);
  call.a_row = work_.transpose_a ? 1 : work_.lda, call.a_k = work_.transpose_a ? work_.lda : 1;
  call.b_k = work_.transpose_b ? 1 : work_.ldb, call.b_col = work_.transpose_b ? work_.ldb : 1;
  call.bytes = static_cast<std::int64_t>(size_of(work_.dtype));
  call.bias_is_one = swapped_;
  if (method_ == Method::packed_b) {
    const std::int64_t ld = up_to(work_.n, micro_->lanes);
    micro_->transpose(b, work_.ldb, work_.n, work_.k, workspace, ld);
    call.b = static_cast<const char*>(workspace);
    call.b_k = ld, call.b_col = 1;
  }
  const std::int64_t line = method_ == Method::dots && work_.m == 1 ? work_.n : work_.m;
  const std::int64_t units = method_ == Method::dots ? (line + 15) / 16 : (line + kMicroRows - 1) / kMicroRows;
  const std::int64_t step = method_ == Method::dots ? 16 : kMicroRows;
  const auto part = [&](int thread, int team) {
    if (method_ == Method::blocked) return run_blocked(call, static_cast<char*>(workspace), thread, team);
    const std::int64_t begin = units * thread / team * step, end = std::min(line, units * (thread + 1) / team * step);
    if (method_ == Method::dots) return run_dots(call, begin, end);
    run_tiles(call, begin, end);
  };
  const int team = static_cast<int>(std::clamp<std::int64_t>(threads, 1, units));
  run_team(team, part);
}

namespace {
template <class T> void reference(const MatmulSpec& s, const T* a, const T* b, const T* bias, const T* residual, T* c) {
  const std::int64_t lda = s.lda ? s.lda : s.transpose_a ? s.m : s.k, ldb = s.ldb ? s.ldb : s.transpose_b ? s.k : s.n;
  const std::int64_t ldc = s.ldc ? s.ldc : s.n, ldr = s.ldr ? s.ldr : s.n;
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < s.n; ++j) {
      double sum = s.accumulate ? static_cast<double>(c[i * ldc + j]) : 0;
      for (std::int64_t p = 0; p < s.k; ++p)
        sum += static_cast<double>(s.transpose_a ? a[p * lda + i] : a[i * lda + p]) *
               static_cast<double>(s.transpose_b ? b[j * ldb + p] : b[p * ldb + j]);
      if (s.bias) sum += static_cast<double>(bias[j]);
      switch (s.activation) {
        case Activation::none: break;
        case Activation::relu: sum = sum < 0 ? 0 : sum; break;
        case Activation::tanh: sum = std::tanh(sum); break;
        case Activation::sigmoid: sum = 1 / (1 + std::exp(-sum)); break;
      }
      if (s.residual) sum += static_cast<double>(residual[i * ldr + j]);
      c[i * ldc + j] = static_cast<T>(sum);
    }
}
}  // namespace

void reference_matmul(const MatmulSpec& spec, const void* a, const void* b, const void* bias, const void* residual,
                      void* c) {
  if (spec.dtype == f64)
    reference(spec, static_cast<const double*>(a), static_cast<const double*>(b), static_cast<const double*>(bias),
              static_cast<const double*>(residual), static_cast<double*>(c));
  else
    reference(spec, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<const float*>(bias),
              static_cast<const float*>(residual), static_cast<float*>(c));
}

}  // namespace bp::cpu

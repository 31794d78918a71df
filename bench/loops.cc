// Fused loops against hand-written C++ of the same kernels, and against copying as many bytes.
// The twins are plain loops over floats with a polynomial for exp, compiled by g++ for AVX2 and FMA at -O3 with
// fast-math (the pragma below), which vectorises all of them; each is compared with the loop's results first.
// Figures: tensors in memory: the share of copy bandwidth, the twin's too, with one thread and with all; tensors in the
// second cache: the loop's time over its twin's, one thread. usage: loops [--threads 2] [--seconds 0.05 a figure]
// [--only gelu,adam]
// [--json]
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/random_word.h"
#include "bp/buffer.h"
#include "cpu/kernels/loop_program.h"

namespace {

using namespace bp;
using namespace bp::cpu;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kSeed = 7, kCounter = 3;
constexpr std::uint64_t kPlace = 11;

// ---- the twins

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#pragma GCC optimize("O3,fast-math,fp-contract=fast")

#define BP_TWIN __attribute__((noinline)) void
#define BP_INLINE inline __attribute__((always_inline))

// 2^(x / ln 2) with a polynomial of degree 6 on the fraction; 2 ulp.
BP_INLINE float exp_by_hand(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float n = __builtin_nearbyintf(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = (p * r + 1.0f) * r + 1.0f;
  const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}
BP_INLINE float sigmoid_by_hand(float x) { return 1.0f / (1.0f + exp_by_hand(-x)); }

BP_TWIN gelu_twin(const float* __restrict x, float* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float v = x[i];
    y[i] = v * sigmoid_by_hand(1.5957691216f * (v + 0.044715f * v * v * v));
  }
}

BP_TWIN gelu_back_twin(const float* __restrict x, const float* __restrict dy, float* __restrict dx, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float v = x[i], t = sigmoid_by_hand(1.5957691216f * (v + 0.044715f * v * v * v));
    const float slope = 1.5957691216f * (1.0f + 3.0f * 0.044715f * v * v);
    dx[i] = dy[i] * (t + v * (t * (1.0f - t)) * slope);
  }
}

BP_TWIN adam_twin(const float* __restrict w, const float* __restrict g, const float* __restrict m,
                  const float* __restrict v, float* __restrict w2, float* __restrict m2, float* __restrict v2,
                  std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const float a = 0.9f * m[i] + 0.1f * g[i], b = 0.999f * v[i] + 0.001f * g[i] * g[i];
    m2[i] = a, v2[i] = b;
    w2[i] = w[i] - 1e-3f * a / (__builtin_sqrtf(b) + 1e-8f);
  }
}

BP_TWIN layer_norm_twin(const float* x, const float* gain, const float* bias, float* y, std::size_t rows,
                        std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n, y += n) {
    float sum = 0, square = 0;
    for (std::size_t c = 0; c < n; ++c) sum += x[c];
    const float mu = sum / static_cast<float>(n);
    for (std::size_t c = 0; c < n; ++c) square += (x[c] - mu) * (x[c] - mu);
    const float s = 1.0f / __builtin_sqrtf(square / static_cast<float>(n) + 1e-5f);
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) y[c] = (x[c] - mu) * s * gain[c] + bias[c];
  }
}

// dx alone, the statistics computed again.
BP_TWIN layer_norm_back_twin(const float* x, const float* dy, const float* gain, float* dx, std::size_t rows,
                             std::size_t n) {
  const float scale = 1.0f / static_cast<float>(n);
  for (std::size_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    float sum = 0, square = 0, g_sum = 0, gn_sum = 0;
    for (std::size_t c = 0; c < n; ++c) sum += x[c];
    const float mu = sum * scale;
    for (std::size_t c = 0; c < n; ++c) {
      const float d = x[c] - mu, g = dy[c] * gain[c];
      square += d * d, g_sum += g, gn_sum += g * d;
    }
    const float s = 1.0f / __builtin_sqrtf(square * scale + 1e-5f), a = g_sum * scale, b = gn_sum * s * scale;
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) dx[c] = s * (dy[c] * gain[c] - a - (x[c] - mu) * s * b);
  }
}

BP_TWIN softmax_twin(const float* x, float* y, std::size_t rows, std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n, y += n) {
    float top = x[0], sum = 0;
    for (std::size_t c = 0; c < n; ++c) top = x[c] > top ? x[c] : top;
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) sum += y[c] = exp_by_hand(x[c] - top);
    const float scale = 1.0f / sum;
    for (std::size_t c = 0; c < n; ++c) y[c] *= scale;
  }
}

// loss[r] = log sum exp x - x[target]
BP_TWIN cross_entropy_twin(const float* x, const std::int64_t* target, float* loss, std::size_t rows, std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n) {
    float top = x[0], sum = 0;
    for (std::size_t c = 0; c < n; ++c) top = x[c] > top ? x[c] : top;
    for (std::size_t c = 0; c < n; ++c) sum += exp_by_hand(x[c] - top);
    loss[r] = __builtin_logf(sum) + top - x[target[r]];
  }
}

BP_TWIN cross_entropy_back_twin(const float* x, const std::int64_t* target, float* dx, std::size_t rows,
                                std::size_t n) {
  const float each = 1.0f / static_cast<float>(rows);
  for (std::size_t r = 0; r < rows; ++r, x += n, dx += n) {
    float top = x[0], sum = 0;
    for (std::size_t c = 0; c < n; ++c) top = x[c] > top ? x[c] : top;
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) sum += dx[c] = exp_by_hand(x[c] - top);
    const float scale = each / sum;
    for (std::size_t c = 0; c < n; ++c) dx[c] *= scale;
    dx[target[r]] -= each;
  }
}

// Philox4x32-10 with eight counters side by side, as the loop must draw the same bits.
BP_TWIN dropout_twin(const float* __restrict x, float* __restrict y, std::size_t n, std::uint64_t key,
                     std::uint64_t step) {
  for (std::size_t i = 0; i < n; i += 32) {
    std::uint32_t a[8], b[8], c[8], d[8];
    for (std::uint32_t k = 0; k < 8; ++k) {
      a[k] = static_cast<std::uint32_t>(i / 4) + k, b[k] = 0;
      c[k] = static_cast<std::uint32_t>(step), d[k] = static_cast<std::uint32_t>(step >> 32);
    }
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
      for (int k = 0; k < 8; ++k) {
        const std::uint64_t p = std::uint64_t{0xD2511F53u} * a[k], q = std::uint64_t{0xCD9E8D57u} * c[k];
        a[k] = static_cast<std::uint32_t>(q >> 32) ^ b[k] ^ k0, b[k] = static_cast<std::uint32_t>(q);
        c[k] = static_cast<std::uint32_t>(p >> 32) ^ d[k] ^ k1, d[k] = static_cast<std::uint32_t>(p);
      }
    std::uint32_t words[32];
    for (int k = 0; k < 8; ++k)
      words[4 * k] = a[k], words[4 * k + 1] = b[k], words[4 * k + 2] = c[k], words[4 * k + 3] = d[k];
    const std::size_t m = n - i < 32 ? n - i : 32;
    for (std::size_t k = 0; k < m; ++k)
      y[i + k] = static_cast<std::int32_t>(words[k] >> 8) < 15099494 ? x[i + k] * (1.0f / 0.9f) : 0.0f;
  }
}

BP_TWIN bias_relu_twin(const float* x, const float* b, float* y, std::size_t rows, std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n, y += n)
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) y[c] = x[c] + b[c] > 0 ? x[c] + b[c] : 0;
}

// Sums of x and x^2 by column.
BP_TWIN moments_twin(const float* x, float* __restrict sum, float* __restrict square, std::size_t rows, std::size_t n) {
  for (std::size_t c = 0; c < n; ++c) sum[c] = square[c] = 0;
  for (std::size_t r = 0; r < rows; ++r, x += n)
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) sum[c] += x[c], square[c] += x[c] * x[c];
}

BP_TWIN normalise_twin(const float* x, const float* a, const float* b, float* y, std::size_t rows, std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n, y += n)
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) y[c] = x[c] * a[c] + b[c];
}

// dgain = sum dy (x - mu) s, dbias = sum dy
BP_TWIN norm_sums_twin(const float* x, const float* dy, const float* mu, const float* s, float* __restrict dgain,
                       float* __restrict dbias, std::size_t rows, std::size_t n) {
  for (std::size_t c = 0; c < n; ++c) dgain[c] = dbias[c] = 0;
  for (std::size_t r = 0; r < rows; ++r, x += n, dy += n)
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) dgain[c] += dy[c] * (x[c] - mu[c]) * s[c], dbias[c] += dy[c];
}

// dx = a (dy - b - (x - mu) d)
BP_TWIN norm_back_twin(const float* x, const float* dy, const float* mu, const float* a, const float* b, const float* d,
                       float* dx, std::size_t rows, std::size_t n) {
  for (std::size_t r = 0; r < rows; ++r, x += n, dy += n, dx += n)
#pragma GCC ivdep
    for (std::size_t c = 0; c < n; ++c) dx[c] = a[c] * (dy[c] - b[c] - (x[c] - mu[c]) * d[c]);
}

#pragma GCC pop_options

// ---- the loops

// Tensors begin with a cache line, as those of an executable do.
template <class T> struct WholeLines {
  using value_type = T;
  WholeLines() = default;
  template <class U> WholeLines(const WholeLines<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64)); }
  void deallocate(T* p, std::size_t) { std::free(p); }
  bool operator==(const WholeLines&) const = default;
};

// Operands as memory: floats, or 64-bit integers in twice as many.
using Floats = std::vector<float, WholeLines<float>>;
using Memory = std::vector<Floats>;
const std::int64_t* integers(const Floats& v) { return reinterpret_cast<const std::int64_t*>(v.data()); }

struct Case {
  const char* name;
  LoopProgram program;
  int bytes;  // an element, read and written
  std::function<void(Memory&)> twin;
};

struct Space {
  std::int64_t rows, cols;
  LoopAccess full = LoopAccess::full(rows, cols), col = LoopAccess::per_column(), row = LoopAccess::per_row(rows);
  std::size_t n = static_cast<std::size_t>(rows * cols), r = static_cast<std::size_t>(rows),
              c = static_cast<std::size_t>(cols);
  LoopProgram program() const {
    LoopProgram p;
    p.rows = rows, p.cols = cols;
    return p;
  }
};

// Short names for what programs are made of.
int mul(LoopProgram& p, int a, int b) { return p.binary(LoopOp::mul, a, b); }
int add(LoopProgram& p, int a, int b) { return p.binary(LoopOp::add, a, b); }
int sub(LoopProgram& p, int a, int b) { return p.binary(LoopOp::sub, a, b); }
int scaled(LoopProgram& p, double s, int a) { return mul(p, p.constant(s), a); }
int mean(LoopProgram& p, int v) { return scaled(p, 1.0 / static_cast<double>(p.cols), p.reduce(LoopOp::row_sum, v)); }
int cubic_sigmoid(LoopProgram& p, int x) {
  const int cube = mul(p, mul(p, x, x), x);
  return p.unary(LoopOp::sigmoid, scaled(p, 1.5957691216, add(p, x, scaled(p, 0.044715, cube))));
}

Case gelu(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), y = p.output(f32, s.full);
  p.store(y, mul(p, x, cubic_sigmoid(p, x)));
  return {"gelu", p, 8, [n = s.n](Memory& m) { gelu_twin(m[0].data(), m[1].data(), n); }};
}

Case gelu_back(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), dy = p.load(p.input(f32, s.full)), dx = p.output(f32, s.full);
  const int t = cubic_sigmoid(p, x);
  const int slope = scaled(p, 1.5957691216, add(p, p.constant(1), scaled(p, 3 * 0.044715, mul(p, x, x))));
  const int bend = mul(p, mul(p, t, sub(p, p.constant(1), t)), slope);
  p.store(dx, mul(p, dy, add(p, t, mul(p, x, bend))));
  return {"gelu back", p, 12, [n = s.n](Memory& m) { gelu_back_twin(m[0].data(), m[1].data(), m[2].data(), n); }};
}

Case adam(const Space& s) {
  LoopProgram p = s.program();
  const int w = p.input(f32, s.full), g = p.input(f32, s.full), m = p.input(f32, s.full), v = p.input(f32, s.full);
  const int w2 = p.output(f32, s.full, w), m2 = p.output(f32, s.full, m), v2 = p.output(f32, s.full, v);
  const int grad = p.load(g);
  const int m_new = add(p, scaled(p, 0.9, p.load(m)), scaled(p, 0.1, grad));
  const int v_new = add(p, scaled(p, 0.999, p.load(v)), scaled(p, 0.001, mul(p, grad, grad)));
  const int denominator = add(p, p.unary(LoopOp::sqrt, v_new), p.constant(1e-8));
  p.store(m2, m_new);
  p.store(v2, v_new);
  p.store(w2, sub(p, p.load(w), p.binary(LoopOp::div, scaled(p, 1e-3, m_new), denominator)));
  return {"adam", p, 28, [n = s.n](Memory& t) {
            adam_twin(t[0].data(), t[1].data(), t[2].data(), t[3].data(), t[4].data(), t[5].data(), t[6].data(), n);
          }};
}

// (x - mean) and 1 / deviation of a row.
std::pair<int, int> normalised(LoopProgram& p, int x) {
  const int centred = sub(p, x, mean(p, x));
  return {centred, p.unary(LoopOp::rsqrt, add(p, mean(p, mul(p, centred, centred)), p.constant(1e-5)))};
}

Case layer_norm(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), gain = p.load(p.input(f32, s.col));
  const int bias = p.load(p.input(f32, s.col)), y = p.output(f32, s.full);
  const auto [centred, rstd] = normalised(p, x);
  p.store(y, add(p, mul(p, mul(p, centred, rstd), gain), bias));
  return {"layer norm", p, 8,
          [s](Memory& m) { layer_norm_twin(m[0].data(), m[1].data(), m[2].data(), m[3].data(), s.r, s.c); }};
}

Case layer_norm_back(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), dy = p.load(p.input(f32, s.full)), gain = p.load(p.input(f32, s.col));
  const int dx = p.output(f32, s.full);
  const auto [centred, rstd] = normalised(p, x);
  const int n = mul(p, centred, rstd), g = mul(p, dy, gain);
  p.store(dx, mul(p, rstd, sub(p, sub(p, g, mean(p, g)), mul(p, n, mean(p, mul(p, g, n))))));
  return {"layer norm back", p, 12,
          [s](Memory& m) { layer_norm_back_twin(m[0].data(), m[1].data(), m[2].data(), m[3].data(), s.r, s.c); }};
}

// exp(x - max) and the sum of it.
std::pair<int, int> exponentials(LoopProgram& p, int x, int top) {
  const int e = p.unary(LoopOp::exp, sub(p, x, top));
  return {e, p.reduce(LoopOp::row_sum, e)};
}

Case softmax(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), y = p.output(f32, s.full);
  const auto [e, sum] = exponentials(p, x, p.reduce(LoopOp::row_max, x));
  p.store(y, mul(p, e, p.unary(LoopOp::reciprocal, sum)));
  return {"softmax", p, 8, [s](Memory& m) { softmax_twin(m[0].data(), m[1].data(), s.r, s.c); }};
}

Case cross_entropy(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), target = p.load(p.input(i64, s.row)), loss = p.output(f32, s.row);
  const int top = p.reduce(LoopOp::row_max, x);
  const auto [e, sum] = exponentials(p, x, top);
  const int hit = p.select(p.binary(LoopOp::eq, p.column_index(), target), x, p.constant(0));
  p.store(loss, sub(p, add(p, p.unary(LoopOp::log, sum), top), p.reduce(LoopOp::row_sum, hit)));
  return {"cross entropy", p, 4,
          [s](Memory& m) { cross_entropy_twin(m[0].data(), integers(m[1]), m[2].data(), s.r, s.c); }};
}

Case cross_entropy_back(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), target = p.load(p.input(i64, s.row)), dx = p.output(f32, s.full);
  const auto [e, sum] = exponentials(p, x, p.reduce(LoopOp::row_max, x));
  const int one = p.select(p.binary(LoopOp::eq, p.column_index(), target), p.constant(1), p.constant(0));
  const int y = mul(p, e, p.unary(LoopOp::reciprocal, sum));
  p.store(dx, scaled(p, 1.0 / static_cast<double>(s.rows), sub(p, y, one)));
  return {"cross entropy back", p, 8,
          [s](Memory& m) { cross_entropy_back_twin(m[0].data(), integers(m[1]), m[2].data(), s.r, s.c); }};
}

Case dropout(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), state = p.input(i64, LoopAccess::scalar());
  const int y = p.output(f32, s.full);
  const int kept = p.binary(LoopOp::lt, p.random(state, kPlace, 24), p.constant(15099494));
  p.store(y, p.select(kept, scaled(p, 1 / 0.9, x), p.constant(0)));
  return {"dropout", p, 8,
          [s](Memory& m) { dropout_twin(m[0].data(), m[2].data(), s.n, random_key(kSeed, kPlace), kCounter); }};
}

Case bias_relu(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), b = p.load(p.input(f32, s.col)), y = p.output(f32, s.full);
  p.store(y, p.binary(LoopOp::max, add(p, x, b), p.constant(0)));
  return {"bias relu", p, 8, [s](Memory& m) { bias_relu_twin(m[0].data(), m[1].data(), m[2].data(), s.r, s.c); }};
}

Case batch_moments(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full));
  p.column(LoopOp::column_sum, p.output(f32, s.col), x);
  p.column(LoopOp::column_sum, p.output(f32, s.col), mul(p, x, x));
  return {"batch norm moments", p, 4,
          [s](Memory& m) { moments_twin(m[0].data(), m[1].data(), m[2].data(), s.r, s.c); }};
}

Case batch_norm(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), a = p.load(p.input(f32, s.col)), b = p.load(p.input(f32, s.col));
  p.store(p.output(f32, s.full), add(p, mul(p, x, a), b));
  return {"batch norm", p, 8,
          [s](Memory& m) { normalise_twin(m[0].data(), m[1].data(), m[2].data(), m[3].data(), s.r, s.c); }};
}

// The normalised value is computed again.
Case batch_norm_sums(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), dy = p.load(p.input(f32, s.full)), mu = p.load(p.input(f32, s.col));
  const int rstd = p.load(p.input(f32, s.col));
  p.column(LoopOp::column_sum, p.output(f32, s.col), mul(p, dy, mul(p, sub(p, x, mu), rstd)));
  p.column(LoopOp::column_sum, p.output(f32, s.col), dy);
  return {"batch norm sums", p, 8, [s](Memory& m) {
            norm_sums_twin(m[0].data(), m[1].data(), m[2].data(), m[3].data(), m[4].data(), m[5].data(), s.r, s.c);
          }};
}

Case batch_norm_back(const Space& s) {
  LoopProgram p = s.program();
  const int x = p.load(p.input(f32, s.full)), dy = p.load(p.input(f32, s.full));
  int col[4];
  for (int& c : col) c = p.load(p.input(f32, s.col));
  const int inner = sub(p, sub(p, dy, col[2]), mul(p, sub(p, x, col[0]), col[3]));
  p.store(p.output(f32, s.full), mul(p, col[1], inner));
  return {"batch norm back", p, 12, [s](Memory& m) {
            norm_back_twin(m[0].data(), m[1].data(), m[2].data(), m[3].data(), m[4].data(), m[5].data(), m[6].data(),
                           s.r, s.c);
          }};
}

// ---- measuring

double best_ns(const std::function<void()>& f, double seconds) {
  f();
  double best = 1e30;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    int n = 1;
    for (;; n *= 2) {
      const auto a = Clock::now();
      for (int i = 0; i < n; ++i) f();
      const double ns = std::chrono::duration<double, std::nano>(Clock::now() - a).count();
      if (ns > 2e5) {
        best = std::min(best, ns / n);
        break;
      }
    }
  }
  return best;
}

Memory memory_of(const LoopProgram& p) {
  Memory memory;
  for (const LoopOperand& o : p.operands) {
    const std::int64_t n = o.access.offset(p.rows - 1, p.cols - 1) + 1;
    memory.emplace_back(static_cast<std::size_t>(o.dtype == f32 ? n : 2 * n + 2));
    Floats& m = memory.back();
    if (o.dtype == f32) {
      for (std::size_t i = 0; i < m.size(); ++i) m[i] = 0.003f * static_cast<float>(i * 7919 % 997) - 0.3f;
      continue;
    }
    auto* ids = reinterpret_cast<std::int64_t*>(m.data());  // classes, or a random state
    for (std::int64_t i = 0; i < n; ++i) ids[i] = i * 31 % p.cols;
    if (n == 1) ids[0] = kSeed, ids[1] = kCounter;
  }
  return memory;
}

// How far the twin's results are from the loop's, relative to 1 and to their size.
double difference(const Case& k, Memory& memory, const std::function<void()>& run) {
  run();
  const Memory loop = memory;
  k.twin(memory);
  double worst = 0;
  for (std::size_t o = 0; o < loop.size(); ++o)
    for (std::size_t i = 0; k.program.operands[o].output && i < loop[o].size(); ++i)
      worst = std::max<double>(worst, std::abs(loop[o][i] - memory[o][i]) / (1 + std::abs(loop[o][i])));
  return worst;
}

struct Figures {
  double one, all, twin, copy_one, copy_all, difference;  // ns an element
};

Figures measure(const Case& k, int threads, double seconds) {
  Memory memory = memory_of(k.program);
  std::vector<void*> pointers;
  for (auto& m : memory) pointers.push_back(m.data());
  const CompiledLoop loop(k.program);
  std::vector<double> space(loop.workspace_bytes(threads) / 8 + 16);
  void* workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(space.data()) + 63) / 64 * 64);
  const double n = static_cast<double>(k.program.rows * k.program.cols);
  const auto timed = [&](const std::function<void()>& f) { return best_ns(f, seconds) / n; };
  Figures f{};
  f.difference = difference(k, memory, [&] { loop.run(pointers.data(), 1, workspace); });
  f.one = timed([&] { loop.run(pointers.data(), 1, workspace); });
  f.all = timed([&] { loop.run(pointers.data(), threads, workspace); });
  f.twin = timed([&] { k.twin(memory); });
  const auto half = static_cast<std::size_t>(n * k.bytes / 2 / threads) / 64 * 64;  // of a thread
  Buffer from = Buffer::allocate(half * static_cast<std::size_t>(threads)), to = Buffer::allocate(from.bytes());
  auto *source = static_cast<char*>(from.mutable_data()), *target = static_cast<char*>(to.mutable_data());
  std::memset(source, 1, from.bytes());
  f.copy_one = timed([&] { std::memcpy(target, source, to.bytes()); });
  f.copy_all = timed([&] {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; ++t)
      std::memcpy(target + static_cast<std::size_t>(t) * half, source + static_cast<std::size_t>(t) * half, half);
  });
  return f;
}

using Make = Case (*)(const Space&);
struct Row {
  Make make;
  std::int64_t cols;
};
constexpr Row kRows[] = {{gelu, 768},           {gelu_back, 768},         {adam, 1024},
                         {layer_norm, 192},     {layer_norm_back, 192},   {softmax, 128},
                         {cross_entropy, 96},   {cross_entropy_back, 96}, {dropout, 768},
                         {bias_relu, 256},      {batch_moments, 64},      {batch_norm, 64},
                         {batch_norm_sums, 64}, {batch_norm_back, 64}};

std::string option(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 1; i + 1 < argc; ++i)
    if (argv[i] == "--" + name) return argv[i + 1];
  return otherwise;
}

// One line: of tensors that take so many bytes in all.
void report(const Row& row, bool memory, int threads, double seconds, bool json) {
  const double bytes = memory ? 128 << 20 : 256 << 10;
  const int each = row.make(Space{8, row.cols}).bytes;
  const Space space{static_cast<std::int64_t>(bytes / each / static_cast<double>(row.cols)), row.cols};
  const Case k = row.make(space);
  const Figures f = measure(k, threads, seconds);
  if (json) {
    fmt::print(
        "{{\"loop\":\"{}\",\"place\":\"{}\",\"rows\":{},\"cols\":{},\"bytes\":{},\"one_ns\":{:.4f},\"all_ns\":{:.4f},"
        "\"twin_ns\":{:.4f},\"copy_one_ns\":{:.4f},\"copy_all_ns\":{:.4f},\"threads\":{},\"difference\":{:.2g}}}\n",
        k.name, memory ? "memory" : "cache", space.rows, space.cols, k.bytes, f.one, f.all, f.twin, f.copy_one,
        f.copy_all, threads, f.difference);
  } else {
    fmt::print("{:<19} {:>7}x{:<5} loop {:7.3f}  {} threads {:7.3f}  by hand {:7.3f}  copy {:7.3f} ns  ", k.name,
               space.rows, space.cols, f.one, threads, f.all, f.twin, f.copy_one);
    if (memory)
      fmt::print("{:3.0f}% of copying (by hand {:3.0f}%), {:3.0f}% with {} threads", 100 * f.copy_one / f.one,
                 100 * f.copy_one / f.twin, 100 * f.copy_all / f.all, threads);
    else
      fmt::print("{:.2f} x by hand", f.one / f.twin);
    fmt::print("  (differs by {:.1g})\n", f.difference);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    fmt::print(stderr, "loops: the hand-written twins need AVX2 and FMA\n");
    return 1;
  }
  const double seconds = std::atof(option(argc, argv, "seconds", "0.05").c_str());
  const int threads = std::atoi(option(argc, argv, "threads", std::to_string(omp_get_max_threads())).c_str());
  const std::string only = option(argc, argv, "only", "");
  const bool json = argc > 1 && std::string(argv[argc - 1]) == "--json";
  for (bool memory : {false, true})
    for (const Row& row : kRows)
      if (only.empty() || only.find(row.make(Space{8, row.cols}).name) != std::string::npos)
        report(row, memory, threads, seconds, json);
}

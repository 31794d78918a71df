// Fused loops against hand-written C++ of the same kernels and against copying as many bytes: ns an element.
// usage: loops [seconds per figure]
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "cpu/kernels/loop_program.h"

namespace {

using namespace bp;
using namespace bp::cpu;
using Clock = std::chrono::steady_clock;

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

struct Case {
  const char* name;
  LoopProgram program;
  int bytes;                                                   // an element, read and written
  std::function<void(std::vector<std::vector<float>>&)> twin;  // hand-written, over the same operands
};

int mean(LoopProgram& p, int v) {
  return p.binary(LoopOp::mul, p.reduce(LoopOp::row_sum, v), p.constant(1.0 / static_cast<double>(p.cols)));
}

Case gelu(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols);
  const int x = p.load(p.input(f32, full)), y = p.output(f32, full);
  const int cube = p.binary(LoopOp::mul, p.binary(LoopOp::mul, x, x), x);
  const int inner = p.binary(LoopOp::mul, p.constant(0.7978845608),
                             p.binary(LoopOp::add, x, p.binary(LoopOp::mul, p.constant(0.044715), cube)));
  const int half = p.binary(LoopOp::mul, p.constant(0.5), x);
  p.store(y, p.binary(LoopOp::mul, half, p.binary(LoopOp::add, p.constant(1), p.unary(LoopOp::tanh, inner))));
  return {"gelu", p, 8, [](auto& m) {
            for (std::size_t i = 0; i < m[0].size(); ++i) {
              const float v = m[0][i];
              m[1][i] = 0.5f * v * (1 + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v)));
            }
          }};
}

Case adam(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols);
  const int w = p.input(f32, full), g = p.input(f32, full), m = p.input(f32, full), v = p.input(f32, full);
  const int w2 = p.output(f32, full, w), m2 = p.output(f32, full, m), v2 = p.output(f32, full, v);
  const int grad = p.load(g);
  const auto scaled = [&](double s, int x) { return p.binary(LoopOp::mul, p.constant(s), x); };
  const int m_new = p.binary(LoopOp::add, scaled(0.9, p.load(m)), scaled(0.1, grad));
  const int v_new = p.binary(LoopOp::add, scaled(0.999, p.load(v)), scaled(0.001, p.binary(LoopOp::mul, grad, grad)));
  const int denominator = p.binary(LoopOp::add, p.unary(LoopOp::sqrt, v_new), p.constant(1e-8));
  p.store(m2, m_new);
  p.store(v2, v_new);
  p.store(w2, p.binary(LoopOp::sub, p.load(w), p.binary(LoopOp::div, scaled(1e-3, m_new), denominator)));
  return {"adam", p, 28, [](auto& t) {
            float *pw = t[4].data(), *pm = t[5].data(), *pv = t[6].data();
            const float *w0 = t[0].data(), *g0 = t[1].data(), *m0 = t[2].data(), *v0 = t[3].data();
            for (std::size_t i = 0; i < t[0].size(); ++i) {
              const float a = 0.9f * m0[i] + 0.1f * g0[i], b = 0.999f * v0[i] + 0.001f * g0[i] * g0[i];
              pm[i] = a, pv[i] = b;
              pw[i] = w0[i] - 1e-3f * a / (std::sqrt(b) + 1e-8f);
            }
          }};
}

Case layer_norm(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols);
  const int x = p.load(p.input(f32, full)), gain = p.load(p.input(f32, LoopAccess::per_column()));
  const int bias = p.load(p.input(f32, LoopAccess::per_column())), y = p.output(f32, full);
  const int centred = p.binary(LoopOp::sub, x, mean(p, x));
  const int variance = mean(p, p.binary(LoopOp::mul, centred, centred));
  const int rstd = p.unary(LoopOp::rsqrt, p.binary(LoopOp::add, variance, p.constant(1e-5)));
  p.store(y, p.binary(LoopOp::add, p.binary(LoopOp::mul, p.binary(LoopOp::mul, centred, rstd), gain), bias));
  return {"layer_norm", p, 8, [rows, cols](auto& m) {
            const auto n = static_cast<std::size_t>(cols);
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
              const float* a = m[0].data() + r * n;
              float* out = m[3].data() + r * n;
              float sum = 0, square = 0;
#pragma GCC ivdep
              for (std::size_t c = 0; c < n; ++c) sum += a[c];
              const float mu = sum / static_cast<float>(n);
#pragma GCC ivdep
              for (std::size_t c = 0; c < n; ++c) square += (a[c] - mu) * (a[c] - mu);
              const float s = 1 / std::sqrt(square / static_cast<float>(n) + 1e-5f);
#pragma GCC ivdep
              for (std::size_t c = 0; c < n; ++c) out[c] = (a[c] - mu) * s * m[1][c] + m[2][c];
            }
          }};
}

Case softmax(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols);
  const int x = p.load(p.input(f32, full)), y = p.output(f32, full);
  const int e = p.unary(LoopOp::exp, p.binary(LoopOp::sub, x, p.reduce(LoopOp::row_max, x)));
  p.store(y, p.binary(LoopOp::mul, e, p.unary(LoopOp::reciprocal, p.reduce(LoopOp::row_sum, e))));
  return {"softmax", p, 8, [rows, cols](auto& m) {
            const auto n = static_cast<std::size_t>(cols);
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
              const float* a = m[0].data() + r * n;
              float *out = m[1].data() + r * n, top = a[0], sum = 0;
              for (std::size_t c = 1; c < n; ++c) top = std::max(top, a[c]);
              for (std::size_t c = 0; c < n; ++c) sum += out[c] = std::exp(a[c] - top);
              for (std::size_t c = 0; c < n; ++c) out[c] /= sum;
            }
          }};
}

Case bias_relu(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols);
  const int x = p.load(p.input(f32, full)), b = p.load(p.input(f32, LoopAccess::per_column()));
  const int y = p.output(f32, full);
  p.store(y, p.binary(LoopOp::max, p.binary(LoopOp::add, x, b), p.constant(0)));
  return {"bias_relu", p, 8, [rows, cols](auto& m) {
            const auto n = static_cast<std::size_t>(cols);
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r)
#pragma GCC ivdep
              for (std::size_t c = 0; c < n; ++c) m[2][r * n + c] = std::max(m[0][r * n + c] + m[1][c], 0.f);
          }};
}

// Batch norm's gradient sums: dgain = sum dy n, dbias = sum dy, with the normalised value recomputed.
Case batch_norm_sums(std::int64_t rows, std::int64_t cols) {
  LoopProgram p;
  p.rows = rows, p.cols = cols;
  const auto full = LoopAccess::full(rows, cols), col = LoopAccess::per_column();
  const int x = p.load(p.input(f32, full)), dy = p.load(p.input(f32, full)), mu = p.load(p.input(f32, col));
  const int s = p.load(p.input(f32, col));
  const int n = p.binary(LoopOp::mul, p.binary(LoopOp::sub, x, mu), s);
  p.column(LoopOp::column_sum, p.output(f32, col), p.binary(LoopOp::mul, dy, n));
  p.column(LoopOp::column_sum, p.output(f32, col), dy);
  return {"batch_norm_sums", p, 8, [rows, cols](auto& m) {
            const auto n2 = static_cast<std::size_t>(cols);
            std::fill(m[4].begin(), m[4].end(), 0.f);
            std::fill(m[5].begin(), m[5].end(), 0.f);
            for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r)
#pragma GCC ivdep
              for (std::size_t c = 0; c < n2; ++c) {
                m[4][c] += m[1][r * n2 + c] * (m[0][r * n2 + c] - m[2][c]) * m[3][c];
                m[5][c] += m[1][r * n2 + c];
              }
          }};
}

void measure(const Case& k, double seconds) {
  std::vector<std::vector<float>> memory;
  for (const LoopOperand& o : k.program.operands) {
    const std::int64_t n = o.access.offset(k.program.rows - 1, k.program.cols - 1) + 1;
    memory.emplace_back(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < memory.back().size(); ++i)
      memory.back()[i] = 0.001f * static_cast<float>(i % 997) - 0.3f;
  }
  std::vector<void*> pointers;
  for (auto& m : memory) pointers.push_back(m.data());
  const CompiledLoop loop(k.program);
  std::vector<double> space(loop.workspace_bytes(2) / 8 + 16);
  void* workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(space.data()) + 63) / 64 * 64);
  const double n = static_cast<double>(k.program.rows * k.program.cols);
  const double one = best_ns([&] { loop.run(pointers.data(), 1, workspace); }, seconds) / n;
  const double two = best_ns([&] { loop.run(pointers.data(), 2, workspace); }, seconds) / n;
  const double twin = best_ns([&] { k.twin(memory); }, seconds) / n;
  std::vector<char> from(static_cast<std::size_t>(n) * static_cast<std::size_t>(k.bytes) / 2), to(from.size());
  const double copy = best_ns([&] { std::memcpy(to.data(), from.data(), from.size()); }, seconds) / n;
  fmt::print("{:<16} {:>8}x{:<6} loop {:.3f}  2 threads {:.3f}  by hand {:.3f}  copy {:.3f}  total {:.0f} ns\n", k.name,
             k.program.rows, k.program.cols, one, two, twin, copy, one * n);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.05;
  using Make = Case (*)(std::int64_t, std::int64_t);
  for (Make make : {gelu, adam, layer_norm, softmax, bias_relu, batch_norm_sums})
    for (auto [rows, cols] :
         {std::pair<std::int64_t, std::int64_t>{32, 16}, {2048, 128}, {16384, 16}, {64, 4096}, {8192, 512}})
      measure(make(rows, cols), seconds);
}

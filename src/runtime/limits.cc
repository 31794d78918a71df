// Measuring what the machine does at best: products, reads and copies, empty steps. Used by profiles and bench/peak.
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>

#include "base/error.h"
#include "bp/buffer.h"
#include "bp/profile.h"
#include "cpu/dnnl/matmul.h"
#include "cpu/kernels/matmul.h"

namespace bp {

namespace {

using Clock = std::chrono::steady_clock;

// The least time of one call, over `seconds` of calls.
double best_time(double seconds, const std::function<void()>& f) {
  f();
  double best = 1e30;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best;
}

double dnnl_rate(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype, int threads, double seconds) {
  if (!cpu::dnnl_supports(dtype)) return 0;
  const cpu::DnnlMatmul product(cpu::dense_matmul({}, m, n, k, false, false, dtype), threads);
  const auto memory = [&](std::int64_t elements) {
    Buffer b = Buffer::allocate(static_cast<std::size_t>(elements) * 4);
    std::memset(b.mutable_data(), 0, b.bytes());
    return b;
  };
  Buffer a = memory(m * k), b = memory(k * n), c = memory(m * n);
  Buffer packed = Buffer::allocate(std::max<std::size_t>(product.pack_bytes(), 64));
  Buffer scratch = Buffer::allocate(std::max<std::size_t>(product.scratchpad_bytes(), 64));
  if (product.pack_bytes() > 0) product.run_pack(b.data(), packed.mutable_data());
  const cpu::DnnlMatmul::Args args{.a = a.data(),
                                   .b = product.pack_bytes() > 0 ? packed.data() : b.data(),
                                   .c = c.mutable_data(),
                                   .scratchpad = scratch.mutable_data()};
  return 2.0 * static_cast<double>(m * n * k) / best_time(seconds, [&] { product.run(args); });
}

double own_rate(std::int64_t size, DType dtype, int threads, double seconds) {
  const cpu::MatmulKernel product({.m = size, .n = size, .k = size, .dtype = dtype});
  const auto n = static_cast<std::size_t>(size * size) * 8;
  Buffer a = Buffer::allocate(n), b = Buffer::allocate(n), c = Buffer::allocate(n);
  for (Buffer* x : {&a, &b, &c}) std::memset(x->mutable_data(), 0, n);
  Buffer space = Buffer::allocate(std::max<std::size_t>(product.workspace_bytes(threads), 64));
  const auto run = [&] {
    product.run(a.data(), b.data(), nullptr, nullptr, c.mutable_data(), space.mutable_data(), threads);
  };
  return 2.0 * static_cast<double>(size * size * size) / best_time(seconds, run);
}

// Seconds of one pass of `each(thread)`, of many in one parallel region.
double pass_time(int threads, double bytes, double seconds, const std::function<void(int)>& each) {
  const int passes = std::max(1, static_cast<int>(2e6 / bytes));
  const auto region = [&] {
#pragma omp parallel num_threads(threads)
    for (int i = 0; i < passes; ++i) each(omp_get_thread_num());
  };
  return best_time(seconds, region) / passes;
}

// The bytes lie in `from` and `to` by halves, a part a thread.
MachineLimits::Bandwidth bandwidth(double bytes, int threads, double seconds, Buffer& from, Buffer& to) {
  const auto half = static_cast<std::size_t>(bytes / 2 / threads) / 64 * 64;
  auto* source = static_cast<char*>(from.mutable_data());
  auto* target = static_cast<char*>(to.mutable_data());
  const double copy = pass_time(threads, bytes, seconds, [&](int t) {
    const std::size_t at = static_cast<std::size_t>(t) * half;
    std::memcpy(target + at, source + at, half);
  });
  // The memory holds zeros: both searches read all of it.
  const double read = pass_time(threads, bytes, seconds, [&](int t) {
    const std::size_t at = static_cast<std::size_t>(t) * half;
    [[maybe_unused]] const volatile bool found =
        std::memchr(source + at, 1, half) != nullptr || std::memchr(target + at, 1, half) != nullptr;
  });
  const double moved = 2.0 * static_cast<double>(half) * threads;
  return {moved, moved / read, moved / copy};
}

double launch_time(int threads, double seconds) {
  volatile int sink = 0;
  const auto region = [&] {
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num() == 0) sink = sink + 1;
  };
  const auto nothing = [&] { sink = sink + 1; };
  return threads > 1 ? best_time(seconds, region) : best_time(seconds, nothing);
}

MachineLimits::Rates rates_of(int threads, double seconds) {
  const double part = seconds / 18;  // of the measurements below
  MachineLimits::Rates r{.threads = threads};
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{512, 512, 512}, {2048, 768, 192}})
    r.f32 = std::max(r.f32, dnnl_rate(m, n, k, f32, threads, part));
  r.f32 = std::max(r.f32, own_rate(512, f32, threads, part));
  r.bf16 = std::max(r.f32, dnnl_rate(512, 512, 512, bf16, threads, part));
  r.f64 = own_rate(384, f64, threads, part);
  r.launch = launch_time(threads, part / 4);
  constexpr double kLargest = 128 << 20;
  Buffer from = Buffer::allocate(static_cast<std::size_t>(kLargest) / 2), to = Buffer::allocate(from.bytes());
  for (Buffer* b : {&from, &to}) std::memset(b->mutable_data(), 0, b->bytes());
  for (double bytes = 32 << 10; bytes <= kLargest; bytes *= 4)
    r.bandwidth.push_back(bandwidth(bytes, threads, part, from, to));
  return r;
}

// Between the ends of measured rates, in straight lines.
template <class Value> double by_threads(const std::vector<MachineLimits::Rates>& rates, int threads, Value value) {
  const MachineLimits::Rates &one = rates.front(), &all = rates.back();
  if (all.threads <= one.threads || threads <= one.threads) return value(one);
  const double part = std::min(1.0, static_cast<double>(threads - one.threads) / (all.threads - one.threads));
  return value(one) * (1 - part) + value(all) * part;
}

MachineLimits::Bandwidth at(const std::vector<MachineLimits::Bandwidth>& list, double bytes) {
  const auto above =
      std::find_if(list.begin(), list.end(), [&](const MachineLimits::Bandwidth& b) { return b.bytes >= bytes; });
  return above == list.end() ? list.back() : *above;
}

}  // namespace

double MachineLimits::flops(DType dtype, int threads) const {
  return by_threads(rates, threads, [&](const Rates& r) {
    return dtype == DType::f64 ? r.f64 : dtype == DType::bf16 ? r.bf16 : r.f32;
  });
}

double MachineLimits::launch(int threads) const {
  return by_threads(rates, threads, [](const Rates& r) { return r.launch; });
}

double MachineLimits::seconds(double read, double written, int threads) const {
  const double total = read + written;
  if (total <= 0) return 0;
  const auto rate = [&](auto member) {
    return by_threads(rates, threads, [&](const Rates& r) { return at(r.bandwidth, total).*member; });
  };
  const double copy = rate(&Bandwidth::copy), plain = std::max(copy, rate(&Bandwidth::read));
  const double copied = 2 * std::min(read, written);  // what is written and read alike; the rest goes one way
  return copied / copy + (total - copied) / (read > written ? plain : copy);
}

std::string MachineLimits::text() const {
  std::string out;
  for (const Rates& r : rates) {
    out += fmt::format("{} thread{}: products f32 {:.1f}, bf16 {:.1f}, f64 {:.1f} GFLOP/s; an empty step {:.2f} us\n",
                       r.threads, r.threads == 1 ? "" : "s", r.f32 * 1e-9, r.bf16 * 1e-9, r.f64 * 1e-9, r.launch * 1e6);
    for (const Bandwidth& b : r.bandwidth)
      out += fmt::format("  {:>8.0f} KiB: copy {:6.1f} GB/s, read {:6.1f} GB/s\n", b.bytes / 1024, b.copy * 1e-9,
                         b.read * 1e-9);
  }
  return out;
}

MachineLimits measure_limits(int threads, double seconds) {
  if (threads < 0) fail(ErrorKind::value, "[measure_limits] threads cannot be negative: got {}", threads);
  const int all = threads > 0 ? threads : omp_get_max_threads();
  MachineLimits out;
  out.rates.push_back(rates_of(1, all > 1 ? seconds / 2 : seconds));
  if (all == 1) return out;
  MachineLimits::Rates r = rates_of(all, seconds / 2);
  // What one thread can do, all can: on a busy machine they are measured slower.
  const MachineLimits::Rates& one = out.rates[0];
  r.f32 = std::max(r.f32, one.f32), r.bf16 = std::max(r.bf16, one.bf16), r.f64 = std::max(r.f64, one.f64);
  for (std::size_t i = 0; i < r.bandwidth.size(); ++i) {
    r.bandwidth[i].read = std::max(r.bandwidth[i].read, one.bandwidth[i].read);
    r.bandwidth[i].copy = std::max(r.bandwidth[i].copy, one.bandwidth[i].copy);
  }
  out.rates.push_back(std::move(r));
  return out;
}

}  // namespace bp

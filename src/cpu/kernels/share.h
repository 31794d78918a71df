// Sharing a range of independent work out to OpenMP threads. Used by the kernels of this room.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/flush_denormals.h"

namespace bp::cpu {

// f(begin, end) for the parts of [0, count), one a thread. f's work may not depend on where the parts are cut.
template <class F> void share(std::int64_t count, int threads, F f) {
  if (threads <= 1 || count <= 1) {
    f(std::int64_t{0}, count);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t t = omp_get_thread_num(), n = omp_get_num_threads();
    f(count * t / n, count * (t + 1) / n);
  }
}

// f(thread, threads) on each of a team, which flushes denormals as the caller does.
template <class F> void run_team(int team, F f) {
  if (team <= 1) return f(0, 1);
  const bool flush = FlushDenormals::active();
#pragma omp parallel num_threads(team)
  {
    const FlushDenormals denormals(flush);
    f(omp_get_thread_num(), omp_get_num_threads());
  }
}

// How many threads, at most `most`, a copy of `bytes` (read and written) is worth: below 64 KiB one gains nothing.
inline int threads_for_bytes(double bytes, int most) noexcept {
  constexpr double kBytesPerThread = 64 * 1024;
  return std::clamp(static_cast<int>(std::min(bytes / kBytesPerThread, 1e6)), 1, std::max(most, 1));
}

// n, rounded up to a multiple of `step`.
inline std::int64_t up_to(std::int64_t n, std::int64_t step) noexcept { return (n + step - 1) / step * step; }

// Bytes as whole cache lines: pieces of one workspace do not share lines.
inline std::size_t whole_lines(std::size_t bytes) noexcept { return (bytes + 63) / 64 * 64; }

}  // namespace bp::cpu

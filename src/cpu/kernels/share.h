// Sharing a range of independent work out to OpenMP threads. Used by the kernels of this room.
#pragma once

#include <omp.h>

#include <cstdint>

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

}  // namespace bp::cpu

// FlushDenormals: while alive, this thread treats denormals as zero (an Adam update on vanishing moments ran five times
// slower without). The executor holds one on each worker; kernels that fork threads pass the caller's state on.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace bp {

class FlushDenormals {
 public:
  FlushDenormals() noexcept : FlushDenormals(true) {}
  // enable == false leaves the thread as it is.
  explicit FlushDenormals(bool enable) noexcept {
#if defined(__SSE2__)
    saved_ = _mm_getcsr();
    if (enable) _mm_setcsr(saved_ | kBits);
#else
    (void)enable;
#endif
  }
  ~FlushDenormals() {
#if defined(__SSE2__)
    if (_mm_getcsr() != saved_) _mm_setcsr(saved_);
#endif
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

  // The same by hand, where begin and end lie in two parallel regions.
  static unsigned set() noexcept {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | kBits);
    return before;
#else
    return 0;
#endif
  }
  static void restore(unsigned saved) noexcept {
#if defined(__SSE2__)
    _mm_setcsr(saved);
#else
    (void)saved;
#endif
  }

  // Whether this thread flushes now.
  static bool active() noexcept {
#if defined(__SSE2__)
    return (_mm_getcsr() & kBits) == kBits;
#else
    return false;
#endif
  }

 private:
  static constexpr unsigned kBits = 0x8040;  // FTZ (bit 15) and DAZ (bit 6) of MXCSR
  unsigned saved_ = 0;
};

}  // namespace bp

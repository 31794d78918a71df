// Gathers and scatters by index: plain loops over rows, partitioned so that every sum has one owner and one order.
#include "cpu/kernels/gather.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/kernels/share.h"

namespace bp::cpu {

namespace {

constexpr std::int64_t kColumnsPerThread = 32;  // whole lines of the cache, so that threads do not share one

template <class T> T missing() {
  if constexpr (std::is_same_v<T, bfloat16>)
    return bfloat16(std::numeric_limits<float>::quiet_NaN());
  else if constexpr (std::numeric_limits<T>::has_quiet_NaN)
    return std::numeric_limits<T>::quiet_NaN();
  else
    return T{};
}

template <class T> void add_to(T& sum, T v) {
  if constexpr (std::is_same_v<T, bfloat16>)
    sum = bfloat16(static_cast<float>(sum) + static_cast<float>(v));
  else if constexpr (std::is_same_v<T, bool>)
    sum = sum || v;
  else
    sum = static_cast<T>(sum + v);
}

// Calls f with the element type and the index type of a spec.
template <class F> void with_types(const GatherSpec& s, F f) {
  dispatch(s.dtype, [&](auto zero) {
    if (s.index == i64)
      f(zero, std::int64_t{});
    else
      f(zero, std::int32_t{});
  });
}

template <class T, class I> void gather(const GatherSpec& s, const T* table, const I* index, T* out, int threads) {
  share(s.outer * s.count, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const auto row = static_cast<std::int64_t>(index[r % s.count]);
      T* to = out + r * s.inner;
      if (row < 0 || row >= s.rows) {
        std::fill(to, to + s.inner, missing<T>());
        continue;
      }
      const T* from = table + (r / s.count * s.rows + row) * s.inner;
      std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(s.inner) * sizeof(T));
    }
  });
}

// The rows [row_begin, row_end) and columns [begin, end) of one table.
template <class T, class I>
void scatter_part(const GatherSpec& s, const T* values, const I* index, T* table, std::int64_t row_begin,
                  std::int64_t row_end, std::int64_t begin, std::int64_t end) {
  for (std::int64_t c = 0; c < s.count; ++c) {
    const auto row = static_cast<std::int64_t>(index[c]);
    if (row < row_begin || row >= row_end) continue;
    const T* from = values + c * s.inner;
    T* to = table + row * s.inner;
    for (std::int64_t i = begin; i < end; ++i) add_to(to[i], from[i]);
  }
}

template <class T, class I>
void scatter_add(const GatherSpec& s, const T* values, const I* index, T* table, int threads) {
  const auto all = [&](std::int64_t o, std::int64_t row_begin, std::int64_t row_end, std::int64_t begin,
                       std::int64_t end) {
    scatter_part(s, values + o * s.count * s.inner, index, table + o * s.rows * s.inner, row_begin, row_end, begin,
                 end);
  };
  if (s.outer >= 2 * threads) {
    share(s.outer, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) all(o, 0, s.rows, 0, s.inner);
    });
  } else if (s.inner >= kColumnsPerThread * threads) {  // balanced whatever the indices are
    share(s.inner / kColumnsPerThread, threads, [&](std::int64_t begin, std::int64_t end) {
      const bool last = end == s.inner / kColumnsPerThread;
      for (std::int64_t o = 0; o < s.outer; ++o)
        all(o, 0, s.rows, begin * kColumnsPerThread, last ? s.inner : end * kColumnsPerThread);
    });
  } else {
    share(s.rows, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = 0; o < s.outer; ++o) all(o, begin, end, 0, s.inner);
    });
  }
}

// f(outer, begin, end): columns of inner; every (outer, column) pair is independent of the others.
template <class F> void share_lines(const GatherSpec& s, int threads, F f) {
  if (s.outer >= threads) {
    share(s.outer, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) f(o, std::int64_t{0}, s.inner);
    });
    return;
  }
  share(s.inner, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = 0; o < s.outer; ++o) f(o, begin, end);
  });
}

template <class T, class I> void take(const GatherSpec& s, const T* table, const I* index, T* out, int threads) {
  share_lines(s, threads, [&](std::int64_t o, std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = 0; c < s.count; ++c)
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t at = (o * s.count + c) * s.inner + i;
        const auto row = static_cast<std::int64_t>(index[at]);
        out[at] = row < 0 || row >= s.rows ? missing<T>() : table[(o * s.rows + row) * s.inner + i];
      }
  });
}

template <class T, class I>
void scatter_along(const GatherSpec& s, const T* values, const I* index, T* table, int threads) {
  share_lines(s, threads, [&](std::int64_t o, std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = 0; c < s.count; ++c)
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t at = (o * s.count + c) * s.inner + i;
        const auto row = static_cast<std::int64_t>(index[at]);
        if (row >= 0 && row < s.rows) add_to(table[(o * s.rows + row) * s.inner + i], values[at]);
      }
  });
}

}  // namespace

int GatherSpec::preferred_threads(int most) const noexcept {
  const double bytes = 2.0 * static_cast<double>(outer * count * inner) * static_cast<double>(size_of(dtype));
  return threads_for_bytes(bytes, most);
}

void gather_rows(const GatherSpec& spec, const void* table, const void* index, void* out, int threads) {
  with_types(spec, [&]<class T, class I>(T, I) {
    gather(spec, static_cast<const T*>(table), static_cast<const I*>(index), static_cast<T*>(out), threads);
  });
}

void scatter_add_rows(const GatherSpec& spec, const void* values, const void* index, void* table, int threads) {
  with_types(spec, [&]<class T, class I>(T, I) {
    scatter_add(spec, static_cast<const T*>(values), static_cast<const I*>(index), static_cast<T*>(table), threads);
  });
}

void take_along(const GatherSpec& spec, const void* table, const void* index, void* out, int threads) {
  with_types(spec, [&]<class T, class I>(T, I) {
    take(spec, static_cast<const T*>(table), static_cast<const I*>(index), static_cast<T*>(out), threads);
  });
}

void scatter_add_along(const GatherSpec& spec, const void* values, const void* index, void* table, int threads) {
  with_types(spec, [&]<class T, class I>(T, I) {
    scatter_along(spec, static_cast<const T*>(values), static_cast<const I*>(index), static_cast<T*>(table), threads);
  });
}

}  // namespace bp::cpu

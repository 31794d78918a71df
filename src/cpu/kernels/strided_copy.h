// StridedCopy: one N-dimensional copy between any two strided layouts. Transposes, broadcasts, slices, reversals,
// padding and concatenation are this kernel with other strides. Made by lowering, run by the executable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bp::cpu {

class StridedCopy {
 public:
  static constexpr int kMaxRank = 8;

  // dst[sum i_d · to_d] = src[sum i_d · from_d] for all 0 <= i_d < sizes_d. Strides are in elements of `element` bytes
  // (1, 2, 4 or 8), of any sign; 0 in `from` repeats. No two places of dst may coincide, and dst may not overlap src.
  // Dimensions are merged and ordered here, once.
  StridedCopy(std::span<const std::int64_t> sizes, std::span<const std::int64_t> from, std::span<const std::int64_t> to,
              std::size_t element);

  // Pointers to the elements of index (0, ..., 0).
  void run(const void* src, void* dst, int threads) const;
  int preferred_threads(int most) const noexcept;
  double bytes() const noexcept { return 2.0 * static_cast<double>(count_ * static_cast<std::int64_t>(element_)); }

  // What run() does, for tests and explanations.
  enum class Kind : std::uint8_t { nothing, contiguous, rows, fill_rows, transpose, general };
  Kind kind() const noexcept { return kind_; }

 private:
  struct Dim {
    std::int64_t size = 1, from = 0, to = 0;
  };
  void merge();
  void choose();
  template <class T> void run_as(const T* src, T* dst, int threads) const;

  Dim dims_[kMaxRank];  // outermost first
  int rank_ = 0;
  std::size_t element_ = 1;
  std::int64_t count_ = 0;
  Kind kind_ = Kind::nothing;
};

// dst[i] = value for count elements of `element` bytes (1, 2, 4 or 8); `value` points at one element.
void fill_elements(void* dst, const void* value, std::int64_t count, std::size_t element, int threads);

}  // namespace bp::cpu

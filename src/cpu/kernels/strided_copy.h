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

  StridedCopy() = default;  // copies nothing
  // dst[sum i_d · to_d] = src[sum i_d · from_d] for all 0 <= i_d < sizes_d. Strides are in elements of `element` bytes
  // (1, 2, 4 or 8), of any sign; 0 in `from` repeats. No two places of dst may coincide, and dst may not overlap src.
  // Dimensions are merged and ordered here, once.
  StridedCopy(std::span<const std::int64_t> sizes, std::span<const std::int64_t> from, std::span<const std::int64_t> to,
              std::size_t element);

  // Pointers to the elements of index (0, ..., 0).
  void run(const void* src, void* dst, int threads) const;
  int preferred_threads(int most) const noexcept;
  double bytes() const noexcept { return 2.0 * static_cast<double>(count_) * static_cast<double>(element_); }

  // What run() does, for tests and explanations.
  enum class Kind : std::uint8_t { nothing, rows, fill_rows, transpose, general };
  Kind kind() const noexcept { return kind_; }

 private:
  struct Dim {
    std::int64_t size = 1, from = 0, to = 0;
  };
  struct Place {  // of a thread's walk over the outer dimensions
    std::int64_t index[kMaxRank] = {}, from = 0, to = 0;
  };
  void order_and_merge();
  void choose();
  Place place_of(std::int64_t outer) const;
  void advance(Place& place, std::int64_t steps) const;
  template <class T> void run_as(const T* src, T* dst, int threads) const;
  template <class T, Kind kKind> void run_units(const T* src, T* dst, std::int64_t begin, std::int64_t end) const;
  template <class T, Kind kKind> void run_unit(const T* src, T* dst, std::int64_t begin, std::int64_t end) const;

  // Outermost first. The innermost dimension of dst is last; before it, for a transpose, the innermost of src.
  Dim dims_[kMaxRank];
  int rank_ = 0;
  int outer_ = 0;                                 // dimensions walked one by one
  std::int64_t chunk_ = 1, chunks_ = 1;           // of the first dimension inside, so that few long rows share out too
  std::int64_t from_offset_ = 0, to_offset_ = 0;  // of the first element in the order of dims_
  std::size_t element_ = 1;
  std::int64_t count_ = 0;
  Kind kind_ = Kind::nothing;
};

// dst[i] = value for count elements of `element` bytes (1, 2, 4 or 8); `value` points at one element.
void fill_elements(void* dst, const void* value, std::int64_t count, std::size_t element, int threads);

}  // namespace bp::cpu

// Shape: the sizes of a tensor's dimensions, outermost first. A small value without allocation; at most kMaxRank
// dimensions.
//
//   const Shape s{2, 3, 4};
//   assert(s.numel() == 24 && broadcast_shapes(s, {3, 1}, "here") == s && s.str() == "[2, 3, 4]");
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace bp {

// Compared by value; [] is the shape of a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 8;  // dimensions at most

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);  // throws Error(shape) for a negative size or rank > kMaxRank
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const noexcept { return rank_; }  // dimensions
  // 0 <= i < rank(); not checked.
  std::int64_t operator[](int i) const noexcept { return dims_[static_cast<std::size_t>(i)]; }
  // 0 <= i < rank(); not checked.
  std::int64_t& operator[](int i) noexcept { return dims_[static_cast<std::size_t>(i)]; }
  // The last size; not of a scalar.
  std::int64_t back() const noexcept { return dims_[static_cast<std::size_t>(rank_ - 1)]; }
  // Elements: the product of the sizes, 1 for a scalar.
  std::int64_t numel() const noexcept {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<std::size_t>(i)];
    return n;
  }
  const std::int64_t* begin() const noexcept { return dims_.data(); }        // sizes, outermost first
  const std::int64_t* end() const noexcept { return dims_.data() + rank_; }  // behind the innermost
  // All sizes.
  std::span<const std::int64_t> dims() const noexcept { return {dims_.data(), static_cast<std::size_t>(rank_)}; }

  void push_back(std::int64_t n);         // a new innermost dimension
  void insert(int axis, std::int64_t n);  // the new dimension becomes number `axis`
  void erase(int axis);                   // takes dimension `axis` out

  friend bool operator==(const Shape& a, const Shape& b) noexcept {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

  std::string str() const;  // "[64, 32, 3]", "[]" for a scalar

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// Row-major strides in elements: strides of [2, 3, 4] are [12, 4, 1].
Shape row_major_strides(const Shape& shape);

// NumPy broadcasting (dimensions aligned at the right; sizes equal or 1). `where` opens the message of the
// Error(shape).
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* where);

// Maps a possibly negative axis (-1 is the last) into [0, rank). Throws Error(shape) naming `where`.
int normalize_axis(int axis, int rank, const char* where);

}  // namespace bp

// Datasets in memory: gathering rows into batches with the transform on the way, subsets, splits and checks.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "bp/data.h"
#include "data/moments.h"
#include "data/split.h"

namespace bp::data {

namespace {
// Scale and shift of one channel each, repeated until the inner loop is long enough to be vectorised well.
struct Pattern {
  std::vector<float> scale, shift;
  Pattern(const std::vector<float>& scales, const std::vector<float>& shifts) {
    constexpr std::size_t kLength = 256;
    const std::size_t repeats = scales.size() >= kLength ? 1 : (kLength + scales.size() - 1) / scales.size();
    for (std::size_t i = 0; i < repeats; ++i) {
      scale.insert(scale.end(), scales.begin(), scales.end());
      shift.insert(shift.end(), shifts.begin(), shifts.end());
    }
  }
};

// Elementwise; nothing overlaps, which the compiler must know to vectorise without checks.
template <class In, class Out>
void transform_block(const In* __restrict in, Out* __restrict out, const float* __restrict scale,
                     const float* __restrict shift, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j)
    out[j] = static_cast<Out>(in[j]) * static_cast<Out>(scale[j]) + static_cast<Out>(shift[j]);
}

// out = in * scale + shift over one row of n values, which starts at channel 0.
template <class In, class Out> void transform_row(const In* in, Out* out, std::int64_t n, const Pattern& pattern) {
  const auto block = static_cast<std::int64_t>(pattern.scale.size());
  for (std::int64_t start = 0; start < n; start += block)
    transform_block(in + start, out + start, pattern.scale.data(), pattern.shift.data(), std::min(block, n - start));
}

Shape batch_shape(const Array& a, std::int64_t n) {
  Shape shape = a.shape;
  shape[0] = n;
  return shape;
}

// Copies rows as they are; source(i) is the row of `a` for row i of the result.
template <class Row> Array gather(const Array& a, std::int64_t n, Row&& source) {
  Array out = Array::empty(a.dtype, batch_shape(a, n));
  const std::size_t bytes = a.row_bytes();
  const auto* from = a.buffer.as<std::byte>();
  auto* to = out.buffer.as_mutable<std::byte>();
  if (bytes == 0) return out;
  for (std::int64_t i = 0; i < n; ++i)
    std::memcpy(to + static_cast<std::size_t>(i) * bytes, from + static_cast<std::size_t>(source(i)) * bytes, bytes);
  return out;
}

std::int64_t channels_of(const Array& a) { return a.shape.rank() < 2 ? 1 : a.shape.back(); }

float base_scale(DType t) { return t == DType::u8 ? 1.0f / 255.0f : 1.0f; }
}  // namespace

ArrayDataset::ArrayDataset(Array inputs, Array targets, std::vector<std::string> classes)
    : inputs_(std::move(inputs)), targets_(std::move(targets)), classes_(std::move(classes)) {
  if (!inputs_.buffer || inputs_.shape.rank() == 0 || inputs_.rows() == 0)
    fail(ErrorKind::shape, "[dataset] inputs must have at least one row, got shape {}", inputs_.shape);
  if (targets_.buffer && (targets_.shape.rank() == 0 || targets_.rows() != inputs_.rows()))
    fail(ErrorKind::shape, "[dataset] {} rows of inputs {} need as many targets, got {}", inputs_.rows(), inputs_.shape,
         targets_.shape);
}

std::int64_t ArrayDataset::size() const { return rows_ ? static_cast<std::int64_t>(rows_->size()) : inputs_.rows(); }

std::int64_t ArrayDataset::row(std::int64_t i) const { return rows_ ? (*rows_)[static_cast<std::size_t>(i)] : i; }

Shape ArrayDataset::sample_shape() const {
  Shape shape = inputs_.shape;
  shape.erase(0);
  return shape;
}

DType ArrayDataset::dtype() const noexcept {
  if (!transform_) return inputs_.dtype;
  return inputs_.dtype == DType::f64 ? DType::f64 : DType::f32;
}

Array ArrayDataset::gather_inputs(std::span<const std::int64_t> rows) const {
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto source = [&](std::int64_t i) { return row(rows[static_cast<std::size_t>(i)]); };
  if (!transform_) return gather(inputs_, n, source);
  Array out = Array::empty(dtype(), batch_shape(inputs_, n));
  const std::int64_t length = n == 0 ? 0 : out.numel() / n;
  const Pattern pattern(scale_, shift_);
  dispatch(inputs_.dtype, [&](auto zero) {
    using In = decltype(zero);
    using Out = std::conditional_t<std::is_same_v<In, double>, double, float>;
    const In* from = inputs_.data<In>();
    Out* to = out.mutable_data<Out>();
    for (std::int64_t i = 0; i < n; ++i) transform_row(from + source(i) * length, to + i * length, length, pattern);
  });
  return out;
}

Batch ArrayDataset::fetch(std::span<const std::int64_t> rows, Key) const {
  for (std::int64_t r : rows)
    if (r < 0 || r >= size()) fail(ErrorKind::value, "[dataset] row {} of a dataset of {} rows", r, size());
  Batch batch;
  batch.x = gather_inputs(rows);
  if (targets_.buffer)
    batch.y = gather(targets_, static_cast<std::int64_t>(rows.size()),
                     [&](std::int64_t i) { return row(rows[static_cast<std::size_t>(i)]); });
  return batch;
}

Batch ArrayDataset::all() const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(size()));
  std::iota(rows.begin(), rows.end(), 0);
  return fetch(rows);
}

void ArrayDataset::check_targets(std::int64_t classes, const char* what) const {
  if (targets_.buffer && is_integer(targets_.dtype)) check_labels(targets_, classes, what);
}

ArrayDataset ArrayDataset::scaled() const {
  ArrayDataset d = *this;
  d.transform_ = true;
  d.scale_ = {base_scale(inputs_.dtype)};
  d.shift_ = {0.0f};
  return d;
}

ArrayDataset ArrayDataset::normalized(std::vector<float> mean, std::vector<float> stddev) const {
  const std::int64_t channels = channels_of(inputs_);
  const auto given = static_cast<std::int64_t>(mean.size());
  if (mean.size() != stddev.size() || (given != 1 && given != channels))
    fail(ErrorKind::value, "[normalized] {} means and {} deviations for inputs {}: expected 1 or {} of each",
         mean.size(), stddev.size(), inputs_.shape, channels);
  ArrayDataset d = scaled();
  d.scale_.resize(mean.size());
  d.shift_.resize(mean.size());
  for (std::size_t c = 0; c < mean.size(); ++c) {
    if (!(stddev[c] > 0) || !std::isfinite(stddev[c]) || !std::isfinite(mean[c]))
      fail(ErrorKind::value,
           "[normalized] channel {}: mean {}, deviation {}: expected finite, and a positive deviation", c, mean[c],
           stddev[c]);
    d.scale_[c] = base_scale(inputs_.dtype) / stddev[c];
    d.shift_[c] = -mean[c] / stddev[c];
  }
  return d;
}

Moments ArrayDataset::moments() const {
  const auto channels = static_cast<std::size_t>(channels_of(inputs_));
  const std::int64_t length = inputs_.numel() / inputs_.rows();
  const double count = static_cast<double>(size()) * static_cast<double>(length) / static_cast<double>(channels);
  return moments_of(channels, count, inputs_.dtype, [&](auto&& f) {
    dispatch(inputs_.dtype, [&](auto zero) {
      using T = decltype(zero);
      const T* from = inputs_.data<T>();
      for (std::int64_t i = 0; i < size(); ++i) {
        const T* values = from + row(i) * length;
        for (std::int64_t j = 0; j < length;)
          for (std::size_t c = 0; c < channels; ++c, ++j) f(c, static_cast<double>(values[j]));
      }
    });
  });
}

ArrayDataset ArrayDataset::subset(std::span<const std::int64_t> rows) const {
  if (rows.empty()) fail(ErrorKind::value, "[subset] no rows given");
  auto mapped = std::make_shared<std::vector<std::int64_t>>();
  mapped->reserve(rows.size());
  for (std::int64_t r : rows) {
    if (r < 0 || r >= size()) fail(ErrorKind::value, "[subset] row {} of a dataset of {} rows", r, size());
    mapped->push_back(row(r));
  }
  ArrayDataset d = *this;
  d.rows_ = std::move(mapped);
  return d;
}

ArrayDataset ArrayDataset::take(std::int64_t n) const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::clamp<std::int64_t>(n, 0, size())));
  std::iota(rows.begin(), rows.end(), 0);
  return subset(rows);
}

std::pair<ArrayDataset, ArrayDataset> ArrayDataset::split(double fraction, Key key) const {
  const auto [larger, smaller] = split_rows(size(), fraction, key);
  return {subset(larger), subset(smaller)};
}

std::vector<std::int64_t> permutation(std::int64_t n, Key key) {
  std::vector<std::int64_t> p(static_cast<std::size_t>(n));
  std::iota(p.begin(), p.end(), 0);
  Rng rng(key);
  for (std::size_t i = p.size(); i > 1; --i) std::swap(p[i - 1], p[rng.below(i)]);  // Fisher and Yates
  return p;
}

std::int64_t held_out_of(std::int64_t n, double fraction) {
  if (!(fraction > 0 && fraction < 1))
    fail(ErrorKind::value, "[split] a validation fraction of {}: expected more than 0 and less than 1", fraction);
  if (n < 2) fail(ErrorKind::value, "[split] a dataset of one row cannot be split");
  return std::clamp<std::int64_t>(std::llround(fraction * static_cast<double>(n)), 1, n - 1);
}

SplitRows split_rows(std::int64_t n, double fraction, Key key) {
  const std::int64_t count = held_out_of(n, fraction);
  std::vector<std::int64_t> order = permutation(n, key.fold("split"));
  const auto middle = order.begin() + count;
  std::sort(order.begin(), middle);  // ascending rows read memory forward
  std::sort(middle, order.end());
  return {{middle, order.end()}, {order.begin(), middle}};
}

Permutation::Permutation(std::int64_t n, Key key) : n_(n), key_(key) {
  if (n < 0 || n > std::int64_t{1} << 62) fail(ErrorKind::value, "[permutation] of {} rows: expected 0 to 2^62", n);
  const int bits =
      std::max(2, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1) - 1))));
  low_ = bits / 2;
  high_ = bits - low_;
}

std::int64_t Permutation::operator()(std::int64_t place) const noexcept {
  constexpr std::uint64_t kRounds = 16;
  const std::uint64_t low_mask = (std::uint64_t{1} << low_) - 1, high_mask = (std::uint64_t{1} << high_) - 1;
  auto x = static_cast<std::uint64_t>(place);
  do {
    std::uint64_t low = x & low_mask, high = x >> low_;
    for (std::uint64_t round = 0; round < kRounds; round += 2) {
      high ^= key_.fold(round).fold(low).value & high_mask;
      low ^= key_.fold(round + 1).fold(high).value & low_mask;
    }
    x = high << low_ | low;
  } while (x >= static_cast<std::uint64_t>(n_));  // fewer than two turns on average
  return static_cast<std::int64_t>(x);
}

namespace {
std::int64_t number_of(std::int64_t row, std::span<const std::int64_t> rows) {
  return rows.empty() ? row : rows[static_cast<std::size_t>(row)];
}
}  // namespace

void check_finite(const Array& a, const char* what, std::span<const std::int64_t> rows) {
  if (!is_float(a.dtype) || a.numel() == 0) return;
  const std::int64_t length = a.numel() / a.rows();
  dispatch(a.dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_integral_v<T>) {
      const T* values = a.data<T>();
      for (std::int64_t i = 0; i < a.numel(); ++i) {
        const auto v = static_cast<double>(values[i]);
        if (!std::isfinite(v))
          fail(ErrorKind::value, "[data] {}: row {}, element {} is {}: expected finite numbers", what,
               number_of(i / length, rows), i % length, v);
      }
    }
  });
}

void check_labels(const Array& labels, std::int64_t classes, const char* what, std::span<const std::int64_t> rows) {
  if (!is_integer(labels.dtype))
    fail(ErrorKind::dtype, "[data] {}: class ids must be integers, got {}", what, name_of(labels.dtype));
  const std::int64_t length = labels.rows() == 0 ? 1 : std::max<std::int64_t>(1, labels.numel() / labels.rows());
  dispatch(labels.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* values = labels.data<T>();
    for (std::int64_t i = 0; i < labels.numel(); ++i) {
      const auto v = static_cast<std::int64_t>(values[i]);
      if (v < 0 || v >= classes)
        fail(ErrorKind::value, "[data] {}: row {} has class {}: expected 0 to {}", what, number_of(i / length, rows), v,
             classes - 1);
    }
  });
}

}  // namespace bp::data

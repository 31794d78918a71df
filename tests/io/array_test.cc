// Arrays: checked sizes and conversion.
#include <cmath>

#include "helpers.h"

namespace bp {
namespace {

TEST(Array, ChecksTypesAndSizes) {
  const Array a = Array::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(a.rows(), 2);
  EXPECT_EQ(a.row_bytes(), 12u);
  EXPECT_EQ(a.data<float>()[5], 6);
  expect_error(ErrorKind::dtype, "holds f32", [&] { a.data<double>(); });
  expect_error(ErrorKind::shape, "do not fill", [&] { Array::from(std::vector<float>{1, 2}, {3}); });
  EXPECT_EQ(a.reshaped({3, 2}).buffer.data(), a.buffer.data());
  expect_error(ErrorKind::shape, "cannot become", [&] { a.reshaped({4, 2}); });
  const std::int64_t huge = std::int64_t{1} << 40;
  expect_error(ErrorKind::shape, "too large", [&] { Array::empty(f32, {huge, huge}); });
  expect_error(ErrorKind::shape, "too large", [&] { Array::empty(f32, {huge, huge, 0}); });
  EXPECT_EQ(Array::zeros(f64, {0, 5}).numel(), 0);
  EXPECT_EQ(Array{}.numel(), 0);
}

TEST(Convert, KeepsValuesAndRefusesWhatDoesNotFit) {
  const Array a = Array::from(std::vector<double>{0, -1.75, 3.5, 255.9}, {2, 2});
  EXPECT_EQ(convert(a, i32).data<std::int32_t>()[1], -1);
  EXPECT_EQ(convert(a, i64).data<std::int64_t>()[3], 255);
  EXPECT_EQ(convert(a, boolean).data<bool>()[0], false);
  EXPECT_EQ(convert(a, boolean).data<bool>()[1], true);
  EXPECT_EQ(static_cast<float>(convert(a, bf16).data<bfloat16>()[2]), 3.5f);
  expect_error(ErrorKind::value, "row 0 holds -1.75", [&] { convert(a, u8); });
  for (double bad : {double(NAN), 9223372036854775808.0, -9223372036854777856.0, double(INFINITY)})
    expect_error(ErrorKind::value, "cannot convert", [&] { convert(Array::from(std::vector<double>{bad}, {1}), i64); });
  const Array least = Array::from(std::vector<double>{-9223372036854775808.0}, {1});
  EXPECT_EQ(convert(least, i64).data<std::int64_t>()[0], INT64_MIN);
  expect_error(ErrorKind::value, "row 1", [&] {
    convert(Array::from(std::vector<std::int64_t>{1, 1ll << 31}, {2}), i32);
  });
}

}  // namespace
}  // namespace bp

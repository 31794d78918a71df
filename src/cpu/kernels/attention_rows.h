// The SIMD parts of attention on rows of scores, one table a dtype, chosen for the machine's instruction set at run
// time. Used by attention.cc only.
#pragma once

#include <cstdint>

namespace bp::cpu {

// T: float or double.
template <class T> struct AttentionRows {
  T (*max)(const T* x, std::int64_t n);                  // -inf for none
  T (*exp_sum)(T* x, std::int64_t n, T scale, T minus);  // x = exp(scale x - minus); returns the sum
  void (*scale)(T* x, std::int64_t n, T factor);
  T (*dot)(const T* a, const T* b, std::int64_t n);
  // Rows [count, n] of leading dimension ld to panels of `width` columns, [n / width][count][width], padded with zeros.
  // width is a whole number of vectors.
  void (*pack)(const T* from, std::int64_t ld, std::int64_t count, std::int64_t n, std::int64_t width, T* to);
  void (*thin)(T* x, const T* bits, std::int64_t n, T below, T factor);           // x = bits < below ? factor x : 0
  void (*scores_grad)(const T* weights, T* d, std::int64_t n, T delta, T scale);  // d = weights (d - delta) scale
};
const AttentionRows<float>& attention_rows(float);
const AttentionRows<double>& attention_rows(double);

}  // namespace bp::cpu

// Matrix products: the op `matmul` (batched, broadcasting, either side transposed) and its builder. Lowering turns it
// into oneDNN or our own kernels; the reference is for the interpreter.
#include <algorithm>

#include "ops/common.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

// op(A) [.., m, k] times op(B) [.., k, n].
struct ProductDims {
  bool ta = false, tb = false;
  std::int64_t m = 0, n = 0, k = 0, kb = 0;
  Shape batch_a, batch_b;
};

Shape batch_of(const Shape& s) { return Shape(s.dims().first(static_cast<std::size_t>(s.rank() - 2))); }

ProductDims product_dims(const Shape& a, const Shape& b, const Attrs& attrs) {
  ProductDims d;
  d.ta = attrs.flag("transpose_a");
  d.tb = attrs.flag("transpose_b");
  const int ra = a.rank(), rb = b.rank();
  d.m = a[ra - (d.ta ? 1 : 2)];
  d.k = a[ra - (d.ta ? 2 : 1)];
  d.kb = b[rb - (d.tb ? 1 : 2)];
  d.n = b[rb - (d.tb ? 2 : 1)];
  d.batch_a = batch_of(a);
  d.batch_b = batch_of(b);
  return d;
}

std::vector<Type> infer_matmul(const InferArgs& args) {
  const Type &a = args.in[0], &b = args.in[1];
  if (a.shape.rank() < 2 || b.shape.rank() < 2)
    fail(ErrorKind::shape, "[matmul] expected operands of rank 2 or more, got {} and {}", a.shape, b.shape);
  if (a.dtype != b.dtype || a.dtype == DType::boolean)
    fail(ErrorKind::dtype, "[matmul] expected two operands of one numeric dtype, got {} and {}", a.str(), b.str());
  const ProductDims d = product_dims(a.shape, b.shape, args.attrs);
  if (d.k != d.kb)
    fail(ErrorKind::shape, "[matmul] expected b [.., {}], got {}: a is {}{}",
         d.tb ? fmt::format("n, {}", d.k) : fmt::format("{}, n", d.k), b.shape, a.shape, d.ta ? ", transposed" : "");
  Shape out = broadcast_shapes(d.batch_a, d.batch_b, "matmul: leading dimensions");
  out.push_back(d.m);
  out.push_back(d.n);
  return {{product_result(args.attrs, a.dtype), out}};
}

// The transposes are flags, never copies: dA = dC op(B)^T, dB = op(A)^T dC.
std::vector<Tensor> vjp_matmul(const VjpArgs& v) {
  const bool ta = v.attrs.flag("transpose_a"), tb = v.attrs.flag("transpose_b");
  const Tensor &a = v.in[0], &b = v.in[1], &d = v.d();
  Tensor da, db;
  if (v.needed[0]) da = sum_to(ta ? matmul(b, d, tb, true) : matmul(d, b, false, !tb), a.shape());
  if (v.needed[1]) db = sum_to(tb ? matmul(d, a, true, ta) : matmul(a, d, !ta, false), b.shape());
  return {da, db};
}

// Where the matrix of an operand begins for the batch number `i` of the output.
class BatchIndex {
 public:
  BatchIndex(const Shape& operand, const Shape& out) : out_(out) {
    const Shape strides = row_major_strides(operand);
    const int extra = out.rank() - operand.rank();
    for (int j = 0; j < out.rank(); ++j)
      strides_.push_back(j < extra || operand[j - extra] == 1 ? 0 : strides[j - extra]);
  }
  std::int64_t operator()(std::int64_t i) const {
    std::int64_t at = 0;
    for (int j = out_.rank() - 1; j >= 0; --j) {
      at += i % out_[j] * strides_[j];
      i /= out_[j];
    }
    return at;
  }

 private:
  Shape out_, strides_;
};

// to[row, col] = from[row, col], or from[col, row] when transposed.
template <class Acc, class T> void load(const T* from, bool transposed, std::int64_t rows, std::int64_t cols, Acc* to) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c)
      to[r * cols + c] =
          static_cast<Acc>(static_cast<arithmetic_t<T>>(transposed ? from[c * rows + r] : from[r * cols + c]));
}

template <class T, class Result = T> void reference_matmul(const KernelArgs& k) {
  using Acc = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;
  const ProductDims d = product_dims(k.in[0].type.shape, k.in[1].type.shape, k.attrs);
  const Shape batch = batch_of(k.out[0].type.shape);
  const BatchIndex at_a(d.batch_a, batch), at_b(d.batch_b, batch);
  const auto size = [](std::int64_t rows, std::int64_t cols) { return static_cast<std::size_t>(rows * cols); };
  std::vector<Acc> a(size(d.m, d.k)), b(size(d.k, d.n)), row(size(1, d.n));
  auto* y = k.out[0].as<Result>();
  for (std::int64_t i = 0, n = batch.numel(); i < n; ++i) {
    load(k.in[0].as<T>() + at_a(i) * d.m * d.k, d.ta, d.m, d.k, a.data());
    load(k.in[1].as<T>() + at_b(i) * d.k * d.n, d.tb, d.k, d.n, b.data());
    for (std::int64_t r = 0; r < d.m; ++r, y += d.n) {
      std::fill(row.begin(), row.end(), Acc{});
      for (std::int64_t p = 0; p < d.k; ++p) {
        const Acc s = a[static_cast<std::size_t>(r * d.k + p)];
        const Acc* line = b.data() + p * d.n;
        for (std::int64_t c = 0; c < d.n; ++c) row[static_cast<std::size_t>(c)] += s * line[c];
      }
      for (std::int64_t c = 0; c < d.n; ++c)
        y[c] = static_cast<Result>(static_cast<arithmetic_t<T>>(row[static_cast<std::size_t>(c)]));
    }
  }
}

}  // namespace

const OpDef op_matmul{
    .name = "matmul",
    .cls = OpClass::product,
    .flags = kNone,
    .infer = infer_matmul,
    .vjp = vjp_matmul,
    .reference =
        [](const KernelArgs& k) {
          const DType in = k.in[0].type.dtype;
          if (in != k.out[0].type.dtype) return reference_matmul<bfloat16, float>(k);
          dispatch(in, [&](auto zero) { reference_matmul<decltype(zero)>(k); });
        },
    .flops =
        [](std::span<const Type> in, std::span<const Type> out, const Attrs& attrs) {
          const Shape& a = in[0].shape;
          return 2.0 * static_cast<double>(out[0].shape.numel()) *
                 static_cast<double>(a[a.rank() - (attrs.flag("transpose_a") ? 2 : 1)]);
        },
    .doc =
        "[.., m, k] x [.., k, n] -> [.., m, n]; leading dimensions broadcast; either operand may be stored "
        "transposed."};

}  // namespace ir

using namespace ops;

namespace {

Tensor product(const Tensor& a, const Tensor& b, bool ta, bool tb) {
  return record1(OpId::matmul, {a, b}, {{"transpose_a", ta}, {"transpose_b", tb}});
}

Shape matrix_of(const Shape& s, std::int64_t rows) { return {rows, s.back()}; }

// One matrix b for all leading dimensions of a: their rows are stacked into one matrix. One large product is faster
// than many, and so is its weight gradient X^T dY over all rows.
Tensor stacked_product(const Tensor& a, const Tensor& b, bool tb) {
  const Shape &sa = a.shape(), &sb = b.shape();
  const std::int64_t k = sa.back(), kb = sb[sb.rank() - (tb ? 1 : 2)], n = sb[sb.rank() - (tb ? 2 : 1)];
  if (k != kb) return product(a, b, false, tb);  // the type rule's message shows the shapes as they were given
  Shape out = broadcast_shapes(ir::batch_of(sa), ir::batch_of(sb), "matmul");
  out.push_back(sa[sa.rank() - 2]);
  out.push_back(n);
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < sa.rank(); ++i) rows *= sa[i];
  const Tensor y = product(reshape(a, matrix_of(sa, rows)), reshape(b, matrix_of(sb, sb[sb.rank() - 2])), false, tb);
  return reshape(y, out);
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  DType t = promote(a.dtype(), b.dtype());
  if (t == DType::boolean) t = DType::i64;
  Tensor x = cast(a, t), y = cast(b, t);
  if (x.rank() == 0 || y.rank() == 0)
    fail(ErrorKind::shape, "[matmul] expected operands of rank 1 or more, got {} and {}", a.shape(), b.shape());
  const bool row = x.rank() == 1, column = y.rank() == 1;
  if (row) x = unsqueeze(x, 0);
  if (column) y = unsqueeze(y, 1);
  const bool ta = transpose_a && !row, tb = transpose_b && !column;
  const bool stacked = !ta && ir::batch_of(y.shape()).numel() == 1 && (x.rank() > 2 || y.rank() > 2);
  Tensor out = stacked ? stacked_product(x, y, tb) : product(x, y, ta, tb);
  if (column) out = squeeze(out, -1);
  if (row) out = squeeze(out, column ? -1 : -2);
  return out;
}

}  // namespace bp

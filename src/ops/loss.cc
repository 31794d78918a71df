// The losses. Everything is elementwise or a reduction of rows, so that a loss and its gradient are fused loops. bf16
// is computed in f32, and the loss is f32 then.
#include <limits>

#include "ops/common.h"

namespace bp {

using namespace ops;

namespace {
Tensor precise(const Tensor& x) { return x.dtype() == DType::bf16 ? cast(x, DType::f32) : to_float(x); }

Tensor reduced(const Tensor& losses, Reduction r) {
  return r == Reduction::mean ? mean(losses) : r == Reduction::sum ? sum(losses) : losses;
}

// No broadcasting here: [N] against [N, 1] would silently become [N, N].
void require_same_shape(const Tensor& y, const Tensor& target, const char* op) {
  if (!(y.shape() == target.shape()))
    fail(ErrorKind::shape, "[{}] expected a target of shape {}, got {}", op, y.shape(), target.shape());
}

Tensor residual(const Tensor& y, const Tensor& target, const char* op) {
  require_same_shape(y, target, op);
  return precise(y) - precise(target);
}
}  // namespace

Tensor squared_error(const Tensor& y, const Tensor& target, Reduction r) {
  Scope scope("squared_error");
  return reduced(square(residual(y, target, "squared_error")), r);
}

Tensor half_squared_error(const Tensor& y, const Tensor& target, Reduction r) {
  Scope scope("half_squared_error");
  const Tensor squares = square(residual(y, target, "half_squared_error"));
  Axes rest;
  for (int d = 1; d < y.rank(); ++d) rest.push_back(d);
  return reduced(0.5 * (rest.empty() ? squares : sum(squares, rest)), r);
}

Tensor l1_loss(const Tensor& y, const Tensor& target, Reduction r) {
  Scope scope("l1_loss");
  return reduced(abs(residual(y, target, "l1_loss")), r);
}

Tensor huber_loss(const Tensor& y, const Tensor& target, double delta, Reduction r) {
  Scope scope("huber_loss");
  if (!(delta > 0)) fail(ErrorKind::value, "[huber_loss] expected delta > 0, got {}", delta);
  const Tensor e = residual(y, target, "huber_loss"), size = abs(e);
  const Tensor outside = size > delta;
  const Tensor near = select(outside, zeros_like(e), e);  // the square of a huge residual would overflow
  return reduced(select(outside, delta * (size - 0.5 * delta), 0.5 * square(near)), r);
}

namespace {
// logits as [rows, classes] and what every form of cross entropy is made of.
struct Rows {
  Tensor shifted;  // logits - max: [rows, classes]
  Tensor lse;      // log(sum(exp(shifted))): [rows]
};

Rows shifted_rows(const Tensor& logits) {
  const Tensor z = reshape(precise(logits), Shape{logits.numel() / logits.shape().back(), logits.shape().back()});
  const Tensor shifted = z - stop_gradient(max(z, {1}, true));
  return {shifted, log(sum(exp(shifted), {1}))};
}

Tensor masked_sum(const Tensor& mask, const Tensor& x) { return sum(select(mask, x, zeros_like(x)), {1}); }

// PyTorch's: (1 - s) w[y] (lse - z[y]) + s / C sum_c w[c] (lse - z[c]); the mean divides by sum w[y].
Tensor cross_entropy_of_ids(const Rows& rows, const Tensor& ids, const Shape& shape, const CrossEntropyOptions& o) {
  const std::int64_t classes = rows.shifted.shape()[1];
  const DType t = rows.shifted.dtype();
  // The mark lets a compiled step check ids that are its arguments before it runs.
  const Tensor flat = record1(OpId::reshape, {cast(ids, ids.dtype() == DType::u8 ? DType::i32 : ids.dtype())},
                              {{"shape", Ints{ids.numel()}}, {"index_limit", classes}});
  const Tensor hit = equal(unsqueeze(flat, 1), arange(classes, flat.dtype()));
  Tensor loss = rows.lse - masked_sum(hit, rows.shifted), weight;
  if (o.class_weights.defined()) {
    weight = masked_sum(hit, broadcast_to(cast(o.class_weights, t), rows.shifted.shape()));
    loss = loss * weight;
  }
  if (o.label_smoothing != 0) {
    const Tensor apart = unsqueeze(rows.lse, 1) - rows.shifted;
    const Tensor all = sum(o.class_weights.defined() ? apart * cast(o.class_weights, t) : apart, {1});
    loss = (1 - o.label_smoothing) * loss + (o.label_smoothing / static_cast<double>(classes)) * all;
  }
  // An id that names no class must not look like a small loss.
  const Tensor valid = logical_and(flat >= 0.0, flat < static_cast<double>(classes));
  loss = select(valid, loss, full(loss.shape(), std::numeric_limits<double>::quiet_NaN(), t));
  if (o.reduction == Reduction::none) return reshape(loss, shape);
  if (o.reduction == Reduction::mean && weight.defined()) return sum(loss) / sum(weight);
  return reduced(loss, o.reduction);
}

// sum_c w[c] p[c] (lse - z[c]); a class of probability 0 contributes 0 even where its logit is -inf.
Tensor cross_entropy_of_probabilities(const Rows& rows, const Tensor& target, const Shape& shape,
                                      const CrossEntropyOptions& o) {
  const auto classes = static_cast<double>(rows.shifted.shape()[1]);
  Tensor p = reshape(cast(target, rows.shifted.dtype()), rows.shifted.shape());
  if (o.label_smoothing != 0) p = (1 - o.label_smoothing) * p + o.label_smoothing / classes;
  if (o.class_weights.defined()) p = p * cast(o.class_weights, p.dtype());
  const Tensor apart = unsqueeze(rows.lse, 1) - rows.shifted;
  const Tensor loss = sum(p * select(equal(p, 0), zeros_like(apart), apart), {1});
  return o.reduction == Reduction::none ? reshape(loss, shape) : reduced(loss, o.reduction);
}

void check_cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& o, const Shape& rows) {
  const bool ids = is_integer(target.dtype());
  if (!ids && !is_float(target.dtype()))
    fail(ErrorKind::dtype, "[cross_entropy] expected integer class ids or floating probabilities, got {}",
         target.type().str());
  if (!(target.shape() == (ids ? rows : logits.shape())))
    fail(ErrorKind::shape, "[cross_entropy] expected {} for logits {}, got {}",
         ids ? fmt::format("class ids {}", rows)
             : fmt::format("probabilities {} (or integer class ids)", logits.shape()),
         logits.shape(), target.type().str());
  if (!(o.label_smoothing >= 0 && o.label_smoothing <= 1))
    fail(ErrorKind::value, "[cross_entropy] expected a label smoothing in [0, 1], got {}", o.label_smoothing);
  if (o.class_weights.defined() && !(o.class_weights.shape() == Shape{logits.shape().back()}))
    fail(ErrorKind::shape, "[cross_entropy] expected one weight for each of {} classes, got {}", logits.shape().back(),
         o.class_weights.shape());
}
}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options) {
  Scope scope("cross_entropy");
  if (logits.rank() == 0 || logits.shape().back() == 0)
    fail(ErrorKind::shape, "[cross_entropy] expected logits [.., classes], got {}", logits.shape());
  Shape shape = logits.shape();
  shape.erase(shape.rank() - 1);
  check_cross_entropy(logits, target, options, shape);
  const Rows rows = shifted_rows(logits);
  return is_integer(target.dtype()) ? cross_entropy_of_ids(rows, target, shape, options)
                                    : cross_entropy_of_probabilities(rows, target, shape, options);
}

// softplus(z) - z t, with the forms of softplus that are exact on their side of 0 (see compose.cc).
Tensor binary_cross_entropy(const Tensor& logits, const Tensor& target, Reduction r) {
  Scope scope("binary_cross_entropy");
  require_same_shape(logits, target, "binary_cross_entropy");
  const Tensor z = precise(logits), t = cast(target, z.dtype());
  const Tensor positive = greater_equal(z, weak_scalar(0, z));
  const Tensor linear = select(positive, z, zeros_like(z)) - z * t;
  return reduced(linear + log1p(exp(select(positive, -z, z))), r);
}

Tensor kl_divergence(const Tensor& log_q, const Tensor& p, Reduction r) {
  Scope scope("kl_divergence");
  require_same_shape(log_q, p, "kl_divergence");
  if (p.rank() == 0)
    fail(ErrorKind::shape, "[kl_divergence] expected log-probabilities [.., classes], got {}", p.shape());
  const Tensor lq = precise(log_q), q = cast(p, lq.dtype());
  const Tensor none = equal(q, 0);  // contributes 0, also where log q = -inf
  const Tensor log_p = log(select(none, ones_like(q), q));
  return reduced(sum(q * (log_p - select(none, zeros_like(lq), lq)), {-1}), r);
}

}  // namespace bp

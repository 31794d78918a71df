// attention and attention_grad: the fused primitives, their scalar kernels, and the same in plain operations, from
// which second derivatives come.
//
// Inputs of attention: q, k, v; of attention_grad: q, k, v, out, lse, dout; then, where the attributes "mask",
// "lengths", "offset", "random" are set, the mask [B|1, H|1, Tq|1, Tk|1] (bool or the dtype of q), the integers [B] and
// the state i64[2] of the dropout (attributes "dropout", "place").
#include "bp/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random_word.h"
#include "ops/attention.h"
#include "ops/common.h"
#include "ops/walk.h"

namespace bp {
namespace ir {
using namespace ops;

namespace {

// ---- type rules ----

// The logarithms of the sums, and masks that are added: f32 beside operands in bf16.
DType wide(DType t) { return t == DType::bf16 ? DType::f32 : t; }

// Extra inputs behind the first `from`, by attribute.
struct Extras {
  int mask = -1, lengths = -1, offset = -1, random = -1, count = 0;
  Extras(const Attrs& attrs, int from) {
    count = from;
    if (attrs.flag("mask")) mask = count++;
    if (attrs.flag("lengths")) lengths = count++;
    if (attrs.flag("offset")) offset = count++;
    if (attrs.flag("random")) random = count++;
  }
};

void check_operands(const Type& q, const Type& k, const Type& v) {
  if (!is_float(q.dtype) || k.dtype != q.dtype || v.dtype != q.dtype)
    fail(ErrorKind::dtype, "[attention] expected q, k and v in f32, f64 or bf16, got {}, {} and {}", q.str(), k.str(),
         v.str());
  const Shape &s = q.shape, &t = k.shape, &u = v.shape;
  if (s.rank() != 4 || t.rank() != 4 || u.rank() != 4)
    fail(ErrorKind::shape,
         "[attention] expected q [B, Tq, H, D], k [B, Tk, K, D] and v [B, Tk, K, E], got {}, {} and {}", s, t, u);
  if (t[0] != s[0] || t[3] != s[3])
    fail(ErrorKind::shape, "[attention] expected k [{}, Tk, K, {}] beside q {}, got {}", s[0], s[3], s, t);
  if (u[0] != t[0] || u[1] != t[1] || u[2] != t[2])
    fail(ErrorKind::shape, "[attention] expected v [{}, {}, {}, E] beside k {}, got {}", t[0], t[1], t[2], t, u);
  if (t[2] == 0 ? s[2] != 0 : s[2] % t[2] != 0)
    fail(ErrorKind::shape,
         "[attention] expected a number of query heads that is a multiple of the {} key heads, got {}", t[2], s[2]);
}

void check_extras(const InferArgs& a, const Extras& e) {
  const Shape &q = a.in[0].shape, &k = a.in[1].shape;
  const Shape scores{q[0], q[2], q[1], k[1]};
  if (e.mask >= 0) {
    const Type& m = a.in[static_cast<std::size_t>(e.mask)];
    bool fits = m.shape.rank() == 4 && (m.dtype == DType::boolean || m.dtype == wide(a.in[0].dtype));
    for (int d = 0; fits && d < 4; ++d) fits = m.shape[d] == 1 || m.shape[d] == scores[d];
    if (!fits)
      fail(ErrorKind::shape, "[attention] expected a mask broadcastable to {} in bool or {}, got {}", scores,
           name_of(wide(a.in[0].dtype)), m.str());
  }
  if (e.random >= 0 && a.in[static_cast<std::size_t>(e.random)] != Type{DType::i64, {2}})
    fail(ErrorKind::shape, "[attention] expected a random_state i64[2], got {}",
         a.in[static_cast<std::size_t>(e.random)].str());
  for (const int at : {e.lengths, e.offset}) {
    if (at < 0) continue;
    const Type& t = a.in[static_cast<std::size_t>(at)];
    if (t.dtype != DType::i64 || !(t.shape == Shape{q[0]}))
      fail(ErrorKind::shape, "[attention] expected {} i64[{}], got {}",
           at == e.lengths ? "key_lengths" : "query_offset", q[0], t.str());
  }
}

Shape lse_shape(const Shape& q) { return {q[0], q[2], q[1]}; }

std::vector<Type> infer_attention(const InferArgs& a) {
  check_operands(a.in[0], a.in[1], a.in[2]);
  check_extras(a, Extras(a.attrs, 3));
  const Shape& q = a.in[0].shape;
  return {{a.in[0].dtype, {q[0], q[1], q[2], a.in[2].shape[3]}}, {wide(a.in[0].dtype), lse_shape(q)}};
}

std::vector<Type> infer_attention_grad(const InferArgs& a) {
  check_operands(a.in[0], a.in[1], a.in[2]);
  check_extras(a, Extras(a.attrs, 6));
  const Shape& q = a.in[0].shape;
  const Type out{a.in[0].dtype, {q[0], q[1], q[2], a.in[2].shape[3]}}, lse{wide(a.in[0].dtype), lse_shape(q)};
  if (a.in[3] != out || a.in[4] != lse || a.in[5] != out)
    fail(ErrorKind::shape, "[attention_grad] expected out {}, lse {} and dout {}, got {}, {} and {}", out.str(),
         lse.str(), out.str(), a.in[3].str(), a.in[4].str(), a.in[5].str());
  return {a.in[0], a.in[1], a.in[2]};
}

// ---- scalar kernels ----

double number(const View& v, std::int64_t i) {
  switch (v.type.dtype) {
    case DType::f64: return v.as<double>()[i];
    case DType::bf16: return static_cast<float>(v.as<bfloat16>()[i]);
    default: return v.as<float>()[i];
  }
}
std::vector<double> numbers(const View& v) {
  std::vector<double> out(static_cast<std::size_t>(v.type.shape.numel()));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = number(v, static_cast<std::int64_t>(i));
  return out;
}
void store_rows(const std::vector<double>& from, const View& to) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (to.type.dtype == DType::f64)
      to.as<double>()[i] = from[i];
    else if (to.type.dtype == DType::bf16)
      to.as<bfloat16>()[i] = bfloat16(static_cast<float>(from[i]));
    else
      to.as<float>()[i] = static_cast<float>(from[i]);
  }
}

// The operands of a call, and the score of a query and a key.
struct Scores {
  std::int64_t batch, queries, keys, heads, key_heads, depth, values, group;
  const KernelArgs& args;
  Extras extras;
  double scale, keep;
  bool causal;

  Scores(const KernelArgs& k, int from) : args(k), extras(k.attrs, from) {
    const Shape &q = k.in[0].type.shape, &t = k.in[1].type.shape;
    batch = q[0], queries = q[1], heads = q[2], depth = q[3], keys = t[1], key_heads = t[2];
    values = k.in[2].type.shape[3];
    group = key_heads == 0 ? 1 : heads / key_heads;
    scale = k.attrs.real("scale");
    causal = k.attrs.flag("causal");
    keep = 1 - k.attrs.real("dropout");
  }
  // What dropout makes of a weight of 1.
  double thinned(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    if (extras.random < 0) return 1;
    const View& state = input(extras.random);
    const auto at = static_cast<std::uint64_t>(((b * heads + h) * queries + i) * keys + j);
    const std::uint32_t bits = random_word(index_at(state, 0), index_at(state, 1),
                                           static_cast<std::uint64_t>(args.attrs.integer("place")), at) >>
                               8;
    return bits < std::nearbyint(std::ldexp(keep, 24)) ? 1 / keep : 0;
  }
  // Number of the first element of a row, in the blocks [B, T, heads, n].
  std::int64_t q_row(std::int64_t b, std::int64_t i, std::int64_t h, std::int64_t n) const {
    return ((b * queries + i) * heads + h) * n;
  }
  std::int64_t k_row(std::int64_t b, std::int64_t j, std::int64_t h, std::int64_t n) const {
    return ((b * keys + j) * key_heads + h / group) * n;
  }
  const View& input(int i) const { return args.in[static_cast<std::size_t>(i)]; }

  // scale q k + mask, or -inf where the key is hidden.
  double operator()(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    constexpr double kHidden = -std::numeric_limits<double>::infinity();
    if (extras.lengths >= 0 && j >= index_at(input(extras.lengths), b)) return kHidden;
    if (causal && j > i + (extras.offset >= 0 ? index_at(input(extras.offset), b) : 0)) return kHidden;
    double sum = 0, added = 0;
    if (extras.mask >= 0) {
      const View& m = input(extras.mask);
      const Shape& s = m.type.shape;
      const std::int64_t at = (((s[0] == 1 ? 0 : b) * s[1] + (s[1] == 1 ? 0 : h)) * s[2] + (s[2] == 1 ? 0 : i)) * s[3] +
                              (s[3] == 1 ? 0 : j);
      if (m.type.dtype == DType::boolean) {
        if (!m.as<bool>()[at]) return kHidden;
      } else {
        added = number(m, at);
      }
    }
    for (std::int64_t d = 0; d < depth; ++d)
      sum += number(args.in[0], q_row(b, i, h, depth) + d) * number(args.in[1], k_row(b, j, h, depth) + d);
    return scale * sum + added;
  }
  template <class F> void each_query(F f) const {
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < queries; ++i) f(b, h, i);
  }
};

void reference_attention(const KernelArgs& k) {
  const Scores s(k, 3);
  std::vector<double> out(static_cast<std::size_t>(k.out[0].type.shape.numel()));
  std::vector<double> lse(static_cast<std::size_t>(k.out[1].type.shape.numel())), row(static_cast<std::size_t>(s.keys));
  s.each_query([&](std::int64_t b, std::int64_t h, std::int64_t i) {
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (std::int64_t j = 0; j < s.keys; ++j) {
      const double x = row[static_cast<std::size_t>(j)] = s(b, h, i, j);
      top = x > top || std::isnan(x) ? x : top;
    }
    if (std::isinf(top) && top < 0) top = 0;
    for (double& x : row) total += x = std::exp(x - top);
    lse[static_cast<std::size_t>((b * s.heads + h) * s.queries + i)] =
        total == 0 ? kNothingSeen : top + std::log(total);
    if (total == 0) return;
    const auto at = static_cast<std::size_t>(s.q_row(b, i, h, s.values));
    for (std::int64_t j = 0; j < s.keys; ++j) {
      const double w = row[static_cast<std::size_t>(j)] / total * s.thinned(b, h, i, j);
      if (w == 0) continue;
      for (std::int64_t d = 0; d < s.values; ++d)
        out[at + static_cast<std::size_t>(d)] += w * number(k.in[2], s.k_row(b, j, h, s.values) + d);
    }
  });
  store_rows(out, k.out[0]);
  store_rows(lse, k.out[1]);
}

// P = exp(S - lse), dP = M dout v, dS = P (dP - out . dout) scale; dq = dS k, dk = dS^T q, dv = (M P)^T dout, where M
// is what dropout makes of the weights.
void reference_attention_grad(const KernelArgs& k) {
  const Scores s(k, 6);
  const std::vector<double> q = numbers(k.in[0]), key = numbers(k.in[1]), v = numbers(k.in[2]), out = numbers(k.in[3]);
  const std::vector<double> lse = numbers(k.in[4]), dout = numbers(k.in[5]);
  std::vector<double> dq(q.size()), dk(key.size()), dv(v.size());
  s.each_query([&](std::int64_t b, std::int64_t h, std::int64_t i) {
    const auto at = static_cast<std::size_t>(s.q_row(b, i, h, s.values));
    const auto q_at = static_cast<std::size_t>(s.q_row(b, i, h, s.depth));
    const auto depth = static_cast<std::size_t>(s.depth), values = static_cast<std::size_t>(s.values);
    double delta = 0;
    for (std::size_t d = 0; d < values; ++d) delta += out[at + d] * dout[at + d];
    for (std::int64_t j = 0; j < s.keys; ++j) {
      const double p = std::exp(s(b, h, i, j) - lse[static_cast<std::size_t>((b * s.heads + h) * s.queries + i)]);
      if (p == 0) continue;
      const auto v_at = static_cast<std::size_t>(s.k_row(b, j, h, s.values));
      const auto k_at = static_cast<std::size_t>(s.k_row(b, j, h, s.depth));
      double dp = 0;
      const double m = s.thinned(b, h, i, j);
      for (std::size_t d = 0; d < values; ++d) {
        dp += m * dout[at + d] * v[v_at + d];
        dv[v_at + d] += m * p * dout[at + d];
      }
      const double ds = p * (dp - delta) * s.scale;
      for (std::size_t d = 0; d < depth; ++d) {
        dq[q_at + d] += ds * key[k_at + d];
        dk[k_at + d] += ds * q[q_at + d];
      }
    }
  });
  store_rows(dq, k.out[0]);
  store_rows(dk, k.out[1]);
  store_rows(dv, k.out[2]);
}

// ---- in plain operations ----

// [B, T, H, D] -> [B, K, H / K, T, D]
Tensor grouped(const Tensor& x, std::int64_t key_heads) {
  const Shape& s = x.shape();
  return transpose(reshape(x, Shape{s[0], s[1], key_heads, key_heads == 0 ? 1 : s[2] / key_heads, s[3]}),
                   {0, 2, 3, 1, 4});
}
Tensor ungrouped(const Tensor& x) {
  const Shape& s = x.shape();
  return reshape(transpose(x, {0, 3, 1, 2, 4}), Shape{s[0], s[3], s[1] * s[2], s[4]});
}
// The cotangent of keys or values, summed over the queries of a group: [B, K, G, T, D] -> [B, T, K, D]
Tensor ungrouped_sum(const Tensor& x) { return ungrouped(sum(x, {2}, true)); }

// Which entries of [B, K, G, Tq, Tk] are seen, broadcastable; undefined: all.
struct Visible {
  Tensor seen, added;
};
Tensor both(const Tensor& a, const Tensor& b) { return a.defined() ? logical_and(a, b) : b; }

Visible visible(const Tensor& q, const Tensor& k, const Attrs& attrs, std::span<const Tensor> in, int from) {
  const Extras e(attrs, from);
  const std::int64_t batch = q.size(0), queries = q.size(1), keys = k.size(1), key_heads = k.size(2);
  const auto input = [&](int i) { return in[static_cast<std::size_t>(i)]; };
  const auto per_batch = [&](int i) { return reshape(input(i), Shape{batch, 1, 1, 1, 1}); };
  const Tensor key = iota({1, 1, 1, 1, keys}, 4);
  Visible v;
  if (e.lengths >= 0) v.seen = key < per_batch(e.lengths);
  if (attrs.flag("causal")) {
    Tensor last = iota({1, 1, 1, queries, 1}, 3);
    if (e.offset >= 0) last = last + per_batch(e.offset);
    v.seen = both(v.seen, key <= last);
  }
  if (e.mask >= 0) {
    const Tensor m = input(e.mask);
    const Shape& s = m.shape();
    const bool heads = s[1] != 1;
    const Tensor wide = reshape(
        m, Shape{s[0], heads ? key_heads : 1, heads ? s[1] / std::max<std::int64_t>(key_heads, 1) : 1, s[2], s[3]});
    (m.dtype() == DType::boolean ? v.seen : v.added) = m.dtype() == DType::boolean ? both(v.seen, wide) : wide;
  }
  return v;
}

// softmax over the keys that are seen: [B, K, G, Tq, Tk]; rows that see nothing are zero.
Tensor weights_of(const Tensor& qg, const Tensor& kg, const Visible& v, double scale) {
  Tensor s = matmul(qg, kg, false, true) * scale;
  if (s.numel() == 0) return s;
  if (v.added.defined()) s = s + v.added;
  const Tensor seen = v.seen.defined() ? broadcast_to(v.seen, s.shape()) : Tensor();
  const Tensor hidden = full({}, -std::numeric_limits<double>::infinity(), s.dtype());
  const Tensor highest = stop_gradient(max(seen.defined() ? select(seen, s, hidden) : s, {4}, true));
  const Tensor top = select(equal(highest, -std::numeric_limits<double>::infinity()), zeros_like(highest), highest);
  const Tensor e =
      seen.defined() ? select(seen, exp(select(seen, s - top, zeros_like(s))), zeros_like(s)) : exp(s - top);
  const Tensor total = sum(e, {4}, true), empty = equal(total, 0);
  return e * select(empty, zeros_like(total), reciprocal(select(empty, ones_like(total), total)));
}

// Weights [B, K, G, Tq, Tk] with those that dropout drops at zero; the others grow.
Tensor thinned(const Tensor& w, const Attrs& attrs, std::span<const Tensor> in, int from) {
  const Extras e(attrs, from);
  if (e.random < 0) return w;
  const Shape& s = w.shape();
  const double keep = 1 - attrs.real("dropout");
  const Tensor kept = random_bernoulli(in[static_cast<std::size_t>(e.random)], Shape{s[0], s[1] * s[2], s[3], s[4]},
                                       keep, static_cast<std::uint64_t>(attrs.integer("place")));
  return select(reshape(kept, s), w * (1 / keep), zeros_like(w));
}

// The gradients of attention in plain operations, and what is needed to differentiate them.
struct Parts {
  Tensor q, k, v, d;            // grouped: [B, K, G, T, D]
  Tensor weights, dw, centred;  // P, dP = M d v^T, dP - sum(P dP): [B, K, G, Tq, Tk]
};

Parts parts_of(const VjpArgs& v) {
  const std::int64_t heads = v.in[1].size(2);
  Parts p{
      grouped(v.in[0], heads), grouped(v.in[1], heads), grouped(v.in[2], heads), grouped(v.in[5], heads), {}, {}, {}};
  p.weights = weights_of(p.q, p.k, visible(v.in[0], v.in[1], v.attrs, v.in, 6), v.attrs.real("scale"));
  p.dw = thinned(matmul(p.d, p.v, false, true), v.attrs, v.in, 6);
  p.centred = p.dw - sum(p.weights * p.dw, {4}, true);
  return p;
}

std::vector<Tensor> vjp_attention(const VjpArgs& v) {
  const Extras e(v.attrs, 3);
  std::vector<Tensor> out(v.in.size());
  if (e.mask >= 0 && v.needed[static_cast<std::size_t>(e.mask)]) {
    // dS, summed to the mask's shape, in memory Tq * Tk.
    const std::int64_t heads = v.in[1].size(2);
    const Tensor q = grouped(v.in[0], heads), k = grouped(v.in[1], heads), d = grouped(v.d(), heads);
    const Tensor w = weights_of(q, k, visible(v.in[0], v.in[1], v.attrs, v.in, 3), v.attrs.real("scale"));
    const Tensor dw = thinned(matmul(d, grouped(v.in[2], heads), false, true), v.attrs, v.in, 3);
    const Tensor ds = w * (dw - sum(w * dw, {4}, true));
    const Shape& s = ds.shape();
    out[static_cast<std::size_t>(e.mask)] =
        sum_to(reshape(ds, Shape{s[0], s[1] * s[2], s[3], s[4]}), v.in[static_cast<std::size_t>(e.mask)].shape());
  }
  if (!v.needed[0] && !v.needed[1] && !v.needed[2]) return out;
  std::vector<Tensor> in{v.in[0], v.in[1], v.in[2], v.out[0], v.out[1], v.d()};
  for (std::size_t i = 3; i < v.in.size(); ++i) in.push_back(v.in[i]);
  const auto node = record(OpId::attention_grad, std::move(in), v.attrs);
  for (std::uint32_t i = 0; i < 3; ++i) out[i] = Tensor(node, i);
  return out;
}

// The gradients are functions of q, k, v, dout and the mask; `out` and `lse` are what these make of them, so nothing
// flows to those. With P the weights, M what dropout makes of them, s the scale, a, b, c the cotangents of dq, dk, dv
// and X' for the cotangent of X:
//   dS' = s (a k^T + q b^T)                        as dq = s dS k, dk = s dS^T q
//   P' = dS' (dP - D) + M d c^T - r dP             as dS = P (dP - D), D = sum(P dP), dv = (M P)^T d; r = sum(P dS')
//   dP' = M P (dS' - r)                            as dP = M d v^T
//   S' = P (P' - sum(P P'))
//   q' = s (dS b + S' k), k' = s (dS^T a + S'^T q), v' = dP'^T d, d' = M P c + dP' v
std::vector<Tensor> vjp_attention_grad(const VjpArgs& v) {
  const Parts p = parts_of(v);
  const double scale = v.attrs.real("scale");
  const std::int64_t heads = v.in[1].size(2);
  const auto cotangent = [&](std::size_t i) {
    return v.cotangent[i].defined() ? grouped(v.cotangent[i], heads) : grouped(zeros_like(v.in[i]), heads);
  };
  const Tensor a = cotangent(0), b = cotangent(1), c = cotangent(2);
  const Tensor &w = p.weights, ds = w * p.centred;
  const Tensor ds_bar = (matmul(a, p.k, false, true) + matmul(p.q, b, false, true)) * scale;
  const Tensor r = sum(w * ds_bar, {4}, true);
  const auto thin = [&](const Tensor& x) { return thinned(x, v.attrs, v.in, 6); };
  const Tensor w_bar = ds_bar * p.centred + thin(matmul(p.d, c, false, true)) - r * p.dw;
  const Tensor dw_bar = thin(w * (ds_bar - r));
  const Tensor s_bar = w * (w_bar - sum(w * w_bar, {4}, true));
  std::vector<Tensor> out(v.in.size());
  out[0] = ungrouped((matmul(ds, b) + matmul(s_bar, p.k)) * scale);
  out[1] = ungrouped_sum((matmul(ds, a, true) + matmul(s_bar, p.q, true)) * scale);
  out[2] = ungrouped_sum(matmul(dw_bar, p.d, true));
  out[5] = ungrouped(matmul(thin(w), c) + matmul(dw_bar, p.v));
  const Extras e(v.attrs, 6);
  if (e.mask >= 0 && v.needed[static_cast<std::size_t>(e.mask)]) {
    const Shape& s = s_bar.shape();
    out[static_cast<std::size_t>(e.mask)] =
        sum_to(reshape(s_bar, Shape{s[0], s[1] * s[2], s[3], s[4]}), v.in[static_cast<std::size_t>(e.mask)].shape());
  }
  return out;
}

// Two products forward; backward five. What a causal mask spares is not taken off.
double pairs(std::span<const Type> in) {
  const Shape& q = in[0].shape;
  return static_cast<double>(q[0] * q[1] * q[2]) * static_cast<double>(in[1].shape[1]);
}
double attention_flops(std::span<const Type> in, std::span<const Type>, const Attrs&) {
  return 2 * pairs(in) * static_cast<double>(in[0].shape[3] + in[2].shape[3]);
}
double attention_grad_flops(std::span<const Type> in, std::span<const Type>, const Attrs&) {
  return 2 * pairs(in) * static_cast<double>(3 * in[0].shape[3] + 2 * in[2].shape[3]);
}

}  // namespace

const OpDef op_attention{
    .name = "attention",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = infer_attention,
    .vjp = vjp_attention,
    .reference = reference_attention,
    .flops = attention_flops,
    .doc =
        "q [B, Tq, H, D], k [B, Tk, K, D], v [B, Tk, K, E] -> softmax(scale q k^T + mask) v [B, Tq, H, E] and the "
        "logarithms of the softmax's sums [B, H, Tq]; `causal`, mask, key lengths and query offset hide keys, and a "
        "query that sees none gives zeros; `dropout` thins the weights out. Memory is linear in Tq and Tk."};

const OpDef op_attention_grad{
    .name = "attention_grad",
    .cls = OpClass::other,
    .flags = kNone,
    .infer = infer_attention_grad,
    .vjp = vjp_attention_grad,
    .reference = reference_attention_grad,
    .flops = attention_grad_flops,
    .doc =
        "The operands and results of attention and the cotangent of its first -> those of q, k and v; the weights are "
        "made again from q, k and the logarithms."};

}  // namespace ir

using namespace ops;

namespace {

// The tensor of integers [B] that an option means.
Tensor per_batch(const Tensor& x, std::int64_t batch, const char* what) {
  if (!is_integer(x.dtype()) || (x.rank() != 0 && !(x.shape() == Shape{batch}) && !(x.shape() == Shape{1})))
    fail(ErrorKind::shape, "[attention] {}: expected an integer or integers [{}], got {}", what, batch, x.type().str());
  return broadcast_to(cast(x, DType::i64), Shape{batch});
}

struct Prepared {
  std::vector<Tensor> extras;
  Attrs attrs;
};

// `dtype`: what is computed in.
Prepared prepared(const Tensor& q, const AttentionOptions& o, DType dtype) {
  if (q.rank() != 4) fail(ErrorKind::shape, "[attention] expected q [B, Tq, H, D], got {}", q.shape());
  const double scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(q.size(3), 1))));
  if (!std::isfinite(scale)) fail(ErrorKind::value, "[attention] expected a finite scale, got {}", scale);
  if (o.query_offset.defined() && !o.causal)
    fail(ErrorKind::value, "[attention] a query_offset has a meaning only when causal");
  Prepared p;
  if (o.mask.defined()) {
    if (o.mask.rank() > 4 || (o.mask.dtype() != DType::boolean && !is_float(o.mask.dtype())))
      fail(ErrorKind::shape, "[attention] expected a boolean or floating mask broadcastable to [B, H, Tq, Tk], got {}",
           o.mask.type().str());
    Shape shape = o.mask.shape();
    while (shape.rank() < 4) shape.insert(0, 1);
    const Tensor m = reshape(o.mask, shape);
    p.extras.push_back(m.dtype() == DType::boolean ? m : cast(m, dtype));
  }
  if (o.key_lengths.defined()) p.extras.push_back(per_batch(o.key_lengths, q.size(0), "key_lengths"));
  if (o.query_offset.defined()) p.extras.push_back(per_batch(o.query_offset, q.size(0), "query_offset"));
  if (!(o.dropout >= 0 && o.dropout < 1))
    fail(ErrorKind::value, "[attention] dropout: expected 0 <= dropout < 1, got {}", o.dropout);
  if (o.dropout > 0 && !o.random_state.defined())
    fail(ErrorKind::value, "[attention] dropout needs a random_state, i64[2]");
  if (o.dropout > 0) p.extras.push_back(o.random_state);
  p.attrs = {{"causal", o.causal},
             {"scale", scale},
             {"mask", o.mask.defined()},
             {"lengths", o.key_lengths.defined()},
             {"offset", o.query_offset.defined()},
             {"random", o.dropout > 0},
             {"dropout", o.dropout},
             {"place", static_cast<std::int64_t>(o.random_place)}};
  return p;
}

DType computed_in(const Tensor& q, const Tensor& k, const Tensor& v) {
  for (const Tensor* x : {&q, &k, &v})
    if (!is_float(x->dtype())) fail(ErrorKind::dtype, "[attention] expected floating tensors, got {}", x->type().str());
  const DType t = promote(promote(q.dtype(), k.dtype()), v.dtype());
  return t == DType::bf16 ? DType::f32 : t;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const DType t = computed_in(q, k, v), result = promote(promote(q.dtype(), k.dtype()), v.dtype());
  const Prepared p = prepared(q, options, t);
  std::vector<Tensor> in{cast(q, t), cast(k, t), cast(v, t)};
  in.insert(in.end(), p.extras.begin(), p.extras.end());
  return cast(record1(OpId::attention, std::move(in), p.attrs), result);
}

Tensor attention_weights(const Tensor& q, const Tensor& k, const AttentionOptions& options) {
  Scope scope("attention_weights");
  const DType t = computed_in(q, k, k), result = promote(q.dtype(), k.dtype());
  const Prepared p = prepared(q, options, t);
  std::vector<Tensor> in{cast(q, t), cast(k, t), cast(k, t)};
  in.insert(in.end(), p.extras.begin(), p.extras.end());
  std::vector<Type> types;
  for (const Tensor& x : in) types.push_back(x.type());
  ir::infer_attention({types, p.attrs});  // checks
  const std::int64_t key_heads = k.size(2);
  const Tensor w = ir::weights_of(ir::grouped(in[0], key_heads), ir::grouped(in[1], key_heads),
                                  ir::visible(q, k, p.attrs, in, 3), p.attrs.real("scale"));
  return cast(reshape(ir::thinned(w, p.attrs, in, 3), Shape{q.size(0), q.size(2), q.size(1), k.size(1)}), result);
}

Tensor attend(const Tensor& weights, const Tensor& v) {
  Scope scope("attend");
  const Shape &w = weights.shape(), &s = v.shape();
  if (w.rank() != 4 || s.rank() != 4 || s[0] != w[0] || s[1] != w[3] || (s[2] == 0 ? w[1] != 0 : w[1] % s[2] != 0))
    fail(ErrorKind::shape,
         "[attend] expected weights [B, H, Tq, Tk] and v [B, Tk, K, E], K a divisor of H, got {} and {}", w, s);
  const Tensor grouped_weights = reshape(weights, Shape{w[0], s[2], s[2] == 0 ? 1 : w[1] / s[2], w[2], w[3]});
  return ir::ungrouped(matmul(grouped_weights, ir::grouped(v, s[2])));
}

}  // namespace bp

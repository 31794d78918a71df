// Classification of a LoopProgram's values and the search for macro-instructions.
#include "cpu/kernels/loop_nodes.h"

#include <algorithm>
#include <cassert>

namespace bp::cpu {

namespace {

// Drops digits of size 1 and joins digits that step alike, so that the common forms have rank 0 or 1.
LoopAccess simplified(const LoopAccess& a) {
  LoopAccess s;
  s.col_stride = a.col_stride;
  for (std::size_t k = 0; k < static_cast<std::size_t>(a.rank); ++k) {
    if (a.size[k] == 1) continue;
    const auto last = static_cast<std::size_t>(s.rank - 1);
    if (s.rank > 0 && s.stride[last] == a.size[k] * a.stride[k]) {
      s.size[last] *= a.size[k];
      s.stride[last] = a.stride[k];
    } else {
      s.digit(a.size[k], a.stride[k]);
    }
  }
  if (s.rank == 1 && s.stride[0] == 0) s.rank = 0;
  return s;
}

void become(LoopNode& n, TileOp op, int a, int b, int c = -1) {
  n.op = op;
  n.arg[0] = a, n.arg[1] = b, n.arg[2] = c;
}

bool is_root(const LoopNode& n) { return n.op >= tile_op(LoopOp::store) && n.op <= tile_op(LoopOp::column_min); }

}  // namespace

int cost_of(const LoopNode& n) {
  if (n.op > tile_op(LoopOp::column_min)) return n.op == TileOp::exp_sub ? 8 : 1;
  switch (static_cast<LoopOp>(n.op)) {
    case LoopOp::pow:
    case LoopOp::remainder: return 200;
    case LoopOp::exp:
    case LoopOp::tanh:
    case LoopOp::sigmoid:
    case LoopOp::log:
    case LoopOp::log1p:
    case LoopOp::expm1:
    case LoopOp::sin:
    case LoopOp::cos:
    case LoopOp::erf:
    case LoopOp::random: return 8;
    default: return 1;
  }
}

bool is_dense(const LoopAccess& a, std::int64_t rows, std::int64_t cols) {
  if (rows == 1) return a.col_stride == 1 || cols == 1;
  return a.rank == 1 && a.stride[0] == cols && (a.col_stride == 1 || cols == 1);
}

bool is_stream(const LoopProgram& p, const LoopOperand& o) { return p.cols > 1 && is_dense(o.access, p.rows, p.cols); }

LoopTraffic traffic_of(const LoopProgram& p) {
  LoopTraffic t;
  for (const LoopOperand& o : p.operands) {
    if (is_stream(p, o)) t.bytes += p.rows * p.cols * static_cast<std::int64_t>(size_of(o.dtype));
    t.writes |= o.output && (p.rows == 1 || o.access.varies_with_row()) && o.access.varies_with_column();
  }
  return t;
}

LoopNodes::LoopNodes(const LoopProgram& program) : p_(program) {
  p_.check();
  simplify_accesses();
  if (collapsible()) collapse();
  build();
  find_macros();
  count_uses();
  find_levels();
}

void LoopNodes::simplify_accesses() {
  for (LoopOperand& o : p_.operands) {
    o.access = simplified(o.access);
    if (p_.rows == 1) o.access.rank = 0;
  }
}

// A purely element-wise program over contiguous tensors and scalars is one row.
bool LoopNodes::collapsible() const {
  if (p_.rows <= 1) return false;
  for (const LoopInstr& in : p_.instrs) {
    if (in.op == LoopOp::row_index || in.op == LoopOp::column_index || in.op > LoopOp::store) return false;
    if (in.op >= LoopOp::row_sum && in.op <= LoopOp::row_prod) return false;
  }
  return std::all_of(p_.operands.begin(), p_.operands.end(), [&](const LoopOperand& o) {
    return is_dense(o.access, p_.rows, p_.cols) || (o.access.rank == 0 && (o.access.col_stride == 0 || p_.cols == 1));
  });
}

void LoopNodes::collapse() {
  for (LoopOperand& o : p_.operands) {
    const bool dense = is_dense(o.access, p_.rows, p_.cols);
    o.access = {};
    o.access.col_stride = dense ? 1 : 0;
  }
  p_.cols *= p_.rows;
  p_.rows = 1;
}

// With one row there is nothing to hoist out of the rows; with one column a row's value is an element.
unsigned LoopNodes::spread(unsigned vary) const {
  if (p_.cols == 1 && p_.rows != 1) return vary & kRow ? kBoth : kUniform;
  if (vary & kColumn && (p_.rows == 1 || !hoist_columns_)) return kBoth;
  return vary;
}

unsigned LoopNodes::vary_of(const LoopAccess& a) const {
  return spread((a.rank != 0 ? unsigned{kRow} : 0u) | (a.col_stride != 0 ? unsigned{kColumn} : 0u));
}

void LoopNodes::build() {
  hoist_columns_ = p_.cols <= 16384 && p_.rows > 4;
  nodes_.resize(p_.instrs.size());
  for (std::size_t i = 0; i < p_.instrs.size(); ++i) {
    const LoopInstr& in = p_.instrs[i];
    LoopNode& n = nodes_[i];
    n.op = tile_op(in.op);
    n.operand = in.operand;
    n.imm = in.imm;
    n.place = in.place;
    n.arg[0] = in.a, n.arg[1] = in.b, n.arg[2] = in.c;
    if (in.op == LoopOp::load) n.vary = vary_of(p_.operands[static_cast<std::size_t>(in.operand)].access);
    if (in.op == LoopOp::column_index) n.vary = spread(kColumn);
    if (in.op == LoopOp::row_index) n.vary = p_.rows == 1 ? unsigned{kUniform} : spread(kRow);
    if (in.op == LoopOp::random) n.vary = kBoth;
    for (int v : n.arg)
      if (v >= 0) n.vary |= node(v).vary;
    if (n.is_reduction()) {
      // One column: a row is its own sum, maximum and product.
      if (p_.cols == 1 && p_.rows != 1)
        n.op = TileOp::copy;
      else
        n.vary = kRow;
    }
    strength_reduce(n);
  }
  count_uses();
}

// Small constant powers are products.
void LoopNodes::strength_reduce(LoopNode& n) {
  if (!n.is(LoopOp::pow) || !node(n.arg[1]).is(LoopOp::constant)) return;
  const double e = node(n.arg[1]).imm;
  if (e == 2) become(n, tile_op(LoopOp::mul), n.arg[0], n.arg[0]);
  if (e == 1) become(n, TileOp::copy, n.arg[0], -1);
  if (e == -1) become(n, tile_op(LoopOp::reciprocal), n.arg[0], -1);
}

void LoopNodes::count_uses() {
  for (LoopNode& n : nodes_) n.uses = 0;
  std::vector<int> todo;
  for (std::size_t i = 0; i < nodes_.size(); ++i)
    if (is_root(nodes_[i])) todo.push_back(static_cast<int>(i));
  while (!todo.empty()) {
    const LoopNode& n = node(todo.back());
    todo.pop_back();
    for (int v : n.arg)
      if (v >= 0 && node(v).uses++ == 0) todo.push_back(v);
  }
}

void LoopNodes::find_macros() {
  const std::size_t count = nodes_.size();  // pairs join behind
  for (std::size_t i = 0; i < count; ++i)
    if (nodes_[i].uses > 0 || is_root(nodes_[i])) fuse(i);
}

void LoopNodes::fuse(std::size_t i) {
  LoopNode& n = nodes_[i];
  if (n.op > tile_op(LoopOp::column_min)) return;
  switch (static_cast<LoopOp>(n.op)) {
    case LoopOp::add: return fuse_add(i);
    case LoopOp::sub: return fuse_sub(n);
    case LoopOp::mul: return fuse_mul(n);
    case LoopOp::max: return fuse_max(n);
    case LoopOp::select: return fuse_select(n);
    case LoopOp::row_sum:
    case LoopOp::column_sum: return fuse_dot(n);
    case LoopOp::exp: {
      const LoopNode& difference = node(n.arg[0]);
      if (n.vary == kBoth && absorbs(n, n.arg[0], LoopOp::sub) && is_tile(node(difference.arg[0]).vary))
        become(n, TileOp::exp_sub, difference.arg[0], difference.arg[1]);
      return;
    }
    default: return;
  }
}

// The factor that varies more comes first: the forms of fma take scalars second.
std::pair<int, int> LoopNodes::factors(int product) const {
  const int a = node(product).arg[0], b = node(product).arg[1];
  return node(a).vary >= node(b).vary ? std::pair(a, b) : std::pair(b, a);
}

void LoopNodes::fuse_add(std::size_t i) {
  LoopNode& n = nodes_[i];
  const int x = n.arg[0], y = n.arg[1];
  const bool mx = absorbs(n, x, LoopOp::mul), my = absorbs(n, y, LoopOp::mul);
  if (mx && my && x != y && fuse_axpby(i, x, y)) return;
  if (!mx && !my) return;
  const auto [a, b] = factors(mx ? x : y);
  become(n, TileOp::fma, a, b, mx ? y : x);
}

LoopNodes::Term LoopNodes::term_of(int product) const {
  const auto [a, b] = factors(product);
  if (node(b).vary == kUniform && node(a).vary == kBoth) {
    const LoopNode& n = node(a);
    if (n.is(LoopOp::mul) && n.arg[0] == n.arg[1] && n.uses == 1) return {b, n.arg[0], true};
    return {b, a, false};
  }
  for (auto [u, w] : {std::pair(a, b), std::pair(b, a)}) {  // (t * y) * y
    if (!node(u).is(LoopOp::mul) || node(u).uses != 1) continue;
    const auto [p, q] = factors(u);
    if (p == w && node(q).vary == kUniform && node(w).vary == kBoth) return {q, w, true};
  }
  return {};
}

bool LoopNodes::fuse_axpby(std::size_t i, int x, int y) {
  if (nodes_[i].vary != kBoth) return false;
  Term tx = term_of(x), ty = term_of(y);
  if (tx.squared) std::swap(tx, ty);
  if (tx.scale < 0 || ty.scale < 0 || tx.squared) return false;
  LoopNode pair;
  pair.op = kPair;
  pair.arg[0] = tx.scale, pair.arg[1] = ty.scale;
  nodes_.push_back(pair);
  become(nodes_[i], ty.squared ? TileOp::axpbyy : TileOp::axpby, tx.value, ty.value,
         static_cast<int>(nodes_.size()) - 1);
  return true;
}

void LoopNodes::fuse_sub(LoopNode& n) {
  const int x = n.arg[0], y = n.arg[1];
  const bool mx = absorbs(n, x, LoopOp::mul);
  if (!mx && !absorbs(n, y, LoopOp::mul)) return;
  const auto [a, b] = factors(mx ? x : y);
  become(n, mx ? TileOp::fms : TileOp::nfma, a, b, mx ? y : x);
}

void LoopNodes::fuse_mul(LoopNode& n) {
  if (n.vary != kBoth) return;
  for (auto [s, other] : {std::pair(n.arg[0], n.arg[1]), std::pair(n.arg[1], n.arg[0])}) {
    if (!absorbs(n, s, LoopOp::sub) || !is_tile(node(node(s).arg[0]).vary)) continue;
    return become(n, TileOp::sub_mul, node(s).arg[0], node(s).arg[1], other);
  }
}

void LoopNodes::fuse_max(LoopNode& n) {
  if (is_constant(n.arg[0], 0)) std::swap(n.arg[0], n.arg[1]);
  if (n.vary != kBoth || !is_constant(n.arg[1], 0) || !absorbs(n, n.arg[0], LoopOp::add)) return;
  become(n, TileOp::add_relu, node(n.arg[0]).arg[0], node(n.arg[0]).arg[1]);
}

void LoopNodes::fuse_select(LoopNode& n) {
  const int cond = n.arg[0];
  const bool truth = node(cond).op >= tile_op(LoopOp::eq) && node(cond).op <= tile_op(LoopOp::logical_or);
  if (truth && node(cond).uses == 1 && is_constant(n.arg[1], 1) && is_constant(n.arg[2], 0)) {
    // Comparisons are numbers already.
    const LoopNode& c = node(cond);
    return become(n, c.op, c.arg[0], c.arg[1]);
  }
  if (n.vary != kBoth || !absorbs(n, cond, LoopOp::gt) || !is_constant(n.arg[2], 0)) return;
  if (is_constant(node(cond).arg[1], 0) && is_tile(node(node(cond).arg[0]).vary))
    become(n, TileOp::relu_mask, node(cond).arg[0], n.arg[1]);
}

// sum(column_index == class ? x : 0), what cross-entropy reads of its logits: one element a row.
bool LoopNodes::fuse_pick(LoopNode& n) {
  const LoopNode& choice = node(n.arg[0]);
  if (!choice.is(LoopOp::select) || choice.uses != 1 || !is_constant(choice.arg[2], 0)) return false;
  const LoopNode& equal = node(choice.arg[0]);
  if (!equal.is(LoopOp::eq) || equal.uses != 1 || !is_tile(node(choice.arg[1]).vary)) return false;
  if (p_.cols > 1 << 24) return false;  // indices would be rounded
  for (auto [index, at] : {std::pair(equal.arg[0], equal.arg[1]), std::pair(equal.arg[1], equal.arg[0])}) {
    if (!node(index).is(LoopOp::column_index) || !is_tile(node(index).vary) || is_tile(node(at).vary)) continue;
    become(n, TileOp::row_pick, choice.arg[1], at, index);
    return true;
  }
  return false;
}

void LoopNodes::fuse_dot(LoopNode& n) {
  if (n.is(LoopOp::row_sum) && fuse_pick(n)) return;
  const LoopNode& product = node(n.arg[0]);
  if (!product.is(LoopOp::mul) || product.uses != 1) return;
  if (!is_tile(node(product.arg[0]).vary) || !is_tile(node(product.arg[1]).vary)) return;
  if (n.is(LoopOp::row_sum)) return become(n, TileOp::row_dot, product.arg[0], product.arg[1]);
  n.arg[1] = product.arg[1];  // the root stays a column_sum, of two factors
  n.arg[0] = product.arg[0];
}

void LoopNodes::find_levels() {
  for (LoopNode& n : nodes_) {
    if (n.vary == kUniform && !is_root(n)) continue;
    int level = 0;
    for (int v : n.arg)
      if (v >= 0) level = std::max(level, node(v).level);
    n.level = level + (n.is_reduction() ? 1 : 0);
    if (n.uses > 0 || is_root(n)) last_phase_ = std::max(last_phase_, n.level);
  }
}

}  // namespace bp::cpu

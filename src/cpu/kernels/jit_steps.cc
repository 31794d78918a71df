#if defined(BP_MACHINE_CODE)
#include <cstring>

#include "cpu/kernels/jit_coder.h"

namespace bp::cpu {

namespace {
using Vec = JitVectors::Vec;
using Arg = JitVectors::Arg;
using Xbyak::Address;
using Xbyak::Reg64;
}  // namespace

int RunCoder::anchor(int s) {
  if (!in_scratch(s)) return s;
  if (scratch_anchor_ < 0) scratch_anchor_ = s;
  return scratch_anchor_;
}

RunCoder::Base RunCoder::base(int s) {
  const int a = anchor(s);
  const int offset = a == s ? 0 : static_cast<int>(slot(s).offset) - static_cast<int>(slot(a).offset);
  for (std::size_t i = 0; i < pointers_.size() && i < kPointers; ++i)
    if (pointers_[i] == a) return {pointer(i), offset};
  if (given_ == nullptr && std::find(pointers_.begin(), pointers_.end(), a) == pointers_.end()) pointers_.push_back(a);
  j_.mov(j_.r11, j_.ptr[j_.rdi + 8 * a]);
  return {j_.r11, offset};
}

Address RunCoder::at(int s, int v) {
  const Base b = base(s);
  const int width = slot(s).width != 0 ? static_cast<int>(slot(s).width) : 4;
  const int disp = b.offset + v * JitVectors::kLanes * width;
  if (!slot(s).column || (nest_ == Nest::flat && !periodic_)) return j_.ptr[b.reg + j_.rax * width + disp];
  if (nest_ != Nest::flat) return j_.ptr[b.reg + j_.rcx * 4 + disp];
  return part_ == Part::main ? j_.ptr[b.reg + disp] : j_.ptr[b.reg + j_.r8 * 4 + disp];
}

void RunCoder::begin_stage(std::size_t number) {
  stage_ = &stages_[number];
  reads_.clear();
  accumulators_.clear();
  for (const LoopStep& s : stage_->tile_steps) {
    for_reads(s, [&](int slot) { ++reads_[slot]; });
    if (s.reduction < 0 ? !is_accumulator(s) || !in_registers(s) : s.op == TileOp::row_pick) continue;
    accumulators_.push_back({&s, {}});
    for (Vec& v : accumulators_.back().sum) v = j_.fresh();
  }
}

bool RunCoder::read_after(std::size_t number, int s) const {
  return std::any_of(stages_.begin() + static_cast<std::ptrdiff_t>(number) + 1, stages_.end(),
                     [&](const LoopStage& stage) { return read_in(stage, s); });
}

bool RunCoder::reads(const std::vector<LoopStep>& steps, int s) {
  return std::any_of(steps.begin(), steps.end(),
                     [&](const LoopStep& step) { return step.a == s || step.b == s || step.c == s; });
}

bool RunCoder::read_by_elements(std::size_t number, int s) const {
  const std::size_t end = by_groups_ ? number + 1 : stages_.size();
  return std::any_of(stages_.begin() + static_cast<std::ptrdiff_t>(number),
                     stages_.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](const LoopStage& stage) { return reads(stage.tile_steps, s); });
}
void RunCoder::define_row_value(int s, const Vec& v, std::size_t number) {
  const Xbyak::Xmm first(v.zmm().getIdx());
  const bool later = read_after(number, s);
  if (kept_[static_cast<std::size_t>(s)] || (by_groups_ && later)) j_.vmovss(row_address(s), first);
  if (!read_in(stages_[number], s) && (by_groups_ || !later)) return;
  Vec own = v;
  if (read_by_elements(number, s)) {
    own = j_.fresh();
    j_.vbroadcastss(own.zmm(), first);
  }
  row_values_[s] = own;
}

Address RunCoder::row_address(int s) {
  const Base b = base(s);
  return j_.ptr[b.reg + j_.r9 * 4 + b.offset];
}

void RunCoder::row_steps(std::size_t number) {
  j_.first_lane_only(true);
  for (const LoopStep& s : stages_[number].row_steps) {
    Arg operands[3] = {0.0, 0.0, 0.0};
    for (int k = 0; k < operands_of(s.op); ++k) operands[k] = row_operand(s, k);
    define_row_value(s.dst, element_code(j_, s.op, operands), number);
  }
  j_.first_lane_only(false);
  std::erase_if(row_values_, [&](const auto& v) {
    return !read_by_elements(number, v.first) && (by_groups_ || !read_after(number, v.first));
  });
}

Arg RunCoder::row_operand(const LoopStep& s, int k) {
  const int id = k == 0 ? s.a : k == 1 ? s.b : s.c;
  if (slot(id).kind == LoopSlot::Kind::constant) return constant(id, 0);
  if (const auto it = row_values_.find(id); it != row_values_.end()) return it->second;
  return steady({id, 0, !(s.scalars >> k & 1u) || inner_[static_cast<std::size_t>(id)]});
}

void RunCoder::load_steady(const SteadyValue& key, const Vec& v) {
  if (slot(key.slot).column && !key.by_row)
    j_.vmovups(v.zmm(), steady_columns(key));
  else
    j_.vbroadcastss(v.zmm(), steady_address(key));
}

Address RunCoder::steady_columns(const SteadyValue& key) {
  const Base b = base(key.slot);
  return j_.ptr[b.reg + b.offset + key.offset];
}

Address RunCoder::steady_address(const SteadyValue& key) {
  const Base b = base(key.slot);
  return key.by_row ? j_.ptr[b.reg + j_.r9 * 4 + b.offset] : j_.ptr[b.reg + b.offset + key.offset];
}

Vec RunCoder::steady(const SteadyValue& key) {
  if (const auto it = row_values_.find(key.slot); it != row_values_.end()) return it->second;
  note(key);
  if (const auto it = steady_.find(key); it != steady_.end()) return it->second;
  return j_.broadcast(steady_address(key));
}

void RunCoder::note(const SteadyValue& key) {
  if (given_ == nullptr && std::find(seen_.begin(), seen_.end(), key) == seen_.end()) seen_.push_back(key);
}

void RunCoder::begin_row(const LoopStage& stage) {
  for (auto& [key, v] : steady_)
    if (key.by_row && read_in(stage, key.slot)) load_steady(key, v);
}

Arg RunCoder::read(const LoopStep& s, int k) {
  const int id = k == 0 ? s.a : k == 1 ? s.b : s.c;
  if (!(s.scalars >> k & 1u)) return element(id);
  if (slot(id).kind == LoopSlot::Kind::constant && s.span != LoopSpan::rowwise) return constant(id, 0);
  return steady({id, 0, s.span == LoopSpan::rowwise || inner_[static_cast<std::size_t>(id)]});
}

Arg RunCoder::constant(int id, std::size_t offset) const {
  std::uint32_t bits;
  const char* raw = reinterpret_cast<const char*>(plan_.constants.data());
  std::memcpy(&bits, raw + slot(id).offset + offset, sizeof bits);
  return bits;
}

Vec RunCoder::element(int id) {
  Vec v;
  if (const auto it = values_.find(id); it != values_.end())
    v = it->second;
  else
    v = fetched(id);
  if (--left_[id] == 0)
    values_.erase(id);
  else
    values_[id] = v;
  return v;
}

Vec RunCoder::fetched(int id) {
  const bool narrow = periodic_ && plan_.program.cols <= JitVectors::kLanes;
  if (slot(id).column && slot(id).kind == LoopSlot::Kind::scratch && narrow) {  // every vector is the same
    const SteadyValue key{id, 0, false};
    note(key);
    if (const auto it = steady_.find(key); it != steady_.end()) return it->second;
  }
  fetch_ahead(id);
  return j_.load(f32, at(id, vector_), part_ == Part::tail);
}

// The stage that reads an operand first asks for what lies some rows further on: in the second cache it is when they
// are read. By itself the processor fetches too little while values of a row are waited for, or where nothing but sums
// is written: two threads read at 85% of copying's rate then, and at 105% so.
void RunCoder::fetch_ahead(int s) {
  constexpr int kBytes = 8192;
  const LoopSlot& l = slot(s);
  if (!plan_.fetches_ahead || by_groups_ || part_ == Part::tail) return;
  if (stages_.size() == 1 && !plan_.only_sums) return;
  if (l.kind != LoopSlot::Kind::operand_row || l.column) return;
  if (std::any_of(stages_.data(), stage_, [&](const LoopStage& earlier) { return read_in(earlier, s); })) return;
  const Base b = base(s);
  const int width = l.width != 0 ? static_cast<int>(l.width) : 4;
  j_.prefetcht1(j_.ptr[b.reg + j_.rax * width + b.offset + vector_ * JitVectors::kLanes * width + kBytes]);
}

bool RunCoder::goes_past_caches(int s) const {
  const auto& outputs = plan_.uncached_outputs;
  if (!uncached_ || slot(s).kind != LoopSlot::Kind::operand_row || slot(s).column) return false;
  return std::find(outputs.begin(), outputs.end(), slot(s).operand) != outputs.end() &&
         std::none_of(stages_.begin(), stages_.end(), [&](const LoopStage& stage) { return read_in(stage, s); });
}

void RunCoder::define(const LoopStep& s, const Vec& v) {
  if (kept_[static_cast<std::size_t>(s.dst)]) {
    if (part_ != Part::tail && goes_past_caches(s.dst))
      j_.vmovntps(at(s.dst, vector_), v.zmm());
    else
      j_.store(f32, at(s.dst, vector_), v, part_ == Part::tail);
  }
  if (left_.contains(s.dst) && left_[s.dst] > 0) values_[s.dst] = v;
}

// The first stage asks for the cache lines that later ones write: their stores would wait for memory one after another.
// Where rows go by groups, exponentials leave the time for that.
void RunCoder::claim_outputs() {
  if (by_groups_) return;
  for (const LoopStage& stage : stages_.subspan(1))
    for (const LoopStep& s : stage.tile_steps) {
      if (s.fn == nullptr || slot(s.dst).kind != LoopSlot::Kind::operand_row || slot(s.dst).column) continue;
      if (goes_past_caches(s.dst)) continue;
      const Base b = base(s.dst);
      j_.prefetchw(j_.ptr[b.reg + j_.rax * 4 + b.offset + vector_ * 4 * JitVectors::kLanes]);
    }
}

void RunCoder::body(int vector, Part part) {
  vector_ = vector;
  part_ = part;
  left_ = reads_;
  values_.clear();
  if (stage_ == stages_.data() && stages_.size() > 1 && part != Part::tail) claim_outputs();
  for (const LoopStep& s : stage_->tile_steps) {
    if (s.fn == nullptr)
      transfer(s);
    else if (s.reduction >= 0 || is_accumulator(s))
      accumulate(s);
    else
      define(s, value(s));
  }
  values_.clear();
}

void RunCoder::transfer(const LoopStep& s) {
  const LoopTransfer& t = plan_.transfers[static_cast<std::size_t>(s.transfer)];
  if (t.kind == LoopTransfer::Kind::random) return define(s, random(t));
  const DType type = plan_.program.operands[static_cast<std::size_t>(t.operand)].dtype;
  if (t.kind == LoopTransfer::Kind::load) {
    fetch_ahead(t.memory);
    return define(s, j_.load(type, at(t.memory, vector_), part_ == Part::tail));
  }
  const Vec v = element(s.a);
  j_.store(type, at(t.memory, vector_), v, part_ == Part::tail);
}

Vec RunCoder::value(const LoopStep& s) {
  if (s.op == TileOp::axpby || s.op == TileOp::axpbyy) return moments(s);
  Arg operands[3] = {0.0, 0.0, 0.0};
  for (int k = 0; k < operands_of(s.op); ++k) operands[k] = read(s, k);
  if (s.op == TileOp::exp_sub && is_maximum(s.b, s.a)) return j_.exp_of_negative(j_.sub(operands[0], operands[1]));
  return element_code(j_, s.op, operands);
}

// Whether slot `top` holds the row's maximum of an operand in memory, which no step changes.
bool RunCoder::is_maximum(int top, int elements) const {
  const LoopSlot::Kind kind = slot(elements).kind;
  if (kind != LoopSlot::Kind::operand && kind != LoopSlot::Kind::operand_row) return false;
  return std::any_of(stages_.begin(), stages_.end(), [&](const LoopStage& stage) {
    return std::any_of(stage.tile_steps.begin(), stage.tile_steps.end(), [&](const LoopStep& s) {
      return s.reduction >= 0 && s.dst == top && s.a == elements && s.op == tile_op(LoopOp::row_max);
    });
  });
}

Vec RunCoder::moments(const LoopStep& s) {
  const Vec a = element(s.a), b = element(s.b);
  const Vec second = steady({s.c, 4, false});
  const Vec term = j_.mul(second, s.op == TileOp::axpbyy ? j_.mul(b, b) : b);
  return j_.fma(a, steady({s.c, 0, false}), term);
}

LoopOp RunCoder::joining(TileOp op) {
  switch (op) {
    case TileOp::row_dot:
    case TileOp::column_dot:
    case TileOp::column_sum: return LoopOp::row_sum;
    case TileOp::column_max: return LoopOp::row_max;
    case TileOp::column_min: return LoopOp::row_min;
    default: return static_cast<LoopOp>(op);
  }
}

// A NaN of acc stays, one of x comes: it is the second operand.
void RunCoder::join(LoopOp op, const Xbyak::Xmm& acc, const Xbyak::Xmm& x, bool masked) {
  const Xbyak::Xmm to = masked ? acc | j_.k1 : acc;
  if (op == LoopOp::row_sum) return j_.vaddps(to, acc, x);
  if (op == LoopOp::row_prod) return j_.vmulps(to, acc, x);
  j_.vcmpps(masked ? j_.k2 | j_.k1 : j_.k2, acc, acc, JitVectors::kOrdered);
  if (op == LoopOp::row_max) return j_.vmaxps(acc | j_.k2, acc, x);
  j_.vminps(acc | j_.k2, acc, x);
}

const Vec& RunCoder::sum_of(const LoopStep& s, int v) const {
  const auto own =
      std::find_if(accumulators_.begin(), accumulators_.end(), [&](const Accumulator& a) { return a.step == &s; });
  return own->sum[static_cast<std::size_t>(v)];
}

void RunCoder::accumulate(const LoopStep& s) {
  if (s.op == TileOp::row_pick) return;  // when the row is done
  const bool dot = s.op == TileOp::row_dot || s.op == TileOp::column_dot;
  const Vec x = element(s.a), y = dot ? element(s.b) : Vec();
  const bool masked = part_ == Part::tail;
  if (s.reduction >= 0) {
    const int v = part_ == Part::main ? vector_ : masked ? 1 : 0;
    return join(joining(s.op), sum_of(s, v).zmm(), (dot ? j_.mul(x, y) : x).zmm(), masked);
  }
  if (in_registers(s) && (nest_ == Nest::columns || part_ == Part::main)) {
    const Vec& sum = sum_of(s, vector_);
    if (dot) return j_.vfmadd231ps(sum.zmm(), x.zmm(), y.zmm());
    return join(joining(s.op), sum.zmm(), x.zmm(), false);
  }
  const Vec old = j_.load(f32, accumulator(s), masked);
  join(joining(s.op), old.zmm(), (dot ? j_.mul(x, y) : x).zmm(), false);
  j_.store(f32, accumulator(s), old, masked);
}

Address RunCoder::accumulator(const LoopStep& s) {
  const Base b = base(s.dst);
  const Reg64 column = s.span == LoopSpan::folded ? j_.r8 : s.span == LoopSpan::flat ? j_.rax : j_.rcx;
  return j_.ptr[b.reg + column * 4 + b.offset + vector_ * 4 * JitVectors::kLanes];
}

void RunCoder::start_sums(bool reductions) {
  for (const Accumulator& a : accumulators_) {
    if ((a.step->reduction >= 0) != reductions) continue;
    const LoopOp op = joining(a.step->op);
    const float start = !reductions && op == LoopOp::row_sum ? -0.0f : static_cast<float>(start_of(op));
    for (const Vec& v : a.sum) j_.vmovaps(v.zmm(), j_.loaded(start).zmm());
  }
}

void RunCoder::flush_sums(int vectors, bool masked) {
  for (const Accumulator& a : accumulators_) {
    if (a.step->reduction >= 0) continue;
    const Base b = base(a.step->dst);
    for (int v = 0; v < vectors; ++v) {
      const int disp = b.offset + 4 * JitVectors::kLanes * v;
      const Address place = nest_ == Nest::flat ? j_.ptr[b.reg + disp] : j_.ptr[b.reg + j_.rcx * 4 + disp];
      const Vec old = j_.load(f32, place, masked);
      join(joining(a.step->op), old.zmm(), a.sum[static_cast<std::size_t>(v)].zmm(), false);
      j_.store(f32, place, old, masked);
    }
  }
}

void RunCoder::finish_row(std::size_t number) {
  for (const Accumulator& a : accumulators_) {
    if (a.step->reduction < 0) continue;
    const LoopOp op = joining(a.step->op);
    for (const auto& [to, from] : {std::pair(0, 1), std::pair(2, 3), std::pair(0, 2)})
      join(op, a.sum[static_cast<std::size_t>(to)].zmm(), a.sum[static_cast<std::size_t>(from)].zmm(), false);
    const int sum = a.sum[0].zmm().getIdx(), upper = a.sum[1].zmm().getIdx();  // free by now
    j_.vextractf64x4(Xbyak::Ymm(upper), a.sum[0].zmm(), 1);
    join(op, Xbyak::Ymm(sum), Xbyak::Ymm(upper), false);
    j_.vextractf32x4(Xbyak::Xmm(upper), Xbyak::Ymm(sum), 1);
    join(op, Xbyak::Xmm(sum), Xbyak::Xmm(upper), false);
    for (const int halves : {0x0e, 0x01}) {
      j_.vpermilps(Xbyak::Xmm(upper), Xbyak::Xmm(sum), static_cast<std::uint8_t>(halves));
      join(op, Xbyak::Xmm(sum), Xbyak::Xmm(upper), false);
    }
    define_row_value(a.step->dst, a.sum[0], number);
  }
  accumulators_.clear();
  for (const LoopStep& s : stage_->tile_steps)
    if (s.op == TileOp::row_pick) define_row_value(s.dst, picked(s), number);
  std::erase_if(row_values_, [&](const auto& v) { return by_groups_ || !read_after(number, v.first); });
}

Vec RunCoder::picked(const LoopStep& s) {
  const auto cols = static_cast<std::uint32_t>(plan_.program.cols);
  const Vec index = j_.loaded(row_operand(s, 1)), v = j_.fresh();
  const Xbyak::Xmm at(index.zmm().getIdx()), to(v.zmm().getIdx());
  Xbyak::Label none;
  j_.vcvttss2si(j_.r10, at);
  j_.vcvtsi2ss(to, at, j_.r10);
  j_.vucomiss(at, to);
  j_.vxorps(to, to, to);
  j_.jne(none);
  j_.cmp(j_.r10, cols);  // NaN and what is below 0 are large
  j_.jae(none);
  if (!slot(s.a).column) {
    j_.CodeGenerator::add(j_.r10, j_.rax);
    j_.CodeGenerator::sub(j_.r10, cols);
  }
  const Base b = base(s.a);
  j_.vaddss(to, to, j_.ptr[b.reg + j_.r10 * 4 + b.offset]);  // a sum of zeros and -0 is +0
  j_.L(none);
  return v;
}

}  // namespace bp::cpu
#endif

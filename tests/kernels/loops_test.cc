// CompiledLoop against reference_run: every op, macro-instructions, phases, accumulators, accesses, dtypes, odd and
// zero sizes, NaN and infinities, thread counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "bp/rng.h"
#include "cpu/kernels/loop_program.h"
#include "kernels/space.h"

namespace bp::cpu {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Memory for every operand, with guard elements behind each that must stay untouched.
class Tensors {
 public:
  explicit Tensors(const LoopProgram& p, std::uint64_t seed = 1, double lo = -2, double hi = 2)
      : p_(p), rng_(Key(seed)) {
    for (const LoopOperand& o : p.operands) {
      // At least one element, and all of a [C] output even when there are no rows to reduce.
      std::int64_t last = 0;
      for (std::int64_t r = 0; r < std::max<std::int64_t>(p.rows, 1); ++r)
        last = std::max(last, o.access.offset(r, std::max<std::int64_t>(p.cols, 1) - 1));
      count_.push_back(last + 1);
      memory_.emplace_back(static_cast<std::size_t>(last + 1 + kGuard) * size_of(o.dtype), std::byte{0x5a});
      if (!o.output) fill(memory_.size() - 1, lo, hi);
    }
  }
  std::vector<void*> pointers() {
    std::vector<void*> p;
    for (auto& m : memory_) p.push_back(m.data());
    return p;
  }
  double at(std::size_t k, std::int64_t i) const {
    return dispatch(p_.operands[k].dtype, [&](auto zero) {
      return static_cast<double>(reinterpret_cast<const decltype(zero)*>(memory_[k].data())[i]);
    });
  }
  void set(std::size_t k, std::int64_t i, double v) {
    dispatch(p_.operands[k].dtype, [&](auto zero) {
      using T = decltype(zero);
      auto* p = reinterpret_cast<T*>(memory_[k].data());
      if constexpr (std::is_same_v<T, bfloat16>)
        p[i] = bfloat16(static_cast<float>(v));
      else
        p[i] = static_cast<T>(v);
      return 0;
    });
  }
  std::int64_t count(std::size_t k) const { return count_[k]; }
  bool guards_intact() const {
    for (std::size_t k = 0; k < memory_.size(); ++k)
      for (std::size_t i = static_cast<std::size_t>(count_[k]) * size_of(p_.operands[k].dtype); i < memory_[k].size();
           ++i)
        if (memory_[k][i] != std::byte{0x5a}) return false;
    return true;
  }
  const std::vector<std::byte>& bytes(std::size_t k) const { return memory_[k]; }
  Rng& rng() { return rng_; }

 private:
  static constexpr std::int64_t kGuard = 16;
  void fill(std::size_t k, double lo, double hi) {
    for (std::int64_t i = 0; i < count_[k]; ++i) {
      const double v = lo + (hi - lo) * rng_.uniform();
      const DType t = p_.operands[k].dtype;
      set(k, i,
          t == boolean  ? static_cast<double>(v > 0)
          : t == u8     ? std::floor(std::fabs(v) * 10)
          : is_float(t) ? v
                        : std::floor(v * 10));
    }
  }
  const LoopProgram& p_;
  Rng rng_;
  std::vector<std::int64_t> count_;
  std::vector<std::vector<std::byte>> memory_;
};

void run_loop(const LoopProgram& p, Tensors& t, int threads, LoopCode code = LoopCode::machine) {
  const CompiledLoop loop(p, code);
  std::vector<std::byte> memory(loop.workspace_bytes(threads) + 64 + 256, std::byte{0xcd});
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  std::fill_n(aligned + loop.workspace_bytes(threads), 128, std::byte{0x77});
  auto pointers = t.pointers();
  loop.run(pointers.data(), threads, aligned);
  for (int i = 0; i < 128; ++i)
    ASSERT_EQ(aligned[loop.workspace_bytes(threads) + static_cast<std::size_t>(i)], std::byte{0x77});
}

bool close(double a, double b, double tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return std::fabs(a - b) <= tolerance * (1 + std::fabs(b));
}

// Runs on 1 and more threads against the oracle; all thread counts, and machine code and tiles, must agree bit for bit.
void check_loop(const LoopProgram& p, double tolerance = 0, std::function<void(Tensors&)> prepare = {}, double lo = -2,
                double hi = 2, std::vector<int> thread_counts = {2}) {
  if (tolerance == 0) tolerance = p.compute == f32 ? 1e-5 : 1e-12;
  Tensors want(p, 1, lo, hi), one(p, 1, lo, hi);
  if (prepare) prepare(want), prepare(one);
  auto pointers = want.pointers();
  reference_run(p, pointers.data());
  run_loop(p, one, 1);
  ASSERT_TRUE(one.guards_intact());
  for (std::size_t k = 0; k < p.operands.size(); ++k)
    for (std::int64_t i = 0; i < one.count(k); ++i)
      ASSERT_TRUE(close(one.at(k, i), want.at(k, i), tolerance))
          << "operand " << k << " element " << i << ": got " << one.at(k, i) << ", expected " << want.at(k, i) << "\n"
          << CompiledLoop(p).explain();
  Tensors tiles(p, 1, lo, hi);
  if (prepare) prepare(tiles);
  run_loop(p, tiles, 1, LoopCode::tiles);
  for (std::size_t k = 0; k < p.operands.size(); ++k)
    ASSERT_EQ(tiles.bytes(k), one.bytes(k)) << "tiles and machine code, operand " << k << "\n"
                                            << CompiledLoop(p).explain();
  for (int threads : thread_counts) {
    Tensors many(p, 1, lo, hi);
    if (prepare) prepare(many);
    run_loop(p, many, threads);
    ASSERT_TRUE(many.guards_intact());
    for (std::size_t k = 0; k < p.operands.size(); ++k)
      ASSERT_EQ(many.bytes(k), one.bytes(k)) << threads << " threads, operand " << k;
  }
}

using Size = std::pair<std::int64_t, std::int64_t>;
const std::vector<Size> kSizes = {{1, 1},   {1, 7},   {3, 1},    {33, 16},  {5, 96},    {700, 1},  {0, 5},   {4, 0},
                                  {1, 513}, {9, 600}, {2, 5000}, {7, 2500}, {1, 40000}, {1000, 3}, {129, 33}};

TEST(Loops, UnaryOpsMatchTheReference) {
  for (DType t : {f32, f64})
    for (int op = static_cast<int>(LoopOp::neg); op <= static_cast<int>(LoopOp::to_f32); ++op)
      for (Size size : {Size{1, 1000}, Size{7, 9}}) {
        LoopProgram p = space(size.first, size.second, t);
        const auto full = LoopAccess::full(p.rows, p.cols);
        const int x = p.input(t, full), y = p.output(t, full);
        p.store(y, p.unary(static_cast<LoopOp>(op), p.load(x)));
        SCOPED_TRACE(name_of(static_cast<LoopOp>(op)));
        check_loop(p, t == f32 ? 3e-6 : 1e-14, {}, -5, 5);
        check_loop(p, t == f32 ? 3e-6 : 1e-14, [&](Tensors& m) {
          const double special[] = {0, -0.0, 1, -1, kInf, -kInf, std::nan(""), 0.5, 2.5, -1.5, 100, -100, 1e6, -1e6};
          for (std::size_t i = 0; i < std::size(special); ++i) m.set(0, static_cast<std::int64_t>(i), special[i]);
        });
      }
}

TEST(Loops, BinaryOpsMatchTheReferenceInEveryForm) {
  for (DType t : {f32, f64})
    for (int op = static_cast<int>(LoopOp::add); op <= static_cast<int>(LoopOp::logical_or); ++op)
      for (Size size : {Size{1, 1000}, Size{9, 35}, Size{6, 600}})
        for (int form = 0; form < 7; ++form) {
          LoopProgram p = space(size.first, size.second, t);
          const auto full = LoopAccess::full(p.rows, p.cols);
          const auto row = LoopAccess::per_row(p.rows), col = LoopAccess::per_column(), one = LoopAccess::scalar();
          const LoopAccess access[7][2] = {{full, full}, {full, row}, {row, full}, {col, full},
                                           {one, full},  {full, one}, {row, col}};
          const int x = p.input(t, access[form][0]), y = p.input(t, access[form][1]), z = p.output(t, full);
          p.store(z, p.binary(static_cast<LoopOp>(op), p.load(x), p.load(y)));
          SCOPED_TRACE(std::string(name_of(static_cast<LoopOp>(op))) + " form " + std::to_string(form));
          check_loop(p, t == f32 ? 3e-6 : 1e-14,
                     [&](Tensors& m) {
                       const double a[] = {0, -0.0, 1, kInf, -kInf, std::nan(""), 2, -2, -2, 3, -3, 0.5, 1};
                       const double b[] = {0, 1, 1, kInf, 1, 2, std::nan(""), 3, -3, -2, 2, -0.0, 1};
                       for (std::size_t i = 0; i < std::size(a); ++i) {
                         if (static_cast<std::int64_t>(i) < m.count(0)) m.set(0, static_cast<std::int64_t>(i), a[i]);
                         if (static_cast<std::int64_t>(i) < m.count(1)) m.set(1, static_cast<std::int64_t>(i), b[i]);
                       }
                     },
                     -2, 2, {});
        }
}

TEST(Loops, SelectInEveryForm) {
  for (DType t : {f32, f64})
    for (int mask = 0; mask < 8; ++mask)
      for (Size size : {Size{5, 40}, Size{3, 700}}) {
        LoopProgram p = space(size.first, size.second, t);
        const auto full = LoopAccess::full(p.rows, p.cols), row = LoopAccess::per_row(p.rows);
        int v[3];
        for (int k = 0; k < 3; ++k) v[k] = p.load(p.input(k == 0 ? boolean : t, mask >> k & 1 ? row : full));
        p.store(p.output(t, full), p.select(v[0], v[1], v[2]));
        check_loop(p);
      }
}

TEST(Loops, EveryStorageDtypeLoadsAndStores) {
  for (DType compute : {f32, f64})
    for (DType from : {f64, f32, bf16, i64, i32, u8, boolean})
      for (DType to : {f64, f32, bf16, i64, i32, u8, boolean})
        for (Size size : {Size{1, 700}, Size{11, 13}, Size{3, 600}}) {
          LoopProgram p = space(size.first, size.second, compute);
          const auto full = LoopAccess::full(p.rows, p.cols);
          const int x = p.input(from, full), b = p.input(from, LoopAccess::per_column());
          const int s = p.input(from, LoopAccess::scalar()), r = p.input(from, LoopAccess::per_row(p.rows));
          const int y = p.output(to, full);
          const int sum = p.binary(LoopOp::add, p.binary(LoopOp::add, p.load(x), p.load(b)),
                                   p.binary(LoopOp::mul, p.load(s), p.load(r)));
          p.store(y, p.binary(LoopOp::mul, sum, p.constant(1.25)));
          check_loop(p, to == bf16 ? 8e-3 : 0);
        }
}

TEST(Loops, IntegerStoresTruncateAndSaturate) {
  LoopProgram p = space(1, 12, f64);
  const auto full = LoopAccess::full(1, 12);
  const int x = p.load(p.input(f64, full));
  for (DType t : {i64, i32, u8, boolean}) p.store(p.output(t, full), x);
  check_loop(p, 0, [](Tensors& t) {
    const double v[] = {1.9,   -1.9,  1e30, -1e30,        std::nan(""),  kInf,
                        -kInf, 255.7, 256,  2147483647.0, -2147483648.0, 0.4};
    for (int i = 0; i < 12; ++i) t.set(0, i, v[i]);
  });
}

int mean(LoopProgram& p, int v) {
  return p.binary(LoopOp::div, p.reduce(LoopOp::row_sum, v), p.constant(static_cast<double>(p.cols)));
}

LoopProgram softmax(Size size, DType t) {
  LoopProgram p = space(size.first, size.second, t);
  const auto full = LoopAccess::full(p.rows, p.cols);
  const int x = p.load(p.input(t, full)), y = p.output(t, full);
  const int e = p.unary(LoopOp::exp, p.binary(LoopOp::sub, x, p.reduce(LoopOp::row_max, x)));
  p.store(y, p.binary(LoopOp::div, e, p.reduce(LoopOp::row_sum, e)));
  return p;
}

// Mean cross-entropy of class ids, loss and gradient of the logits in one program.
LoopProgram cross_entropy(Size size, DType t) {
  LoopProgram p = space(size.first, size.second, t);
  const auto full = LoopAccess::full(p.rows, p.cols), row = LoopAccess::per_row(p.rows);
  const int x = p.load(p.input(t, full)), label = p.load(p.input(i64, row));
  const int loss = p.output(t, row), dx = p.output(t, full);
  const int shifted = p.binary(LoopOp::sub, x, p.reduce(LoopOp::row_max, x));
  const int e = p.unary(LoopOp::exp, shifted);
  const int sum = p.reduce(LoopOp::row_sum, e);
  const int hot = p.binary(LoopOp::eq, p.column_index(), label);
  const int picked = p.reduce(LoopOp::row_sum, p.binary(LoopOp::mul, hot, shifted));
  p.store(loss, p.binary(LoopOp::sub, p.unary(LoopOp::log, sum), picked));
  const int probability = p.binary(LoopOp::mul, e, p.unary(LoopOp::reciprocal, sum));
  p.store(dx, p.binary(LoopOp::mul, p.binary(LoopOp::sub, probability, hot), p.constant(1.0 / 32)));
  return p;
}

LoopProgram layer_norm(Size size, DType t) {
  LoopProgram p = space(size.first, size.second, t);
  const auto full = LoopAccess::full(p.rows, p.cols), row = LoopAccess::per_row(p.rows);
  const int x = p.load(p.input(t, full)), gain = p.load(p.input(t, LoopAccess::per_column()));
  const int bias = p.load(p.input(t, LoopAccess::per_column()));
  const int y = p.output(t, full), rstd_out = p.output(t, row);
  const int centred = p.binary(LoopOp::sub, x, mean(p, x));
  const int variance = mean(p, p.binary(LoopOp::mul, centred, centred));
  const int rstd = p.unary(LoopOp::rsqrt, p.binary(LoopOp::add, variance, p.constant(1e-5)));
  const int normal = p.binary(LoopOp::mul, centred, rstd);
  p.store(y, p.binary(LoopOp::add, p.binary(LoopOp::mul, normal, gain), bias));
  p.store(rstd_out, rstd);
  return p;
}

// dx = rstd (g - mean(g) - n mean(g n)) with g = dy gain, n normalised; dgain and dbias over the rows.
LoopProgram layer_norm_grad(Size size, DType t) {
  LoopProgram p = space(size.first, size.second, t);
  const auto full = LoopAccess::full(p.rows, p.cols), row = LoopAccess::per_row(p.rows), col = LoopAccess::per_column();
  const int dy = p.load(p.input(t, full)), n = p.load(p.input(t, full));
  const int gain = p.load(p.input(t, col)), rstd = p.load(p.input(t, row));
  const int dx = p.output(t, full), dgain = p.output(t, col), dbias = p.output(t, col);
  const int g = p.binary(LoopOp::mul, dy, gain);
  const int projected = mean(p, p.binary(LoopOp::mul, g, n));
  const int inner = p.binary(LoopOp::sub, p.binary(LoopOp::sub, g, mean(p, g)), p.binary(LoopOp::mul, n, projected));
  p.store(dx, p.binary(LoopOp::mul, inner, rstd));
  p.column(LoopOp::column_sum, dgain, p.binary(LoopOp::mul, dy, n));
  p.column(LoopOp::column_sum, dbias, dy);
  return p;
}

TEST(Loops, RowProgramsAreSinglePrograms) {
  for (DType t : {f32, f64})
    for (Size size : kSizes) {
      SCOPED_TRACE(testing::Message() << size.first << " x " << size.second);
      check_loop(softmax(size, t));
      check_loop(cross_entropy(size, t), 0, [&](Tensors& m) {
        for (std::int64_t r = 0; r < m.count(1); ++r)
          m.set(1, r, static_cast<double>(r % std::max<std::int64_t>(size.second, 1)));
      });
      check_loop(layer_norm(size, t), t == f32 ? 3e-5 : 1e-10);
      check_loop(layer_norm_grad(size, t), t == f32 ? 1e-4 : 1e-11);
    }
}

// sum(index == class ? x : 0) reads one element a row; classes that are no column give 0.
TEST(Loops, AnElementIsPickedByItsIndex) {
  for (DType t : {f32, f64})
    for (Size size : kSizes)
      for (int form = 0; form < 4; ++form) {
        SCOPED_TRACE(testing::Message() << size.first << " x " << size.second << " form " << form);
        LoopProgram p = space(size.first, size.second, t);
        const auto row = LoopAccess::per_row(p.rows);
        const int x = p.load(p.input(t, LoopAccess::full(p.rows, p.cols)));
        const int at = p.load(p.input(t, form == 2 ? LoopAccess::scalar() : row)), index = p.column_index();
        const int equal = p.binary(LoopOp::eq, form == 1 ? at : index, form == 1 ? index : at);
        p.store(p.output(t, row), p.reduce(LoopOp::row_sum, p.select(equal, x, p.constant(0))));
        if (form == 3) p.store(p.output(t, row), p.reduce(LoopOp::row_sum, equal));  // shared: no macro
        check_loop(p, 0, [&](Tensors& m) {
          const std::int64_t cols = std::max<std::int64_t>(size.second, 1);
          for (std::int64_t r = 0; r < m.count(1); ++r) m.set(1, r, static_cast<double>(r * 7 % cols));
          if (m.count(1) < 8) return;
          const double odd[] = {-1, static_cast<double>(cols), 0.5, std::nan(""), kInf, -kInf, -0.0};
          for (std::int64_t r = 0; r < 7; ++r) m.set(1, r, odd[r]);
          m.set(0, 0, std::nan("")), m.set(0, m.count(0) - 1, kInf);
        });
        if (size.first > 1 && size.second > 1) {
          EXPECT_EQ(CompiledLoop(p).explain().find("row_pick") != std::string::npos, form != 3);
        }
      }
}

TEST(Loops, RowReductionsPropagateNan) {
  for (DType t : {f32, f64})
    for (Size size : {Size{3, 50}, Size{2, 5000}, Size{40, 7}}) {
      LoopProgram p = space(size.first, size.second, t);
      const int x = p.load(p.input(t, LoopAccess::full(p.rows, p.cols)));
      for (LoopOp op : {LoopOp::row_sum, LoopOp::row_max, LoopOp::row_min, LoopOp::row_prod})
        p.store(p.output(t, LoopAccess::per_row(p.rows)), p.reduce(op, x));
      check_loop(p, 1e-4, {}, 0.9, 1.1);
      check_loop(
          p, 1e-4, [](Tensors& m) { m.set(0, 37, std::nan("")); }, 0.9, 1.1);
      check_loop(
          p, 1e-4, [](Tensors& m) { m.set(0, 11, kInf); }, 0.9, 1.1);
    }
}

TEST(Loops, ColumnAccumulators) {
  for (DType t : {f32, f64})
    for (Size size : {Size{0, 5}, Size{1, 1}, Size{33, 16}, Size{5000, 3}, Size{3000, 1}, Size{300, 700}, Size{2, 9000},
                      Size{40000, 17}, Size{70, 31}, Size{70, 32}, Size{1001, 45}, Size{333, 100}}) {
      SCOPED_TRACE(testing::Message() << size.first << " x " << size.second);
      LoopProgram p = space(size.first, size.second, t);
      const auto full = LoopAccess::full(p.rows, p.cols), col = LoopAccess::per_column();
      const int x = p.load(p.input(t, full)), y = p.load(p.input(bf16, full));
      p.column(LoopOp::column_sum, p.output(t, col), x);
      p.column(LoopOp::column_max, p.output(t, col), x);
      p.column(LoopOp::column_min, p.output(f32, col), p.binary(LoopOp::add, x, y));
      p.column(LoopOp::column_sum, p.output(t, col), p.binary(LoopOp::mul, x, y));
      p.store(p.output(t, full), p.binary(LoopOp::sub, x, y));
      check_loop(p, t == f32 ? 1e-4 : 1e-10, {}, -2, 2, {2, 3});
    }
}

// Beyond the second cache the next tile is fetched while one is computed with; blocks are shorter.
TEST(Loops, TensorsInMemory) {
  for (Size size : {Size{3001, 100}, Size{2503, 131}, Size{400, 900}, Size{1, 400001}, Size{70, 5000}}) {
    SCOPED_TRACE(testing::Message() << size.first << " x " << size.second);
    check_loop(softmax(size, f32));
    check_loop(layer_norm(size, f32), 3e-5);
    check_loop(layer_norm_grad(size, f32), 3e-4);
    LoopProgram p = space(size.first, size.second, f32);
    const auto full = LoopAccess::full(p.rows, p.cols);
    const int x = p.load(p.input(f32, full)), y = p.load(p.input(f32, full));
    p.store(p.output(f32, full), p.unary(LoopOp::tanh, p.binary(LoopOp::mul, x, y)));
    check_loop(p);
  }
}

// A comparison chosen to be 1 or 0 is the number it already is, whatever else reads it.
TEST(Loops, ComparisonsAreNumbers) {
  for (bool shared : {false, true})
    for (double otherwise : {0.0, 2.0}) {
      LoopProgram p = space(33, 45, f32);
      const auto full = LoopAccess::full(p.rows, p.cols);
      const int x = p.load(p.input(f32, full)), y = p.load(p.input(f32, LoopAccess::per_row(p.rows)));
      const int less = p.binary(LoopOp::lt, x, y);
      p.store(p.output(f32, full), p.select(less, p.constant(1), p.constant(otherwise)));
      if (shared) p.store(p.output(f32, full), p.binary(LoopOp::mul, less, x));
      // A mask of any number is not one.
      p.store(p.output(f32, full), p.select(x, p.constant(1), p.constant(otherwise)));
      check_loop(p, 0, [](Tensors& m) { m.set(0, 7, std::nan("")), m.set(0, 8, 0), m.set(1, 2, std::nan("")); });
    }
}

TEST(Loops, SumsAreAsAccurateAsPairwise) {
  // One and many equal values: naive f32 summation of 2^22 terms of 0.1 is off by 1e-2.
  for (Size size : {Size{1, 1 << 22}, Size{1 << 22, 1}, Size{1 << 19, 8}, Size{1 << 17, 32}, Size{1 << 15, 96}}) {
    LoopProgram p = space(size.first, size.second, f32);
    const int x = p.load(p.input(f32, LoopAccess::full(p.rows, p.cols)));
    if (p.rows == 1)
      p.store(p.output(f32, LoopAccess::scalar()), p.reduce(LoopOp::row_sum, x));
    else
      p.column(LoopOp::column_sum, p.output(f32, LoopAccess::per_column()), x);
    Tensors t(p);
    for (std::int64_t i = 0; i < t.count(0); ++i) t.set(0, i, 0.1);
    run_loop(p, t, 2);
    const double want =
        static_cast<double>(0.1f) * static_cast<double>(t.count(0)) / (p.rows == 1 ? 1 : static_cast<double>(p.cols));
    EXPECT_NEAR(t.at(1, 0), want, 1e-6 * want);
  }
}

LoopProgram adam(Size size, DType t, bool in_place) {
  LoopProgram p = space(size.first, size.second, t);
  const auto full = LoopAccess::full(p.rows, p.cols), one = LoopAccess::scalar();
  const int w = p.input(t, full), g = p.input(t, full), m = p.input(t, full), v = p.input(t, full),
            lr = p.input(t, one);
  const int w2 = p.output(t, full, in_place ? w : -1), m2 = p.output(t, full, in_place ? m : -1);
  const int v2 = p.output(t, full, in_place ? v : -1);
  const int grad = p.load(g);
  const int m_new = p.binary(LoopOp::add, p.binary(LoopOp::mul, p.constant(0.9), p.load(m)),
                             p.binary(LoopOp::mul, p.constant(0.1), grad));
  const int v_new = p.binary(LoopOp::add, p.binary(LoopOp::mul, p.constant(0.999), p.load(v)),
                             p.binary(LoopOp::mul, p.constant(0.001), p.binary(LoopOp::mul, grad, grad)));
  const int denominator = p.binary(LoopOp::add, p.unary(LoopOp::sqrt, v_new), p.constant(1e-8));
  p.store(m2, m_new);
  p.store(v2, v_new);
  p.store(w2, p.binary(LoopOp::sub, p.load(w),
                       p.binary(LoopOp::div, p.binary(LoopOp::mul, p.load(lr), m_new), denominator)));
  return p;
}

TEST(Loops, AdamOutOfPlaceAndInPlace) {
  for (DType t : {f32, f64})
    for (Size size : kSizes) {
      const LoopProgram p = adam(size, t, false);
      check_loop(p, 0, {}, 0.1, 1);
      const LoopProgram q = adam(size, t, true);
      Tensors want(q, 1, 0.1, 1), got(q, 1, 0.1, 1);
      auto pointers = want.pointers();
      reference_run(q, pointers.data());
      const CompiledLoop loop(q);
      std::vector<double> workspace(loop.workspace_bytes(2) / 8 + 16);
      void* aligned = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 63) / 64 * 64);
      auto shared = got.pointers();
      shared[5] = shared[0], shared[6] = shared[2], shared[7] = shared[3];
      loop.run(shared.data(), 2, aligned);
      const std::size_t pairs[3][2] = {{5, 0}, {6, 2}, {7, 3}};
      if (q.rows == 0 || q.cols == 0) continue;
      for (auto [out, in] : pairs)
        for (std::int64_t i = 0; i < want.count(out); ++i)
          ASSERT_TRUE(close(got.at(in, i), want.at(out, i), t == f32 ? 1e-5 : 1e-12)) << out << " " << i;
    }
}

TEST(Loops, InPlaceOutputsWaitForTheLastRead) {
  // y0 = x0 + 1 over x0's memory while x0 is needed for y1, and a row sum of x0 for y2.
  for (Size size : {Size{3, 40}, Size{2, 3000}, Size{1, 30000}, Size{64, 9}}) {
    LoopProgram p = space(size.first, size.second, f32);
    const auto full = LoopAccess::full(p.rows, p.cols);
    const int a = p.input(f32, full), b = p.input(f32, full);
    const int ya = p.output(f32, full, a), yb = p.output(f32, full, b), y = p.output(f32, full);
    const int x = p.load(a), z = p.load(b);
    p.store(ya, p.binary(LoopOp::add, x, z));
    p.store(yb, p.binary(LoopOp::sub, x, z));
    p.store(y, p.binary(LoopOp::mul, p.binary(LoopOp::mul, x, z), p.reduce(LoopOp::row_max, x)));
    Tensors want(p), got(p);
    auto pointers = want.pointers();
    reference_run(p, pointers.data());
    const CompiledLoop loop(p);
    std::vector<double> workspace(loop.workspace_bytes(2) / 8 + 16);
    void* aligned = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 63) / 64 * 64);
    auto shared = got.pointers();
    shared[2] = shared[0], shared[3] = shared[1];
    loop.run(shared.data(), 2, aligned);
    for (std::int64_t i = 0; i < want.count(2); ++i) {
      ASSERT_TRUE(close(got.at(0, i), want.at(2, i), 1e-5)) << i;
      ASSERT_TRUE(close(got.at(1, i), want.at(3, i), 1e-5)) << i;
      ASSERT_TRUE(close(got.at(4, i), want.at(4, i), 1e-5)) << i;
    }
  }
}

TEST(Loops, GeneralAccesses) {
  for (DType t : {f32, f64})
    for (Size size : {Size{24, 5}, Size{24, 64}, Size{24, 700}, Size{24, 1}}) {
      LoopProgram p = space(size.first, size.second, t);
      const std::int64_t c = p.cols;
      const int x = p.load(p.input(t, LoopAccess::full(24, c)));
      const int repeated = p.load(p.input(t, LoopAccess::repeated(24, 4, 3, c, 1)));  // [3, C]
      const int scalars = p.load(p.input(t, LoopAccess::repeated(24, 2, 4, 1, 0)));   // [4]
      LoopAccess transposed, strided, padded;
      transposed.digit(24, 1).col_stride = 24;
      strided.digit(24, 3 * c).col_stride = 3;
      padded.digit(6, 5 * c).digit(4, c).col_stride = 1;  // rows of a slice
      const int a = p.load(p.input(t, transposed)), b = p.load(p.input(t, strided)), d = p.load(p.input(bf16, padded));
      int sum = x;
      for (int v : {repeated, scalars, a, b, d}) sum = p.binary(LoopOp::add, sum, v);
      LoopAccess out;
      out.digit(24, 2).col_stride = 48;
      p.store(p.output(t, out), sum);
      p.store(p.output(t, LoopAccess::full(24, c)), p.binary(LoopOp::mul, sum, p.reduce(LoopOp::row_max, sum)));
      const auto prepare = [](Tensors& m) {
        for (std::int64_t i = 0; i < m.count(6); ++i) m.set(6, i, 0);
      };
      check_loop(p, 0, prepare);
    }
}

TEST(Loops, IndicesAndBroadcastStores) {
  for (Size size : {Size{5, 9}, Size{30, 9}, Size{3, 700}, Size{1, 2000}, Size{40, 1}, Size{1, 1}}) {
    LoopProgram p = space(size.first, size.second, f32);
    const auto full = LoopAccess::full(p.rows, p.cols);
    const int r = p.row_index(), c = p.column_index();
    p.store(p.output(f32, full), p.binary(LoopOp::add, p.binary(LoopOp::mul, r, p.constant(1000)), c));
    p.store(p.output(f32, LoopAccess::per_row(p.rows)), r);
    p.store(p.output(f32, LoopAccess::per_column()), c);
    p.store(p.output(i32, LoopAccess::per_column()), c);
    p.store(p.output(f32, full), r);
    p.store(p.output(bf16, full), c);
    p.store(p.output(f32, full), p.constant(7));
    p.store(p.output(f64, LoopAccess::scalar()), p.constant(7));
    p.store(p.output(f32, full), p.load(p.input(f32, LoopAccess::per_column())));
    if (size.second > 1) {
      check_loop(p);
    } else {  // row_index through a [C] of one column would vary beyond it
      LoopProgram q = space(size.first, size.second, f32);
      q.store(q.output(f32, LoopAccess::per_row(q.rows)), q.binary(LoopOp::add, q.row_index(), q.column_index()));
      check_loop(q);
    }
  }
}

TEST(Loops, RandomMatchesRandomWord) {
  for (DType t : {f32, f64})
    for (Size size : {Size{1, 1003}, Size{77, 5}, Size{3, 701}, Size{50, 40}, Size{7, 3}, Size{5, 2500}}) {
      LoopProgram p = space(size.first, size.second, t);
      const auto full = LoopAccess::full(p.rows, p.cols);
      const int key = p.input(i64, LoopAccess{.rank = 0, .size = {}, .stride = {}, .col_stride = 0});
      const int bits = p.random(key, 0x123456789abcdefull, 24), coarse = p.random(key, 5, 8);
      p.store(p.output(t, full), bits);
      p.store(p.output(t, full), p.binary(LoopOp::lt, coarse, p.constant(64)));
      // The key is two elements wide, which the access does not say: use memory of our own.
      std::int64_t seed[2] = {-7, 123456789012345};
      Tensors want(p), got(p);
      auto pw = want.pointers(), pg = got.pointers();
      pw[0] = pg[0] = seed;
      reference_run(p, pw.data());
      const CompiledLoop loop(p);
      std::vector<double> workspace(loop.workspace_bytes(2) / 8 + 16);
      loop.run(pg.data(), 2,
               reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 63) / 64 * 64));
      EXPECT_EQ(got.bytes(1), want.bytes(1));
      EXPECT_EQ(got.bytes(2), want.bytes(2));
    }
}

// Random programs: every op but the discontinuous ones on smooth values, random accesses, reductions and stores.
TEST(Loops, RandomPrograms) {
#if defined(__SANITIZE_ADDRESS__)
  constexpr std::uint64_t kPrograms = 40;
#else
  constexpr std::uint64_t kPrograms = 150;
#endif
  for (std::uint64_t seed = 0; seed < kPrograms; ++seed) {
    Rng rng(Key(seed).fold("programs"));
    const std::int64_t row_choices[] = {1, 2, 5, 33, 200}, col_choices[] = {1, 3, 16, 100, 600, 3000};
    LoopProgram p = space(row_choices[rng.below(5)], col_choices[rng.below(6)], rng.below(2) ? f32 : f64);
    const auto full = LoopAccess::full(p.rows, p.cols);
    const LoopAccess accesses[] = {full, full, LoopAccess::per_row(p.rows), LoopAccess::per_column(),
                                   LoopAccess::scalar()};
    std::vector<int> values;
    for (int i = 0; i < 5; ++i) {
      const bool half = rng.below(6) == 0;
      values.push_back(p.load(p.input(half ? bf16 : p.compute, accesses[static_cast<std::size_t>(i)])));
    }
    values.push_back(p.constant(0.5));
    values.push_back(p.constant(0));
    const LoopOp unary[] = {LoopOp::neg, LoopOp::abs, LoopOp::exp, LoopOp::tanh, LoopOp::sigmoid, LoopOp::sin};
    const LoopOp binary[] = {LoopOp::add, LoopOp::add, LoopOp::sub, LoopOp::mul, LoopOp::mul, LoopOp::max, LoopOp::min};
    const LoopOp reduce[] = {LoopOp::row_max, LoopOp::row_min, LoopOp::row_sum};
    const auto any = [&] { return values[rng.below(values.size())]; };
    const auto bounded = [&](int v) {
      return p.binary(LoopOp::min, p.binary(LoopOp::max, v, p.constant(-2)), p.constant(2));
    };
    const int length = 3 + static_cast<int>(rng.below(14));
    for (int i = 0; i < length; ++i) {
      const auto kind = rng.below(10);
      int v = 0;
      if (kind < 3)
        v = p.unary(unary[rng.below(6)], any());
      else if (kind < 8)
        v = p.binary(binary[rng.below(7)], any(), any());
      else if (kind < 9)
        v = p.select(p.binary(LoopOp::gt, any(), p.constant(0)), any(), p.constant(0));
      else
        v = p.binary(LoopOp::mul, p.reduce(reduce[rng.below(3)], any()), p.constant(1.0 / static_cast<double>(p.cols)));
      values.push_back(rng.below(2) ? bounded(v) : v);
    }
    for (int i = 0; i < 3; ++i)
      p.store(p.output(p.compute, full), bounded(values[values.size() - 1 - static_cast<std::size_t>(i)]));
    if (rng.below(2))
      p.column(LoopOp::column_max, p.output(p.compute, LoopAccess::per_column()), bounded(values.back()));
    if (rng.below(2))
      p.column(LoopOp::column_sum, p.output(f64, LoopAccess::per_column()),
               p.binary(LoopOp::mul, bounded(any()), bounded(values.back())));
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    // A comparison with 0 may fall either way where macros round once less: allow what continuous values allow.
    check_loop(p, p.compute == f32 ? 1e-2 : 1e-9, {}, -2, 2, seed % 8 == 0 ? std::vector<int>{2} : std::vector<int>{});
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace bp::cpu

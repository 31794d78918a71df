// Machine code of fused loops: where there is some, that every instruction gives the bits of its tile, that equal code
// is shared. tests/kernels/loops_test.cc compares it with tiles and with the reference on whole programs.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/flush_denormals.h"
#include "base/isa.h"
#include "bp/rng.h"
#include "cpu/kernels/loop_jit.h"
#include "cpu/kernels/loop_program.h"
#include "cpu/kernels/machine_code.h"
#include "kernels/space.h"

namespace bp::cpu {
namespace {

// Special values, numbers of every size, halves that rounding to bf16 and to integers must decide.
std::vector<float> hard_values(std::int64_t n, std::uint64_t seed) {
  using L = std::numeric_limits<float>;
  std::vector<float> v = {0.0f, -0.0f, 1, -1, 0.5f, -0.5f, 1.5f, 2.5f, L::infinity(), -L::infinity(), L::quiet_NaN()};
  v.insert(v.end(), {L::max(), L::lowest(), L::min(), 88.8f, -88.8f, 104, -104, 0.6249f, 0.625f, 0.9277f, 10, -10});
  Rng rng(Key(seed).fold("hard"));
  while (static_cast<std::int64_t>(v.size()) < n) {
    const auto bits = static_cast<std::uint32_t>(rng.below(1ull << 32));
    v.push_back(rng.below(2) ? std::bit_cast<float>((bits & 0x8fffffffu) | 0x30000000u)
                             : std::bit_cast<float>((bits & 0x807f0000u) | 0x3f808000u));
  }
  std::rotate(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(seed % v.size()), v.end());
  return v;
}

std::vector<std::vector<std::byte>> run(const LoopProgram& p, const std::vector<std::vector<float>>& inputs,
                                        LoopCode code) {
  const CompiledLoop loop(p, code);
  std::vector<std::byte> memory(loop.workspace_bytes(1) + 64);
  std::vector<void*> operands;
  std::vector<std::vector<std::byte>> outputs;
  for (const auto& x : inputs) operands.push_back(const_cast<float*>(x.data()));
  for (std::size_t k = inputs.size(); k < p.operands.size(); ++k)
    outputs.emplace_back(static_cast<std::size_t>(p.rows * p.cols) * size_of(p.operands[k].dtype));
  for (auto& y : outputs) operands.push_back(y.data());
  loop.run(operands.data(), 1,
           reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64));
  return outputs;
}

// The value stored in every dtype that code stores, beside another that makes it two steps: of one alone there is none.
void expect_same_bits(LoopProgram& p, int value, const std::vector<std::vector<float>>& inputs,
                      const std::string& what) {
  const auto full = LoopAccess::full(p.rows, p.cols);
  for (DType t : {f32, bf16, boolean}) p.store(p.output(t, full), value);
  p.store(p.output(f32, full), p.unary(LoopOp::neg, value));
  EXPECT_EQ(CompiledLoop(p).explain().find("machine code") != std::string::npos, machine_code_wanted()) << what;
  const auto tiles = run(p, inputs, LoopCode::tiles), code = run(p, inputs, LoopCode::machine);
  for (std::size_t k = 0; k < tiles.size(); ++k) EXPECT_EQ(tiles[k], code[k]) << what << ", output " << k;
}

constexpr std::int64_t kCounts[] = {1, 15, 16, 63, 64, 131, 700};

TEST(MachineCode, UnaryInstructionsGiveTheBitsOfTiles) {
  for (LoopOp op : {LoopOp::neg, LoopOp::abs, LoopOp::sign, LoopOp::exp, LoopOp::sqrt, LoopOp::rsqrt, LoopOp::tanh,
                    LoopOp::sigmoid, LoopOp::erf, LoopOp::reciprocal, LoopOp::floor, LoopOp::ceil, LoopOp::round,
                    LoopOp::trunc, LoopOp::is_finite, LoopOp::logical_not, LoopOp::to_bf16, LoopOp::to_f32})
    for (std::int64_t n : kCounts) {
      LoopProgram p = space(1, n, f32);
      const int x = p.load(p.input(f32, LoopAccess::full(1, n)));
      expect_same_bits(p, p.unary(op, x), {hard_values(n, static_cast<std::uint64_t>(n))}, name_of(op));
    }
}

TEST(MachineCode, BinaryInstructionsGiveTheBitsOfTiles) {
  for (LoopOp op :
       {LoopOp::add, LoopOp::sub, LoopOp::mul, LoopOp::div, LoopOp::max, LoopOp::min, LoopOp::eq, LoopOp::ne,
        LoopOp::lt, LoopOp::le, LoopOp::gt, LoopOp::ge, LoopOp::logical_and, LoopOp::logical_or})
    for (std::int64_t n : kCounts)
      for (std::uint64_t shift : {0u, 1u, 7u}) {
        LoopProgram p = space(1, n, f32);
        const int x = p.load(p.input(f32, LoopAccess::full(1, n))), y = p.load(p.input(f32, LoopAccess::full(1, n)));
        expect_same_bits(p, p.binary(op, x, y), {hard_values(n, 0), hard_values(n, shift)}, name_of(op));
      }
}

TEST(MachineCode, SelectionsGiveTheBitsOfTiles) {
  for (std::int64_t n : kCounts) {
    LoopProgram p = space(1, n, f32);
    const int x = p.load(p.input(f32, LoopAccess::full(1, n))), y = p.load(p.input(f32, LoopAccess::full(1, n)));
    const std::vector<std::vector<float>> inputs = {hard_values(n, 0), hard_values(n, 3)};
    expect_same_bits(p, p.select(x, y, p.constant(2)), inputs, "select");
    LoopProgram mask = space(1, n, f32);
    const int a = mask.load(mask.input(f32, LoopAccess::full(1, n)));
    const int b = mask.load(mask.input(f32, LoopAccess::full(1, n)));
    const int positive = mask.binary(LoopOp::gt, a, mask.constant(0));
    expect_same_bits(mask, mask.select(positive, b, mask.constant(0)), inputs, "relu's gradient");
  }
}

// Values that would need more registers than there are: the program falls into several pieces of code.
TEST(MachineCode, LongProgramsFallIntoPieces) {
  constexpr int kValues = 60;
  const std::int64_t n = 300;
  LoopProgram p = space(1, n, f32);
  const int x = p.load(p.input(f32, LoopAccess::full(1, n)));
  std::vector<int> values;
  for (int i = 0; i < kValues; ++i) values.push_back(p.binary(LoopOp::mul, x, p.constant(1.0 + i)));
  int sum = values.back();
  for (int round = 0; round < 2; ++round)  // all are read again when all have been read
    for (int v : values) sum = p.binary(LoopOp::max, v, sum);
  expect_same_bits(p, sum, {hard_values(n, 5)}, "sixty values at once");
  const std::string text = CompiledLoop(p).explain();
  const auto first = text.find("machine code");
  EXPECT_EQ(first != std::string::npos && text.find("machine code", first + 1) != std::string::npos,
            machine_code_wanted())
      << text;
}

// A row goes through all phases in one piece of code, values of the row too; what has no code waits for the block.
TEST(MachineCode, PhasesOfARowAreOnePiece) {
  for (std::int64_t cols : {17, 64, 96, 192, 203})
    for (std::int64_t rows : {5, 41, 700}) {
      LoopProgram p = space(rows, cols, f32);
      const auto full = LoopAccess::full(rows, cols), row = LoopAccess::per_row(rows);
      const int x = p.load(p.input(f32, full)), gain = p.load(p.input(f32, LoopAccess::per_column()));
      const int scale = p.load(p.input(f32, row));
      const int e = p.unary(LoopOp::exp, p.binary(LoopOp::sub, x, p.reduce(LoopOp::row_max, x)));
      const int sum = p.reduce(LoopOp::row_sum, e), inverse = p.unary(LoopOp::reciprocal, sum);
      const int y = p.binary(LoopOp::mul, p.binary(LoopOp::mul, e, inverse), gain);
      const int square = p.reduce(LoopOp::row_sum, p.binary(LoopOp::mul, y, y));
      const int rest = p.binary(LoopOp::mul, y, p.binary(LoopOp::div, p.unary(LoopOp::sqrt, square), scale));
      for (int v : {y, rest}) p.store(p.output(f32, full), v);
      for (int v : {inverse, p.unary(LoopOp::log, sum)}) p.store(p.output(f32, row), v);
      p.column(LoopOp::column_sum, p.output(f32, LoopAccess::per_column()), rest);
      const std::string text = CompiledLoop(p).explain();
      const auto piece = text.find("machine code, for each row");
      EXPECT_EQ(piece != std::string::npos, machine_code_wanted()) << text;
      const std::vector<std::vector<float>> inputs = {hard_values(rows * cols, 3), hard_values(cols, 1),
                                                      hard_values(rows, 2)};
      const auto tiles = run(p, inputs, LoopCode::tiles), code = run(p, inputs, LoopCode::machine);
      for (std::size_t k = 0; k < tiles.size(); ++k)
        EXPECT_EQ(tiles[k], code[k]) << rows << " x " << cols << ", output " << k;
    }
}

// One output, `offset` floats behind the beginning of a cache line, and what lies around it.
std::vector<float> run_at(const LoopProgram& p, const std::vector<std::vector<float>>& inputs, LoopCode code,
                          std::size_t offset, int threads) {
  const CompiledLoop loop(p, code);
  const auto line = [](auto& v) { return (64 - reinterpret_cast<std::uintptr_t>(v.data()) % 64) % 64 / sizeof(v[0]); };
  std::vector<std::byte> space(loop.workspace_bytes(threads) + 64);
  const auto n = static_cast<std::size_t>(p.rows * p.cols);
  std::vector<float> out(n + 64, 7);
  std::vector<void*> operands;
  for (const auto& x : inputs) operands.push_back(const_cast<float*>(x.data()));
  const std::size_t begin = line(out) + offset;
  operands.push_back(out.data() + begin);
  loop.run(operands.data(), threads, space.data() + line(space));
  std::rotate(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(begin), out.end());  // wherever it lies
  return out;
}

// Tensors that no cache holds are stored past them where lines are whole, in loops of one phase and of several.
TEST(MachineCode, StoresPastTheCachesGiveTheBitsOfTiles) {
  std::vector<float> some, gain(80, 1.5f);
  for (int i = 0; i < 4099; ++i) some.push_back(0.003f * static_cast<float>(i * 7919 % 997) - 1);
  for (const auto& [rows, cols] : {std::pair(57001, 80), std::pair(70001, 65)}) {
    std::vector<float> x(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
    for (std::size_t i = 0; i < x.size(); i += some.size())
      std::copy_n(some.begin(), std::min(some.size(), x.size() - i), x.begin() + static_cast<std::ptrdiff_t>(i));
    for (const int phases : {0, 1, 2, 3}) {  // 0: one run of elements
      LoopProgram p = space(rows, cols, f32);
      const int a = p.load(p.input(f32, LoopAccess::full(rows, cols)));
      const int column = p.load(p.input(f32, phases == 0 ? LoopAccess::scalar() : LoopAccess::per_column()));
      const int b = p.binary(LoopOp::mul, a, column);
      const int top = phases < 2 ? p.constant(1) : p.reduce(LoopOp::row_max, b);
      const int y = p.binary(LoopOp::max, p.binary(LoopOp::sub, b, top), a);
      p.store(p.output(f32, LoopAccess::full(rows, cols)),
              phases < 3 ? y : p.binary(LoopOp::mul, y, p.reduce(LoopOp::row_sum, p.unary(LoopOp::exp, y))));
      const bool past = CompiledLoop(p).explain().find("past the caches") != std::string::npos;
      EXPECT_EQ(past, machine_code_wanted() && (phases == 0 || cols % 16 == 0))
          << rows << " x " << cols << ", phases " << phases;
      const auto tiles = run_at(p, {x, gain}, LoopCode::tiles, 0, 1);
      for (const std::size_t offset : {0, 1}) {
        const auto code = run_at(p, {x, gain}, LoopCode::machine, offset, 2);
        EXPECT_EQ(std::memcmp(tiles.data(), code.data(), tiles.size() * sizeof(float)), 0)
            << rows << " x " << cols << ", phases " << phases << ", " << offset << " behind a line";
      }
    }
  }
}

// Random bits drawn in rows with remainders, twice, in loops of one phase and of two, in rows cut into tiles.
TEST(MachineCode, RandomBitsGiveTheBitsOfTiles) {
  const std::vector<float> state = {1, -2, 3, 4};  // a seed and a step of any bits
  for (auto [rows, cols] :
       {std::pair(9, 100), std::pair(30, 192), std::pair(6, 20), std::pair(3, 4), std::pair(5, 2500)}) {
    LoopProgram p = space(rows, cols, f32);
    const int x = p.load(p.input(f32, LoopAccess::full(rows, cols))), key = p.input(i64, LoopAccess::scalar());
    const int bits = p.binary(LoopOp::mul, x, p.random(key, 5, 24)), other = p.random(key, 6, 8);
    const int sum = p.reduce(LoopOp::row_sum, bits);
    p.store(p.output(f32, LoopAccess::full(rows, cols)),
            p.binary(LoopOp::add, p.binary(LoopOp::mul, bits, other), sum));
    const std::vector<std::vector<float>> inputs = {hard_values(rows * cols, 3), state};
    const auto tiles = run(p, inputs, LoopCode::tiles), code = run(p, inputs, LoopCode::machine);
    EXPECT_EQ(tiles, code) << rows << " x " << cols << CompiledLoop(p).explain();
  }
}

// Results below the normal numbers are rounded, or flushed, as those of tiles.
TEST(MachineCode, ExponentialsVanishAsInTiles) {
  std::vector<float> x;
  for (int i = 0; i < 2000; ++i) x.push_back(-85.0f - 0.01f * static_cast<float>(i));
  for (bool flush : {false, true}) {
    const FlushDenormals denormals(flush);
    for (LoopOp op : {LoopOp::exp, LoopOp::sigmoid}) {
      LoopProgram p = space(1, 2000, f32);
      expect_same_bits(p, p.unary(op, p.load(p.input(f32, LoopAccess::full(1, 2000)))), {x}, name_of(op));
    }
  }
}

TEST(MachineCode, IsForAvx512) { EXPECT_FALSE(machine_code_wanted() && running_isa() != Isa::avx512); }

TEST(MachineCode, EqualCodeIsShared) {
#if defined(__x86_64__)
  const unsigned char seven[] = {0xb8, 7, 0, 0, 0, 0xc3}, eight[] = {0xb8, 8, 0, 0, 0, 0xc3};  // mov eax, n; ret
  const auto bytes = [](const auto& code) { return std::as_bytes(std::span(code)); };
  const auto a = MachineCode::make(bytes(seven)), b = MachineCode::make(bytes(seven)),
             c = MachineCode::make(bytes(eight));
  if (a == nullptr) GTEST_SKIP() << "no executable memory here";
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_EQ(a->entry<int (*)()>()(), 7);
  EXPECT_EQ(c->entry<int (*)()>()(), 8);
#endif
}

}  // namespace
}  // namespace bp::cpu

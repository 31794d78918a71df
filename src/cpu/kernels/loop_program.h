// Fused loops: LoopProgram states a computation over one rows x columns space as plain data; CompiledLoop prepares it
// once and runs it on tiles that stay in cache. Lowering (cpu/lower) writes programs, the executor runs them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bp/dtype.h"

namespace bp::cpu {

// What one instruction computes. Values live in registers of the program's compute dtype (f32 or f64); booleans are 0
// and 1, every non-zero value (NaN too) counts as true.
enum class LoopOp : std::uint8_t {
  // leaves
  load,          // operand
  constant,      // imm
  column_index,  // c
  row_index,     // r
  random,  // word(r * cols + c) >> (32 - imm), see base/random_word.h; operand holds i64[2] = {seed, counter}; imm <=
           // 24
  // unary: a
  neg,
  abs,
  sign,
  exp,
  expm1,
  log,
  log1p,
  sqrt,
  rsqrt,
  reciprocal,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  floor,
  ceil,
  round,  // half to even
  trunc,
  is_finite,
  logical_not,
  to_bf16,  // rounds to what bf16 can hold: a cast that stays in a register
  to_f32,   // the same for f32
  // binary: a, b. max and min give NaN when either is NaN; remainder has the sign of b (NumPy); comparisons give 0
  // or 1.
  add,
  sub,
  mul,
  div,
  pow,
  max,
  min,
  remainder,
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  logical_and,
  logical_or,
  select,  // a ? b : c
  // reductions over the columns of a row; the result is a value that varies with the row only
  row_sum,
  row_max,
  row_min,
  row_prod,
  // results: a goes to operand
  store,  // converted to the operand's dtype (see store_rules below)
  column_sum,
  column_max,
  column_min,  // reduced over all rows into an operand of access [C]
};

const char* name_of(LoopOp op) noexcept;
double start_of(LoopOp reduction) noexcept;  // what it is of no values

// Where element (r, c) of an operand lies, in elements from its pointer:
//   offset(r, c) = sum_k digit_k(r) * stride[k] + c * col_stride,
// digit_k being the digits of r in the mixed radix size[0..rank), outermost first (their product is >= rows). Strides
// of zero repeat. rank 0: every row is the same. The common forms have a name below.
struct LoopAccess {
  static constexpr int kMaxRank = 6;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> size{};
  std::array<std::int64_t, kMaxRank> stride{};
  std::int64_t col_stride = 0;

  static LoopAccess full(std::int64_t rows, std::int64_t cols);  // contiguous [R, C]
  static LoopAccess per_row(std::int64_t rows);                  // [R], the same for all columns
  static LoopAccess per_column();                                // [C], the same for all rows
  static LoopAccess scalar();                                    // one element
  // offset = ((r / div) % mod) * row_stride + c * col_stride
  static LoopAccess repeated(std::int64_t rows, std::int64_t div, std::int64_t mod, std::int64_t row_stride,
                             std::int64_t col_stride);
  // Adds a digit inside the present ones.
  LoopAccess& digit(std::int64_t size, std::int64_t stride);

  std::int64_t offset(std::int64_t r, std::int64_t c) const noexcept;
  bool varies_with_row() const noexcept;
  bool varies_with_column() const noexcept { return col_stride != 0; }
  friend bool operator==(const LoopAccess&, const LoopAccess&) = default;
};

// One tensor of the program. store_rules: float to integer truncates toward zero and saturates (NaN gives 0), float to
// boolean is "!= 0", float to bf16 and f64 to f32 round to nearest even. Integers load exactly where the compute dtype
// can hold them (f32: 24 bits).
struct LoopOperand {
  DType dtype = DType::f32;
  LoopAccess access;
  bool output = false;
  // For an output: the one input whose memory it may share (same dtype and access); -1: it shares with none.
  int in_place_of = -1;
  std::int64_t base = 0;  // where element offset 0 lies, in elements from the pointer that run() gets
};

struct LoopInstr {
  LoopOp op;
  int a = -1, b = -1, c = -1;  // values: indices of earlier instructions
  int operand = -1;            // load, random, store, column_*
  double imm = 0;              // constant; random: width in bits
  std::uint64_t place = 0;     // random
};

// The computation: SSA in order, an instruction's value is its index. Only dataflow is stated; what is computed once a
// run, once a row or once a column, the phases that row reductions force, and what is kept or recomputed between them
// follow from it. The builder functions return the value.
struct LoopProgram {
  std::int64_t rows = 1, cols = 1;
  DType compute = DType::f32;  // f32 or f64
  std::vector<LoopOperand> operands;
  std::vector<LoopInstr> instrs;

  int input(DType dtype, LoopAccess access, std::int64_t base = 0);
  int output(DType dtype, LoopAccess access, int in_place_of = -1, std::int64_t base = 0);

  int load(int operand);
  int constant(double value);
  int column_index();
  int row_index();
  int random(int key_operand, std::uint64_t place, int width);
  int unary(LoopOp op, int a);
  int binary(LoopOp op, int a, int b);
  int select(int cond, int then_value, int else_value);
  int reduce(LoopOp op, int a);                // row_*
  void store(int operand, int a);              // a is broadcast to the operand's access; it may not vary beyond it
  void column(LoopOp op, int operand, int a);  // column_*

  // Asserts that the program is well formed.
  void check() const;
  std::string str() const;
};

// Runs the program with plain scalar loops, rounding each value to the compute dtype: the oracle of every test.
// operands[i] points at element -base of operand i; outputs may not alias inputs.
void reference_run(const LoopProgram& program, void* const* operands);

// How the tiles of a loop are computed: by machine code made for the loop where the processor is one it is made for
// (x86-64 with AVX-512) and the system grants executable memory; by a walk over its instructions otherwise, and where
// asked to. Both give the same bits.
enum class LoopCode : std::uint8_t { machine, tiles };

// A prepared program. Immutable after construction; run() may be called from several threads with different
// workspaces. Empty reductions give 0, -inf, +inf, 1 as NumPy's initial values would.
class CompiledLoop {
 public:
  explicit CompiledLoop(const LoopProgram& program, LoopCode code = LoopCode::machine);
  ~CompiledLoop();
  CompiledLoop(CompiledLoop&&) noexcept;
  CompiledLoop& operator=(CompiledLoop&&) noexcept;

  // Scratch bytes for up to `threads` threads, in memory aligned to 64. It carries nothing between runs: share it.
  std::size_t workspace_bytes(int threads) const noexcept;
  // Threads that pay for this much work, at most max_threads.
  int useful_threads(int max_threads) const noexcept;

  // operands[i]: points at element -base of operand i. Allocates nothing. Results do not depend on `threads` (at least
  // 1). Outputs may share memory with their in_place_of only.
  void run(void* const* operands, int threads, void* workspace) const;

  // The steps as text: stages, tiles, macro-instructions.
  std::string explain() const;

  struct Plan;

 private:
  std::unique_ptr<const Plan> plan_;
};

}  // namespace bp::cpu

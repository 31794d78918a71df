// The values of a LoopProgram on their way to steps: classified by what they vary with, macro-instructions found.
// Used by loop_compile.cc only.
#pragma once

#include <utility>
#include <vector>

#include "cpu/kernels/loop_program.h"
#include "cpu/kernels/loop_tiles.h"

namespace bp::cpu {

// What a value varies with. With one row, what varies with the column varies with everything.
enum LoopVary : unsigned { kUniform = 0, kRow = 1, kColumn = 2, kBoth = 3 };
inline bool is_tile(unsigned vary) noexcept { return vary & kColumn; }

struct LoopNode {
  TileOp op = TileOp::copy;
  int arg[3] = {-1, -1, -1};
  unsigned vary = kUniform;
  int level = 0;  // the first phase in which it can be computed
  int uses = 0;
  int operand = -1;
  double imm = 0;
  std::uint64_t place = 0;

  bool is(LoopOp o) const { return op == tile_op(o); }
  bool is(TileOp o) const { return op == o; }
  bool is_reduction() const {
    return (op >= tile_op(LoopOp::row_sum) && op <= tile_op(LoopOp::row_prod)) || op == TileOp::row_dot ||
           op == TileOp::row_pick;
  }
  bool is_leaf() const { return op <= tile_op(LoopOp::random); }
};

inline constexpr TileOp kPair = TileOp::count;  // two uniform values side by side: the coefficients of axpby

// Approximate cost of an element in tenths of a nanosecond, for keep-or-recompute and the choice of threads.
int cost_of(const LoopNode& n);

// The elements of all rows lie in one run.
bool is_dense(const LoopAccess& a, std::int64_t rows, std::int64_t cols);

// Every element of the space has its own place in the operand.
bool is_stream(const LoopProgram& p, const LoopOperand& o);

// What a run reads and writes of its streams.
struct LoopTraffic {
  std::int64_t bytes = 0;
  bool writes = false;                                                // a result has an element for each of the space
  bool from_memory() const noexcept { return bytes > (1 << 20); }     // more than the second cache
  bool beyond_caches() const noexcept { return bytes > (32 << 20); }  // results are gone before somebody reads them
};
LoopTraffic traffic_of(const LoopProgram& p);

class LoopNodes {
 public:
  explicit LoopNodes(const LoopProgram& program);

  LoopNode& node(int v) { return nodes_[static_cast<std::size_t>(v)]; }
  const LoopNode& node(int v) const { return nodes_[static_cast<std::size_t>(v)]; }
  const LoopProgram& program() const { return p_; }  // accesses simplified, element-wise programs collapsed
  int last_phase() const { return last_phase_; }
  unsigned vary_of(const LoopAccess& a) const;

 private:
  void simplify_accesses();
  void collapse();
  bool collapsible() const;
  unsigned spread(unsigned vary) const;
  void build();
  void strength_reduce(LoopNode& n);
  void count_uses();
  void find_macros();
  void find_levels();

  bool is_constant(int v, double value) const { return node(v).is(LoopOp::constant) && node(v).imm == value; }
  // v is computed for n alone and as often as n: it may disappear into n.
  bool absorbs(const LoopNode& n, int v, LoopOp op) const {
    return node(v).is(op) && node(v).uses == 1 && node(v).vary == n.vary;
  }
  // {scale, value, squared} of a product s * x or t * y * y; scale < 0 when it has another form.
  struct Term {
    int scale = -1, value = -1;
    bool squared = false;
  };
  Term term_of(int product) const;
  std::pair<int, int> factors(int product) const;
  void fuse(std::size_t i);
  void fuse_add(std::size_t i);
  bool fuse_axpby(std::size_t i, int x, int y);
  void fuse_sub(LoopNode& n);
  void fuse_mul(LoopNode& n);
  void fuse_max(LoopNode& n);
  void fuse_select(LoopNode& n);
  void fuse_dot(LoopNode& n);
  bool fuse_pick(LoopNode& n);

  LoopProgram p_;
  bool hoist_columns_ = false;
  int last_phase_ = 0;
  std::vector<LoopNode> nodes_;  // one an instruction, then pairs
};

}  // namespace bp::cpu

// Recording the body of a scan or cond: placeholders that stand for values of one iteration, and capture of what was
// recorded on them into an ir::Body. Called by ops/scan.cc and ops/cond.cc.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "ir/body.h"
#include "trace/node.h"

namespace bp::detail {

// While it lives, placeholders may be made of it; nodes that depend on them carry its id, and are refused afterwards.
// What is recorded meanwhile without depending on a placeholder is an ordinary value: an invariant of the body.
class Region {
 public:
  Region();
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  std::uint64_t id() const noexcept { return id_; }
  std::uint64_t first_serial() const noexcept { return first_serial_; }
  const Region* outer() const noexcept { return outer_; }
  Tensor placeholder(const Type& type) const;

  // The number of the iteration (i64[]), of a scan's region; random draws inside the body depend on it.
  Tensor index;

 private:
  std::uint64_t id_, first_serial_;
  const Region* outer_;
};

// A placeholder and the value outside that it stands for in every iteration.
struct Bound {
  Tensor placeholder, value;
};

struct CapturedBody {
  std::shared_ptr<const ir::Opaque> body;
  std::vector<Tensor> invariants;  // the body's inputs are these, then `arguments`
  std::vector<bool> used;          // one an argument: whether the body reads it
};

// The computation of `roots` out of `arguments` (placeholders, or values recorded in the body: the walk stops there).
// Nodes of `region` and of regions inside it belong to the body; everything else that they read becomes an invariant,
// except that broadcasts, reshapes, transposes and constants recorded since the region began are taken along: they cost
// nothing where they are read. (Older ones may be what somebody differentiates by.)
CapturedBody capture_body(std::span<const Tensor> roots, std::span<const Tensor> arguments, const Region& region,
                          std::span<const Bound> bound = {});

// Records the graph again on `inputs` (one an entry of g.inputs); returns its outputs. Scopes and directions are the
// nodes' own.
std::vector<Tensor> instantiate(const ir::Graph& g, std::span<const Tensor> inputs);

// Whether a node only rearranges or repeats: cheaper to record again than to keep its result.
bool is_rearrangement(const Node& n) noexcept;

}  // namespace bp::detail

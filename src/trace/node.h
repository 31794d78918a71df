// The reference-counted nodes behind Tensor, the state cells behind Variable, and the thread's tracing context.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bp/tensor.h"
#include "bp/variable.h"
#include "ir/graph.h"

namespace bp::detail {

struct Node : std::enable_shared_from_this<Node> {
  ir::OpId op = ir::OpId::input;
  ir::Attrs attrs;
  std::vector<Tensor> inputs;  // emptied when the history is released
  std::vector<Type> types;
  std::vector<Buffer> values;  // one an output once evaluated; empty before
  ir::ScopeId scope = 0;
  bool backward = false;
  bool tracked = false;               // depends on a Variable or a watched tensor: history survives evaluation
  bool released = false;              // the history was dropped: no gradient passes
  std::uint32_t depth = 0;            // longest chain of pending nodes below
  std::uint32_t history = 0;          // longest chain of recorded nodes below
  std::uint64_t serial = 0;           // order of creation: inputs have smaller numbers
  std::uint64_t trace = 0;            // the trace that recorded it; 0 outside compile
  std::uint64_t region = 0;           // the innermost body (trace/body.h) whose placeholders it depends on; 0: none
  std::weak_ptr<Cell> cell;           // of the Variable this leaf was read from
  std::shared_ptr<Node> next_doomed;  // set while its release waits for its turn

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node();
  bool evaluated() const noexcept { return !values.empty(); }
};

struct Cell {
  Type type;
  Tensor value;  // always an evaluated leaf
  std::string name;
  bool trainable = true;
  std::uint64_t version = 0;
};

// What compile records: which arguments and Variables were read, and what was assigned.
struct TraceContext {
  struct State {
    std::shared_ptr<Cell> cell;
    Tensor first;  // the placeholder that stands for the value at the start of the step
    Tensor current;
  };
  std::uint64_t id = 0;
  std::string name;           // of the compiled function, for messages
  std::vector<State> states;  // in order of first use
  std::unordered_map<const Cell*, std::size_t> index;

  // At the end of the step all states but `always` keep their old values unless the condition holds.
  struct Commit {
    Tensor condition;
    std::vector<std::shared_ptr<Cell>> always;
  };
  std::vector<Commit> commits;

  State& state(const std::shared_ptr<Cell>& cell);
};

class Region;

struct ThreadState {
  TraceContext* trace = nullptr;
  Mode mode = Mode::eval;
  ir::ScopeId scope = 0;
  bool backward = false;
  const Region* region = nullptr;  // the innermost open body
};
ThreadState& thread_state() noexcept;

// Records an operation: infers types (errors get the scope's name), one node. The primitive under every builder in
// src/ops.
std::shared_ptr<Node> record(ir::OpId op, std::vector<Tensor> inputs, ir::Attrs attrs);
inline Tensor record1(ir::OpId op, std::vector<Tensor> inputs, ir::Attrs attrs = {}) {
  return Tensor(record(op, std::move(inputs), std::move(attrs)), 0);
}

// A leaf over memory; a symbolic argument of the running trace.
Tensor make_leaf(Buffer buffer, Type type);
Tensor make_placeholder(Type type, std::uint64_t trace);

// Drops inputs of an evaluated node whose history nobody may ask for.
void release_history(Node& node);

// A pending chain of this length outside compile is evaluated; a recorded history of this length is cut (constant
// memory).
inline constexpr std::uint32_t kPendingLimit = 1000;
inline constexpr std::uint32_t kHistoryLimit = 100000;

// The computation below `roots` as a graph. Nodes in `arguments` become inputs of kind argument (in that order, all of
// them, used or not), then `states` of kind variable; evaluated leaves become constants.
struct Captured {
  ir::Graph graph;
  std::vector<Tensor> constants;  // the leaves behind the inputs of kind constant, in order
};
Captured capture(std::span<const Tensor> roots, std::span<const Tensor> arguments, std::span<const Tensor> states,
                 std::uint64_t trace);

}  // namespace bp::detail

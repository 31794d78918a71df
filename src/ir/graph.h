// Graph: a captured computation as an arena of nodes with 32-bit ids, in topological order. What passes read and
// rewrite.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ir/op.h"
#include "ir/scope.h"

namespace bp::ir {

using NodeId = std::uint32_t;

struct Value {
  NodeId node = 0;
  std::uint32_t output = 0;
  friend bool operator==(Value, Value) = default;
};

struct Node {
  OpId op;
  Attrs attrs;
  std::vector<Value> inputs;
  std::vector<Type> types;  // of the outputs
  ScopeId scope = 0;
  bool backward = false;  // recorded by the reverse walk
};

// Where the data of an input node comes from at run time.
enum class InputKind : std::uint8_t { argument, variable, constant };

struct Input {
  NodeId node;
  InputKind kind;
  std::string name;
  Buffer constant;  // kind constant only
};

struct Output {
  Value value;
  int updates = -1;  // >= 0: the new value of the state read as inputs[updates]; the executable writes it in place
  std::string name;
};

class Graph {
 public:
  std::vector<Node> nodes;  // every input of a node comes before it
  std::vector<Input> inputs;
  std::vector<Output> outputs;

  NodeId add(Node node) {
    nodes.push_back(std::move(node));
    return static_cast<NodeId>(nodes.size() - 1);
  }
  // Adds a node and infers its types. Throws what the type rule throws.
  Value add_op(OpId op, std::vector<Value> in, Attrs attrs, ScopeId scope = 0, bool backward = false);
  const Type& type(Value v) const { return nodes[v.node].types[v.output]; }
  const OpDef& def(NodeId n) const { return op_def(nodes[n].op); }

  std::size_t hash() const;  // of the structure: ops, attributes, edges, types, outputs
  bool same_structure(const Graph& other) const;
  std::string str() const;  // one line a node
  void verify() const;      // throws std::logic_error naming the broken rule and node
};

// For each node, how many edges and outputs use it.
std::vector<std::uint32_t> use_counts(const Graph& g);

}  // namespace bp::ir

template <> struct std::hash<bp::ir::Value> {
  std::size_t operator()(bp::ir::Value v) const noexcept { return (std::size_t{v.node} << 8) ^ v.output; }
};

// Body: a graph as an attribute of a node: what scan repeats and cond chooses from. Equal when the structure is.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace bp::ir {

// Every input of the graph is of kind argument, or a small constant that it carries along.
struct Body final : Opaque {
  explicit Body(Graph g) : graph(std::move(g)), hash_(graph.hash()) {}
  std::size_t hash() const noexcept override { return hash_; }
  bool equals(const Opaque& other) const noexcept override {
    const auto* b = dynamic_cast<const Body*>(&other);
    return b != nullptr && hash_ == b->hash_ && graph.same_structure(b->graph);
  }
  std::string str() const override { return std::to_string(graph.nodes.size()) + " nodes"; }
  const Graph graph;

 private:
  std::size_t hash_;
};

inline const Graph& body_of(const Attrs& attrs, const char* name = "body") {
  return static_cast<const Body&>(*attrs.opaque(name)).graph;
}
inline std::shared_ptr<const Opaque> make_body(Graph g) { return std::make_shared<const Body>(std::move(g)); }

// [n, ..] to the type of one of its slices along axis 0, and back.
inline Type slice_type(const Type& t) { return {t.dtype, Shape(t.shape.dims().subspan(1))}; }
inline Type stack_type(std::int64_t n, const Type& t) {
  Type out = t;
  out.shape.insert(0, n);
  return out;
}

// How the operands of a scan are laid out: invariants, carries, then what is sliced along axis 0. Attributes: "body",
// "length", "invariants", "carries", "reverse", "checkpoint". Body inputs stand in the same order; body outputs are the
// new carries, then what is stacked.
struct ScanLayout {
  explicit ScanLayout(const Attrs& a)
      : length(a.integer("length")),
        invariants(static_cast<std::size_t>(a.integer("invariants"))),
        carries(static_cast<std::size_t>(a.integer("carries"))),
        reverse(a.flag("reverse")) {}
  std::int64_t length;
  std::size_t invariants, carries;
  bool reverse;
  std::size_t first_slice() const noexcept { return invariants + carries; }
  // The position along axis 0 of iteration i.
  std::int64_t at(std::int64_t i) const noexcept { return reverse ? length - 1 - i : i; }
};

// The operands of a cond: the predicate, what `then` reads from outside, what `otherwise` does, then the operands of
// both. Attributes: "then", "otherwise" (bodies), "then_invariants", "otherwise_invariants".
inline constexpr const char* kBranches[] = {"then", "otherwise"};
inline std::size_t branch_invariants(const Attrs& attrs, int branch) {
  return static_cast<std::size_t>(attrs.integer(branch == 0 ? "then_invariants" : "otherwise_invariants"));
}
// Which of the op's inputs a branch reads, in the order of its body's inputs.
inline std::vector<std::size_t> branch_operands(const Attrs& attrs, std::size_t inputs, int branch) {
  const std::size_t then = branch_invariants(attrs, 0), otherwise = branch_invariants(attrs, 1);
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < branch_invariants(attrs, branch); ++i) out.push_back((branch == 0 ? 1 : 1 + then) + i);
  for (std::size_t i = 1 + then + otherwise; i < inputs; ++i) out.push_back(i);
  return out;
}

}  // namespace bp::ir

// Recording nodes, releasing them without recursion, and the thread's context.
#include "trace/node.h"

#include <algorithm>

#include "base/error.h"
#include "trace/body.h"

namespace bp {
namespace detail {

namespace {
std::uint64_t next_serial() noexcept {
  static std::atomic<std::uint64_t> serial{1};
  return serial.fetch_add(1, std::memory_order_relaxed);
}

// "[conv2d] expected ..." becomes "[conv2d] block1.conv2: expected ...".
std::string with_scope(std::string_view what, const std::string& scope) {
  const auto close = what.find(']');
  if (what.empty() || what[0] != '[' || close == std::string_view::npos || what.size() < close + 2)
    return scope + ": " + std::string(what);
  return std::string(what.substr(0, close + 1)) + " " + scope + ":" + std::string(what.substr(close + 1));
}

std::vector<Type> infer(ir::OpId op, std::span<const Tensor> inputs, const ir::Attrs& attrs) {
  std::vector<Type> types;
  types.reserve(inputs.size());
  for (const Tensor& t : inputs) {
    if (!t.defined()) fail(ErrorKind::value, "[{}] an operand is an undefined Tensor", ir::name_of(op));
    types.push_back(t.type());
  }
  return ir::op_def(op).infer({types, attrs});
}

// Operands from outside the running trace: pending ones are computed once, not again in every step.
void check_trace(ir::OpId op, const Tensor& input, const TraceContext* trace) {
  const std::uint64_t id = input.node()->trace;
  if (input.node()->evaluated() || (id == 0 && trace == nullptr)) return;
  if (id == 0) {
    evaluate(std::span(&input, 1));
    return;
  }
  if (trace == nullptr || id != trace->id)
    fail(ErrorKind::trace,
         "[{}] an operand was recorded inside a compiled function that has ended: return it from the function, or keep "
         "it in a Variable",
         ir::name_of(op));
}

// A value of a body is worth nothing after it: its placeholders stood for no value of their own.
void check_region(ir::OpId op, const Node& input, const Region* open) {
  if (input.region == 0) return;
  for (; open != nullptr; open = open->outer())
    if (open->id() == input.region) return;
  fail(ErrorKind::trace,
       "[{}] an operand belongs to the body of a scan or cond that has ended: return it from the body, as a carry or "
       "an output",
       ir::name_of(op));
}
}  // namespace

// Recursive release overflows the stack on long chains: what only a dying node holds is put on a list, strung through
// the nodes themselves since a release must need no memory, which the outermost destructor empties.
Node::~Node() {
  thread_local std::shared_ptr<Node>* doomed = nullptr;
  if (inputs.empty()) return;
  std::shared_ptr<Node> list;
  const bool outermost = doomed == nullptr;
  if (outermost) doomed = &list;
  while (!inputs.empty()) {  // one by one: an operand that stands there twice is held twice
    const Tensor t = std::move(inputs.back());
    inputs.pop_back();
    if (t.node().use_count() != 1) continue;
    t.node()->next_doomed = std::move(*doomed);
    *doomed = t.node();
  }
  if (!outermost) return;
  while (list != nullptr) {
    const std::shared_ptr<Node> node = std::move(list);
    list = std::move(node->next_doomed);
  }
  doomed = nullptr;
}

ThreadState& thread_state() noexcept {
  thread_local ThreadState state;
  return state;
}

TraceContext::State& TraceContext::state(const std::shared_ptr<Cell>& cell) {
  auto [at, fresh] = index.try_emplace(cell.get(), states.size());
  if (fresh) {
    Tensor first = make_placeholder(cell->type, id);
    first.node()->cell = cell;
    first.node()->tracked = true;
    states.push_back({cell, first, first});
  }
  return states[at->second];
}

std::shared_ptr<Node> record(ir::OpId op, std::vector<Tensor> inputs, ir::Attrs attrs) {
  ThreadState& thread = thread_state();
  auto node = std::make_shared<Node>();
  try {
    node->types = infer(op, inputs, attrs);
    for (const Tensor& t : inputs) {
      check_trace(op, t, thread.trace);
      check_region(op, *t.node(), thread.region);
    }
  } catch (const Error& e) {
    if (thread.scope == 0) throw;
    throw Error(e.kind(), with_scope(e.what(), ir::scope_path(thread.scope)));
  }
  node->op = op;
  node->attrs = std::move(attrs);
  node->scope = thread.scope;
  node->backward = thread.backward;
  node->serial = next_serial();
  node->trace = thread.trace != nullptr ? thread.trace->id : 0;
  for (const Tensor& t : inputs) {
    const Node& in = *t.node();
    node->tracked |= in.tracked;
    node->region = std::max(node->region, in.region);
    if (!in.evaluated()) node->depth = std::max(node->depth, in.depth + 1);
    node->history = std::max(node->history, in.history + 1);
  }
  node->inputs = std::move(inputs);
  if (node->trace == 0 && node->region == 0 && node->depth >= kPendingLimit) {
    const Tensor t(node, 0);
    evaluate(std::span(&t, 1));
  }
  return node;
}

Tensor make_leaf(Buffer buffer, Type type) {
  auto node = std::make_shared<Node>();
  node->types.push_back(std::move(type));
  node->values.push_back(std::move(buffer));
  node->serial = next_serial();
  return Tensor(std::move(node), 0);
}

Tensor make_placeholder(Type type, std::uint64_t trace) {
  auto node = std::make_shared<Node>();
  node->types.push_back(std::move(type));
  node->serial = next_serial();
  node->trace = trace;
  return Tensor(std::move(node), 0);
}

void release_history(Node& node) {
  if (node.inputs.empty()) return;
  if (node.tracked && node.history < kHistoryLimit) return;
  node.released = true;
  node.history = 0;
  // Through the same list as the destructor: the inputs may be the heads of long chains.
  Node shell;
  shell.inputs = std::move(node.inputs);
  node.inputs.clear();
}

}  // namespace detail

Mode current_mode() noexcept { return detail::thread_state().mode; }
ModeScope::ModeScope(Mode mode) noexcept : before_(detail::thread_state().mode) { detail::thread_state().mode = mode; }
ModeScope::~ModeScope() { detail::thread_state().mode = before_; }

Scope::Scope(std::string_view name) : before_(detail::thread_state().scope) {
  detail::thread_state().scope = ir::scope_child(before_, name);
}
Scope::~Scope() { detail::thread_state().scope = before_; }

}  // namespace bp

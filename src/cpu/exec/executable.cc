// Binding a program to memory and running it.
#include "cpu/exec/executable.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "base/error.h"
#include "base/flush_denormals.h"
#include "base/pages.h"
#include "cpu/plan/plan.h"
#include "ir/body.h"

namespace bp::cpu {

namespace {
Program planned(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options) {
  Program program = lower(g, p, options);
  plan_memory(program);
  return program;
}
}  // namespace

std::size_t planned_bytes(const ir::Graph& g, const passes::Partition& p, const LowerOptions& options) {
  const Program program = planned(g, p, options);
  return program.arena_bytes + program.workspace_bytes;
}

Executable::Executable(const ir::Graph& g, const passes::Partition& p, std::vector<IndexCheck> checks,
                       const LowerOptions& options)
    : program_(planned(g, p, options)),
      bound_(program_, options.threads),
      threads_(options.threads),
      arena_(allocate_pages(program_.arena_bytes)),
      workspace_(allocate_pages(program_.workspace_bytes)),
      checks_(std::move(checks)) {
  bound_.place(arena_.mutable_data(), workspace_.mutable_data());
}

namespace {

// Denormals flushed on the caller and, where steps fork, on the workers they will use; all restored after.
class FlushWorkers {
 public:
  explicit FlushWorkers(int threads) : threads_(threads) { set(true); }
  ~FlushWorkers() { set(false); }
  FlushWorkers(const FlushWorkers&) = delete;
  FlushWorkers& operator=(const FlushWorkers&) = delete;

 private:
  void set(bool on) {
    if (threads_ <= 1) return;
#pragma omp parallel num_threads(threads_)
    {
      thread_local unsigned saved = 0;
      if (omp_get_thread_num() != 0) on ? (saved = FlushDenormals::set(), void()) : FlushDenormals::restore(saved);
    }
  }
  int threads_;
  FlushDenormals here_;
};

}  // namespace

template <class Each>
void Executable::run_steps(std::span<const void* const> inputs, std::span<void* const> outputs, Each each) {
  if (busy_.test_and_set(std::memory_order_acquire))
    fail(ErrorKind::state, "[run] this compiled step is already running on another thread: compile one a thread");
  struct Release {
    std::atomic_flag& flag;
    ~Release() { flag.clear(std::memory_order_release); }
  } release{busy_};
  check_indices(inputs);
  for (std::size_t i = 0; i < bound_.inputs(); ++i) bound_.set_input(i, inputs[i]);
  for (std::size_t k = 0; k < bound_.outputs(); ++k) bound_.set_output(k, outputs[k]);
  const FlushWorkers flush(bound_.most_threads() > 1 ? threads_ : 1);
  for (std::size_t i = 0; i < bound_.steps(); ++i) each([&] { bound_.run_step(i); });
}

void Executable::run(std::span<const void* const> inputs, std::span<void* const> outputs) {
  run_steps(inputs, outputs, [](auto&& step) { step(); });
}

void Executable::run_timed(std::span<const void* const> inputs, std::span<void* const> outputs,
                           std::vector<std::vector<double>>& seconds) {
  using Clock = std::chrono::steady_clock;
  seconds.resize(bound_.steps());
  bound_.set_timed(true);  // for the bodies of loops
  std::size_t i = 0;
  run_steps(inputs, outputs, [&](auto&& step) {
    const auto start = Clock::now();
    step();
    seconds[i++].push_back(std::chrono::duration<double>(Clock::now() - start).count());
  });
  bound_.set_timed(false);
}

double Executable::flops() const {
  double sum = 0;
  for (const Step& s : program_.steps) sum += s.info.flops;
  return sum;
}

namespace {
// The steps of a program; below a loop or branch, those of its bodies. copies: how many of it share the threads.
void print_steps(std::string& out, const Program& program, int all_threads, int copies, int indent) {
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    const Kernel& kernel = *program.steps[i].kernel;
    const StepInfo& info = program.steps[i].info;
    const int most_threads = i < program.shared ? all_threads : all_threads / copies;
    const int threads = std::clamp(kernel.preferred_threads(), 1, most_threads);
    out += fmt::format("{:{}}{:4}  {:<48} {} thread{}  {:>12.0f} flops {:>12.0f} bytes  {}{}\n", "", indent, i,
                       info.name, threads, threads == 1 ? " " : "s", info.flops, info.bytes, ir::scope_path(info.scope),
                       info.backward ? " (backward)" : "");
    for (const KernelBody& body : kernel.bodies()) {
      if (body.copies > 1)
        out += fmt::format("{:{}}{} side by side, each for rows of the batch:\n", "", indent + 6, body.copies);
      print_steps(out, body.program->program(), most_threads, body.copies, indent + 6);
    }
  }
}
}  // namespace

std::string Executable::str() const {
  std::string out;
  print_steps(out, program_, threads_, 1, 0);
  out += fmt::format("arena {} bytes, workspace {} bytes\n", program_.arena_bytes, program_.workspace_bytes);
  return out;
}

namespace {

// Follows an index operand back to an input through ops that keep its elements.
std::uint32_t source_of(const ir::Graph& g, ir::Value v, const std::vector<std::uint32_t>& input_index) {
  for (;;) {
    if (input_index[v.node] != ~0u) return input_index[v.node];
    const ir::Node& n = g.nodes[v.node];
    const ir::OpId op = n.op;
    const bool keeps = op == ir::OpId::reshape || op == ir::OpId::broadcast || op == ir::OpId::transpose ||
                       (op == ir::OpId::cast && is_integer(g.type(n.inputs[0]).dtype));
    if (!keeps) return ~0u;
    v = n.inputs[0];
  }
}

template <class T> std::int64_t first_outside(const void* data, std::int64_t count, std::int64_t limit) {
  const T* p = static_cast<const T*>(data);
  bool bad = false;  // branch-free: vectorised
  for (std::int64_t i = 0; i < count; ++i) bad |= static_cast<std::uint64_t>(p[i]) >= static_cast<std::uint64_t>(limit);
  if (!bad) return -1;
  return std::find_if(p, p + count,
                      [&](T x) { return static_cast<std::uint64_t>(x) >= static_cast<std::uint64_t>(limit); }) -
         p;
}

}  // namespace

namespace {
// The bodies of a node, and for each the operands that its inputs stand for.
struct InnerBody {
  const ir::Graph& graph;
  std::vector<ir::Value> operands;
};
std::vector<InnerBody> inner_bodies(const ir::Node& n) {
  if (n.op == ir::OpId::scan) return {{ir::body_of(n.attrs), n.inputs}};
  std::vector<InnerBody> out;
  if (n.op == ir::OpId::cond)
    for (int branch : {0, 1}) {
      InnerBody body{ir::body_of(n.attrs, ir::kBranches[branch]), {}};
      for (std::size_t i : ir::branch_operands(n.attrs, n.inputs.size(), branch)) body.operands.push_back(n.inputs[i]);
      out.push_back(std::move(body));
    }
  return out;
}

// The check of one value as an index, if it comes straight from an input. Marked indices (class ids) of states are the
// program's own business.
void add_check(std::vector<IndexCheck>& checks, const ir::Graph& g, const std::vector<std::uint32_t>& input_index,
               ir::Value index, std::int64_t limit, bool marked, const std::string& where) {
  const std::uint32_t input = source_of(g, index, input_index);
  if (input == ~0u || (marked && g.inputs[input].kind != ir::InputKind::argument)) return;
  const Type& t = g.nodes[g.inputs[input].node].types[0];
  if (is_integer(t.dtype)) checks.push_back({input, t.dtype, t.shape.numel(), limit, where, marked});
}
}  // namespace

std::vector<IndexCheck> find_index_checks(const ir::Graph& g) {
  std::vector<IndexCheck> checks;
  std::vector<std::uint32_t> input_index(g.nodes.size(), ~0u);
  for (std::uint32_t i = 0; i < g.inputs.size(); ++i) input_index[g.inputs[i].node] = i;
  for (const ir::Node& n : g.nodes) {
    const std::string& scope = ir::scope_path(n.scope);
    const std::string where = scope.empty() ? ir::name_of(n.op) : scope;
    if (n.op == ir::OpId::gather || n.op == ir::OpId::take_along)
      add_check(checks, g, input_index, n.inputs[1],
                g.type(n.inputs[0]).shape[static_cast<int>(n.attrs.integer("axis"))], false, where);
    else if (n.attrs.has("index_limit"))
      add_check(checks, g, input_index, n.inputs[0], n.attrs.integer("index_limit"), true, where);
    for (const InnerBody& body : inner_bodies(n))
      for (const IndexCheck& c : find_index_checks(body.graph))
        add_check(checks, g, input_index, body.operands[c.input], c.limit, c.marked, c.where);
  }
  return checks;
}

void Executable::check_indices(std::span<const void* const> inputs) const {
  for (const IndexCheck& c : checks_) {
    const void* data = inputs[c.input];
    const auto value = [&](std::int64_t i) {
      return dispatch(
          c.dtype, [&](auto zero) { return static_cast<std::int64_t>(static_cast<const decltype(zero)*>(data)[i]); });
    };
    std::int64_t at = -1;
    if (c.dtype == DType::i64) at = first_outside<std::int64_t>(data, c.count, c.limit);
    if (c.dtype == DType::i32) at = first_outside<std::int32_t>(data, c.count, c.limit);
    if (c.dtype == DType::u8) at = first_outside<std::uint8_t>(data, c.count, c.limit);
    if (at >= 0)
      fail(ErrorKind::value, "[{}] index {} at position {} is outside [0, {})", c.where, value(at), at, c.limit);
  }
}

}  // namespace bp::cpu

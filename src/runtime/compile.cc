// compile: tracing, the cache of executables, and the replay.
#include "bp/compile.h"

#include <algorithm>
#include <list>

#include "base/error.h"
#include "runtime/backend.h"
#include "runtime/diagnose.h"
#include "runtime/profile.h"
#include "runtime/trace_function.h"
#include "trace/node.h"

namespace bp::detail {

// Returned tensors are recycled: a result that nobody holds any more gives its node and memory to the next run.
class ResultPool {
 public:
  void* prepare(const Type& type) {
    for (Tensor& t : pool_)
      if (t.node().use_count() == 1 && t.node()->values[0].unique()) {
        std::swap(t, pool_.front());
        return pool_.front().node()->values[0].mutable_data();
      }
    pool_.push_back(make_leaf(Buffer::allocate(type.bytes()), type));
    std::swap(pool_.back(), pool_.front());
    return pool_.front().node()->values[0].mutable_data();
  }
  const Tensor& latest() const { return pool_.front(); }

 private:
  std::vector<Tensor> pool_;
};

// One traced and compiled combination of argument types.
struct CompiledEntry {
  std::vector<Type> arguments;
  std::vector<std::shared_ptr<Cell>> states;                 // in the order of the graph's inputs of kind variable
  std::vector<std::pair<std::size_t, std::size_t>> updates;  // (output, state)
  std::vector<Tensor> constants;
  std::vector<Type> result_types;
  std::vector<ResultPool> results;  // one a result
  runtime::Built built;
  std::vector<const void*> inputs;  // filled at each run
  std::vector<void*> outputs;

  bool fits(std::span<const Tensor> args) const {
    if (args.size() != arguments.size()) return false;
    for (std::size_t i = 0; i < args.size(); ++i)
      if (!(args[i].type() == arguments[i])) return false;
    return true;
  }
  // Runs; with `seconds`, times each step.
  void run(std::span<const Tensor> args, std::vector<std::vector<double>>* seconds = nullptr);
};

void CompiledEntry::run(std::span<const Tensor> args, std::vector<std::vector<double>>* seconds) {
  std::size_t at = 0;
  for (const Tensor& t : args) {
    if (!t.node()->evaluated()) evaluate(std::span(&t, 1));
    inputs[at++] = t.node()->values[t.output()].data();
  }
  for (const auto& cell : states) inputs[at++] = cell->value.node()->values[0].data();
  for (auto [output, state] : updates) {
    Cell& cell = *states[state];
    if (cell.value.node().use_count() != 1 || !cell.value.node()->values[0].unique()) {
      // Somebody holds the old value (a snapshot, an argument of this very call): it stays as it is.
      Tensor copy = make_leaf(cell.value.node()->values[0].clone(), cell.type);
      copy.node()->tracked = true;
      copy.node()->cell = states[state];
      cell.value = std::move(copy);
      inputs[args.size() + state] = cell.value.node()->values[0].data();
    }
    outputs[output] = cell.value.node()->values[0].mutable_data();
  }
  for (std::size_t i = 0; i < results.size(); ++i) outputs[i] = results[i].prepare(result_types[i]);
  if (seconds == nullptr)
    built.executable->run(inputs, outputs);
  else
    built.executable->run_timed(inputs, outputs, *seconds);
  for (auto [output, state] : updates) ++states[state]->version;
}

struct CompiledStep::Impl {
  Body body;
  CompileOptions options;
  std::list<CompiledEntry> entries;  // most recent first
  int traces = 0;

  CompiledEntry& entry(std::span<const Tensor> args) {
    for (auto it = entries.begin(); it != entries.end(); ++it)
      if (it->fits(args)) {
        if (it != entries.begin()) entries.splice(entries.begin(), entries, it);
        return entries.front();
      }
    std::vector<Type> types;
    for (const Tensor& t : args) types.push_back(t.type());
    return add(types);
  }

  CompiledEntry& add(std::span<const Type> types) {
    ++traces;
    runtime::Traced traced = runtime::trace_function(body, types, options.mode, options.name, options.guard);
    CompiledEntry e;
    e.arguments.assign(types.begin(), types.end());
    e.states = std::move(traced.states);
    e.constants = std::move(traced.constants);
    e.result_types = std::move(traced.result_types);
    e.updates = std::move(traced.updates);
    e.results.resize(e.result_types.size());
    const std::size_t inputs = traced.graph.inputs.size(), outputs = traced.graph.outputs.size();
    e.built = runtime::build(std::move(traced.graph),
                             {.threads = options.threads > 0 ? options.threads : runtime::default_threads(),
                              .keep_text = true,
                              .precision = options.precision,
                              .disable_passes = options.disable_passes,
                              .memory_budget = options.memory_budget});
    e.inputs.resize(inputs);
    e.outputs.resize(outputs);
    for (std::size_t i = 0; i < e.constants.size(); ++i)
      e.inputs[types.size() + e.states.size() + i] = e.constants[i].node()->values[e.constants[i].output()].data();
    entries.push_front(std::move(e));
    if (entries.size() > static_cast<std::size_t>(std::max(1, options.cache_size))) entries.pop_back();
    return entries.front();
  }
};

CompiledStep::CompiledStep(Body body, CompileOptions options) : impl_(std::make_unique<Impl>()) {
  if (options.threads < 0) fail(ErrorKind::value, "[compile] threads cannot be negative: got {}", options.threads);
  if (options.precision != f32 && options.precision != bf16)
    fail(ErrorKind::config, "[compile] precision: expected f32 or bf16, got {}", name_of(options.precision));
  impl_->body = std::move(body);
  impl_->options = std::move(options);
}
CompiledStep::CompiledStep(CompiledStep&&) noexcept = default;
CompiledStep& CompiledStep::operator=(CompiledStep&&) noexcept = default;
CompiledStep::~CompiledStep() = default;

void CompiledStep::call(std::span<const Tensor> args, std::span<Tensor> outs) {
  if (thread_state().trace != nullptr) {  // inside another compiled function: part of its graph
    std::vector<Tensor> results = impl_->body(args);
    std::move(results.begin(), results.end(), outs.begin());
    return;
  }
  CompiledEntry& e = impl_->entry(args);
  if (outs.size() != e.results.size())
    fail(ErrorKind::trace, "[compile] {} returned {} tensors where {} are expected", impl_->options.name,
         e.results.size(), outs.size());
  e.run(args);
  for (std::size_t i = 0; i < outs.size(); ++i) outs[i] = e.results[i].latest();
}

std::vector<Tensor> CompiledStep::call(std::span<const Tensor> args) {
  if (thread_state().trace != nullptr) return impl_->body(args);
  CompiledEntry& e = impl_->entry(args);
  e.run(args);
  std::vector<Tensor> outs;
  for (const ResultPool& pool : e.results) outs.push_back(pool.latest());
  return outs;
}

ExecutableInfo CompiledStep::prepare(std::span<const Type> args) { return impl_->add(args).built.info; }

namespace {
const CompiledEntry& latest(const std::list<CompiledEntry>& entries, const std::string& name) {
  if (entries.empty())
    fail(ErrorKind::state, "[compile] {} has not been compiled yet: call it or prepare() first", name);
  return entries.front();
}
}  // namespace

ExecutableInfo CompiledStep::info() const { return latest(impl_->entries, impl_->options.name).built.info; }

std::string CompiledStep::explain() const {
  const runtime::Built& b = latest(impl_->entries, impl_->options.name).built;
  std::string out;
  for (const passes::PassRecord& p : b.passes)
    out += fmt::format("== after {} ({:.2f} ms)\n{}", p.name, p.seconds * 1e3, p.text);
  out += fmt::format("== steps\n{}planned peak {} bytes, {:.0f} flops a run\n", b.executable->str(),
                     b.info.planned_peak_bytes, b.info.flops);
  return out;
}

int CompiledStep::traces() const { return impl_->traces; }

std::string CompiledStep::diagnose(std::span<const Tensor> args) {
  std::vector<Type> types;
  for (const Tensor& t : args) types.push_back(t.type());
  const runtime::Traced traced = runtime::trace_function(impl_->body, types, impl_->options.mode, impl_->options.name);
  std::vector<const void*> inputs;
  std::vector<Buffer> hold;  // the memory the pointers lead to
  for (const Tensor& t : args) hold.push_back(t.buffer());
  for (const auto& cell : traced.states) hold.push_back(cell->value.buffer());
  for (const Tensor& t : traced.constants) hold.push_back(t.buffer());
  for (const Buffer& b : hold) inputs.push_back(b.data());
  return runtime::first_nonfinite(traced.graph, inputs);
}

Profile CompiledStep::profile(std::span<const Tensor> args, int runs) {
  if (runs < 1) fail(ErrorKind::value, "[profile] runs must be at least 1, got {}", runs);
  CompiledEntry& e = impl_->entry(args);
  runtime::StepTimes times;
  for (int i = 0; i < runs; ++i) {
    std::vector<std::vector<double>> seconds;
    e.run(args, &seconds);
    times.add(*e.built.executable, seconds);
  }
  return times.profile(*e.built.executable, runtime::machine_limits(e.built.executable->threads()));
}

}  // namespace bp::detail

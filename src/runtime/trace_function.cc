// Tracing.
#include "runtime/trace_function.h"

#include <algorithm>

#include "base/error.h"
#include "bp/ops.h"

namespace bp::runtime {

namespace {

// The thread records into `context` while this lives; nested state is put back even when the function throws.
class Tracing {
 public:
  Tracing(detail::TraceContext& context, Mode mode) : before_(detail::thread_state()) {
    static std::atomic<std::uint64_t> next{1};
    context.id = next.fetch_add(1);
    detail::thread_state() = {&context, mode, 0, false};
  }
  ~Tracing() { detail::thread_state() = before_; }
  Tracing(const Tracing&) = delete;
  Tracing& operator=(const Tracing&) = delete;

 private:
  detail::ThreadState before_;
};

void guard_states(std::span<const Tensor> results, const std::string& name) {
  if (results.empty() || !results[0].defined() || results[0].numel() != 1 || !is_float(results[0].dtype()))
    fail(ErrorKind::trace, "[compile] {}: guard needs a first result that is one floating number", name);
  commit_if(isfinite(results[0]));
}

// Every new state becomes: condition ? new : old.
void apply_commits(detail::TraceContext& context) {
  for (const auto& commit : context.commits) {
    const Tensor condition = reshape(commit.condition, Shape{});
    for (auto& s : context.states) {
      const bool always = std::find(commit.always.begin(), commit.always.end(), s.cell) != commit.always.end();
      if (!always && s.current.node() != s.first.node()) s.current = select(condition, s.current, s.first);
    }
  }
}

}  // namespace

Traced trace_function(const Body& body, std::span<const Type> arguments, Mode mode, const std::string& name,
                      bool guard) {
  detail::TraceContext context;
  context.name = name;
  std::vector<Tensor> args, results;
  {
    const Tracing tracing(context, mode);
    for (const Type& t : arguments) args.push_back(detail::make_placeholder(t, context.id));
    results = body(args);
    if (guard) guard_states(results, name);
    apply_commits(context);
  }
  Traced out;
  std::vector<Tensor> roots = results, first;
  for (const Tensor& t : results) {
    if (!t.defined()) fail(ErrorKind::trace, "[compile] {} returned an undefined Tensor", name);
    out.result_types.push_back(t.type());
  }
  for (std::size_t i = 0; i < context.states.size(); ++i) {
    const auto& s = context.states[i];
    out.states.push_back(s.cell);
    first.push_back(s.first);
    if (s.current.node() == s.first.node()) continue;
    out.updates.emplace_back(roots.size(), i);
    roots.push_back(s.current);
  }
  detail::Captured captured = detail::capture(roots, args, first, context.id);
  out.graph = std::move(captured.graph);
  out.constants = std::move(captured.constants);
  for (std::size_t i = 0; i < arguments.size(); ++i) out.graph.inputs[i].name = "argument " + std::to_string(i);
  for (auto [output, state] : out.updates)
    out.graph.outputs[output].updates = static_cast<int>(arguments.size() + state);
  return out;
}

}  // namespace bp::runtime

// compile: a C++ function of Tensors becomes one executable: traced once, optimised once, laid out in memory once,
// replayed.
//
//   auto step = compile([](Tensor x, Tensor y) { return mean(square(x - y)); });
//   assert(step(ones({4}), zeros({4})).item() == 1);
//   assert(step(ones({8}), zeros({8})).item() == 1 && step.traces() == 2);  // another shape
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bp/profile.h"
#include "bp/tensor.h"
#include "bp/variable.h"

namespace bp {

// How a function is compiled.
struct CompileOptions {
  Mode mode = Mode::eval;     // in which layers such as Dropout and BatchNorm run
  int threads = 0;            // 0: OMP_NUM_THREADS or the number of cores; fewer are used where the work is small
  std::string name = "step";  // for messages and profiles
  bool guard = false;         // when the first result (the loss) is NaN or infinite, no Variable changes
  // bf16: mixed precision. Products of f32 values (matmul, convolutions, their gradients) read bf16 and add up in f32;
  // what they read is kept as bf16, activations saved for the backward pass among it. Weights, moments, statistics and
  // losses stay f32, so no loss scaling is needed. f32: everything in the dtype it was written in.
  DType precision = f32;
  int cache_size = 16;                           // executables kept, one a combination of argument shapes and dtypes
  std::vector<std::string> disable_passes = {};  // by name: see explain()
  // Bytes that ExecutableInfo::planned_peak_bytes may reach; 0: no limit. A step that would take more computes values
  // of its forward pass again where the backward pass reads them, instead of keeping them: it takes longer, and its
  // results are the same bit for bit. Error(config) names the least possible when that is not enough.
  std::size_t memory_budget = 0;
};

// What is known of one executable.
struct ExecutableInfo {
  std::size_t planned_peak_bytes = 0;  // arena + constants + outputs + state: known before the first run
  std::size_t arena_bytes = 0;         // what one run writes besides its outputs and state
  std::size_t steps = 0;               // that the executable takes one after another
  std::size_t nodes = 0;               // of the optimised graph
  double flops = 0;                    // of one run
  double compile_seconds = 0;          // tracing, passes, planning and code
};

namespace detail {

class CompiledStep {
 public:
  using Body = std::function<std::vector<Tensor>(std::span<const Tensor>)>;
  CompiledStep(Body body, CompileOptions options);
  CompiledStep(CompiledStep&&) noexcept;
  CompiledStep& operator=(CompiledStep&&) noexcept;
  ~CompiledStep();

  // Runs (tracing first where needed); writes `outs.size()` results. Throws Error(state) on a concurrent call.
  void call(std::span<const Tensor> args, std::span<Tensor> outs);
  std::vector<Tensor> call(std::span<const Tensor> args);
  // Compiles for these argument types without running; -1 traces so far.
  ExecutableInfo prepare(std::span<const Type> args);
  ExecutableInfo info() const;  // of the executable used last
  std::string explain() const;  // the graph after each pass and the steps, of the executable used last
  int traces() const;           // how often the function has been traced
  std::string diagnose(std::span<const Tensor> args);
  Profile profile(std::span<const Tensor> args, int runs);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

template <class R> struct Pack;
template <> struct Pack<Tensor> {
  static constexpr std::size_t size = 1;
  static std::vector<Tensor> to_vector(Tensor t) { return {std::move(t)}; }
  static Tensor from(std::array<Tensor, 1>& a) { return std::move(a[0]); }
};
template <std::size_t N> struct Pack<std::array<Tensor, N>> {
  static constexpr std::size_t size = N;
  static std::vector<Tensor> to_vector(std::array<Tensor, N> t) { return {t.begin(), t.end()}; }
  static std::array<Tensor, N> from(std::array<Tensor, N>& a) { return std::move(a); }
};
template <class... Ts> struct Pack<std::tuple<Ts...>> {
  static_assert((std::is_same_v<Ts, Tensor> && ...), "a compiled function returns Tensors");
  static constexpr std::size_t size = sizeof...(Ts);
  static std::vector<Tensor> to_vector(std::tuple<Ts...> t) {
    return std::apply([](auto&... x) { return std::vector<Tensor>{x...}; }, t);
  }
  static std::tuple<Ts...> from(std::array<Tensor, size>& a) { return std::tuple_cat(std::move(a)); }
};
template <> struct Pack<std::pair<Tensor, Tensor>> {
  static constexpr std::size_t size = 2;
  static std::vector<Tensor> to_vector(std::pair<Tensor, Tensor> t) { return {t.first, t.second}; }
  static std::pair<Tensor, Tensor> from(std::array<Tensor, 2>& a) { return {std::move(a[0]), std::move(a[1])}; }
};

}  // namespace detail

// The callable that compile returns. Move-only; keep the model and optimizers it captured alive and in place.
template <class F, std::size_t Arity, class R> class Compiled {
 public:
  Compiled(F f, CompileOptions options) : step_(wrap(std::move(f)), std::move(options)) {}  // what compile() calls

  // Runs one step on Tensors of any shapes and dtypes; new ones are traced and compiled first. Throws Error(state) on a
  // concurrent call, Error(trace) when the function reads a traced value, and whatever the function throws; then no
  // Variable has changed.
  template <class... Args> R operator()(const Args&... args) {
    static_assert(sizeof...(Args) == Arity, "a compiled step takes as many Tensors as the function it was made from");
    const std::array<Tensor, Arity> in{static_cast<Tensor>(args)...};
    if constexpr (std::is_void_v<R>) {
      step_.call(in, std::span<Tensor>());
    } else if constexpr (std::is_same_v<R, std::vector<Tensor>>) {
      return step_.call(in);
    } else {
      std::array<Tensor, detail::Pack<R>::size> out;
      step_.call(in, out);
      return detail::Pack<R>::from(out);
    }
  }
  // Where a NaN or an infinity begins: the first operation that makes one out of finite operands, its layer and
  // operands, found by running the reference interpreter on these arguments and the Variables as they are. Empty when
  // all values are finite. Changes nothing.
  template <class... Args> std::string diagnose(const Args&... args) {
    const std::array<Tensor, Arity> in{static_cast<Tensor>(args)...};
    return step_.diagnose(in);
  }
  // Runs `runs` times for real (states change as in any run) and tells, step by step, the median time, its share, and
  // the rates of flops and bytes, how near they come to the machine's limits, and sums: Profile::text().
  template <class... Args> std::string profile(int runs, const Args&... args) {
    return profile_steps(runs, args...).text();
  }
  // The same as data (bp/profile.h); bp::profile(step, runs, args...) calls it.
  template <class... Args> Profile profile_steps(int runs, const Args&... args) {
    const std::array<Tensor, Arity> in{static_cast<Tensor>(args)...};
    return step_.profile(in, runs);
  }
  // Compiles for these argument types without running.
  ExecutableInfo prepare(const std::array<Type, Arity>& types) { return step_.prepare(types); }
  ExecutableInfo info() const { return step_.info(); }  // of the executable used last
  // The graph after each pass and the steps, of the executable used last.
  std::string explain() const { return step_.explain(); }
  int traces() const { return step_.traces(); }  // how often the function has been traced

 private:
  static detail::CompiledStep::Body wrap(F f) {
    return [f = std::move(f)](std::span<const Tensor> in) mutable -> std::vector<Tensor> {
      return [&]<std::size_t... I>(std::index_sequence<I...>)->std::vector<Tensor> {
        if constexpr (std::is_void_v<R>) {
          f(in[I]...);
          return {};
        } else if constexpr (std::is_same_v<R, std::vector<Tensor>>) {
          return f(in[I]...);
        } else {
          return detail::Pack<R>::to_vector(f(in[I]...));
        }
      }
      (std::make_index_sequence<Arity>{});
    };
  }
  detail::CompiledStep step_;
};

namespace detail {
template <std::size_t> using AsTensor = const Tensor&;
template <class F, class Seq> struct Invocable;
template <class F, std::size_t... I> struct Invocable<F, std::index_sequence<I...>> {
  static constexpr bool value = std::is_invocable_v<F&, AsTensor<I>...>;
};
template <class F, std::size_t N = 0> constexpr std::size_t arity() {
  static_assert(N <= 16, "compile takes a function of at most 16 Tensors (or one of std::span<const Tensor>)");
  if constexpr (Invocable<F, std::make_index_sequence<N>>::value)
    return N;
  else
    return arity<F, N + 1>();
}
template <class F, class Seq> struct Result;
template <class F, std::size_t... I> struct Result<F, std::index_sequence<I...>> {
  using type = std::invoke_result_t<F&, AsTensor<I>...>;
};
}  // namespace detail

// auto step = bp::compile([&](Tensor x, Tensor y) { ...; return loss; }, {.mode = Mode::train});
// The function may read and assign Variables and call grad; it returns void, a Tensor, a tuple, pair or array of
// Tensors, or a vector.
template <class F> auto compile(F f, CompileOptions options = {}) {
  constexpr std::size_t arity = detail::arity<F>();
  using R = typename detail::Result<F, std::make_index_sequence<arity>>::type;
  return Compiled<F, arity, R>(std::move(f), std::move(options));
}

template <class Step> std::string explain(const Step& step) { return step.explain(); }  // the step's explain()

}  // namespace bp

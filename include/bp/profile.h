// Profiles: where a compiled step spends its time, beside what the machine could do at best. Returned by
// bp::profile(step, runs, arguments...); printed by the program bp and by bench/train_step.
//
//   auto step = compile([](Tensor a, Tensor b) { return relu(matmul(a, b)); });
//   const Profile p = profile(step, 5, ones({64, 64}), ones({64, 64}));
//   assert(p.seconds() > 0 && !p.text().empty());
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bp/dtype.h"

namespace bp {

// What a machine does at best, measured: the rates that a step is held against.
struct MachineLimits {
  // Of as many bytes, read and written together: bytes a second when all are read, and when half of them is copied onto
  // the other half. Small amounts stay in a cache, large ones come from memory.
  struct Bandwidth {
    double bytes = 0, read = 0, copy = 0;  // how many; bytes a second
  };
  // What so many threads reach together.
  struct Rates {
    int threads = 1;                    // how many
    double f32 = 0, bf16 = 0, f64 = 0;  // flops a second in large products; bf16 as f32 where it has no instructions
    double launch = 0;                  // seconds of a step that does nothing, with so many threads
    std::vector<Bandwidth> bandwidth = {};  // by growing bytes
  };
  std::vector<Rates> rates;  // of one thread and of all; between them rates are interpolated

  double flops(DType dtype, int threads) const;                    // a second; integers as f32
  double seconds(double read, double written, int threads) const;  // to move so many bytes at best
  double launch(int threads) const;                                // seconds
  std::string text() const;                                        // a table
};

// Measures for about `seconds`, with one thread and with `threads` (0: OMP_NUM_THREADS or the number of cores). The
// machine should be idle. Rates of products are the best of several sizes, by oneDNN and by our own kernels; copies are
// memcpy's, reads memchr's.
MachineLimits measure_limits(int threads = 0, double seconds = 0.5);

// What holds a step back: arithmetic, moving bytes, or the cost of beginning at all.
enum class Bound : std::uint8_t { flops, bandwidth, launch };
const char* name_of(Bound bound) noexcept;  // "flops", "bandwidth", "launch"

// One step of a compiled function, or of the body of a loop or branch in it; figures are of one run of the function.
struct ProfileStep {
  std::string name;   // "matmul 64x512x784 + bias + relu"
  std::string layer;  // "blocks.0.norm1/layer_norm", "" outside of layers
  std::string pass;   // "forward", "backward" or "update" (what is computed from gradients and needed by none)
  int depth = 0;      // 1 and more: inside the loop or branch that is the last step above with a smaller depth
  int threads = 1;    // that worked on it
  double runs = 1;    // in a loop: its iterations
  double start = 0, seconds = 0, own_seconds = 0;  // own: without the steps inside
  double flops = 0, bytes = 0;                     // bytes of operands and results
  // The least time that the machine's limits allow, the operands in the cache that they fit in; for a loop the sum of
  // what is inside. `bound` names the limit that decides.
  double limit_seconds = 0;
  Bound bound = Bound::launch;  // which limit decides
};

// Steps added up; loops count by what is inside of them.
struct ProfileSum {
  std::string name;                                             // the layer, pass or bound
  std::size_t steps = 0;                                        // how many
  double seconds = 0, flops = 0, bytes = 0, limit_seconds = 0;  // sums over them
};

// The steps of a compiled function, timed.
struct Profile {
  int runs = 0;                    // of the function
  std::vector<ProfileStep> steps;  // in the order in which they run, a loop before what is inside
  double seconds() const;          // of one run: the medians of the steps added up
  double limit_seconds() const;    // of one run, if every step reached its limit

  // By the longest time first. Each adds up to seconds().
  std::vector<ProfileSum> by_layer() const;
  std::vector<ProfileSum> by_pass() const;   // forward, backward, update
  std::vector<ProfileSum> by_bound() const;  // flops, bandwidth, launch

  // A line a step: time, its share of the whole, rates, the share of the limit that is reached and what bounds it; then
  // the sums.
  std::string text() const;
  // The sums alone.
  std::string summary() const;
  // JSON for chrome://tracing and Perfetto: a complete event ("ph": "X") a step, in microseconds; the steps of bodies
  // lie within their loop's.
  std::string chrome_trace() const;
};

// Runs `runs` times for real (states change as in any run). The machine's limits are measured once a process, for half
// a second, at the first profile. Throws Error(value) for fewer than one run.
template <class Step, class... Args> Profile profile(Step& step, int runs, const Args&... args) {
  return step.profile_steps(runs, args...);
}

}  // namespace bp

// BoundProgram: a planned program tied to memory: what runs its steps. Used by Executable, and by the kernels of loops
// and branches, whose bodies are programs themselves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/exec/program.h"

namespace bp::cpu {

class BoundProgram {
 public:
  // The program must outlive it. No step gets more than `threads` threads, none of the shared ones more than
  // `shared_threads`.
  BoundProgram(const Program& program, int threads, int shared_threads = 1);

  // The memory of arena buffers, the scratch of steps, the memory of shared buffers: program.arena_bytes,
  // program.workspace_bytes, program.shared_bytes.
  void place(void* arena, void* workspace, void* shared = nullptr);
  void set_input(std::size_t i, const void* data) noexcept { set(inputs_, i, const_cast<void*>(data)); }
  void set_output(std::size_t k, void* data) noexcept { set(outputs_, k, data); }
  std::size_t inputs() const noexcept { return inputs_.first.size() - 1; }
  std::size_t outputs() const noexcept { return outputs_.first.size() - 1; }

  std::size_t steps() const noexcept { return bound_.size(); }
  void run_step(std::size_t i) const {
    bound_[i].kernel->run(args_.data() + bound_[i].first, workspace_, bound_[i].threads);
  }
  void run(std::size_t first, std::size_t last) {
    if (timed_) return run_timed(first, last);
    for (std::size_t i = first; i < last; ++i) run_step(i);
  }
  // While timed, the seconds of each step are added up, also inside the bodies of its kernels; switching on clears
  // them.
  void set_timed(bool timed);
  std::span<const double> seconds() const noexcept { return seconds_; }
  double runs_of(std::size_t step) const noexcept { return runs_[step]; }
  const Program& program() const noexcept { return program_; }

  int threads_of(std::size_t i) const noexcept { return bound_[i].threads; }
  int most_threads() const noexcept { return most_threads_; }

 private:
  struct Bound {
    const Kernel* kernel;
    std::uint32_t first;  // position of its arguments in args_
    int threads;
  };
  // Positions in args_ of each of the caller's pointers: those of number i from first[i] to first[i + 1].
  struct Places {
    std::vector<std::uint32_t> first, at;
  };
  Places places_of(MemoryRef::Kind kind) const;
  void set(const Places& p, std::size_t i, void* data) noexcept {
    for (std::uint32_t k = p.first[i]; k < p.first[i + 1]; ++k) args_[p.at[k]] = data;
  }

  void run_timed(std::size_t first, std::size_t last);

  const Program& program_;
  bool timed_ = false;
  std::vector<double> seconds_, runs_;
  void* arena_ = nullptr;
  void* workspace_ = nullptr;
  void* shared_ = nullptr;
  int most_threads_ = 1;
  std::vector<BufferId> buffer_of_;  // by position in args_
  std::vector<void*> args_;
  std::vector<Bound> bound_;
  Places inputs_, outputs_;
};

}  // namespace bp::cpu

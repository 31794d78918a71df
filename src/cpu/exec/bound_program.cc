// Binding a program's steps to memory.
#include "cpu/exec/bound_program.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace bp::cpu {

BoundProgram::BoundProgram(const Program& program, int threads, int shared_threads) : program_(program) {
  for (const Step& step : program.steps) {
    const int most = bound_.size() < program.shared ? shared_threads : threads;
    const int n = std::clamp(step.kernel->preferred_threads(), 1, most);
    most_threads_ = std::max(most_threads_, n);
    bound_.push_back({step.kernel.get(), static_cast<std::uint32_t>(buffer_of_.size()), n});
    for (const auto* list : {&step.reads, &step.writes})
      buffer_of_.insert(buffer_of_.end(), list->begin(), list->end());
  }
  args_.resize(buffer_of_.size(), nullptr);
  for (std::size_t i = 0; i < args_.size(); ++i)
    if (const MemoryRef& m = program.buffers[buffer_of_[i]]; m.kind == MemoryRef::Kind::constant)
      args_[i] = m.constant.mutable_data();
  inputs_ = places_of(MemoryRef::Kind::input);
  outputs_ = places_of(MemoryRef::Kind::output);
}

BoundProgram::Places BoundProgram::places_of(MemoryRef::Kind kind) const {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> found;  // number of the pointer, position
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < buffer_of_.size(); ++i)
    if (const MemoryRef& m = program_.buffers[buffer_of_[i]]; m.kind == kind) {
      found.emplace_back(m.index, i);
      count = std::max(count, m.index + 1);
    }
  std::sort(found.begin(), found.end());
  Places p;
  p.first.assign(count + 1, 0);
  for (const auto& [index, at] : found) {
    ++p.first[index + 1];
    p.at.push_back(at);
  }
  for (std::uint32_t i = 0; i < count; ++i) p.first[i + 1] += p.first[i];
  return p;
}

void BoundProgram::place(void* arena, void* workspace, void* shared) {
  workspace_ = workspace;
  if (arena == arena_ && shared == shared_) return;
  arena_ = arena, shared_ = shared;
  for (std::size_t i = 0; i < args_.size(); ++i) {
    const MemoryRef& m = program_.buffers[buffer_of_[i]];
    if (m.kind == MemoryRef::Kind::arena) args_[i] = static_cast<std::byte*>(arena) + m.offset;
    if (m.kind == MemoryRef::Kind::shared) args_[i] = static_cast<std::byte*>(shared) + m.offset;
  }
}

void BoundProgram::set_timed(bool timed) {
  timed_ = timed;
  if (timed) {
    seconds_.assign(bound_.size(), 0);
    runs_.assign(bound_.size(), 0);
  }
  for (const Bound& b : bound_)
    for (const KernelBody& body : b.kernel->bodies()) body.program->set_timed(timed);
}

void BoundProgram::run_timed(std::size_t first, std::size_t last) {
  using Clock = std::chrono::steady_clock;
  for (std::size_t i = first; i < last; ++i) {
    const auto start = Clock::now();
    run_step(i);
    ++runs_[i];
    seconds_[i] += std::chrono::duration<double>(Clock::now() - start).count();
  }
}

}  // namespace bp::cpu

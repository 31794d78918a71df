// Gathering the times of an executable's steps into a Profile. Used by CompiledStep::profile.
#pragma once

#include <unordered_map>
#include <vector>

#include "bp/profile.h"
#include "cpu/exec/executable.h"

namespace bp::runtime {

class StepTimes {
 public:
  // After a timed run: what it took, inside the bodies of its steps too.
  void add(const cpu::Executable& executable, const std::vector<std::vector<double>>& seconds);
  // Medians, beside the limits.
  Profile profile(const cpu::Executable& executable, const MachineLimits& limits) const;

 private:
  struct Samples {
    std::vector<double> seconds;
    double runs = 1;
  };
  struct Writer;
  void add_bodies(const cpu::Step& step);

  int runs_ = 0;
  std::unordered_map<const cpu::Step*, Samples> samples_;
};

// Measured at the first call with so many threads, kept for the life of the process.
const MachineLimits& machine_limits(int threads);

}  // namespace bp::runtime
